//! Joining the cluster, opening the replicas that live on this disk, and running them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clew_catalog::{
    DiskId, IssueReplicaId, OpenOutcome, OpenShardLog, RegisterNode, ReplicaId, RequestId, Roles,
    ShardView,
};
use clew_model::id::{from_hex, to_hex};
use clew_node::rpc::Channel;
use clew_node::{Deps, Stop};
use clew_proto::shard::v1::shard_service_server::ShardServiceServer;
use clew_query::{Engine, QueryLimits};
use clew_raft::{GroupId, GroupOptions, GroupSpec, Host, NodeAddr};
use clew_ring::{NodeId, ShardId};
use clew_storage::Bucket;

use crate::head::Budget;
use crate::metastore::MetastoreClient;
use crate::metrics::IngesterMetrics;
use crate::service::ShardServer;
use crate::shard::{Shard, ShardParts};
use crate::{Config, IngesterError};

/// The file in the data directory that names this disk.
const DISK_ID_FILE: &str = "disk-id";

/// The largest log entry. An entry is cut at `entry_bytes_max`, but a batch with a single span above
/// it goes in whole: the distributor takes spans of up to 16 MiB.
const PAYLOAD_BYTES_MAX: usize = 40 << 20;

/// What an ingester is built from besides the world.
pub struct Parts {
    /// The process's raft groups.
    pub host: Host,
    /// Where flushed objects go.
    pub bucket: Bucket,
    /// The metastore.
    pub metastore: Channel,
    /// This node's name.
    pub node: NodeId,
    /// Where this node's internal RPC listens, as `host:port`.
    pub addr: String,
    /// This node's failure zone; empty when unknown.
    pub zone: String,
    /// The folder that holds this node's state.
    pub data_dir: PathBuf,
    /// The roles this process runs.
    pub roles: Roles,
    /// Cores, announced as capacity.
    pub cores: usize,
}

/// An ingester with its replicas open; nothing runs before [`Ingester::run`].
pub struct Ingester {
    shards: BTreeMap<ShardId, Arc<Shard>>,
    server: ShardServer,
    deps: Deps,
}

impl Config {
    /// Joins the cluster and opens this disk's replicas.
    ///
    /// # Errors
    /// [`IngesterError`] when the metastore refuses, or a log cannot be opened.
    pub async fn build(self, deps: Deps, parts: Parts) -> Result<Ingester, IngesterError> {
        if let Some(problem) = self.problem() {
            return Err(IngesterError::Config(problem));
        }
        let metastore = MetastoreClient::new(parts.metastore.clone(), deps.clock.clone());
        let joined = join(&deps, &parts, &metastore).await?;
        let config = Arc::new(self);
        let budget = Arc::new(Budget::new(config.head_bytes_max.as_usize()));
        let metrics = IngesterMetrics::new(&deps.metrics);
        let mut shards = BTreeMap::new();
        for view in &joined.shards {
            let bootstrap =
                BTreeMap::from([(raft_replica(joined.replica), NodeAddr(parts.addr.clone()))]);
            let spec = GroupSpec {
                group: GroupId::shard(view.shard.0, view.incarnation.0),
                replica: raft_replica(joined.replica),
                bootstrap: Some(bootstrap),
                options: GroupOptions {
                    payload_bytes_max: PAYLOAD_BYTES_MAX,
                    ..GroupOptions::default()
                },
            };
            let shard = Shard::new(ShardParts {
                shard: view.shard,
                incarnation: view.incarnation,
                group: parts.host.open_shard(spec).await?,
                config: config.clone(),
                deps: deps.clone(),
                bucket: parts.bucket.clone(),
                metastore: metastore.clone(),
                budget: budget.clone(),
                metrics: metrics.clone(),
            });
            shards.insert(view.shard, shard);
        }
        let engine = Engine::new(deps.tasks.clone(), QueryLimits::default());
        let server = ShardServer::new(shards.clone(), deps.clock.clone(), engine, metrics);
        Ok(Ingester { shards, server, deps })
    }
}

impl Ingester {
    /// The gRPC service, for a listener or an in-process channel.
    pub fn server(&self) -> ShardServiceServer<ShardServer> {
        self.server.server()
    }

    /// Tells when every shard here serves.
    pub fn readiness(&self) -> Readiness {
        Readiness { shards: self.shards.values().cloned().collect() }
    }

    /// Serves until `stop`; then refuses batches, lets those that wait commit, and stops.
    pub async fn run(self, stop: Stop) {
        // A signal of its own: heads serve reads until the last append is answered.
        let heads = Stop::new();
        let mut appending = Vec::new();
        for shard in self.shards.values() {
            let (done, finished) = tokio::sync::oneshot::channel::<()>();
            let appends = shard.clone();
            self.deps.tasks.spawn(async move {
                appends.run_appends().await;
                drop(done);
            });
            appending.push(finished);
            self.deps.tasks.spawn(shard.clone().run_head(heads.clone()));
        }
        stop.stopped().await;
        for shard in self.shards.values() {
            shard.close();
        }
        for finished in appending {
            // An error means the sender is gone, which is what is waited for.
            let _ = finished.await;
        }
        heads.stop();
        for shard in self.shards.values() {
            shard.group.shutdown().await;
        }
    }
}

/// Waits for the shards of an ingester that runs.
pub struct Readiness {
    shards: Vec<Arc<Shard>>,
}

impl Readiness {
    /// Completes once every shard here is led with its head ready, however long the log to be read
    /// back is.
    ///
    /// # Errors
    /// [`IngesterError::Stopping`] when the ingester stops before.
    pub async fn wait(&self) -> Result<(), IngesterError> {
        for shard in &self.shards {
            shard.led().await?;
        }
        Ok(())
    }
}

struct Joined {
    replica: ReplicaId,
    shards: Vec<ShardView>,
}

async fn join(
    deps: &Deps,
    parts: &Parts,
    metastore: &MetastoreClient,
) -> Result<Joined, IngesterError> {
    let capacity = u32::try_from(parts.cores).unwrap_or(1).max(1);
    let register = RegisterNode {
        node: parts.node.clone(),
        addr: parts.addr.clone(),
        zone: parts.zone.clone(),
        capacity,
        roles: parts.roles,
    };
    metastore.apply(register).await?;
    let disk = disk_id(deps, &parts.data_dir)?;
    let replica = metastore.apply(IssueReplicaId { disk, node: parts.node.clone() }).await?;
    let view = metastore.shards().await?;
    for generation in &view.generations {
        for shard in generation.map.shards() {
            if !view.shards.contains_key(&shard.shard) {
                open_log(deps, metastore, shard.shard, replica).await?;
            }
        }
    }
    let view = metastore.shards().await?;
    let shards =
        view.shards.into_values().filter(|shard| shard.replicas.contains(&replica)).collect();
    Ok(Joined { replica, shards })
}

async fn open_log(
    deps: &Deps,
    metastore: &MetastoreClient,
    shard: ShardId,
    replica: ReplicaId,
) -> Result<(), IngesterError> {
    let request = OpenShardLog {
        shard,
        replicas: vec![replica],
        replaces: None,
        request: RequestId(random_id(deps)),
    };
    match metastore.apply(request).await? {
        OpenOutcome::Opened { incarnation } | OpenOutcome::AlreadyOpened { incarnation } => {
            tracing::info!(shard = shard.0, incarnation = incarnation.0, "shard log opened");
        }
        // Another ingester was quicker; the next view shows its log.
        OpenOutcome::Conflict { .. } | OpenOutcome::UnknownShard => {}
    }
    Ok(())
}

/// The id of the disk the data directory is on, made at the first start.
///
/// A replica id belongs to one disk: a node whose disk was emptied must not pass for the replica
/// that had promised to remember.
fn disk_id(deps: &Deps, data_dir: &Path) -> Result<DiskId, IngesterError> {
    let path = data_dir.join(DISK_ID_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let bytes = from_hex(text.trim()).and_then(|bytes| bytes.try_into().ok());
            bytes.map(DiskId).ok_or_else(|| IngesterError::Decode {
                what: "the disk's id",
                reason: format!("{} holds no id of 32 hex digits", path.display()),
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = random_id(deps);
            write_synced(&path, to_hex(&id).as_bytes())?;
            Ok(DiskId(id))
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes a small file so that it is whole or absent after a power cut.
fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn random_id(deps: &Deps) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&deps.rng.next_u64().to_be_bytes());
    id[8..].copy_from_slice(&deps.rng.next_u64().to_be_bytes());
    id
}

fn raft_replica(replica: ReplicaId) -> clew_raft::ReplicaId {
    clew_raft::ReplicaId(replica.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_keeps_its_id_and_an_empty_one_gets_another() {
        let deps = Deps::system(1);
        let dir = tempfile::tempdir().unwrap();
        let first = disk_id(&deps, dir.path()).unwrap();
        assert_eq!(disk_id(&deps, dir.path()).unwrap(), first);
        std::fs::remove_file(dir.path().join(DISK_ID_FILE)).unwrap();
        assert_ne!(disk_id(&deps, dir.path()).unwrap(), first);
        std::fs::write(dir.path().join(DISK_ID_FILE), "garbage").unwrap();
        assert!(disk_id(&deps, dir.path()).is_err());
    }
}
