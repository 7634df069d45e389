//! Comparison of a search answer with the traces it must return.

use std::collections::{BTreeMap, HashMap, HashSet};

use clew_model::TraceId;
use http::StatusCode;
use serde::Deserialize;

use super::{Differences, Order, parse_json};
use crate::expect::{Hit, TraceFacts};
use crate::target::SPANS_PER_SET;

/// The facts about all traces, by id.
pub struct Index<'a> {
    traces: &'a [TraceFacts],
    by_id: HashMap<TraceId, usize>,
}

impl<'a> Index<'a> {
    /// Of these traces.
    pub fn new(traces: &'a [TraceFacts]) -> Index<'a> {
        let by_id = traces.iter().enumerate().map(|(at, trace)| (trace.id, at)).collect();
        Index { traces, by_id }
    }

    fn is_unsure(&self, id: TraceId) -> bool {
        self.by_id.get(&id).is_some_and(|at| !self.traces[*at].sure)
    }
}

#[derive(Deserialize)]
struct SearchAnswer {
    #[serde(default)]
    traces: Vec<FoundTrace>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FoundTrace {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(default)]
    root_service_name: String,
    #[serde(default)]
    root_trace_name: String,
    start_time_unix_nano: String,
    #[serde(default)]
    duration_ms: u64,
    #[serde(default)]
    span_sets: Vec<FoundSet>,
    #[serde(default)]
    service_stats: BTreeMap<String, FoundStats>,
}

#[derive(Deserialize)]
struct FoundSet {
    #[serde(default)]
    matched: u64,
    #[serde(default)]
    spans: Vec<FoundSpan>,
}

#[derive(Deserialize)]
struct FoundSpan {
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FoundStats {
    #[serde(default)]
    span_count: u64,
    #[serde(default)]
    error_count: u64,
}

/// Whether a search answer names the trace.
pub fn names_trace(status: StatusCode, body: &[u8], id: TraceId) -> bool {
    parse_json::<SearchAnswer>(status, body).is_ok_and(|answer| {
        answer.traces.iter().any(|trace| TraceId::parse_padded(&trace.trace_id) == Ok(id))
    })
}

/// What is wrong with a search answer; empty if nothing is. `hits` are the traces that match,
/// newest first. Nothing is claimed about traces of which some spans have an unknown fate: they may
/// be there or not.
pub fn compare_search(
    hits: &[Hit],
    index: &Index<'_>,
    limit: usize,
    order: Order,
    status: StatusCode,
    body: &[u8],
) -> Vec<String> {
    let answer: SearchAnswer = match parse_json(status, body) {
        Ok(answer) => answer,
        Err(reason) => return vec![reason],
    };
    let mut differences = Differences::default();
    if answer.status.as_deref() == Some("PARTIAL") {
        differences.add(format!("partial: {}", answer.message.unwrap_or_default()));
    }
    if answer.traces.len() > limit {
        differences.add(format!("{} traces instead of at most {limit}", answer.traces.len()));
    }
    let mut found = Vec::with_capacity(answer.traces.len());
    let mut seen = HashSet::new();
    for trace in &answer.traces {
        let Ok(id) = TraceId::parse_padded(&trace.trace_id) else {
            differences.add(format!("not a trace id: {}", trace.trace_id));
            continue;
        };
        if !seen.insert(id) {
            differences.add(format!("trace {id} is there more than once"));
        }
        found.push((id, trace));
    }
    let full = found.len() >= limit;
    found.retain(|(id, _)| !index.is_unsure(*id));
    let sure = |hit: &&Hit| index.traces[hit.trace].sure;
    let wanted: Vec<&Hit> = hits.iter().filter(sure).collect();
    match order {
        Order::Newest => {
            // When the limit cut the answer off, unsure traces in it stand for as many sure ones.
            let count = if full { found.len() } else { wanted.len() };
            let wanted = &wanted[..count.min(wanted.len())];
            compare_order(wanted, &found, index, &mut differences);
            compare_facts(wanted, &found, index, &mut differences);
        }
        Order::Any => {
            let count = if full { found.len() } else { wanted.len() };
            compare_choice(&wanted, &found, count, index, &mut differences);
        }
    }
    differences.into_lines()
}

fn compare_order(
    wanted: &[&Hit],
    found: &[(TraceId, &FoundTrace)],
    index: &Index<'_>,
    differences: &mut Differences,
) {
    let wanted: Vec<TraceId> = wanted.iter().map(|hit| index.traces[hit.trace].id).collect();
    let ids: Vec<TraceId> = found.iter().map(|(id, _)| *id).collect();
    if wanted == ids {
        return;
    }
    differences.add(format!("{} traces, {} expected", ids.len(), wanted.len()));
    let (wanted_set, found_set): (HashSet<_>, HashSet<_>) =
        (wanted.iter().collect(), ids.iter().collect());
    let name = |id: &TraceId| match index.by_id.get(id) {
        Some(at) => format!("{id} (start {})", index.traces[*at].start),
        None => format!("{id} (never sent)"),
    };
    for (at, id) in wanted.iter().enumerate().filter(|(_, id)| !found_set.contains(id)).take(2) {
        differences.add(format!("position {at}: {} is missing", name(id)));
    }
    for (at, id) in ids.iter().enumerate().filter(|(_, id)| !wanted_set.contains(id)).take(2) {
        differences.add(format!("position {at}: {} should not be there", name(id)));
    }
    let swapped = wanted.iter().zip(&ids).position(|(wanted, found)| wanted != found);
    if let Some(at) = swapped.filter(|_| wanted_set == found_set) {
        differences.add(format!(
            "position {at}: {} instead of {}",
            name(&ids[at]),
            name(&wanted[at])
        ));
    }
}

fn compare_choice(
    wanted: &[&Hit],
    found: &[(TraceId, &FoundTrace)],
    count: usize,
    index: &Index<'_>,
    differences: &mut Differences,
) {
    let wanted: HashSet<TraceId> = wanted.iter().map(|hit| index.traces[hit.trace].id).collect();
    if found.len() != count {
        differences.add(format!("{} traces, {count} expected", found.len()));
    }
    for (id, _) in found.iter().filter(|(id, _)| !wanted.contains(id)) {
        differences.add(format!("{id} does not match"));
    }
}

fn compare_facts(
    wanted: &[&Hit],
    found: &[(TraceId, &FoundTrace)],
    index: &Index<'_>,
    differences: &mut Differences,
) {
    let matched: HashMap<TraceId, u32> =
        wanted.iter().map(|hit| (index.traces[hit.trace].id, hit.matched)).collect();
    for (id, trace) in found {
        let (Some(at), Some(&matched)) = (index.by_id.get(id), matched.get(id)) else { continue };
        let facts = &index.traces[*at];
        let mut compare = |what: &str, found: String, wanted: String| {
            if found != wanted {
                differences.add(format!("trace {id}: {what} is {found}, not {wanted}"));
            }
        };
        let millis = (facts.end - facts.start) / 1_000_000;
        compare("start", trace.start_time_unix_nano.clone(), facts.start.to_string());
        compare("duration in ms", trace.duration_ms.to_string(), millis.to_string());
        compare("root service", trace.root_service_name.clone(), facts.root_service.to_string());
        compare("root name", trace.root_trace_name.clone(), facts.root_name.to_string());
        let stats = trace.service_stats.values();
        let spans: u64 = stats.clone().map(|stats| stats.span_count).sum();
        let errors: u64 = stats.map(|stats| stats.error_count).sum();
        compare("span count", spans.to_string(), facts.spans.to_string());
        compare("error count", errors.to_string(), facts.errors.to_string());
        let found_matched: u64 = trace.span_sets.iter().map(|set| set.matched).sum();
        compare("matched", found_matched.to_string(), matched.to_string());
        let spans: Vec<&str> = trace
            .span_sets
            .iter()
            .flat_map(|set| &set.spans)
            .map(|span| span.span_id.as_str())
            .collect();
        let shown = (matched as usize).min(SPANS_PER_SET);
        compare("shown spans", spans.len().to_string(), shown.to_string());
        let different: HashSet<&&str> = spans.iter().collect();
        compare("different shown spans", different.len().to_string(), spans.len().to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn facts(number: u8, sure: bool) -> TraceFacts {
        TraceFacts {
            id: TraceId([number; 16]),
            tenant: 0,
            start: 1000 - u64::from(number),
            end: 5_001_000,
            root_service: Arc::from("shop"),
            root_name: Arc::from("GET /"),
            spans: 3,
            errors: 1,
            sure,
        }
    }

    fn trace(facts: &TraceFacts) -> serde_json::Value {
        json!({
            "traceID": facts.id.to_short_hex(),
            "rootServiceName": "shop",
            "rootTraceName": "GET /",
            "startTimeUnixNano": facts.start.to_string(),
            "durationMs": 5,
            "spanSets": [{"matched": 1, "spans": [{"spanID": "01"}]}],
            "serviceStats": {"shop": {"spanCount": 2, "errorCount": 1}, "db": {"spanCount": 1}},
        })
    }

    struct Case {
        facts: Vec<TraceFacts>,
        limit: usize,
        order: Order,
    }

    impl Case {
        fn compare(&self, answered: &[usize]) -> Vec<String> {
            let traces: Vec<_> = answered.iter().map(|at| trace(&self.facts[*at])).collect();
            self.compare_json(&json!({ "traces": traces }))
        }

        fn compare_json(&self, body: &serde_json::Value) -> Vec<String> {
            let hits: Vec<_> =
                (0..self.facts.len()).map(|trace| Hit { trace, matched: 1 }).collect();
            let index = Index::new(&self.facts);
            let body = body.to_string();
            compare_search(&hits, &index, self.limit, self.order, StatusCode::OK, body.as_bytes())
        }
    }

    fn sure(count: u8, limit: usize, order: Order) -> Case {
        Case { facts: (1..=count).map(|number| facts(number, true)).collect(), limit, order }
    }

    #[test]
    fn newest_first_must_be_exact() {
        let case = sure(3, 10, Order::Newest);
        assert_eq!(case.compare(&[0, 1, 2]), Vec::<String>::new());
        assert!(!case.compare(&[0, 2, 1]).is_empty());
        assert!(!case.compare(&[0, 1]).is_empty());
        assert!(!case.compare(&[0, 1, 2, 2]).is_empty());
        let cut = sure(3, 2, Order::Newest);
        assert_eq!(cut.compare(&[0, 1]), Vec::<String>::new());
        assert!(!cut.compare(&[0, 2]).is_empty());
        assert!(!cut.compare(&[0]).is_empty());
        assert!(!cut.compare(&[0, 1, 2]).is_empty());
    }

    #[test]
    fn any_order_takes_every_choice_of_the_right_size() {
        let case = sure(3, 2, Order::Any);
        assert_eq!(case.compare(&[2, 0]), Vec::<String>::new());
        assert!(!case.compare(&[2]).is_empty());
        let all = sure(3, 3, Order::Any);
        assert_eq!(all.compare(&[2, 0, 1]), Vec::<String>::new());
    }

    #[test]
    fn unsure_traces_may_be_there_or_not() {
        let mut case = sure(4, 10, Order::Newest);
        case.facts[1].sure = false;
        assert_eq!(case.compare(&[0, 1, 2, 3]), Vec::<String>::new());
        assert_eq!(case.compare(&[0, 2, 3]), Vec::<String>::new());
        assert!(!case.compare(&[0, 1, 2]).is_empty());
        case.limit = 3;
        assert_eq!(case.compare(&[0, 1, 2]), Vec::<String>::new());
        assert_eq!(case.compare(&[0, 2, 3]), Vec::<String>::new());
        assert!(!case.compare(&[0, 1, 3]).is_empty());
    }

    #[test]
    fn every_fact_is_compared() {
        let case = sure(1, 10, Order::Newest);
        let changes = [
            ("/rootServiceName", json!("x")),
            ("/rootTraceName", json!("x")),
            ("/startTimeUnixNano", json!("1")),
            ("/durationMs", json!(6)),
            ("/spanSets/0/matched", json!(2)),
            ("/spanSets/0/spans", json!([])),
            ("/serviceStats/db/spanCount", json!(2)),
            ("/serviceStats/db/errorCount", json!(2)),
        ];
        for (pointer, value) in changes {
            let mut trace = trace(&case.facts[0]);
            match trace.pointer_mut(pointer) {
                Some(place) => *place = value,
                None => trace["serviceStats"]["db"]["errorCount"] = value,
            }
            let found = case.compare_json(&json!({ "traces": [trace] }));
            assert_eq!(found.len(), 1, "{pointer}: {found:?}");
        }
    }

    #[test]
    fn partial_and_broken_answers_are_noticed() {
        let case = sure(0, 10, Order::Newest);
        assert_eq!(case.compare_json(&json!({})), Vec::<String>::new());
        assert!(!case.compare_json(&json!({ "status": "PARTIAL" })).is_empty());
        assert!(!case.compare_json(&json!([])).is_empty());
        let index = Index::new(&[]);
        let status = StatusCode::BAD_REQUEST;
        assert!(!compare_search(&[], &index, 1, Order::Any, status, b"no").is_empty());
    }

    #[test]
    fn a_named_trace_is_found_without_leading_zeros() {
        let mut id = [0; 16];
        id[15] = 0x0a;
        let body = json!({ "traces": [{ "traceID": "a", "startTimeUnixNano": "1" }] }).to_string();
        assert!(names_trace(StatusCode::OK, body.as_bytes(), TraceId(id)));
        assert!(!names_trace(StatusCode::OK, body.as_bytes(), TraceId([1; 16])));
    }
}
