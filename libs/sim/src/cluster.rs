//! The nodes of a simulated cluster and what can be done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clew_catalog::{ReplicaId, State};
use clew_node::config::{Bytes, Span};
use clew_node::rpc::{Channel, Pool};
use clew_node::{Clock, Problem, Rng};
use clew_raft::SimulatedDisk;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::journal::Journal;
use crate::network::Name;
// Where the binary's files look for it.
pub(crate) use crate::node::apply_at;
use crate::node::{Node, Outside, Role, Running, Settings};
use crate::time::Skew;

/// Leaders of one process that openraft may end because they are superseded. It takes a rare coincidence; one that
/// happens again and again is a defect.
const SUPERSEDED_MAX: u64 = 2;

/// How many nodes of each kind there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Members of the metastore.
    pub metastores: usize,
    /// Ingesters.
    pub ingesters: usize,
    /// Distributors.
    pub distributors: usize,
    /// Queriers.
    pub queriers: usize,
    /// Compactors.
    pub compactors: usize,
    /// Shards.
    pub shards: u32,
    /// Ingesters, and as many compactors, that may join later on.
    pub spares: usize,
}

impl Shape {
    /// What seeds are run with: enough of everything.
    pub const USUAL: Shape = Shape {
        metastores: 3,
        ingesters: 4,
        distributors: 2,
        queriers: 2,
        compactors: 2,
        shards: 16,
        spares: 1,
    };

    /// Fewer shards, so that more happens to each.
    pub const SMALL: Shape = Shape { shards: 4, ..Shape::USUAL };

    fn roles(&self) -> impl Iterator<Item = (Role, usize)> {
        [
            (Role::Metastore, self.metastores),
            (Role::Ingester, self.ingesters + self.spares),
            (Role::Distributor, self.distributors),
            (Role::Querier, self.queriers),
            (Role::Compactor, self.compactors + self.spares),
        ]
        .into_iter()
    }
}

/// The settings of a simulated cluster: what takes an hour in production takes a minute here. How often
/// raft's leaders show that they are alive is production's, or the least that it allows.
pub(crate) fn settings(shape: &Shape, heartbeat: Span) -> Settings {
    let members = (0..shape.metastores).map(|at| format!("meta-{at}:9095")).collect();
    let metastore = clew_metastore::Config {
        members,
        shards: shape.shards,
        snapshot_commands: 60,
        raft_heartbeat: heartbeat,
        dead_after: Span::seconds(20),
        ..clew_metastore::Config::default()
    };
    let mut ingester = clew_ingester::Config::default();
    ingester.flush.spans_max = 400;
    ingester.flush.age_max = Span::seconds(12);
    ingester.flush.zstd_level = 1;
    ingester.raft_heartbeat = heartbeat;
    let querier = clew_querier::Config {
        multitenancy_enabled: true,
        view_age_max: Span::seconds(10),
        query_timeout: Span::seconds(20),
        cache_bytes: Bytes::mebi(64),
        filter_cache_bytes: Bytes::mebi(64),
        ..clew_querier::Config::default()
    };
    let compactor = clew_compactor::Config {
        poll_interval: Span::seconds(2),
        lease: Span::seconds(10),
        fan_in: 4,
        settle: Span::seconds(5),
        grace: Span::seconds(60),
        orphan_interval: Span::seconds(20),
        zstd_level: 1,
        trace_horizon: ingester.trace_horizon,
        ..clew_compactor::Config::default()
    };
    let distributor = clew_distributor::Config::default();
    Settings { metastore, ingester, distributor, querier, compactor }
}

/// The nodes, those that run and those that do not.
pub(crate) struct Cluster {
    pub(crate) outside: Outside,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clock: Clock,
    journal: Journal,
    rng: Rng,
    running: Mutex<BTreeMap<Name, Running>>,
    /// Nodes that are no part of the cluster now.
    absent: Mutex<BTreeSet<Name>>,
    /// Replicas whose disks are gone.
    wiped: Mutex<BTreeSet<ReplicaId>>,
    _folder: TempDir,
}

impl Cluster {
    /// The nodes of a shape, none of which runs.
    pub(crate) fn new(
        shape: &Shape,
        outside: Outside,
        clock: Clock,
        journal: Journal,
        rng: Rng,
    ) -> std::io::Result<Cluster> {
        let folder = tempfile::tempdir()?;
        let mut nodes = Vec::new();
        let mut absent = BTreeSet::new();
        for (role, count) in shape.roles() {
            for at in 0..count {
                let name: Name = format!("{}-{at}", role.name()).into();
                let own = folder.path().join(&*name);
                std::fs::create_dir_all(&own)?;
                if matches!(role, Role::Ingester | Role::Compactor) && at + shape.spares >= count {
                    absent.insert(name.clone());
                }
                nodes.push(Node {
                    name,
                    role,
                    zone: format!("zone-{}", at % 3),
                    disk: SimulatedDisk::new(Rng::seeded(rng.next_u64())),
                    folder: own,
                    skew: Skew::default(),
                });
            }
        }
        let (running, wiped) = (Mutex::default(), Mutex::default());
        let absent = Mutex::new(absent);
        Ok(Cluster { outside, nodes, clock, journal, rng, running, absent, wiped, _folder: folder })
    }

    /// Where clients reach the nodes of a role.
    pub(crate) fn addrs(&self, role: Role) -> Vec<String> {
        self.of(role).map(Node::client_addr).collect()
    }

    /// The nodes of a role that are part of the cluster.
    pub(crate) fn of(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.present().filter(move |node| node.role == role)
    }

    /// The nodes that are part of the cluster, whether they run or not.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Node> {
        let absent = self.absent.lock().clone();
        self.nodes.iter().filter(move |node| !absent.contains(&node.name))
    }

    /// The nodes that are not.
    pub(crate) fn absent(&self) -> Vec<Node> {
        let absent = self.absent.lock();
        self.nodes.iter().filter(|node| absent.contains(&node.name)).cloned().collect()
    }

    /// Makes a node part of the cluster, or no part of it any more.
    pub(crate) fn set_absent(&self, node: &Node, is_absent: bool) {
        let mut absent = self.absent.lock();
        match is_absent {
            true => absent.insert(node.name.clone()),
            false => absent.remove(&node.name),
        };
    }

    /// The way of a client to the metastore.
    pub(crate) fn metastore(&self, from: &Name) -> Result<Channel, Problem> {
        let pool = Pool::over(self.outside.network.connector(from));
        let members = self.of(Role::Metastore).map(|node| pool.get(&node.rpc_addr()));
        Ok(Channel::first_of(members.collect::<Result<_, _>>()?))
    }

    /// The process of a node, if it runs.
    pub(crate) fn running(&self, node: &Node) -> Option<Running> {
        self.running.lock().get(&node.name).cloned()
    }

    /// Starts a node that does not run.
    pub(crate) fn start(&self, node: &Node) {
        let mut running = self.running.lock();
        if !running.contains_key(&node.name) {
            self.journal.note(format_args!("start {}", node.name));
            let started = Running::start(node, &self.outside, &self.rng);
            running.insert(node.name.clone(), started);
        }
    }

    /// Ends a node where it is; what was not synced may be gone.
    pub(crate) async fn crash(&self, node: &Node) {
        let Some(running) = self.running.lock().remove(&node.name) else { return };
        self.journal.note(format_args!("crash {}", node.name));
        self.end(node, &running).await;
    }

    async fn end(&self, node: &Node, running: &Running) {
        self.outside.network.remove(&node.name);
        node.disk.crash();
        running.process.kill().await;
        if let Some(panic) = running.process.panicked() {
            self.journal.violation("P7", format_args!("{} panicked: {panic}", node.name));
        }
        let (failed, superseded) = running.replicas_stopped();
        if failed > 0 || superseded > SUPERSEDED_MAX {
            let name = &node.name;
            self.journal.violation(
                "P7",
                format_args!("{name}: replicas stopped, {failed} times over an error, {superseded} superseded"),
            );
        }
    }

    /// Stops a node in order, within reason.
    pub(crate) async fn stop(&self, node: &Node) {
        let Some(running) = self.running(node) else { return };
        self.journal.note(format_args!("stop {}", node.name));
        running.leave();
        for _ in 0..80 {
            if running.probe.lock().ended.is_some() {
                break;
            }
            self.clock.sleep(Duration::from_millis(500)).await;
        }
        // Somebody else may have ended it meanwhile.
        let is_same = |now: &Running| Arc::ptr_eq(&now.probe, &running.probe);
        if self.running(node).is_some_and(|now| is_same(&now)) {
            self.running.lock().remove(&node.name);
            self.journal.note(format_args!("stopped {}", node.name));
            self.end(node, &running).await;
        }
    }

    /// Takes the disk of a node that does not run away.
    pub(crate) fn wipe(&self, node: &Node) {
        self.journal.note(format_args!("wipe {}", node.name));
        node.disk.wipe();
        let gone = std::fs::remove_dir_all(&node.folder);
        let made = gone.and_then(|()| std::fs::create_dir_all(&node.folder));
        if let Err(error) = made {
            self.journal.violation("harness", format_args!("{error}"));
        }
        let replicas: Vec<ReplicaId> = self
            .newest(|state| {
                let here = state.replicas().filter(|known| *known.node.as_str() == *node.name);
                here.map(|known| known.replica).collect()
            })
            .unwrap_or_default();
        self.wiped.lock().extend(replicas);
    }

    /// Whether a disk may be lost without breaking a promise: all replicas of all shards are where they
    /// should be, and none of them is one whose disk was lost before.
    pub(crate) fn can_lose_a_disk(&self) -> bool {
        if self.present().any(|node| !self.is_well(node)) {
            return false;
        }
        let wiped = self.wiped.lock().clone();
        self.newest(|state| {
            let mut shards = state.shard_logs().peekable();
            shards.peek().is_some()
                && shards.all(|(_, log)| {
                    log.lead.as_ref().is_some_and(|lead| {
                        let voters: BTreeSet<_> = lead.voters.iter().copied().collect();
                        let placed: BTreeSet<_> = log.placed.iter().copied().collect();
                        voters.len() >= 3
                            && voters == placed
                            && lead.learners.is_empty()
                            && voters.is_disjoint(&wiped)
                    })
                })
        })
        .unwrap_or(false)
    }

    /// Whether a node runs and has finished starting.
    pub(crate) fn is_well(&self, node: &Node) -> bool {
        self.running(node)
            .is_some_and(|running| !running.process.is_paused() && running.probe.lock().ready)
    }

    /// Looks at the catalog of the member that has applied most.
    pub(crate) fn newest<R>(&self, look: impl FnOnce(&State) -> R) -> Option<R> {
        let members = self.members();
        let newest = members.iter().max_by_key(|(_, member)| member.inspect(State::revision))?;
        Some(newest.1.inspect(look))
    }

    /// The members of the metastore that run.
    pub(crate) fn members(&self) -> Vec<(Name, clew_metastore::Metastore)> {
        let running = self.running.lock();
        let member = |(name, running): (&Name, &Running)| {
            Some((name.clone(), running.probe.lock().metastore.clone()?))
        };
        running.iter().filter_map(member).collect()
    }

    /// Starts again what ended by itself, as whatever runs processes does, and notes panics. With
    /// `all` also what was asked to leave.
    pub(crate) async fn supervise(&self, all: bool) {
        for node in &self.nodes {
            let Some(running) = self.running(node) else { continue };
            if let Some(panic) = running.process.panicked() {
                self.journal.violation("P7", format_args!("{} panicked: {panic}", node.name));
            }
            let failed = match &running.probe.lock().ended {
                Some(Err(reason)) => reason.clone(),
                Some(Ok(())) if all => "it left".to_owned(),
                Some(Ok(())) | None => continue,
            };
            self.journal.note(format_args!("{} ended: {failed}", node.name));
            self.crash(node).await;
            self.start(node);
        }
    }

    /// Ends every node.
    pub(crate) async fn end_all(&self) {
        for node in &self.nodes {
            self.crash(node).await;
        }
    }
}
