//! Opens the group, creates the cluster once, and answers commands, views and those who watch.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_catalog::{
    ClusterId, ClusterOutcome, CreateCluster, FeatureRange, Incarnation, NodeId, Request as _,
    ShardId, State,
};
use clew_model::{TenantId, UnixNanos};
use clew_node::rpc::Pool;
use clew_node::{Deps, Problem, Stop};
use clew_proto::metastore::v1::cluster_service_client::ClusterServiceClient;
use clew_proto::metastore::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use clew_proto::metastore::v1::member_service_server::{MemberService, MemberServiceServer};
use clew_proto::metastore::v1::metastore_service_server::{
    MetastoreService, MetastoreServiceServer,
};
use clew_proto::metastore::v1::{
    ApplyRequest, ApplyResponse, FlushesOf, HeartbeatRequest, HeartbeatResponse, HelloRequest,
    HelloResponse, JoinRequest, JoinResponse, ReadIndexRequest, ReadIndexResponse, StatusRequest,
    StatusResponse, ViewRequest, ViewResponse, WatchRequest, WatchResponse,
};
use clew_raft::{Group, GroupId, GroupOptions, GroupSpec, Host, NodeAddr, ReplicaId};
use clew_storage::Bucket;
use futures::Stream;
use parking_lot::Mutex;
use prometheus::{HistogramVec, IntCounterVec, IntGauge};
use tonic::{Request, Response, Status};

use crate::backup::Backups;
use crate::beats::{Beats, SILENT_MAX, Seen};
use crate::leader::{forwarded, is_forwarded};
use crate::levels::{said, stated};
use crate::machine::CatalogMachine;
use crate::{Config, MetastoreError};

/// The replica of a metastore with one member. Those of several are drawn at random.
const LONE_MEMBER: ReplicaId = ReplicaId(1);

/// Objects in one answer about the flushes of a shard.
const FLUSHES_MAX: usize = 4_096;

/// Replicas that one node may report.
const REPORTS_MAX: usize = 16_384;

/// What the metastore is built from besides the world.
#[derive(Clone)]
pub struct Parts {
    /// The process's raft groups.
    pub host: Host,
    /// The connections to other members.
    pub pool: Pool,
    /// The address of this member, as in the list of members.
    pub addr: String,
    /// The addresses of all members, this one among them.
    pub members: Vec<String>,
    /// Cores of this node, for the default number of shards.
    pub cores: usize,
    /// The feature levels that this release supports.
    pub features: FeatureRange,
    /// Ends what would go on for ever: the streams of those who watch.
    pub stop: Stop,
    /// Where objects and backups lie.
    pub bucket: Bucket,
    /// The folder that holds this node's state.
    pub data_dir: PathBuf,
    /// Told when the process has to end and be started again.
    pub restart: Stop,
}

/// One member of the metastore.
#[derive(Clone)]
pub struct Metastore(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) group: Group<CatalogMachine>,
    pub(crate) pool: Pool,
    pub(crate) addr: String,
    pub(crate) members: Vec<String>,
    pub(crate) timeout: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) deps: Deps,
    pub(crate) beats: Beats,
    pub(crate) features: FeatureRange,
    /// As in the settings.
    pub(crate) feature_level_max: u32,
    shard_count: u32,
    began: Mutex<Duration>,
    stop: Stop,
    metrics: ServiceMetrics,
    pub(crate) bucket: Bucket,
    pub(crate) data_dir: PathBuf,
    pub(crate) restart: Stop,
    pub(crate) backups: Backups,
}

struct ServiceMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    revision: IntGauge,
    objects: IntGauge,
}

impl Config {
    /// Opens this member's replica. Its group may still have to begin: see [`Metastore::form`].
    ///
    /// # Errors
    /// [`MetastoreError`] when the log cannot be opened.
    pub async fn build(self, deps: Deps, parts: Parts) -> Result<Metastore, MetastoreError> {
        let group = GroupId::metastore();
        let is_alone = parts.members.len() <= 1;
        let held = parts.host.store().groups_on_disk()?;
        let held = held.into_iter().find(|(id, _)| *id == group).map(|(_, replica)| replica);
        let replica = held.unwrap_or_else(|| match is_alone {
            true => LONE_MEMBER,
            false => ReplicaId(deps.rng.next_u64().max(LONE_MEMBER.0 + 1)),
        });
        let alone = std::collections::BTreeMap::from([(replica, NodeAddr(parts.addr.clone()))]);
        let spec = GroupSpec {
            group,
            replica,
            bootstrap: is_alone.then_some(alone),
            options: GroupOptions {
                snapshot_entries: self.snapshot_commands,
                payload_bytes_max: clew_catalog::COMMAND_BYTES_MAX,
                ..GroupOptions::default().with_heartbeat(self.raft_heartbeat.0)
            },
        };
        let group = parts.host.open(spec, CatalogMachine::new(parts.features)).await?;
        let metrics = ServiceMetrics {
            requests: deps.metrics.counters(
                "clew_metastore_requests_total",
                "Requests answered, by method and outcome.",
                &["method", "outcome"],
            ),
            seconds: deps.metrics.seconds_by(
                "clew_metastore_request_duration_seconds",
                "Time to answer, by method.",
                &["method"],
            ),
            revision: deps
                .metrics
                .gauge("clew_metastore_revision", "Log index of the last applied command."),
            objects: deps.metrics.gauge("clew_metastore_objects", "Objects in the catalog."),
        };
        Ok(Metastore(Arc::new(Inner {
            group,
            pool: parts.pool,
            addr: parts.addr,
            shard_count: self.shard_count(parts.members.len(), parts.cores),
            members: parts.members,
            timeout: self.timeout.0,
            dead_after: self.dead_after.0,
            beats: Beats::default(),
            features: parts.features,
            feature_level_max: self.feature_level_max,
            began: Mutex::new(deps.clock.monotonic()),
            stop: parts.stop,
            backups: Backups::new(self.backup_interval.0, self.backups_kept, &deps.metrics),
            deps,
            metrics,
            bucket: parts.bucket,
            data_dir: parts.data_dir,
            restart: parts.restart,
        })))
    }
}

impl Inner {
    /// Since when this member leads.
    pub(crate) fn began(&self) -> Duration {
        *self.began.lock()
    }

    /// Completes once no member has led for a while, as far as this one knows.
    async fn lost_touch(&self) {
        let mut leadership = self.group.leadership();
        loop {
            if leadership.wait_for(|now| now.leader.is_none()).await.is_err() {
                return;
            }
            let found = leadership.wait_for(|now| now.leader.is_some());
            if self.deps.clock.timeout(SILENT_MAX, found).await.is_none() {
                return;
            }
        }
    }

    pub(crate) fn note_began(&self) {
        *self.began.lock() = self.deps.clock.monotonic();
    }
}

impl Metastore {
    /// The gRPC service, for a listener or an in-process channel.
    pub fn server(&self) -> MetastoreServiceServer<Metastore> {
        let limit = clew_node::rpc::MESSAGE_BYTES_MAX;
        MetastoreServiceServer::new(self.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit)
    }

    /// The service of those who follow the cluster.
    pub fn cluster_server(&self) -> ClusterServiceServer<Metastore> {
        ClusterServiceServer::new(self.clone())
            .max_encoding_message_size(clew_node::rpc::MESSAGE_BYTES_MAX)
    }

    /// The service of the other members.
    pub fn member_server(&self) -> MemberServiceServer<Metastore> {
        MemberServiceServer::new(self.clone())
    }

    /// Hands leadership to another member, if this one leads and there is one that can take it.
    pub async fn step_down(&self, timeout: Duration) {
        let group = &self.0.group;
        group.set_elections(false);
        let others: Vec<ReplicaId> =
            group.members().voters.into_keys().filter(|voter| *voter != group.replica()).collect();
        for other in others {
            if !self.0.leads() {
                return;
            }
            match group.hand_over(other, timeout).await {
                Ok(()) => tracing::info!(to = %other, "handed the metastore over"),
                Err(error) => tracing::info!(to = %other, %error, "the metastore was not taken"),
            }
        }
    }

    /// Looks at the catalog as far as it is applied here, which need not be all that is committed: for
    /// checks of what holds at every moment.
    pub fn inspect<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        self.0.group.with_state(|machine| look(&machine.state))
    }

    /// Creates the cluster if it does not exist: whichever member is first.
    pub(crate) async fn create_cluster(&self) -> Result<(), MetastoreError> {
        let limited = self.0.deps.clock.timeout(self.0.timeout, self.0.confirm()).await;
        limited.unwrap_or(Err(MetastoreError::NoLeader))?;
        let existing = self.0.group.with_state(|machine| machine.state.cluster());
        if existing.is_some() {
            return Ok(());
        }
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.0.deps.rng.next_u64().to_be_bytes());
        id[8..].copy_from_slice(&self.0.deps.rng.next_u64().to_be_bytes());
        let shard_count = self.0.shard_count;
        let command = CreateCluster { cluster: ClusterId(id), shard_count }.into_command();
        let encoded = Bytes::from(command.encode(self.0.deps.clock.now_unix()));
        let applied = self.0.deps.clock.timeout(self.0.timeout, self.0.apply(encoded, false)).await;
        let (_, outcome) = applied.unwrap_or(Err(MetastoreError::NoLeader))?;
        match CreateCluster::answer(outcome)? {
            ClusterOutcome::Created => {
                tracing::info!(cluster = %ClusterId(id), shards = shard_count, "cluster created");
                Ok(())
            }
            // Another member was first: its cluster is ours.
            ClusterOutcome::AlreadyCreated | ClusterOutcome::Different { .. } => Ok(()),
        }
    }

    async fn view(&self, request: ViewRequest) -> Result<ViewResponse, MetastoreError> {
        let tenants = request
            .tenants
            .iter()
            .map(|tenant| TenantId::parse(tenant))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| MetastoreError::BadRequest(error.to_string()))?;
        // Everything up to the confirmed index is applied here, so what is read now includes it.
        self.0.confirm().await?;
        if let Some(wanted) = &request.flushes_of {
            return Ok(self.flushes(wanted));
        }
        let known = request.known_revision;
        let view = self.0.group.with_state(|machine| {
            let state = &machine.state;
            self.0.metrics.revision.set(i64::try_from(state.revision()).unwrap_or(i64::MAX));
            self.0.metrics.objects.set(i64::try_from(state.objects().len()).unwrap_or(i64::MAX));
            let unchanged =
                known > 0 && state.changes_since(known).is_some_and(|changes| changes.is_empty());
            if unchanged {
                Err(state.revision())
            } else if request.shards_only {
                Ok(state.view_of_shards())
            } else {
                Ok(state.view(&tenants))
            }
        });
        Ok(match view {
            Err(revision) => ViewResponse { revision, unchanged: true, ..ViewResponse::default() },
            Ok(view) => ViewResponse {
                revision: view.revision,
                view: Bytes::from(view.encode()),
                ..ViewResponse::default()
            },
        })
    }

    fn flushes(&self, wanted: &FlushesOf) -> ViewResponse {
        let (shard, incarnation) = (ShardId(wanted.shard), Incarnation(wanted.incarnation));
        let since = UnixNanos(wanted.since_unix_nanos);
        let (revision, objects) = self.0.group.with_state(|machine| {
            let state = &machine.state;
            (state.revision(), state.flushes_since(shard, incarnation, since, FLUSHES_MAX))
        });
        let flushes = objects.iter().map(|object| Bytes::from(object.encode())).collect();
        ViewResponse { revision, flushes, ..ViewResponse::default() }
    }

    async fn heartbeat(
        &self,
        message: HeartbeatRequest,
        is_forwarded: bool,
    ) -> Result<HeartbeatResponse, MetastoreError> {
        let node = NodeId::parse(&message.node)
            .map_err(|error| MetastoreError::BadRequest(error.to_string()))?;
        if message.replicas.len() > REPORTS_MAX {
            return Err(MetastoreError::BadRequest("too many replicas".to_owned()));
        }
        let ask = |channel| {
            let mut client = ClusterServiceClient::new(channel);
            let request = forwarded(message.clone());
            async move { client.heartbeat(request).await }
        };
        if let Some(answer) = self.0.ask_leader(is_forwarded, ask).await? {
            return Ok(answer);
        }
        let known = self.0.group.with_state(|machine| {
            let mut nodes = machine.state.nodes();
            nodes.find(|info| info.node == node).map(|info| info.addr.clone())
        });
        let Some(addr) = known else {
            return Err(MetastoreError::Refused(clew_catalog::Refusal::UnknownNode));
        };
        if addr != message.addr {
            return Err(MetastoreError::SameName { node, here: message.addr, there: addr });
        }
        let at = self.0.deps.clock.monotonic();
        let HeartbeatRequest { leaving, replicas, features, .. } = message;
        let features = stated(features.as_ref());
        self.0.beats.note(node, Seen { at, leaving, replicas, features });
        Ok(HeartbeatResponse {})
    }

    pub(crate) async fn observed<T, F>(
        &self,
        method: &'static str,
        work: F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<T, MetastoreError>>,
    {
        let started = self.0.deps.clock.monotonic();
        let limited = self.0.deps.clock.timeout(self.0.timeout, Box::pin(work)).await;
        let result = limited.unwrap_or(Err(MetastoreError::NoLeader));
        let outcome = match &result {
            Ok(_) => "ok",
            Err(error) => error.kind().as_str(),
        };
        let taken = self.0.deps.clock.monotonic().saturating_sub(started);
        self.0.metrics.requests.with_label_values(&[method, outcome]).inc();
        self.0.metrics.seconds.with_label_values(&[method]).observe(taken.as_secs_f64());
        result.map(Response::new).map_err(|error| Status::from(Problem::from(error)))
    }
}

/// Topologies to one who watches.
type Topologies = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl MetastoreService for Metastore {
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let is_forwarded = is_forwarded(request.metadata());
        let command = request.into_inner().command;
        self.observed("apply", async {
            let (revision, outcome) = self.0.apply(command, is_forwarded).await?;
            Ok(ApplyResponse { revision, outcome: Bytes::from(outcome.encode()) })
        })
        .await
    }

    async fn view(&self, request: Request<ViewRequest>) -> Result<Response<ViewResponse>, Status> {
        self.observed("view", Metastore::view(self, request.into_inner())).await
    }
}

#[tonic::async_trait]
impl ClusterService for Metastore {
    type WatchStream = Topologies;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Topologies>, Status> {
        // The first message is as of now: a process that has just started must not take up what was
        // true before it stopped.
        self.observed("watch", self.0.confirm()).await?;
        let watching = Watching {
            inner: self.0.clone(),
            committed: self.0.group.committed(),
            known: request.into_inner().known_revision,
        };
        let topologies = futures::stream::unfold(watching, |mut watching| async move {
            let next = watching.next().await?;
            Some((Ok(next), watching))
        });
        Ok(Response::new(Box::pin(topologies)))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let is_forwarded = is_forwarded(request.metadata());
        let message = request.into_inner();
        self.observed("heartbeat", Metastore::heartbeat(self, message, is_forwarded)).await
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let is_forwarded = is_forwarded(request.metadata());
        self.observed("status", async {
            let ask = |channel| async move {
                let mut client = ClusterServiceClient::new(channel)
                    .max_decoding_message_size(clew_node::rpc::MESSAGE_BYTES_MAX);
                client.status(forwarded(StatusRequest {})).await
            };
            match self.0.ask_leader(is_forwarded, ask).await? {
                Some(answer) => Ok(answer),
                None => Ok(self.0.status()),
            }
        })
        .await
    }
}

#[tonic::async_trait]
impl MemberService for Metastore {
    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        Ok(Response::new(HelloResponse {
            replica: self.0.group.replica().0,
            belongs: !self.0.group.members().voters.is_empty(),
            features: Some(said(self.0.features)),
            incarnation: self.0.group.with_state(|machine| machine.state.incarnation()),
        }))
    }

    async fn read_index(
        &self,
        _: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexResponse>, Status> {
        self.observed("read_index", async {
            Ok(ReadIndexResponse { index: Box::pin(self.0.group.read_index()).await? })
        })
        .await
    }

    /// Not limited by the time of other requests: the newcomer may have much to receive.
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let is_forwarded = is_forwarded(request.metadata());
        let message = request.into_inner();
        let joined = async {
            if !self.0.leads() {
                if is_forwarded {
                    return Err(MetastoreError::NotLeader);
                }
                return self.0.pass_on_join(&message).await;
            }
            self.admit(&message).await
        };
        let joined = joined.await.map_err(|error| Status::from(Problem::from(error)));
        joined.map(|()| Response::new(JoinResponse {}))
    }
}

/// One who watches, and what it has seen.
struct Watching {
    inner: Arc<Inner>,
    committed: tokio::sync::watch::Receiver<u64>,
    known: u64,
}

impl Watching {
    /// The next topology; nothing when the process stops, or this member has lost touch with the
    /// others: one of them may know more.
    async fn next(&mut self) -> Option<WatchResponse> {
        let inner = self.inner.clone();
        tokio::select! {
            next = self.next_here() => next,
            () = inner.lost_touch() => None,
        }
    }

    async fn next_here(&mut self) -> Option<WatchResponse> {
        loop {
            self.committed.borrow_and_update();
            let topology = self.inner.group.with_state(|machine| {
                let news = machine.state.topology_revision() > self.known;
                (news && machine.state.cluster().is_some()).then(|| machine.state.topology())
            });
            if let Some(topology) = topology {
                self.known = topology.revision;
                let (revision, topology) = (topology.revision, Bytes::from(topology.encode()));
                return Some(WatchResponse { revision, topology });
            }
            self.inner.stop.or(self.committed.changed()).await?.ok()?;
        }
    }
}
