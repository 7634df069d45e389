//! One simulated process: a role built from its settings and a simulated world, wired as the binary
//! wires it, started, stopped in order, or ended where it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clew_catalog::{FeatureRange, Outcome, RegisterNode, Request, Roles, SharedTopology};
use clew_model::{ErrorKind, UnixNanos};
use clew_node::rpc::{Channel, Pool};
use clew_node::{Clock, CpuTime, Deps, Metrics, Problem, Process, Rng, Stop, Tasks};
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::{ApplyRequest, HeartbeatRequest};
use clew_raft::{Host, LogStore, SimulatedDisk};
use clew_ring::NodeId;
use clew_storage::Bucket;
use clew_storage::simulated::SimulatedStore;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::service::RoutesBuilder;

use crate::inside::Inside;
use crate::network::{Name, Network};
use crate::raft_link::RaftLink;
use crate::router::ClusterRouter;
use crate::time::{NoProcessorTime, Skew, clock};
use crate::{beat, topology};

/// Cores that every node says it has.
const CORES: usize = 4;

/// How long the way down may take before the process ends all the same, as in the binary.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Between two attempts to join the cluster, as in the binary.
const JOIN_DELAY: Duration = Duration::from_millis(500);

/// How long the members of the metastore may take to agree on another leader, as in the binary.
const HAND_OVER_MAX: Duration = Duration::from_secs(4);

/// What a node does. Each does one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Metastore,
    Ingester,
    Distributor,
    Querier,
    Compactor,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Metastore => "meta",
            Role::Ingester => "ing",
            Role::Distributor => "dist",
            Role::Querier => "query",
            Role::Compactor => "comp",
        }
    }

    fn announced(self) -> Roles {
        Roles::default().with(match self {
            Role::Metastore => Roles::METASTORE,
            Role::Ingester => Roles::INGESTER,
            Role::Distributor => Roles::DISTRIBUTOR,
            Role::Querier => Roles::QUERIER,
            Role::Compactor => Roles::COMPACTOR,
        })
    }
}

/// The settings of all roles: those of production, with times that fit into some minutes.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) metastore: clew_metastore::Config,
    pub(crate) ingester: clew_ingester::Config,
    pub(crate) distributor: clew_distributor::Config,
    pub(crate) querier: clew_querier::Config,
    pub(crate) compactor: clew_compactor::Config,
}

/// What lies outside of a node and outlives its processes.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) began: tokio::time::Instant,
    pub(crate) network: Network,
    pub(crate) store: SimulatedStore,
    pub(crate) settings: Settings,
}

/// A node, whether its process runs or not.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: Name,
    pub(crate) role: Role,
    pub(crate) zone: String,
    pub(crate) disk: SimulatedDisk,
    /// For the few small files beside the log.
    pub(crate) folder: PathBuf,
    pub(crate) skew: Skew,
}

impl Node {
    /// Where other nodes reach it.
    pub(crate) fn rpc_addr(&self) -> String {
        format!("{}:9095", self.name)
    }

    /// Where clients reach it.
    pub(crate) fn client_addr(&self) -> String {
        format!("{}:80", self.name)
    }
}

/// What is known of a process from outside.
#[derive(Default)]
pub(crate) struct Probe {
    pub(crate) metastore: Option<clew_metastore::Metastore>,
    pub(crate) ingester: Option<clew_ingester::Handle>,
    pub(crate) store: Option<Arc<LogStore>>,
    pub(crate) metrics: Option<Metrics>,
    pub(crate) ready: bool,
    /// Why it ended by itself.
    pub(crate) ended: Option<Result<(), String>>,
}

/// A process of a node.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) probe: Arc<Mutex<Probe>>,
    leave: Stop,
}

impl Running {
    /// Starts a process on a node. `rng` is all the chance it has.
    pub(crate) fn start(node: &Node, outside: &Outside, rng: &Rng) -> Running {
        let process = Process::new(Rng::seeded(rng.next_u64()));
        let running =
            Running { process: process.clone(), probe: Arc::default(), leave: Stop::new() };
        let (node, outside, own) = (node.clone(), outside.clone(), running.clone());
        process.spawn(async move {
            let probe = own.probe.clone();
            let ended = Box::pin(run(node, outside, own)).await;
            probe.lock().ended = Some(ended);
        });
        running
    }

    /// How often it counted a replica that stopped without being asked to: over an error, and as a leader that
    /// was superseded.
    pub(crate) fn replicas_stopped(&self) -> (u64, u64) {
        let text = self.probe.lock().metrics.as_ref().and_then(|metrics| metrics.render().ok());
        let text = text.unwrap_or_default();
        let count = |cause| {
            let name = format!("clew_ingester_replicas_stopped_total{{cause=\"{cause}\"}} ");
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
        };
        (count("error"), count("superseded"))
    }

    /// Asks it to leave in order.
    pub(crate) fn leave(&self) {
        self.leave.stop();
    }
}

/// Two groups of tasks that end one after the other, as in the binary.
struct Phase {
    stop: Stop,
    tasks: Tasks,
}

impl Phase {
    fn new() -> Phase {
        Phase { stop: Stop::new(), tasks: Tasks::new(1) }
    }

    async fn end(&self) {
        self.stop.stop();
        self.tasks.finish().await;
    }
}

async fn run(node: Node, outside: Outside, own: Running) -> Result<(), String> {
    let metrics = Metrics::new();
    own.probe.lock().metrics = Some(metrics.clone());
    let deps = Deps {
        clock: clock(outside.began, node.skew.clone()),
        rng: own.process.rng(),
        tasks: Tasks::new(CORES * 2),
        cpu: CpuTime::new(NoProcessorTime, &metrics),
        metrics,
    };
    let wiring = Wiring::new(node, outside, own, deps);
    let serving = async {
        wiring.serve().await?;
        wiring.own.probe.lock().ready = true;
        std::future::pending::<Result<(), String>>().await
    };
    let ended = tokio::select! {
        biased;
        () = wiring.own.leave.stopped() => Ok(()),
        () = wiring.restart.stopped() => Err("it wants to be started again".to_owned()),
        failed = wiring.log_failed() => Err(failed),
        failed = serving => failed,
    };
    wiring.own.probe.lock().ready = false;
    wiring.leaving.stop();
    let clock = wiring.deps.clock.clone();
    // A failed log takes the process down at once: its writes are refused by now.
    if ended.is_ok() {
        // Whether it was done or took too long, it ends now.
        let _ = clock.timeout(DRAIN_MAX, wiring.down()).await;
    }
    if let Some(store) = &wiring.store {
        store.close();
    }
    ended
}

/// A process while it runs.
struct Wiring {
    node: Node,
    outside: Outside,
    own: Running,
    deps: Deps,
    pool: Pool,
    bucket: Bucket,
    topology: watch::Sender<SharedTopology>,
    store: Option<Arc<LogStore>>,
    host: Option<Host>,
    members: Vec<String>,
    /// What runs beside the roles: it ends after them.
    beside: Phase,
    logs: Phase,
    leaving: Stop,
    /// Given by a role that has to begin anew.
    restart: Stop,
}

impl Wiring {
    fn new(node: Node, outside: Outside, own: Running, deps: Deps) -> Wiring {
        let topology = watch::Sender::new(SharedTopology::default());
        let pool = Pool::over(outside.network.connector(&node.name));
        let has_log = matches!(node.role, Role::Metastore | Role::Ingester);
        let store = has_log.then(|| LogStore::simulated(&node.disk, &deps));
        own.probe.lock().store = store.clone();
        let host = store.clone().map(|store| {
            let addresses = topology::addresses(topology.subscribe());
            let (network, from) = (outside.network.clone(), node.name.clone());
            let link = RaftLink { network, from, addresses, clock: deps.clock.clone() };
            Host::new(store, Arc::new(link), deps.clone())
        });
        let bucket = Bucket::simulated(&outside.store, &node.name, &deps);
        let members = outside.settings.metastore.members.clone();
        let (beside, logs, leaving) = (Phase::new(), Phase::new(), Stop::new());
        Wiring {
            node,
            outside,
            own,
            deps,
            pool,
            bucket,
            topology,
            store,
            host,
            members,
            beside,
            logs,
            leaving,
            restart: Stop::new(),
        }
    }

    async fn log_failed(&self) -> String {
        match &self.store {
            Some(store) => {
                let mut failed = store.failed();
                let reason = failed.wait_for(Option::is_some).await;
                reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
            }
            None => std::future::pending().await,
        }
    }

    /// Builds the role and lets it work.
    async fn serve(&self) -> Result<(), String> {
        let inside = Inside::new();
        let network = &self.outside.network;
        let own = self.own.process.clone();
        if let Some(host) = &self.host {
            let (addr, name) = (self.node.rpc_addr(), self.node.name.clone());
            network.serve(addr.clone(), name.clone(), own.clone(), inside.router());
            network.serve_raft(addr, name, own.clone(), host.clone());
        }
        let mut routes = RoutesBuilder::default();
        let here = self.metastore(&inside, &mut routes).await?;
        let (metastore, watched) = match here {
            Some(here) => (here.clone(), vec![here]),
            None => {
                let members = self.members.iter().map(|addr| self.pool.get(addr));
                let members = members.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
                (Channel::first_of(members.clone()), members)
            }
        };
        let (clock, stop) = (self.deps.clock.clone(), self.beside.stop.clone());
        let following =
            topology::follow(watched, clock.clone(), self.topology.clone(), stop.clone());
        self.beside.tasks.spawn(following);
        let ingester = match self.node.role {
            Role::Ingester => Some(self.ingester(&metastore, &inside, routes).await?),
            _ => {
                self.register(&metastore).await?;
                None
            }
        };
        self.front(&metastore)?;
        let beat = HeartbeatRequest {
            node: self.node.name.to_string(),
            addr: self.node.rpc_addr(),
            features: Some(clew_proto::metastore::v1::FeatureRange {
                oldest: FeatureRange::OURS.oldest.0,
                newest: FeatureRange::OURS.newest.0,
            }),
            ..HeartbeatRequest::default()
        };
        let leaving = self.leaving.clone();
        let register = self.registration()?;
        let beats = beat::run(beat, metastore, register, ingester.clone(), clock, leaving, stop);
        self.beside.tasks.spawn(beats);
        if let Some(ingester) = ingester {
            ingester.ready().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn metastore(
        &self,
        inside: &Inside,
        routes: &mut RoutesBuilder,
    ) -> Result<Option<Channel>, String> {
        let Some(host) = self.host.as_ref().filter(|_| self.node.role == Role::Metastore) else {
            return Ok(None);
        };
        let parts = clew_metastore::Parts {
            host: host.clone(),
            pool: self.pool.clone(),
            addr: self.node.rpc_addr(),
            members: self.members.clone(),
            cores: CORES,
            features: FeatureRange::OURS,
            stop: self.beside.stop.clone(),
            bucket: self.bucket.clone(),
            data_dir: self.node.folder.clone(),
            restart: self.restart.clone(),
        };
        let config = self.outside.settings.metastore.clone();
        let vacant = config.look(&self.deps, &parts).await.map_err(|error| error.to_string())?;
        if let Some(vacant) = vacant {
            let mut routes = RoutesBuilder::default();
            routes.add_service(vacant.server());
            inside.put(routes.routes());
            vacant.wait().await;
        }
        let built = config.build(self.deps.clone(), parts).await;
        let metastore = built.map_err(|error| error.to_string())?;
        self.own.probe.lock().metastore = Some(metastore.clone());
        routes.add_service(metastore.server());
        routes.add_service(metastore.cluster_server());
        routes.add_service(metastore.member_server());
        routes.add_service(metastore.compaction_server());
        routes.add_service(metastore.catalog_server());
        inside.put(routes.clone().routes());
        metastore.form().await.map_err(|error| error.to_string())?;
        let (controller, stop) = (metastore.clone(), self.beside.stop.clone());
        self.beside.tasks.spawn(async move { controller.run(stop).await });
        let mut own = RoutesBuilder::default();
        own.add_service(metastore.server());
        own.add_service(metastore.cluster_server());
        own.add_service(metastore.compaction_server());
        Ok(Some(Channel::local(own.routes())))
    }

    async fn ingester(
        &self,
        metastore: &Channel,
        inside: &Inside,
        mut routes: RoutesBuilder,
    ) -> Result<clew_ingester::Handle, String> {
        let host = self.host.clone().ok_or("an ingester has a log")?;
        let ingester = loop {
            let parts = clew_ingester::Parts {
                host: host.clone(),
                bucket: self.bucket.clone(),
                metastore: metastore.clone(),
                node: self.id()?,
                addr: self.node.rpc_addr(),
                zone: self.node.zone.clone(),
                data_dir: self.node.folder.clone(),
                roles: self.node.role.announced(),
                cores: CORES,
                topology: self.topology.subscribe(),
            };
            match self.outside.settings.ingester.clone().build(self.deps.clone(), parts).await {
                Ok(ingester) => break ingester,
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    self.deps.clock.sleep(JOIN_DELAY).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        };
        routes.add_service(ingester.server());
        inside.put(routes.clone().routes());
        self.pool.set_here(&self.node.rpc_addr(), Channel::local(routes.routes()));
        let handle = ingester.handle();
        self.own.probe.lock().ingester = Some(handle.clone());
        self.logs.tasks.spawn(ingester.run(self.logs.stop.clone()));
        Ok(handle)
    }

    /// Tells the metastore of a node that holds no shards.
    async fn register(&self, metastore: &Channel) -> Result<(), String> {
        loop {
            match self.register_once(metastore).await {
                Ok(()) => return Ok(()),
                Err(problem) if problem.kind == ErrorKind::Unavailable => {
                    self.deps.clock.sleep(JOIN_DELAY).await;
                }
                Err(problem) => return Err(problem.to_string()),
            }
        }
    }

    async fn register_once(&self, metastore: &Channel) -> Result<(), Problem> {
        let node = self.registration();
        let node = node.map_err(|error| Problem::new(ErrorKind::Invalid, "node", error))?;
        apply_at(metastore, node, UnixNanos(0)).await
    }

    /// This node, as the metastore shall know it.
    fn registration(&self) -> Result<RegisterNode, String> {
        Ok(RegisterNode {
            node: self.id()?,
            addr: self.node.rpc_addr(),
            zone: self.node.zone.clone(),
            capacity: u32::try_from(CORES).unwrap_or(1),
            roles: self.node.role.announced(),
            features: FeatureRange::OURS,
        })
    }

    /// Builds what clients talk to, and what works on its own.
    fn front(&self, metastore: &Channel) -> Result<(), String> {
        let settings = self.outside.settings.clone();
        let horizon = settings.ingester.trace_horizon;
        let router = || {
            let (topology, addr) = (self.topology.subscribe(), self.node.rpc_addr());
            Arc::new(ClusterRouter::new(topology, self.pool.clone(), &addr, None, horizon.0))
        };
        let routes = match self.node.role {
            Role::Metastore | Role::Ingester => return Ok(()),
            Role::Distributor => {
                let parts =
                    clew_distributor::Parts { router: router(), multitenancy_enabled: true };
                let built = settings.distributor.build(self.deps.clone(), parts);
                built.map_err(|error| error.to_string())?.http_router()
            }
            Role::Querier => {
                let parts = clew_querier::Parts {
                    metastore: metastore.clone(),
                    shards: router(),
                    bucket: self.bucket.clone(),
                    version: clew_querier::VersionInfo::default(),
                };
                let built = settings.querier.build(self.deps.clone(), parts);
                let querier = built.map_err(|error| error.to_string())?;
                let (worker, stop) = (querier.clone(), self.beside.stop.clone());
                self.beside.tasks.spawn(async move { worker.run(stop).await });
                let mut routes = RoutesBuilder::default();
                routes.add_service(querier.block_server());
                let (addr, name) = (self.node.rpc_addr(), self.node.name.clone());
                let inside = routes.routes().into_axum_router();
                self.outside.network.serve(addr, name, self.own.process.clone(), inside);
                querier.router()
            }
            Role::Compactor => {
                let parts = clew_compactor::Parts {
                    metastore: metastore.clone(),
                    bucket: self.bucket.clone(),
                    node: self.id()?,
                    topology: self.topology.subscribe(),
                };
                let built = settings.compactor.build(self.deps.clone(), parts);
                let compactor = built.map_err(|error| error.to_string())?;
                self.beside.tasks.spawn(compactor.run(self.beside.stop.clone()));
                return Ok(());
            }
        };
        let (addr, name) = (self.node.client_addr(), self.node.name.clone());
        self.outside.network.serve(addr, name, self.own.process.clone(), routes);
        Ok(())
    }

    fn id(&self) -> Result<NodeId, String> {
        NodeId::parse(&self.node.name).map_err(|error| error.to_string())
    }

    async fn down(&self) {
        let (ingester, metastore) = {
            let probe = self.own.probe.lock();
            (probe.ingester.clone(), probe.metastore.clone())
        };
        if let Some(ingester) = ingester {
            ingester.step_down().await;
        }
        if let Some(metastore) = metastore {
            metastore.step_down(HAND_OVER_MAX).await;
        }
        self.logs.end().await;
        self.beside.end().await;
        if let Some(host) = &self.host {
            host.shutdown().await;
        }
    }
}

/// Proposes one command.
pub(crate) async fn apply_at<R: Request>(
    channel: &Channel,
    request: R,
    now: UnixNanos,
) -> Result<R::Answer, Problem> {
    let command = request.into_command().encode(now).into();
    let mut client = MetastoreServiceClient::new(channel.clone());
    let answer = client.apply(ApplyRequest { command }).await.map_err(Problem::from)?;
    let outcome = Outcome::decode(&answer.into_inner().outcome)
        .map_err(|error| Problem::new(ErrorKind::Internal, "outcome", error.to_string()))?;
    R::answer(outcome)
        .map_err(|refusal| Problem::new(refusal.kind(), "refused", refusal.to_string()))
}

/// The wall clock that clients have.
pub(crate) fn outside_clock(began: tokio::time::Instant) -> Clock {
    clock(began, Skew::default())
}
