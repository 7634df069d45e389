//! All replicas of one process: opens them on the shared log store and hands them the requests of
//! their peers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_node::Deps;
use openraft::error::{InitializeError, RaftError};
use openraft::storage::RaftStateMachine;
use openraft::{Config, SnapshotPolicy};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::error::Error;
use crate::group::{Group, ShardGroup, purge_behind_watermark};
use crate::handover::HandOverTimes;
use crate::ids::{GroupId, NodeAddr, ReplicaId};
use crate::log::{CommittedId, GroupLog, LogLimits, LogStorage};
use crate::machine::{Machine, StateMachine};
use crate::member::{Member, Parts};
use crate::shard::ShardMachine;
use crate::store::LogStore;
use crate::transport::{Network, Transport};
use crate::types::{Raft, Types};

/// The limits and times of a group. The same on every replica.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// How often a leader shows that it is alive; also the limit of one exchange with a replica.
    pub heartbeat: Duration,
    /// The shortest time without a leader before a replica runs for it.
    pub election_min: Duration,
    /// The longest such time; drawn once per replica and start.
    pub election_max: Duration,
    /// One payload, in bytes.
    pub payload_bytes_max: usize,
    /// Proposals on their way at the same time; more wait, then are refused.
    pub proposals_max: usize,
    /// The newest entries kept in memory, in bytes.
    pub tail_bytes_max: usize,
    /// Entries in one message to a replica, in bytes, unless a single one is larger.
    pub replicate_bytes_max: usize,
    /// Entries between two snapshots of a [`StateMachine`]. Shards take none by themselves.
    pub snapshot_entries: u64,
    /// Entries a [`StateMachine`]'s group keeps behind a snapshot, so that a replica that was away
    /// for a moment does not need the whole state.
    pub kept_entries: u64,
    /// A snapshot received from another replica, in bytes.
    pub snapshot_bytes_max: u64,
}

impl Default for GroupOptions {
    fn default() -> Self {
        GroupOptions {
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_millis(600),
            election_max: Duration::from_millis(1000),
            payload_bytes_max: 8 << 20,
            proposals_max: 64,
            tail_bytes_max: 8 << 20,
            replicate_bytes_max: 2 << 20,
            snapshot_entries: 10_000,
            kept_entries: 1_000,
            snapshot_bytes_max: 1 << 30,
        }
    }
}

impl GroupOptions {
    /// A leader may show that it is alive no more often than this.
    pub const HEARTBEAT_MIN: Duration = Duration::from_millis(20);
    /// And no less often: whoever waits for a leader, or hands over, waits for a few seconds.
    pub const HEARTBEAT_MAX: Duration = Duration::from_millis(500);

    /// The times of a group whose leader shows that often that it is alive: a replica runs for it
    /// that has not heard it for three to five times as long.
    #[must_use]
    pub fn with_heartbeat(self, heartbeat: Duration) -> GroupOptions {
        GroupOptions {
            heartbeat,
            election_min: heartbeat.saturating_mul(3),
            election_max: heartbeat.saturating_mul(5),
            ..self
        }
    }

    /// What is wrong with such a heartbeat.
    pub fn heartbeat_problem(heartbeat: Duration) -> Option<String> {
        let allowed = GroupOptions::HEARTBEAT_MIN..=GroupOptions::HEARTBEAT_MAX;
        (!allowed.contains(&heartbeat)).then(|| {
            format!("{heartbeat:?} is not in {:?} to {:?}", allowed.start(), allowed.end())
        })
    }
}

/// Which replica to open.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// The group.
    pub group: GroupId,
    /// The replica this disk holds.
    pub replica: ReplicaId,
    /// The first voters of a new group, this replica among them; each of them may be opened with
    /// the same list. Ignored if the replica has a log already, or was removed once. Without it a
    /// new replica waits to be added.
    pub bootstrap: Option<BTreeMap<ReplicaId, NodeAddr>>,
    /// Limits and times.
    pub options: GroupOptions,
}

/// The replicas that are open, by group.
#[derive(Default)]
pub(crate) struct Registry {
    members: RwLock<BTreeMap<GroupId, Slot>>,
}

enum Slot {
    /// Taken by an `open` on its way.
    Opening,
    Open(Arc<Member>),
}

impl Registry {
    fn reserve(self: &Arc<Self>, group: GroupId) -> Result<Reservation, Error> {
        let mut members = self.members.write();
        if members.contains_key(&group) {
            return Err(Error::AlreadyOpen(group));
        }
        members.insert(group, Slot::Opening);
        Ok(Reservation { registry: Arc::clone(self), group, kept: false })
    }

    fn get(&self, group: GroupId) -> Result<Arc<Member>, Error> {
        match self.members.read().get(&group) {
            Some(Slot::Open(member)) => Ok(Arc::clone(member)),
            Some(Slot::Opening) | None => Err(Error::NotOpen(group)),
        }
    }

    /// Removes the replica, unless another one has taken its place.
    pub(crate) fn forget(&self, member: &Arc<Member>) {
        let mut members = self.members.write();
        if let Some(Slot::Open(open)) = members.get(&member.group)
            && Arc::ptr_eq(open, member)
        {
            members.remove(&member.group);
        }
    }
}

/// A group's place in the registry while it opens; freed if that fails or is abandoned.
struct Reservation {
    registry: Arc<Registry>,
    group: GroupId,
    kept: bool,
}

impl Reservation {
    fn fill(mut self, member: &Arc<Member>) {
        self.kept = true;
        self.registry.members.write().insert(self.group, Slot::Open(Arc::clone(member)));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.kept {
            self.registry.members.write().remove(&self.group);
        }
    }
}

/// The replicas of this process. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    store: Arc<LogStore>,
    transport: Arc<dyn Transport>,
    deps: Deps,
    registry: Arc<Registry>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.registry.members.read().keys()).finish()
    }
}

impl Host {
    /// A host without open replicas.
    pub fn new(store: Arc<LogStore>, transport: Arc<dyn Transport>, deps: Deps) -> Host {
        Host { store, transport, deps, registry: Arc::default() }
    }

    /// The log store underneath.
    pub fn store(&self) -> &Arc<LogStore> {
        &self.store
    }

    /// Opens a replica that replicates into `state`: loads its snapshot, replays its log, joins its
    /// group. A group with a single voter has a leader soon after.
    ///
    /// # Errors
    /// [`Error::AlreadyOpen`]; [`Error::WrongReplica`] if the disk holds another one;
    /// [`Error::Invalid`] if the bootstrap leaves this replica out; [`Error::Corrupt`];
    /// [`Error::Stopped`] if it fails while starting.
    pub async fn open<S: StateMachine>(
        &self,
        spec: GroupSpec,
        state: S,
    ) -> Result<Group<S>, Error> {
        let place = self.prepare(&spec).await?;
        let state = Arc::new(RwLock::new(state));
        let machine =
            Machine::open(Arc::clone(&self.store), spec.group, Arc::clone(&state)).await?;
        let reached = machine.reached();
        let config = Config {
            snapshot_policy: SnapshotPolicy::LogsSinceLast(spec.options.snapshot_entries.max(1)),
            max_in_snapshot_log_to_keep: spec.options.kept_entries,
            ..config(&spec)
        };
        let member = self.start(&spec, config, machine, reached, CommittedId::Kept).await?;
        place.fill(&member);
        let joined = self.join(&spec, &member).await;
        self.or_close(&member, joined).await?;
        Ok(Group::new(member, state, Arc::downgrade(&self.registry)))
    }

    /// Opens a replica of a shard.
    ///
    /// # Errors
    /// As [`Host::open`].
    pub async fn open_shard(&self, spec: GroupSpec) -> Result<ShardGroup, Error> {
        let place = self.prepare(&spec).await?;
        let machine = ShardMachine::open(Arc::clone(&self.store), spec.group)?;
        let (state, reached, watermark) = (machine.state(), machine.reached(), machine.watermark());
        let config = Config {
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 0,
            ..config(&spec)
        };
        let member = self.start(&spec, config, machine, reached, CommittedId::NotNeeded).await?;
        place.fill(&member);
        // A crash may have come between the watermark and the purge; openraft does not resume it.
        let unpurged = *watermark.borrow();
        let joined = async {
            if let Some(upto) = unpurged {
                let asked = member.raft.trigger().purge_log(upto.index).await;
                asked.map_err(|fatal| member.fatal(&fatal))?;
            }
            self.join(&spec, &member).await
        };
        let joined = joined.await;
        self.or_close(&member, joined).await?;
        self.deps.tasks.spawn(purge_behind_watermark(member.raft.clone(), watermark));
        Ok(Group::new(member, state, Arc::downgrade(&self.registry)))
    }

    /// Closes a replica that was not opened to the end, so that it can be opened again.
    async fn or_close(&self, member: &Arc<Member>, joined: Result<(), Error>) -> Result<(), Error> {
        if joined.is_err() {
            member.shutdown().await;
            self.registry.forget(member);
        }
        joined
    }

    async fn prepare(&self, spec: &GroupSpec) -> Result<Reservation, Error> {
        if let Some(voters) = &spec.bootstrap
            && !voters.contains_key(&spec.replica)
        {
            return Err(Error::Invalid(format!("{} is not a first voter", spec.replica)));
        }
        let place = self.registry.reserve(spec.group)?;
        self.store.claim(spec.group, spec.replica).await?;
        Ok(place)
    }

    async fn start<M: RaftStateMachine<Types>>(
        &self,
        spec: &GroupSpec,
        config: Config,
        machine: M,
        applied: watch::Receiver<u64>,
        committed: CommittedId,
    ) -> Result<Arc<Member>, Error> {
        let (group, options) = (spec.group, &spec.options);
        let removed = self.store.removed(group)?.filter(|removed| removed.replica == spec.replica);
        // The member begins to run once it has its log back.
        let config = Config { enable_elect: removed.is_none(), ..config };
        let config = config.validate().map_err(|error| Error::Invalid(error.to_string()))?;
        let limits = LogLimits {
            tail_bytes_max: options.tail_bytes_max,
            replicate_bytes_max: options.replicate_bytes_max,
        };
        let log = GroupLog::open(Arc::clone(&self.store), group, limits)?;
        let storage = LogStorage::new(Arc::clone(&log), Some(applied.clone()), committed);
        let network = Network { transport: Arc::clone(&self.transport), group };
        let raft = Raft::new(spec.replica.0, Arc::new(config), network, storage, machine).await;
        let raft = raft.map_err(|fatal| Error::Stopped { group, reason: fatal.to_string() })?;
        let parts = Parts {
            group,
            replica: spec.replica,
            raft,
            log,
            removed,
            applied,
            proposals_max: options.proposals_max,
            transport: Arc::clone(&self.transport),
            times: HandOverTimes { heartbeat: options.heartbeat, lease: options.election_max },
            payload_bytes_max: options.payload_bytes_max,
            snapshot_bytes_max: options.snapshot_bytes_max,
        };
        Ok(Member::new(parts, &self.deps))
    }

    /// Makes a new group's first membership, and a lone voter lead without waiting for a timer.
    async fn join(&self, spec: &GroupSpec, member: &Arc<Member>) -> Result<(), Error> {
        let is_begun = member.raft.is_initialized().await.map_err(|fatal| member.fatal(&fatal))?;
        let is_new = !is_begun && !member.was_removed();
        if let Some(voters) = spec.bootstrap.as_ref().filter(|_| is_new) {
            let voters: BTreeMap<u64, NodeAddr> =
                voters.iter().map(|(replica, addr)| (replica.0, addr.clone())).collect();
            match member.raft.initialize(voters).await {
                // Not allowed means that a log has come from a peer meanwhile.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(RaftError::APIError(error)) => return Err(Error::Members(error.to_string())),
                Err(RaftError::Fatal(fatal)) => return Err(member.fatal(&fatal)),
            }
        }
        let voters: BTreeSet<ReplicaId> = member.members().voters.into_keys().collect();
        // One that has not got its log back may have been the only one once.
        if voters == BTreeSet::from([spec.replica]) && member.has_its_log() {
            member.elect().await?;
        }
        Ok(())
    }

    /// Answers a request that a peer's [`Transport`] has brought.
    ///
    /// # Errors
    /// [`Error::NotOpen`], [`Error::WrongReplica`], [`Error::LogMissing`], [`Error::Corrupt`],
    /// [`Error::Stopped`].
    pub async fn handle(&self, group: GroupId, request: Bytes) -> Result<Bytes, Error> {
        let member = self.registry.get(group)?;
        member.handle(request).await
    }

    /// Deletes what the disk holds of a group that is not open. The replica can be opened again, to be
    /// taken back by its group: it neither votes nor leads until it has its log again.
    ///
    /// # Errors
    /// [`Error::AlreadyOpen`]; [`Error::Corrupt`] if it can not be told how far the log went, which then
    /// stays; [`Error::StoreFailed`].
    pub async fn remove(&self, group: GroupId) -> Result<(), Error> {
        // Held so that nobody opens the group meanwhile.
        let _place = self.registry.reserve(group)?;
        self.store.remove(group).await
    }

    /// Stops all replicas. Close the store afterwards.
    pub async fn shutdown(&self) {
        let members: Vec<Arc<Member>> = {
            let members = self.registry.members.read();
            members.values().filter_map(Slot::member).collect()
        };
        for member in &members {
            member.shutdown().await;
            self.registry.forget(member);
        }
    }
}

impl Slot {
    fn member(&self) -> Option<Arc<Member>> {
        match self {
            Slot::Opening => None,
            Slot::Open(member) => Some(Arc::clone(member)),
        }
    }
}

fn config(spec: &GroupSpec) -> Config {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: spec.group.to_string(),
        heartbeat_interval: millis(spec.options.heartbeat),
        election_timeout_min: millis(spec.options.election_min),
        election_timeout_max: millis(spec.options.election_max),
        install_snapshot_timeout: 30_000,
        max_payload_entries: 256,
        // How near a new replica must come before `add_learner` returns.
        replication_lag_threshold: 64,
        purge_batch_size: 1,
        snapshot_max_chunk_size: 1 << 20,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests;
