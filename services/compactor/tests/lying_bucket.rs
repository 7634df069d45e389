//! A bucket that fails after storing, cuts off, garbles, stalls and denies: nothing is lost, nothing
//! is there twice, and in the end the bucket holds what the catalog says.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_block::{
    Block, BlockMeta, BlockOptions, Heritage, Origin, SpanTable, TableRows, pack, write_block,
};
use clew_catalog::*;
use clew_compactor::{Config, Parts};
use clew_model::wire::{put_bytes_field, put_fixed64_field, put_varint_field};
use clew_model::{TenantId, UnixNanos};
use clew_node::config::Span;
use clew_node::rpc::Channel;
use clew_node::{Clock, Deps, Rng, Stop};
use clew_proto::metastore::v1 as proto;
use clew_proto::metastore::v1::compaction_service_server::{
    CompactionService, CompactionServiceServer,
};
use clew_proto::metastore::v1::metastore_service_server::{
    MetastoreService, MetastoreServiceServer,
};
use clew_storage::faults::{Fault, FaultPlan};
use clew_storage::{Bucket, Operation, RetryPolicy};
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::service::RoutesBuilder;
use tonic::{Request as Call, Response, Status};

/// The catalog behind the two services that a compactor uses, without a log.
#[derive(Clone)]
struct Metastore {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

impl Metastore {
    fn propose<R: Request>(&self, request: R) -> R::Answer {
        let bytes = request.into_command().encode(self.clock.now_unix());
        R::answer(self.apply_bytes(&bytes)).unwrap()
    }

    fn apply_bytes(&self, command: &[u8]) -> Outcome {
        let mut state = self.state.lock();
        let revision = state.revision() + 1;
        state.apply(revision, command)
    }
}

#[tonic::async_trait]
impl MetastoreService for Metastore {
    async fn apply(
        &self,
        call: Call<proto::ApplyRequest>,
    ) -> Result<Response<proto::ApplyResponse>, Status> {
        let outcome = self.apply_bytes(&call.into_inner().command);
        let outcome = outcome.encode().into();
        Ok(Response::new(proto::ApplyResponse { revision: 0, outcome }))
    }

    async fn view(
        &self,
        _: Call<proto::ViewRequest>,
    ) -> Result<Response<proto::ViewResponse>, Status> {
        Err(Status::unimplemented("view"))
    }
}

fn options() -> CompactionOptions {
    CompactionOptions {
        fan_in: 3,
        input_bytes_max: 1 << 20,
        levels: 2,
        window: Duration::from_secs(3_600),
        settle: Duration::from_secs(3_600),
        own_object_bytes: 1 << 20,
        retention: Retention::default(),
        deletion_delay: Duration::ZERO,
        grace: Duration::from_millis(50),
        horizon: Duration::from_secs(3_600),
    }
}

#[tonic::async_trait]
impl CompactionService for Metastore {
    async fn lease(
        &self,
        call: Call<proto::LeaseRequest>,
    ) -> Result<Response<proto::LeaseResponse>, Status> {
        let request = RequestId(call.into_inner().request.as_ref().try_into().unwrap());
        let now = self.clock.now_unix();
        let mut answer = proto::LeaseResponse::default();
        let plan = self.state.lock().plan_job(&options(), now);
        if let Some(PlannedJob { inputs, level }) = plan {
            let expires_at = UnixNanos(now.0 + 60_000_000_000);
            let begin = BeginJob { inputs, level, worker: "w".into(), request, expires_at };
            if let JobOutcome::Begun { job } = self.propose(begin) {
                let spec = self.state.lock().job_spec(job, &options());
                answer.job = spec.unwrap().encode().into();
            }
        }
        Ok(Response::new(answer))
    }

    async fn garbage(
        &self,
        _: Call<proto::GarbageRequest>,
    ) -> Result<Response<proto::GarbageResponse>, Status> {
        let garbage = self.state.lock().garbage(options().grace, self.clock.now_unix(), 100);
        let objects = garbage.iter().map(ObjectKey::to_string).collect();
        Ok(Response::new(proto::GarbageResponse { objects }))
    }

    async fn check(
        &self,
        call: Call<proto::CheckRequest>,
    ) -> Result<Response<proto::CheckResponse>, Status> {
        let state = self.state.lock();
        let is_dead = |name: &String| {
            let key = ObjectKey::parse(name).unwrap();
            state.liveness(&key) == Liveness::Dead
        };
        let dead = call.into_inner().objects.into_iter().filter(is_dead).collect();
        Ok(Response::new(proto::CheckResponse { dead, ..proto::CheckResponse::default() }))
    }

    async fn deletions(
        &self,
        _: Call<proto::DeletionsRequest>,
    ) -> Result<Response<proto::DeletionsResponse>, Status> {
        Err(Status::unimplemented("deletions"))
    }

    async fn parked(
        &self,
        _: Call<proto::ParkedRequest>,
    ) -> Result<Response<proto::ParkedResponse>, Status> {
        Err(Status::unimplemented("parked"))
    }

    async fn quarantined(
        &self,
        _: Call<proto::QuarantinedRequest>,
    ) -> Result<Response<proto::QuarantinedResponse>, Status> {
        Err(Status::unimplemented("quarantined"))
    }
}

struct World {
    metastore: Metastore,
    deps: Deps,
    /// The bucket as it is.
    honest: Bucket,
    /// The same as the compactor sees it.
    lying: Bucket,
    plan: FaultPlan,
    expected: BTreeSet<[u8; 8]>,
    watermark: u64,
}

fn message(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

fn traces_data(spans: &[(u8, u64)], now: UnixNanos) -> Bytes {
    let scope = message(|out| {
        for (trace, id) in spans {
            let span = message(|out| {
                put_bytes_field(out, 1, &[*trace; 16]);
                put_bytes_field(out, 2, &id.to_be_bytes());
                put_bytes_field(out, 5, b"op");
                put_varint_field(out, 6, 1);
                put_fixed64_field(out, 7, now.0);
                put_fixed64_field(out, 8, now.0 + 1);
            });
            put_bytes_field(out, 2, &span);
        }
    });
    let resource = message(|out| put_bytes_field(out, 2, &scope));
    Bytes::from(message(|out| put_bytes_field(out, 1, &resource)))
}

impl World {
    fn new() -> World {
        let deps = Deps { rng: Rng::seeded(7), ..Deps::system(2) };
        let plan = FaultPlan::new();
        let policy = RetryPolicy {
            attempts_max: 3,
            delay_first: Duration::from_millis(1),
            delay_max: Duration::from_millis(2),
            attempt_time_max: Duration::from_millis(40),
            ..RetryPolicy::default()
        };
        let honest = Bucket::memory(&deps);
        let lying = honest.clone().with_faults(&plan, &deps.clock).with_retry_policy(policy);
        let metastore =
            Metastore { state: Arc::new(Mutex::new(State::new())), clock: deps.clock.clone() };
        let node = NodeId::parse("node-0").unwrap();
        metastore.propose(CreateCluster { cluster: ClusterId([1; 16]), shard_count: 1 });
        metastore.propose(RegisterNode {
            node: node.clone(),
            addr: "127.0.0.1:9095".to_owned(),
            zone: String::new(),
            capacity: 1,
            roles: Roles::ALL,
            features: FeatureRange::default(),
        });
        metastore.propose(IssueReplicaId { disk: DiskId([1; 16]), node, holds: None });
        metastore.propose(OpenShardLog {
            shard: ShardId(0),
            replicas: vec![ReplicaId(1)],
            replaces: None,
            request: RequestId([1; 16]),
        });
        let (expected, watermark) = (BTreeSet::new(), 0);
        World { metastore, deps, honest, lying, plan, expected, watermark }
    }

    async fn flush(&mut self) {
        let number = self.watermark;
        let spans: Vec<(u8, u64)> =
            (0..40u8).map(|n| (n % 13 + 1, 1_000 * (number + 1) + u64::from(n))).collect();
        self.expected.extend(spans.iter().map(|(_, id)| id.to_be_bytes()));
        let mut table = SpanTable::new(1);
        table.push(&traces_data(&spans, self.deps.clock.now_unix())).unwrap();
        let tenant = TenantId::single();
        let meta = BlockMeta {
            tenant: tenant.clone(),
            origin: Origin { shard: 0, incarnation: 1, from: number, through: number + 1 },
            lineage: vec![],
            heritage: Heritage::default(),
        };
        let rows = TableRows { table: &table, rows_max: u32::MAX };
        let block = write_block(&[rows], &BlockOptions::default(), meta).unwrap();
        let (bytes, entries) = pack(vec![(tenant, block)]).unwrap();
        let key = ObjectKey::flush(ShardId(0), Incarnation(1), number + 1, number);
        let size = bytes.len() as u64;
        self.honest.put_new(&key.to_string(), bytes.into()).await.unwrap();
        let tenants = entries.into_iter().map(|entry| TenantBlock {
            tenant: entry.tenant,
            offset: entry.offset,
            length: entry.length,
            footer_length: entry.tail_length,
            min_time: UnixNanos(entry.min_start),
            max_time: UnixNanos(entry.max_end),
            spans: entry.spans,
            traces: entry.traces,
            splits: entry.split,
            ids: None,
        });
        let object = ObjectMeta {
            key,
            size,
            from: number,
            through: LogPoint { term: 1, leader: 1, index: number + 1 },
            level: 0,
            created_at: UnixNanos(0),
            data_at: UnixNanos(0),
            revision: 0,
            tenants: tenants.collect(),
        };
        assert_eq!(self.metastore.propose(CommitFlush { object }), FlushOutcome::Applied);
        self.watermark += 1;
    }

    fn misbehave(&self) {
        let operations = [
            Operation::Get,
            Operation::Get,
            Operation::Get,
            Operation::Put,
            Operation::Put,
            Operation::Delete,
            Operation::List,
        ];
        let faults = [
            Fault::FailBefore,
            Fault::FailAfter,
            Fault::Truncate(3),
            Fault::Garble,
            Fault::Stall(Duration::from_millis(100)),
        ];
        let pick = |count: usize| usize::try_from(self.deps.rng.below(count as u64)).unwrap();
        if self.plan.pending() < 12 {
            self.plan.inject(operations[pick(operations.len())], faults[pick(faults.len())]);
        }
    }

    /// Waits until nothing is left to merge or to delete; the bucket is the catalog then.
    async fn settle(&self) {
        loop {
            let (live, settled) = {
                let state = self.metastore.state.lock();
                let live: BTreeSet<String> = state.objects().map(|o| o.key.to_string()).collect();
                let idle = state.jobs().len() == 0 && state.dead().len() == 0;
                let planned = state.plan_job(&options(), self.deps.clock.now_unix());
                (live, idle && planned.is_none())
            };
            if settled && self.in_bucket().await == live {
                return;
            }
            self.deps.clock.sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is live holds every span once, and verifies.
    async fn check(&self) {
        let objects: Vec<Arc<ObjectMeta>> =
            self.metastore.state.lock().objects().cloned().collect();
        let mut found: BTreeMap<[u8; 8], usize> = BTreeMap::new();
        for object in objects {
            let bytes =
                self.honest.get_range(&object.key.to_string(), 0..object.size).await.unwrap();
            let block = Block::open(&bytes).unwrap();
            let at = |range: &std::ops::Range<u64>| {
                bytes.slice(
                    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap(),
                )
            };
            for (number, entry) in block.pages().entries().iter().enumerate() {
                let page = block.page(number, &at(&entry.bytes), &at(&entry.columns)).unwrap();
                for trace in page.all_traces(block.records()).unwrap() {
                    for span in trace.spans {
                        let view = clew_model::otlp::SpanView::parse(&span.bytes).unwrap();
                        *found.entry(view.span().unwrap().0).or_default() += 1;
                    }
                }
            }
        }
        assert!(found.values().all(|count| *count == 1), "a span is there twice");
        assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), self.expected);
    }

    /// Starts a compactor, until what is given back stops.
    fn start_compactor(&self, poll_interval: Span) -> Stop {
        let mut routes = RoutesBuilder::default();
        routes.add_service(MetastoreServiceServer::new(self.metastore.clone()));
        routes.add_service(CompactionServiceServer::new(self.metastore.clone()));
        let config = Config {
            poll_interval,
            orphan_interval: Span(4 * poll_interval.0),
            cpu_share: 1.0,
            ..Config::default()
        };
        let parts = Parts {
            metastore: Channel::local(routes.routes()),
            bucket: self.lying.clone(),
            node: NodeId::parse("compactor-0").unwrap(),
            topology: watch::Sender::new(SharedTopology::default()).subscribe(),
        };
        let compactor = config.build(self.deps.clone(), parts).unwrap();
        let stop = Stop::new();
        self.deps.tasks.spawn(compactor.run(stop.clone()));
        stop
    }

    async fn in_bucket(&self) -> BTreeSet<String> {
        self.honest.list("").map_ok(|object| object.key).try_collect().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_bucket_loses_and_doubles_nothing() {
    let mut world = World::new();
    let stop = world.start_compactor(Span::millis(5));
    for round in 0..40 {
        if round % 2 == 0 {
            world.flush().await;
        }
        for _ in 0..6 {
            world.misbehave();
        }
        world.deps.clock.sleep(Duration::from_millis(30)).await;
    }
    world.check().await;
    // Honest again: whatever was left behind goes. Objects that looked damaged three times are
    // parked; they are whole, and live.
    world.settle().await;
    world.check().await;
    let parked: Vec<ObjectKey> = {
        let state = world.metastore.state.lock();
        assert!(state.objects().any(|object| object.level > 0));
        let parked = state.strikes().filter(|(_, strikes)| strikes.is_parked());
        parked.map(|(key, _)| *key).collect()
    };
    assert!(parked.len() < 20, "some of the objects were merged");
    // Taken up again, they are merged like all others.
    world.metastore.propose(RaiseFeatureLevel { to: FeatureLevel::LEVELS_ARE_KEPT });
    world.metastore.propose(Unpark { objects: parked });
    world.settle().await;
    world.check().await;
    let parked = world.metastore.state.lock().strikes().filter(|(_, s)| s.is_parked()).count();
    assert_eq!(parked, 0);
    stop.stop();
    world.deps.tasks.finish().await;
}

/// Every attempt at a job is two commands of the metastore.
#[tokio::test(start_paused = true)]
async fn jobs_that_fail_are_not_tried_without_a_pause() {
    let mut world = World::new();
    for _ in 0..3 {
        world.flush().await;
    }
    for _ in 0..10_000 {
        world.plan.inject(Operation::Get, Fault::FailBefore);
    }
    let before = world.metastore.state.lock().revision();
    let stop = world.start_compactor(Span::millis(1_000));
    world.deps.clock.sleep(Duration::from_secs(60)).await;
    let commands = world.metastore.state.lock().revision() - before;
    // Rests of 1, 2, 4 and 8 seconds, and of 16 from then on.
    assert!((8..=20).contains(&commands), "{commands} commands within a minute");
    stop.stop();
    world.deps.tasks.finish().await;
}
