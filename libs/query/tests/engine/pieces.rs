//! Split traces judged by what indexes tell of their pieces.

use std::sync::Arc;

use clew_block::SpanTable;
use clew_model::TraceId;
use clew_node::Deps;
use clew_proto::query::v1::Piece;
use clew_proto::query::v1::piece::{Passing, Shown};
use clew_query::{
    BlockCache, BlockReader, Engine, QueryLimits, SearchPlan, SpanSource, TableSource, judge_pieces,
};
use clew_storage::Bucket;
use proptest::prelude::*;

use super::failures::plan;
use super::run;
use super::spans::{Resource, SpanModel, TraceModel, Val, encode, later_span};
use super::world::put_block;

const TRACE: u8 = 7;

fn span(id: u8, parent: u8, service: &str, status: u8) -> SpanModel {
    SpanModel {
        id,
        parent,
        status,
        start: u64::from(id) * 10,
        duration: u64::from(id),
        name: format!("span {id}"),
        a: Some(Val::Int(i64::from(id))),
        resource: Resource { service: Some(service.to_owned()), a: None },
        ..later_span()
    }
}

fn table(spans: Vec<SpanModel>) -> SpanTable {
    let mut table = SpanTable::new(3);
    let trace = TraceModel { id: TRACE, spans };
    for span in &trace.spans {
        for ordinal in table.push(&encode(&trace, span)).unwrap().new_traces {
            table.mark_split(ordinal);
        }
    }
    table
}

/// A trace in two blocks and a head.
struct Scattered {
    engine: Engine,
    sources: Vec<Arc<dyn SpanSource>>,
}

impl Scattered {
    async fn build(blocks: [Vec<SpanModel>; 2], head: Vec<SpanModel>) -> Scattered {
        let deps = Deps::system(2);
        let bucket = Bucket::memory(&deps);
        let tasks = deps.tasks;
        let reader = BlockReader::new(bucket.clone(), BlockCache::new(1 << 20), tasks.clone());
        let mut sources: Vec<Arc<dyn SpanSource>> = Vec::new();
        for (at, spans) in blocks.into_iter().enumerate() {
            let block = put_block(&bucket, &format!("block-{at}"), &table(spans)).await;
            sources.push(Arc::new(reader.source(block)));
        }
        let table = table(head);
        let rows = table.row_count();
        sources.push(Arc::new(TableSource::sealed("head", Arc::new(table), rows, tasks.clone())));
        Scattered { engine: Engine::new(tasks, QueryLimits::default()), sources }
    }

    async fn pieces(&self, plan: &SearchPlan) -> (Vec<Piece>, Vec<TraceId>) {
        let told = self.engine.pieces(&self.sources, plan, &[id()]).await.unwrap();
        assert!(told.failed.is_empty(), "{:?}", told.failed);
        (told.response.pieces, told.response.unjudged)
    }
}

fn id() -> TraceId {
    TraceId([TRACE; 16])
}

fn shop() -> Scattered {
    run(Scattered::build(
        [
            vec![span(1, 0, "shop", 0), span(2, 1, "cart", 0)],
            vec![span(3, 2, "db", 2), span(4, 3, "db", 0), span(9, 8, "gone", 2)],
        ],
        vec![span(5, 4, "db", 2), span(6, 1, "cart", 0)],
    ))
}

#[test]
fn what_indexes_tell_is_what_the_spans_say() {
    let shop = shop();
    run(async {
        for (query, found) in [
            ("{ resource.service.name = `shop` } >> { status = error }", true),
            ("{ resource.service.name = `shop` } > { resource.service.name = `cart` }", true),
            ("{ resource.service.name = `shop` } > { status = error }", false),
            ("{ resource.service.name = `cart` } &>> { status = error }", true),
            ("{ resource.service.name = `db` } ~ { resource.service.name = `shop` }", false),
            ("{ resource.service.name = `cart` } ~ { resource.service.name = `cart` }", true),
            ("{ resource.service.name = `shop` } !>> { status = error }", true),
            ("{ status = error } | count() > 2 | avg(duration) > 1ns", true),
            ("{ status = error } | count() > 3", false),
            ("{ status = error } && { resource.service.name = `shop` }", true),
            ("{ resource.service.name = `nobody` } || { name = `span 5` }", true),
            ("{ span.a = 3 && resource.service.name = `db` }", true),
            ("{ duration > 4ns } | select(span.a, name)", true),
            ("{ } | count() = 7", true),
            ("{ } >> { }", true),
        ] {
            let plan = plan(query, 20);
            assert!(plan.takes_pieces(), "{query}");
            let (pieces, unjudged) = shop.pieces(&plan).await;
            assert_eq!((pieces.len(), unjudged.len()), (3, 0), "{query}");
            let (told, untold) = judge_pieces(pieces, &plan);
            assert_eq!(untold, [], "{query}");
            let whole = shop.engine.fetch_traces(&shop.sources, &[id()]).await.unwrap();
            let traces = whole.response.traces;
            let whole = shop.engine.search_traces(traces, &plan).await.unwrap();
            assert_eq!(told.traces, whole.traces, "{query}");
            assert_eq!(told.traces.len(), usize::from(found), "{query}");
        }
    });
}

#[test]
fn blocks_read_no_page_for_their_pieces() {
    let shop = shop();
    run(async {
        let plan = plan("{ resource.service.name = `shop` } >> { status = error }", 20);
        let before: u64 = shop.sources.iter().map(|source| source.reads()).sum();
        shop.pieces(&plan).await;
        let read: u64 = shop.sources.iter().map(|source| source.reads()).sum();
        // Of each block its tail, its trace table and its index.
        assert!(read - before <= 6, "{} reads", read - before);
        let (pieces, _) = shop.pieces(&plan).await;
        assert_eq!(shop.sources.iter().map(|source| source.reads()).sum::<u64>(), read);
        assert_eq!(pieces.len(), 3);
    });
}

#[test]
fn what_cannot_be_told_for_certain_is_left_to_the_spans() {
    let query = "{ resource.service.name = `shop` } >> { status = error }";
    let two_versions = Scattered::build(
        [vec![span(1, 0, "shop", 0)], vec![span(2, 1, "db", 2)]],
        vec![SpanModel { status: 0, ..span(2, 1, "db", 0) }],
    );
    let two_roots = Scattered::build(
        [vec![span(1, 0, "shop", 0)], vec![span(2, 0, "shop", 0)]],
        vec![span(3, 2, "db", 2)],
    );
    // Both sides of a call under one id, and a child of it elsewhere.
    let client = SpanModel { kind: 3, ..span(2, 1, "shop", 0) };
    let server = SpanModel { kind: 2, ..span(2, 1, "db", 0) };
    let shared = Scattered::build(
        [vec![span(1, 0, "shop", 0)], vec![client, server]],
        vec![span(3, 2, "db", 2)],
    );
    run(async {
        let plan = plan(query, 20);
        for scattered in [two_versions.await, two_roots.await, shared.await] {
            let (pieces, unjudged) = scattered.pieces(&plan).await;
            assert_eq!((pieces.len(), unjudged.len()), (3, 0));
            let (told, untold) = judge_pieces(pieces, &plan);
            assert_eq!((told.traces.len(), untold), (0, vec![id()]));
        }
    });
}

#[test]
fn searches_that_indexes_do_not_decide_take_no_pieces() {
    for query in
        ["{ } | by(name)", "{ span.a != 3 }", "{ trace:rootName = `x` }", "{ event:name = `x` }"]
    {
        assert!(!plan(query, 20).takes_pieces(), "{query}");
    }
}

/// Something else in a piece than its place said.
#[derive(Debug, Clone)]
enum Lie {
    Parents(Vec<u32>),
    Absent(Vec<u8>),
    Ids(Vec<u8>),
    Starts(Vec<u64>),
    Durations(Vec<u64>),
    Passing(Vec<(bool, Vec<u32>)>),
    Shown(Vec<u32>),
}

fn lies() -> impl Strategy<Value = (usize, Lie)> {
    let place = || prop_oneof![0u32..6, any::<u32>()];
    let places = move || prop::collection::vec(place(), 0..5);
    let lie = prop_oneof![
        places().prop_map(Lie::Parents),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Lie::Absent),
        prop::collection::vec(0u8..4, 0..40).prop_map(Lie::Ids),
        prop::collection::vec(any::<u64>(), 0..4).prop_map(Lie::Starts),
        prop::collection::vec(any::<u64>(), 0..4).prop_map(Lie::Durations),
        prop::collection::vec((any::<bool>(), places()), 0..4).prop_map(Lie::Passing),
        places().prop_map(Lie::Shown),
    ];
    (0usize..3, lie)
}

proptest! {
    /// A leaf of another release, or bytes gone wrong on the way, never stop the root.
    #[test]
    fn no_piece_makes_the_root_panic(lies in prop::collection::vec(lies(), 1..4)) {
        let shop = shop();
        let plan = plan("{ resource.service.name = `shop` } >> { status = error }", 20);
        let (mut pieces, _) = run(shop.pieces(&plan));
        for (at, lie) in lies {
            let piece = &mut pieces[at];
            match lie {
                Lie::Parents(parents) => piece.parents = parents,
                Lie::Absent(ids) => piece.absent_parents = ids.into(),
                Lie::Ids(ids) => piece.span_ids = ids.into(),
                Lie::Starts(starts) => piece.starts = starts,
                Lie::Durations(durations) => piece.durations = durations,
                Lie::Passing(passing) => {
                    let passing = passing.into_iter();
                    piece.passing = passing.map(|(all, spans)| Passing { all, spans }).collect();
                }
                Lie::Shown(places) => {
                    let places = places.into_iter();
                    piece.shown = places.map(|place| Shown { place, span: None }).collect();
                }
            }
        }
        let (told, untold) = judge_pieces(pieces, &plan);
        prop_assert!(told.traces.len() + untold.len() <= 1);
    }
}
