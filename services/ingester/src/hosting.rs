//! The replicas on this disk follow the topology: what belongs here is opened, what does not any more
//! is closed and deleted.
//!
//! A replica takes part in the first membership of its group only if nobody has ever led that group.
//! In any other case it opens empty and waits for a leader to fill it: it may have been a member
//! before, and has forgotten what it promised then.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_catalog::{Incarnation, ReplicaId, ShardPlace, SharedTopology, Topology};
use clew_node::{Deps, Stop};
use clew_proto::metastore::v1::ReplicaReport;
use clew_raft::{GroupId, GroupOptions, GroupSpec, Host, NodeAddr, ShardGroup};
use clew_ring::ShardId;
use clew_storage::Bucket;
use parking_lot::RwLock;
use tokio::sync::{oneshot, watch};

use crate::head::Budget;
use crate::metastore::MetastoreClient;
use crate::metrics::IngesterMetrics;
use crate::shard::{Shard, ShardParts};
use crate::{Config, IngesterError};

/// The largest log entry. An entry is cut at `entry_bytes_max`, but a batch with a single span above
/// it goes in whole: the distributor takes spans of up to 16 MiB.
const PAYLOAD_BYTES_MAX: usize = 40 << 20;

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
}

/// A shard at work.
pub(crate) struct Running {
    incarnation: Incarnation,
    shard: Arc<Shard>,
    /// Ends following and leading.
    stop: Stop,
    /// Done when the last append is answered.
    appended: oneshot::Receiver<()>,
}

impl Hosting {
    /// Follows the topology until `stop`, then stops everything in order.
    pub(crate) async fn run(mut self, stop: Stop) {
        let mut topology = self.topology.clone();
        loop {
            let now = topology.borrow_and_update().clone();
            if now.cluster.is_some() {
                self.follow(&now).await;
                let shards = now.generations.iter().flat_map(|g| g.map.shards());
                if shards.map(|s| s.shard).all(|shard| now.shards.contains_key(&shard)) {
                    self.followed.send_replace(Some(now.revision));
                }
            }
            match stop.or(topology.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) => {
                    stop.stopped().await;
                    break;
                }
                None => break,
            }
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

    async fn follow(&mut self, topology: &Topology) {
        let belongs = |place: &&ShardPlace| place.has(self.replica);
        let wanted: BTreeMap<ShardId, ShardPlace> =
            topology.shards.values().filter(belongs).map(|p| (p.shard, p.clone())).collect();
        let gone: Vec<ShardId> = self
            .running
            .iter()
            .filter(|(id, running)| {
                wanted.get(*id).is_none_or(|place| place.incarnation != running.incarnation)
            })
            .map(|(id, _)| *id)
            .collect();
        for shard in gone {
            self.close(shard).await;
        }
        self.remove_foreign(topology, &wanted).await;
        for place in wanted.into_values() {
            if self.running.contains_key(&place.shard) {
                continue;
            }
            if let Err(error) = self.open(topology, &place).await {
                tracing::error!(shard = place.shard.0, %error, "a replica cannot be opened");
            }
        }
    }

    async fn open(&mut self, topology: &Topology, place: &ShardPlace) -> Result<(), IngesterError> {
        let begins = place.lead.is_none() && place.first.contains(&self.replica);
        let voters = place.first.iter().map(|replica| (raft_replica(*replica), addr(*replica)));
        let spec = GroupSpec {
            group: GroupId::shard(place.shard.0, place.incarnation.0),
            replica: raft_replica(self.replica),
            bootstrap: begins.then(|| voters.collect()),
            options: GroupOptions {
                payload_bytes_max: PAYLOAD_BYTES_MAX,
                ..GroupOptions::default()
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
        self.deps.tasks.spawn(shard.clone().run_duties(self.topology.clone(), stop.clone()));
        self.hosted.0.write().insert(place.shard, shard.clone());
        let running = Running { incarnation: place.incarnation, shard, stop, appended };
        self.running.insert(place.shard, running);
        Ok(())
    }

    /// Stops a shard: what waits is still appended, reads are served until then.
    async fn close(&mut self, shard: ShardId) {
        let Some(running) = self.running.remove(&shard) else { return };
        running.shard.close();
        // An error means the sender is gone, which is what is waited for.
        let _ = running.appended.await;
        running.stop.stop();
        running.shard.group.shutdown().await;
        self.hosted.0.write().remove(&shard);
        tracing::info!(shard = shard.0, "replica closed");
    }

    /// Deletes what is on disk of groups that this replica does not belong to any more. A log that
    /// the catalog does not know is kept: the catalog may be an old backup. So is one that lost its
    /// majority and was given up for a new one: nobody else may have its last entries.
    async fn remove_foreign(&self, topology: &Topology, wanted: &BTreeMap<ShardId, ShardPlace>) {
        let groups = match self.host.store().groups_on_disk() {
            Ok(groups) => groups,
            Err(error) => {
                tracing::error!(%error, "the replicas on disk cannot be listed");
                return;
            }
        };
        for (group, _) in groups {
            let GroupId::Shard { shard, incarnation } = group else { continue };
            let id = ShardId(shard);
            let is_wanted = wanted.get(&id).is_some_and(|p| p.incarnation.0 == incarnation);
            let known = topology.shards.get(&id).is_some_and(|p| p.incarnation.0 == incarnation);
            if is_wanted || !known {
                continue;
            }
            match self.host.remove(group).await {
                Ok(()) => tracing::info!(%group, "removed a replica that has moved away"),
                Err(error) => tracing::warn!(%group, %error, "a replica cannot be removed yet"),
            }
        }
    }
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
