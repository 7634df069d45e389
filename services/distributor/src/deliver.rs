//! Bringing packed batches to the shards' leaders, and falling over to other places of the traces
//! when one does not answer.
//!
//! A batch that was not acknowledged may still have been stored. Sending its spans again, to the
//! same shard or another one, is safe: readers keep one span per identity.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clew_model::otlp::Scan;
use clew_model::{ErrorKind, TenantId, UnixNanos};
use clew_node::Problem;
use clew_proto::shard::v1::shard_service_client::ShardServiceClient;
use clew_proto::shard::v1::{AppendRequest, Batch};
use clew_ring::ShardId;
use futures::future::join_all;

use crate::admission::Hold;
use crate::places::TenantPlaces;
use crate::plan::{NoPlace, Packed};
use crate::push::Ingest;
use crate::refusal::Refusal;

/// Rounds of sending: a trace has a home and two fallbacks.
const ROUNDS_MAX: usize = 3;

/// A request whose spans are on their way. It holds its share of the limits until it ends, also
/// when the client no longer waits.
pub(crate) struct Delivery {
    /// Who the spans belong to.
    pub(crate) tenant: TenantId,
    /// When they were received.
    pub(crate) received: UnixNanos,
    /// The request, for packing spans again.
    pub(crate) scan: Scan,
    /// Where its traces belong.
    pub(crate) places: Arc<TenantPlaces>,
    /// What is to be sent.
    pub(crate) batches: Vec<Packed>,
    /// What it holds of the limits.
    pub(crate) hold: Hold,
}

/// A batch that was not acknowledged, and why.
struct Failure {
    packed: Packed,
    problem: Problem,
}

impl Delivery {
    /// Sends every batch, and again elsewhere what could not be stored.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] or [`Refusal::Unavailable`] when a part was not acknowledged.
    pub(crate) async fn run(mut self, ingest: Arc<Ingest>) -> Result<(), Refusal> {
        let mut avoid = BTreeSet::new();
        let mut problem = None;
        for _ in 0..ROUNDS_MAX {
            let failures = self.send(&ingest).await;
            if failures.is_empty() {
                return Ok(());
            }
            for failure in &failures {
                count(&ingest, failure);
                avoid.insert(failure.packed.part.shard);
            }
            if let Some(refusal) = final_refusal(&failures, ingest.retry_after()) {
                return Err(refusal);
            }
            problem = failures.iter().map(|failure| failure.problem.clone()).next();
            self = self.pack_again(&ingest, failures, &avoid).await?;
        }
        let message = problem.map_or_else(String::new, |problem| problem.message);
        Err(unavailable("append_failed", message, ingest.retry_after()))
    }

    async fn send(&mut self, ingest: &Ingest) -> Vec<Failure> {
        let batches = std::mem::take(&mut self.batches);
        let bytes = batches.iter().map(|packed| packed.traces.len()).sum();
        let sent = batches.into_iter().map(|packed| self.append(ingest, packed));
        let failures = join_all(sent).await.into_iter().filter_map(Result::err).collect();
        self.hold.shrink(bytes);
        failures
    }

    async fn append(&self, ingest: &Ingest, packed: Packed) -> Result<(), Failure> {
        let part = &packed.part;
        if part.fallback {
            ingest.metrics.fallback_batches.inc();
        }
        let batch = Batch {
            tenant: self.tenant.as_str().to_owned(),
            received_unix_nanos: self.received.0,
            // Spans are counted in 32 bits by the scan.
            spans: u32::try_from(part.spans.len()).unwrap_or(u32::MAX),
            raw_bytes: part.raw_bytes as u64,
            traces: packed.traces.clone(),
            generation: self.places.generation(),
            fallback: part.fallback,
        };
        let mut request =
            tonic::Request::new(AppendRequest { shard: part.shard.0, batch: Some(batch) });
        request.set_timeout(ingest.append_timeout());
        let answer = ShardServiceClient::new(part.leader.clone()).append(request).await;
        match answer {
            Ok(_) => Ok(()),
            Err(status) => Err(Failure { packed, problem: Problem::from(status) }),
        }
    }

    async fn pack_again(
        self,
        ingest: &Arc<Ingest>,
        failures: Vec<Failure>,
        avoid: &BTreeSet<ShardId>,
    ) -> Result<Delivery, Refusal> {
        let message = failures.iter().map(|failure| failure.problem.message.clone()).next();
        let spans: Vec<_> =
            failures.into_iter().flat_map(|failure| failure.packed.part.spans).collect();
        let (avoid, packer) = (avoid.clone(), ingest.clone());
        let pack = move || {
            let mut delivery = self;
            let parts = packer.divide(&delivery.scan, &spans, &delivery.places, &avoid);
            let parts = parts.map_err(|NoPlace { home }| {
                let message = message.unwrap_or_default();
                let message = format!("shard {home} and its fallbacks: {message}");
                unavailable("append_failed", message, packer.retry_after())
            })?;
            delivery.batches = packer.pack(&mut delivery.scan, parts, &mut delivery.hold)?;
            Ok(delivery)
        };
        let packed = ingest.deps.tasks.compute(pack).await;
        packed.unwrap_or_else(|error| Err(Refusal::Internal(error.to_string())))
    }
}

/// The refusal of the whole request, if trying other places would not help.
fn final_refusal(failures: &[Failure], retry_after: Duration) -> Option<Refusal> {
    let of_kind = |kind| failures.iter().map(|f| &f.problem).find(|problem| problem.kind == kind);
    if let Some(problem) = of_kind(ErrorKind::Overloaded) {
        // Moving the load to other shards would only spread the overload.
        let retry_after = problem.retry_after.unwrap_or(retry_after);
        return Some(Refusal::Overloaded { message: problem.message.clone(), retry_after });
    }
    // The spans were checked, so a shard that calls them invalid runs another release, or there is
    // a defect. Both are for the operator: the client keeps the spans and tries again.
    let problem = of_kind(ErrorKind::Invalid)?;
    Some(unavailable("append_invalid", problem.message.clone(), retry_after))
}

fn unavailable(reason: &'static str, message: String, retry_after: Duration) -> Refusal {
    Refusal::Unavailable { reason, message, retry_after }
}

fn count(ingest: &Ingest, failure: &Failure) {
    let Failure { packed, problem } = failure;
    ingest.metrics.append_failures.with_label_values(&[problem.kind.as_str()]).inc();
    tracing::debug!(
        shard = packed.part.shard.0,
        spans = packed.part.spans.len(),
        kind = %problem.kind,
        reason = problem.reason,
        %problem,
        "a shard did not acknowledge a batch"
    );
}
