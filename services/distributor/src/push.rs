//! The write path of one request: decode, check, divide by shard, pack, append, acknowledge.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_model::otlp::request::ScannedSpan;
use clew_model::otlp::{Rejections, Scan, ScanLimits, json_to_protobuf, scan};
use clew_model::{TenantId, UnixNanos};
use clew_node::{Deps, Phase};

use crate::admission::{Admission, Hold};
use crate::body::BodyLimits;
use crate::coding::Coding;
use crate::config::Config;
use crate::deliver::Delivery;
use crate::metrics::IngestMetrics;
use crate::places::{PlaceTables, TenantPlaces};
use crate::plan::{self, NoPlace, Packed, Part};
use crate::rate::RateLimit;
use crate::refusal::Refusal;
use crate::router::Router;

/// Larger bodies are checked and packed off the async threads; this much takes about a fifth of a
/// millisecond.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// What became of a request that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushOutcome {
    /// Spans that are durable now.
    pub accepted: u64,
    /// Spans that can never be stored, by reason.
    pub rejected: Rejections,
}

/// The form of a body, compression aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Protobuf,
    Json,
}

/// A request as its protocol hands it over.
pub(crate) struct Incoming {
    pub(crate) tenant: TenantId,
    /// The body as it came.
    pub(crate) raw: Bytes,
    pub(crate) coding: Coding,
    pub(crate) format: Format,
    /// When the client stops waiting, on the monotonic clock.
    pub(crate) deadline: Option<Duration>,
    /// What the request holds of the limits: `raw` is counted.
    pub(crate) hold: Hold,
}

/// Everything requests share.
pub(crate) struct Ingest {
    pub(crate) config: Config,
    pub(crate) multitenancy_enabled: bool,
    pub(crate) deps: Deps,
    pub(crate) router: Arc<dyn Router>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: IngestMetrics,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) scan_limits: ScanLimits,
    pub(crate) tables: PlaceTables,
}

/// A request that is packed, if it has any spans to store.
struct Prepared {
    outcome: PushOutcome,
    delivery: Option<Delivery>,
}

impl Ingest {
    /// Takes a request. When this answers, every accepted span is durable.
    ///
    /// # Errors
    /// Why nothing is acknowledged. Some spans may be stored all the same.
    pub(crate) async fn ingest(
        self: &Arc<Self>,
        incoming: Incoming,
    ) -> Result<PushOutcome, Refusal> {
        let tenant = incoming.tenant.clone();
        let result = match incoming.deadline {
            None => self.take(incoming).await,
            Some(deadline) => {
                let clock = &self.deps.clock;
                let left = deadline.saturating_sub(clock.monotonic());
                let taken = clock.timeout(left, self.take(incoming)).await;
                taken.unwrap_or(Err(Refusal::Deadline))
            }
        };
        if let Err(refusal) = &result {
            tracing::debug!(%tenant, reason = refusal.reason(), %refusal, "refused a request");
        }
        result
    }

    async fn take(self: &Arc<Self>, incoming: Incoming) -> Result<PushOutcome, Refusal> {
        let Prepared { outcome, delivery } = self.prepare(incoming).await?;
        let Some(delivery) = delivery else { return Ok(outcome) };
        // A task of its own: when the client goes away, what was begun is still brought to an end,
        // and its bytes stay counted until then.
        let ingest = self.clone();
        let sending = async move {
            let (clock, patience) = (ingest.deps.clock.clone(), ingest.append_timeout());
            clock.timeout(patience, delivery.run(ingest.clone())).await.unwrap_or_else(|| {
                ingest.metrics.append_failures.with_label_values(&["timeout"]).inc();
                let message = format!("a shard did not answer within {patience:?}");
                Err(ingest.unavailable("append_timeout", &message))
            })
        };
        let sent = self.deps.tasks.run(sending).await;
        sent.unwrap_or_else(|error| Err(Refusal::Internal(error.to_string())))?;
        Ok(outcome)
    }

    async fn prepare(self: &Arc<Self>, incoming: Incoming) -> Result<Prepared, Refusal> {
        let map = self.router.map();
        let ready = map.newest().is_some_and(|newest| self.tables.is_ready(newest.generation()));
        // What is compressed may be large.
        let small = incoming.coding == Coding::Identity && incoming.raw.len() <= INLINE_BYTES_MAX;
        if small && ready {
            return self.prepare_now(incoming);
        }
        let ingest = self.clone();
        let prepared = self.deps.tasks.compute(move || ingest.prepare_now(incoming)).await;
        prepared.unwrap_or_else(|error| Err(Refusal::Internal(error.to_string())))
    }

    fn prepare_now(&self, incoming: Incoming) -> Result<Prepared, Refusal> {
        let _cpu = self.deps.cpu.measure(Phase::Receive);
        let Incoming { tenant, raw, coding, format, mut hold, .. } = incoming;
        let received = self.deps.clock.now_unix();
        let body = coding.decode(raw, self.scan_limits.request_bytes_max, &mut hold)?;
        let body = match format {
            Format::Protobuf => body,
            Format::Json => self.rewrite_json(&body, &mut hold)?,
        };
        if let Some(limit) = &self.rate_limit {
            limit.take(&tenant, body.len(), self.deps.clock.monotonic())?;
        }
        let mut scan = scan(&body, &self.scan_limits)?;
        let outcome = PushOutcome {
            accepted: scan.spans.len() as u64,
            rejected: std::mem::take(&mut scan.rejected),
        };
        self.count(&tenant, body.len(), &outcome)?;
        let delivery = match outcome.accepted {
            0 => None,
            _ => Some(self.pack_first(tenant, received, scan, hold)?),
        };
        Ok(Prepared { outcome, delivery })
    }

    fn rewrite_json(&self, json: &Bytes, hold: &mut Hold) -> Result<Bytes, Refusal> {
        // Protobuf is shorter than the JSON of the same data.
        hold.grow(json.len())?;
        let protobuf = json_to_protobuf(json, &self.scan_limits)?;
        hold.shrink((2 * json.len()).saturating_sub(protobuf.len()));
        Ok(protobuf.into())
    }

    fn count(&self, tenant: &TenantId, bytes: usize, outcome: &PushOutcome) -> Result<(), Refusal> {
        let spans = outcome.accepted + outcome.rejected.total();
        let spans_max = self.config.spans_max;
        if spans > spans_max as u64 {
            return Err(Refusal::TooManySpans { spans, spans_max });
        }
        let metrics = self.metrics.tenant(tenant);
        metrics.bytes_received.inc_by(bytes as u64);
        metrics.spans_received.inc_by(spans);
        for (reason, spans, example) in outcome.rejected.iter() {
            self.metrics.rejected(&metrics, reason.as_str(), spans);
            tracing::debug!(%tenant, %reason, spans, example, "rejected spans");
        }
        Ok(())
    }

    fn pack_first(
        &self,
        tenant: TenantId,
        received: UnixNanos,
        mut scan: Scan,
        mut hold: Hold,
    ) -> Result<Delivery, Refusal> {
        let map = self.router.map();
        let newest = map
            .newest()
            .ok_or_else(|| self.unavailable("no_shard_map", "the cluster has no shards yet"))?;
        let shards = self.router.tenant_shards(&tenant).unwrap_or(0);
        let shards = usize::try_from(shards).unwrap_or(usize::MAX);
        let places = self.tables.tenant(newest, &tenant, shards);
        let spans = std::mem::take(&mut scan.spans);
        hold.grow(size_of_val(spans.as_slice()))?;
        let parts = self.divide(&scan, &spans, &places, &BTreeSet::new());
        let parts = parts.map_err(|NoPlace { home }| {
            self.metrics.append_failures.with_label_values(&["no_leader"]).inc();
            let message = format!("neither shard {home} nor its fallbacks have a leader");
            self.unavailable("no_leader", &message)
        })?;
        drop(spans);
        let batches = self.pack(&mut scan, parts, &mut hold)?;
        let is_settling = self.router.is_settling(places.generation(), received);
        Ok(Delivery { tenant, received, scan, places, is_settling, batches, hold })
    }

    /// Divides spans by shard; see [`plan::divide`].
    pub(crate) fn divide(
        &self,
        scan: &Scan,
        spans: &[ScannedSpan],
        places: &TenantPlaces,
        avoid: &BTreeSet<clew_ring::ShardId>,
    ) -> Result<Vec<Part>, NoPlace> {
        let bytes_max = self.config.batch_bytes_max.as_usize();
        let leader = |shard| self.router.leader(shard);
        plan::divide(scan, spans, |trace_id| places.of(trace_id), leader, avoid, bytes_max)
    }

    /// Packs parts; see [`plan::pack`].
    pub(crate) fn pack(
        &self,
        scan: &mut Scan,
        parts: Vec<Part>,
        hold: &mut Hold,
    ) -> Result<Vec<Packed>, Refusal> {
        plan::pack(scan, parts, self.config.batches_bytes_max(), hold)
    }

    fn unavailable(&self, reason: &'static str, message: &str) -> Refusal {
        let (message, retry_after) = (message.to_owned(), self.retry_after());
        Refusal::Unavailable { reason, message, retry_after }
    }

    /// How long shards may take to acknowledge a request.
    pub(crate) fn append_timeout(&self) -> Duration {
        self.config.append_timeout.0
    }

    /// The hint for failures whose end is not known.
    pub(crate) fn retry_after(&self) -> Duration {
        self.config.retry_after.0
    }

    /// What a body may be, with `framing` bytes around it.
    pub(crate) fn body_limits(&self, framing: usize) -> BodyLimits {
        let bytes_max = self.config.body_bytes_max.as_usize().saturating_add(framing);
        BodyLimits { bytes_max, timeout: self.config.body_timeout.0 }
    }
}
