//! A long run against a server or a cluster of one's own: several tenants, reads meanwhile, a crash
//! in the middle, and at the end every acknowledged span is looked for. Of a cluster every node but
//! the one that is talked to is killed and started again, one after the other, and the longest time
//! without a complete answer is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clew_model::UnixNanos;
use clew_node::Deps;
use http::StatusCode;
use serde::Serialize;

use crate::error::Error;
use crate::measure::{Point, Stats};
use crate::own_cluster::OwnCluster;
use crate::own_server::Setup;
use crate::report::Report;
use crate::send::{Cast, Extent, Pace, Plan, run as send};
use crate::target::{Answer, Manners, Seconds, Tempo};
use crate::verify::{Depth, Truth, verify};
use crate::workload::{DataSet, GENERATOR_VERSION, TRACE_SPANS_MEAN};

/// Connections to the server.
const CONNECTIONS: usize = 4;
/// Between two searches that watch whether there are answers.
const WATCH_POLL: Duration = Duration::from_millis(50);
/// How far back these look.
const WATCHED_NANOS: u64 = 60_000_000_000;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server.
    pub setup: Setup,
    /// How many nodes; one is a server by itself.
    pub nodes: usize,
    /// How long to send; the server is killed after half of it, nodes of a cluster in even steps.
    pub time: Duration,
    /// Tenants that take turns.
    pub tenants: u64,
    /// Spans per second.
    pub rate: f64,
    /// Reads per second.
    pub reads: f64,
    /// How thoroughly to check.
    pub depth: Depth,
}

/// How a server was killed.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Crash {
    /// How long spans had been sent, in seconds.
    pub at_seconds: f64,
    /// From then until it was ready again, in seconds.
    pub away_seconds: f64,
    /// The longest time from the crash before to the one after it, or to the end, that the server
    /// that is talked to gave no complete answer to a search, in seconds.
    pub unanswered_seconds: f64,
}

/// What is told while it runs.
pub enum Progress<'a> {
    /// A second of sending, with the requests under way.
    Sent(&'a Point, u64, &'a Stats),
    /// A step of checking.
    Checking(&'a str),
}

/// Runs it.
///
/// # Errors
/// [`Error::Server`] when the server does not start, or not again after the crash; otherwise what
/// went wrong is in the report.
pub async fn run(
    options: &Options,
    deps: &Deps,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Report, Error> {
    let setup = options.setup.with(&["multitenancy_enabled=true"]);
    let mut cluster = OwnCluster::start(&setup, options.nodes, &deps.clock).await?;
    let data_set = data_set(options, deps.clock.now_unix());
    data_set.check()?;
    let plan = Plan {
        data_set,
        extent: Extent::Time(options.time),
        pace: Pace::Rate { spans_per_second: options.rate, ramp: Duration::ZERO },
        connections: CONNECTIONS,
        in_flight: 4,
        make_ahead: false,
        makers: 2,
        retry_for: Duration::from_secs(120),
        reads_per_second: options.reads,
        found_within: Duration::from_secs(1),
        tenant_header: true,
    };
    let manners =
        Manners { headers: Vec::new(), timeout: Duration::from_secs(30), tenant_header: true };
    let tempo = Tempo::new(&cluster.first.query_url(), manners.clone(), deps.clock.clone())?;
    let stats = Arc::new(Stats::default());
    let process = cluster.first.process().clone();
    let cast = Cast {
        otlp: cluster.first.otlp(CONNECTIONS, manners, deps.clock.clone())?,
        tempo: tempo.clone(),
        process: Some(&process),
        stats: Arc::clone(&stats),
        interrupted: Arc::new(AtomicBool::new(false)),
    };
    let told = |point: &Point, in_flight| progress(Progress::Sent(point, in_flight, &stats));
    let report = Report::about(&cluster.first.query_url(), &plan.data_set);
    let outage = Outage::default();
    let sending = AtomicBool::new(true);
    let sent = async {
        let sent = send(&plan, cast, deps, told).await;
        sending.store(false, Ordering::Relaxed);
        sent
    };
    let (sent, crashes, ()) = futures::join!(
        sent,
        crash(&mut cluster, options.time, &outage, deps),
        watch(&tempo, &outage, &sending, deps)
    );
    let (mut crashes, outcome) = (crashes?, sent?);
    if let Some(last) = crashes.last_mut() {
        last.unanswered_seconds = last.unanswered_seconds.max(outage.take());
    }
    cluster.check_alive()?;
    let report = Report { crashes, ..report.sent(&outcome, &stats) };
    progress(Progress::Checking("making the right answers"));
    let truth = Truth::new(outcome.ledger, &deps.tasks).await?;
    let step = |what: &str| progress(Progress::Checking(what));
    let verified = verify(&truth, &tempo, options.depth, step).await?;
    cluster.kill().await;
    Ok(Report { verified: Some(verified), ..report })
}

/// Kills nodes one after the other, the next one when all is well again.
async fn crash(
    cluster: &mut OwnCluster,
    time: Duration,
    outage: &Outage,
    deps: &Deps,
) -> Result<Vec<Crash>, Error> {
    let start = deps.clock.monotonic();
    let count = u32::try_from(cluster.others.len().max(1)).unwrap_or(u32::MAX);
    let step = time / (count + 1);
    let mut crashes = Vec::new();
    for number in 0..count {
        let at = start.saturating_add(step * (number + 1));
        deps.clock.sleep(at.saturating_sub(deps.clock.monotonic())).await;
        let killed = deps.clock.monotonic();
        let server = match cluster.others.get_mut(number as usize) {
            Some(server) => server,
            None => &mut cluster.first,
        };
        server.crash_and_restart().await?;
        let ready = deps.clock.monotonic();
        cluster.wait_until_healthy().await?;
        crashes.push(Crash {
            at_seconds: killed.saturating_sub(start).as_secs_f64(),
            away_seconds: ready.saturating_sub(killed).as_secs_f64(),
            unanswered_seconds: outage.take(),
        });
    }
    Ok(crashes)
}

/// The longest time without an answer, in milliseconds.
#[derive(Default)]
struct Outage(AtomicU64);

impl Outage {
    fn note(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_max(millis, Ordering::Relaxed);
    }

    /// It in seconds; begins anew.
    fn take(&self) -> f64 {
        self.0.swap(0, Ordering::Relaxed) as f64 / 1e3
    }
}

/// Searches again and again while spans are sent.
async fn watch(tempo: &Tempo, outage: &Outage, sending: &AtomicBool, deps: &Deps) {
    let mut answered = deps.clock.monotonic();
    while sending.load(Ordering::Relaxed) {
        deps.clock.sleep(WATCH_POLL).await;
        let now = deps.clock.now_unix().0;
        let range = Seconds::around(&(now.saturating_sub(WATCHED_NANOS)..now));
        let answer = tempo.search(0, "{}", 1, range).await;
        let now = deps.clock.monotonic();
        outage.note(now.saturating_sub(answered));
        if answer.is_ok_and(|answer| is_complete(&answer)) {
            answered = now;
        }
    }
}

fn is_complete(answer: &Answer) -> bool {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    answer.status == StatusCode::OK && body["status"] != "PARTIAL"
}

/// More than can be sent in the time.
fn data_set(options: &Options, now: UnixNanos) -> DataSet {
    let interval = Duration::try_from_secs_f64(TRACE_SPANS_MEAN as f64 / options.rate.max(1e-3));
    let interval = interval.unwrap_or(Duration::MAX).as_nanos();
    let interval_nanos = u64::try_from(interval).unwrap_or(u64::MAX).max(1);
    DataSet {
        generator: GENERATOR_VERSION,
        seed: 42,
        base_unix_nanos: now.0,
        interval_nanos,
        services: 20,
        concurrent_traces: 64,
        traces: ((1 << 61) / interval_nanos).clamp(1, 1 << 36),
        tenants: options.tenants,
    }
}
