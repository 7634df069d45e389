//! Search: TraceQL filters and legacy tags.

use clew_proto::query::v1::{FoundTrace, SearchRequest, SearchResponse};
use clew_query::QueryLimits;
use proptest::prelude::*;

use super::filters::{Expr, filters};
use super::run;
use super::spans::{SpanModel, TraceModel, Val};
use super::world::{Layout, World, layouts};

/// What of a found trace the tests compare.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    id: u8,
    start: u64,
    duration_ms: u32,
    root_service: String,
    root_name: String,
    /// Matched spans, and the ids of those shown.
    matched: Option<(u32, Vec<String>)>,
    services: Vec<(String, u32, u32)>,
}

/// Bounds so small that every search takes many steps.
pub fn tight() -> QueryLimits {
    QueryLimits {
        sources_at_once: 1,
        batch_traces_max: 2,
        batch_spans_max: 3,
        ..QueryLimits::default()
    }
}

fn expected(
    layout: &Layout,
    request: &SearchRequest,
    matches: impl Fn(&TraceModel) -> Option<Vec<&SpanModel>>,
    spansets: bool,
) -> Vec<Entry> {
    let end = if request.end_unix_nanos == 0 { u64::MAX } else { request.end_unix_nanos };
    let max = match request.max_duration_nanos {
        0 => u64::MAX,
        max => max,
    };
    let mut entries = Vec::new();
    for trace in &layout.traces {
        let duration = trace.end() - trace.start();
        let inside = trace.start() <= end && trace.end() >= request.start_unix_nanos;
        if !inside || !(request.min_duration_nanos..=max).contains(&duration) {
            continue;
        }
        let Some(spans) = matches(trace) else { continue };
        let shown = spans.iter().take(request.spans_per_spanset as usize);
        let ids = shown.map(|span| format!("{:02x}", span.id).repeat(8)).collect();
        entries.push(Entry {
            id: trace.id,
            start: trace.start(),
            duration_ms: 0,
            root_service: trace.root().map_or_else(
                || "<root span not yet received>".to_owned(),
                |root| root.resource.service.clone().unwrap_or_default(),
            ),
            root_name: trace.root().map(|root| root.name.clone()).unwrap_or_default(),
            matched: spansets.then(|| (u32::try_from(spans.len()).unwrap(), ids)),
            services: services(trace),
        });
    }
    entries.sort_by_key(|entry| (std::cmp::Reverse(entry.start), entry.id));
    entries.truncate(request.limit as usize);
    entries
}

fn services(trace: &TraceModel) -> Vec<(String, u32, u32)> {
    let mut services = std::collections::BTreeMap::<String, (u32, u32)>::new();
    for span in &trace.spans {
        let counts = services.entry(span.resource.service.clone().unwrap_or_default()).or_default();
        counts.0 += 1;
        counts.1 += u32::from(span.status == 2);
    }
    services.into_iter().map(|(name, (spans, errors))| (name, spans, errors)).collect()
}

fn entry(found: &FoundTrace) -> Entry {
    let metadata = found.metadata.as_ref().unwrap();
    assert_eq!(metadata.start_time_unix_nano, found.start_unix_nanos);
    assert_eq!(metadata.span_set, None);
    let id = found.trace_id[0];
    assert_eq!(metadata.trace_id, format!("{id:02x}").repeat(16).trim_start_matches('0'));
    Entry {
        id,
        start: found.start_unix_nanos,
        duration_ms: metadata.duration_ms,
        root_service: metadata.root_service_name.clone(),
        root_name: metadata.root_trace_name.clone(),
        matched: metadata
            .span_sets
            .first()
            .map(|set| (set.matched, set.spans.iter().map(|span| span.span_id.clone()).collect())),
        services: metadata
            .service_stats
            .iter()
            .map(|(name, stats)| (name.clone(), stats.span_count, stats.error_count))
            .collect(),
    }
}

fn answer(layout: &Layout, request: &SearchRequest, limits: QueryLimits) -> Vec<Entry> {
    let response: SearchResponse =
        run(async { World::build(layout, limits).await.search(request).await.unwrap() });
    response.traces.iter().map(entry).collect()
}

prop_compose! {
    pub fn requests()(
        limit in 1u32..8,
        spans_per_spanset in 0u32..4,
        range in prop::option::of((0u64..110, 0u64..60)),
        min in prop_oneof![3 => Just(0u64), 1 => 1u64..40],
        max in prop_oneof![3 => Just(0u64), 1 => 40u64..100],
    ) -> SearchRequest {
        let (start, end) = range.map_or((0, 0), |(start, length)| (start, start + length));
        SearchRequest {
            limit,
            spans_per_spanset,
            start_unix_nanos: start,
            end_unix_nanos: end,
            min_duration_nanos: min,
            max_duration_nanos: max,
            ..SearchRequest::default()
        }
    }
}

fn matching<'a>(filter: &Expr, trace: &'a TraceModel) -> Option<Vec<&'a SpanModel>> {
    let spans: Vec<_> = trace.spans.iter().filter(|span| filter.matches(trace, span)).collect();
    (!spans.is_empty()).then_some(spans)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn filters_find_exactly_what_they_should(
        layout in layouts(),
        filter in filters(),
        request in requests(),
        small_steps: bool,
    ) {
        let request = SearchRequest { query: format!("{{ {} }}", filter.text()), ..request };
        let limits = if small_steps { tight() } else { QueryLimits::default() };
        let expected = expected(&layout, &request, |trace| matching(&filter, trace), true);
        prop_assert_eq!(answer(&layout, &request, limits), expected, "{}", request.query);
    }

    #[test]
    fn legacy_tags_hold_somewhere_in_the_trace(
        layout in layouts(),
        request in requests(),
        tags in prop::collection::btree_map(
            prop::sample::select(vec!["a", "b", "name", "service.name", "root.name",
                "root.service.name", "status.code"]),
            prop::sample::select(vec!["x", "y", "1", "true"]),
            0..3,
        ),
    ) {
        let value = |key: &str, value: &str| match (key, value) {
            ("status.code", "x") => "ok".to_owned(),
            ("status.code", _) => "error".to_owned(),
            (_, value) => value.to_owned(),
        };
        let tags: std::collections::BTreeMap<String, String> =
            tags.into_iter().map(|(key, wanted)| (key.to_owned(), value(key, wanted))).collect();
        let request = SearchRequest { tags: tags.clone(), ..request };
        let holds = |trace: &TraceModel| {
            tags.iter().all(|(key, value)| trace.spans.iter().any(|span| tag(trace, span, key, value)))
        };
        let expected = expected(&layout, &request, |trace| holds(trace).then(Vec::new), false);
        prop_assert_eq!(answer(&layout, &request, QueryLimits::default()), expected);
    }
}

fn tag(trace: &TraceModel, span: &SpanModel, key: &str, wanted: &str) -> bool {
    let root = trace.root();
    let service = |span: &SpanModel| span.resource.service.clone().unwrap_or_default();
    let equal = |value: &Option<Val>| match value {
        Some(Val::Text(text)) => text == wanted,
        Some(Val::Int(number)) => number.to_string() == wanted,
        Some(Val::Truth(truth)) => truth.to_string() == wanted,
        Some(Val::Texts(texts)) => texts.iter().any(|text| text == wanted),
        None => false,
    };
    match key {
        "a" => equal(&span.a) || equal(&span.resource.a),
        "b" => equal(&span.b),
        "name" => span.name.contains(wanted),
        "service.name" => service(span).contains(wanted),
        "root.name" => root.is_some_and(|root| root.name.contains(wanted)),
        "root.service.name" => root.is_some_and(|root| service(root).contains(wanted)),
        "status.code" => span.status == if wanted == "ok" { 1 } else { 2 },
        other => unreachable!("{other}"),
    }
}
