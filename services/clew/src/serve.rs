//! Runs a process: binds its ports, starts its roles, waits for a signal, drains.
//!
//! Order matters on the way down: first nothing new comes in (OTLP), then what is under way is
//! acknowledged (ingester), then queries and internal calls end, then the log closes.

use std::time::Duration;

use axum::Router;
use clew_node::config::ConfigError;
use clew_node::disk::register_disk_metrics;
use clew_node::http_server::{self, Limits, Listener};
use clew_node::rpc::Dialer;
use clew_node::telemetry::{self, TelemetryError};
use clew_node::tls::{Credentials, TlsMetrics};
use clew_node::{Deps, Problem, Stop, Tasks};
use clew_proto::metastore::v1::{FeatureRange, HeartbeatRequest};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::beat;
use crate::config::{Config, Role};
use crate::inside::Inside;
use crate::roles::{self, Built, Ground};
use crate::status::{Insight, Status};
use crate::vitals::{self, ClusterView, Vitals};

/// How long the way down may take before the process ends all the same.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Why a process could not run, or had to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("the async runtime cannot be started: {0}")]
    Runtime(std::io::Error),
    #[error("config key {key}: cannot listen on {addr}: {source}")]
    Listen { key: &'static str, addr: String, source: std::io::Error },
    #[error("config key data_dir: cannot use {path}: {source}")]
    DataDir { path: String, source: std::io::Error },
    #[error("config key bucket: {0}")]
    Bucket(#[from] clew_storage::Error),
    #[error(
        "{path} is gone, but disk-id beside it says that there was a log: restore it, or remove \
         disk-id to start as an empty node (in a cluster it is filled again by the others; alone, \
         what was not flushed is lost, and the catalog has to be restored: `clew catalog restore`)"
    )]
    LogLost { path: String },
    #[error("the log: {0}")]
    Log(#[from] clew_raft::Error),
    #[error(transparent)]
    Metastore(#[from] clew_metastore::MetastoreError),
    #[error(transparent)]
    Ingester(#[from] clew_ingester::IngesterError),
    #[error(transparent)]
    Distributor(#[from] clew_distributor::BuildError),
    #[error(transparent)]
    Querier(#[from] clew_querier::BuildError),
    #[error(transparent)]
    Compactor(#[from] clew_compactor::CompactorError),
    #[error(transparent)]
    Problem(#[from] Problem),
    #[error("the log on disk failed, the process has to end: {0}")]
    LogFailed(String),
    #[error("the metastore was recovered: start the process again")]
    Restart,
    #[error("signals cannot be waited for: {0}")]
    Signal(std::io::Error),
}

impl ServeError {
    /// Whether the settings are to blame.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(
            self,
            ServeError::Config(_)
                | ServeError::Bucket(clew_storage::Error::Config(_))
                | ServeError::Distributor(_)
                | ServeError::Querier(_)
        )
    }
}

/// The certificates of a process.
struct Certificates {
    inside: Option<Credentials>,
    public: Option<Credentials>,
}

impl Certificates {
    fn load(config: &Config, deps: &Deps) -> Result<Certificates, ServeError> {
        let metrics = TlsMetrics::new(&deps.metrics);
        Ok(Certificates {
            inside: config.rpc.tls.load(&deps.clock, &metrics)?,
            public: config.server.tls.load(&deps.clock, &metrics)?,
        })
    }

    /// Keeps them as their files are, as long as the phase lasts.
    fn keep_current(&self, phase: &Phase) {
        for credentials in self.inside.iter().chain(&self.public) {
            phase.tasks.spawn(credentials.clone().keep_current(phase.stop.clone()));
        }
    }
}

/// The ports of a process, bound before anything is opened, so that a conflict shows at once.
struct Listeners {
    http: Listener,
    rpc: Option<Listener>,
    otlp_grpc: Option<Listener>,
    otlp_http: Option<Listener>,
}

/// Things that run together and end together.
struct Phase {
    stop: Stop,
    tasks: Tasks,
}

impl Phase {
    fn new() -> Phase {
        Phase { stop: Stop::new(), tasks: Tasks::new(1) }
    }

    fn serve(&self, deps: &Deps, listener: Listener, router: Router) {
        self.serve_within(Limits::default(), deps, listener, router);
    }

    fn serve_within(&self, limits: Limits, deps: &Deps, listener: Listener, router: Router) {
        let (clock, stop) = (deps.clock.clone(), self.stop.clone());
        let serving = http_server::serve(listener, router, limits, clock, self.tasks.clone(), stop);
        self.tasks.spawn(serving);
    }

    async fn end(&self) {
        self.stop.stop();
        self.tasks.finish().await;
    }
}

/// Runs until a signal or a failure of the log.
pub(crate) async fn run(config: Config) -> Result<(), ServeError> {
    let telemetry = telemetry::init(&config.telemetry, "clew")?;
    let deps = Deps::system(roles::cores() * 2);
    telemetry::register_process_metrics(&deps.metrics, &deps.clock);
    let vitals = Vitals::new(&config, &deps.metrics);
    let certificates = Certificates::load(&config, &deps)?;
    let listeners = Listeners::bind(&config, &certificates).await?;
    let (otlp, logs, api) = (Phase::new(), Phase::new(), Phase::new());
    certificates.keep_current(&api);
    // Probes are answered while the log is read back: alive, and not ready.
    let status = Status::new(&config, deps.metrics.clone());
    api.serve(&deps, listeners.http, status.router());
    let dialer = Dialer::new(&deps.clock, certificates.inside.clone());
    let ground = roles::ground(&config, &deps, dialer).await?;
    register_disk_metrics(&deps.metrics, config.data_dir.as_ref());
    let inside = Inside::new();
    if let Some(listener) = listeners.rpc {
        api.serve(&deps, listener, inside.router());
    }
    // What runs beside the roles: it ends after them, and before the port they talk over.
    let (beside, leaving) = (Phase::new(), Stop::new());
    let mut stepping = Stepping::default();
    let serving = async {
        let tasks = &beside.tasks;
        let mut built = roles::build(&config, &deps, &ground, &inside, tasks, &beside.stop).await?;
        let querier = built.querier.as_ref().map(clew_querier::Querier::router);
        let metastore = built.metastore_channel.clone();
        let (topology, router) = (built.topology.clone(), built.router.clone());
        if built.metastore.is_some() {
            let view = ClusterView::new(config.advertised(), metastore.clone(), topology.clone());
            let gauges = vitals::ClusterGauges::new(&deps.metrics);
            tasks.spawn(view.publish(gauges, deps.clock.clone(), beside.stop.clone()));
        }
        status.set_api(querier, Insight { metastore: metastore.clone(), topology, router });
        if let Some(querier) = built.querier.clone() {
            let stop = api.stop.clone();
            api.tasks.spawn(async move { querier.run(stop).await });
        }
        if let Some(compactor) = built.compactor.take() {
            beside.tasks.spawn(compactor.run(beside.stop.clone()));
        }
        let ingester = built.ingester.take().map(|ingester| {
            let handle = ingester.handle();
            logs.tasks.spawn(ingester.run(logs.stop.clone()));
            handle
        });
        let beat = HeartbeatRequest {
            node: config.node_name().to_owned(),
            addr: config.advertised().to_owned(),
            features: Some(FeatureRange {
                oldest: clew_catalog::FeatureRange::OURS.oldest.0,
                newest: clew_catalog::FeatureRange::OURS.newest.0,
            }),
            ..HeartbeatRequest::default()
        };
        let clock = deps.clock.clone();
        let (leaving, stop) = (leaving.clone(), beside.stop.clone());
        let register = roles::registration(&config)?;
        let handle = ingester.clone();
        let beats = beat::run(beat, metastore, register, handle, clock, leaving, stop);
        beside.tasks.spawn(beats);
        stepping = Stepping { metastore: built.metastore.clone(), ingester: ingester.clone() };
        if let Some(ingester) = &ingester {
            ingester.ready().await?;
        }
        let age_max = config.distributor.connection_age_max.0;
        let age_max = (!age_max.is_zero()).then_some(age_max);
        let limits = Limits { age_max, ..Limits::default() };
        serve_otlp(&built, &otlp, &deps, (listeners.otlp_grpc, listeners.otlp_http), &limits);
        status.set_ready(true);
        vitals.set_ready(true);
        announce(&config);
        std::future::pending().await
    };
    // Also while the cluster comes together or the log is read back, which may take long or never
    // end.
    let ended = tokio::select! {
        ended = wait_for_end(&ground) => ended,
        () = ground.restart.stopped() => Err(ServeError::Restart),
        failed = serving => failed,
    };
    status.set_ready(false);
    vitals.set_ready(false);
    if ended.is_ok() {
        deps.clock.sleep(config.shutdown_delay.0).await;
    }
    leaving.stop();
    let down = async {
        otlp.end().await;
        stepping.down().await;
        logs.end().await;
        beside.end().await;
        api.end().await;
        if let Some(host) = &ground.host {
            host.shutdown().await;
        }
    };
    if deps.clock.timeout(DRAIN_MAX, down).await.is_none() {
        tracing::warn!("the drain took too long, ending anyway");
    }
    if let Some(store) = &ground.store {
        store.close();
    }
    telemetry.shutdown();
    ended
}

/// How long the members of the metastore may take to agree on another leader.
const HAND_OVER_MAX: Duration = Duration::from_secs(4);

/// What gives its leadership away before it stops.
#[derive(Default)]
struct Stepping {
    metastore: Option<clew_metastore::Metastore>,
    ingester: Option<clew_ingester::Handle>,
}

impl Stepping {
    /// Shards first: telling who leads them needs the metastore.
    async fn down(&self) {
        if let Some(ingester) = &self.ingester {
            ingester.step_down().await;
        }
        if let Some(metastore) = &self.metastore {
            metastore.step_down(HAND_OVER_MAX).await;
        }
    }
}

fn serve_otlp(
    built: &Built,
    otlp: &Phase,
    deps: &Deps,
    (grpc, http): (Option<Listener>, Option<Listener>),
    limits: &Limits,
) {
    let Some(distributor) = &built.distributor else { return };
    if let Some(listener) = grpc {
        otlp.serve_within(limits.clone(), deps, listener, distributor.grpc_router());
    }
    if let Some(listener) = http {
        otlp.serve_within(limits.clone(), deps, listener, distributor.http_router());
    }
}

impl Listeners {
    async fn bind(config: &Config, with: &Certificates) -> Result<Listeners, ServeError> {
        let ingests = config.runs(Role::Distributor);
        // Queriers read blocks for each other.
        let served = [Role::Metastore, Role::Ingester, Role::Querier];
        let serves_rpc = served.into_iter().any(|role| config.runs(role));
        let (inside, public) = (&with.inside, &with.public);
        Ok(Listeners {
            http: bind("http_addr", &config.http_addr, public).await?,
            rpc: bind_if(serves_rpc, "rpc_addr", &config.rpc_addr, inside).await?,
            otlp_grpc: bind_if(ingests, "otlp_grpc_addr", &config.otlp_grpc_addr, public).await?,
            otlp_http: bind_if(ingests, "otlp_http_addr", &config.otlp_http_addr, public).await?,
        })
    }
}

async fn bind_if(
    wanted: bool,
    key: &'static str,
    addr: &str,
    credentials: &Option<Credentials>,
) -> Result<Option<Listener>, ServeError> {
    Ok(if wanted { Some(bind(key, addr, credentials).await?) } else { None })
}

async fn bind(
    key: &'static str,
    addr: &str,
    credentials: &Option<Credentials>,
) -> Result<Listener, ServeError> {
    let bound = TcpListener::bind(addr).await;
    let socket =
        bound.map_err(|source| ServeError::Listen { key, addr: addr.to_owned(), source })?;
    Ok(Listener::new(socket, credentials.clone()))
}

fn announce(config: &Config) {
    let roles: Vec<&str> = config.roles.iter().map(|role| role.as_str()).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        roles = roles.join(","),
        api = config.http_addr,
        otlp_grpc = config.otlp_grpc_addr,
        otlp_http = config.otlp_http_addr,
        rpc = config.rpc_addr,
        bucket = config.bucket_shown(),
        "ready"
    );
}

/// Completes on SIGTERM, SIGINT, or when the log on disk has failed. A second signal ends the
/// process at once.
async fn wait_for_end(ground: &Ground) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signal)?;
    let failed = async {
        match &ground.store {
            Some(store) => {
                let mut failed = store.failed();
                let reason = failed.wait_for(Option::is_some).await;
                reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        reason = failed => {
            tracing::error!(reason, "the log on disk failed");
            return Err(ServeError::LogFailed(reason));
        }
    }
    tracing::info!("draining");
    #[allow(clippy::disallowed_methods, reason = "must end the process whatever else hangs")]
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
    Ok(())
}
