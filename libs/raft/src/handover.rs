//! A planned change of leader. openraft has none: followers refuse to vote while the leader's lease
//! runs, so the leader falls silent for that long and the other one runs then.
//!
//! Proposals wait while it lasts, so that the other replica is not behind when it runs, and no append
//! renews the lease. Whatever fails in between, the group is as after a leader that was slow.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::error::{InitializeError, RaftError};

use crate::error::Error;
use crate::ids::{NodeAddr, ReplicaId};
use crate::member::Member;
use crate::wire::{Answer, Call, Request};

/// The times of a group that a hand-over goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HandOverTimes {
    /// Between two attempts of the other replica.
    pub(crate) heartbeat: Duration,
    /// How long followers refuse to vote after they heard from the leader.
    pub(crate) lease: Duration,
}

/// Turns heartbeats on again when the attempt is over, also when it is abandoned.
struct Silence<'a>(&'a Member);

impl<'a> Silence<'a> {
    fn begin(member: &'a Member) -> Silence<'a> {
        member.raft.runtime_config().heartbeat(false);
        Silence(member)
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.raft.runtime_config().heartbeat(true);
    }
}

impl Member {
    /// See [`Group::hand_over`](crate::Group::hand_over).
    pub(crate) async fn hand_over(&self, to: ReplicaId, timeout: Duration) -> Result<(), Error> {
        let Some(addr) = self.members().voters.get(&to).cloned() else {
            return Err(Error::Members(format!("{to} has no vote")));
        };
        if !self.leadership().borrow().is_leader {
            return Err(Error::NotLeader { group: self.group, leader: None });
        }
        // Asked before anything waits: it may be away, or about to go.
        if self.ask(&addr, to, false).await != Some(true) {
            return Err(Error::Members(format!("{to} does not take over now")));
        }
        let handed = self.clock.timeout(timeout, self.step_aside(to, &addr)).await;
        handed.unwrap_or_else(|| Err(Error::Members(format!("{to} did not take over in time"))))
    }

    async fn step_aside(&self, to: ReplicaId, addr: &NodeAddr) -> Result<(), Error> {
        // Behind it new proposals wait; those before it are committed or given up.
        let all = u32::try_from(self.proposals_max).unwrap_or(u32::MAX);
        let paused = self.admission.acquire_many(all).await;
        let _paused = paused.map_err(|_| self.stopped("it was closed"))?;
        self.wait_level(to).await?;
        let _reads = self.pause_reads().await;
        let _silence = Silence::begin(self);
        self.clock.sleep(self.times.lease).await;
        let mut leadership = self.leadership();
        loop {
            if self.ask(addr, to, true).await == Some(false) {
                return Err(Error::Members(format!("{to} does not take over now")));
            }
            let changed = leadership.wait_for(|now| !now.is_leader);
            match self.clock.timeout(self.times.heartbeat, changed).await {
                Some(Ok(_)) => return Ok(()),
                Some(Err(_)) => return Err(self.stopped("it was closed")),
                None => {}
            }
        }
    }

    /// Asks the other replica to run, or whether it would; nothing if it does not answer.
    async fn ask(&self, addr: &NodeAddr, to: ReplicaId, now: bool) -> Option<bool> {
        let request = Request { to, call: Call::Lead { now } }.encode();
        let sent = self.transport.send(addr, self.group, request);
        match self.clock.timeout(self.times.lease, sent).await?.and_then(Answer::decode) {
            Ok(Answer::Willing(willing)) => Some(willing),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(group = %self.group, %error, "no answer to a hand-over");
                None
            }
        }
    }

    /// Waits until the other replica has everything that is in the log here.
    async fn wait_level(&self, to: ReplicaId) -> Result<(), Error> {
        let mut progress = self.raft.metrics();
        loop {
            {
                let now = progress.borrow_and_update();
                let there = now.replication.as_ref().and_then(|all| all.get(&to.0).copied());
                let Some(there) = there else {
                    return Err(Error::NotLeader { group: self.group, leader: None });
                };
                if there.map(|id| id.index) >= now.last_log_index {
                    return Ok(());
                }
            }
            if progress.changed().await.is_err() {
                return Err(self.stopped("it was closed"));
            }
        }
    }

    /// See [`Group::begin`](crate::Group::begin).
    pub(crate) async fn begin(&self, voters: BTreeMap<ReplicaId, NodeAddr>) -> Result<(), Error> {
        let voters: BTreeMap<u64, NodeAddr> =
            voters.into_iter().map(|(replica, addr)| (replica.0, addr)).collect();
        match self.raft.initialize(voters).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                Err(Error::Members("the group has begun already".to_owned()))
            }
            Err(RaftError::APIError(error)) => Err(Error::Members(error.to_string())),
            Err(RaftError::Fatal(fatal)) => Err(self.fatal(&fatal)),
        }
    }
}
