//! Opens the group, creates the cluster once, and answers commands and views.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_catalog::{ClusterId, ClusterOutcome, CreateCluster, Outcome, Request as _};
use clew_model::TenantId;
use clew_node::{Deps, Problem};
use clew_proto::metastore::v1::metastore_service_server::{
    MetastoreService, MetastoreServiceServer,
};
use clew_proto::metastore::v1::{ApplyRequest, ApplyResponse, ViewRequest, ViewResponse};
use clew_raft::{Group, GroupId, GroupOptions, GroupSpec, Host, NodeAddr, ReplicaId};
use prometheus::{HistogramVec, IntCounterVec, IntGauge};
use tonic::{Request, Response, Status};

use crate::machine::CatalogMachine;
use crate::{Config, MetastoreError};

/// What the metastore is built from besides the world.
pub struct Parts {
    /// The process's raft groups.
    pub host: Host,
    /// This member's id among the metastore's members.
    pub replica: ReplicaId,
    /// All members, the same on each of them; used at the very first start only.
    pub members: BTreeMap<ReplicaId, NodeAddr>,
    /// Cores of this node, for the default number of shards.
    pub cores: usize,
}

/// One member of the metastore.
#[derive(Clone)]
pub struct Metastore(Arc<Inner>);

struct Inner {
    group: Group<CatalogMachine>,
    timeout: Duration,
    deps: Deps,
    metrics: ServiceMetrics,
}

struct ServiceMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    revision: IntGauge,
    objects: IntGauge,
}

impl Config {
    /// Opens this member's replica and, if it leads a cluster that does not exist yet, creates it.
    ///
    /// # Errors
    /// [`MetastoreError`] when the log cannot be opened or no leader appears in time.
    pub async fn build(self, deps: Deps, parts: Parts) -> Result<Metastore, MetastoreError> {
        let spec = GroupSpec {
            group: GroupId::metastore(),
            replica: parts.replica,
            bootstrap: Some(parts.members),
            options: GroupOptions {
                snapshot_entries: self.snapshot_commands,
                payload_bytes_max: clew_catalog::COMMAND_BYTES_MAX,
                ..GroupOptions::default()
            },
        };
        let group = parts.host.open(spec, CatalogMachine::default()).await?;
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
        let timeout = self.timeout.0;
        let metastore = Metastore(Arc::new(Inner { group, timeout, deps, metrics }));
        metastore.create_cluster(self.shard_count(parts.cores)).await?;
        Ok(metastore)
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

    async fn create_cluster(&self, shard_count: u32) -> Result<(), MetastoreError> {
        self.await_leader().await?;
        self.0.group.read_index().await?;
        let existing = self.0.group.with_state(|machine| machine.state.cluster());
        if existing.is_some() {
            return Ok(());
        }
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.0.deps.rng.next_u64().to_be_bytes());
        id[8..].copy_from_slice(&self.0.deps.rng.next_u64().to_be_bytes());
        let command = CreateCluster { cluster: ClusterId(id), shard_count }.into_command();
        let encoded = command.encode(self.0.deps.clock.now_unix());
        let outcome = self.apply(Bytes::from(encoded)).await?.1;
        match CreateCluster::answer(outcome)? {
            ClusterOutcome::Created => {
                tracing::info!(cluster = %ClusterId(id), shards = shard_count, "cluster created");
                Ok(())
            }
            // Another member was first: its cluster is ours.
            ClusterOutcome::AlreadyCreated | ClusterOutcome::Different { .. } => Ok(()),
        }
    }

    async fn await_leader(&self) -> Result<(), MetastoreError> {
        let mut leadership = self.0.group.leadership();
        let led = leadership.wait_for(|state| state.leader.is_some());
        match self.0.deps.clock.timeout(self.0.timeout, led).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(MetastoreError::NoLeader),
        }
    }

    async fn apply(&self, command: Bytes) -> Result<(u64, Outcome), MetastoreError> {
        let proposed = self.0.group.propose(command, self.0.timeout).await?;
        Ok((proposed.log_id.index, proposed.response))
    }

    async fn view(&self, request: ViewRequest) -> Result<ViewResponse, MetastoreError> {
        let tenants = request
            .tenants
            .iter()
            .map(|tenant| TenantId::parse(tenant))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| MetastoreError::BadRequest(error.to_string()))?;
        // The group applies before it confirms a read index, so what is read now includes it.
        self.0.group.read_index().await?;
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
            Err(revision) => ViewResponse { revision, unchanged: true, view: Bytes::new() },
            Ok(view) => ViewResponse {
                revision: view.revision,
                unchanged: false,
                view: Bytes::from(view.encode()),
            },
        })
    }

    async fn observed<T, F>(&self, method: &'static str, work: F) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<T, MetastoreError>>,
    {
        let started = self.0.deps.clock.monotonic();
        let limited = self.0.deps.clock.timeout(self.0.timeout, work).await;
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

#[tonic::async_trait]
impl MetastoreService for Metastore {
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let command = request.into_inner().command;
        self.observed("apply", async {
            let (revision, outcome) = Metastore::apply(self, command).await?;
            Ok(ApplyResponse { revision, outcome: Bytes::from(outcome.encode()) })
        })
        .await
    }

    async fn view(&self, request: Request<ViewRequest>) -> Result<Response<ViewResponse>, Status> {
        self.observed("view", Metastore::view(self, request.into_inner())).await
    }
}
