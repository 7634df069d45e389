//! An ingester against a real log, a real bucket and the real catalog (without raft), through the
//! service its clients see: what is acknowledged is read back, once, whatever is flushed meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_block::Block;
use clew_catalog::{
    ClusterId, CreateCluster, Incarnation, NodeId, ObjectMeta, Outcome, Request as _, Roles,
    ShardId, SharedTopology, State, plan_places,
};
use clew_ingester::{Config, Ingester, Parts};
use clew_model::wire::{put_bytes_field, put_fixed64_field};
use clew_model::{TenantId, Trace, UnixNanos};
use clew_node::rpc::Channel;
use clew_node::{Deps, Problem, Stop};
use clew_proto::metastore::v1::metastore_service_server::{
    MetastoreService, MetastoreServiceServer,
};
use clew_proto::metastore::v1::{ApplyRequest, ApplyResponse, ViewRequest, ViewResponse};
use clew_proto::query::v1::{Cut, FetchRequest, SearchRequest};
use clew_proto::shard::v1::shard_service_client::ShardServiceClient;
use clew_proto::shard::v1::{
    AppendFailure, AppendRequest, Batch, CutRequest, FlushRequest, ShardBatch, ShardFetchRequest,
    ShardSearchRequest, append_outcome, cut_response, shard_fetch_response, shard_search_response,
};
use clew_raft::{Host, LogOptions, LogStore, NoPeers};
use clew_storage::{Bucket, BucketConfig};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// The catalog without raft behind the metastore's service. Shards are placed as soon as they can.
#[derive(Clone)]
struct FakeMetastore(Arc<Mutex<State>>, watch::Sender<SharedTopology>);

impl FakeMetastore {
    fn apply_next(&self, command: &[u8]) -> (u64, Outcome) {
        let mut state = self.0.lock();
        let mut apply = |command: &[u8]| {
            let revision = state.revision() + 1;
            (revision, state.apply(revision, command))
        };
        let answer = apply(command);
        let topology = state.topology();
        let alive = topology.nodes.iter().map(|info| info.node.clone()).collect();
        for command in plan_places(&topology, &alive) {
            let revision = state.revision() + 1;
            state.apply(revision, &command.encode(UnixNanos(1)));
        }
        self.1.send_replace(Arc::new(state.topology()));
        answer
    }
}

#[tonic::async_trait]
impl MetastoreService for FakeMetastore {
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let command = request.into_inner().command;
        let (revision, outcome) = self.apply_next(&command);
        Ok(Response::new(ApplyResponse { revision, outcome: Bytes::from(outcome.encode()) }))
    }

    async fn view(&self, request: Request<ViewRequest>) -> Result<Response<ViewResponse>, Status> {
        let state = self.0.lock();
        let view = state.view(&[]);
        let flushes = request.into_inner().flushes_of.map(|wanted| {
            let (shard, incarnation) = (ShardId(wanted.shard), Incarnation(wanted.incarnation));
            let since = UnixNanos(wanted.since_unix_nanos);
            let objects = state.flushes_since(shard, incarnation, since, 1_000);
            objects.iter().map(|object| Bytes::from(object.encode())).collect()
        });
        Ok(Response::new(ViewResponse {
            revision: view.revision,
            unchanged: false,
            view: Bytes::from(view.encode()),
            flushes: flushes.unwrap_or_default(),
        }))
    }
}

type Client = ShardServiceClient<Channel>;

struct Running {
    client: Client,
    bucket: Bucket,
    metastore: FakeMetastore,
    deps: Deps,
    host: Host,
    store: Arc<LogStore>,
    stop: Stop,
}

async fn start(dir: &Path, metastore: FakeMetastore, config: Config) -> Running {
    let deps = Deps::system(2);
    let store = LogStore::open(&dir.join("raft"), &LogOptions::default(), &deps).unwrap();
    let host = Host::new(store.clone(), Arc::new(NoPeers), deps.clone());
    let bucket_dir = dir.join("bucket").display().to_string();
    let bucket = Bucket::open(&BucketConfig::at(bucket_dir), &deps).unwrap();
    let parts = Parts {
        host: host.clone(),
        bucket: bucket.clone(),
        metastore: Channel::local(MetastoreServiceServer::new(metastore.clone())),
        node: NodeId::parse("node-0").unwrap(),
        addr: "localhost:9095".to_owned(),
        zone: String::new(),
        data_dir: dir.to_owned(),
        roles: Roles::INGESTER,
        cores: 1,
        topology: metastore.1.subscribe(),
    };
    let ingester: Ingester = config.build(deps.clone(), parts).await.unwrap();
    let client = ShardServiceClient::new(Channel::local(ingester.server()));
    let (handle, stop) = (ingester.handle(), Stop::new());
    deps.tasks.spawn(ingester.run(stop.clone()));
    handle.ready().await.unwrap();
    Running { client, bucket, metastore, deps, host, store, stop }
}

fn new_catalog() -> FakeMetastore {
    let metastore = FakeMetastore(Arc::default(), watch::Sender::default());
    let create = CreateCluster { cluster: ClusterId([1; 16]), shard_count: 1 };
    let command = create.into_command().encode(UnixNanos(1));
    metastore.apply_next(&command);
    metastore
}

impl Running {
    async fn end(self) {
        self.stop.stop();
        self.deps.tasks.finish().await;
        self.store.close();
    }

    async fn append(&mut self, tenant: &str, spans: &[(u8, u8)]) {
        self.try_append(0, batch(tenant, spans)).await.unwrap();
    }

    async fn try_append(&mut self, shard: u32, batch: Batch) -> Result<u64, AppendFailure> {
        let batches = vec![ShardBatch { shard, batch: Some(batch) }];
        let request = AppendRequest { batches, patience_millis: 60_000 };
        let outcomes = self.client.append(request).await.unwrap().into_inner().outcomes;
        assert_eq!(outcomes.len(), 1);
        match outcomes.into_iter().next().unwrap().outcome.unwrap() {
            append_outcome::Outcome::Index(index) => Ok(index),
            append_outcome::Outcome::Failure(failure) => Err(failure),
        }
    }

    async fn flush(&mut self) {
        self.client.flush(FlushRequest::default()).await.unwrap();
    }

    fn watermark(&self) -> (u64, u64) {
        let catalog = self.metastore.0.lock();
        let (_, log) = catalog.shard_logs().next().unwrap();
        (log.incarnation.0, log.watermark.index)
    }

    async fn cut(&mut self, tenant: &str, watermark: u64) -> cut_response::Answer {
        let incarnation = self.watermark().0;
        let request = CutRequest { tenant: tenant.to_owned(), shard: 0, incarnation, watermark };
        self.client.cut(request).await.unwrap().into_inner().answer.unwrap()
    }

    /// Every (trace, span) the head has of the tenant beyond `watermark`.
    async fn head(&mut self, tenant: &str, watermark: u64, traces: &[u8]) -> Vec<(u8, u8)> {
        let cut_response::Answer::Taken(taken) = self.cut(tenant, watermark).await else {
            panic!("behind")
        };
        let incarnation = self.watermark().0;
        let cut =
            Cut { shard: 0, incarnation, watermark, upto: taken.upto, stretch: taken.stretch };
        let ids: Vec<u8> = traces.iter().flat_map(|trace| [*trace; 16]).collect();
        let request =
            FetchRequest { tenant: tenant.to_owned(), trace_ids: Bytes::from(ids), judge: None };
        let request = ShardFetchRequest { cut: Some(cut), request: Some(request) };
        match self.client.fetch(request).await.unwrap().into_inner().answer.unwrap() {
            shard_fetch_response::Answer::Result(found) => spans_of(&found.traces),
            other => panic!("{other:?}"),
        }
    }

    /// Every (trace, span) in registered blocks of the tenant.
    async fn blocks(&self, tenant: &str) -> Vec<(u8, u8)> {
        let tenant = TenantId::parse(tenant).unwrap();
        let objects: Vec<Arc<ObjectMeta>> = self.metastore.0.lock().objects().cloned().collect();
        let mut spans = Vec::new();
        for object in objects {
            let Some(place) = object.block(&tenant) else { continue };
            let key = object.key.to_string();
            let range = place.offset..place.offset + place.length;
            let bytes = self.bucket.get_range(&key, range).await.unwrap();
            let block = Block::open(&bytes).unwrap();
            for (at, entry) in block.pages().entries().iter().enumerate() {
                let place = |position| usize::try_from(position).unwrap();
                let slice = |range: &Range<u64>| bytes.slice(place(range.start)..place(range.end));
                let (packed, columns) = (slice(&entry.bytes), slice(&entry.columns));
                let page = block.page(at, &packed, &columns).unwrap();
                for (id, _) in page.traces() {
                    let trace = page.trace(&id, block.records()).unwrap();
                    spans.extend(spans_of(&Bytes::from(trace.encode())));
                }
            }
        }
        spans.sort_unstable();
        spans
    }
}

fn batch(tenant: &str, spans: &[(u8, u8)]) -> Batch {
    let mut scope = Vec::new();
    for (trace, span) in spans {
        let mut out = Vec::new();
        put_bytes_field(&mut out, 1, &[*trace; 16]);
        put_bytes_field(&mut out, 2, &[*span; 8]);
        put_bytes_field(&mut out, 5, format!("op-{span}").as_bytes());
        put_fixed64_field(&mut out, 7, 1_000 + u64::from(*span));
        put_fixed64_field(&mut out, 8, 2_000);
        put_bytes_field(&mut scope, 2, &out);
    }
    let mut resource = Vec::new();
    put_bytes_field(&mut resource, 2, &scope);
    let mut traces = Vec::new();
    put_bytes_field(&mut traces, 1, &resource);
    Batch {
        tenant: tenant.to_owned(),
        raw_bytes: traces.len() as u64,
        spans: u32::try_from(spans.len()).unwrap(),
        traces: Bytes::from(zstd::bulk::compress(&traces, 1).unwrap()),
        generation: 1,
        ..Batch::default()
    }
}

fn spans_of(traces: &Bytes) -> Vec<(u8, u8)> {
    let mut spans: Vec<(u8, u8)> = Trace::decode(traces)
        .unwrap()
        .iter()
        .flat_map(|trace| {
            trace.spans.iter().map(|span| {
                let view = clew_model::otlp::SpanView::parse(&span.bytes).unwrap();
                (trace.id.0[0], view.span_id[0])
            })
        })
        .collect();
    spans.sort_unstable();
    spans
}

#[tokio::test]
async fn what_is_acknowledged_is_in_the_head_or_in_blocks_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(dir.path(), new_catalog(), Config::default()).await;
    running.append("a", &[(1, 1), (2, 1)]).await;
    running.append("b", &[(1, 9)]).await;
    assert_eq!(running.head("a", 0, &[1, 2]).await, [(1, 1), (2, 1)]);
    assert_eq!(running.head("b", 0, &[1, 2]).await, [(1, 9)]);
    running.flush().await;
    let (_, watermark) = running.watermark();
    assert!(watermark > 0);
    running.append("a", &[(1, 2)]).await;
    assert_eq!(running.head("a", watermark, &[1, 2]).await, [(1, 2)]);
    assert_eq!(running.blocks("a").await, [(1, 1), (2, 1)]);
    assert_eq!(running.blocks("b").await, [(1, 9)]);
    running.end().await;
}

#[tokio::test]
async fn a_replica_that_stops_by_itself_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(dir.path(), new_catalog(), Config::default()).await;
    running.append("a", &[(1, 1)]).await;
    running.host.shutdown().await;
    let clock = running.deps.clock.clone();
    let again = async {
        while running.try_append(0, batch("a", &[(2, 1)])).await.is_err() {
            clock.sleep(Duration::from_millis(50)).await;
        }
    };
    clock.timeout(Duration::from_secs(60), again).await.unwrap();
    assert_eq!(running.head("a", 0, &[1, 2]).await, [(1, 1), (2, 1)]);
    running.flush().await;
    assert_eq!(running.blocks("a").await, [(1, 1), (2, 1)]);
    running.end().await;
}

#[tokio::test]
async fn a_reader_behind_is_given_the_objects_that_cover_the_difference() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(dir.path(), new_catalog(), Config::default()).await;
    let mut borders = vec![0];
    for span in 1..4 {
        running.append("a", &[(1, span)]).await;
        running.flush().await;
        borders.push(running.watermark().1);
    }
    for (flushed, watermark) in borders.iter().enumerate() {
        match running.cut("a", *watermark).await {
            cut_response::Answer::Taken(_) => assert_eq!(flushed, 3),
            cut_response::Answer::Behind(behind) => {
                let objects: Vec<ObjectMeta> = behind
                    .objects
                    .iter()
                    .map(|object| ObjectMeta::decode(object).unwrap())
                    .collect();
                assert_eq!(objects.len(), 3 - flushed);
                assert_eq!(objects[0].from, *watermark);
                assert_eq!(behind.watermark, borders[3]);
            }
            cut_response::Answer::TooOld(_) => panic!("{watermark} is known"),
        }
    }
    running.end().await;
}

#[tokio::test]
async fn a_trace_that_goes_on_after_a_flush_is_named_as_split() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(dir.path(), new_catalog(), Config::default()).await;
    running.append("a", &[(1, 1)]).await;
    running.flush().await;
    running.append("a", &[(1, 2), (7, 1)]).await;
    let watermark = running.watermark().1;
    let cut_response::Answer::Taken(taken) = running.cut("a", watermark).await else { panic!() };
    assert_eq!(taken.split_ids, Bytes::from_static(&[1; 16]));
    let request = SearchRequest {
        tenant: "a".to_owned(),
        query: "{ name = \"op-2\" || name = \"op-1\" }".to_owned(),
        limit: 10,
        split_ids: taken.split_ids.clone(),
        ..SearchRequest::default()
    };
    let (upto, stretch) = (taken.upto, taken.stretch);
    let cut = Cut { shard: 0, incarnation: running.watermark().0, watermark, upto, stretch };
    let request = ShardSearchRequest { cut: Some(cut), request: Some(request) };
    let answer = running.client.search(request).await.unwrap().into_inner().answer.unwrap();
    let shard_search_response::Answer::Result(found) = answer else { panic!("{answer:?}") };
    let ids: Vec<&[u8]> = found.traces.iter().map(|trace| trace.trace_id.as_ref()).collect();
    assert_eq!(ids, [&[7u8; 16][..]], "what lies here alone is judged here");
    assert_eq!(found.split_candidates, taken.split_ids, "the rest is only named");
    running.end().await;
}

#[tokio::test]
async fn a_restart_reads_the_log_back_from_the_watermark() {
    let dir = tempfile::tempdir().unwrap();
    let metastore = new_catalog();
    let mut first = start(dir.path(), metastore.clone(), Config::default()).await;
    first.append("a", &[(1, 1)]).await;
    first.flush().await;
    first.append("a", &[(1, 2), (2, 1)]).await;
    first.end().await;
    let mut again = start(dir.path(), metastore, Config::default()).await;
    let watermark = again.watermark().1;
    assert_eq!(again.head("a", watermark, &[1, 2]).await, [(1, 2), (2, 1)]);
    again.flush().await;
    assert_eq!(again.blocks("a").await, [(1, 1), (1, 2), (2, 1)]);
    again.end().await;
}

#[tokio::test]
async fn filters_that_could_not_be_read_are_read_later() {
    let dir = tempfile::tempdir().unwrap();
    let metastore = new_catalog();
    let mut first = start(dir.path(), metastore.clone(), Config::default()).await;
    first.append("a", &[(1, 1)]).await;
    first.flush().await;
    first.end().await;
    let object = metastore.0.lock().objects().next().unwrap().key.to_string();
    let (object, away) = (dir.path().join("bucket").join(object), dir.path().join("away"));
    std::fs::rename(&object, &away).unwrap();
    let mut again = start(dir.path(), metastore, Config::default()).await;
    again.append("a", &[(2, 1)]).await;
    again.flush().await;
    std::fs::rename(&away, &object).unwrap();
    // The filters are read after this flush at the latest; the one behind it waits for that.
    for trace in [3, 4] {
        again.append("a", &[(trace, 1)]).await;
        again.flush().await;
    }
    again.append("a", &[(1, 2), (5, 1)]).await;
    let watermark = again.watermark().1;
    let cut_response::Answer::Taken(taken) = again.cut("a", watermark).await else { panic!() };
    assert_eq!(taken.split_ids, Bytes::from_static(&[1; 16]), "trace 5 lies here alone");
    again.end().await;
}

#[tokio::test]
async fn a_small_head_is_flushed_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.flush.spans_max = 10;
    let mut running = start(dir.path(), new_catalog(), config).await;
    let mut sent = BTreeSet::new();
    for trace in 1..60 {
        running.append("a", &[(trace, 1), (trace, 2)]).await;
        sent.extend([(trace, 1), (trace, 2)]);
    }
    running.flush().await;
    assert!(running.metastore.0.lock().objects().len() >= 5);
    assert_eq!(running.blocks("a").await, sent.into_iter().collect::<Vec<_>>());
    running.end().await;
}

#[tokio::test]
async fn what_is_acknowledged_is_read_while_the_bucket_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.flush.spans_max = 2;
    let mut running = start(dir.path(), new_catalog(), config).await;
    let (bucket, away) = (dir.path().join("bucket"), dir.path().join("away"));
    std::fs::rename(&bucket, &away).unwrap();
    let mut sent = Vec::new();
    for trace in 1..40 {
        running.append("a", &[(trace, 1)]).await;
        sent.push((trace, 1));
    }
    let traces: Vec<u8> = (1..40).collect();
    assert_eq!(running.head("a", 0, &traces).await, sent);
    std::fs::rename(&away, &bucket).unwrap();
    running.flush().await;
    assert_eq!(running.blocks("a").await, sent);
    running.end().await;
}

#[tokio::test]
async fn flushes_asked_for_during_ingest_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(dir.path(), new_catalog(), Config::default()).await;
    let mut sent = Vec::new();
    for trace in 1..60u8 {
        running.append("a", &[(trace, 1), (trace, 2)]).await;
        sent.extend([(trace, 1), (trace, 2)]);
        if trace % 3 == 0 {
            let mut client = running.client.clone();
            running.deps.tasks.spawn(async move {
                client.flush(FlushRequest::default()).await.unwrap();
            });
        }
    }
    running.flush().await;
    assert_eq!(running.blocks("a").await, sent);
    running.end().await;
}

#[tokio::test]
async fn a_full_head_asks_the_sender_to_retry() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.flush.bytes_max = clew_node::config::Bytes(1);
    config.head_bytes_max = clew_node::config::Bytes(2);
    // Nothing can be flushed: a file is where the bucket's folder should be.
    let mut running = start(dir.path(), new_catalog(), config).await;
    std::fs::remove_dir_all(dir.path().join("bucket")).unwrap();
    std::fs::write(dir.path().join("bucket"), "in the way").unwrap();
    let mut refused = None;
    for trace in 1..200 {
        if let Err(failure) = running.try_append(0, batch("a", &[(trace, 1)])).await {
            refused = Some(failure);
            break;
        }
    }
    let refused = refused.expect("the head is bounded");
    assert_eq!(refused.kind, clew_model::ErrorKind::Overloaded.as_str());
    assert!(refused.retry_after_millis > 0);
    running.stop.stop();
}

#[tokio::test]
async fn another_incarnation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(dir.path(), new_catalog(), Config::default()).await;
    let incarnation = running.watermark().0 + 1;
    let request = CutRequest { tenant: "a".to_owned(), shard: 0, incarnation, watermark: 0 };
    let refused = Problem::from(running.client.cut(request).await.unwrap_err());
    assert_eq!(refused.kind, clew_model::ErrorKind::Conflict);
    let refused = running.try_append(5, batch("a", &[(1, 1)])).await.unwrap_err();
    assert_eq!(refused.kind, clew_model::ErrorKind::Unavailable.as_str());
    running.end().await;
}
