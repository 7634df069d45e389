//! What an answer looks like, and which requests are refused.

use std::sync::Arc;

use clew_block::SpanTable;
use clew_model::{ErrorKind, TraceId};
use clew_node::Tasks;
use clew_proto::common::v1::any_value::Value;
use clew_proto::query::v1::{SearchRequest, TagValuesRequest};
use clew_proto::tempopb::{Span, TraceSearchMetadata};
use clew_query::{
    Engine, QueryError, QueryLimits, SearchPlan, SpanSource, TableSource, decode_ids,
};

use super::run;
use super::spans::{Event, Resource, SpanModel, TraceModel, Val, encode};

fn span(id: u8) -> SpanModel {
    SpanModel {
        id,
        parent: 1,
        kind: 2,
        status: 2,
        start: 5_000_000 * u64::from(id),
        duration: 7_000_000,
        name: format!("op{id}"),
        a: Some(Val::Int(id.into())),
        b: None,
        resource: Resource { service: Some("shop".to_owned()), a: Some(Val::Text("r".to_owned())) },
        events: vec![Event { name: "e1".to_owned(), e: Some("x".to_owned()) }],
    }
}

fn engine(limits: QueryLimits) -> Engine {
    Engine::new(Tasks::new(1), limits)
}

fn source(traces: &[TraceModel]) -> Vec<Arc<dyn SpanSource>> {
    let mut table = SpanTable::new(1);
    for trace in traces {
        for span in &trace.spans {
            table.push(&encode(trace, span)).unwrap();
        }
    }
    let rows = table.row_count();
    vec![Arc::new(TableSource::sealed("a head", Arc::new(table), rows, Tasks::new(1)))]
}

fn request(query: &str) -> SearchRequest {
    SearchRequest {
        query: query.to_owned(),
        limit: 20,
        spans_per_spanset: 3,
        ..SearchRequest::default()
    }
}

fn search(query: &str, traces: &[TraceModel]) -> Result<Vec<TraceSearchMetadata>, QueryError> {
    let plan = SearchPlan::from_request(&request(query))?;
    let outcome = run(engine(QueryLimits::default()).search(&source(traces), &plan))?;
    assert!(outcome.failed.is_empty());
    Ok(outcome.response.traces.into_iter().filter_map(|found| found.metadata).collect())
}

fn attributes(span: &Span) -> Vec<(&str, Value)> {
    let value =
        |pair: &clew_proto::common::v1::KeyValue| pair.value.clone().unwrap().value.unwrap();
    span.attributes.iter().map(|pair| (pair.key.as_str(), value(pair))).collect()
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

#[test]
fn spans_show_what_the_query_mentions() {
    let trace = TraceModel { id: 9, spans: vec![span(2), span(3)] };
    let query = "{ span.a >= 2 && .a != nil && resource.service.name = `shop` && name =~ `op.*` \
                 && status = error && kind = server && duration > 1ms && event.e = `x` \
                 && event:name = `e1` && span.b = nil && rootName != `z` || trace:id != `1` \
                 && span:id != `1` && span:parentID != `1` && nestedSetParent < 5 }";
    let found = search(query, &[trace]).unwrap();
    let metadata = &found[0];
    assert_eq!(metadata.trace_id, "9".to_owned() + &"09".repeat(15));
    assert_eq!(metadata.root_service_name, "<root span not yet received>");
    assert_eq!(metadata.root_trace_name, "");
    assert_eq!((metadata.start_time_unix_nano, metadata.duration_ms), (10_000_000, 12));
    let stats = &metadata.service_stats["shop"];
    assert_eq!((stats.span_count, stats.error_count), (2, 2));
    let [set] = &metadata.span_sets[..] else { panic!("{:?}", metadata.span_sets) };
    assert_eq!(metadata.span_set, None, "whoever answers a client repeats the set");
    assert_eq!(set.matched, 2);
    let shown = &set.spans[0];
    assert_eq!((shown.span_id.as_str(), shown.name.as_str()), ("0202020202020202", "op2"));
    assert_eq!((shown.start_time_unix_nano, shown.duration_nanos), (10_000_000, 7_000_000));
    assert_eq!(
        attributes(shown),
        [
            ("a", Value::IntValue(2)),
            ("a", Value::IntValue(2)),
            ("service.name", text("shop")),
            ("status", text("error")),
            ("kind", text("server")),
            ("e", text("x")),
            ("event:name", text("e1")),
            ("b", text("nil")),
            ("span:parentID", text("0101010101010101")),
            ("nestedSetParent", Value::IntValue(0)),
        ]
    );
}

#[test]
fn a_fragment_is_a_candidate_by_what_it_alone_can_tell() {
    let child = TraceModel { id: 9, spans: vec![span(2)] };
    let root = SpanModel { parent: 0, name: "root".to_owned(), ..span(1) };
    let root = TraceModel { id: 9, spans: vec![root] };
    let sources = [source(&[child]), source(&[root])].concat();
    let plan = SearchPlan::from_request(&request("{ rootName = `root` && name = `op2` }")).unwrap();
    let plan = plan.with_split([TraceId([9; 16])]);
    run(async {
        let engine = engine(QueryLimits::default());
        let outcome = engine.search(&sources, &plan).await.unwrap();
        assert_eq!(outcome.response.traces, []);
        let ids = decode_ids(&outcome.response.split_candidates).unwrap();
        assert_eq!(ids, [TraceId([9; 16])]);
        let gathered = engine.fetch_traces(&sources, &ids).await.unwrap();
        let judged = engine.search_traces(gathered.response.traces, &plan).await.unwrap();
        assert_eq!(judged.traces[0].metadata.as_ref().unwrap().root_trace_name, "root");
    });
}

#[test]
fn the_name_is_shown_only_when_asked_for() {
    let trace = TraceModel { id: 9, spans: vec![span(2)] };
    let found = search("{ }", &[trace]).unwrap();
    let shown = &found[0].span_sets[0].spans[0];
    assert_eq!((shown.name.as_str(), shown.attributes.len()), ("", 0));
}

#[test]
fn constants_are_filters() {
    let traces = [TraceModel { id: 9, spans: vec![span(2)] }];
    for (query, found) in [("{}", 1), ("{ true }", 1), ("{ false }", 0), ("{ 1 = 2 }", 0)] {
        assert_eq!(search(query, &traces).unwrap().len(), found, "{query}");
    }
    assert!(SearchPlan::from_request(&request("{ false }")).unwrap().is_empty());
}

#[test]
fn requests_that_cannot_be_run_say_why() {
    let refused = |request: SearchRequest| {
        let error = SearchPlan::from_request(&request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    let parse = refused(request("{ .a = }"));
    assert!(parse.starts_with("invalid TraceQL query: parse error at line 1, col 8"), "{parse}");
    assert_eq!(refused(request("{} | rate()")), "TraceQL metrics are not supported yet");
    assert_eq!(
        refused(SearchRequest { limit: 0, ..request("{}") }),
        "invalid limit: must be greater than zero"
    );
    let late = SearchRequest { start_unix_nanos: 5, end_unix_nanos: 4, ..request("{}") };
    assert_eq!(refused(late), "invalid time range: end is before start");
    let durations = SearchRequest { min_duration_nanos: 5, max_duration_nanos: 4, ..request("{}") };
    assert_eq!(refused(durations), "invalid maxDuration: is less than minDuration");
    let split = SearchRequest { split_ids: vec![1; 17].into(), ..request("{}") };
    assert_eq!(refused(split), "invalid trace ids: not a multiple of 16: 17");
    let tags = |key: &str, query: &str| SearchRequest {
        tags: [(key.to_owned(), "x".to_owned())].into(),
        ..request(query)
    };
    assert_eq!(refused(tags("a", "{}")), "invalid search: tags and a query exclude each other");
    assert_eq!(
        refused(tags("status.code", "")),
        "invalid tags: status.code is ok, error or unset: x"
    );
}

#[test]
fn a_query_that_does_not_fit_the_data_fails() {
    let traces = [TraceModel { id: 9, spans: vec![SpanModel { b: Some(Val::Int(0)), ..span(2) }] }];
    let error = search("{ 1 / span.b > 0 }", &traces).unwrap_err();
    assert!(matches!(error, QueryError::Evaluate(_)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn work_is_bounded() {
    let traces: Vec<_> = (1..40).map(|id| TraceModel { id, spans: vec![span(2)] }).collect();
    let plan = SearchPlan::from_request(&request("{ name != `op3` }")).unwrap();
    let of = |limits| run(engine(limits).search(&source(&traces), &plan)).unwrap_err();
    let error = of(QueryLimits { inspected_spans_max: 5, ..QueryLimits::default() });
    assert!(error.to_string().contains("more than 5 spans"), "{error}");
    let error = of(QueryLimits { inspected_bytes_max: 99, ..QueryLimits::default() });
    assert!(error.to_string().contains("more than 99 bytes of spans"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

fn values(tag: &str, bytes_max: u64, traces: &[TraceModel]) -> Result<Vec<String>, QueryError> {
    let request =
        TagValuesRequest { tag: tag.to_owned(), bytes_max, ..TagValuesRequest::default() };
    let outcome = run(engine(QueryLimits::default()).tag_values(&source(traces), &request))?;
    Ok(outcome.response.values.into_iter().map(|value| value.value).collect())
}

#[test]
fn tag_values_are_whole_and_bounded_by_bytes() {
    let long = "y".repeat(1000);
    let with = |id, text: &str| {
        let a = Some(Val::Text(text.to_owned()));
        TraceModel { id, spans: vec![SpanModel { a, ..span(2) }] }
    };
    let traces = [with(1, "bb"), with(2, "a"), with(3, &long)];
    assert_eq!(values("span.a", 0, &traces).unwrap(), ["a", "bb", &long]);
    assert_eq!(values("span.a", 10, &traces).unwrap(), ["a", "bb"]);
    assert_eq!(values("span.a", 2, &traces).unwrap(), ["a"]);
}

#[test]
fn what_is_no_field_has_no_values() {
    for tag in ["", "span", "trace:name", ".a = 1", ".a != nil } || { .b", "parent.a"] {
        let error = values(tag, 0, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{tag}: {error}");
    }
    for tag in ["duration", "span:id", "trace:duration", "nestedSetLeft", "link:spanID"] {
        let traces = [TraceModel { id: 9, spans: vec![span(2)] }];
        assert_eq!(values(tag, 0, &traces).unwrap(), [""; 0], "{tag}");
    }
}

fn tree() -> TraceModel {
    let node = |id: u8, parent: u8, service: Option<&str>| SpanModel {
        parent,
        resource: Resource { service: service.map(str::to_owned), a: None },
        events: Vec::new(),
        ..span(id)
    };
    let spans =
        vec![node(1, 0, Some("web")), node(2, 1, Some("shop")), node(3, 1, None), node(4, 2, None)];
    TraceModel { id: 9, spans }
}

#[test]
fn groups_and_aggregates_are_said_of_each_spanset() {
    let query =
        "{} | by(resource.service.name) | count() >= 1 | avg(duration) > 1ms | max(span.a) > 0";
    let found = search(query, &[tree()]).unwrap();
    let sets = &found[0].span_sets;
    let said = |at: usize| -> Vec<(&str, Value)> {
        let value =
            |pair: &clew_proto::common::v1::KeyValue| pair.value.clone().unwrap().value.unwrap();
        sets[at].attributes.iter().map(|pair| (pair.key.as_str(), value(pair))).collect()
    };
    assert_eq!(sets.iter().map(|set| set.matched).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!(
        said(2),
        [
            ("by(resource.service.name)", text("nil")),
            ("count()", Value::IntValue(2)),
            ("avg(duration)", text("7ms")),
            ("max(span.a)", Value::IntValue(4)),
        ]
    );
    assert_eq!(said(0)[0], ("by(resource.service.name)", text("web")));
}

#[test]
fn structure_and_the_parent_are_shown_when_mentioned() {
    let query = "{ parent.a = 2 } | select(nestedSetLeft, nestedSetParent, span:childCount, \
                 parent.resource.service.name)";
    let found = search(query, &[tree()]).unwrap();
    let span = &found[0].span_sets[0].spans[0];
    assert_eq!(
        attributes(span),
        [
            ("parent.a", Value::IntValue(2)),
            ("nestedSetLeft", Value::IntValue(3)),
            ("nestedSetParent", Value::IntValue(2)),
            ("span:childCount", Value::IntValue(0)),
            ("parent.service.name", text("shop")),
        ]
    );
}

#[test]
fn several_spansets_on_a_side_of_a_structural_operator_are_an_error() {
    let error = search("({} | by(name)) >> {}", &[tree()]).unwrap_err();
    assert!(error.to_string().contains("coalesce()"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        search("({} | by(name) | coalesce()) > { name = `op4` }", &[tree()]).unwrap().len(),
        1
    );
    // Each group by itself is one spanset.
    assert!(search("{} | by(name) | { name = `op1` } > {}", &[tree()]).unwrap().is_empty());
}

#[test]
fn division_by_zero_in_a_scalar_fails_and_nil_compares_with_nothing() {
    let error = search("{} | count() / 0 > 1", &[tree()]).unwrap_err();
    assert!(error.to_string().contains("division by zero"), "{error}");
    assert!(search("{} | avg(span.nothing) != 1", &[tree()]).unwrap().is_empty());
}

#[test]
fn what_can_never_hold_reads_nothing() {
    for query in
        ["{ false } >> {}", "{} && { false }", "{} | { 1 = 2 }", "({ false } | count()) >= 0"]
    {
        assert!(SearchPlan::from_request(&request(query)).unwrap().is_empty(), "{query}");
    }
    for query in ["{ false } !>> {}", "{} || { false }", "{} | by(name)", "count() > 1"] {
        assert!(!SearchPlan::from_request(&request(query)).unwrap().is_empty(), "{query}");
    }
}
