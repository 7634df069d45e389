//! What is checked: writing a known trace, and finding it by each way of reading.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clew_node::Clock;
use serde_json::Value;

use super::Outcome;
use super::door::{Answer, Door};
use super::trace::{ID_ATTRIBUTE, KnownTrace, SERVICE};

/// Before a way of reading that did not find the trace is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// What can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// Writing a trace.
    Write,
    /// Reading it by its id.
    Trace,
    /// Finding it by an attribute.
    Search,
    /// Finding its service among the values of a tag.
    Tags,
    /// Counting its spans by a metrics query.
    Metrics,
    /// Reading one that was written earlier by its id.
    Older,
}

impl Check {
    pub(super) const ALL: [Check; 6] =
        [Check::Write, Check::Trace, Check::Search, Check::Tags, Check::Metrics, Check::Older];

    /// The ways to read a trace that was just written.
    pub(super) const OF_NEW: [Check; 4] =
        [Check::Trace, Check::Search, Check::Tags, Check::Metrics];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Check::Write => "write",
            Check::Trace => "trace",
            Check::Search => "search",
            Check::Tags => "tags",
            Check::Metrics => "metrics",
            Check::Older => "older",
        }
    }
}

/// Writes a trace; one attempt.
pub(super) async fn write(
    door: &Door,
    known: &KnownTrace,
    timeout: Duration,
    clock: &Clock,
) -> Outcome {
    let request = known.export();
    match clock.timeout(timeout, door.export(&request)).await {
        None => Outcome::Error(format!("no acknowledgement within {timeout:?}")),
        Some(Err(message)) => Outcome::Error(message),
        Some(Ok(answer)) => judge_write(&answer),
    }
}

fn judge_write(answer: &Answer) -> Outcome {
    if answer.status != 200 {
        return Outcome::Error(format!("{}: {}", answer.status, answer.text));
    }
    // OTLP/JSON writes 64 bit numbers as texts.
    match &answer.body["partialSuccess"]["rejectedSpans"] {
        Value::Null => Outcome::Ok,
        Value::String(count) if count == "0" => Outcome::Ok,
        Value::Number(count) if count.as_u64() == Some(0) => Outcome::Ok,
        _ => Outcome::Wrong(format!("spans were rejected: {}", answer.text)),
    }
}

/// Looks for the trace until it is found or `timeout` is over. What is not there yet, does not answer
/// or answers in part may be better the next time; what is wrong will not.
pub(super) async fn find(
    check: Check,
    door: &Door,
    known: &KnownTrace,
    timeout: Duration,
    clock: &Clock,
) -> Outcome {
    let until = clock.monotonic() + timeout;
    loop {
        let left = until.saturating_sub(clock.monotonic());
        let asked = clock.timeout(left, ask(check, door, known)).await;
        let outcome = match asked {
            None => Outcome::Error(format!("no answer within {timeout:?}")),
            Some(Err(message)) => Outcome::Error(message),
            Some(Ok(answer)) => judge(check, &answer, known),
        };
        let is_final = matches!(outcome, Outcome::Ok | Outcome::Wrong(_) | Outcome::Skipped(_));
        if is_final || clock.monotonic() + RETRY_DELAY >= until {
            return outcome;
        }
        clock.sleep(RETRY_DELAY).await;
    }
}

async fn ask(check: Check, door: &Door, known: &KnownTrace) -> Result<Answer, String> {
    let selector = format!("{{ span.{ID_ATTRIBUTE} = \"{}\" }}", known.id);
    // Ages pass; the range of a query is around the trace, not around now.
    let seconds = known.start / 1_000_000_000;
    let (start, end) = ((seconds - 60).to_string(), (seconds + 60).to_string());
    let range = [("start", start.as_str()), ("end", end.as_str())];
    let with = |q| [("q", q), range[0], range[1]];
    match check {
        Check::Search => door.ask("/api/search", &with(selector.as_str())).await,
        Check::Tags => {
            let path = "/api/v2/search/tag/resource.service.name/values";
            door.ask(path, &with(selector.as_str())).await
        }
        Check::Metrics => {
            let q = format!("{selector} | count_over_time()");
            let [q, start, end] = with(q.as_str());
            door.ask("/api/metrics/query_range", &[q, start, end, ("step", "60s")]).await
        }
        Check::Write | Check::Trace | Check::Older => {
            door.ask(&format!("/api/v2/traces/{}", known.trace_id), &[]).await
        }
    }
}

fn judge(check: Check, answer: &Answer, known: &KnownTrace) -> Outcome {
    let not_there = matches!(answer.status, 400 | 404 | 501);
    match (answer.status, check) {
        (200, _) => {}
        (_, Check::Metrics) if not_there => {
            return Outcome::Skipped(answer.text.clone());
        }
        (404, Check::Trace | Check::Older) => return Outcome::Missing,
        (status, _) => return Outcome::Error(format!("{status}: {}", answer.text)),
    }
    if answer.body["status"] == "PARTIAL" {
        let message = answer.body["message"].as_str().unwrap_or_default();
        return Outcome::Partial(message.to_owned());
    }
    match check {
        Check::Search => judge_search(&answer.body, known),
        Check::Tags => judge_tags(&answer.body),
        Check::Metrics => judge_metrics(&answer.body, known),
        Check::Write | Check::Trace | Check::Older => judge_trace(&answer.body, known),
    }
}

fn judge_trace(body: &Value, known: &KnownTrace) -> Outcome {
    let mut found = Vec::new();
    span_ids(&body["trace"], &mut found);
    let ids: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    let expected: BTreeSet<&str> = known.span_ids.iter().map(String::as_str).collect();
    if ids.len() != found.len() {
        Outcome::Wrong(format!("a span is there twice: {found:?}"))
    } else if !ids.is_subset(&expected) {
        Outcome::Wrong(format!("spans that were not written: {found:?}"))
    } else if ids == expected {
        Outcome::Ok
    } else {
        Outcome::Missing
    }
}

/// Collects the ids of spans, wherever in the message they are: in digits or in base 64.
fn span_ids(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| span_ids(item, found)),
        Value::Object(fields) => {
            if let (Some(Value::String(id)), true) =
                (fields.get("spanId"), fields.contains_key("startTimeUnixNano"))
            {
                found.push(digits(id));
            }
            fields.values().for_each(|field| span_ids(field, found));
        }
        _ => {}
    }
}

/// The id as digits. Tempo's JSON has ids in base 64, OTLP's in digits.
fn digits(id: &str) -> String {
    let is_digits = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digits {
        return id.to_ascii_lowercase();
    }
    match BASE64_STANDARD.decode(id) {
        Ok(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Err(_) => id.to_owned(),
    }
}

fn judge_search(body: &Value, known: &KnownTrace) -> Outcome {
    let Some(traces) = body["traces"].as_array() else { return Outcome::Missing };
    let ids: Vec<String> = traces
        .iter()
        .map(|trace| format!("{:0>32}", trace["traceID"].as_str().unwrap_or_default()))
        .collect();
    match ids.as_slice() {
        [] => Outcome::Missing,
        [only] if *only == known.trace_id => Outcome::Ok,
        _ => Outcome::Wrong(format!("a search for one trace found {ids:?}")),
    }
}

fn judge_tags(body: &Value) -> Outcome {
    let values = body["tagValues"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = values.iter().filter_map(|value| value["value"].as_str()).collect();
    match names.as_slice() {
        [] => Outcome::Missing,
        [SERVICE] => Outcome::Ok,
        _ => Outcome::Wrong(format!("the trace has one service, found {names:?}")),
    }
}

fn judge_metrics(body: &Value, known: &KnownTrace) -> Outcome {
    let series = body["series"].as_array().map(Vec::as_slice).unwrap_or_default();
    let samples = series.iter().filter_map(|series| series["samples"].as_array()).flatten();
    let sum: f64 = samples.filter_map(|sample| sample["value"].as_f64()).sum();
    #[allow(clippy::cast_precision_loss, reason = "three")]
    let expected = known.span_ids.len() as f64;
    if sum == expected {
        Outcome::Ok
    } else if sum < expected {
        Outcome::Missing
    } else {
        Outcome::Wrong(format!("{expected} spans are counted as {sum}"))
    }
}

#[cfg(test)]
mod tests {
    use clew_model::UnixNanos;
    use clew_node::Rng;
    use serde_json::json;

    use super::*;

    fn known() -> KnownTrace {
        KnownTrace::new(&Rng::seeded(7), UnixNanos::from_seconds(1_700_000_000))
    }

    fn answer(status: u16, body: Value) -> Answer {
        Answer { status, text: body.to_string(), body }
    }

    fn trace(ids: &[&str]) -> Value {
        let spans: Vec<Value> =
            ids.iter().map(|id| json!({"spanId": id, "startTimeUnixNano": "1"})).collect();
        json!({"trace": {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}})
    }

    #[test]
    fn a_trace_is_ok_only_with_exactly_its_spans() {
        let known = known();
        let [a, b, c] = [0, 1, 2].map(|n| known.span_ids[n].as_str());
        let judged = |ids: &[&str]| judge(Check::Trace, &answer(200, trace(ids)), &known);
        assert_eq!(judged(&[a, b, c]), Outcome::Ok);
        assert_eq!(judged(&[c, a]), Outcome::Missing);
        assert_eq!(judged(&[]), Outcome::Missing);
        assert!(matches!(judged(&[a, b, c, c]), Outcome::Wrong(_)));
        assert!(matches!(judged(&[a, b, c, "00000000000000ff"]), Outcome::Wrong(_)));
        assert_eq!(judge(Check::Trace, &answer(404, Value::Null), &known), Outcome::Missing);
        let mut partial = trace(&[a]);
        partial["status"] = json!("PARTIAL");
        let judged = judge(Check::Trace, &answer(200, partial), &known);
        assert!(matches!(judged, Outcome::Partial(_)));
    }

    #[test]
    fn ids_are_read_in_both_forms() {
        assert_eq!(digits("00f067aa0ba902b7"), "00f067aa0ba902b7");
        assert_eq!(digits("APBnqgupArc="), "00f067aa0ba902b7");
    }

    #[test]
    fn searches_tags_and_counts_are_judged() {
        let known = known();
        let search = |ids: &[&str]| {
            let traces: Vec<Value> = ids.iter().map(|id| json!({"traceID": id})).collect();
            judge(Check::Search, &answer(200, json!({"traces": traces})), &known)
        };
        assert_eq!(search(&[known.trace_id.trim_start_matches('0')]), Outcome::Ok);
        assert_eq!(search(&[]), Outcome::Missing);
        assert!(matches!(search(&["1"]), Outcome::Wrong(_)));
        let tags =
            |values: Value| judge(Check::Tags, &answer(200, json!({"tagValues": values})), &known);
        assert_eq!(tags(json!([{"type": "string", "value": SERVICE}])), Outcome::Ok);
        assert_eq!(tags(json!([])), Outcome::Missing);
        let count = |values: Value| {
            let body = json!({"series": [{"samples": values}]});
            judge(Check::Metrics, &answer(200, body), &known)
        };
        assert_eq!(count(json!([{"value": 1.0}, {"value": 2.0}])), Outcome::Ok);
        assert_eq!(count(json!([])), Outcome::Missing);
        assert!(matches!(count(json!([{"value": 4.0}])), Outcome::Wrong(_)));
        let unsupported = judge(Check::Metrics, &answer(400, Value::Null), &known);
        assert!(matches!(unsupported, Outcome::Skipped(_)));
        let failed = judge(Check::Metrics, &answer(500, Value::Null), &known);
        assert!(matches!(failed, Outcome::Error(_)));
    }

    #[test]
    fn a_write_is_ok_only_if_nothing_was_rejected() {
        assert_eq!(judge_write(&answer(200, json!({}))), Outcome::Ok);
        assert_eq!(judge_write(&answer(200, json!({"partialSuccess": {}}))), Outcome::Ok);
        let rejected = json!({"partialSuccess": {"rejectedSpans": "1"}});
        assert!(matches!(judge_write(&answer(200, rejected)), Outcome::Wrong(_)));
        assert!(matches!(judge_write(&answer(503, Value::Null)), Outcome::Error(_)));
    }
}
