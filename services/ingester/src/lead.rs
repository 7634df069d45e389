//! What the leader of a shard does beside serving: it tells the catalog that it leads, changes the
//! members of its group to those the catalog wants, one change at a time, and hands leadership to the
//! replica that should have it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clew_catalog::{LeadOutcome, NoteLead, ReplicaId, ShardLead, ShardPlace, SharedTopology};
use clew_node::Stop;
use clew_raft::Members;
use tokio::sync::watch;

use crate::IngesterError;
use crate::hosting::{addr, raft_replica};
use crate::shard::{Shard, log_point};

/// How often the leader looks whether everything is as wanted; it also looks at every change.
const LOOK: Duration = Duration::from_secs(5);

/// The pause after a step that failed.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// How long a new replica may take to catch up in one attempt. It goes on catching up afterwards.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// How long a change of members may take in one attempt.
const CHANGE_MAX: Duration = Duration::from_secs(10);

/// How long a leader leads before it hands over to the replica that should lead: one that has just
/// come back should not lead before it is settled, nor the leaders all move at once.
const SETTLE: Duration = Duration::from_secs(10);

/// How long handing over may take.
const HAND_OVER_MAX: Duration = Duration::from_secs(4);

/// What a leader has done so far.
struct Duties {
    noted: Option<ShardLead>,
    leads_since: Duration,
}

impl Shard {
    /// Does a leader's duties whenever this replica leads, until `stop`.
    pub(crate) async fn run_duties(
        self: Arc<Shard>,
        mut topology: watch::Receiver<SharedTopology>,
        stop: Stop,
    ) {
        loop {
            let mut leadership = self.group.leadership();
            match stop.or(leadership.wait_for(|now| now.is_leader)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
            let mut lost = self.group.leadership();
            tokio::select! {
                biased;
                () = stop.stopped() => return,
                _ = lost.wait_for(|now| !now.is_leader) => {}
                () = self.do_duties(&mut topology) => {}
            }
        }
    }

    async fn do_duties(&self, topology: &mut watch::Receiver<SharedTopology>) {
        let leads_since = self.deps.clock.monotonic();
        let mut duties = Duties { noted: None, leads_since };
        loop {
            let now = topology.borrow_and_update().clone();
            let place = now.shards.get(&self.shard);
            let place = place.filter(|place| place.incarnation == self.incarnation);
            if let Err(error) = self.look_after(place, &mut duties).await {
                tracing::debug!(shard = self.shard.0, %error, "a duty of the leader has to wait");
                self.deps.clock.sleep(RETRY_DELAY).await;
                continue;
            }
            if let Some(Err(_)) = self.deps.clock.timeout(LOOK, topology.changed()).await {
                return;
            }
        }
    }

    /// One round of duties; every step is begun only when the one before is done.
    async fn look_after(
        &self,
        place: Option<&ShardPlace>,
        duties: &mut Duties,
    ) -> Result<(), IngesterError> {
        if place.is_some_and(|place| place.awaits) {
            // The catalog was restored: it has to be told again.
            duties.noted = None;
        }
        self.note_lead(duties).await?;
        // What a restored catalog wants is not known before it knows what there is.
        let Some(place) = place.filter(|place| !place.awaits) else { return Ok(()) };
        let wanted: BTreeSet<_> = place.placed.iter().copied().map(raft_replica).collect();
        let own = self.group.replica();
        let members = self.group.members();
        let voters: BTreeSet<_> = members.voters.keys().copied().collect();
        if voters != wanted || !members.learners.is_empty() {
            for replica in place.placed.iter().filter(|r| !voters.contains(&raft_replica(**r))) {
                tracing::info!(shard = self.shard.0, %replica, "a replica is added");
                let added = self.group.add_learner(raft_replica(*replica), addr(*replica));
                self.within(CATCH_UP_MAX, added).await?;
            }
            // A leader that has to go stays until another can lead.
            let mut next = wanted.clone();
            next.insert(own);
            if next != voters {
                self.within(CHANGE_MAX, self.group.set_voters(&next)).await?;
                tracing::info!(shard = self.shard.0, voters = names(&next), "the members changed");
            }
            for learner in self.group.members().learners.into_keys() {
                if !wanted.contains(&learner) {
                    self.within(CHANGE_MAX, self.group.remove_learner(learner)).await?;
                }
            }
            self.note_lead(duties).await?;
        }
        let has_settled = self.deps.clock.monotonic().saturating_sub(duties.leads_since) >= SETTLE;
        match place.placed.first().copied().map(raft_replica) {
            Some(first) if first != own && (has_settled || !wanted.contains(&own)) => {
                let handed = self.group.hand_over(first, HAND_OVER_MAX).await;
                // Once in a while is enough if the other one does not want to.
                duties.leads_since = self.deps.clock.monotonic();
                match handed {
                    Ok(()) => {
                        tracing::info!(shard = self.shard.0, to = %first, "handed leadership over");
                    }
                    Err(error) => {
                        tracing::info!(shard = self.shard.0, to = %first, %error, "not handed over");
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells the catalog who leads and who the members are. They are committed then: what it knows
    /// of as no member any more is deleted.
    async fn note_lead(&self, duties: &mut Duties) -> Result<(), IngesterError> {
        let leadership = *self.group.leadership().borrow();
        let members = self.group.members();
        let (members_index, own) = (members.index, self.group.replica());
        let lead = lead_of(leadership.term, own, members);
        if !leadership.is_leader || duties.noted.as_ref() == Some(&lead) {
            return Ok(());
        }
        self.group.read_index().await?;
        self.group.wait_applied(members_index).await?;
        let (shard, incarnation) = (self.shard, self.incarnation);
        let flushed = self.group.watermark().map(log_point).unwrap_or_default();
        let note = NoteLead { shard, incarnation, lead: lead.clone(), flushed };
        match self.metastore.apply(note).await? {
            LeadOutcome::Noted => duties.noted = Some(lead),
            LeadOutcome::Stale | LeadOutcome::Closed => {
                tracing::debug!(shard = shard.0, "the catalog does not take this leader any more");
            }
        }
        Ok(())
    }

    async fn within(
        &self,
        limit: Duration,
        step: impl Future<Output = Result<(), clew_raft::Error>>,
    ) -> Result<(), IngesterError> {
        match self.deps.clock.timeout(limit, step).await {
            Some(done) => Ok(done?),
            None => Err(IngesterError::TimedOut("a change of members")),
        }
    }

    /// Gives leadership away, if this replica has it and somebody takes it.
    pub(crate) async fn step_down(&self) {
        self.group.set_elections(false);
        let own = self.group.replica();
        let mut others: Vec<_> = self.group.members().voters.into_keys().collect();
        others.retain(|other| *other != own);
        for other in others {
            if !self.group.leadership().borrow().is_leader {
                return;
            }
            match self.group.hand_over(other, HAND_OVER_MAX).await {
                Ok(()) => {
                    tracing::info!(shard = self.shard.0, to = %other, "handed leadership over");
                }
                Err(error) => {
                    tracing::info!(shard = self.shard.0, to = %other, %error, "not handed over");
                }
            }
        }
    }
}

fn lead_of(term: u64, leader: clew_raft::ReplicaId, members: Members) -> ShardLead {
    let numbers = |replicas: Vec<clew_raft::ReplicaId>| {
        replicas.into_iter().map(|replica| ReplicaId(replica.0)).collect()
    };
    ShardLead {
        term,
        leader: ReplicaId(leader.0),
        members_index: members.index,
        voters: numbers(members.voters.into_keys().collect()),
        learners: numbers(members.learners.into_keys().collect()),
    }
}

fn names(replicas: &BTreeSet<clew_raft::ReplicaId>) -> String {
    replicas.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
