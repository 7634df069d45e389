//! Bringing packed batches to the shards' leaders, and falling over to other places of the traces
//! when one does not answer.
//!
//! A batch that was not acknowledged may still have been stored. Sending its spans again, to the
//! same shard or another one, is safe: readers keep one span per identity.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clew_model::otlp::Scan;
use clew_model::otlp::request::ScannedSpan;
use clew_model::{ErrorKind, TenantId, UnixNanos};
use clew_node::Problem;
use clew_proto::shard::v1::shard_service_client::ShardServiceClient;
use clew_proto::shard::v1::{AppendFailure, AppendRequest, Batch, ShardBatch, append_outcome};
use clew_ring::ShardId;
use futures::future::join_all;

use crate::admission::Hold;
use crate::places::TenantPlaces;
use crate::plan::{NoPlace, Packed};
use crate::push::Ingest;
use crate::refusal::Refusal;

/// Between two attempts while none of a trace's places has a leader that answers.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Attempts that fit into the time for a request, so that a leader that hangs is left for another.
const ATTEMPTS: u32 = 3;

/// What a node may take beside the time that it is given for a call, to bring its answer back.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// Compressed bytes in one call, unless a single batch has more.
const CALL_BYTES_MAX: usize = 16 << 20;

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
    /// Whether they may have belonged elsewhere lately.
    pub(crate) is_settling: bool,
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
        let clock = ingest.deps.clock.clone();
        let give_up_at = clock.monotonic().saturating_add(ingest.config.leader_wait.0);
        let mut avoid = BTreeSet::new();
        loop {
            let failures = self.send(&ingest).await;
            let Some(first) = failures.first() else { return Ok(()) };
            let message = first.problem.message.clone();
            for failure in &failures {
                count(&ingest, failure);
                avoid.insert(failure.packed.part.shard);
            }
            if let Some(refusal) = final_refusal(&failures, ingest.retry_after()) {
                return Err(refusal);
            }
            let mut spans: Vec<_> =
                failures.into_iter().flat_map(|failure| failure.packed.part.spans).collect();
            loop {
                let home;
                (self, spans, home) = self.pack_again(&ingest, spans, &avoid).await?;
                let Some(NoPlace { home }) = home else { break };
                // None of the places has a leader that answers: an election may be under way.
                if clock.monotonic().saturating_add(RETRY_DELAY) >= give_up_at {
                    let message = format!("shard {home} and its fallbacks: {message}");
                    return Err(unavailable("append_failed", message, ingest.retry_after()));
                }
                clock.sleep(RETRY_DELAY).await;
                avoid.clear();
            }
        }
    }

    async fn send(&mut self, ingest: &Ingest) -> Vec<Failure> {
        let batches = std::mem::take(&mut self.batches);
        let bytes = batches.iter().map(|packed| packed.traces.len()).sum();
        let sent = by_node(batches).into_iter().map(|batches| self.append(ingest, batches));
        let failures = join_all(sent).await.into_iter().flatten().collect();
        self.hold.shrink(bytes);
        failures
    }

    /// Appends batches whose shards one node leads.
    async fn append(&self, ingest: &Ingest, batches: Vec<Packed>) -> Vec<Failure> {
        let Some(leader) = batches.first().map(|packed| packed.part.leader.clone()) else {
            return Vec::new();
        };
        let patience = ingest.append_timeout() / ATTEMPTS;
        let request = AppendRequest {
            batches: batches.iter().map(|packed| self.message(ingest, packed)).collect(),
            patience_millis: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        };
        let mut client = ShardServiceClient::new(leader.channel);
        let answer = client.append(request);
        let answer = ingest.deps.clock.timeout(patience.saturating_add(ANSWER_TIME), answer).await;
        let mut outcomes = match answer {
            Some(Ok(answer)) => answer.into_inner().outcomes.into_iter(),
            Some(Err(status)) => return all_failed(batches, &Problem::from(status)),
            None => return all_failed(batches, &silent("the shard's leader does not answer")),
        };
        let mut failures = Vec::new();
        for packed in batches {
            let problem = match outcomes.next().and_then(|outcome| outcome.outcome) {
                Some(append_outcome::Outcome::Index(_)) => continue,
                Some(append_outcome::Outcome::Failure(failure)) => problem_of(failure),
                None => silent("the shard's leader does not say what became of a batch"),
            };
            failures.push(Failure { packed, problem });
        }
        failures
    }

    fn message(&self, ingest: &Ingest, packed: &Packed) -> ShardBatch {
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
            fallback: part.fallback || self.is_settling,
        };
        ShardBatch { shard: part.shard.0, batch: Some(batch) }
    }

    /// Packs spans for places that are not to be avoided; gives them back if there is none.
    async fn pack_again(
        self,
        ingest: &Arc<Ingest>,
        spans: Vec<ScannedSpan>,
        avoid: &BTreeSet<ShardId>,
    ) -> Result<(Delivery, Vec<ScannedSpan>, Option<NoPlace>), Refusal> {
        let (avoid, packer) = (avoid.clone(), ingest.clone());
        let pack = move || {
            let mut delivery = self;
            let parts = match packer.divide(&delivery.scan, &spans, &delivery.places, &avoid) {
                Ok(parts) => parts,
                Err(no_place) => return Ok((delivery, spans, Some(no_place))),
            };
            delivery.batches = packer.pack(&mut delivery.scan, parts, &mut delivery.hold)?;
            Ok((delivery, Vec::new(), None))
        };
        let packed = ingest.deps.tasks.compute(pack).await;
        packed.unwrap_or_else(|error| Err(Refusal::Internal(error.to_string())))
    }
}

/// The batches by the node that leads their shards, in calls of a bounded size.
fn by_node(batches: Vec<Packed>) -> Vec<Vec<Packed>> {
    let mut calls: Vec<Vec<Packed>> = Vec::new();
    // Which call of a node is being filled, and the bytes in it.
    let mut open: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    for packed in batches {
        let bytes = packed.traces.len();
        match open.get_mut(&packed.part.leader.node) {
            Some((call, sum)) if *sum + bytes <= CALL_BYTES_MAX => {
                *sum += bytes;
                calls[*call].push(packed);
            }
            _ => {
                open.insert(packed.part.leader.node, (calls.len(), bytes));
                calls.push(vec![packed]);
            }
        }
    }
    calls
}

fn all_failed(batches: Vec<Packed>, problem: &Problem) -> Vec<Failure> {
    let failure = |packed| Failure { packed, problem: problem.clone() };
    batches.into_iter().map(failure).collect()
}

fn silent(message: &str) -> Problem {
    Problem::new(ErrorKind::Unavailable, "append_unanswered", message)
}

fn problem_of(failure: AppendFailure) -> Problem {
    let AppendFailure { kind, reason, message, retry_after_millis } = failure;
    let retry_after = (retry_after_millis > 0).then(|| Duration::from_millis(retry_after_millis));
    // A kind that a later release knows may not be taken for one that ends the request.
    let kind = ErrorKind::from_name(&kind).unwrap_or(ErrorKind::Unavailable);
    Problem { kind, reason, message, retry_after }
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
