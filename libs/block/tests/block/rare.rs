//! Keys whose values hardly ever repeat are indexed apart from terms; lookups see no difference.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use clew_block::{RowSet, SpanTable, TableRows, write_block};
use clew_model::wire::put_bytes_field;
use clew_traceql::plan::{Condition, Field, Scope, Test};
use clew_traceql::value::Static;

use crate::round_trip::{OPTIONS, meta, open};
use crate::spans::{Any, Batch, Span, traces_data};

const SPANS: u64 = 9_000;

/// Unique texts and numbers, with a few that repeat late.
fn text_of(n: u64) -> String {
    match n {
        8_000.. if n.is_multiple_of(500) => "seen twice and more".to_owned(),
        _ => format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    }
}

fn int_of(n: u64) -> i64 {
    if n > 8_900 { 77 } else { (n * 31) as i64 - 5_000 }
}

fn double_of(n: u64) -> f64 {
    n as f64 / 8.0 - 100.0
}

fn span(n: u64) -> Span {
    Span {
        trace: (n % 200) as u8,
        id: (n / 200) as u8,
        parent: 0,
        kind: 2,
        start: 1_700_000_000_000_000_000 + n * 1_000_000,
        duration: 1_000,
        name: "work".to_owned(),
        status: 0,
        message: String::new(),
        attributes: vec![
            ("request.id".to_owned(), Any::Text(text_of(n))),
            ("size".to_owned(), Any::Int(int_of(n))),
            ("ratio".to_owned(), Any::Double(double_of(n))),
            ("method".to_owned(), Any::Text("GET".to_owned())),
        ],
        events: vec![("e".to_owned(), vec![("event.id".to_owned(), Any::Text(text_of(n)))])],
        links: Vec::new(),
    }
}

fn table() -> SpanTable {
    let mut table = SpanTable::new(3);
    for first in (0..SPANS).step_by(300) {
        let batch = Batch {
            resource: vec![("service.name".to_owned(), Any::Text("shop".to_owned()))],
            schema_url: String::new(),
            scope: (String::new(), String::new(), Vec::new()),
            spans: (first..first + 300).map(span).collect(),
        };
        table.push(&traces_data(&[batch])).unwrap();
    }
    table
}

/// The spans of a block's rows by their number, which their start tells.
fn numbers(rows: &RowSet, start: impl Fn(u32) -> u64) -> BTreeSet<u64> {
    rows.iter().map(|row| (start(row) - 1_700_000_000_000_000_000) / 1_000_000).collect()
}

fn attribute(name: &str) -> Field {
    Field::Attribute(Scope::Span, name.into())
}

fn text(value: &str) -> Test {
    Test::Equals(Static::String(value.into()))
}

/// A condition and which spans pass it.
type Case = (Condition, Box<dyn Fn(u64) -> bool>);

fn cases() -> Vec<Case> {
    let case = |field, test, passes: Box<dyn Fn(u64) -> bool>| (Condition { field, test }, passes);
    let range =
        |low: f64, high: f64| Test::NumberRange(Bound::Included(low), Bound::Excluded(high));
    let mut cases = vec![
        case(attribute("request.id"), text("no such"), Box::new(|_| false)),
        case(attribute("request.id"), Test::Exists, Box::new(|_| true)),
        case(
            attribute("request.id"),
            text("seen twice and more"),
            Box::new(|n| n >= 8_000 && n.is_multiple_of(500)),
        ),
        case(attribute("size"), Test::Equals(Static::Int(77)), Box::new(|n| int_of(n) == 77)),
        case(attribute("size"), Test::Equals(Static::Float(77.5)), Box::new(|_| false)),
        case(
            attribute("size"),
            range(1_000.0, 90_000.0),
            Box::new(|n| (1_000..90_000).contains(&int_of(n))),
        ),
        case(
            attribute("ratio"),
            range(-50.0, 0.5),
            Box::new(|n| (-50.0..0.5).contains(&double_of(n))),
        ),
        case(
            attribute("request.id"),
            Test::Matches(std::sync::Arc::new(regex::Regex::new("^(?s:seen.*)$").unwrap())),
            Box::new(|n| text_of(n).starts_with("seen")),
        ),
        case(
            Field::Attribute(Scope::Event, "event.id".into()),
            text(&text_of(5_000)),
            Box::new(|n| n == 5_000),
        ),
    ];
    for n in [0, 1, 2_047, 2_048, 2_049, 5_555, 7_999, 8_999] {
        let value = text_of(n);
        cases.push(case(
            attribute("request.id"),
            text(&value),
            Box::new(move |m| text_of(m) == value),
        ));
        cases.push(case(
            attribute("ratio"),
            Test::Equals(Static::Float(double_of(n))),
            Box::new(move |m| m == n),
        ));
    }
    cases
}

#[test]
fn lookups_of_rare_values_lose_nothing_and_exact_ones_add_nothing() {
    let table = table();
    let rows = [TableRows { table: &table, rows_max: u32::MAX }];
    let block = Bytes::from(write_block(&rows, &OPTIONS, meta()).unwrap());
    let opened = open(&block).unwrap();
    let cut = 8_700;
    for (condition, passes) in cases() {
        let expected = |below: u64| (0..below).filter(|n| passes(*n)).collect::<BTreeSet<u64>>();
        let start = |row| table.row_start_end(row).unwrap().0;
        for (rows_max, below) in [(u32::MAX, SPANS), (cut, u64::from(cut))] {
            let found = table.lookup(&condition, rows_max).unwrap();
            let rows = numbers(&found.rows, start);
            assert!(rows.is_superset(&expected(below)), "{condition:?}");
            if found.exact {
                assert_eq!(rows, expected(below), "{condition:?}");
            }
        }
        let found = opened.search.lookup(&condition).unwrap();
        let rows = numbers(&found.rows, |row| opened.search.row_start_end(row).unwrap().0);
        assert!(rows.is_superset(&expected(SPANS)), "{condition:?}");
        if found.exact {
            assert_eq!(rows, expected(SPANS), "{condition:?}");
        }
        // Never more than the rows of a few pages for a text that is looked up whole.
        if matches!(condition.test, Test::Equals(Static::String(_))) {
            assert!(rows.len() < expected(SPANS).len() + 1_000, "{condition:?}: {}", rows.len());
        }
    }
}

/// The same spans with `request.id` encoded with its value before its name, which is allowed and makes
/// pages keep it as it is.
fn unusual_table() -> SpanTable {
    let mut table = SpanTable::new(3);
    for n in 0..SPANS {
        let mut of_n = span(n);
        of_n.attributes.remove(0);
        let mut encoded = of_n.encode();
        let value = text_of(n);
        let mut any = Vec::new();
        put_bytes_field(&mut any, 1, value.as_bytes());
        let mut pair = Vec::new();
        put_bytes_field(&mut pair, 2, &any);
        put_bytes_field(&mut pair, 1, b"request.id");
        put_bytes_field(&mut encoded, 9, &pair);
        let (mut scope, mut resource, mut data) = (Vec::new(), Vec::new(), Vec::new());
        put_bytes_field(&mut scope, 2, &encoded);
        put_bytes_field(&mut resource, 2, &scope);
        put_bytes_field(&mut data, 1, &resource);
        table.push(&Bytes::from(data)).unwrap();
    }
    table
}

#[test]
fn pages_know_the_rows_of_a_rare_text() {
    pages_know_the_rows_in(&table());
}

#[test]
fn a_rare_text_in_an_unusual_encoding_is_found() {
    pages_know_the_rows_in(&unusual_table());
}

fn pages_know_the_rows_in(table: &SpanTable) {
    let rows = [TableRows { table, rows_max: u32::MAX }];
    let block = Bytes::from(write_block(&rows, &OPTIONS, meta()).unwrap());
    let opened = open(&block).unwrap();
    let records = opened.block.records();
    for n in [3, 4_000, 8_500] {
        let value = text_of(n);
        let (mut found, mut listed) = (RowSet::new(), BTreeSet::new());
        for page in &opened.pages {
            for row in page.rows_with_text("request.id", &value, records) {
                found.insert(row);
            }
            page.visit_texts("request.id", &found, records, |text| {
                listed.insert(text.to_owned());
            });
        }
        let start = |row| opened.search.row_start_end(row).unwrap().0;
        let expected: BTreeSet<u64> = (0..SPANS).filter(|m| text_of(*m) == value).collect();
        assert_eq!(numbers(&found, start), expected);
        assert_eq!(listed, [value].into());
    }
}

#[test]
fn rare_numbers_are_values_and_rare_texts_are_named_by_their_rows() {
    let table = table();
    let rows = [TableRows { table: &table, rows_max: u32::MAX }];
    let block = Bytes::from(write_block(&rows, &OPTIONS, meta()).unwrap());
    let opened = open(&block).unwrap();
    let mut sizes = BTreeSet::new();
    opened
        .search
        .tag_values(&attribute("size"), None, &mut |value| {
            sizes.insert(value.value.to_string());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(sizes, (0..SPANS).map(|n| int_of(n).to_string()).collect());
    let mut ids = BTreeSet::new();
    let end = opened
        .search
        .tag_values(&attribute("request.id"), None, &mut |value| {
            ids.insert(value.value.to_string());
            ControlFlow::Continue(())
        })
        .unwrap();
    for page in &opened.pages {
        page.visit_texts("request.id", &end.long_values, opened.block.records(), |text| {
            ids.insert(Static::String(text.into()).to_string());
        });
    }
    let expected = (0..SPANS).map(|n| Static::String(text_of(n).into()).to_string()).collect();
    assert_eq!(ids, expected);
}
