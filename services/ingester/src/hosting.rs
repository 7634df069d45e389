//! The replicas on this disk follow the topology: what belongs here is opened, what does not any more
//! is closed and deleted.
//!
//! A replica takes part in the first membership of its group only if nobody has ever led that group.
//! In any other case it opens empty and waits for a leader to fill it: it may have been a member
//! before, and has forgotten what it promised then.
//!
//! A catalog that was restored does not know where replicas are. Until a leader has told it, every log
//! on this disk is opened, none is begun and none is deleted; a log that is later than the one the
//! catalog knows is told to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clew_catalog::{
    ClaimLog, ClaimOutcome, Incarnation, ReplicaId, ShardLead, ShardPlace, SharedTopology, Topology,
};
use clew_node::{Deps, Stop};
use clew_proto::metastore::v1::ReplicaReport;
use clew_raft::{Ending, GroupId, GroupOptions, GroupSpec, Host, Members, NodeAddr, ShardGroup};
use clew_ring::ShardId;
use clew_storage::Bucket;
use parking_lot::RwLock;
use tokio::sync::{Notify, oneshot, watch};

use crate::boot::Membership;
use crate::head::Budget;
use crate::metastore::MetastoreClient;
use crate::metrics::IngesterMetrics;
use crate::shard::{Shard, ShardParts};
use crate::{Config, IngesterError};

/// The largest log entry. An entry is cut at `entry_bytes_max`, but a batch with a single span above
/// it goes in whole: the distributor takes spans of up to 16 MiB.
const PAYLOAD_BYTES_MAX: usize = 40 << 20;

/// How soon what could not be done for a topology is tried again, if the topology does not change
/// before: twice as long after each failure.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How long a replica that stopped over an error is left alone. The others elect a leader meanwhile: one that
/// comes back sooner, leads and stops again keeps them waiting for ever.
const REST: Duration = Duration::from_secs(10);

/// The same for one whose vote is known to be superseded. It comes back as the leader it was, and steps down as
/// soon as it hears of that vote.
const REST_SUPERSEDED: Duration = Duration::from_secs(1);

/// The shards that have a replica here. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Hosted(Arc<RwLock<BTreeMap<ShardId, Arc<Shard>>>>);

impl Hosted {
    pub(crate) fn get(&self, shard: ShardId) -> Option<Arc<Shard>> {
        self.0.read().get(&shard).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(ShardId, Arc<Shard>)> {
        self.0.read().iter().map(|(id, shard)| (*id, shard.clone())).collect()
    }

    /// How the replicas here stand.
    pub(crate) fn reports(&self) -> Vec<ReplicaReport> {
        let report = |(id, shard): (ShardId, Arc<Shard>)| {
            let status = shard.group.status();
            ReplicaReport {
                shard: id.0,
                incarnation: shard.incarnation.0,
                replica: status.replica.0,
                leads: status.leadership.is_leader && status.is_heard,
                term: status.leadership.term,
                last_index: status.last_index.unwrap_or(0),
                applied_index: status.applied_index,
                watermark: shard.group.watermark().map_or(0, |id| id.index),
                consumed: match shard.is_leading() {
                    true => *shard.head.consumed().borrow(),
                    false => 0,
                },
            }
        };
        self.all().into_iter().map(report).collect()
    }
}

/// What all shards of an ingester are made with.
pub(crate) struct Hosting {
    pub(crate) replica: ReplicaId,
    pub(crate) member: Membership,
    pub(crate) host: Host,
    pub(crate) config: Arc<Config>,
    pub(crate) deps: Deps,
    pub(crate) bucket: Bucket,
    pub(crate) metastore: MetastoreClient,
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: IngesterMetrics,
    pub(crate) topology: watch::Receiver<SharedTopology>,
    pub(crate) hosted: Hosted,
    /// The revision that was followed last; the replicas of it are open.
    pub(crate) followed: watch::Sender<Option<u64>>,
    /// What runs, by shard.
    pub(crate) running: BTreeMap<ShardId, Running>,
    /// Told when a replica that stopped by itself may be opened again.
    pub(crate) reopen: Arc<Notify>,
}

/// A shard at work.
pub(crate) struct Running {
    incarnation: Incarnation,
    shard: Arc<Shard>,
    /// Ends following and leading.
    stop: Stop,
    /// Done when the last append is answered.
    appended: oneshot::Receiver<()>,
    /// Set a while after the replica stopped by itself.
    rested: Arc<AtomicBool>,
}

impl Running {
    /// Whether its replica has stopped by itself: openraft's task ended. What is on disk is as after a
    /// crash, so it can be opened again.
    fn has_ended(&self) -> bool {
        self.shard.group.ending().is_some()
    }

    /// Whether that was long enough ago.
    fn has_rested(&self) -> bool {
        self.rested.load(Ordering::Relaxed)
    }
}

impl Hosting {
    /// Follows the topology until `stop`, then stops everything in order.
    pub(crate) async fn run(mut self, stop: Stop) {
        let mut topology = self.topology.clone();
        let mut retry = RETRY;
        loop {
            let now = topology.borrow_and_update().clone();
            let is_done = now.cluster.is_none() || self.follow(&now).await;
            let changed = async {
                tokio::select! {
                    biased;
                    changed = topology.changed() => Some(changed),
                    () = self.deps.clock.sleep(retry), if !is_done => None,
                    () = self.reopen.notified() => None,
                }
            };
            match stop.or(changed).await {
                Some(None | Some(Ok(()))) => {}
                Some(Some(Err(_))) => {
                    stop.stopped().await;
                    break;
                }
                None => break,
            }
            retry = if is_done { RETRY } else { (2 * retry).min(RETRY_MAX) };
        }
        let running: Vec<ShardId> = self.running.keys().copied().collect();
        for shard in &running {
            if let Some(running) = self.running.get(shard) {
                running.shard.close();
            }
        }
        for shard in running {
            self.close(shard).await;
        }
    }

    /// Whether all was done that the topology asks for; what was not is to be tried again.
    async fn follow(&mut self, topology: &Topology) -> bool {
        if self.host.store().failed().borrow().is_some() {
            // Every replica has stopped, and the process is about to.
            return false;
        }
        let mut is_done = self.stay_known(topology).await;
        let Some(on_disk) = self.logs_on_disk() else { return false };
        is_done &= self.claim(topology, &on_disk).await;
        self.close_ended(topology).await;
        let unread = self.open_strays(topology, &on_disk).await;
        is_done &= unread.is_empty();
        let belongs = |place: &&ShardPlace| match place.awaits {
            true => on_disk.contains(&(place.shard, place.incarnation)),
            false => place.has(self.replica),
        };
        let mut wanted: BTreeMap<ShardId, ShardPlace> =
            topology.shards.values().filter(belongs).map(|p| (p.shard, p.clone())).collect();
        for (shard, running) in &self.running {
            let Some(place) = topology.shards.get(shard) else { continue };
            if !wanted.contains_key(shard) && self.is_back(place, running) {
                wanted.insert(*shard, place.clone());
                is_done = false;
            }
        }
        let gone: Vec<ShardId> = self
            .running
            .iter()
            .filter(|(id, running)| {
                wanted.get(*id).is_none_or(|place| place.incarnation != running.incarnation)
            })
            .map(|(id, _)| *id)
            .collect();
        for shard in gone {
            let Some(closed) = self.close(shard).await else { continue };
            // It went on following its log until it was closed.
            if let Some(place) = topology.shards.get(&shard)
                && self.is_back(place, &closed)
            {
                wanted.insert(shard, place.clone());
                is_done = false;
            }
        }
        is_done &= self.remove_foreign(topology, &wanted, &on_disk, &unread).await;
        for place in wanted.into_values() {
            if self.running.contains_key(&place.shard) {
                continue;
            }
            if let Err(error) = self.open(topology, &place).await {
                tracing::error!(shard = place.shard.0, %error, "a replica cannot be opened");
                is_done = false;
            }
        }
        let shards = topology.generations.iter().flat_map(|g| g.map.shards());
        if shards.map(|s| s.shard).all(|shard| topology.shards.contains_key(&shard)) {
            self.followed.send_replace(Some(topology.revision));
        }
        is_done
    }

    /// Closes what stopped by itself: to open it again, or to ask its log whether it belongs here.
    async fn close_ended(&mut self, topology: &Topology) {
        let is_due = |(shard, running): &(&ShardId, &Running)| {
            let place = topology.shards.get(shard);
            let is_here = place.is_none_or(|place| place.has(self.replica));
            running.has_ended() && (running.has_rested() || !is_here)
        };
        let due: Vec<ShardId> = self.running.iter().filter(is_due).map(|(id, _)| *id).collect();
        for shard in due {
            self.close(shard).await;
        }
    }

    /// Opens what is on disk although the catalog has it elsewhere: only the log tells whether it was taken
    /// back since. The shards that cannot be opened are named.
    async fn open_strays(
        &mut self,
        topology: &Topology,
        on_disk: &BTreeSet<(ShardId, Incarnation)>,
    ) -> BTreeSet<ShardId> {
        let mut unread = BTreeSet::new();
        for (shard, incarnation) in on_disk {
            let Some(place) = topology.shards.get(shard) else { continue };
            let is_stray =
                place.incarnation == *incarnation && !place.awaits && !place.has(self.replica);
            if !is_stray || self.running.contains_key(shard) {
                continue;
            }
            if let Err(error) = self.open(topology, place).await {
                tracing::error!(%shard, %error, "a replica that has moved away cannot be opened");
                unread.insert(*shard);
            }
        }
        unread
    }

    /// Whether the log makes this replica a member later than what the catalog was told last. The leader
    /// may follow a later topology, which wants the replica again, and counts on what it has.
    fn is_back(&self, place: &ShardPlace, running: &Running) -> bool {
        place.incarnation == running.incarnation
            && place.lead.as_ref().is_some_and(|told| {
                decided_later(&running.shard.group.members(), self.replica, told)
            })
    }

    async fn open(&mut self, topology: &Topology, place: &ShardPlace) -> Result<(), IngesterError> {
        let is_new = place.lead.is_none() && !place.awaits;
        let begins = is_new && place.first.contains(&self.replica);
        let voters = place.first.iter().map(|replica| (raft_replica(*replica), addr(*replica)));
        let spec = GroupSpec {
            group: GroupId::shard(place.shard.0, place.incarnation.0),
            replica: raft_replica(self.replica),
            bootstrap: begins.then(|| voters.collect()),
            options: GroupOptions {
                payload_bytes_max: PAYLOAD_BYTES_MAX,
                ..GroupOptions::default().with_heartbeat(self.config.raft_heartbeat.0)
            },
        };
        let group: ShardGroup = self.host.open_shard(spec).await?;
        tracing::info!(
            shard = place.shard.0,
            incarnation = place.incarnation.0,
            begins,
            revision = topology.revision,
            "replica opened"
        );
        let shard = Shard::new(ShardParts {
            shard: place.shard,
            incarnation: place.incarnation,
            group,
            config: self.config.clone(),
            deps: self.deps.clone(),
            bucket: self.bucket.clone(),
            metastore: self.metastore.clone(),
            budget: self.budget.clone(),
            metrics: self.metrics.clone(),
        });
        let stop = Stop::new();
        let (done, appended) = oneshot::channel();
        let appends = shard.clone();
        self.deps.tasks.spawn(async move {
            appends.run_appends().await;
            drop(done);
        });
        self.deps.tasks.spawn(shard.clone().run_head(stop.clone()));
        let rested = Arc::<AtomicBool>::default();
        self.deps.tasks.spawn(self.run_duties(shard.clone(), stop.clone(), rested.clone()));
        self.hosted.0.write().insert(place.shard, shard.clone());
        let incarnation = place.incarnation;
        let running = Running { incarnation, shard, stop, appended, rested };
        self.running.insert(place.shard, running);
        Ok(())
    }

    /// Follows and leads until the replica stops. If it was not asked to, it is to be opened again after a rest.
    fn run_duties(
        &self,
        shard: Arc<Shard>,
        stop: Stop,
        rested: Arc<AtomicBool>,
    ) -> impl Future<Output = ()> + use<> {
        let duties = shard.clone().run_duties(self.topology.clone(), stop.clone());
        let (clock, reopen) = (self.deps.clock.clone(), self.reopen.clone());
        let disk_failed = self.host.store().failed();
        let stopped = self.metrics.replicas_stopped.clone();
        async move {
            duties.await;
            let is_superseded = shard.group.ending() == Some(Ending::Superseded);
            if !stop.is_stopped() && disk_failed.borrow().is_none() {
                let cause = if is_superseded { "superseded" } else { "error" };
                stopped.with_label_values(&[cause]).inc();
            }
            let rest = if is_superseded { REST_SUPERSEDED } else { REST };
            if stop.or(clock.sleep(rest)).await.is_some() {
                rested.store(true, Ordering::Relaxed);
                reopen.notify_one();
            }
        }
    }

    /// Stops a shard: what waits is still appended, reads are served until then.
    async fn close(&mut self, shard: ShardId) -> Option<Running> {
        let mut running = self.running.remove(&shard)?;
        running.shard.close();
        // An error means the sender is gone, which is what is waited for.
        let _ = (&mut running.appended).await;
        running.stop.stop();
        running.shard.group.shutdown().await;
        self.hosted.0.write().remove(&shard);
        tracing::info!(shard = shard.0, "replica closed");
        Some(running)
    }

    /// Tells a catalog of node and disk that was restored from before it knew them.
    async fn stay_known(&mut self, topology: &Topology) -> bool {
        let disk = self.member.disk;
        let is_known = topology.replicas.iter().any(|info| info.disk == disk);
        if is_known || topology.revision < self.member.since {
            return true;
        }
        tracing::warn!(replica = %self.replica, "the catalog does not know this disk, joining again");
        let joined = self.member.join(&self.metastore).await;
        if let Err(error) = &joined {
            tracing::warn!(%error, "joining again has to wait");
        }
        joined.is_ok()
    }

    fn logs_on_disk(&self) -> Option<BTreeSet<(ShardId, Incarnation)>> {
        let log = |(group, _)| match group {
            GroupId::Shard { shard, incarnation } => {
                Some((ShardId(shard), Incarnation(incarnation)))
            }
            GroupId::Metastore => None,
        };
        match self.host.store().groups_on_disk() {
            Ok(groups) => Some(groups.into_iter().filter_map(log).collect()),
            Err(error) => {
                tracing::error!(%error, "the replicas on disk cannot be listed");
                None
            }
        }
    }

    /// Tells a restored catalog of logs that were opened after its backup.
    async fn claim(&self, topology: &Topology, on_disk: &BTreeSet<(ShardId, Incarnation)>) -> bool {
        let mut is_done = true;
        for (shard, incarnation) in on_disk {
            let (shard, incarnation) = (*shard, *incarnation);
            let place = topology.shards.get(&shard).filter(|place| place.awaits);
            if place.is_none_or(|place| place.incarnation >= incarnation) {
                continue;
            }
            let claim = ClaimLog { shard, incarnation, replica: self.replica };
            match self.metastore.apply(claim).await {
                Ok(ClaimOutcome::Claimed) => {
                    tracing::warn!(%shard, %incarnation, "told the catalog of a log it did not know");
                }
                Ok(ClaimOutcome::Closed { current }) if current > incarnation => {
                    tracing::info!(%shard, %incarnation, %current, "a log is over");
                }
                Ok(outcome) => tracing::error!(
                    %shard,
                    %incarnation,
                    ?outcome,
                    "a log that is later than the catalog's is not taken: it stays on this disk"
                ),
                Err(error) => {
                    tracing::warn!(%shard, %incarnation, %error, "a log is not claimed");
                    is_done = false;
                }
            }
        }
        is_done
    }

    /// Deletes what is on disk of groups that this replica does not belong to any more. A log that
    /// the catalog does not know is kept: the catalog may be an old backup. So is one that lost its
    /// majority and was given up for a new one: nobody else may have its last entries. And so is what
    /// could not be opened (`unread`).
    async fn remove_foreign(
        &self,
        topology: &Topology,
        wanted: &BTreeMap<ShardId, ShardPlace>,
        on_disk: &BTreeSet<(ShardId, Incarnation)>,
        unread: &BTreeSet<ShardId>,
    ) -> bool {
        let mut is_done = true;
        for (shard, incarnation) in on_disk {
            let is_wanted = wanted.get(shard).is_some_and(|p| p.incarnation == *incarnation);
            let place = topology.shards.get(shard);
            let known = place.is_some_and(|p| p.incarnation == *incarnation && !p.awaits);
            if is_wanted || !known || unread.contains(shard) {
                continue;
            }
            let group = GroupId::shard(shard.0, incarnation.0);
            match self.host.remove(group).await {
                Ok(()) => tracing::info!(%group, "removed a replica that has moved away"),
                Err(error) => {
                    tracing::warn!(%group, %error, "a replica cannot be removed yet");
                    is_done = false;
                }
            }
        }
        is_done
    }
}

/// Whether `members` have the replica and were decided after what was told. A leader of a later term has
/// every change that was committed: what it does not tell of was not.
fn decided_later(members: &Members, replica: ReplicaId, told: &ShardLead) -> bool {
    let replica = raft_replica(replica);
    let is_member =
        members.voters.contains_key(&replica) || members.learners.contains_key(&replica);
    is_member && members.index > told.members_index && members.term >= told.term
}

/// The replica as the raft groups call it.
pub(crate) fn raft_replica(replica: ReplicaId) -> clew_raft::ReplicaId {
    clew_raft::ReplicaId(replica.0)
}

/// The address of a replica in the membership of its group: its own number, so that it is found
/// wherever its node is reached now.
pub(crate) fn addr(replica: ReplicaId) -> NodeAddr {
    NodeAddr(replica.0.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_was_taken_back_is_kept() {
        let told = ShardLead {
            term: 6,
            leader: ReplicaId(2),
            members_index: 41,
            voters: [2, 3, 5].map(ReplicaId).to_vec(),
            learners: vec![],
        };
        let members = |term, index, voters: [u64; 3]| Members {
            index,
            term,
            voters: voters
                .iter()
                .map(|at| (raft_replica(ReplicaId(*at)), addr(ReplicaId(*at))))
                .collect(),
            ..Members::default()
        };
        let mine = ReplicaId(1);
        assert!(decided_later(&members(6, 42, [1, 2, 3]), mine, &told));
        assert!(decided_later(&members(7, 42, [1, 2, 3]), mine, &told));
        assert!(!decided_later(&members(6, 40, [1, 2, 3]), mine, &told), "before it was taken out");
        assert!(!decided_later(&members(5, 42, [1, 2, 3]), mine, &told), "never committed");
        assert!(!decided_later(&members(6, 42, [2, 3, 5]), mine, &told), "not a member");
    }
}
