//! The spans of some traces scattered over heads and blocks, and a small root that asks leaves.

use std::collections::BTreeSet;
use std::sync::Arc;

use clew_block::{
    BlockMeta, BlockOptions, Footer, Heritage, Origin, SpanTable, TableRows, write_block,
};
use clew_model::{TenantId, Trace, TraceId, UnixNanos};
use clew_node::Deps;
use clew_proto::query::v1::{FetchRequest, FoundTrace, SearchRequest, SearchResponse};
use clew_query::{
    BlockCache, BlockReader, BlockRef, Engine, Fetched, QueryError, QueryLimits, SearchPlan,
    SpanSource, TableSource, decode_ids, encode_ids, judge_pieces, merge_search,
};
use clew_storage::Bucket;
use parking_lot::RwLock;
use proptest::prelude::*;

use super::spans::{SpanModel, TraceModel, encode, traces};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Sealed,
    Active,
    Block,
}

/// Traces, places, and which spans lie where, how often.
#[derive(Debug, Clone)]
pub struct Layout {
    pub traces: Vec<TraceModel>,
    pub places: Vec<(Place, usize)>,
    /// For each trace and span, how often it lies in each place.
    copies: Vec<Vec<Vec<u8>>>,
}

/// How many leaves the places are spread over.
const LEAVES: usize = 2;

pub fn layouts() -> impl Strategy<Value = Layout> {
    let place = prop::sample::select(vec![Place::Sealed, Place::Active, Place::Block]);
    let places = prop::collection::vec((place, 0..LEAVES), 1..5);
    (traces(), places).prop_flat_map(|(traces, places)| {
        let count = places.len();
        // Most spans lie at their trace's home, once; the others anywhere, some twice.
        let stray = prop_oneof![4 => Just(0u8), 2 => Just(1), 1 => Just(2)];
        let stray = prop::collection::vec(stray, count);
        let copies: Vec<_> = traces
            .iter()
            .map(|trace| {
                let stays = prop::bool::weighted(0.6);
                (0..count, prop::collection::vec((stays, stray.clone()), trace.spans.len()))
                    .prop_map(move |(home, spans)| {
                        let place = |(stays, stray): (bool, Vec<u8>)| {
                            let mut copies = if stays { vec![0; count] } else { stray };
                            if copies.iter().all(|copies| *copies == 0) {
                                copies[home] = 1;
                            }
                            copies
                        };
                        spans.into_iter().map(place).collect::<Vec<_>>()
                    })
            })
            .collect();
        (Just(traces), Just(places), copies).prop_map(|(traces, places, copies)| Layout {
            traces,
            places,
            copies,
        })
    })
}

impl Layout {
    /// The spans in a place, trace by trace; a span that was sent twice is there twice.
    fn spans_in(&self, place: usize) -> Vec<(&TraceModel, &SpanModel)> {
        let mut found = Vec::new();
        for (trace, copies) in self.traces.iter().zip(&self.copies) {
            for (span, copies) in trace.spans.iter().zip(copies) {
                found.extend((0..copies[place]).map(|_| (trace, span)));
            }
        }
        found
    }

    /// Whether an earlier place has a span of the trace: then the fragment here is marked.
    fn is_split(&self, trace: &TraceModel, place: usize) -> bool {
        let at = self.traces.iter().position(|other| other.id == trace.id).unwrap();
        self.copies[at].iter().any(|copies| copies[..place].iter().any(|copies| *copies > 0))
    }

    /// What a place has of each trace.
    pub fn fragments(&self, place: usize) -> Vec<TraceModel> {
        let mut fragments = Vec::new();
        for (trace, copies) in self.traces.iter().zip(&self.copies) {
            let here = trace.spans.iter().zip(copies).filter(|(_, copies)| copies[place] > 0);
            let spans: Vec<SpanModel> = here.map(|(span, _)| span.clone()).collect();
            if !spans.is_empty() {
                fragments.push(TraceModel { id: trace.id, spans });
            }
        }
        fragments
    }

    /// The times a place says it has spans of; an active head counts the spans behind the cut, which
    /// are of any time here. `None` for an empty place.
    pub fn bounds(&self, place: usize) -> Option<(u64, u64)> {
        if self.places[place].0 == Place::Active {
            return Some((0, u64::MAX));
        }
        let fragments = self.fragments(place);
        let start = fragments.iter().map(TraceModel::start).min()?;
        Some((start, fragments.iter().map(TraceModel::end).max()?))
    }

    fn table(&self, place: usize) -> SpanTable {
        let mut table = SpanTable::new(7);
        for (trace, span) in self.spans_in(place) {
            let pushed = table.push(&encode(trace, span)).unwrap();
            assert_eq!(pushed.rejected, 0);
            for ordinal in pushed.new_traces {
                if self.is_split(trace, place) {
                    table.mark_split(ordinal);
                }
            }
        }
        table
    }
}

/// The sources of a layout by leaf.
pub struct World {
    pub engine: Engine,
    pub leaves: Vec<Vec<Arc<dyn SpanSource>>>,
    pub all: Vec<Arc<dyn SpanSource>>,
}

impl World {
    pub async fn build(layout: &Layout, limits: QueryLimits) -> World {
        let deps = Deps::system(2);
        let bucket = Bucket::memory(&deps);
        let tasks = deps.tasks;
        let reader = BlockReader::new(bucket.clone(), BlockCache::new(1 << 20), tasks.clone());
        let mut leaves: Vec<Vec<Arc<dyn SpanSource>>> = vec![Vec::new(); LEAVES];
        let mut all = Vec::new();
        for (at, (place, leaf)) in layout.places.iter().enumerate() {
            let mut table = layout.table(at);
            let rows = table.row_count();
            let name = format!("place {at}");
            let source: Arc<dyn SpanSource> = match place {
                Place::Sealed => {
                    Arc::new(TableSource::sealed(&name, Arc::new(table), rows, tasks.clone()))
                }
                Place::Active => {
                    later_spans(&mut table);
                    let table = Arc::new(RwLock::new(table));
                    Arc::new(TableSource::active(&name, table, rows, tasks.clone()))
                }
                Place::Block if rows == 0 => continue,
                Place::Block => {
                    let block = put_block(&bucket, &format!("block-{at}"), &table).await;
                    Arc::new(reader.source(block))
                }
            };
            leaves[*leaf].push(Arc::clone(&source));
            all.push(source);
        }
        World { engine: Engine::new(tasks, limits), leaves, all }
    }

    /// The set F.
    pub async fn split(&self) -> BTreeSet<TraceId> {
        let mut split = BTreeSet::new();
        for source in &self.all {
            split.extend(source.split_ids().await.unwrap());
        }
        split
    }

    /// Whole traces, of ids as they travel.
    pub async fn gather(&self, ids: &[u8]) -> Vec<Trace> {
        let ids = decode_ids(ids).unwrap();
        let gathered = self.engine.fetch_traces(&self.all, &ids).await.unwrap();
        assert!(gathered.failed.is_empty(), "{:?}", gathered.failed);
        gathered.response.traces
    }

    /// What the root of a query does.
    pub async fn search(&self, request: &SearchRequest) -> Result<SearchResponse, QueryError> {
        let plan = SearchPlan::from_request(request)?.with_split(self.split().await);
        let mut answers = Vec::new();
        for sources in &self.leaves {
            let outcome = self.engine.search(sources, &plan).await?;
            assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
            answers.push(outcome.response);
        }
        let merged = merge_search(answers, &plan);
        let candidates = decode_ids(&merged.split_candidates)?;
        let traces = self.gather(&merged.split_candidates).await;
        let whole = self.engine.search_traces(traces, &plan).await?;
        if plan.takes_pieces() {
            let judged = self.judge_by_pieces(request, &plan, &candidates).await?;
            assert_eq!(judged, whole.traces, "judged by pieces and by spans");
        }
        Ok(merge_search([merged, whole], &plan))
    }

    /// What pieces tell, with the traces gathered of which they do not tell enough.
    async fn judge_by_pieces(
        &self,
        request: &SearchRequest,
        plan: &SearchPlan,
        candidates: &[TraceId],
    ) -> Result<Vec<FoundTrace>, QueryError> {
        let wanted = FetchRequest {
            trace_ids: encode_ids(candidates).into(),
            judge: Some(request.clone()),
            ..FetchRequest::default()
        };
        let told = self.engine.fetch(&self.all, &wanted).await?;
        assert!(told.failed.is_empty(), "{:?}", told.failed);
        let Fetched { mut pieces, unjudged, traces, .. } = Fetched::decode(told.response)?;
        assert!(traces.is_empty());
        let mut rest: BTreeSet<TraceId> = unjudged.into_iter().collect();
        pieces.retain(|piece| {
            TraceId::from_wire(&piece.trace_id).is_some_and(|id| !rest.contains(&id))
        });
        let (judged, untold) = judge_pieces(pieces, plan);
        rest.extend(untold);
        let traces = self.gather(&encode_ids(&rest)).await;
        let whole = self.engine.search_traces(traces, plan).await?;
        Ok(merge_search([judged, whole], plan).traces)
    }
}

/// Spans that arrive after the cut: of new traces, and of traces that are there.
fn later_spans(table: &mut SpanTable) {
    for id in [1u8, 2, 3, 201, 202] {
        let mut spans = super::spans::later_span();
        spans.id = 77;
        let trace = TraceModel { id, spans: vec![spans] };
        table.push(&encode(&trace, &trace.spans[0])).unwrap();
    }
}

/// Writes a table as a block, in an object of two blocks.
pub async fn put_block(bucket: &Bucket, key: &str, table: &SpanTable) -> BlockRef {
    let rows = TableRows { table, rows_max: table.row_count() };
    let meta = BlockMeta {
        tenant: TenantId::single(),
        origin: Origin::default(),
        lineage: Vec::new(),
        heritage: Heritage::default(),
    };
    let options = BlockOptions { page_bytes: 150, ..BlockOptions::default() };
    let block = write_block(&[rows], &options, meta).unwrap();
    let footer = Footer::parse(&block).unwrap();
    let mut object = b"another tenant's block".to_vec();
    let offset = object.len() as u64;
    object.extend_from_slice(&block);
    object.extend_from_slice(b"and one more");
    bucket.put_new(key, object.into()).await.unwrap();
    BlockRef {
        object: Arc::from(key),
        tenant: footer.tenant,
        shard: footer.origin.shard,
        flush: None,
        offset,
        length: block.len() as u64,
        tail_length: footer.tail_length,
        min_time: UnixNanos(footer.min_start),
        max_time: UnixNanos(footer.max_end),
        spans: footer.spans,
        traces: footer.traces,
        splits: footer.split,
        deleted: Arc::from([]),
    }
}
