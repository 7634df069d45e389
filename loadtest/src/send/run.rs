//! One run from the first span to the last acknowledgement.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use clew_node::Deps;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::feed::{Extent, Feed};
use super::pace::Pace;
use super::probe::Probes;
use super::worker::Senders;
use crate::error::Error;
use crate::ledger::{Journal, Ledger};
use crate::measure::{Point, Process, Stats, Usage};
use crate::target::{Otlp, Seconds, Tempo};
use crate::workload::DataSet;

/// How often the server is looked at and the progress is shown.
const TICK: Duration = Duration::from_secs(1);

/// The most requests that wait for a sender, apart from the waves under way: enough to bridge a
/// pause of the makers, few enough to be sent soon when time is up.
const MADE_AHEAD_MAX: usize = 64;

/// What to send, and how.
pub struct Plan {
    /// What.
    pub data_set: DataSet,
    /// Until when.
    pub extent: Extent,
    /// How fast.
    pub pace: Pace,
    /// Connections.
    pub connections: usize,
    /// Requests under way per connection.
    pub in_flight: usize,
    /// Whether everything is made before the first request is sent.
    pub make_ahead: bool,
    /// How many waves are made at the same time.
    pub makers: usize,
    /// How long a request is repeated before its fate is left unknown.
    pub retry_for: Duration,
    /// Reads per second meanwhile; zero for none.
    pub reads_per_second: f64,
    /// A span found later than this after its ack is late.
    pub found_within: Duration,
    /// Whether requests name their tenant.
    pub tenant_header: bool,
}

/// What happened.
pub struct Outcome {
    /// What was sent and what became of it.
    pub ledger: Ledger,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// What the server used before and after, if it was watched.
    pub usage: Option<(Usage, Usage)>,
}

/// What takes part in a run.
pub struct Cast<'a> {
    /// Where spans go.
    pub otlp: Otlp,
    /// Where reads go.
    pub tempo: Tempo,
    /// The server's process, if it is watched.
    pub process: Option<&'a Process>,
    /// Where measurements go.
    pub stats: Arc<Stats>,
    /// Ends sending early, after the current wave.
    pub interrupted: Arc<AtomicBool>,
}

/// Sends what `plan` says. `progress` is called once a second.
///
/// # Errors
/// [`Error`] when waves cannot be made; failed requests are counted, not errors.
pub async fn run(
    plan: &Plan,
    cast: Cast<'_>,
    deps: &Deps,
    mut progress: impl FnMut(&Point, u64),
) -> Result<Outcome, Error> {
    let Cast { otlp, tempo, process, stats, interrupted } = cast;
    let otlp = Arc::new(otlp);
    let journal = Arc::new(Mutex::new(Journal::default()));
    let feed = make_feed(plan, &otlp, &journal, deps);
    let made = match plan.make_ahead {
        true => Some(feed.make_all().await?),
        false => None,
    };
    let probes = Arc::new(make_probes(plan, tempo, &stats, deps));
    let lines = (plan.connections * plan.in_flight).max(1);
    let (out, batches) = mpsc::channel(lines.min(MADE_AHEAD_MAX));
    let before = process.map(Process::usage).transpose()?;
    let start = deps.clock.monotonic();
    stats.start(Duration::ZERO, before);
    let senders = Arc::new(Senders {
        otlp,
        journal: Arc::clone(&journal),
        stats: Arc::clone(&stats),
        probes: Arc::clone(&probes),
        batches: AsyncMutex::new(batches),
        clock: deps.clock.clone(),
        rng: deps.rng.clone(),
        start,
        retry_for: plan.retry_for,
    });
    let workers = (0..lines).map(|line| {
        let senders = Arc::clone(&senders);
        deps.tasks.run(async move { senders.work(line).await })
    });
    let workers = futures::future::join_all(workers);
    let done = Arc::new(AtomicBool::new(false));
    if plan.reads_per_second > 0.0 {
        let (stop, tenants) = (Arc::clone(&done), plan.data_set.tenants);
        let stopped = move || stop.load(Ordering::Relaxed);
        deps.tasks.spawn(Arc::clone(&probes).run(plan.reads_per_second, tenants, stopped));
    }
    let sending = async {
        let stopped = || interrupted.load(Ordering::Relaxed);
        let (fed, worked) = futures::join!(feed.run(made, start, out, stopped), workers);
        worked.into_iter().collect::<Result<Vec<()>, _>>()?;
        fed
    };
    let sent = watch(sending, start, process, &stats, &journal, deps, &mut progress).await;
    let elapsed = deps.clock.monotonic().saturating_sub(start);
    done.store(true, Ordering::Relaxed);
    probes.finish().await;
    sent?;
    // A server that is gone by now was killed on purpose, or the checks will tell.
    let after = process.and_then(|process| process.usage().ok());
    let journal = std::mem::take(&mut *journal.lock());
    let ledger = journal.close(&plan.data_set, plan.tenant_header);
    Ok(Outcome { ledger, elapsed, usage: before.zip(after) })
}

fn make_feed(plan: &Plan, otlp: &Arc<Otlp>, journal: &Arc<Mutex<Journal>>, deps: &Deps) -> Feed {
    Feed {
        world: Arc::new(plan.data_set.world()),
        data_set: Arc::new(plan.data_set.clone()),
        otlp: Arc::clone(otlp),
        journal: Arc::clone(journal),
        tasks: deps.tasks.clone(),
        clock: deps.clock.clone(),
        pace: plan.pace,
        extent: plan.extent,
        makers: plan.makers,
    }
}

/// Drives `sending` to its end and ticks meanwhile.
async fn watch<T>(
    sending: impl Future<Output = T>,
    start: Duration,
    process: Option<&Process>,
    stats: &Stats,
    journal: &Mutex<Journal>,
    deps: &Deps,
    progress: &mut impl FnMut(&Point, u64),
) -> T {
    let mut sending = std::pin::pin!(sending);
    let mut next = start + TICK;
    loop {
        let wait = next.saturating_sub(deps.clock.monotonic());
        let ended = deps.clock.timeout(wait, sending.as_mut()).await;
        let now = deps.clock.monotonic();
        // The server may be down for a while: that is what some runs are for.
        let usage = process.and_then(|process| process.usage().ok());
        let point = stats.tick(now.saturating_sub(start), usage);
        progress(&point, journal.lock().in_flight());
        if let Some(ended) = ended {
            return ended;
        }
        next = now.max(next) + TICK;
    }
}

fn make_probes(plan: &Plan, tempo: Tempo, stats: &Arc<Stats>, deps: &Deps) -> Probes {
    let data_set = &plan.data_set;
    let length = match plan.extent {
        Extent::Traces => data_set.traces.saturating_mul(data_set.interval_nanos),
        // Nobody knows how far it will come; a day is more than any server minds.
        _ => 86_400_000_000_000,
    };
    // Traces may last minutes beyond their start.
    let end = data_set.base_unix_nanos.saturating_add(length).saturating_add(600_000_000_000);
    Probes {
        tempo,
        stats: Arc::clone(stats),
        clock: deps.clock.clone(),
        tasks: deps.tasks.clone(),
        range: Seconds::around(&(data_set.base_unix_nanos..end)),
        found_within: plan.found_within,
        wanted: Mutex::new(VecDeque::new()),
        in_flight: AtomicUsize::new(0),
    }
}
