//! More than a server can take: first what it takes from senders that wait for it, then twice that
//! from senders that do not. It must stay up within its memory, tell the rest to come back, take
//! about as much as before, and hold everything it acknowledged.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clew_node::Deps;
use serde::Serialize;

use crate::error::Error;
use crate::measure::{Point, Stats, Totals};
use crate::own_server::{OwnServer, Setup};
use crate::report::Report;
use crate::send::{Cast, Extent, Outcome, Pace, Plan, run as send};
use crate::soak::Progress;
use crate::target::{Compression, Manners, Otlp, Protocol, Tempo};
use crate::verify::{Depth, Truth, verify};
use crate::workload::{DataSet, GENERATOR_VERSION};

/// How many times the sustainable rate is offered.
const TIMES: f64 = 2.0;
/// How long a refused request is repeated; then its spans are lost to the client.
const RETRY_FOR: Duration = Duration::from_secs(2);

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
    /// Its peak memory, in bytes.
    pub peak_rss_bytes: u64,
    /// What it must not exceed.
    pub memory_max: u64,
}

impl Overload {
    /// Whether the promises were kept; how much was taken is for people to judge.
    pub fn is_clean(&self) -> bool {
        self.refused == self.hinted && self.peak_rss_bytes <= self.memory_max
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
    let Trial { outcome, totals, .. } = trial(options, Pace::FlatOut, deps, &mut progress).await?;
    let sustained = totals.spans_acked as f64 / outcome.elapsed.as_secs_f64().max(1e-9);
    let offered = sustained * TIMES;
    let pace = Pace::Rate { spans_per_second: offered.max(1.0), ramp: Duration::ZERO };
    let trial = trial(options, pace, deps, &mut progress).await?;
    let Trial { mut server, outcome, totals, stats, tempo } = trial;
    let overload = Overload {
        sustained,
        offered,
        taken: totals.spans_acked as f64 / outcome.elapsed.as_secs_f64().max(1e-9),
        refused: totals.attempts_retried,
        hinted: totals.attempts_hinted,
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
    totals: Totals,
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
    let (connections, in_flight) = if pace == Pace::FlatOut { (4, 4) } else { (16, 64) };
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
    let manners =
        Manners { headers: Vec::new(), timeout: Duration::from_secs(30), tenant_header: false };
    let tempo = Tempo::new(&server.query_url(), manners.clone(), deps.clock.clone())?;
    let stats = Arc::new(Stats::default());
    let process = server.process().clone();
    let cast = Cast {
        otlp: Otlp::new(
            &server.otlp_url(),
            Protocol::Grpc,
            Compression::None,
            connections,
            manners,
            deps.clock.clone(),
        )?,
        tempo: tempo.clone(),
        process: Some(&process),
        stats: Arc::clone(&stats),
        interrupted: Arc::new(AtomicBool::new(false)),
    };
    let told = |point: &Point, in_flight| progress(Progress::Sent(point, in_flight, &stats));
    let outcome = send(&plan, cast, deps, told).await?;
    server.check_alive()?;
    let totals = stats.totals();
    Ok(Trial { server, outcome, totals, stats, tempo })
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
