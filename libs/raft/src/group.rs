//! The handles of an open replica: [`Group`] for a state machine, [`ShardGroup`] for a shard's log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::metrics::RaftDataMetrics;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::ending::Ending;
use crate::error::Error;
use crate::host::Registry;
use crate::ids::{GroupId, LogId, NodeAddr, ReplicaId};
use crate::leadership::Leadership;
use crate::machine::StateMachine;
use crate::member::{CommittedEntry, GroupStatus, Member, Members};
use crate::shard::ShardState;
use crate::types::{Command, Raft};

/// A handle to this process's replica of a group; cheap to clone.
///
/// The replica runs until [`Group::shutdown`] (or that of its [`Host`](crate::Host)), whether
/// handles exist or not.
pub struct Group<S> {
    member: Arc<Member>,
    state: Arc<RwLock<S>>,
    registry: Weak<Registry>,
}

/// A handle to this process's replica of a shard.
pub type ShardGroup = Group<ShardState>;

/// What a committed command gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposed<R> {
    /// Where the command stands in the log.
    pub log_id: LogId,
    /// What applying it gave.
    pub response: R,
}

impl<S> Clone for Group<S> {
    fn clone(&self) -> Self {
        Group {
            member: Arc::clone(&self.member),
            state: Arc::clone(&self.state),
            registry: Weak::clone(&self.registry),
        }
    }
}

impl<S> fmt::Debug for Group<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({}, {})", self.member.group, self.member.replica)
    }
}

impl<S> Group<S> {
    pub(crate) fn new(
        member: Arc<Member>,
        state: Arc<RwLock<S>>,
        registry: Weak<Registry>,
    ) -> Group<S> {
        Group { member, state, registry }
    }

    /// The group.
    pub fn id(&self) -> GroupId {
        self.member.group
    }

    /// This replica.
    pub fn replica(&self) -> ReplicaId {
        self.member.replica
    }

    /// Who leads, as far as this replica knows; ends with no leader when the replica stops.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.member.leadership()
    }

    /// How this replica has ended; `None` while it runs. What is on disk is as after a crash: it can be
    /// opened again.
    pub fn ending(&self) -> Option<Ending> {
        self.member.ending()
    }

    /// The index of the last entry that is committed and applied on this replica. The channel
    /// closes when the replica has stopped.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.member.applied()
    }

    /// Confirms with a majority that this replica leads, and gives the index of the last entry that
    /// could have been committed before the call; it is applied here when the call returns.
    /// Concurrent callers share one exchange with the other replicas.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::NoQuorum`], [`Error::Stopped`].
    pub async fn read_index(&self) -> Result<u64, Error> {
        self.member.read_index().await
    }

    /// Committed entries behind `from_exclusive` in order without gaps: as many as fit into
    /// `bytes_max` and at least one; none if there are none yet. Start with 0: entry 0 never
    /// carries data.
    ///
    /// # Errors
    /// [`Error::Purged`] if entries behind `from_exclusive` are purged; go on from there.
    pub async fn read_committed(
        &self,
        from_exclusive: u64,
        bytes_max: usize,
    ) -> Result<Vec<CommittedEntry>, Error> {
        self.member.read_committed(from_exclusive, bytes_max).await
    }

    /// The id of the committed entry at `index`, if this replica still has it.
    ///
    /// # Errors
    /// [`Error::Stopped`], [`Error::Database`].
    pub async fn committed_id(&self, index: u64) -> Result<Option<LogId>, Error> {
        self.member.committed_id(index).await
    }

    /// The payloads in this replica's log behind what is applied here, with their indexes: nobody knows
    /// whether they are committed. For a replica whose group has lost its quorum for good.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn unapplied(&self) -> Result<Vec<(u64, Bytes)>, Error> {
        let applied = *self.member.applied().borrow();
        let entries = self.member.log.entries(applied.saturating_add(1), u64::MAX, None).await?;
        let data = entries.into_iter().filter_map(|entry| match entry.payload {
            EntryPayload::Normal(Command::Data(data)) => Some((entry.log_id.index, data)),
            _ => None,
        });
        Ok(data.collect())
    }

    /// The last purged entry.
    pub fn purged(&self) -> Option<LogId> {
        self.member.log.purged().map(LogId::from)
    }

    /// The members in force here.
    pub fn members(&self) -> Members {
        self.member.members()
    }

    /// Adds a replica that receives the log without a vote, or changes its address, and waits until
    /// it has nearly caught up. Call on the leader.
    ///
    /// # Errors
    /// [`Error::Members`] if a change is under way; as [`Group::read_index`] otherwise.
    pub async fn add_learner(&self, replica: ReplicaId, addr: NodeAddr) -> Result<(), Error> {
        self.member.add_learner(replica, addr).await
    }

    /// Removes a replica that has no vote. Call on the leader.
    ///
    /// # Errors
    /// As [`Group::add_learner`].
    pub async fn remove_learner(&self, replica: ReplicaId) -> Result<(), Error> {
        self.member.remove_learner(replica).await
    }

    /// Makes exactly these replicas the voters, through a joint majority. They must be voters or
    /// learners; voters that are not among them leave the group. Call on the leader.
    ///
    /// # Errors
    /// As [`Group::add_learner`].
    pub async fn set_voters(&self, voters: &BTreeSet<ReplicaId>) -> Result<(), Error> {
        self.member.set_voters(voters).await
    }

    /// Hands leadership to another voter, for `timeout` at most: proposals wait meanwhile, about a
    /// second, and are answered with [`Error::NotLeader`] afterwards. Nothing is lost if it fails;
    /// this replica may go on leading then.
    ///
    /// # Errors
    /// [`Error::NotLeader`] if this replica does not lead, [`Error::Members`] if the other one has
    /// no vote or did not take over in time, [`Error::Stopped`].
    pub async fn hand_over(&self, to: ReplicaId, timeout: Duration) -> Result<(), Error> {
        self.member.hand_over(to, timeout).await
    }

    /// Completes once the entry at `index` is applied here, so that what a leader's
    /// [`Group::read_index`] confirmed can be read from this replica.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn wait_applied(&self, index: u64) -> Result<(), Error> {
        self.member.wait_applied(index).await
    }

    /// Whether this replica runs for leader when it hears of none.
    pub fn set_elections(&self, on: bool) {
        self.member.set_elections(on);
    }

    /// Whether the group has begun here: it has a log or has voted.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn has_begun(&self) -> Result<bool, Error> {
        self.member.raft.is_initialized().await.map_err(|fatal| self.member.fatal(&fatal))
    }

    /// Makes the first members of a new group. Only one replica of it may, and only once.
    ///
    /// # Errors
    /// [`Error::Members`] if the group has begun, or this replica is not among `voters`.
    pub async fn begin(&self, voters: BTreeMap<ReplicaId, NodeAddr>) -> Result<(), Error> {
        self.member.begin(voters).await
    }

    /// Runs for leader, if this replica votes. For a planned hand-over the leader turns its
    /// heartbeats off for a lease before.
    ///
    /// # Errors
    /// [`Error::LogMissing`], [`Error::Stopped`].
    pub async fn elect(&self) -> Result<(), Error> {
        self.member.elect().await
    }

    /// Turns this replica's heartbeats, while it leads, off or on.
    pub fn set_heartbeats(&self, on: bool) {
        self.member.raft.runtime_config().heartbeat(on);
    }

    /// Where this replica stands.
    pub fn status(&self) -> GroupStatus {
        self.member.status()
    }

    /// Stops this replica; its state stays on disk.
    pub async fn shutdown(&self) {
        self.member.shutdown().await;
        if let Some(registry) = self.registry.upgrade() {
            registry.forget(&self.member);
        }
    }
}

impl<S: StateMachine> Group<S> {
    /// Proposes a command and waits until it is committed and applied on this replica, for
    /// `timeout` at most. A failed call is unknown, not undone: see [`Error`].
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::Unconfirmed`], [`Error::Overloaded`], [`Error::TooLarge`],
    /// [`Error::Stopped`].
    pub async fn propose(
        &self,
        command: Bytes,
        timeout: Duration,
    ) -> Result<Proposed<S::Response>, Error> {
        let (log_id, reply) = self.member.propose(Command::Data(command), timeout).await?;
        let response = reply.downcast().ok_or(Error::Closed)?;
        Ok(Proposed { log_id, response })
    }

    /// Looks at the state as applied here; call [`Group::read_index`] before for the latest. Keep
    /// it short: applying waits.
    pub fn with_state<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.state.read())
    }
}

impl Group<ShardState> {
    /// Appends a payload to the shard's log and waits until it is committed, for `timeout` at most.
    /// A failed call is unknown, not undone: see [`Error`].
    ///
    /// # Errors
    /// As [`Group::propose`].
    pub async fn append(&self, payload: Bytes, timeout: Duration) -> Result<LogId, Error> {
        let (log_id, _) = self.member.propose(Command::Data(payload), timeout).await?;
        Ok(log_id)
    }

    /// Tells the shard that everything up to `upto` is in registered objects: every replica purges
    /// its log up to there. Gives the watermark now in force, which is higher if somebody was
    /// faster. Call on the leader.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `upto` is not a committed entry of this log; as [`Group::propose`]
    /// otherwise.
    pub async fn flushed(&self, upto: LogId, timeout: Duration) -> Result<LogId, Error> {
        if let Some(watermark) = self.watermark()
            && watermark >= upto
        {
            return Ok(watermark);
        }
        let found = self.member.committed_id(upto.index).await?;
        if found != Some(upto) {
            return Err(Error::Invalid(format!("not a committed entry of this log: {upto}")));
        }
        let (_, reply) = self.member.propose(Command::Flushed(upto), timeout).await?;
        let watermark: Option<LogId> = reply.downcast().ok_or(Error::Closed)?;
        watermark.ok_or_else(|| Error::Invalid(format!("nothing is flushed by {upto}")))
    }

    /// The last entry that is in registered objects, as far as it is applied here. Purged is never
    /// beyond it.
    pub fn watermark(&self) -> Option<LogId> {
        self.state.read().watermark()
    }
}

/// Makes openraft build the snapshot at each new watermark, behind which it purges. Ends when the
/// replica stops.
pub(crate) async fn purge_behind_watermark(
    raft: Raft,
    mut watermark: watch::Receiver<Option<LogId>>,
) {
    let mut progress: watch::Receiver<RaftDataMetrics<u64>> = raft.data_metrics();
    let mut asked: Option<(LogId, Option<LogId>)> = None;
    loop {
        let wanted = *watermark.borrow_and_update();
        let built = progress.borrow_and_update().snapshot.map(LogId::from);
        // openraft ignores the request while it builds an earlier snapshot, so ask again when that
        // one is finished.
        if let Some(wanted) = wanted
            && Some(wanted) > built
            && asked != Some((wanted, built))
        {
            asked = Some((wanted, built));
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        let changed = tokio::select! {
            changed = watermark.changed() => changed,
            changed = progress.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
impl<S> Group<S> {
    pub(crate) fn member(&self) -> &Member {
        &self.member
    }
}
