//! The role as other parts of the process see it: built from its settings, used by a handle,
//! served by two routers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router as AxumRouter;
use bytes::Bytes;
use clew_model::TenantId;
use clew_node::{Deps, Problem};

use crate::admission::{Admission, Bounds};
use crate::coding::Coding;
use crate::config::{BuildError, Config};
use crate::metrics::IngestMetrics;
use crate::places::PlaceTables;
use crate::push::{Format, Incoming, Ingest, PushOutcome};
use crate::rate::RateLimit;
use crate::refusal::Refusal;
use crate::router::Router;
use crate::{grpc, http};

/// What the distributor needs of the rest of the process.
pub struct Parts {
    /// The shard map and the shards' leaders.
    pub router: Arc<dyn Router>,
    /// Whether the header `X-Scope-OrgID` names the tenant. Otherwise there is one tenant.
    pub multitenancy_enabled: bool,
}

/// The role that takes spans in. It has no state: any number run side by side.
pub struct Distributor {
    ingest: Arc<Ingest>,
}

/// A cheap handle for taking in spans.
#[derive(Clone)]
pub struct Handle {
    ingest: Arc<Ingest>,
}

impl Config {
    /// Builds the distributor. `deps.tasks` decompresses, checks and packs large requests, so it
    /// should not share its limit with work that takes seconds.
    ///
    /// # Errors
    /// [`BuildError`] naming the setting that is not allowed.
    pub fn build(self, deps: Deps, parts: Parts) -> Result<Distributor, BuildError> {
        self.validate()?;
        let metrics = IngestMetrics::new(&deps.metrics);
        let bounds = Bounds {
            requests_max: self.requests_in_flight_max,
            bytes_max: self.bytes_in_flight_max.0,
            wait_max: self.queue_wait_max.0,
            retry_after: self.retry_after.0,
        };
        let admission = Admission::new(bounds, deps.clock.clone(), metrics.inflight_bytes.clone());
        let rate = self.tenant_rate_bytes.0;
        let rate_limit = (rate > 0).then(|| RateLimit::new(rate, self.tenant_burst_bytes.0));
        let ingest = Ingest {
            scan_limits: self.scan_limits(),
            multitenancy_enabled: parts.multitenancy_enabled,
            deps,
            router: parts.router,
            admission,
            metrics,
            rate_limit,
            tables: PlaceTables::default(),
            config: self,
        };
        Ok(Distributor { ingest: Arc::new(ingest) })
    }
}

impl Distributor {
    /// A handle for taking in spans from this process.
    pub fn handle(&self) -> Handle {
        Handle { ingest: self.ingest.clone() }
    }

    /// OTLP/gRPC: the `TraceService`, for port 4317.
    pub fn grpc_router(&self) -> AxumRouter {
        grpc::router(self.ingest.clone())
    }

    /// OTLP/HTTP: `POST /v1/traces`, for port 4318.
    pub fn http_router(&self) -> AxumRouter {
        http::router(self.ingest.clone())
    }
}

impl Handle {
    /// Takes in an encoded `ExportTraceServiceRequest` (or `TracesData`). When this returns, every
    /// accepted span is durable and will be found. `deadline` is on the monotonic clock of `Deps`;
    /// past it the append goes on, but its outcome is unknown.
    ///
    /// # Errors
    /// A [`Problem`] of kind `Invalid` for what can never be taken, `Overloaded` or `Unavailable`
    /// with a retry hint for what can be sent again, `Cancelled` when the deadline passes. After an
    /// error some spans may be stored; sending all of them again is safe.
    pub async fn push(
        &self,
        tenant: &TenantId,
        body: Bytes,
        deadline: Option<Duration>,
    ) -> Result<PushOutcome, Problem> {
        let pushed = self.take(tenant, body, deadline).await;
        pushed.map_err(|refusal| {
            self.ingest.metrics.refused(Some(tenant), refusal.reason());
            Problem::from(refusal)
        })
    }

    async fn take(
        &self,
        tenant: &TenantId,
        raw: Bytes,
        deadline: Option<Duration>,
    ) -> Result<PushOutcome, Refusal> {
        let mut hold = self.ingest.admission.enter()?;
        hold.grow(raw.len())?;
        let (tenant, coding, format) = (tenant.clone(), Coding::Identity, Format::Protobuf);
        self.ingest.ingest(Incoming { tenant, raw, coding, format, deadline, hold }).await
    }
}
