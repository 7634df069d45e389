//! `clew.shard.v1.ShardService` over the shards hosted here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_model::{TenantId, TraceId};
use clew_node::{Clock, Problem};
use clew_proto::query::v1::Cut;
use clew_proto::shard::v1::shard_service_server::{ShardService, ShardServiceServer};
use clew_proto::shard::v1::{
    AppendFailure, AppendOutcome, AppendRequest, AppendResponse, CutRequest, CutResponse,
    FlushRequest, FlushResponse, ShardBatch, ShardFetchRequest, ShardFetchResponse,
    ShardSearchRequest, ShardSearchResponse, ShardTagNamesRequest, ShardTagNamesResponse,
    ShardTagValuesRequest, ShardTagValuesResponse, append_outcome, cut_response, flush_response,
    shard_fetch_response, shard_search_response, shard_tag_names_response,
    shard_tag_values_response,
};
use clew_query::{Engine, Outcome, SearchPlan, SpanSource, encode_ids};
use clew_ring::ShardId;
use futures::future::join_all;
use tonic::{Request, Response, Status};

use crate::IngesterError;
use crate::hosting::Hosted;
use crate::metrics::IngesterMetrics;
use crate::read::Place;
use crate::shard::Shard;

/// The gRPC face of an ingester.
#[derive(Clone)]
pub struct ShardServer(Arc<Inner>);

struct Inner {
    shards: Hosted,
    clock: Clock,
    engine: Engine,
    metrics: IngesterMetrics,
}

impl ShardServer {
    pub(crate) fn new(
        shards: Hosted,
        clock: Clock,
        engine: Engine,
        metrics: IngesterMetrics,
    ) -> ShardServer {
        ShardServer(Arc::new(Inner { shards, clock, engine, metrics }))
    }

    pub(crate) fn server(&self) -> ShardServiceServer<ShardServer> {
        let limit = clew_node::rpc::MESSAGE_BYTES_MAX;
        ShardServiceServer::new(self.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit)
    }

    fn shard(&self, shard: u32) -> Result<Arc<Shard>, IngesterError> {
        let shard = ShardId(shard);
        self.0.shards.get(shard).ok_or(IngesterError::UnknownShard(shard))
    }

    async fn place(&self, tenant: &str, cut: Option<&Cut>) -> Result<Place, IngesterError> {
        let cut = cut.ok_or_else(|| missing("cut"))?;
        self.shard(cut.shard)?.place(&tenant_of(tenant)?, cut).await
    }

    async fn observed<T, F>(&self, method: &'static str, work: F) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<T, IngesterError>>,
    {
        let result = self.measured(method, work).await;
        result.map(Response::new).map_err(|error| Status::from(Problem::from(error)))
    }

    async fn measured<T, F>(&self, method: &'static str, work: F) -> Result<T, IngesterError>
    where
        F: Future<Output = Result<T, IngesterError>>,
    {
        let started = self.0.clock.monotonic();
        let result = work.await;
        let outcome = match &result {
            Ok(_) => "ok",
            Err(error) => error.kind().as_str(),
        };
        let taken = self.0.clock.monotonic().saturating_sub(started);
        self.0.metrics.requests.with_label_values(&[method, outcome]).inc();
        self.0.metrics.request_seconds.with_label_values(&[method]).observe(taken.as_secs_f64());
        result
    }

    /// Appends one of the batches of a request.
    async fn append_one(&self, batch: ShardBatch, patience: Duration) -> AppendOutcome {
        let ShardBatch { shard, batch } = batch;
        let appended = self.measured("append", async {
            let batch = batch.ok_or_else(|| missing("batch"))?;
            tenant_of(&batch.tenant)?;
            let shard = self.shard(shard)?;
            let appended = self.0.clock.timeout(patience, shard.append(batch)).await;
            appended.unwrap_or(Err(IngesterError::TimedOut("the shard's log")))
        });
        AppendOutcome {
            outcome: Some(match appended.await {
                Ok(index) => append_outcome::Outcome::Index(index),
                Err(error) => append_outcome::Outcome::Failure(failure_of(error)),
            }),
        }
    }
}

fn failure_of(error: IngesterError) -> AppendFailure {
    let Problem { kind, reason, message, retry_after } = Problem::from(error);
    let millis = retry_after.map_or(0, |delay| delay.as_millis());
    let retry_after_millis = u64::try_from(millis).unwrap_or(u64::MAX);
    AppendFailure { kind: kind.as_str().to_owned(), reason, message, retry_after_millis }
}

fn tenant_of(tenant: &str) -> Result<TenantId, IngesterError> {
    TenantId::parse(tenant)
        .map_err(|error| IngesterError::Decode { what: "the tenant", reason: error.to_string() })
}

fn missing(field: &'static str) -> IngesterError {
    IngesterError::Decode { what: "the request", reason: format!("{field} is missing") }
}

async fn split_ids(sources: &[Arc<dyn SpanSource>]) -> Result<Vec<TraceId>, IngesterError> {
    let mut all = Vec::new();
    for source in sources {
        all.extend(source.split_ids().await?);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// A head is memory: a part of it that cannot be read is a failure of the whole answer.
fn whole<T>(outcome: Outcome<T>) -> Result<T, IngesterError> {
    match outcome.failed.into_iter().next() {
        Some(failure) => Err(failure.error.into()),
        None => Ok(outcome.response),
    }
}

/// Runs a leaf over the place of a request, and wraps whichever answer it is.
macro_rules! leaf {
    ($self:ident, $method:literal, $message:ident, $module:ident, |$sources:ident, $request:ident| $run:expr) => {
        $self
            .observed($method, async {
                let $request = $message.request.ok_or_else(|| missing("request"))?;
                Ok(match $self.place(&$request.tenant, $message.cut.as_ref()).await? {
                    Place::Sources($sources) => $module::Answer::Result(whole($run)?),
                    Place::Behind(behind) => $module::Answer::Behind(behind),
                    Place::TooOld(too_old) => $module::Answer::TooOld(too_old),
                })
            })
            .await
    };
}

#[tonic::async_trait]
impl ShardService for ShardServer {
    async fn append(
        &self,
        request: Request<AppendRequest>,
    ) -> Result<Response<AppendResponse>, Status> {
        let AppendRequest { batches, patience_millis } = request.into_inner();
        let patience = Duration::from_millis(patience_millis);
        let appends = batches.into_iter().map(|batch| self.append_one(batch, patience));
        Ok(Response::new(AppendResponse { outcomes: join_all(appends).await }))
    }

    async fn cut(&self, request: Request<CutRequest>) -> Result<Response<CutResponse>, Status> {
        let message = request.into_inner();
        self.observed("cut", async {
            let tenant = tenant_of(&message.tenant)?;
            let shard = self.shard(message.shard)?;
            let upto = shard.cut(message.incarnation).await?;
            let cut = Cut {
                shard: message.shard,
                incarnation: message.incarnation,
                watermark: message.watermark,
                upto,
                stretch: shard.stretch(),
            };
            let answer = match shard.place(&tenant, &cut).await? {
                Place::Sources(sources) => {
                    let split_ids = Bytes::from(encode_ids(&split_ids(&sources).await?));
                    let stretch = cut.stretch;
                    cut_response::Answer::Taken(cut_response::Taken { upto, split_ids, stretch })
                }
                Place::Behind(behind) => cut_response::Answer::Behind(behind),
                Place::TooOld(too_old) => cut_response::Answer::TooOld(too_old),
            };
            Ok(CutResponse { answer: Some(answer) })
        })
        .await
    }

    async fn search(
        &self,
        request: Request<ShardSearchRequest>,
    ) -> Result<Response<ShardSearchResponse>, Status> {
        let message = request.into_inner();
        let answer = leaf!(self, "search", message, shard_search_response, |sources, request| {
            let plan = SearchPlan::from_request(&request)?;
            self.0.engine.search(&sources, &plan).await?
        })?;
        Ok(answer.map(|answer| ShardSearchResponse { answer: Some(answer) }))
    }

    async fn fetch(
        &self,
        request: Request<ShardFetchRequest>,
    ) -> Result<Response<ShardFetchResponse>, Status> {
        let message = request.into_inner();
        let answer = leaf!(self, "fetch", message, shard_fetch_response, |sources, request| {
            self.0.engine.fetch(&sources, &request).await?
        })?;
        Ok(answer.map(|answer| ShardFetchResponse { answer: Some(answer) }))
    }

    async fn tag_names(
        &self,
        request: Request<ShardTagNamesRequest>,
    ) -> Result<Response<ShardTagNamesResponse>, Status> {
        let message = request.into_inner();
        let answer =
            leaf!(self, "tag_names", message, shard_tag_names_response, |sources, request| {
                self.0.engine.tag_names(&sources, &request).await?
            })?;
        Ok(answer.map(|answer| ShardTagNamesResponse { answer: Some(answer) }))
    }

    async fn tag_values(
        &self,
        request: Request<ShardTagValuesRequest>,
    ) -> Result<Response<ShardTagValuesResponse>, Status> {
        let message = request.into_inner();
        let answer =
            leaf!(self, "tag_values", message, shard_tag_values_response, |sources, request| {
                self.0.engine.tag_values(&sources, &request).await?
            })?;
        Ok(answer.map(|answer| ShardTagValuesResponse { answer: Some(answer) }))
    }

    async fn flush(
        &self,
        request: Request<FlushRequest>,
    ) -> Result<Response<FlushResponse>, Status> {
        let wanted = request.into_inner().shards;
        self.observed("flush", async {
            let mut shards = Vec::new();
            for (id, shard) in self.0.shards.all() {
                let is_chosen =
                    if wanted.is_empty() { shard.is_leading() } else { wanted.contains(&id.0) };
                if is_chosen {
                    let watermark = shard.flush_now().await?;
                    shards.push(flush_response::Shard { shard: id.0, watermark });
                }
            }
            Ok(FlushResponse { shards })
        })
        .await
    }
}
