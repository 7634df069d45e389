//! Wires the roles of one process: those that run here talk through in-process channels, those that
//! do not through sockets. Nothing but this file knows which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clew_catalog::{Roles, View};
use clew_distributor::{Distributor, StaticRouter};
use clew_ingester::Ingester;
use clew_metastore::Metastore;
use clew_model::ErrorKind;
use clew_node::config::ConfigError;
use clew_node::rpc::Channel;
use clew_node::{Deps, Problem, Tasks};
use clew_proto::metastore::v1::ViewRequest;
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_querier::{Querier, VersionInfo};
use clew_raft::{Host, LogOptions, LogStore, NoPeers, NodeAddr, ReplicaId};
use clew_ring::{NodeId, ShardId, ShardMap};
use clew_storage::Bucket;

use crate::config::{Config, Role};
use crate::serve::ServeError;

/// The metastore's only member, until a cluster has several.
const FIRST_MEMBER: ReplicaId = ReplicaId(1);

/// The roles of this process, built and not yet running.
pub(crate) struct Built {
    pub(crate) store: Option<Arc<LogStore>>,
    pub(crate) host: Option<Host>,
    pub(crate) metastore: Option<Metastore>,
    pub(crate) ingester: Option<Ingester>,
    pub(crate) distributor: Option<Distributor>,
    pub(crate) querier: Option<Querier>,
    /// The shard service, here or elsewhere, if this process has to do with it.
    pub(crate) shards: Option<Channel>,
}

/// Builds the roles of this process in the order in which they need each other.
pub(crate) async fn build(config: &Config, deps: &Deps) -> Result<Built, ServeError> {
    let data_dir = PathBuf::from(&config.data_dir);
    std::fs::create_dir_all(&data_dir)
        .map_err(|source| ServeError::DataDir { path: config.data_dir.clone(), source })?;
    let bucket = open_bucket(config, deps)?;
    let (store, host) = open_log(config, deps, &data_dir)?;
    let metastore = build_metastore(config, deps, host.as_ref()).await?;
    // A process with nothing but the metastore asks nobody.
    let metastore_channel = match &metastore {
        Some(metastore) => Channel::local(metastore.server()),
        None => Channel::connect(&config.peers.metastore)?,
    };
    let ingester = match &host {
        Some(host) if config.runs(Role::Ingester) => {
            let parts = clew_ingester::Parts {
                host: host.clone(),
                bucket: bucket.clone(),
                metastore: metastore_channel.clone(),
                node: node_id(config)?,
                addr: config.advertised().to_owned(),
                zone: config.node.zone.clone(),
                data_dir,
                roles: announced(config),
                cores: cores(),
            };
            Some(config.ingester.clone().build(deps.clone(), parts).await?)
        }
        _ => None,
    };
    let mut built =
        Built { store, host, metastore, ingester, distributor: None, querier: None, shards: None };
    built.shards = built.ingester.as_ref().map(|ingester| Channel::local(ingester.server()));
    if config.runs(Role::Distributor) || config.runs(Role::Querier) {
        let shards = match built.shards.take() {
            Some(here) => here,
            None => Channel::connect(&config.peers.ingester)?,
        };
        let map = shard_map(&metastore_channel).await?;
        let router = Arc::new(OneIngester(StaticRouter::single(map, &shards)));
        built.distributor = build_distributor(config, deps, router.clone())?;
        built.querier = build_querier(config, deps, metastore_channel, router, bucket)?;
        built.shards = Some(shards);
    }
    Ok(built)
}

/// Every shard is led by the one ingester there is.
struct OneIngester(StaticRouter);

impl clew_distributor::Router for OneIngester {
    fn map(&self) -> Arc<ShardMap> {
        self.0.map()
    }

    fn leader(&self, shard: ShardId) -> Option<Channel> {
        self.0.leader(shard)
    }
}

impl clew_querier::Router for OneIngester {
    fn channel(&self, shard: ShardId) -> Option<Channel> {
        clew_distributor::Router::leader(&self.0, shard)
    }
}

fn open_bucket(config: &Config, deps: &Deps) -> Result<Bucket, ServeError> {
    Ok(Bucket::open(&config.bucket(), deps)?)
}

/// The one log database of the process, if a role here keeps a log.
fn open_log(
    config: &Config,
    deps: &Deps,
    data_dir: &Path,
) -> Result<(Option<Arc<LogStore>>, Option<Host>), ServeError> {
    if !config.runs(Role::Metastore) && !config.runs(Role::Ingester) {
        return Ok((None, None));
    }
    let store = LogStore::open(&data_dir.join("raft"), &LogOptions::default(), deps)?;
    let host = Host::new(store.clone(), Arc::new(NoPeers), deps.clone());
    Ok((Some(store), Some(host)))
}

async fn build_metastore(
    config: &Config,
    deps: &Deps,
    host: Option<&Host>,
) -> Result<Option<Metastore>, ServeError> {
    let Some(host) = host.filter(|_| config.runs(Role::Metastore)) else { return Ok(None) };
    let members = BTreeMap::from([(FIRST_MEMBER, NodeAddr(config.advertised().to_owned()))]);
    let parts = clew_metastore::Parts {
        host: host.clone(),
        replica: FIRST_MEMBER,
        members,
        cores: cores(),
    };
    Ok(Some(config.metastore.clone().build(deps.clone(), parts).await?))
}

fn build_distributor(
    config: &Config,
    deps: &Deps,
    router: Arc<OneIngester>,
) -> Result<Option<Distributor>, ServeError> {
    if !config.runs(Role::Distributor) {
        return Ok(None);
    }
    let multitenancy_enabled = config.multitenancy_enabled;
    let parts = clew_distributor::Parts { router, multitenancy_enabled };
    // Threads of its own: decompressing a request must not wait until a flush has built its blocks.
    let deps = Deps { tasks: Tasks::new(cores()), ..deps.clone() };
    Ok(Some(config.distributor.clone().build(deps, parts)?))
}

fn build_querier(
    config: &Config,
    deps: &Deps,
    metastore: Channel,
    router: Arc<OneIngester>,
    bucket: Bucket,
) -> Result<Option<Querier>, ServeError> {
    if !config.runs(Role::Querier) {
        return Ok(None);
    }
    let mut settings = config.querier.clone();
    settings.multitenancy_enabled = config.multitenancy_enabled;
    let version =
        VersionInfo { version: env!("CARGO_PKG_VERSION").to_owned(), ..VersionInfo::default() };
    let parts = clew_querier::Parts { metastore, shards: router, bucket, version };
    Ok(Some(settings.build(deps.clone(), parts)?))
}

/// The shard map as the metastore has it.
async fn shard_map(metastore: &Channel) -> Result<ShardMap, ServeError> {
    let mut client = MetastoreServiceClient::new(metastore.clone());
    let request = ViewRequest { shards_only: true, ..ViewRequest::default() };
    let answer = client.view(request).await.map_err(Problem::from)?.into_inner();
    let view = View::decode(&answer.view)
        .map_err(|error| Problem::new(ErrorKind::Internal, "view", error.to_string()))?;
    Ok(view.shard_map())
}

fn node_id(config: &Config) -> Result<NodeId, ServeError> {
    let name = &config.node.name;
    NodeId::parse(name).map_err(|error| {
        let message = format!("{name:?} is no node name: {error}");
        ConfigError::Key { key: "node.name".to_owned(), message }.into()
    })
}

/// The roles as the metastore knows them.
fn announced(config: &Config) -> Roles {
    config.roles.iter().fold(Roles::default(), |roles, role| {
        roles.with(match role {
            Role::Distributor => Roles::DISTRIBUTOR,
            Role::Ingester => Roles::INGESTER,
            Role::Metastore => Roles::METASTORE,
            Role::Querier => Roles::QUERIER,
        })
    })
}

/// Cores this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
