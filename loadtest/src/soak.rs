//! A long run against a server of one's own: several tenants, reads meanwhile, one crash in the
//! middle, and at the end every acknowledged span is looked for.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clew_model::UnixNanos;
use clew_node::Deps;
use serde::Serialize;

use crate::error::Error;
use crate::measure::{Point, Stats};
use crate::own_server::{OwnServer, Setup};
use crate::report::Report;
use crate::send::{Cast, Extent, Pace, Plan, run as send};
use crate::target::{Compression, Manners, Otlp, Protocol, Tempo};
use crate::verify::{Depth, Truth, verify};
use crate::workload::{DataSet, GENERATOR_VERSION, TRACE_SPANS_MEAN};

/// Connections to the server.
const CONNECTIONS: usize = 4;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server.
    pub setup: Setup,
    /// How long to send; the server is killed after half of it.
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

/// How the server was killed.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Crash {
    /// How long spans had been sent, in seconds.
    pub at_seconds: f64,
    /// From then until it was ready again, in seconds.
    pub away_seconds: f64,
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
    let mut server = OwnServer::start(setup, &deps.clock).await?;
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
    let tempo = Tempo::new(&server.query_url(), manners.clone(), deps.clock.clone())?;
    let stats = Arc::new(Stats::default());
    let process = server.process().clone();
    let cast = Cast {
        otlp: Otlp::new(
            &server.otlp_url(),
            Protocol::Grpc,
            Compression::None,
            CONNECTIONS,
            manners,
            deps.clock.clone(),
        )?,
        tempo: tempo.clone(),
        process: Some(&process),
        stats: Arc::clone(&stats),
        interrupted: Arc::new(AtomicBool::new(false)),
    };
    let told = |point: &Point, in_flight| progress(Progress::Sent(point, in_flight, &stats));
    let crash = async {
        let start = deps.clock.monotonic();
        deps.clock.sleep(options.time / 2).await;
        let killed = deps.clock.monotonic();
        server.crash_and_restart().await?;
        let ready = deps.clock.monotonic();
        Ok::<_, Error>(Crash {
            at_seconds: killed.saturating_sub(start).as_secs_f64(),
            away_seconds: ready.saturating_sub(killed).as_secs_f64(),
        })
    };
    let (sent, crashed) = futures::join!(send(&plan, cast, deps, told), crash);
    let crash = crashed?;
    let outcome = sent?;
    server.check_alive()?;
    let report = Report::about(&server.query_url(), &outcome.ledger.data_set);
    let report = Report { crash: Some(crash), ..report.sent(&outcome, &stats) };
    progress(Progress::Checking("making the right answers"));
    let truth = Truth::new(outcome.ledger, &deps.tasks).await?;
    let step = |what: &str| progress(Progress::Checking(what));
    let verified = verify(&truth, &tempo, options.depth, step).await?;
    server.kill().await;
    Ok(Report { verified: Some(verified), ..report })
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
