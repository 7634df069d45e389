//! One replica of one group as its process sees it, whatever it replicates into: proposing,
//! confirming leadership, reading the committed log, changing members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use clew_node::{Clock, Deps};
use openraft::error::{
    ChangeMembershipError, CheckIsLeaderError, ClientWriteError, Fatal, ForwardToLeader, RaftError,
};
use openraft::raft::ClientWriteResult;
use openraft::{ChangeMembers, EntryPayload};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::ending::{Ending, log_end};
use crate::error::Error;
use crate::handover::HandOverTimes;
use crate::ids::{GroupId, LogId, NodeAddr, ReplicaId};
use crate::leadership::{Leadership, follow_leadership};
use crate::log::GroupLog;
use crate::runtime;
use crate::store::Removed;
use crate::transport::Transport;
use crate::types::{Command, Raft, RaftEntry, RaftLogId, Reply, Types};
use crate::wire::{Answer, Call, Request, snapshot_answer};

/// A leader that no majority has heard of for so long is reported as none: three elections fit in.
const UNHEARD_MAX: Duration = Duration::from_secs(3);

/// The members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// Where in the log they were decided; later changes stand higher.
    pub index: u64,
    /// The term in which they were.
    pub term: u64,
    /// The replicas that vote.
    pub voters: BTreeMap<ReplicaId, NodeAddr>,
    /// The replicas that receive the log without a vote.
    pub learners: BTreeMap<ReplicaId, NodeAddr>,
}

/// One entry of the committed log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedEntry {
    /// Its id.
    pub log_id: LogId,
    /// The payload that was proposed; `None` for entries the group makes for itself.
    pub data: Option<Bytes>,
}

/// Where a replica stands, for `/status` and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// This replica.
    pub replica: ReplicaId,
    /// Who leads.
    pub leadership: Leadership,
    /// On the leader: whether a majority has heard of it lately. One that is cut off is not told
    /// that it leads no more.
    pub is_heard: bool,
    /// The last entry in this replica's log.
    pub last_index: Option<u64>,
    /// The last entry that is committed and applied here.
    pub applied_index: u64,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// On the leader: the last entry each replica is known to have.
    pub replicated: BTreeMap<ReplicaId, Option<u64>>,
}

/// What is shared by all handles of a replica.
pub(crate) struct Member {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) raft: Raft,
    pub(crate) log: Arc<GroupLog>,
    pub(crate) clock: Clock,
    applied: watch::Receiver<u64>,
    leadership: watch::Receiver<Leadership>,
    pub(crate) admission: Arc<Semaphore>,
    pub(crate) proposals_max: usize,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) times: HandOverTimes,
    /// Whether this replica may run for leader. Locked while openraft is told.
    elections: Mutex<bool>,
    /// Set if it was removed from this disk once, and is back.
    removed: Option<Removed>,
    payload_bytes_max: usize,
    snapshot_bytes_max: u64,
    rounds: ReadRounds,
}

/// What a [`Member`] is made of.
pub(crate) struct Parts {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) raft: Raft,
    pub(crate) log: Arc<GroupLog>,
    pub(crate) removed: Option<Removed>,
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) proposals_max: usize,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) times: HandOverTimes,
    pub(crate) payload_bytes_max: usize,
    pub(crate) snapshot_bytes_max: u64,
}

/// Confirmations of leadership, numbered in the order they begin. A caller is served by any that
/// began after it arrived, so that all who wait for one share the next.
#[derive(Default)]
struct ReadRounds {
    begun: AtomicU64,
    /// The last one that ended; its lock is held while one runs.
    ended: tokio::sync::Mutex<Option<(u64, Result<u64, Error>)>>,
}

impl Member {
    pub(crate) fn new(parts: Parts, deps: &Deps) -> Arc<Member> {
        let (sender, leadership) = watch::channel(Leadership::default());
        let (group, raft) = (parts.group, parts.raft.clone());
        deps.tasks.spawn(async move {
            follow_leadership(raft.server_metrics(), sender).await;
            log_end(group, &raft.metrics().borrow().running_state);
        });
        let member = Arc::new(Member {
            group: parts.group,
            replica: parts.replica,
            raft: parts.raft,
            log: parts.log,
            clock: deps.clock.clone(),
            applied: parts.applied,
            leadership,
            admission: Arc::new(Semaphore::new(parts.proposals_max)),
            proposals_max: parts.proposals_max,
            transport: parts.transport,
            elections: Mutex::new(true),
            removed: parts.removed,
            times: parts.times,
            payload_bytes_max: parts.payload_bytes_max,
            snapshot_bytes_max: parts.snapshot_bytes_max,
            rounds: ReadRounds::default(),
        });
        if member.removed.is_some() {
            deps.tasks.spawn(run_when_log_is_back(member.raft.clone(), Arc::downgrade(&member)));
        }
        member
    }

    /// Whether this replica was removed from this disk once.
    pub(crate) fn was_removed(&self) -> bool {
        self.removed.is_some()
    }

    /// Whether it has what it had when it was removed, and so may vote and run: a majority that was counted
    /// with its log could be outvoted with its help as long as that is shorter.
    pub(crate) fn has_its_log(&self) -> bool {
        self.removed.is_none_or(|removed| self.log.last() >= removed.last)
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// See [`Group::ending`](crate::Group::ending).
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.leadership
            .has_changed()
            .is_err()
            .then(|| Ending::of(&self.raft.metrics().borrow().running_state))
    }

    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// Proposes a command and waits until it is committed and applied here.
    pub(crate) async fn propose(
        &self,
        command: Command,
        timeout: Duration,
    ) -> Result<(LogId, Reply), Error> {
        if let Command::Data(data) = &command
            && data.len() > self.payload_bytes_max
        {
            let (bytes, bytes_max) = (data.len(), self.payload_bytes_max);
            return Err(Error::TooLarge { bytes, bytes_max });
        }
        let mut handed_over = false;
        let proposed = async {
            let waiting = Arc::clone(&self.admission).acquire_owned().await;
            let admission = waiting.map_err(|_| self.stopped("it was closed"))?;
            handed_over = true;
            let outcome = self.raft.client_write_ff(command).await;
            let outcome = outcome.map_err(|fatal| self.fatal(&fatal))?;
            let pending = Pending { outcome: Some(outcome), admission: Some(admission) };
            pending.outcome().await.ok_or_else(|| self.stopped(self.stop_reason()))
        };
        match self.clock.timeout(timeout, proposed).await {
            Some(Ok(Ok(response))) => Ok((response.log_id.into(), response.data)),
            Some(Ok(Err(error))) => Err(self.write_error(error)),
            Some(Err(error)) => Err(error),
            None if handed_over => Err(Error::Unconfirmed { group: self.group }),
            None => Err(Error::Overloaded { group: self.group }),
        }
    }

    /// Confirms that this replica leads and gives the index a read must wait for, which is applied
    /// here when it returns.
    pub(crate) async fn read_index(&self) -> Result<u64, Error> {
        let arrived = self.rounds.begun.load(Ordering::SeqCst);
        let mut ended = self.rounds.ended.lock().await;
        let result = match ended.as_ref() {
            Some((round, result)) if *round > arrived => result.clone(),
            _ => {
                let round = self.rounds.begun.fetch_add(1, Ordering::SeqCst) + 1;
                let result = self.confirm_leadership().await;
                *ended = Some((round, result.clone()));
                result
            }
        };
        drop(ended);
        let index = result?;
        self.wait_applied(index).await?;
        Ok(index)
    }

    /// Keeps reads waiting: confirming leadership renews the lease that a hand-over waits for.
    pub(crate) async fn pause_reads(&self) -> impl Sized + '_ {
        self.rounds.ended.lock().await
    }

    async fn confirm_leadership(&self) -> Result<u64, Error> {
        match self.raft.get_read_log_id().await {
            Ok((read, _)) => Ok(read.map_or(0, |id| id.index)),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => {
                Err(self.not_leader(forward))
            }
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                Err(Error::NoQuorum { group: self.group })
            }
            Err(RaftError::Fatal(fatal)) => Err(self.fatal(&fatal)),
        }
    }

    pub(crate) async fn wait_applied(&self, index: u64) -> Result<(), Error> {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= index).await;
        reached.map(|_| ()).map_err(|_| self.stopped("it was closed"))
    }

    /// See [`Group::read_committed`](crate::Group::read_committed).
    pub(crate) async fn read_committed(
        &self,
        from_exclusive: u64,
        bytes_max: usize,
    ) -> Result<Vec<CommittedEntry>, Error> {
        let upto = *self.applied.borrow();
        if from_exclusive >= upto {
            return Ok(Vec::new());
        }
        self.check_not_purged(from_exclusive)?;
        // Entry 0 is the first membership, so nothing is missed by starting behind it.
        let first = from_exclusive + 1;
        let entries = self.log.entries(first, upto + 1, Some(bytes_max)).await?;
        if entries.first().map(|entry| entry.log_id.index) != Some(first) {
            // It was there when we looked: a purge came in between, or the log is damaged.
            self.check_not_purged(from_exclusive)?;
            return Err(Error::corrupt("log", format!("entry {first} is missing")));
        }
        Ok(entries.into_iter().map(committed_entry).collect())
    }

    fn check_not_purged(&self, from_exclusive: u64) -> Result<(), Error> {
        match self.log.purged() {
            Some(purged) if from_exclusive < purged.index => {
                Err(Error::Purged { up_to: purged.into() })
            }
            _ => Ok(()),
        }
    }

    /// The id of the committed entry at `index`, if it is still in the log.
    pub(crate) async fn committed_id(&self, index: u64) -> Result<Option<LogId>, Error> {
        if index > *self.applied.borrow() {
            return Ok(None);
        }
        let entries = self.log.entries(index, index + 1, None).await?;
        Ok(entries.first().map(|entry| entry.log_id.into()))
    }

    pub(crate) fn members(&self) -> Members {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let decided = metrics.membership_config.log_id();
        let (index, term) = decided.map_or((0, 0), |id| (id.index, id.leader_id.term));
        let mut members = Members { index, term, ..Members::default() };
        for (replica, addr) in metrics.membership_config.nodes() {
            let side = match voters.contains(replica) {
                true => &mut members.voters,
                false => &mut members.learners,
            };
            side.insert(ReplicaId(*replica), addr.clone());
        }
        members
    }

    pub(crate) async fn add_learner(&self, id: ReplicaId, addr: NodeAddr) -> Result<(), Error> {
        self.changed(self.raft.add_learner(id.0, addr, true).await)?;
        // openraft is content with one that is near. A replica that was removed once votes when it has
        // what it had; that ends before the entry that adds it.
        let added = self.members().index;
        let mut metrics = self.raft.metrics();
        let has_it = |all: &BTreeMap<u64, Option<RaftLogId>>| {
            all.get(&id.0).is_some_and(|last| last.is_some_and(|last| last.index >= added))
        };
        let seen = metrics.wait_for(|now| now.replication.as_ref().is_none_or(has_it)).await;
        match seen {
            Ok(now) if now.replication.is_some() => Ok(()),
            Ok(_) => Err(self.not_leader(ForwardToLeader::empty())),
            Err(_) => Err(self.stopped(self.stop_reason())),
        }
    }

    pub(crate) async fn remove_learner(&self, id: ReplicaId) -> Result<(), Error> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([id.0]));
        self.changed(self.raft.change_membership(change, false).await)
    }

    pub(crate) async fn set_voters(&self, voters: &BTreeSet<ReplicaId>) -> Result<(), Error> {
        let voters: BTreeSet<u64> = voters.iter().map(|voter| voter.0).collect();
        self.changed(self.raft.change_membership(voters, false).await)
    }

    fn changed<T>(
        &self,
        result: Result<T, RaftError<u64, ClientWriteError<u64, NodeAddr>>>,
    ) -> Result<(), Error> {
        match result {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(error)) => Err(self.write_error(error)),
            Err(RaftError::Fatal(fatal)) => Err(self.fatal(&fatal)),
        }
    }

    pub(crate) fn set_elections(&self, on: bool) {
        let mut elections = self.elections.lock();
        *elections = on;
        self.raft.runtime_config().elect(on && self.has_its_log());
    }

    pub(crate) async fn elect(&self) -> Result<(), Error> {
        if !self.has_its_log() {
            return Err(Error::LogMissing(self.group));
        }
        self.raft.trigger().elect().await.map_err(|fatal| self.fatal(&fatal))
    }

    pub(crate) fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let replicated = metrics.replication.iter().flatten();
        GroupStatus {
            group: self.group,
            replica: self.replica,
            leadership: *self.leadership.borrow(),
            is_heard: metrics
                .millis_since_quorum_ack
                .is_some_and(|millis| u128::from(millis) <= UNHEARD_MAX.as_millis()),
            last_index: metrics.last_log_index,
            applied_index: *self.applied.borrow(),
            purged: self.log.purged().map(LogId::from),
            replicated: replicated
                .map(|(replica, last)| (ReplicaId(*replica), last.map(|id| id.index)))
                .collect(),
        }
    }

    /// Answers a request of another replica of the group.
    pub(crate) async fn handle(&self, request: Bytes) -> Result<Bytes, Error> {
        let Request { to, call } = Request::decode(request)?;
        if to != self.replica {
            let (group, found) = (self.group, self.replica);
            return Err(Error::WrongReplica { group, wanted: to, found });
        }
        let answer = match call {
            Call::Append(append) => {
                self.raft.append_entries(append).await.map(Answer::Append).map_err(fatal_of)
            }
            Call::Vote(_) if !self.has_its_log() => return Err(Error::LogMissing(self.group)),
            Call::Vote(vote) => self.raft.vote(vote).await.map(Answer::Vote).map_err(fatal_of),
            Call::Lead { now } => {
                let willing = *self.elections.lock() && self.has_its_log();
                match now && willing {
                    true => self.raft.trigger().elect().await,
                    false => Ok(()),
                }
                .map(|()| Answer::Willing(willing))
            }
            Call::Snapshot(chunk) => {
                let end = chunk.offset.saturating_add(chunk.data.len() as u64);
                if end > self.snapshot_bytes_max {
                    return Err(Error::Invalid(format!("a snapshot is too large: {end} bytes")));
                }
                snapshot_answer(self.raft.install_snapshot(chunk).await)
            }
        };
        answer.map(|answer| answer.encode()).map_err(|fatal| self.fatal(&fatal))
    }

    pub(crate) async fn shutdown(&self) {
        self.admission.close();
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(group = %self.group, %error, "a replica did not stop cleanly");
        }
    }

    pub(crate) fn stopped(&self, reason: impl ToString) -> Error {
        Error::Stopped { group: self.group, reason: reason.to_string() }
    }

    fn stop_reason(&self) -> String {
        match &self.raft.metrics().borrow().running_state {
            Ok(()) => "it is stopping".to_owned(),
            Err(fatal) => fatal.to_string(),
        }
    }

    pub(crate) fn fatal(&self, fatal: &Fatal<u64>) -> Error {
        self.stopped(fatal)
    }

    fn not_leader(&self, forward: ForwardToLeader<u64, NodeAddr>) -> Error {
        let leader = forward.leader_id.map(ReplicaId).zip(forward.leader_node);
        Error::NotLeader { group: self.group, leader }
    }

    fn write_error(&self, error: ClientWriteError<u64, NodeAddr>) -> Error {
        match error {
            ClientWriteError::ForwardToLeader(forward) => self.not_leader(forward),
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
                Error::Members("another change is under way".to_owned())
            }
            ClientWriteError::ChangeMembershipError(error) => Error::Members(error.to_string()),
        }
    }
}

fn fatal_of(error: RaftError<u64>) -> Fatal<u64> {
    match error {
        RaftError::Fatal(fatal) => fatal,
        RaftError::APIError(never) => match never {},
    }
}

fn committed_entry(entry: RaftEntry) -> CommittedEntry {
    let data = match entry.payload {
        EntryPayload::Normal(command) => match command {
            Command::Data(data) => Some(data),
            Command::Flushed(_) => None,
        },
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    };
    CommittedEntry { log_id: entry.log_id.into(), data }
}

/// A proposal that openraft has taken. Its place stays taken until the outcome is known, also when
/// the proposer leaves before, so that abandoned proposals can not pile up.
struct Pending {
    outcome: Option<oneshot::Receiver<ClientWriteResult<Types>>>,
    admission: Option<OwnedSemaphorePermit>,
}

impl Pending {
    /// Nothing if the replica stops before.
    async fn outcome(mut self) -> Option<ClientWriteResult<Types>> {
        let result = self.outcome.as_mut()?.await;
        self.outcome = None;
        result.ok()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let (Some(outcome), Some(admission)) = (self.outcome.take(), self.admission.take()) {
            runtime::detach(async move {
                let _ = outcome.await;
                drop(admission);
            });
        }
    }
}

/// Lets a replica that was removed and is back run for leader, once it has its log.
async fn run_when_log_is_back(raft: Raft, member: Weak<Member>) {
    let mut log = raft.data_metrics();
    loop {
        // Seen before the log is looked at: what comes later wakes this again.
        log.mark_unchanged();
        let Some(member) = member.upgrade() else { return };
        if member.has_its_log() {
            let elections = member.elections.lock();
            member.raft.runtime_config().elect(*elections);
            return;
        }
        drop(member);
        if log.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
impl Member {
    /// How many confirmations of leadership have begun.
    pub(crate) fn rounds_begun(&self) -> u64 {
        self.rounds.begun.load(Ordering::SeqCst)
    }
}
