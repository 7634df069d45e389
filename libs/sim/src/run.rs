//! One run: a cluster, its clients and what goes wrong, from one seed to a report.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clew_catalog::{ObjectKey, State};
use clew_node::config::Span;
use clew_node::rpc::Channel;
use clew_node::{Process, Rng, Stop};
use clew_raft::GroupOptions;
use clew_storage::simulated::SimulatedStore;
use parking_lot::Mutex;

use crate::actors::{Actors, Haste, QUERIES, Tally};
use crate::chaos::Chaos;
use crate::cluster::{Cluster, Shape, settings};
use crate::http_client::HttpClient;
use crate::invariants::Rules;
use crate::journal::{Journal, Polls};
use crate::ledger::Ledger;
use crate::network::{Name, Network};
use crate::node::{Node, Outside, Role, outside_clock};

/// Tenants that write.
const TENANTS: usize = 2;

/// How long a writer waits after a batch at most, in milliseconds. What is written costs the most time of a
/// run, since all of it is read in the end; what finds defects is faults, and there is enough under way at
/// each of them.
const WRITE_PAUSE_MAX: u64 = 4_800;

/// How often the rules are checked.
const STEP: Duration = Duration::from_millis(500);

/// How long a new cluster may take to come together.
const BEGIN_MAX: Duration = Duration::from_secs(60);

/// How long after all faults have ended everything has to be in order.
const HEAL: Duration = Duration::from_secs(150);

/// Every so many seeds raft keeps production's time.
const USUAL_HEARTBEAT: u64 = 10;

/// How often raft's leaders show that they are alive in the other seeds: most events are heartbeats, which
/// cost time and show little.
const SLOW_HEARTBEAT: Span = Span(GroupOptions::HEARTBEAT_MAX);

fn heartbeat(options: &Options) -> Span {
    // Some planted defects need elections to be noticed.
    if options.seed.is_multiple_of(USUAL_HEARTBEAT) || options.planted.is_some() {
        clew_ingester::Config::default().raft_heartbeat
    } else {
        SLOW_HEARTBEAT
    }
}

/// How often the last readers ask before an answer counts as refused.
const LAST_ATTEMPTS: usize = 20;

/// Log entries that a replica may hold when nothing is left to flush: what the group writes for itself.
const ENTRIES_LEFT_MAX: usize = 24;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where all chance comes from.
    pub seed: u64,
    /// How long things go wrong, in virtual time.
    pub chaos: Duration,
    /// The nodes.
    pub shape: Shape,
    /// Whether every event is printed.
    pub shows: bool,
    /// A planted defect that should be found.
    pub planted: Option<String>,
    /// The faults that happen, by number; all of them without.
    pub only: Option<BTreeSet<u64>>,
}

impl Options {
    /// The usual run of a seed.
    pub fn of(seed: u64) -> Options {
        let chaos = Duration::from_secs(180);
        Options { seed, chaos, shape: Shape::USUAL, shows: false, planted: None, only: None }
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The hash of all events in order, each with how often tasks had run by then.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// The next random number.
    pub next_random: u64,
    /// How long it took, in virtual time.
    pub clock: Duration,
    /// How many faults there were, with those that were left out.
    pub faults: u64,
    /// The promises that were broken.
    pub violations: Vec<String>,
    /// The last events.
    pub last: Vec<String>,
    /// How much was done, for people.
    pub done: String,
}

/// Runs a simulation on this thread.
///
/// # Errors
/// When it could not begin.
pub fn run(options: &Options) -> std::io::Result<Report> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    let polls = Polls::default();
    #[cfg(tokio_unstable)]
    {
        let polls = polls.clone();
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&options.seed.to_le_bytes()));
        builder.on_before_task_poll(move |_| polls.count());
    }
    let runtime = builder.build()?;
    if let Some(name) = &options.planted {
        fail::cfg(name.as_str(), "return").map_err(std::io::Error::other)?;
    }
    let report = runtime.block_on(Box::pin(simulate(options, polls)));
    if let Some(name) = &options.planted {
        fail::remove(name.as_str());
    }
    report
}

async fn simulate(options: &Options, polls: Polls) -> std::io::Result<Report> {
    #[allow(clippy::disallowed_methods, reason = "the beginning of virtual time")]
    let began = tokio::time::Instant::now();
    let clock = outside_clock(began);
    let rng = Rng::seeded(options.seed);
    let fork = || Rng::seeded(rng.next_u64());
    let journal = Journal::new(clock.clone(), polls, options.shows);
    let network = Network::new(clock.clone(), fork(), journal.clone());
    let outside = Outside {
        began,
        network: network.clone(),
        store: SimulatedStore::default(),
        settings: settings(&options.shape, heartbeat(options)),
    };
    let cluster = Cluster::new(&options.shape, outside, clock.clone(), journal.clone(), fork())?;
    let cluster = Arc::new(cluster);
    let name: Name = "client".into();
    let actors = Actors {
        client: HttpClient { name, network, clock: clock.clone() },
        ledger: Ledger::default(),
        journal: journal.clone(),
        rng: fork(),
        distributors: cluster.addrs(Role::Distributor),
        queriers: cluster.addrs(Role::Querier),
        tally: Arc::default(),
        haste: Haste::default(),
    };
    let metastore = cluster.metastore(&actors.client.name).map_err(std::io::Error::other)?;
    let mut scene = Scene { cluster, actors, journal, metastore, rules: Rules::new(), clock };
    let faults = scene.play(options, &fork).await;
    let done = scene.summary();
    scene.cluster.end_all().await;
    let (hash, events) = scene.journal.hash();
    Ok(Report {
        seed: options.seed,
        hash,
        events,
        next_random: rng.next_u64(),
        clock: scene.clock.monotonic(),
        faults,
        violations: scene.journal.violations(),
        last: scene.journal.last(),
        done,
    })
}

/// A run under way.
struct Scene {
    cluster: Arc<Cluster>,
    actors: Actors,
    journal: Journal,
    metastore: Channel,
    rules: Rules,
    clock: clew_node::Clock,
}

impl Scene {
    /// Gives how many faults there were.
    async fn play(&mut self, options: &Options, fork: &impl Fn() -> Rng) -> u64 {
        for node in self.cluster.present() {
            self.cluster.start(node);
        }
        let together = |scene: &Scene| scene.cluster.present().all(|n| scene.cluster.is_well(n));
        if !self.steps(BEGIN_MAX, together).await {
            let late: Vec<&str> = self.late().iter().map(|node| &*node.name).collect();
            self.journal.violation("start", format_args!("not there: {}", late.join(",")));
            return 0;
        }
        self.journal.note(format_args!("the cluster has come together"));
        let (clients, stop) = (Process::new(fork()), Stop::new());
        let with = |rng| Actors { rng, ..self.actors.clone() };
        for tenant in 0..TENANTS {
            clients.spawn(with(fork()).write(tenant, WRITE_PAUSE_MAX, stop.clone()));
            clients.spawn(with(fork()).read(stop.clone()));
            clients.spawn(with(fork()).search(stop.clone()));
            clients.spawn(with(fork()).delete(tenant, stop.clone()));
        }
        let chaos = Chaos {
            cluster: self.cluster.clone(),
            journal: self.journal.clone(),
            rng: fork(),
            process: Process::new(fork()),
            wipes: Arc::new(Mutex::new((0, 0))),
            losing: Arc::default(),
            metastore: self.metastore.clone(),
            has_grown: Arc::default(),
            haste: self.actors.haste.clone(),
            begun: Arc::default(),
        };
        let harm = Box::pin(chaos.clone().run(options.only.clone()));
        drop(chaos.process.spawn(harm));
        self.steps(options.chaos, |_| false).await;
        chaos.end().await;
        chaos.end_drains().await;
        let faults = chaos.begun.load(Ordering::Relaxed);
        if !self.journal.is_clean() {
            return faults;
        }
        // Clients go on for a while in a cluster that is well.
        self.steps(Duration::from_secs(20), |_| false).await;
        stop.stop();
        self.steps(HEAL, |_| false).await;
        clients.kill().await;
        if let Some(panic) = clients.panicked() {
            self.journal.violation("harness", format_args!("a client panicked: {panic}"));
        }
        if self.journal.is_clean() {
            self.check_the_end().await;
        }
        faults
    }

    fn late(&self) -> Vec<&Node> {
        self.cluster.present().filter(|node| !self.cluster.is_well(node)).collect()
    }

    /// Lets time pass, checking every rule at each step; until something is broken, `is_enough` says
    /// so, or the time is over. Gives whether it was enough.
    async fn steps(&mut self, time: Duration, is_enough: impl Fn(&Scene) -> bool) -> bool {
        let until = self.clock.monotonic() + time;
        while self.clock.monotonic() < until && self.journal.is_clean() {
            self.clock.sleep(STEP).await;
            self.rules.check(&self.cluster, &self.journal);
            self.cluster.supervise(true).await;
            if is_enough(self) {
                return true;
            }
        }
        false
    }

    /// What has to be true when nothing has gone wrong for long enough.
    async fn check_the_end(&mut self) {
        let late: Vec<&str> = self.late().iter().map(|node| &*node.name).collect();
        if !late.is_empty() {
            self.journal.violation("heal", format_args!("not well: {}", late.join(",")));
            return;
        }
        self.check_answers().await;
        self.check_bucket();
        self.check_logs();
        self.check_members();
    }

    /// Every acknowledged span is found once, by every way there is.
    async fn check_answers(&self) {
        let queriers = self.actors.queriers.clone();
        let querier = |at: usize| queriers[at % queriers.len()].as_str();
        for index in 0..self.actors.ledger.len() {
            let mut complete = false;
            for attempt in 0..LAST_ATTEMPTS {
                complete = self.actors.read_one(index, querier(index + attempt)).await;
                if complete {
                    break;
                }
                self.clock.sleep(Duration::from_millis(500)).await;
            }
            if !complete {
                let id = self.actors.ledger.trace(index).hex();
                self.journal.violation("heal", format_args!("no complete answer for {id}"));
                return;
            }
        }
        for group in 0..self.actors.ledger.groups() {
            for kind in 0..QUERIES {
                let mut complete = false;
                for attempt in 0..LAST_ATTEMPTS {
                    complete = self.actors.search_one(group, kind, querier(group + attempt)).await;
                    if complete {
                        break;
                    }
                    self.clock.sleep(Duration::from_millis(500)).await;
                }
                if !complete {
                    let query = (group, kind);
                    self.journal.violation("heal", format_args!("no complete answer to {query:?}"));
                    return;
                }
            }
        }
    }

    /// The bucket holds what the catalog lists and nothing else.
    fn check_bucket(&self) {
        let there = self.cluster.outside.store.sizes();
        let listed = self.cluster.newest(|state| {
            let live = state.objects().map(|object| object.key.to_string());
            let dead = state.dead().map(|dead| dead.object.key.to_string());
            (live.collect::<Vec<_>>(), dead.collect::<Vec<_>>())
        });
        let Some((live, dead)) = listed else { return };
        if let Some(key) = dead.first() {
            let count = dead.len();
            self.journal.violation("P5", format_args!("{count} dead objects are left, as {key}"));
        }
        let is_block = |key: &&String| {
            let prefixes = [ObjectKey::FLUSH_PREFIX, ObjectKey::COMPACTED_PREFIX];
            prefixes.iter().any(|prefix| key.starts_with(prefix))
        };
        let mut blocks = there.keys().filter(is_block);
        if let Some(key) = blocks.find(|key| !live.contains(key) && !dead.contains(key)) {
            self.journal.violation("P5", format_args!("{key} is in the bucket, unknown"));
        }
        if let Some(key) = live.iter().find(|key| !there.contains_key(*key)) {
            self.journal.violation("P5", format_args!("{key} is not in the bucket"));
        }
    }

    /// What is in objects is not in logs.
    fn check_logs(&self) {
        for node in self.cluster.of(Role::Ingester) {
            let groups = self.cluster.running(node).and_then(|running| {
                let store = running.probe.lock().store.clone()?;
                Some(store.groups_on_disk().ok()?.len())
            });
            let (groups, entries) = (groups.unwrap_or(0), node.disk.log_entries());
            if entries > groups * ENTRIES_LEFT_MAX {
                self.journal.violation(
                    "heal",
                    format_args!("{} has {entries} entries of {groups} groups", node.name),
                );
            }
        }
    }

    /// Every member has the same catalog.
    fn check_members(&self) {
        let members = self.cluster.members();
        let states = members.iter().map(|(_, member)| member.inspect(State::revision));
        let revisions: Vec<u64> = states.collect();
        let (least, most) = (revisions.iter().min(), revisions.iter().max());
        // A command may be on its way.
        if members.len() < self.cluster.of(Role::Metastore).count()
            || most.zip(least).is_some_and(|(most, least)| most - least > 5)
        {
            self.journal.violation("heal", format_args!("members are at {revisions:?}"));
        }
    }

    fn summary(&self) -> String {
        let Tally {
            batches_acked,
            batches_given_up,
            reads_complete,
            reads_partial,
            reads_failed,
            searches_complete,
            searches_partial,
            searches_failed,
            deleted,
        } = *self.actors.tally.lock();
        let catalog = self.cluster.newest(|state| (state.revision(), state.objects().len()));
        let (traces, spans) = (self.actors.ledger.len(), self.actors.ledger.acked_spans());
        format!(
            "{batches_acked} batches acked, {batches_given_up} given up, {traces} traces, {spans} spans acked; \
             reads {reads_complete}/{reads_partial}/{reads_failed}, \
             searches {searches_complete}/{searches_partial}/{searches_failed} \
             (complete/partial/failed); {deleted} traces deleted; catalog {catalog:?}"
        )
    }
}
