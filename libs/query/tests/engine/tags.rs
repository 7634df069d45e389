//! Names and values of attributes, with and without a filter.

use std::collections::BTreeSet;

use clew_proto::query::v1::{TagNamesRequest, TagValuesRequest};
use clew_query::{
    QueryLimits, TagField, encode_ids, merge_tag_names, merge_tag_values, tag_query_needs_traces,
};
use proptest::prelude::*;

use super::filters::{Expr, filters};
use super::run;
use super::spans::{SpanModel, TraceModel, Val};
use super::world::{Layout, World, layouts};

const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];
const STATUSES: [&str; 3] = ["unset", "ok", "error"];

/// A value as an answer shows it, with what it is sorted by.
type Shown = (u8, i64, String, &'static str);

fn keyword(word: &str) -> Shown {
    (0, 0, word.to_owned(), "keyword")
}

fn scalar(value: &Val) -> Vec<Shown> {
    match value {
        Val::Text(text) => vec![(1, 0, text.clone(), "string")],
        Val::Int(number) => vec![(2, *number, number.to_string(), "int")],
        Val::Truth(truth) => vec![(4, i64::from(*truth), truth.to_string(), "bool")],
        Val::Texts(texts) => texts.iter().map(|text| (1, 0, text.clone(), "string")).collect(),
    }
}

fn values(field: &str, trace: &TraceModel, span: &SpanModel) -> Vec<Shown> {
    let of = |value: &Option<Val>| value.as_ref().map(scalar).unwrap_or_default();
    let text = |text: &str| match text {
        "" => Vec::new(),
        text => scalar(&Val::Text(text.to_owned())),
    };
    match field {
        "span.a" => of(&span.a),
        ".a" => [of(&span.a), of(&span.resource.a)].concat(),
        "resource.service.name" => of(&span.resource.service.clone().map(Val::Text)),
        "event.e" => {
            span.events.iter().flat_map(|event| of(&event.e.clone().map(Val::Text))).collect()
        }
        "event:name" => span.events.iter().flat_map(|event| text(&event.name)).collect(),
        "name" => text(&span.name),
        "status" => vec![keyword(STATUSES[usize::from(span.status)])],
        "span:kind" => vec![keyword(KINDS[usize::from(span.kind)])],
        "rootName" => trace.root().map(|root| text(&root.name)).unwrap_or_default(),
        "trace:rootService" => trace
            .root()
            .and_then(|root| root.resource.service.clone())
            .map(|service| text(&service))
            .unwrap_or_default(),
        "duration" => Vec::new(),
        other => unreachable!("{other}"),
    }
}

fn query(filter: &Expr) -> String {
    format!("{{ {} }}", filter.text())
}

/// The fragments a request looks at, with the spans that count.
fn counted<'a>(
    layout: &'a Layout,
    filter: Option<&'a Expr>,
    field: Option<&str>,
    range: (u64, u64),
) -> Vec<(TraceModel, SpanModel)> {
    let inside = |start: u64, end: u64| start <= range.1 && end >= range.0;
    let mut counted = Vec::new();
    let field = field.map(|field| TagField::parse(field).unwrap());
    let needs_traces = |filter: &&Expr| tag_query_needs_traces(&query(filter), field.as_ref());
    if let Some(filter) = filter.filter(needs_traces) {
        // What depends on other spans of a trace is judged on the whole trace.
        for trace in layout.traces.iter().filter(|trace| inside(trace.start(), trace.end())) {
            let spans = trace.spans.iter().filter(|span| filter.matches(trace, span));
            counted.extend(spans.map(|span| (trace.clone(), span.clone())));
        }
        return counted;
    }
    // A filter that is always true is none, so that the time range selects places alone.
    let filter = filter.filter(|filter| clew_traceql::tag_filter(&query(filter)).is_some());
    if let Some(filter) = filter {
        // Wherever a span lies, it counts by its own time.
        for trace in &layout.traces {
            let wanted = |span: &&SpanModel| {
                inside(span.start, span.start + span.duration) && filter.matches(trace, span)
            };
            let spans = trace.spans.iter().filter(wanted);
            counted.extend(spans.map(|span| (trace.clone(), span.clone())));
        }
        return counted;
    }
    for place in 0..layout.places.len() {
        if layout.bounds(place).is_some_and(|(start, end)| inside(start, end)) {
            for fragment in layout.fragments(place) {
                let spans = fragment.spans.clone();
                counted.extend(spans.into_iter().map(|span| (fragment.clone(), span)));
            }
        }
    }
    counted
}

fn ranges() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![Just((0, u64::MAX)), (0u64..110, 1u64..60).prop_map(|(at, long)| (at, at + long))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn values_are_those_of_the_spans_that_match(
        layout in layouts(),
        filter in prop::option::of(filters()),
        field in prop::sample::select(vec!["span.a", ".a", "resource.service.name", "event.e",
            "event:name", "name", "status", "span:kind", "rootName", "trace:rootService",
            "duration"]),
        range in ranges(),
        limit in 0u32..5,
    ) {
        let spans = counted(&layout, filter.as_ref(), Some(field), range);
        let expected: BTreeSet<Shown> =
            spans.iter().flat_map(|(trace, span)| values(field, trace, span)).collect();
        let limit_or_all = if limit == 0 { usize::MAX } else { limit as usize };
        let expected: Vec<(String, String)> = expected
            .into_iter()
            .take(limit_or_all)
            .map(|(_, _, value, kind)| (kind.to_owned(), value))
            .collect();
        let request = TagValuesRequest {
            tag: field.to_owned(),
            query: filter.as_ref().map(query).unwrap_or_default(),
            start_unix_nanos: range.0,
            end_unix_nanos: range.1,
            limit,
            ..TagValuesRequest::default()
        };
        let response = run(async {
            let world = World::build(&layout, QueryLimits::default()).await;
            let split_ids = encode_ids(&world.split().await).into();
            let request = TagValuesRequest { split_ids, ..request.clone() };
            let (mut answers, mut split) = (Vec::new(), Vec::new());
            for sources in &world.leaves {
                let outcome = world.engine.tag_values(sources, &request).await.unwrap();
                assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
                split.extend_from_slice(&outcome.response.split_candidates);
                answers.push(outcome.response);
            }
            let whole = world.gather(&split).await;
            answers.push(world.engine.tag_values_of(whole, &request).await.unwrap());
            merge_tag_values(answers, limit, 0)
        });
        let found: Vec<(String, String)> =
            response.values.into_iter().map(|value| (value.r#type, value.value)).collect();
        prop_assert_eq!(found, expected, "{}", request.query);
    }

    #[test]
    fn names_are_those_of_the_spans_that_match(
        layout in layouts(),
        filter in prop::option::of(filters()),
        scope in prop::sample::select(vec!["", "span", "resource", "event", "link"]),
        range in ranges(),
    ) {
        let mut expected = BTreeSet::new();
        for (_, span) in counted(&layout, filter.as_ref(), None, range) {
            let has = |there: bool, scope: &'static str, name: &'static str| {
                there.then_some((scope, name))
            };
            expected.extend(has(span.a.is_some(), "span", "a"));
            expected.extend(has(span.b.is_some(), "span", "b"));
            expected.extend(has(span.resource.a.is_some(), "resource", "a"));
            expected.extend(has(span.resource.service.is_some(), "resource", "service.name"));
            expected.extend(has(span.events.iter().any(|e| e.e.is_some()), "event", "e"));
        }
        expected.retain(|(of, _)| scope.is_empty() || scope == *of);
        let request = TagNamesRequest {
            scope: scope.to_owned(),
            query: filter.as_ref().map(query).unwrap_or_default(),
            start_unix_nanos: range.0,
            end_unix_nanos: range.1,
            ..TagNamesRequest::default()
        };
        let response = run(async {
            let world = World::build(&layout, QueryLimits::default()).await;
            let split_ids = encode_ids(&world.split().await).into();
            let request = TagNamesRequest { split_ids, ..request.clone() };
            let (mut answers, mut split) = (Vec::new(), Vec::new());
            for sources in &world.leaves {
                let outcome = world.engine.tag_names(sources, &request).await.unwrap();
                assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
                split.extend_from_slice(&outcome.response.split_candidates);
                answers.push(outcome.response);
            }
            let whole = world.gather(&split).await;
            answers.push(world.engine.tag_names_of(whole, &request).await.unwrap());
            merge_tag_names(answers, 0)
        });
        let mut found = BTreeSet::new();
        for scope in &response.scopes {
            prop_assert!(scope.tags.is_sorted() && !scope.tags.is_empty());
            found.extend(scope.tags.iter().map(|name| (scope.name.as_str(), name.as_str())));
        }
        prop_assert_eq!(found, expected, "{}", request.query);
    }
}
