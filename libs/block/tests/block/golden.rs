//! A block written by the first release, which every later one must open.

use bytes::Bytes;
use clew_block::{Parent, SpanTable, TableRows, write_block};
use clew_model::trace::Trace;
use clew_traceql::plan::{Condition, Field, Intrinsic, Scope, Test};
use clew_traceql::value::{Static, Status};

use crate::naive::merged;
use crate::round_trip::{OPTIONS, meta, open};
use crate::spans::{Any, Attributes, Batch, Span, traces_data};

/// As the first writer of the format left it, and as it is written now.
const GOLDEN: [&[u8]; 2] =
    [include_bytes!("../golden/v2.block"), include_bytes!("../golden/v2-absent-parents.block")];

fn text(text: &str) -> Any {
    Any::Text(text.to_owned())
}

fn attributes(pairs: &[(&str, Any)]) -> Attributes {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn span(trace: u8, id: u8, parent: u8, name: &str) -> Span {
    Span {
        trace,
        id,
        parent,
        kind: i32::from(id % 4),
        start: 1_700_000_000_000_000_000 + u64::from(id) * 1_000,
        duration: 5_000_000 + i64::from(id),
        name: name.to_owned(),
        status: i32::from(id == 2) * 2,
        message: if id == 2 { "it broke".to_owned() } else { String::new() },
        attributes: attributes(&[
            ("http.status_code", Any::Int(200 + i64::from(id))),
            ("http.method", text("GET")),
            ("ratio", Any::Double(0.5)),
            ("tags", Any::Array(vec![text("x"), Any::Int(7)])),
            ("long", text(&"l".repeat(300))),
        ]),
        events: vec![("exception".to_owned(), attributes(&[("message", text("no"))]))],
        links: vec![attributes(&[("why", Any::Bool(true))])],
    }
}

/// What the golden block holds.
pub(crate) fn small_batches() -> Vec<Batch> {
    let batch = |service: &str, spans| Batch {
        resource: attributes(&[("service.name", text(service)), ("pod", text("p-1"))]),
        schema_url: "https://opentelemetry.io/schemas/1.26.0".to_owned(),
        scope: ("lib".to_owned(), "1.0".to_owned(), attributes(&[("scope.key", Any::Int(1))])),
        spans,
    };
    vec![
        batch(
            "shop",
            vec![span(0, 0, 0, "GET /"), span(0, 1, 1, "render"), span(1, 0, 0, "GET /x")],
        ),
        batch("db", vec![span(0, 2, 1, "SELECT"), span(1, 2, 9, "SELECT")]),
    ]
}

fn written() -> Vec<u8> {
    let mut table = SpanTable::new(99);
    table.push(&traces_data(&small_batches())).unwrap();
    table.mark_split(1);
    let rows = [TableRows { table: &table, rows_max: u32::MAX }];
    write_block(&rows, &OPTIONS, meta()).unwrap()
}

#[test]
fn the_first_format_is_still_read() {
    GOLDEN.into_iter().for_each(is_read);
}

#[test]
fn the_ids_of_absent_parents_are_there_since_they_are_written() {
    type Known = Vec<(Option<Parent>, Option<[u8; 8]>)>;
    let absent: [Known; 2] = GOLDEN.map(|golden| {
        let opened = open(&Bytes::from_static(golden)).unwrap();
        let columns = opened.search.columns();
        let known = |row| (columns.parent(row), columns.absent_parent(row));
        (0..5).map(known).filter(|(parent, _)| *parent == Some(Parent::Elsewhere)).collect()
    });
    let expected = |id: Option<[u8; 8]>| vec![(Some(Parent::Elsewhere), id)];
    assert_eq!(absent, [expected(None), expected(Some([9; 8]))]);
}

fn is_read(golden: &'static [u8]) {
    let opened = open(&Bytes::from_static(golden)).unwrap();
    let traces: Vec<Trace> = merged(&[traces_data(&small_batches())]);
    assert_eq!(opened.block.footer().tenant.as_str(), "tenant");
    assert_eq!(opened.block.footer().lineage, ["old"]);
    assert_eq!(opened.block.footer().origin.through, 4);
    assert_eq!(opened.block.split_ids().ids().len(), 1);
    for trace in &traces {
        assert_eq!(opened.trace(&trace.id).unwrap().as_ref(), Some(trace));
        let ordinal = opened.search.traces().find(&trace.id).unwrap();
        assert_eq!(opened.search.traces().get(ordinal).unwrap().summary(), trace.summary());
    }
    let rows = |field, test| {
        opened.search.lookup(&Condition { field, test }).unwrap().rows.iter().collect::<Vec<_>>()
    };
    let code = Field::Attribute(Scope::Span, "http.status_code".into());
    assert_eq!(rows(code, Test::Equals(Static::Float(201.0))).len(), 1);
    let status = Field::Intrinsic(Intrinsic::Status);
    assert_eq!(rows(status, Test::Equals(Static::Status(Status::Error))).len(), 2);
    let service = Field::Attribute(Scope::Resource, "service.name".into());
    assert_eq!(rows(service, Test::Equals(Static::String("db".into()))).len(), 2);
    let long = Field::Attribute(Scope::Span, "long".into());
    assert_eq!(rows(long, Test::Equals(Static::String("l".repeat(300).into()))).len(), 5);
}

/// Fails when the format changes, and when the compressor is updated. In the second case the
/// file stays as it is, as a block of the release before, and this test gets a new one beside it.
#[test]
fn the_same_spans_give_the_same_bytes() {
    let written = written();
    if Some(written.as_slice()) != GOLDEN.last().copied() {
        let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/v2.block");
        std::fs::write(path, &written).unwrap();
        panic!("the block differs from the latest in tests/golden, it was written to {path}");
    }
}
