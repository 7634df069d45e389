//! Wires the roles of one process: those that run here talk through in-process channels, those that
//! do not through sockets. Nothing but this file knows which.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clew_catalog::{FeatureRange, RegisterNode, Roles, SharedTopology};
use clew_compactor::Compactor;
use clew_distributor::Distributor;
use clew_ingester::Ingester;
use clew_metastore::Metastore;
use clew_model::ErrorKind;
use clew_node::config::ConfigError;
use clew_node::rpc::{Channel, Dialer, Pool};
use clew_node::{Deps, Stop, Tasks};
use clew_querier::{Querier, VersionInfo};
use clew_raft::{Host, LogOptions, LogStore, PeerServer, Peers};
use clew_ring::NodeId;
use clew_storage::Bucket;
use tokio::sync::watch;
use tonic::service::RoutesBuilder;

use crate::cluster::apply_at;
use crate::config::{Config, Role};
use crate::inside::Inside;
use crate::router::ClusterRouter;
use crate::serve::ServeError;
use crate::topology;

/// What is there before any role is built.
pub(crate) struct Ground {
    pub(crate) store: Option<Arc<LogStore>>,
    pub(crate) host: Option<Host>,
    pool: Pool,
    bucket: Bucket,
    data_dir: PathBuf,
    topology: watch::Sender<SharedTopology>,
    /// The addresses of the metastore's members.
    members: Vec<String>,
    /// Told when the process has to end and be started again.
    pub(crate) restart: Stop,
}

/// The roles of this process, built and not yet running.
pub(crate) struct Built {
    pub(crate) metastore: Option<Metastore>,
    pub(crate) ingester: Option<Ingester>,
    pub(crate) distributor: Option<Distributor>,
    pub(crate) querier: Option<Querier>,
    pub(crate) compactor: Option<Compactor>,
    /// The metastore, here or elsewhere.
    pub(crate) metastore_channel: Channel,
    pub(crate) topology: watch::Receiver<SharedTopology>,
    pub(crate) router: Arc<ClusterRouter>,
}

/// Opens what is on disk, and the connections to others.
pub(crate) async fn ground(
    config: &Config,
    deps: &Deps,
    dialer: Dialer,
) -> Result<Ground, ServeError> {
    let data_dir = PathBuf::from(&config.data_dir);
    std::fs::create_dir_all(&data_dir)
        .map_err(|source| ServeError::DataDir { path: config.data_dir.clone(), source })?;
    let bucket = open_bucket(config, deps)?;
    let topology = watch::Sender::new(SharedTopology::default());
    let pool = Pool::new(dialer);
    let peers =
        Peers::new(pool.clone(), topology::addresses(topology.subscribe()), deps.clock.clone());
    let (store, host) = open_log(config, deps, &data_dir, peers)?;
    let members = config.metastore_members().await?;
    let restart = Stop::new();
    Ok(Ground { store, host, pool, bucket, data_dir, topology, members, restart })
}

/// Builds the roles of this process in the order in which they need each other. `stop` ends what
/// runs beside them; `inside` gets each service as soon as it is there.
pub(crate) async fn build(
    config: &Config,
    deps: &Deps,
    ground: &Ground,
    inside: &Inside,
    background: &Tasks,
    stop: &Stop,
) -> Result<Built, ServeError> {
    let mut routes = RoutesBuilder::default();
    if let Some(host) = &ground.host {
        routes.add_service(PeerServer::server(host.clone()));
    }
    let metastore = build_metastore(config, deps, ground, inside, stop).await?;
    if let Some(metastore) = &metastore {
        routes.add_service(metastore.server());
        routes.add_service(metastore.cluster_server());
        routes.add_service(metastore.member_server());
        routes.add_service(metastore.compaction_server());
        routes.add_service(metastore.catalog_server());
    }
    inside.put(routes.clone().routes());
    if let Some(metastore) = &metastore {
        metastore.form().await?;
        let (controller, stop) = (metastore.clone(), stop.clone());
        background.spawn(async move { controller.run(stop).await });
    }
    let (metastore_channel, watched) = match &metastore {
        Some(here) => {
            let mut own = RoutesBuilder::default();
            own.add_service(here.server());
            own.add_service(here.cluster_server());
            own.add_service(here.compaction_server());
            let here = Channel::local(own.routes());
            (here.clone(), vec![here])
        }
        None => {
            let members = ground.members.iter().map(|addr| ground.pool.get(addr));
            let members = members.collect::<Result<Vec<_>, _>>()?;
            (Channel::first_of(members.clone()), members)
        }
    };
    let topology = ground.topology.subscribe();
    let (clock, sender) = (deps.clock.clone(), ground.topology.clone());
    background.spawn(topology::follow(watched, clock, sender, stop.clone()));
    let ingester = match &ground.host {
        Some(host) if config.runs(Role::Ingester) => {
            let parts = clew_ingester::Parts {
                host: host.clone(),
                bucket: ground.bucket.clone(),
                metastore: metastore_channel.clone(),
                node: node_id(config)?,
                addr: config.advertised().to_owned(),
                zone: config.node.zone.clone(),
                data_dir: ground.data_dir.clone(),
                roles: announced(config),
                cores: cores(),
                topology: topology.clone(),
            };
            let settings = config.ingester.clone();
            Some(patiently(deps, || settings.clone().build(deps.clone(), parts.clone())).await?)
        }
        _ => {
            patiently(deps, || register(config, deps, &metastore_channel)).await?;
            None
        }
    };
    if let Some(ingester) = &ingester {
        routes.add_service(ingester.server());
    }
    inside.put(routes.clone().routes());
    ground.pool.set_here(config.advertised(), Channel::local(routes.clone().routes()));
    let router = Arc::new(ClusterRouter::new(
        topology.clone(),
        ground.pool.clone(),
        config.advertised(),
        ingester.as_ref().map(Ingester::service),
        config.ingester.trace_horizon.0,
    ));
    let distributor = build_distributor(config, deps, router.clone())?;
    let bucket = ground.bucket.clone();
    let querier = build_querier(config, deps, metastore_channel.clone(), router.clone(), bucket)?;
    if let Some(querier) = &querier {
        routes.add_service(querier.server());
        routes.add_service(querier.block_server());
        inside.put(routes.routes());
    }
    let compactor = build_compactor(config, deps, ground, metastore_channel.clone())?;
    Ok(Built {
        metastore,
        ingester,
        distributor,
        querier,
        compactor,
        metastore_channel,
        topology,
        router,
    })
}

/// Between two attempts to join the cluster.
const JOIN_DELAY: std::time::Duration = std::time::Duration::from_millis(500);

/// Repeats a step that needs the metastore until the metastore is there.
async fn patiently<T, E, F>(deps: &Deps, step: impl Fn() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: Waits,
{
    loop {
        match step().await {
            Err(error) if error.waits() => {
                tracing::warn!(%error, "waiting for the metastore");
                deps.clock.sleep(JOIN_DELAY).await;
            }
            done => return done,
        }
    }
}

/// An error that may pass by waiting.
trait Waits: std::fmt::Display {
    fn waits(&self) -> bool;
}

impl Waits for clew_ingester::IngesterError {
    fn waits(&self) -> bool {
        // Also a cluster that is not created yet.
        matches!(self, Self::Metastore(_) | Self::Refused(_))
            && self.kind() == ErrorKind::Unavailable
    }
}

impl Waits for ServeError {
    fn waits(&self) -> bool {
        matches!(self, ServeError::Problem(problem) if problem.kind == ErrorKind::Unavailable)
    }
}

/// Tells the metastore of a node that holds no shards.
async fn register(config: &Config, deps: &Deps, metastore: &Channel) -> Result<(), ServeError> {
    apply_at(metastore, registration(config)?, deps.clock.now_unix()).await?;
    Ok(())
}

fn open_bucket(config: &Config, deps: &Deps) -> Result<Bucket, ServeError> {
    Ok(Bucket::open(&config.bucket(), deps)?)
}

/// The one log database of the process, if a role here keeps a log.
fn open_log(
    config: &Config,
    deps: &Deps,
    data_dir: &Path,
    peers: Peers,
) -> Result<(Option<Arc<LogStore>>, Option<Host>), ServeError> {
    if !config.runs(Role::Metastore) && !config.runs(Role::Ingester) {
        return Ok((None, None));
    }
    let folder = data_dir.join("raft");
    // A replica that has forgotten its log must not pass for the one that had it.
    if data_dir.join(clew_ingester::DISK_ID_FILE).exists() && !folder.join("CURRENT").exists() {
        return Err(ServeError::LogLost { path: folder.display().to_string() });
    }
    let store = LogStore::open(&folder, &LogOptions::default(), deps)?;
    let host = Host::new(store.clone(), Arc::new(peers), deps.clone());
    Ok((Some(store), Some(host)))
}

async fn build_metastore(
    config: &Config,
    deps: &Deps,
    ground: &Ground,
    inside: &Inside,
    stop: &Stop,
) -> Result<Option<Metastore>, ServeError> {
    let host = ground.host.as_ref().filter(|_| config.runs(Role::Metastore));
    let Some(host) = host else { return Ok(None) };
    let parts = clew_metastore::Parts {
        host: host.clone(),
        pool: ground.pool.clone(),
        addr: config.advertised().to_owned(),
        members: ground.members.clone(),
        cores: cores(),
        features: FeatureRange::OURS,
        stop: stop.clone(),
        bucket: ground.bucket.clone(),
        data_dir: ground.data_dir.clone(),
        restart: ground.restart.clone(),
    };
    if let Some(vacant) = config.metastore.look(deps, &parts).await? {
        let mut routes = RoutesBuilder::default();
        routes.add_service(vacant.server());
        inside.put(routes.routes());
        vacant.wait().await;
    }
    Ok(Some(config.metastore.clone().build(deps.clone(), parts).await?))
}

fn build_distributor(
    config: &Config,
    deps: &Deps,
    router: Arc<ClusterRouter>,
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
    router: Arc<ClusterRouter>,
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

fn build_compactor(
    config: &Config,
    deps: &Deps,
    ground: &Ground,
    metastore: Channel,
) -> Result<Option<Compactor>, ServeError> {
    if !config.runs(Role::Compactor) {
        return Ok(None);
    }
    let parts = clew_compactor::Parts {
        metastore,
        bucket: ground.bucket.clone(),
        node: node_id(config)?,
        topology: ground.topology.subscribe(),
    };
    let mut settings = config.compactor.clone();
    settings.trace_horizon = config.ingester.trace_horizon;
    // Threads of its own: a merge must not take those that flushes and queries wait for.
    let deps = Deps { tasks: Tasks::new(settings.jobs_max), ..deps.clone() };
    Ok(Some(settings.build(deps, parts)?))
}

/// This node, as the metastore shall know it.
pub(crate) fn registration(config: &Config) -> Result<RegisterNode, ServeError> {
    Ok(RegisterNode {
        node: node_id(config)?,
        addr: config.advertised().to_owned(),
        zone: config.node.zone.clone(),
        capacity: u32::try_from(cores()).unwrap_or(1).max(1),
        roles: announced(config),
        features: FeatureRange::OURS,
    })
}

pub(crate) fn node_id(config: &Config) -> Result<NodeId, ServeError> {
    let name = config.node_name();
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
            Role::Compactor => Roles::COMPACTOR,
            Role::Querier => Roles::QUERIER,
        })
    })
}

/// Cores this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
