//! A distributor among fake shards, on a clock that the test moves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use clew_distributor::{Config, Distributor, Handle, Leader, Parts, Router};
use clew_model::otlp::{ScanLimits, scan};
use clew_model::{TraceId, UnixNanos};
use clew_node::clock::ManualTime;
use clew_node::rpc::{Channel, MESSAGE_BYTES_MAX};
use clew_node::{Deps, Metrics, Problem, Rng, Tasks};
use clew_proto::shard::v1::shard_service_server::{ShardService, ShardServiceServer};
use clew_proto::shard::v1::{
    AppendFailure, AppendOutcome, AppendRequest, AppendResponse, CutRequest, CutResponse,
    FlushRequest, FlushResponse, ShardBatch, ShardFetchRequest, ShardFetchResponse,
    ShardSearchRequest, ShardSearchResponse, ShardTagNamesRequest, ShardTagNamesResponse,
    ShardTagValuesRequest, ShardTagValuesResponse, append_outcome,
};
use clew_ring::{MapGeneration, ShardId, ShardMap};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::Status;
use tower::ServiceExt;

/// The map generation of every cluster here.
pub(crate) const GENERATION: u64 = 7;

/// When the clock starts.
pub(crate) const EPOCH: UnixNanos = UnixNanos::from_seconds(1_700_000_000);

/// A batch as a shard stored it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) shard: u32,
    pub(crate) tenant: String,
    pub(crate) fallback: bool,
    pub(crate) received: u64,
    pub(crate) traces: Bytes,
    pub(crate) spans: Vec<(TraceId, Bytes)>,
}

/// What a shard does with an append.
#[derive(Debug, Clone, Default)]
pub(crate) enum Behaviour {
    #[default]
    Store,
    Refuse(Problem),
    /// Stores it, but the answer is lost.
    StoreAndRefuse(Problem),
    /// Waits until [`Shards::release`], then stores it.
    Hang,
}

/// All fake shards.
pub(crate) struct Shards {
    state: Mutex<State>,
    arrived: Semaphore,
    released: Semaphore,
    calls: AtomicUsize,
}

#[derive(Default)]
struct State {
    stored: Vec<Stored>,
    behaviours: BTreeMap<u32, Behaviour>,
    leaderless: BTreeSet<ShardId>,
}

impl Shards {
    fn new() -> Shards {
        Shards {
            state: Mutex::default(),
            arrived: Semaphore::new(0),
            released: Semaphore::new(0),
            calls: AtomicUsize::new(0),
        }
    }

    /// Sets what a shard does from now on.
    pub(crate) fn behave(&self, shard: u32, behaviour: Behaviour) {
        self.state.lock().behaviours.insert(shard, behaviour);
    }

    /// Whether the shard has a leader.
    pub(crate) fn set_leader(&self, shard: u32, has_leader: bool) {
        let mut state = self.state.lock();
        let shard = ShardId(shard);
        if has_leader {
            state.leaderless.remove(&shard);
        } else {
            state.leaderless.insert(shard);
        }
    }

    /// Waits until one more append has reached a shard.
    pub(crate) async fn arrived(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    /// Lets one hanging append go on.
    pub(crate) fn release(&self) {
        self.released.add_permits(1);
    }

    /// How often a node was called to append something.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Everything stored so far.
    pub(crate) fn stored(&self) -> Vec<Stored> {
        self.state.lock().stored.clone()
    }

    /// The encoded spans stored so far, sorted.
    pub(crate) fn spans(&self) -> Vec<Bytes> {
        let mut spans: Vec<Bytes> =
            self.stored().into_iter().flat_map(|s| s.spans).map(|(_, span)| span).collect();
        spans.sort();
        spans
    }

    fn store(&self, request: ShardBatch) -> Result<(), Status> {
        let invalid = |text: &str| Status::invalid_argument(text.to_owned());
        let batch = request.batch.ok_or_else(|| invalid("no batch"))?;
        let raw = zstd::decode_all(&batch.traces[..]).map_err(|_| invalid("not zstd"))?;
        let raw = Bytes::from(raw);
        let scan = scan(&raw, &ScanLimits::default()).map_err(|e| invalid(&e.to_string()))?;
        if batch.raw_bytes != raw.len() as u64
            || batch.spans as usize != scan.spans.len()
            || scan.spans.is_empty()
            || !scan.rejected.is_empty()
            || batch.generation != GENERATION
        {
            return Err(invalid("the batch does not say what it holds"));
        }
        let bytes = |span| Bytes::copy_from_slice(scan.span_bytes(span));
        let spans = scan.spans.iter().map(|span| (span.trace_id, bytes(span))).collect();
        self.state.lock().stored.push(Stored {
            shard: request.shard,
            tenant: batch.tenant,
            fallback: batch.fallback,
            received: batch.received_unix_nanos,
            traces: raw,
            spans,
        });
        Ok(())
    }
}

/// One service for all shards; the request names the shard.
struct Service(Arc<Shards>);

type Answer<T> = Result<tonic::Response<T>, Status>;

fn failure_of(status: Status) -> AppendFailure {
    let Problem { kind, reason, message, retry_after } = Problem::from(status);
    let retry_after_millis =
        retry_after.map_or(0, |delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    AppendFailure { kind: kind.as_str().to_owned(), reason, message, retry_after_millis }
}

impl Service {
    async fn append_one(&self, request: ShardBatch) -> Result<(), Status> {
        let behaviour = self.0.state.lock().behaviours.get(&request.shard).cloned();
        self.0.arrived.add_permits(1);
        match behaviour.unwrap_or_default() {
            Behaviour::Store => self.0.store(request)?,
            Behaviour::Refuse(problem) => return Err(problem.into()),
            Behaviour::StoreAndRefuse(problem) => {
                self.0.store(request)?;
                return Err(problem.into());
            }
            Behaviour::Hang => {
                self.0.released.acquire().await.unwrap().forget();
                self.0.store(request)?;
            }
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl ShardService for Service {
    async fn append(&self, request: tonic::Request<AppendRequest>) -> Answer<AppendResponse> {
        let batches = request.into_inner().batches;
        assert!(!batches.is_empty());
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        let appends = batches.into_iter().map(|batch| self.append_one(batch));
        let appended = futures::future::join_all(appends).await;
        let outcomes = appended.into_iter().map(|appended| AppendOutcome {
            outcome: Some(match appended {
                Ok(()) => append_outcome::Outcome::Index(1),
                Err(status) => append_outcome::Outcome::Failure(failure_of(status)),
            }),
        });
        Ok(tonic::Response::new(AppendResponse { outcomes: outcomes.collect() }))
    }

    async fn cut(&self, _: tonic::Request<CutRequest>) -> Answer<CutResponse> {
        Err(Status::unimplemented("append only"))
    }

    async fn search(&self, _: tonic::Request<ShardSearchRequest>) -> Answer<ShardSearchResponse> {
        Err(Status::unimplemented("append only"))
    }

    async fn fetch(&self, _: tonic::Request<ShardFetchRequest>) -> Answer<ShardFetchResponse> {
        Err(Status::unimplemented("append only"))
    }

    async fn tag_names(
        &self,
        _: tonic::Request<ShardTagNamesRequest>,
    ) -> Answer<ShardTagNamesResponse> {
        Err(Status::unimplemented("append only"))
    }

    async fn tag_values(
        &self,
        _: tonic::Request<ShardTagValuesRequest>,
    ) -> Answer<ShardTagValuesResponse> {
        Err(Status::unimplemented("append only"))
    }

    async fn flush(&self, _: tonic::Request<FlushRequest>) -> Answer<FlushResponse> {
        Err(Status::unimplemented("append only"))
    }
}

struct FakeRouter {
    map: Arc<ShardMap>,
    shards: Arc<Shards>,
    channel: Channel,
}

impl Router for FakeRouter {
    fn map(&self) -> Arc<ShardMap> {
        self.map.clone()
    }

    fn leader(&self, shard: ShardId) -> Option<Leader> {
        let leaderless = self.shards.state.lock().leaderless.contains(&shard);
        // One node for every three shards.
        let node = u64::from(shard.0 / 3);
        (!leaderless).then(|| Leader { node, channel: self.channel.clone() })
    }
}

/// A distributor and its world.
pub(crate) struct Cluster {
    pub(crate) shards: Arc<Shards>,
    pub(crate) time: ManualTime,
    pub(crate) metrics: Metrics,
    pub(crate) distributor: Distributor,
    pub(crate) map: MapGeneration,
    pub(crate) tasks: Tasks,
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: http::HeaderMap,
}

impl Cluster {
    /// One shard, default settings.
    pub(crate) fn single() -> Cluster {
        Cluster::new(1, false, Config::default())
    }

    pub(crate) fn new(shard_count: u32, multitenancy_enabled: bool, config: Config) -> Cluster {
        let shards = Arc::new(Shards::new());
        let service = ShardServiceServer::new(Service(shards.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let map = MapGeneration::uniform(GENERATION, shard_count).unwrap();
        let router = Arc::new(FakeRouter {
            map: Arc::new(ShardMap::new(vec![map.clone()]).unwrap()),
            shards: shards.clone(),
            channel: Channel::local(service),
        });
        let (time, tasks) = (ManualTime::at(EPOCH), Tasks::new(2));
        let (clock, rng) = (time.clock(), Rng::seeded(1));
        let deps = Deps { clock, rng, tasks: tasks.clone(), ..Deps::system(1) };
        let metrics = deps.metrics.clone();
        let distributor = config.build(deps, Parts { router, multitenancy_enabled }).unwrap();
        Cluster { shards, time, metrics, distributor, map, tasks }
    }

    pub(crate) fn handle(&self) -> Handle {
        self.distributor.handle()
    }

    /// Sends a request to the HTTP port.
    pub(crate) async fn http(&self, request: Request<Body>) -> Answered {
        answered(self.distributor.http_router().oneshot(request).await.unwrap()).await
    }

    /// Sends a request to the gRPC port.
    pub(crate) async fn grpc(&self, request: Request<Body>) -> Answered {
        answered(self.distributor.grpc_router().oneshot(request).await.unwrap()).await
    }

    /// Posts a body to `/v1/traces`.
    pub(crate) async fn post(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Answered {
        self.http(post(headers, body)).await
    }

    /// Posts an OTLP protobuf body.
    pub(crate) async fn post_protobuf(&self, body: impl Into<Body>) -> Answered {
        self.post(&[("content-type", "application/x-protobuf")], body).await
    }

    /// The metric's line for these labels, without the name.
    pub(crate) fn metric(&self, name_and_labels: &str) -> Option<f64> {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name_and_labels} ")))?;
        line.rsplit(' ').next().unwrap().parse().ok()
    }
}

/// A `POST /v1/traces`.
pub(crate) fn post(headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::post("/v1/traces");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

async fn answered(response: Response) -> Answered {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Answered { status: parts.status, headers: parts.headers, body: collected.to_bytes(), trailers }
}

impl Answered {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The gRPC status, from the headers of a failure or the trailers of a success.
    pub(crate) fn grpc_status(&self) -> Status {
        Status::from_header_map(&self.headers)
            .or_else(|| Status::from_header_map(&self.trailers))
            .expect("a gRPC answer has a status")
    }
}
