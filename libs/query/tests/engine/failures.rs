//! What is read, what is not, and what happens when reading fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use clew_block::{RowSet, SpanTable};
use clew_model::{ErrorKind, Trace, TraceId};
use clew_node::Deps;
use clew_proto::query::v1::{FetchRequest, FoundTrace, SearchRequest, TagNamesRequest};
use clew_query::{
    BlockCache, BlockReader, BlockRef, Engine, Pieces, QueryError, QueryLimits, SearchPlan,
    Selected, Selection, SourceInfo, SpanSource, TagField, decode_ids, encode_ids,
};
use clew_storage::faults::{Fault, FaultPlan};
use clew_storage::{Bucket, Operation};
use clew_traceql::plan::Scope;
use clew_traceql::value::Static;

use super::run;
use super::spans::{Resource, SpanModel, TraceModel, Val, encode, later_span};
use super::world::put_block;

/// Passes everything on and counts.
struct Counted {
    inner: Arc<dyn SpanSource>,
    selects: AtomicUsize,
    fetched: AtomicUsize,
}

#[async_trait]
impl SpanSource for Counted {
    fn info(&self) -> &SourceInfo {
        self.inner.info()
    }

    fn reads(&self) -> u64 {
        self.inner.reads()
    }

    async fn select(&self, selection: &Arc<Selection>) -> Result<Selected, QueryError> {
        self.selects.fetch_add(1, Ordering::Relaxed);
        self.inner.select(selection).await
    }

    async fn describe(
        &self,
        plan: &SearchPlan,
        matches: &Arc<RowSet>,
        ordinals: &[u32],
    ) -> Result<Vec<FoundTrace>, QueryError> {
        self.fetched.fetch_add(ordinals.len(), Ordering::Relaxed);
        self.inner.describe(plan, matches, ordinals).await
    }

    async fn pieces(&self, plan: &SearchPlan, ids: &[TraceId]) -> Result<Pieces, QueryError> {
        self.inner.pieces(plan, ids).await
    }

    async fn fetch(&self, ordinals: &[u32]) -> Result<Vec<Trace>, QueryError> {
        self.fetched.fetch_add(ordinals.len(), Ordering::Relaxed);
        self.inner.fetch(ordinals).await
    }

    async fn find(&self, ids: &[TraceId]) -> Result<Vec<Option<u32>>, QueryError> {
        self.inner.find(ids).await
    }

    async fn split_ids(&self) -> Result<Vec<TraceId>, QueryError> {
        self.inner.split_ids().await
    }

    async fn tag_names(&self, scope: Option<Scope>) -> Result<Vec<(Scope, Arc<str>)>, QueryError> {
        self.inner.tag_names(scope).await
    }

    async fn tag_values(
        &self,
        field: &TagField,
        within: Option<&Arc<Selection>>,
    ) -> Result<Option<Vec<Static>>, QueryError> {
        self.inner.tag_values(field, within).await
    }
}

/// A table of traces with one span each; the number is id and start.
pub fn table(ids: impl IntoIterator<Item = u8>, mark: bool) -> SpanTable {
    let mut table = SpanTable::new(3);
    for id in ids {
        let span = SpanModel { id: 1, start: u64::from(id) * 1000, duration: 10, ..later_span() };
        let trace = TraceModel { id, spans: vec![span] };
        let pushed = table.push(&encode(&trace, &trace.spans[0])).unwrap();
        for ordinal in pushed.new_traces.filter(|_| mark) {
            table.mark_split(ordinal);
        }
    }
    table
}

struct Setup {
    bucket: Bucket,
    reader: BlockReader,
    engine: Engine,
}

fn setup() -> Setup {
    setup_with(1 << 20)
}

fn setup_with(cache_bytes: u64) -> Setup {
    let deps = Deps::system(2);
    let bucket = Bucket::memory(&deps);
    let cache = BlockCache::new(cache_bytes);
    let reader = BlockReader::new(bucket.clone(), cache, deps.tasks.clone());
    let limits = QueryLimits { sources_at_once: 1, ..QueryLimits::default() };
    Setup { bucket, reader, engine: Engine::new(deps.tasks, limits) }
}

fn counted(source: impl SpanSource + 'static) -> Arc<Counted> {
    Arc::new(Counted {
        inner: Arc::new(source),
        selects: AtomicUsize::new(0),
        fetched: AtomicUsize::new(0),
    })
}

pub fn plan(query: &str, limit: u32) -> SearchPlan {
    let request = SearchRequest { query: query.to_owned(), limit, ..SearchRequest::default() };
    SearchPlan::from_request(&request).unwrap()
}

fn dynamic(sources: &[Arc<Counted>]) -> Vec<Arc<dyn SpanSource>> {
    sources.iter().map(|source| Arc::clone(source) as Arc<dyn SpanSource>).collect()
}

pub fn ids(response: &clew_proto::query::v1::SearchResponse) -> Vec<u8> {
    response.traces.iter().map(|found| found.trace_id[0]).collect()
}

#[test]
fn old_blocks_are_not_opened_when_new_ones_have_enough() {
    run(async {
        let Setup { bucket, reader, engine } = setup();
        let old = put_block(&bucket, "old", &table(1..40, false)).await;
        let new = put_block(&bucket, "new", &table(50..150, false)).await;
        let sources = [counted(reader.source(old)), counted(reader.source(new))];
        let outcome = engine.search(&dynamic(&sources), &plan("{}", 3)).await.unwrap();
        assert_eq!(ids(&outcome.response), [149, 148, 147]);
        let counts = |source: &Counted| {
            (source.selects.load(Ordering::Relaxed), source.fetched.load(Ordering::Relaxed))
        };
        assert_eq!((counts(&sources[0]), sources[0].reads()), ((0, 0), 0));
        assert_eq!(counts(&sources[1]), (1, 16));
        // The tail, the trace table, all parts of the index together, pages with their columns.
        assert_eq!(outcome.response.inspected.unwrap().reads, 4);

        // What is not enough makes the old one be asked too.
        let outcome =
            engine.search(&dynamic(&sources), &plan("{ name != nil }", 120)).await.unwrap();
        assert_eq!(ids(&outcome.response).len(), 120);
        assert_eq!(ids(&outcome.response)[99..102], [50, 39, 38]);
    });
}

#[test]
fn a_spans_own_value_hides_that_of_its_resource_also_among_alternatives() {
    run(async {
        let Setup { bucket, reader, engine } = setup();
        let resource = Resource { a: Some(Val::Int(0)), ..later_span().resource };
        let span =
            SpanModel { id: 1, a: Some(Val::Text("y".to_owned())), resource, ..later_span() };
        let trace = TraceModel { id: 1, spans: vec![span] };
        let mut table = SpanTable::new(3);
        table.push(&encode(&trace, &trace.spans[0])).unwrap();
        let sources = [counted(reader.source(put_block(&bucket, "block", &table).await))];
        for (query, expected) in [
            ("{ .a >= 0 }", &[][..]),
            ("{ .a >= 0 || .b < 2 }", &[]),
            ("{ .b < 2 || .a >= 0 || .a = `x` }", &[]),
            ("{ .a = `y` || .b < 2 }", &[1]),
            ("{ resource.a >= 0 || .b < 2 }", &[1]),
        ] {
            let outcome = engine.search(&dynamic(&sources), &plan(query, 5)).await.unwrap();
            assert_eq!(ids(&outcome.response), expected, "{query}");
        }
    });
}

#[test]
fn fragments_too_old_for_the_answer_are_not_named() {
    run(async {
        let Setup { bucket, reader, engine } = setup();
        let block = put_block(&bucket, "block", &table(1..40, false)).await;
        let sources = [counted(reader.source(block))];
        let split = [35u8, 30].map(|id| TraceId([id; 16]));
        let plan = plan("{}", 5).with_split(split);
        let outcome = engine.search(&dynamic(&sources), &plan).await.unwrap();
        assert_eq!(ids(&outcome.response), [39, 38, 37, 36, 34]);
        let named = decode_ids(&outcome.response.split_candidates).unwrap();
        assert_eq!(named, [TraceId([35; 16])]);
    });
}

#[test]
fn traces_of_one_start_are_ordered_by_id_over_all_sources() {
    run(async {
        let Setup { bucket, reader, engine } = setup();
        // Blocks that end as early as they can.
        let span = SpanModel { id: 1, duration: 0, ..later_span() };
        let mut sources = Vec::new();
        for id in [9u8, 3, 6] {
            let trace = TraceModel { id, spans: vec![span.clone()] };
            let mut table = SpanTable::new(3);
            table.push(&encode(&trace, &span)).unwrap();
            let block = put_block(&bucket, &format!("block-{id}"), &table).await;
            assert_eq!(block.max_time.0, span.start);
            sources.push(counted(reader.source(block)));
        }
        let outcome = engine.search(&dynamic(&sources), &plan("{}", 2)).await.unwrap();
        assert_eq!(ids(&outcome.response), [3, 6]);
    });
}

#[test]
fn what_was_read_once_is_not_read_again() {
    run(async {
        let Setup { bucket, reader, engine } = setup();
        let block = put_block(&bucket, "block", &table(1..40, false)).await;
        let request = FetchRequest {
            trace_ids: encode_ids(&[TraceId([7; 16])]).into(),
            ..Default::default()
        };
        let mut reads = Vec::new();
        for _ in 0..2 {
            let sources = [counted(reader.source(block.clone()))];
            let outcome = engine.fetch(&dynamic(&sources), &request).await.unwrap();
            let traces = Trace::decode(&outcome.response.traces).unwrap();
            assert_eq!((traces.len(), traces[0].id), (1, TraceId([7; 16])));
            reads.push(outcome.response.inspected.unwrap().reads);
        }
        // The tail, and one page with its columns, which lie near to it.
        assert_eq!(reads, [2, 0]);
    });
}

#[test]
fn pages_do_not_drive_out_indexes() {
    run(async {
        let Setup { bucket, reader, engine } = setup_with(26 << 10);
        let block = put_block(&bucket, "block", &table(1..200, false)).await;
        let sources = [counted(reader.source(block))];
        let sources = dynamic(&sources);
        let all: Vec<_> = (1..200).map(|id| TraceId([id; 16])).collect();
        let all = FetchRequest { trace_ids: encode_ids(&all).into(), ..Default::default() };
        let none = plan("{ name = `never` }", 5);
        engine.search(&sources, &none).await.unwrap();
        let mut reads = Vec::new();
        for _ in 0..8 {
            let outcome = engine.fetch(&sources, &all).await.unwrap();
            reads.push(outcome.response.inspected.unwrap().reads);
        }
        assert!(reads.iter().all(|reads| *reads > 0), "all pages fit: {reads:?}");
        let found = engine.search(&sources, &none).await.unwrap();
        assert_eq!(found.response.inspected.unwrap().reads, 0);
    });
}

#[test]
fn split_ids_cost_no_read_when_the_catalog_knows_of_none() {
    run(async {
        let Setup { bucket, reader, .. } = setup();
        let source = reader.source(put_block(&bucket, "none", &table(1..9, false)).await);
        assert_eq!((source.split_ids().await.unwrap().len(), source.reads()), (0, 0));
        let source = reader.source(put_block(&bucket, "all", &table(1..9, true)).await);
        assert_eq!((source.split_ids().await.unwrap().len(), source.reads()), (8, 1));
    });
}

#[test]
fn a_search_of_a_small_block_costs_three_reads() {
    run(async {
        let Setup { bucket, reader, engine } = setup();
        let block = put_block(&bucket, "block", &table(1..9, false)).await;
        let sources = dynamic(&[counted(reader.source(block))]);
        let found = engine.search(&sources, &plan("{ name = `never` }", 5)).await.unwrap();
        // The tail, the traces, and all sections of the index together.
        assert_eq!(found.response.inspected.unwrap().reads, 3);
    });
}

#[test]
fn a_catalog_that_knows_a_shorter_tail_costs_one_more_read() {
    run(async {
        let Setup { bucket, reader, .. } = setup();
        let block = put_block(&bucket, "block", &table(1..9, true)).await;
        let source = reader.source(BlockRef { tail_length: 30, ..block });
        assert_eq!(source.split_ids().await.unwrap().len(), 8);
        // The trailer tells the footer's length, the footer that of the tail.
        assert!((2..=3).contains(&source.reads()));
    });
}

#[test]
fn a_damaged_block_is_named_and_the_others_answer() {
    run(async {
        let Setup { bucket, reader, engine } = setup();
        let good = put_block(&bucket, "good", &table(50..60, false)).await;
        let block = put_block(&bucket, "original", &table(1..9, false)).await;
        let object = bucket.get_range("original", 0..block.offset + block.length).await.unwrap();
        for at in 0..block.length {
            let mut damaged = object.to_vec();
            damaged[usize::try_from(block.offset + at).unwrap()] ^= 0x10;
            let key = format!("damaged-{at}");
            bucket.put_new(&key, damaged.into()).await.unwrap();
            let damaged = BlockRef { object: Arc::from(key.as_str()), ..block.clone() };
            let sources =
                [counted(reader.source(good.clone())), counted(reader.source(damaged.clone()))];
            let outcome = engine.search(&dynamic(&sources), &plan("{}", 100)).await.unwrap();
            let [failure] = &outcome.failed[..] else { panic!("byte {at}: {:?}", outcome.failed) };
            assert_eq!(failure.error.kind(), ErrorKind::Corrupt, "byte {at}: {}", failure.error);
            assert_eq!(&*failure.source, format!("{key}@{}", block.offset));
            assert!(failure.error.to_string().starts_with(&format!("{key}@")));
            assert_eq!(ids(&outcome.response), [59, 58, 57, 56, 55, 54, 53, 52, 51, 50]);
        }
    });
}

/// A read of which nothing is cut off.
const NO_FAULT: Fault = Fault::Truncate(usize::MAX);

/// A reader with empty caches over a bucket in which reads go wrong.
fn faulty_reader(bucket: &Bucket, plan: &FaultPlan) -> BlockReader {
    let deps = Deps::system(2);
    let bucket = bucket.clone().with_faults(plan, &deps.clock);
    BlockReader::new(bucket, BlockCache::new(1 << 20), deps.tasks)
}

#[test]
fn a_read_that_was_garbled_once_is_made_again() {
    run(async {
        let Setup { bucket, engine, .. } = setup();
        let block = put_block(&bucket, "block", &table(1..9, true)).await;
        let all: Vec<TraceId> = (1..9).map(|id| TraceId([id; 16])).collect();
        let mut garbled = 0;
        for whole in 0..20 {
            for times in [1, 2] {
                let faults = FaultPlan::new();
                for _ in 0..whole {
                    faults.inject(Operation::Get, NO_FAULT);
                }
                for _ in 0..times {
                    faults.inject(Operation::Get, Fault::Garble);
                }
                let reader = faulty_reader(&bucket, &faults);
                let sources: Vec<Arc<dyn SpanSource>> =
                    vec![Arc::new(reader.source(block.clone()))];
                let found = engine.search(&sources, &plan("{ name != nil }", 50)).await.unwrap();
                let fetched = engine.fetch_traces(&sources, &all).await.unwrap();
                if faults.pending() > 0 {
                    continue;
                }
                garbled += 1;
                let failed = found.failed.iter().chain(&fetched.failed);
                let kinds: Vec<ErrorKind> = failed.map(|failure| failure.error.kind()).collect();
                match times {
                    1 => {
                        assert!(kinds.is_empty(), "read {whole}: {kinds:?}");
                        assert_eq!(ids(&found.response).len(), 8, "read {whole}");
                        assert_eq!(fetched.response.traces.len(), 8, "read {whole}");
                    }
                    // Parts that are read side by side share the two.
                    _ => {
                        assert!(kinds.iter().all(|kind| *kind == ErrorKind::Corrupt), "{kinds:?}");
                        assert!(whole > 0 || !kinds.is_empty(), "the tail was damaged twice");
                    }
                }
            }
        }
        assert!(garbled >= 6, "the tail, the traces, the index and the pages: {garbled}");
    });
}

#[test]
fn another_block_in_the_place_of_one_is_damage() {
    run(async {
        let Setup { bucket, reader, engine } = setup();
        let one = put_block(&bucket, "one", &table(1..9, false)).await;
        let other = put_block(&bucket, "other", &table(11..19, false)).await;
        assert_eq!((one.traces, one.spans), (other.traces, other.spans));
        let (min_time, max_time) = (one.min_time, one.max_time);
        let swapped = BlockRef { min_time, max_time, ..other };
        let flushed = BlockRef { flush: Some((1, 77)), ..one };
        for wrong in [swapped, flushed] {
            let sources: Vec<Arc<dyn SpanSource>> = vec![Arc::new(reader.source(wrong))];
            let found = engine.search(&sources, &plan("{}", 50)).await.unwrap();
            let [failure] = &found.failed[..] else { panic!("{:?}", found.response) };
            assert_eq!(failure.error.kind(), ErrorKind::Corrupt, "{}", failure.error);
        }
    });
}

#[test]
fn a_missing_object_is_named_in_every_kind_of_query() {
    run(async {
        let Setup { bucket, reader, engine } = setup();
        let block = put_block(&bucket, "block", &table(1..9, true)).await;
        let gone = BlockRef { object: Arc::from("gone"), ..block };
        let sources: Vec<Arc<dyn SpanSource>> = vec![Arc::new(reader.source(gone))];
        let names = engine.tag_names(&sources, &TagNamesRequest::default()).await.unwrap();
        let found = engine.search(&sources, &plan("{}", 5)).await.unwrap();
        let fetched = engine.fetch_traces(&sources, &[TraceId([1; 16])]).await.unwrap();
        for failed in [names.failed, found.failed, fetched.failed] {
            assert_eq!(failed.len(), 1);
            assert_eq!(&*failed[0].source, "gone@22");
            assert_eq!(failed[0].error.kind(), ErrorKind::NotFound);
        }
        assert!(sources[0].split_ids().await.is_err());
    });
}

#[test]
fn a_fetch_is_bounded() {
    run(async {
        let Setup { bucket, reader, engine } = setup();
        let limits = QueryLimits { fetched_bytes_max: 10, ..engine.limits().clone() };
        let engine = Engine::new(Deps::system(1).tasks, limits);
        let block = put_block(&bucket, "block", &table(1..9, true)).await;
        let sources: Vec<Arc<dyn SpanSource>> = vec![Arc::new(reader.source(block))];
        let error = engine.fetch_traces(&sources, &[TraceId([1; 16])]).await.unwrap_err();
        assert!(matches!(error, QueryError::TooMuch { limit: 10, .. }), "{error}");
    });
}

#[test]
fn queries_can_be_run_on_any_thread() {
    fn check<T: Send>(_: &T) {}
    let Setup { engine, .. } = setup();
    let sources = Vec::new();
    let plan = plan("{}", 1);
    check(&engine.search(&sources, &plan));
    check(&engine.fetch_traces(&sources, &[]));
    check(&engine.tag_names(&sources, &TagNamesRequest::default()));
    let request = clew_proto::query::v1::TagValuesRequest::default();
    check(&engine.tag_values(&sources, &request));
}
