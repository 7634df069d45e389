//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clew_loadtest::Error;
use clew_loadtest::check::Order;
use clew_loadtest::ledger::Ledger;
use clew_loadtest::send::{Extent, Pace};
use clew_loadtest::target::{Compression, Manners, Protocol};
use clew_loadtest::workload::{DataSet, GENERATOR_VERSION, TRACE_SPANS_MEAN};
use clew_model::UnixNanos;

use crate::bench_command::{BenchArgs, CompareArgs};
use crate::trial_commands::{OverloadArgs, SoakArgs};

/// How many traces are sent when nothing is said.
const TRACES_DEFAULT: u64 = 5000;
/// The time between traces when neither their number nor a rate says it.
const INTERVAL_DEFAULT: Duration = Duration::from_micros(400);

/// Load test for trace stores that take OTLP and answer the Tempo API.
#[derive(Debug, Parser)]
#[command(name = "clew-loadtest", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send traces, with reads meanwhile and a check afterwards if wanted
    Run(Box<RunArgs>),
    /// Check a data set that was sent before
    Verify(VerifyArgs),
    /// Measure what queries of a data set that was sent before cost
    Queries(QueriesArgs),
    /// Measure what ingest, storage and queries of a fixed data set cost, on a server of one's own
    Bench(BenchArgs),
    /// Send from several tenants with reads, kill a server of one's own meanwhile, check everything
    Soak(SoakArgs),
    /// Offer a server of one's own twice what it can take, check what it acknowledged
    Overload(OverloadArgs),
    /// Show two results of `bench` side by side
    Compare(CompareArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) send: SendArgs,
    #[command(flatten)]
    pub(crate) check: CheckArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    /// Check afterwards that everything acknowledged is found
    #[arg(long)]
    pub(crate) verify: bool,
    /// Wait so long between sending and checking, for servers that show spans late
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub(crate) settle: Duration,
    /// Write what was sent and acknowledged to this file, for `verify` and `queries`
    #[arg(long)]
    pub(crate) ledger: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) sent: SentArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) check: CheckArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

#[derive(Debug, Args)]
pub(crate) struct QueriesArgs {
    #[command(flatten)]
    pub(crate) sent: SentArgs,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) check: CheckArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    /// Ask at least so many queries of each class
    #[arg(long, default_value_t = 20)]
    pub(crate) repeat: u64,
    /// Ask queries of each class at least for so long
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) class_time: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct SentArgs {
    /// The ledger file of the run that sent the data set; otherwise the data set is described by
    /// the options of that run, with --base, and everything counts as acknowledged
    #[arg(long)]
    ledger: Option<PathBuf>,
    #[command(flatten)]
    workload: WorkloadArgs,
}

impl SentArgs {
    pub(crate) fn ledger(&self) -> Result<Ledger, Error> {
        if let Some(path) = &self.ledger {
            return Ledger::load(path);
        }
        let Some(base) = self.workload.base else {
            let message = "give --ledger, or the options of the run together with --base";
            return Err(Error::Usage(message.to_owned()));
        };
        if self.workload.traces.is_none() {
            let message = "without --ledger the number of traces must be given with --traces";
            return Err(Error::Usage(message.to_owned()));
        }
        let data_set = self.workload.data_set(UnixNanos::from_seconds(base), None)?;
        Ok(Ledger::complete(data_set, self.workload.tenants > 0))
    }
}

#[derive(Debug, Args)]
pub(crate) struct WorkloadArgs {
    /// Chooses among workloads of the same size
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Services in the call graph, 10 to 2000
    #[arg(long, default_value_t = 20)]
    services: usize,
    /// Send so many traces (default 5000)
    #[arg(long, conflicts_with_all = ["spans", "duration"])]
    traces: Option<u64>,
    /// Send so many spans, up to the end of a wave of traces
    #[arg(long, conflicts_with = "duration")]
    spans: Option<u64>,
    /// Send for so long
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Traces whose spans arrive interleaved
    #[arg(long, default_value_t = 64)]
    concurrent_traces: u64,
    /// Time of the first trace, in seconds since the epoch (default: now less the spread; with
    /// --duration: now)
    #[arg(long)]
    base: Option<u64>,
    /// Time over which the starts of the traces are spread
    #[arg(long, default_value = "10m", value_parser = duration)]
    spread: Duration,
    /// Tenants that take turns, named by X-Scope-OrgID; 0 sends no such header
    #[arg(long, default_value_t = 0)]
    pub(crate) tenants: u64,
}

impl WorkloadArgs {
    /// The data set as of `now`; `rate` is the rate of spans, if there is one.
    pub(crate) fn data_set(&self, now: UnixNanos, rate: Option<f64>) -> Result<DataSet, Error> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let spread = nanos(self.spread);
        let interval_nanos = match (self.duration, self.spans, rate) {
            (Some(_), _, Some(rate)) if rate > 0.0 => {
                let seconds = TRACE_SPANS_MEAN as f64 / rate;
                nanos(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
            }
            (Some(_), ..) => nanos(INTERVAL_DEFAULT),
            (None, Some(spans), _) => spread / (spans / TRACE_SPANS_MEAN).max(1),
            (None, None, _) => spread / self.traces.unwrap_or(TRACES_DEFAULT).max(1),
        };
        let interval_nanos = interval_nanos.max(1);
        let open = self.duration.is_some() || self.spans.is_some();
        let traces = match open {
            // Whoever ends the run otherwise: more than can be sent.
            true => ((1 << 61) / interval_nanos).clamp(1, 1 << 36),
            false => self.traces.unwrap_or(TRACES_DEFAULT),
        };
        let before = if self.duration.is_some() { 0 } else { self.spread.as_secs() };
        let base = self.base.unwrap_or_else(|| now.as_seconds().saturating_sub(before));
        let data_set = DataSet {
            generator: GENERATOR_VERSION,
            seed: self.seed,
            base_unix_nanos: UnixNanos::from_seconds(base).0,
            interval_nanos,
            services: self.services,
            concurrent_traces: self.concurrent_traces,
            traces,
            tenants: self.tenants.max(1),
        };
        data_set.check()?;
        Ok(data_set)
    }

    pub(crate) fn extent(&self) -> Extent {
        match (self.duration, self.spans) {
            (Some(time), _) => Extent::Time(time),
            (None, Some(spans)) => Extent::Spans(spans),
            (None, None) => Extent::Traces,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Where the Tempo API answers
    #[arg(long, default_value = "http://127.0.0.1:3200")]
    pub(crate) query_url: String,
    /// A header for every request, as Name=value; may be given several times
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(String, String)>,
    /// How long an answer is waited for
    #[arg(long, default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// The server's process on this machine, to measure its CPU time and memory
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

impl TargetArgs {
    pub(crate) fn manners(&self, tenant_header: bool) -> Manners {
        Manners { headers: self.headers.clone(), timeout: self.timeout, tenant_header }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Where spans go (default http://127.0.0.1:4317, with --protocol http port 4318)
    #[arg(long)]
    otlp_url: Option<String>,
    /// How spans are sent
    #[arg(long, value_enum, default_value_t = Protocol::Grpc)]
    pub(crate) protocol: Protocol,
    /// How requests are compressed
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub(crate) compression: Compression,
    /// Connections
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) connections: u16,
    /// Requests under way per connection
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) in_flight: u16,
    /// Spans per second (default: as many as the server takes)
    #[arg(long, value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// Let the rate rise from zero over this time
    #[arg(long, default_value = "0s", value_parser = duration, requires = "rate")]
    ramp: Duration,
    /// Make every request before the first is sent, so that making them costs nothing meanwhile
    /// (needs 570 bytes of memory per span)
    #[arg(long, conflicts_with = "duration")]
    pub(crate) make_ahead: bool,
    /// Repeat a request for so long before its fate counts as unknown
    #[arg(long, default_value = "2m", value_parser = duration)]
    pub(crate) retry_for: Duration,
    /// Reads per second meanwhile: half of them searches, half look for what was just acknowledged
    #[arg(long, default_value_t = 0.0)]
    pub(crate) reads: f64,
    /// Count a span as late that is found later than this after its ack
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) found_within: Duration,
}

impl SendArgs {
    pub(crate) fn otlp_url(&self) -> String {
        let port = if self.protocol == Protocol::Grpc { 4317 } else { 4318 };
        self.otlp_url.clone().unwrap_or_else(|| format!("http://127.0.0.1:{port}"))
    }

    pub(crate) fn pace(&self) -> Pace {
        match self.rate {
            Some(spans_per_second) => Pace::Rate { spans_per_second, ramp: self.ramp },
            None => Pace::FlatOut,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Compare so many traces span by span, spread evenly over all; 0 for all of them
    #[arg(long, default_value_t = 500)]
    sample: usize,
    /// Which traces a search must return
    #[arg(long, value_enum, default_value_t = Order::Newest)]
    order: Order,
}

impl CheckArgs {
    pub(crate) fn depth(&self) -> clew_loadtest::verify::Depth {
        let traces = if self.sample == 0 { usize::MAX } else { self.sample };
        clew_loadtest::verify::Depth { traces, order: self.order }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Write the report as JSON to this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Write the report with plots to this file
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
    /// No progress line
    #[arg(long)]
    pub(crate) quiet: bool,
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("a duration is a number with ms, s, m or h, such as 90s".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| format!("not a number: {number}"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a header is given as Name=value")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("must be a number above zero".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(arguments: &[&str]) -> WorkloadArgs {
        let arguments = ["clew-loadtest", "run"].iter().chain(arguments);
        match Cli::try_parse_from(arguments).unwrap().command {
            Command::Run(run) => run.workload,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        for wrong in ["", "5", "s", "5d", "1e400s", "-3s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn traces_are_spread_up_to_now() {
        let now = UnixNanos::from_seconds(10_000);
        let data_set = workload(&["--traces", "600"]).data_set(now, None).unwrap();
        assert_eq!(data_set.base_unix_nanos, UnixNanos::from_seconds(9_400).0);
        assert_eq!((data_set.traces, data_set.interval_nanos), (600, 1_000_000_000));
    }

    #[test]
    fn a_timed_run_goes_with_the_clock() {
        let now = UnixNanos::from_seconds(10_000);
        let timed = workload(&["--duration", "1m"]);
        assert_eq!(timed.extent(), Extent::Time(Duration::from_secs(60)));
        let data_set = timed.data_set(now, Some(2000.0)).unwrap();
        assert_eq!((data_set.base_unix_nanos, data_set.interval_nanos), (now.0, 10_000_000));
        // Even the slowest rate leaves a data set that is in range.
        assert!(timed.data_set(now, Some(0.01)).is_ok());
        assert!(timed.data_set(now, None).is_ok());
    }

    #[test]
    fn what_was_sent_needs_a_base_or_a_ledger() {
        let ledger = |arguments: &[&str]| {
            let arguments = ["clew-loadtest", "verify"].iter().chain(arguments);
            match Cli::try_parse_from(arguments).unwrap().command {
                Command::Verify(verify) => verify.sent.ledger(),
                other => panic!("{other:?}"),
            }
        };
        assert!(ledger(&["--traces", "5"]).is_err());
        assert!(ledger(&["--base", "1000000"]).is_err());
        assert_eq!(ledger(&["--traces", "5", "--base", "1000000"]).unwrap().data_set.traces, 5);
        assert!(ledger(&["--ledger", "/nonexistent"]).is_err());
    }
}
