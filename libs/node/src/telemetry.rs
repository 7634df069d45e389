//! Logs, the process's own traces, and the metrics of the process itself.
//!
//! Own traces go out by OTLP only when an endpoint is configured, at most a sampled share of
//! requests, and never for the export of traces itself: the ingest path is not traced, so a process
//! that sends to itself does not feed on its own spans.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::{Clock, Metrics};

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of logs and own traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `text` or `json`.
    pub log_format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, or a filter such as
    /// `info,clew_ingester=debug`.
    pub log_level: String,
    /// Where own traces go, as `http://host:4317`; empty sends none.
    pub otlp_endpoint: String,
    /// The share of requests traced, 0 to 1.
    pub trace_ratio: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            otlp_endpoint: String::new(),
            trace_ratio: 0.1,
        }
    }
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log_level` is no filter.
    #[error("config key telemetry.log_level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// `trace_ratio` is no share.
    #[error("config key telemetry.trace_ratio: {0} is not between 0 and 1")]
    Ratio(f64),
    /// The exporter could not be built.
    #[error("config key telemetry.otlp_endpoint: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Another subscriber was installed before.
    #[error("logging is already set up: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// What must be shut down at the end so that the last own traces leave the process.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sends what is still buffered; errors only matter to own traces and are logged.
    pub fn shutdown(&self) {
        if let Some(provider) = &self.traces
            && let Err(error) = provider.shutdown_with_timeout(Duration::from_secs(2))
        {
            tracing::warn!(%error, "the last own traces were not sent");
        }
    }
}

/// The target of spans that become own traces; everything else is only logged.
pub const TRACE_TARGET: &str = "clew::request";

/// Installs the process's logger and, if configured, its tracer.
///
/// # Errors
/// [`TelemetryError`] naming the setting.
pub fn init(config: &Config, service: &'static str) -> Result<Telemetry, TelemetryError> {
    if !(0.0..=1.0).contains(&config.trace_ratio) {
        return Err(TelemetryError::Ratio(config.trace_ratio));
    }
    let filter = log_filter(&config.log_level)?;
    // Colours are for people: a file or a collector gets plain text.
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let logs = match config.log_format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_ansi(is_terminal)
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed(),
    };
    let registry = tracing_subscriber::registry().with(logs);
    if config.otlp_endpoint.is_empty() {
        registry.try_init()?;
        return Ok(Telemetry::default());
    }
    let provider = tracer_provider(config, service)?;
    let own_requests = tracing_subscriber::filter::filter_fn(|meta| meta.target() == TRACE_TARGET);
    let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer(service));
    registry.with(traces.with_filter(own_requests)).try_init()?;
    Ok(Telemetry { traces: Some(provider) })
}

/// The filter of `log_level`. openraft reports every step of an election as INFO and every peer that
/// does not answer as ERROR, many times a second; what matters of it is logged by `clew_raft`. It is
/// heard when asked for by name.
fn log_filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    if level.contains("openraft") {
        return EnvFilter::try_new(level);
    }
    EnvFilter::try_new(format!("{level},openraft=off"))
}

fn tracer_provider(
    config: &Config,
    service: &'static str,
) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(config.otlp_endpoint.clone())
        .with_timeout(Duration::from_secs(5))
        .build()?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::TraceIdRatioBased(config.trace_ratio))
        .with_resource(Resource::builder().with_service_name(service).build())
        .build())
}

/// Registers the metrics of the process itself: memory, CPU, file handles, start time.
///
/// Names follow the Prometheus client conventions (`process_*`).
pub fn register_process_metrics(metrics: &Metrics, clock: &Clock) {
    let start = metrics.float_gauge("process_start_time_seconds", "Start time, Unix seconds.");
    #[allow(clippy::cast_precision_loss, reason = "seconds fit a double")]
    start.set(clock.now_unix().as_seconds() as f64);
    let collector = process::ProcessCollector::new();
    if let Err(error) = metrics.registry().register(Box::new(collector)) {
        tracing::error!(%error, "process metrics could not be registered");
    }
}

mod process {
    //! Reads `/proc/self` when metrics are scraped.

    use prometheus::core::{Collector, Desc};
    use prometheus::proto::MetricFamily;
    use prometheus::{Counter, Gauge};

    /// Linux counts CPU time in hundredths of a second for user space (`USER_HZ`).
    const TICKS_PER_SECOND: f64 = 100.0;

    pub(super) struct ProcessCollector {
        cpu: Counter,
        resident: Gauge,
        virtual_memory: Gauge,
        open_fds: Gauge,
        max_fds: Gauge,
        threads: Gauge,
        allocated: Gauge,
    }

    impl ProcessCollector {
        #[allow(clippy::expect_used, reason = "metric names are constants of the code")]
        pub(super) fn new() -> ProcessCollector {
            let gauge = |name, help| Gauge::new(name, help).expect("a metric's name is valid");
            ProcessCollector {
                cpu: Counter::new("process_cpu_seconds_total", "User and system CPU time.")
                    .expect("a metric's name is valid"),
                resident: gauge("process_resident_memory_bytes", "Resident memory."),
                virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory."),
                open_fds: gauge("process_open_fds", "Open file descriptors."),
                max_fds: gauge("process_max_fds", "File descriptors that may be open."),
                threads: gauge("process_threads", "Threads."),
                allocated: gauge("clew_allocated_bytes", "Bytes the allocator has handed out."),
            }
        }

        fn read(&self) {
            if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
                self.read_stat(&stat);
            }
            if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
                self.open_fds.set(as_f64(fds.count() as u64));
            }
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
            if let Some(limit) = limit {
                self.max_fds.set(as_f64(limit));
            }
            // The allocator caches its statistics until the epoch is advanced.
            if tikv_jemalloc_ctl::epoch::advance().is_ok()
                && let Ok(bytes) = tikv_jemalloc_ctl::stats::allocated::read()
            {
                self.allocated.set(as_f64(bytes as u64));
            }
        }

        fn read_stat(&self, stat: &str) {
            // Fields are counted after the command's closing bracket (proc(5): state is field 3).
            let Some((_, rest)) = stat.rsplit_once(')') else { return };
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let number = |field: usize| {
                fields.get(field - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
            };
            let seconds = as_f64(number(14) + number(15)) / TICKS_PER_SECOND;
            let passed = seconds - self.cpu.get();
            if passed > 0.0 {
                self.cpu.inc_by(passed);
            }
            self.threads.set(as_f64(number(20)));
            self.virtual_memory.set(as_f64(number(23)));
            const PAGE_BYTES: u64 = 4096;
            self.resident.set(as_f64(number(24) * PAGE_BYTES));
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "metrics are doubles")]
    fn as_f64(number: u64) -> f64 {
        number as f64
    }

    impl Collector for ProcessCollector {
        fn desc(&self) -> Vec<&Desc> {
            let gauges = [
                &self.resident,
                &self.virtual_memory,
                &self.open_fds,
                &self.max_fds,
                &self.threads,
                &self.allocated,
            ];
            let mut desc = self.cpu.desc();
            desc.extend(gauges.into_iter().flat_map(Collector::desc));
            desc
        }

        fn collect(&self) -> Vec<MetricFamily> {
            self.read();
            let gauges = [
                &self.resident,
                &self.virtual_memory,
                &self.open_fds,
                &self.max_fds,
                &self.threads,
                &self.allocated,
            ];
            let mut families = self.cpu.collect();
            families.extend(gauges.into_iter().flat_map(Collector::collect));
            families
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_metrics_are_read_when_scraped() {
        let metrics = Metrics::new();
        register_process_metrics(&metrics, &Clock::system());
        let text = metrics.render().unwrap();
        let resident = text
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
            .and_then(|value| value.parse::<f64>().ok());
        assert!(resident.is_some_and(|bytes| bytes > 1e6), "{text}");
    }

    #[test]
    fn a_filter_is_checked_and_quiets_openraft() {
        assert!(log_filter("info,clew=").is_err() || log_filter("=x=y").is_err());
        assert!(log_filter("info").unwrap().to_string().contains("openraft=off"));
        assert!(log_filter("openraft=debug").unwrap().to_string().contains("openraft=debug"));
    }

    #[test]
    fn a_bad_ratio_is_refused() {
        let config = Config { trace_ratio: 1.5, ..Config::default() };
        assert!(matches!(init(&config, "test"), Err(TelemetryError::Ratio(_))));
    }
}
