//! `clew probe`: watches a cluster from outside. It writes traces that it knows through the public
//! door and reads them back in every way that users do, the newest at once and older ones again.
//!
//! It shares nothing with what it watches but the protocols, so that it says what users see. A check
//! has one of these outcomes:
//!
//! | outcome | meaning |
//! |---|---|
//! | `ok` | as it should be |
//! | `missing` | answered, and the trace was not there within the timeout |
//! | `wrong` | answered, with something that was never written |
//! | `partial` | the answer says that something is missing |
//! | `error` | no answer, or an error |
//! | `skipped` | this version of the cluster does not have it |

mod checks;
mod door;
mod trace;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use clew_node::http_server::{self, Limits};
use clew_node::{Clock, Deps, Metrics, Rng, Stop};
use prometheus::{GaugeVec, HistogramVec, IntCounterVec};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use self::checks::Check;
use self::door::Door;
use self::trace::KnownTrace;
use crate::cli;

/// Traces that are remembered to be read again later.
const REMEMBERED_MAX: usize = 256;

/// What is probed.
pub(crate) struct Settings {
    door: Door,
    timeout: Duration,
}

impl Settings {
    /// Checks what the command line says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn of(options: &cli::Probe) -> Result<Settings, String> {
        let tenant = options.tenant.as_deref();
        let door = Door::new(&options.otlp_url, &options.query_url, tenant)?;
        Ok(Settings { door, timeout: options.timeout })
    }
}

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Missing,
    Wrong(String),
    Partial(String),
    Error(String),
    Skipped(String),
}

impl Outcome {
    const fn as_str(&self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Missing => "missing",
            Outcome::Wrong(_) => "wrong",
            Outcome::Partial(_) => "partial",
            Outcome::Error(_) => "error",
            Outcome::Skipped(_) => "skipped",
        }
    }

    fn detail(&self) -> &str {
        match self {
            Outcome::Ok | Outcome::Missing => "",
            Outcome::Wrong(detail)
            | Outcome::Partial(detail)
            | Outcome::Error(detail)
            | Outcome::Skipped(detail) => detail,
        }
    }

    const fn is_good(&self) -> bool {
        matches!(self, Outcome::Ok | Outcome::Skipped(_))
    }
}

/// A check that was made, and how long it took.
struct Made {
    check: Check,
    outcome: Outcome,
    /// From the acknowledgement (or the request, for those that write) to the end.
    took: Duration,
}

/// What is exported.
struct ProbeMetrics {
    checks: IntCounterVec,
    seconds: HistogramVec,
    last_success: GaugeVec,
}

impl ProbeMetrics {
    fn new(metrics: &Metrics) -> ProbeMetrics {
        let made = ProbeMetrics {
            checks: metrics.counters(
                "clew_probe_checks_total",
                "Checks made from outside, by what was checked and how it ended.",
                &["check", "outcome"],
            ),
            seconds: metrics.seconds_by(
                "clew_probe_duration_seconds",
                "Time until a check was ok: of write, from the request to the acknowledgement; of \
                 others, from the acknowledgement until the trace was found.",
                &["check"],
            ),
            last_success: metrics.float_gauges(
                "clew_probe_last_success_timestamp_seconds",
                "When the check was ok last, Unix seconds.",
                &["check"],
            ),
        };
        // A series that is there from the first moment has a rate when the first failure comes.
        for check in Check::ALL {
            for outcome in ["ok", "missing", "wrong", "partial", "error"] {
                made.checks.with_label_values(&[check.as_str(), outcome]).inc_by(0);
            }
        }
        made
    }

    #[allow(clippy::cast_precision_loss, reason = "seconds fit a double")]
    fn note(&self, made: &Made, clock: &Clock) {
        let check = made.check.as_str();
        self.checks.with_label_values(&[check, made.outcome.as_str()]).inc();
        if made.outcome == Outcome::Ok {
            self.seconds.with_label_values(&[check]).observe(made.took.as_secs_f64());
            let now = clock.now_unix().as_seconds() as f64;
            self.last_success.with_label_values(&[check]).set(now);
        }
    }
}

/// Makes rounds of checks and remembers what was written.
struct Prober {
    settings: Settings,
    clock: Clock,
    rng: Rng,
    remembered: VecDeque<KnownTrace>,
}

impl Prober {
    fn new(settings: Settings, deps: &Deps) -> Prober {
        let (clock, rng) = (deps.clock.clone(), deps.rng.clone());
        Prober { settings, clock, rng, remembered: VecDeque::new() }
    }

    /// Writes a trace, reads it every way, and reads an older one again.
    async fn round(&mut self) -> Vec<Made> {
        let mut all = Vec::new();
        let known = KnownTrace::new(&self.rng, self.clock.now_unix());
        let (door, timeout) = (&self.settings.door, self.settings.timeout);
        let began = self.clock.monotonic();
        let written = checks::write(door, &known, timeout, &self.clock).await;
        let acknowledged = self.clock.monotonic();
        let took = acknowledged.saturating_sub(began);
        let is_written = written == Outcome::Ok;
        all.push(Made { check: Check::Write, outcome: written, took });
        if is_written {
            for check in Check::OF_NEW {
                let outcome = checks::find(check, door, &known, timeout, &self.clock).await;
                let took = self.clock.monotonic().saturating_sub(acknowledged);
                all.push(Made { check, outcome, took });
            }
        }
        if !self.remembered.is_empty() {
            let chosen = self.rng.below(self.remembered.len() as u64);
            let older = &self.remembered[usize::try_from(chosen).unwrap_or(0)];
            let began = self.clock.monotonic();
            let outcome = checks::find(Check::Older, door, older, timeout, &self.clock).await;
            let took = self.clock.monotonic().saturating_sub(began);
            all.push(Made { check: Check::Older, outcome, took });
        }
        if is_written {
            self.remembered.push_back(known);
            if self.remembered.len() > REMEMBERED_MAX {
                self.forget_one();
            }
        }
        all
    }

    /// Forgets a trace, not the oldest: what is kept thins out with age.
    fn forget_one(&mut self) {
        let chosen = self.rng.below(self.remembered.len() as u64 / 2) * 2 + 1;
        self.remembered.remove(usize::try_from(chosen).unwrap_or(1));
    }
}

/// Between two rounds of which the first did not find everything.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// One round, or more within that time as long as something does not answer; what the last one found.
///
/// # Errors
/// The report, if a check was not good.
pub(crate) async fn once(settings: Settings, within: Duration) -> Result<String, String> {
    let deps = Deps::system(1);
    let until = deps.clock.monotonic().saturating_add(within);
    let mut prober = Prober::new(settings, &deps);
    let line = |made: &Made| {
        let (check, outcome) = (made.check.as_str(), made.outcome.as_str());
        let detail = made.outcome.detail();
        let space = if detail.is_empty() { "" } else { "  " };
        format!("{check:<8} {outcome:<8} {:>5} ms{space}{detail}\n", made.took.as_millis())
    };
    loop {
        let made = prober.round().await;
        let report: String = made.iter().map(line).collect();
        if made.iter().all(|made| made.outcome.is_good()) {
            return Ok(report);
        }
        // What was acknowledged has to be there, and right.
        let is_final = |made: &Made| matches!(made.outcome, Outcome::Wrong(_) | Outcome::Missing);
        if made.iter().any(is_final) || deps.clock.monotonic() + RETRY_DELAY >= until {
            return Err(format!("not everything was found\n{}", report.trim_end()));
        }
        deps.clock.sleep(RETRY_DELAY).await;
    }
}

/// Rounds until a signal, with metrics on `listen`.
///
/// # Errors
/// If the port or the signals cannot be had.
pub(crate) async fn run(
    settings: Settings,
    listen: SocketAddr,
    interval: Duration,
) -> Result<String, String> {
    let telemetry = clew_node::telemetry::init(&clew_node::telemetry::Config::default(), "clew");
    let telemetry = telemetry.map_err(|error| error.to_string())?;
    let deps = Deps::system(1);
    clew_node::telemetry::register_process_metrics(&deps.metrics, &deps.clock);
    let listener = TcpListener::bind(listen).await;
    let listener = listener.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let metrics = Arc::new(ProbeMetrics::new(&deps.metrics));
    let stop = Stop::new();
    let router = Router::new()
        .route("/ready", get(|| async { "ready\n" }))
        .route("/metrics", get(render))
        .with_state(deps.metrics.clone());
    let (clock, tasks) = (deps.clock.clone(), deps.tasks.clone());
    let serving =
        http_server::serve(listener, router, Limits::default(), clock, tasks, stop.clone());
    deps.tasks.spawn(serving);
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut prober = Prober::new(settings, &deps);
    tracing::info!(%listen, interval_seconds = interval.as_secs_f64(), "probing");
    let rounds = async {
        loop {
            for made in prober.round().await {
                if !made.outcome.is_good() {
                    let (check, outcome) = (made.check.as_str(), made.outcome.as_str());
                    tracing::warn!(
                        check,
                        outcome,
                        detail = made.outcome.detail(),
                        "a check failed"
                    );
                }
                metrics.note(&made, &deps.clock);
            }
            deps.clock.sleep(interval).await;
        }
    };
    tokio::select! {
        () = rounds => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.stop();
    deps.tasks.finish().await;
    telemetry.shutdown();
    Ok(String::new())
}

async fn render(State(metrics): State<Metrics>) -> impl IntoResponse {
    let content_type = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, metrics.render().unwrap_or_default())
}

/// Asks a process whether it is ready.
///
/// # Errors
/// If it is not, or does not answer.
pub(crate) async fn health(options: cli::Health) -> Result<String, String> {
    let url = format!("{}/ready", options.url.trim_end_matches('/'));
    door::get_ready(&url, &Clock::system()).await.map(|()| "ready\n".to_owned())
}
