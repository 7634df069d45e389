//! More than a server can take: first what it takes from senders that wait for it, then twice that
//! from senders that do not. It must stay up within its memory, tell the rest to come back, take
//! about as much as before, and hold everything it acknowledged.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clew_node::Deps;
use serde::Serialize;

use crate::error::Error;
use crate::measure::{Point, Stats};
use crate::own_server::{OwnServer, Setup};
use crate::report::Report;
use crate::send::{Cast, Extent, Outcome, Pace, Plan, run as send};
use crate::soak::Progress;
use crate::target::{Manners, Tempo};
use crate::verify::{Depth, Truth, verify};
use crate::workload::{DataSet, GENERATOR_VERSION};

/// How many times the sustainable rate is offered.
const TIMES: f64 = 2.0;
/// How long a refused request is repeated; then its spans are lost to the client.
const RETRY_FOR: Duration = Duration::from_secs(2);
/// How long an answer is waited for: what exporters do when nothing else is said.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// About how many spans a request carries.
const SPANS_PER_REQUEST: f64 = 350.0;
/// Connections of senders that do not wait.
const CONNECTIONS: usize = 16;
/// The most requests under way on one of them; each holds some 170 kB here.
const IN_FLIGHT_MAX: usize = 256;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server.
    pub setup: Setup,
    /// How long to send, each time.
    pub time: Duration,
    /// What the server's memory must not exceed, in bytes.
    pub memory_max: u64,
    /// How thoroughly to check.
    pub depth: Depth,
}

/// How a server bore it.
#[derive(Debug, Clone, Serialize)]
pub struct Overload {
    /// Spans per second it took from senders that wait.
    pub sustained: f64,
    /// Spans per second it was offered then.
    pub offered: f64,
    /// Spans per second it took of those.
    pub taken: f64,
    /// Attempts it refused for now.
    pub refused: u64,
    /// How many of these it gave a pause for.
    pub hinted: u64,
    /// Attempts that it did not answer in the time an exporter waits.
    pub unanswered: u64,
    /// Its peak memory, in bytes.
    pub peak_rss_bytes: u64,
    /// What it must not exceed.
    pub memory_max: u64,
}

impl Overload {
    /// Whether the promises were kept; how much was taken is for people to judge.
    pub fn is_clean(&self) -> bool {
        let answered = self.refused == self.hinted && self.unanswered == 0;
        answered && self.peak_rss_bytes <= self.memory_max
    }
}

/// Runs it.
///
/// # Errors
/// [`Error::Server`] when the server does not start or ends; otherwise what went wrong is in the
/// report.
pub async fn run(
    options: &Options,
    deps: &Deps,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Report, Error> {
    let Trial { stats, .. } = trial(options, Pace::FlatOut, deps, &mut progress).await?;
    let sustained = rate(&stats.points(), options.time);
    let offered = sustained * TIMES;
    let pace = Pace::Rate { spans_per_second: offered.max(1.0), ramp: Duration::ZERO };
    let trial = trial(options, pace, deps, &mut progress).await?;
    let Trial { mut server, outcome, stats, tempo } = trial;
    let totals = stats.totals();
    let overload = Overload {
        sustained,
        offered,
        taken: rate(&stats.points(), options.time),
        refused: totals.attempts_put_off,
        hinted: totals.attempts_hinted,
        unanswered: totals.attempts_unanswered,
        peak_rss_bytes: server.process().usage()?.peak_rss_bytes,
        memory_max: options.memory_max,
    };
    let report = Report::about(&server.query_url(), &outcome.ledger.data_set);
    let report = Report { overload: Some(overload), ..report.sent(&outcome, &stats) };
    progress(Progress::Checking("making the right answers"));
    let truth = Truth::new(outcome.ledger, &deps.tasks).await?;
    let step = |what: &str| progress(Progress::Checking(what));
    let verified = verify(&truth, &tempo, options.depth, step).await?;
    server.kill().await;
    Ok(Report { verified: Some(verified), ..report })
}

/// A server after it was sent to.
struct Trial {
    server: OwnServer,
    outcome: Outcome,
    stats: Arc<Stats>,
    tempo: Tempo,
}

async fn trial(
    options: &Options,
    pace: Pace,
    deps: &Deps,
    progress: &mut impl FnMut(Progress<'_>),
) -> Result<Trial, Error> {
    let mut server = OwnServer::start(options.setup.clone(), &deps.clock).await?;
    // Senders that wait are few; those that do not are as many as the rate needs.
    let (connections, in_flight) = match pace {
        Pace::FlatOut => (4, 4),
        Pace::Rate { spans_per_second, .. } => (CONNECTIONS, in_flight(spans_per_second)),
    };
    let plan = Plan {
        data_set: data_set(deps),
        extent: Extent::Time(options.time),
        pace,
        connections,
        in_flight,
        make_ahead: false,
        makers: 2,
        retry_for: RETRY_FOR,
        reads_per_second: 0.0,
        found_within: Duration::from_secs(1),
        tenant_header: false,
    };
    let manners = Manners { headers: Vec::new(), timeout: ANSWER_WITHIN, tenant_header: false };
    let tempo = Tempo::new(&server.query_url(), manners.clone(), deps.clock.clone())?;
    let stats = Arc::new(Stats::default());
    let process = server.process().clone();
    let cast = Cast {
        otlp: server.otlp(connections, manners, deps.clock.clone())?,
        tempo: tempo.clone(),
        process: Some(&process),
        stats: Arc::clone(&stats),
        interrupted: Arc::new(AtomicBool::new(false)),
    };
    let told = |point: &Point, in_flight| progress(Progress::Sent(point, in_flight, &stats));
    let outcome = send(&plan, cast, deps, told).await?;
    server.check_alive()?;
    Ok(Trial { server, outcome, stats, tempo })
}

/// Requests under way per connection while no answer comes as long as it is waited for.
fn in_flight(spans_per_second: f64) -> usize {
    let requests = spans_per_second / SPANS_PER_REQUEST * ANSWER_WITHIN.as_secs_f64();
    let is_enough = |each: &usize| (each * CONNECTIONS) as f64 >= requests;
    (1..IN_FLIGHT_MAX).find(is_enough).unwrap_or(IN_FLIGHT_MAX)
}

/// Acknowledged spans per second while spans were offered, `time` long; what comes in of the rest
/// when no more is offered would make it look slower or faster than it is.
fn rate(points: &[Point], time: Duration) -> f64 {
    let (mut spans, mut end) = (0.0, 0.0);
    let within = |point: &&Point| point.at_seconds <= time.as_secs_f64() + 0.5;
    for point in points.iter().take_while(within) {
        spans += point.spans_per_second * (point.at_seconds - end);
        end = point.at_seconds;
    }
    if end > 0.0 { spans / end } else { 0.0 }
}

/// More than can be sent in the time.
fn data_set(deps: &Deps) -> DataSet {
    const INTERVAL_NANOS: u64 = 400_000;
    DataSet {
        generator: GENERATOR_VERSION,
        seed: 42,
        base_unix_nanos: deps.clock.now_unix().0,
        interval_nanos: INTERVAL_NANOS,
        services: 20,
        concurrent_traces: 64,
        traces: 1 << 36,
        tenants: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Summary;

    #[test]
    fn the_rate_is_of_the_time_while_spans_were_offered() {
        let point = |at_seconds, spans_per_second| Point {
            at_seconds,
            spans_per_second,
            retried: 0,
            ack: Summary::default(),
            read: Summary::default(),
            found: Summary::default(),
            cpu_cores: None,
            rss_bytes: None,
        };
        let points = [point(1.0, 100.0), point(2.0, 300.0), point(3.0, 5.0), point(9.0, 0.0)];
        assert!((rate(&points, Duration::from_secs(2)) - 200.0).abs() < 1e-9);
        assert!((rate(&[], Duration::from_secs(2))).abs() < 1e-9);
    }

    #[test]
    fn senders_are_as_many_as_the_rate_needs() {
        assert_eq!(in_flight(1.0), 1);
        assert_eq!(in_flight(56_000.0), 100);
        assert_eq!(in_flight(1e9), 256);
    }
}
