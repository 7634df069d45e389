//! A shard leader without raft: a log in memory, heads as real span tables, flushes as real blocks
//! that are registered in the real catalog. It keeps the contract of `shard.proto`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use clew_block::{
    BlockMeta, BlockOptions, BlockWriter, Heritage, Origin, SpanTable, TraceMarks, pack,
};
use clew_catalog::{
    CommitFlush, FlushOutcome, Incarnation, LogPoint, ObjectKey, ObjectMeta, Request as _, ShardId,
    TenantBlock,
};
use clew_model::{ErrorKind, TenantId, Trace, TraceId, UnixNanos};
use clew_node::{Problem, Tasks};
use clew_proto::query::v1::Cut;
use clew_proto::shard::v1::shard_service_server::ShardService;
use clew_proto::shard::v1::*;
use clew_query::{
    Engine, QueryError, QueryLimits, SearchPlan, SpanSource, TableSource, encode_ids, merge_traces,
};
use clew_storage::Bucket;
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use crate::metastore::FakeMetastore;
use crate::spans::{Span, encode, trace_id};

/// Clones share the shard.
#[derive(Clone)]
pub(crate) struct FakeShard {
    pub(crate) shard: ShardId,
    incarnation: Incarnation,
    metastore: FakeMetastore,
    bucket: Bucket,
    tasks: Tasks,
    state: Arc<Mutex<Log>>,
    /// While set, every call is refused as by a replica that does not lead.
    pub(crate) away: Arc<AtomicBool>,
    /// Before this many of the next cuts the shard flushes.
    pub(crate) flushes_before_cut: Arc<AtomicUsize>,
    /// Before this many of the next reads the shard flushes.
    pub(crate) flushes_before_read: Arc<AtomicUsize>,
    /// While set, every flush is followed by an entry of trace 1.
    pub(crate) grows: Arc<AtomicBool>,
    /// While set, flushed objects reach the bucket damaged.
    pub(crate) damages: Arc<AtomicBool>,
    /// Flushed objects that the leader still knows.
    pub(crate) recent_max: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Log {
    entries: Vec<Entry>,
    watermark: u64,
    flushed: Vec<ObjectMeta>,
}

struct Entry {
    index: u64,
    tenant: TenantId,
    traces: BTreeSet<TraceId>,
    fallback: bool,
    data: Bytes,
}

impl Log {
    fn last(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.index)
    }

    /// The entries of `tenant` in (after, upto].
    fn entries<'a>(
        &'a self,
        tenant: &'a TenantId,
        after: u64,
        upto: u64,
    ) -> impl Iterator<Item = &'a Entry> {
        let inside = move |entry: &&Entry| entry.index > after && entry.index <= upto;
        self.entries.iter().filter(inside).filter(move |entry| entry.tenant == *tenant)
    }

    /// Traces of (after, upto] that are split: seen in an earlier flush, or away from home.
    fn split(&self, tenant: &TenantId, after: u64, upto: u64) -> BTreeSet<TraceId> {
        let flushed: BTreeSet<TraceId> =
            self.entries(tenant, 0, after).flat_map(|entry| entry.traces.clone()).collect();
        self.entries(tenant, after, upto)
            .flat_map(|entry| entry.traces.iter().map(move |id| (id, entry.fallback)))
            .filter(|(id, fallback)| *fallback || flushed.contains(*id))
            .map(|(id, _)| *id)
            .collect()
    }
}

enum Place {
    Source(Arc<dyn SpanSource>, Vec<TraceId>),
    Behind(Behind),
    TooOld(TooOld),
}

impl FakeShard {
    pub(crate) fn new(
        shard: ShardId,
        metastore: FakeMetastore,
        bucket: Bucket,
        tasks: Tasks,
    ) -> FakeShard {
        let incarnation = metastore.read(|state| state.shard_log(shard).unwrap().incarnation);
        FakeShard {
            shard,
            incarnation,
            metastore,
            bucket,
            tasks,
            state: Arc::default(),
            away: Arc::default(),
            flushes_before_cut: Arc::default(),
            flushes_before_read: Arc::default(),
            grows: Arc::default(),
            damages: Arc::default(),
            recent_max: Arc::new(AtomicUsize::new(64)),
        }
    }

    /// Appends one entry. `fallback` for spans whose home is another shard.
    pub(crate) fn append(&self, tenant: &TenantId, spans: &[Span], fallback: bool) {
        let mut log = self.state.lock();
        let index = log.last() + 1;
        let traces = spans.iter().map(|span| trace_id(span.trace)).collect();
        let data = encode(spans);
        log.entries.push(Entry { index, tenant: tenant.clone(), traces, fallback, data });
    }

    /// Flushes everything appended so far; the object, if there was anything.
    pub(crate) async fn flush(&self) -> Option<ObjectMeta> {
        let (object, mut bytes) = self.build()?;
        if self.damages.load(Ordering::SeqCst) {
            let middle = bytes.len() / 2;
            bytes[middle..].iter_mut().for_each(|byte| *byte ^= 0x5a);
        }
        self.bucket.put_new(&object.key.to_string(), Bytes::from(bytes)).await.unwrap();
        let command = CommitFlush { object: object.clone() }.into_command().encode(UnixNanos(1));
        let (_, outcome) = self.metastore.apply_bytes(&command);
        assert_eq!(CommitFlush::answer(outcome), Ok(FlushOutcome::Applied));
        let mut log = self.state.lock();
        log.watermark = object.through.index;
        log.flushed.push(object.clone());
        drop(log);
        if self.grows.load(Ordering::SeqCst) {
            self.append(&TenantId::single(), &[crate::spans::root(1, 60)], false);
        }
        Some(object)
    }

    fn build(&self) -> Option<(ObjectMeta, Vec<u8>)> {
        let log = self.state.lock();
        let (from, through) = (log.watermark, log.last());
        if from == through {
            return None;
        }
        let mut by_tenant: BTreeMap<TenantId, Vec<Trace>> = BTreeMap::new();
        for entry in log.entries.iter().filter(|entry| entry.index > from) {
            let traces = by_tenant.entry(entry.tenant.clone()).or_default();
            traces.extend(Trace::decode(&entry.data).unwrap());
        }
        let origin = Origin {
            shard: u64::from(self.shard.0),
            incarnation: self.incarnation.0,
            from,
            through,
        };
        let mut blocks = Vec::new();
        for (tenant, traces) in by_tenant {
            let split = log.split(&tenant, from, through);
            let meta = BlockMeta {
                tenant: tenant.clone(),
                origin,
                lineage: Vec::new(),
                heritage: Heritage::default(),
            };
            let mut writer = BlockWriter::new(&BlockOptions::default(), meta, 7).unwrap();
            for trace in merge_traces(traces) {
                let marks = TraceMarks { split: split.contains(&trace.id), weight: 1.0 };
                writer.push_trace(&trace, marks).unwrap();
            }
            blocks.push((tenant, writer.finish().unwrap()));
        }
        let (bytes, entries) = pack(blocks).unwrap();
        let tenants = entries
            .into_iter()
            .map(|entry| TenantBlock {
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
            })
            .collect();
        let object = ObjectMeta {
            key: ObjectKey::flush(self.shard, self.incarnation, through, through),
            size: bytes.len() as u64,
            from,
            through: LogPoint { term: 1, leader: 1, index: through },
            level: 0,
            created_at: UnixNanos(0),
            data_at: UnixNanos(0),
            revision: 0,
            tenants,
        };
        Some((object, bytes))
    }

    fn present(&self) -> Result<(), Status> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Problem::new(ErrorKind::Unavailable, "not_leader", "not the leader").into());
        }
        Ok(())
    }

    /// Flushes if `counter` says so.
    async fn maybe_flush(&self, counter: &AtomicUsize) {
        let less = |count: usize| count.checked_sub(1);
        if counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            self.flush().await;
        }
    }

    fn place(&self, tenant: &str, cut: &Cut) -> Result<Place, Status> {
        let tenant = TenantId::parse(tenant).unwrap();
        let log = self.state.lock();
        assert_eq!(cut.shard, self.shard.0);
        if cut.incarnation != self.incarnation.0 {
            return Err(Problem::new(ErrorKind::Conflict, "other_incarnation", "other").into());
        }
        assert!(cut.upto <= log.last(), "a cut beyond the end of the log");
        if log.watermark > cut.watermark {
            let watermark = log.watermark;
            let known = log.flushed.iter().rev().take(self.recent_max.load(Ordering::SeqCst));
            let mut known: Vec<_> = known.filter(|object| object.from >= cut.watermark).collect();
            known.reverse();
            if known.first().is_none_or(|object| object.from != cut.watermark) {
                return Ok(Place::TooOld(TooOld { watermark }));
            }
            let objects = known.iter().map(|object| Bytes::from(object.encode())).collect();
            return Ok(Place::Behind(Behind { watermark, objects }));
        }
        assert_eq!(log.watermark, cut.watermark, "a cut before the shard's watermark");
        let split = log.split(&tenant, cut.watermark, cut.upto);
        let mut table = SpanTable::new(1);
        for entry in log.entries(&tenant, cut.watermark, cut.upto) {
            table.push(&entry.data).unwrap();
        }
        for id in &split {
            let ordinal = table.find(id).unwrap();
            table.mark_split(ordinal);
        }
        let rows = table.row_count();
        let name = format!("head of shard {}", self.shard);
        let source = TableSource::sealed(&name, Arc::new(table), rows, self.tasks.clone());
        Ok(Place::Source(Arc::new(source), split.into_iter().collect()))
    }

    fn engine(&self) -> Engine {
        Engine::new(self.tasks.clone(), QueryLimits::default())
    }
}

fn failed(error: QueryError) -> Status {
    Problem::new(error.kind(), "query", error.to_string()).into()
}

macro_rules! leaf {
    ($self:ident, $request:ident, $module:ident, $response:ident, |$engine:ident, $source:ident, $inner:ident| $run:expr) => {{
        $self.present()?;
        $self.maybe_flush(&$self.flushes_before_read).await;
        let message = $request.into_inner();
        let ($inner, cut) = (message.request.unwrap(), message.cut.unwrap());
        let answer = match $self.place(&$inner.tenant, &cut)? {
            Place::Source(source, _) => {
                let ($engine, $source) = ($self.engine(), [source]);
                let outcome = $run.map_err(failed)?;
                assert!(outcome.failed.is_empty());
                $module::Answer::Result(outcome.response)
            }
            Place::Behind(behind) => $module::Answer::Behind(behind),
            Place::TooOld(too_old) => $module::Answer::TooOld(too_old),
        };
        Ok(Response::new($response { answer: Some(answer) }))
    }};
}

#[tonic::async_trait]
impl ShardService for FakeShard {
    async fn append(&self, _: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        Err(Status::unimplemented("a querier does not append"))
    }

    async fn cut(&self, request: Request<CutRequest>) -> Result<Response<CutResponse>, Status> {
        self.present()?;
        self.maybe_flush(&self.flushes_before_cut).await;
        let CutRequest { tenant, shard, incarnation, watermark } = request.into_inner();
        let upto = self.state.lock().last();
        let cut = Cut { shard, incarnation, watermark, upto, stretch: 0 };
        let answer = match self.place(&tenant, &cut)? {
            Place::Source(_, split) => {
                let split_ids = encode_ids(&split).into();
                cut_response::Answer::Taken(cut_response::Taken { upto, split_ids, stretch: 0 })
            }
            Place::Behind(behind) => cut_response::Answer::Behind(behind),
            Place::TooOld(too_old) => cut_response::Answer::TooOld(too_old),
        };
        Ok(Response::new(CutResponse { answer: Some(answer) }))
    }

    async fn search(
        &self,
        request: Request<ShardSearchRequest>,
    ) -> Result<Response<ShardSearchResponse>, Status> {
        leaf!(
            self,
            request,
            shard_search_response,
            ShardSearchResponse,
            |engine, sources, inner| {
                let plan = SearchPlan::from_request(&inner).map_err(failed)?;
                engine.search(&sources, &plan).await
            }
        )
    }

    async fn fetch(
        &self,
        request: Request<ShardFetchRequest>,
    ) -> Result<Response<ShardFetchResponse>, Status> {
        leaf!(self, request, shard_fetch_response, ShardFetchResponse, |engine, sources, inner| {
            engine.fetch(&sources, &inner).await
        })
    }

    async fn tag_names(
        &self,
        request: Request<ShardTagNamesRequest>,
    ) -> Result<Response<ShardTagNamesResponse>, Status> {
        leaf!(
            self,
            request,
            shard_tag_names_response,
            ShardTagNamesResponse,
            |engine, sources, inner| engine.tag_names(&sources, &inner).await
        )
    }

    async fn tag_values(
        &self,
        request: Request<ShardTagValuesRequest>,
    ) -> Result<Response<ShardTagValuesResponse>, Status> {
        leaf!(
            self,
            request,
            shard_tag_values_response,
            ShardTagValuesResponse,
            |engine, sources, inner| engine.tag_values(&sources, &inner).await
        )
    }

    async fn flush(&self, _: Request<FlushRequest>) -> Result<Response<FlushResponse>, Status> {
        Err(Status::unimplemented("a querier does not flush"))
    }
}
