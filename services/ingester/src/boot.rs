//! Joining the cluster, and running the replicas that live on this disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clew_catalog::{
    DiskId, FeatureRange, IssueReplicaId, RegisterNode, ReplicaId, Roles, SharedTopology,
};
use clew_model::id::{from_hex, to_hex};
use clew_model::planted;
use clew_node::rpc::Channel;
use clew_node::{Deps, Stop};
use clew_proto::metastore::v1::ReplicaReport;
use clew_proto::shard::v1::shard_service_server::{ShardService, ShardServiceServer};
use clew_query::{Engine, QueryLimits};
use clew_raft::{GroupId, Host};
use clew_ring::NodeId;
use clew_storage::Bucket;
use futures::future::join_all;
use tokio::sync::watch;

use crate::head::Budget;
use crate::hosting::{Hosted, Hosting};
use crate::metastore::MetastoreClient;
use crate::metrics::IngesterMetrics;
use crate::service::ShardServer;
use crate::{Config, IngesterError};

/// The file in the data directory that names this disk.
pub const DISK_ID_FILE: &str = "disk-id";

/// What an ingester is built from besides the world.
#[derive(Clone)]
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
    /// Nodes, shards and their places, as far as they are known here.
    pub topology: watch::Receiver<SharedTopology>,
}

/// An ingester that has joined its cluster; nothing is open before [`Ingester::run`].
pub struct Ingester {
    hosting: Hosting,
    server: ShardServer,
}

/// What other parts of the process know of an ingester at work. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    hosted: Hosted,
    followed: watch::Receiver<Option<u64>>,
}

impl Config {
    /// Joins the cluster: registers this node and asks for the id of its disk.
    ///
    /// # Errors
    /// [`IngesterError`] when the metastore refuses.
    pub async fn build(self, deps: Deps, parts: Parts) -> Result<Ingester, IngesterError> {
        if let Some(problem) = self.problem() {
            return Err(IngesterError::Config(problem));
        }
        let metastore = MetastoreClient::new(parts.metastore.clone(), deps.clock.clone());
        let mut member = Membership::new(&deps, &parts)?;
        member.join(&metastore).await?;
        let config = Arc::new(self);
        let metrics = IngesterMetrics::new(&deps.metrics);
        let hosted = Hosted::default();
        let engine = Engine::new(deps.tasks.clone(), QueryLimits::default());
        let server = ShardServer::new(hosted.clone(), deps.clock.clone(), engine, metrics.clone());
        let hosting = Hosting {
            replica: member.replica()?,
            member,
            host: parts.host,
            budget: Arc::new(Budget::new(config.head_bytes_max.as_usize())),
            config,
            deps,
            bucket: parts.bucket,
            metastore,
            metrics,
            topology: parts.topology,
            hosted,
            followed: watch::Sender::new(None),
            running: std::collections::BTreeMap::new(),
            reopen: Arc::default(),
        };
        Ok(Ingester { hosting, server })
    }
}

impl Ingester {
    /// The gRPC service, for a listener or an in-process channel.
    pub fn server(&self) -> ShardServiceServer<ShardServer> {
        self.server.server()
    }

    /// The same service for callers in this process.
    pub fn service(&self) -> Arc<dyn ShardService> {
        Arc::new(self.server.clone())
    }

    /// What the rest of the process needs while it runs.
    pub fn handle(&self) -> Handle {
        Handle { hosted: self.hosting.hosted.clone(), followed: self.hosting.followed.subscribe() }
    }

    /// Serves until `stop`; then refuses batches, lets those that wait commit, and stops.
    pub async fn run(self, stop: Stop) {
        self.hosting.run(stop).await;
    }
}

impl Handle {
    /// Completes once every replica that belongs here is open and serves: it leads its shard with
    /// its head ready, however long the log to be read back is, or another node leads it.
    ///
    /// # Errors
    /// [`IngesterError::Stopping`] when the ingester stops before.
    pub async fn ready(&self) -> Result<(), IngesterError> {
        let mut followed = self.followed.clone();
        followed.wait_for(Option::is_some).await.map_err(|_| IngesterError::Stopping)?;
        loop {
            let shards = self.hosted.all();
            let serve = join_all(shards.iter().map(|(_, shard)| shard.serves())).await;
            if serve.iter().all(Result::is_ok) {
                return Ok(());
            }
            // A replica was closed meanwhile, because it moved away, its log was given up, or all stops.
            followed.changed().await.map_err(|_| IngesterError::Stopping)?;
        }
    }

    /// How the replicas here stand.
    pub fn reports(&self) -> Vec<ReplicaReport> {
        self.hosted.reports()
    }

    /// Hands the leadership of every shard here to another node, as far as there is one that takes
    /// it, and runs for none any more.
    pub async fn step_down(&self) {
        let shards = self.hosted.all();
        join_all(shards.iter().map(|(_, shard)| shard.step_down())).await;
    }
}

/// What this node is in the eyes of the catalog.
pub(crate) struct Membership {
    register: RegisterNode,
    pub(crate) disk: DiskId,
    /// The replica that the logs on this disk belong to, once there is one.
    holds: Option<ReplicaId>,
    /// The revision at which the catalog knew of it.
    pub(crate) since: u64,
}

impl Membership {
    fn new(deps: &Deps, parts: &Parts) -> Result<Membership, IngesterError> {
        let register = RegisterNode {
            node: parts.node.clone(),
            addr: parts.addr.clone(),
            zone: parts.zone.clone(),
            capacity: u32::try_from(parts.cores).unwrap_or(1).max(1),
            roles: parts.roles,
            features: FeatureRange::OURS,
        };
        let disk = disk_id(deps, &parts.data_dir)?;
        let groups = parts.host.store().groups_on_disk()?;
        let mut shards = groups.iter().filter(|(group, _)| *group != GroupId::Metastore);
        let holds = shards.next().map(|(_, replica)| ReplicaId(replica.0));
        Ok(Membership { register, disk, holds, since: 0 })
    }

    /// Registers node and disk. A catalog that was restored may know neither: then the disk keeps the
    /// id that its logs have.
    pub(crate) async fn join(&mut self, metastore: &MetastoreClient) -> Result<(), IngesterError> {
        metastore.apply(self.register.clone()).await?;
        let (disk, node, holds) = (self.disk, self.register.node.clone(), self.holds);
        let (since, replica) = metastore.apply_at(IssueReplicaId { disk, node, holds }).await?;
        (self.since, self.holds) = (since, Some(replica));
        Ok(())
    }

    fn replica(&self) -> Result<ReplicaId, IngesterError> {
        self.holds.ok_or(IngesterError::Stopping)
    }
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
            let id = match planted("bug::disk_keeps_id") {
                true => id_of_folder(data_dir),
                false => random_id(deps),
            };
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

/// A planted defect: an emptied disk passes for the one before.
fn id_of_folder(folder: &Path) -> [u8; 16] {
    let half = clew_ring::hash::hash(0, folder.as_os_str().as_encoded_bytes()).to_be_bytes();
    std::array::from_fn(|at| half[at % half.len()])
}

fn random_id(deps: &Deps) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&deps.rng.next_u64().to_be_bytes());
    id[8..].copy_from_slice(&deps.rng.next_u64().to_be_bytes());
    id
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
