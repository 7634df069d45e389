//! The benchmark: a fixed workload against a fresh server of its own, with what it costs per span
//! and per query, next to what it should cost. `docs/performance.md` says what each number means.
//!
//! Two servers run one after the other. The first has default settings: the processor time until
//! every span is in blocks, the bytes in the bucket, the memory, and queries of blocks. The second
//! keeps everything in its head: how soon a span is found, and queries of fresh data.

mod compare;
mod goals;
mod nodes;
mod report;
mod scrape;
mod table;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clew_node::Deps;

pub use self::compare::compare;
pub use self::nodes::{NodesCost, NodesReport, run_nodes};
pub use self::report::{BenchReport, Figure, QueryFigure};
pub use self::table::to_table;
use crate::check::{Findings, Order};
use crate::error::Error;
use crate::ledger::Ledger;
use crate::measure::{ReadKind, Stats, Usage};
use crate::own_server::{OwnServer, Setup};
use crate::queries::{Cost, Repeats, measure};
use crate::send::{Cast, Extent, Outcome, Pace, Plan};
use crate::target::{Manners, Tempo};
use crate::verify::{Depth, Truth};
use crate::workload::{DataSet, GENERATOR_VERSION};

/// How many traces the goals are stated for: about a million spans.
pub const REFERENCE_TRACES: u64 = 50_000;
/// The start of the first trace, and the time between traces: the same bytes at every run.
const BASE_UNIX_NANOS: u64 = 1_750_000_000_000_000_000;
const INTERVAL_NANOS: u64 = 12_000_000;
/// Reads per second while fresh data is sent.
const READS_PER_SECOND: f64 = 20.0;

/// Settings that keep a million spans in the head.
const KEEP_FRESH: [&str; 4] = [
    "ingester.flush.spans_max=100000000",
    "ingester.flush.bytes_max=3GiB",
    "ingester.flush.age_max=24h",
    "ingester.head_bytes_max=12GiB",
];

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server.
    pub setup: Setup,
    /// How many traces are sent.
    pub traces: u64,
    /// How often each class of queries is asked.
    pub repeats: Repeats,
    /// How many traces are asked for by id.
    pub by_id: usize,
    /// What is written into the report to tell it from others.
    pub label: String,
}

/// Runs the benchmark. `progress` is told what is going on.
///
/// # Errors
/// [`Error::Server`] when a server does not start or flush, and those of sending and asking. Wrong
/// answers are in the report.
pub async fn run(
    options: &Options,
    deps: &Deps,
    mut progress: impl FnMut(&str),
) -> Result<BenchReport, Error> {
    let data_set = data_set_of(options);
    data_set.check()?;
    let bench = Bench { options, deps, data_set };
    let flushed = bench.flushed(&mut progress).await?;
    let fresh = bench.fresh(flushed.spans_per_second / 2.0, &flushed.truth, &mut progress).await?;
    Ok(report::assemble(options, &bench.data_set, flushed, fresh))
}

fn data_set_of(options: &Options) -> DataSet {
    DataSet {
        generator: GENERATOR_VERSION,
        seed: 42,
        base_unix_nanos: BASE_UNIX_NANOS,
        interval_nanos: INTERVAL_NANOS,
        services: 20,
        concurrent_traces: 64,
        traces: options.traces,
        tenants: 1,
    }
}

/// What the server with default settings showed.
pub(crate) struct Flushed {
    pub(crate) spans: u64,
    pub(crate) spans_per_second: f64,
    pub(crate) used: Usage,
    pub(crate) idle_cores: f64,
    pub(crate) scraped: scrape::Scraped,
    pub(crate) costs: Vec<Cost>,
    pub(crate) findings: Findings,
    pub(crate) truth: Truth,
}

/// What the server that keeps everything in its head showed.
pub(crate) struct Fresh {
    pub(crate) found_by_search: crate::measure::Summary,
    pub(crate) found_by_id: crate::measure::Summary,
    pub(crate) never_found: u64,
    pub(crate) costs: Vec<Cost>,
    pub(crate) findings: Findings,
}

struct Bench<'a> {
    options: &'a Options,
    deps: &'a Deps,
    data_set: DataSet,
}

impl Bench<'_> {
    async fn flushed(&self, progress: &mut impl FnMut(&str)) -> Result<Flushed, Error> {
        progress("starting a server");
        let mut server = self.start(&[]).await?;
        let idle_cores = self.idle(&server).await?;
        progress("sending");
        let before = server.process().usage()?;
        let stats = Arc::new(Stats::default());
        let outcome = self.send(&server, Pace::FlatOut, 0.0, &stats).await?;
        progress("flushing");
        server.flush().await?;
        let after = server.process().usage()?;
        let scraped = scrape::Scraped::read(&server).await?;
        let spans = stats.totals().spans_acked;
        progress("making the right answers");
        let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
        let truth = self.truth(outcome.ledger).await?;
        let (costs, findings) = self.ask(&server, &truth, "blocks", progress).await?;
        server.kill().await;
        Ok(Flushed {
            spans,
            spans_per_second: spans as f64 / seconds,
            used: Usage { cpu: after.cpu.saturating_sub(before.cpu), ..after },
            idle_cores,
            scraped,
            costs,
            findings,
            truth,
        })
    }

    /// The same data at a `rate` that leaves room for reads.
    async fn fresh(
        &self,
        rate: f64,
        truth: &Truth,
        progress: &mut impl FnMut(&str),
    ) -> Result<Fresh, Error> {
        progress("starting a server that keeps everything in its head");
        let mut server = self.start(&KEEP_FRESH).await?;
        progress("sending at half the rate, with reads");
        let stats = Arc::new(Stats::default());
        let pace = Pace::Rate { spans_per_second: rate.max(1.0), ramp: Duration::ZERO };
        let outcome = self.send(&server, pace, READS_PER_SECOND, &stats).await?;
        if !outcome.ledger.unknown.is_empty() {
            return Err(Error::Server("some requests were refused at half the rate".to_owned()));
        }
        let (costs, findings) = self.ask(&server, truth, "the head", progress).await?;
        server.kill().await;
        let reads = stats.read_summaries();
        let summary = |kind| reads.get(&kind).copied().unwrap_or_default();
        Ok(Fresh {
            found_by_search: summary(ReadKind::FoundBySearch),
            found_by_id: summary(ReadKind::FoundById),
            never_found: stats.totals().never_found,
            costs,
            findings,
        })
    }

    async fn start(&self, settings: &[&str]) -> Result<OwnServer, Error> {
        OwnServer::start(self.options.setup.with(settings), &self.deps.clock).await
    }

    /// Processor use of a server that has nothing to do, in cores.
    async fn idle(&self, server: &OwnServer) -> Result<f64, Error> {
        const LOOK: Duration = Duration::from_secs(2);
        let before = server.process().usage()?;
        self.deps.clock.sleep(LOOK).await;
        let after = server.process().usage()?;
        Ok(after.cpu.saturating_sub(before.cpu).as_secs_f64() / LOOK.as_secs_f64())
    }

    async fn send(
        &self,
        server: &OwnServer,
        pace: Pace,
        reads_per_second: f64,
        stats: &Arc<Stats>,
    ) -> Result<Outcome, Error> {
        const CONNECTIONS: usize = 4;
        let plan = Plan {
            data_set: self.data_set.clone(),
            extent: Extent::Traces,
            pace,
            connections: CONNECTIONS,
            in_flight: 4,
            make_ahead: true,
            makers: 2,
            retry_for: Duration::from_secs(120),
            reads_per_second,
            found_within: Duration::from_secs(1),
            tenant_header: false,
        };
        let cast = Cast {
            otlp: server.otlp(CONNECTIONS, manners(), self.deps.clock.clone())?,
            tempo: self.tempo(server)?,
            process: None,
            stats: Arc::clone(stats),
            interrupted: Arc::new(AtomicBool::new(false)),
        };
        crate::send::run(&plan, cast, self.deps, |_, _| {}).await
    }

    async fn truth(&self, ledger: Ledger) -> Result<Truth, Error> {
        Truth::new(ledger, &self.deps.tasks).await
    }

    async fn ask(
        &self,
        server: &OwnServer,
        truth: &Truth,
        place: &str,
        progress: &mut impl FnMut(&str),
    ) -> Result<(Vec<Cost>, Findings), Error> {
        let tempo = self.tempo(server)?;
        let depth = Depth { traces: self.options.by_id, order: Order::Newest };
        let (process, repeats) = (Some(server.process()), self.options.repeats);
        let told = |class: &str| progress(&format!("asking {place}: {class}"));
        measure(truth, &tempo, process, repeats, depth, &self.deps.clock, told).await
    }

    fn tempo(&self, server: &OwnServer) -> Result<Tempo, Error> {
        Tempo::new(&server.query_url(), manners(), self.deps.clock.clone())
    }
}

fn manners() -> Manners {
    Manners { headers: Vec::new(), timeout: Duration::from_secs(60), tenant_header: false }
}
