//! Comparison of a trace fetched by id with the spans that were sent: each there, once, with
//! everything that was said about it.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use clew_model::otlp::view::{ScopeView, resource_attributes};
use clew_model::otlp::{AnyValueView, KeyValueView, SpanView};
use clew_model::trace::SpanRecord;
use clew_model::wire::{Reader, WireError};
use clew_model::{Trace, TraceId, UnixNanos};
use http::StatusCode;

use super::{Differences, excerpt};

/// The content of a span, independent of how it is encoded and in which order its attributes are.
type Content = String;
/// What makes a span itself within a trace: its id and its kind.
type Identity = (Vec<u8>, i32);

/// The spans of a trace as they were sent.
#[derive(Debug)]
pub struct Expected {
    id: TraceId,
    /// Content, and whether the span was acknowledged for sure.
    spans: BTreeMap<Identity, (Content, bool)>,
}

impl Expected {
    /// From the OTLP bytes of the spans whose fate is known, and of the others.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no OTLP; generated ones are.
    pub fn new(id: TraceId, acked: &Bytes, unknown: &Bytes) -> Result<Expected, WireError> {
        let mut spans = BTreeMap::new();
        for (bytes, sure) in [(acked, true), (unknown, false)] {
            for record in decode(bytes)? {
                let (identity, content) = read(&record)?;
                spans.insert(identity, (content, sure));
            }
        }
        Ok(Expected { id, spans })
    }
}

fn decode(bytes: &Bytes) -> Result<Vec<SpanRecord>, WireError> {
    let traces = Trace::decode(bytes).map_err(|_| WireError::Truncated)?;
    Ok(traces.into_iter().flat_map(|trace| trace.spans).collect())
}

/// What is wrong with the answer of `/api/v2/traces/{id}`; empty if nothing is.
pub fn compare_trace(expected: &Expected, status: StatusCode, body: &Bytes) -> Vec<String> {
    let mut differences = Differences::default();
    // If nothing is known to be stored, nothing may be there.
    let may_be_absent = !expected.spans.values().any(|(_, sure)| *sure);
    if may_be_absent && is_absent(status, body) {
        return Vec::new();
    }
    if status != StatusCode::OK {
        return vec![format!("HTTP {status}: {}", excerpt(body))];
    }
    let traces = match parse(body) {
        Ok(answer) => {
            if answer.partial {
                differences.add(format!("partial: {}", answer.message));
            }
            answer.traces
        }
        Err(reason) => return vec![reason],
    };
    let mut found: BTreeMap<Identity, u32> = BTreeMap::new();
    for record in traces.iter().flat_map(|trace| &trace.spans) {
        let (identity, content) = match read(record) {
            Ok(span) => span,
            Err(error) => return vec![format!("a span does not parse: {error}")],
        };
        let name = hex(&identity);
        let count = found.entry(identity.clone()).or_default();
        *count += 1;
        if *count == 2 {
            differences.add(format!("span {name} is there more than once"));
        }
        match expected.spans.get(&identity) {
            None => differences.add(format!("span {name} was never sent: {content}")),
            Some((wanted, _)) if *wanted != content => {
                differences.add(format!("span {name} differs: {}", describe(wanted, &content)));
            }
            Some(_) => {}
        }
    }
    for trace in traces.iter().filter(|trace| trace.id != expected.id) {
        differences.add(format!("spans of another trace: {}", trace.id));
    }
    let missing: Vec<_> = expected
        .spans
        .iter()
        .filter(|(identity, (_, sure))| *sure && !found.contains_key(*identity))
        .collect();
    if !missing.is_empty() {
        let count = expected.spans.len();
        differences.add(format!("{} of {count} acknowledged spans are missing", missing.len()));
        for (identity, _) in missing {
            differences.add(format!("span {} is missing", hex(identity)));
        }
    }
    differences.into_lines()
}

/// Whether the answer says that there is no such trace: 404, or an empty trace as Tempo answers.
pub fn is_absent(status: StatusCode, body: &Bytes) -> bool {
    match status {
        StatusCode::NOT_FOUND => true,
        StatusCode::OK => parse(body).is_ok_and(|answer| answer.traces.is_empty()),
        _ => false,
    }
}

/// Whether the answer of a query by id holds the span.
pub fn holds_span(body: &Bytes, span: clew_model::SpanId) -> bool {
    let Ok(answer) = parse(body) else { return false };
    answer
        .traces
        .iter()
        .flat_map(|trace| &trace.spans)
        .any(|record| SpanView::parse(&record.bytes).is_ok_and(|view| view.span() == Some(span)))
}

/// A `TraceByIDResponse`.
struct ById {
    traces: Vec<Trace>,
    partial: bool,
    message: String,
}

fn parse(body: &Bytes) -> Result<ById, String> {
    let mut answer = ById { traces: Vec::new(), partial: false, message: String::new() };
    let wrong = |error: WireError| format!("answer does not parse: {error}");
    let mut reader = Reader::new(body);
    while let Some(field) = reader.next_field().map_err(wrong)? {
        match field.number {
            1 => {
                let trace = field.bytes().map_err(wrong)?;
                let trace = if trace.is_empty() { Bytes::new() } else { body.slice_ref(trace) };
                let traces = Trace::decode(&trace).map_err(|error| format!("no trace: {error}"))?;
                answer.traces.extend(traces);
            }
            3 => answer.partial = field.varint().map_err(wrong)? != 0,
            4 => answer.message = field.text().map_err(wrong)?.to_owned(),
            _ => {}
        }
    }
    Ok(answer)
}

fn hex(identity: &Identity) -> String {
    format!("{} kind {}", clew_model::id::to_hex(&identity.0), identity.1)
}

/// Identity and content of a span.
fn read(record: &SpanRecord) -> Result<(Identity, Content), WireError> {
    let span = SpanView::parse(&record.bytes)?;
    let identity = (span.span_id.to_vec(), span.kind);
    let mut text = String::new();
    let parent = clew_model::id::to_hex(span.parent_span_id);
    let (start, end) = (UnixNanos(span.start_unix_nanos).0, span.end_unix_nanos);
    put(&mut text, "parent", &parent);
    put(&mut text, "name", &span.name);
    put(&mut text, "time", &(start, end));
    put(&mut text, "status", &(span.status_code, span.status_message));
    put(&mut text, "state", &span.trace_state);
    put(&mut text, "attributes", &sorted(span.attributes())?);
    for event in span.events() {
        let event = event?;
        put(&mut text, "event", &(event.time_unix_nanos, event.name));
        put(&mut text, "event attributes", &sorted(event.attributes())?);
    }
    for link in span.links() {
        let link = link?;
        put(&mut text, "link", &(link.trace_id, link.span_id));
        put(&mut text, "link attributes", &sorted(link.attributes())?);
    }
    put(&mut text, "resource", &sorted(resource_attributes(&record.resource.bytes))?);
    let scope = ScopeView::parse(&record.scope.bytes)?;
    put(&mut text, "scope", &(scope.name, scope.version));
    Ok((identity, text))
}

fn put(text: &mut String, what: &str, value: &dyn std::fmt::Debug) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{what} {value:?}");
}

fn sorted<'a>(
    attributes: impl Iterator<Item = Result<KeyValueView<'a>, WireError>>,
) -> Result<Vec<String>, WireError> {
    let mut texts = attributes
        .map(|pair| {
            let pair = pair?;
            Ok(match pair.value {
                AnyValueView::Array(raw) | AnyValueView::KeyValueList(raw) => {
                    format!("{}={}", pair.key, clew_model::id::to_hex(raw))
                }
                value => format!("{}={value:?}", pair.key),
            })
        })
        .collect::<Result<Vec<_>, WireError>>()?;
    texts.sort_unstable();
    Ok(texts)
}

/// The first line in which two contents differ.
fn describe(wanted: &str, found: &str) -> String {
    let mut lines = wanted.lines().zip(found.lines());
    match lines.find(|(wanted, found)| wanted != found) {
        Some((wanted, found)) => format!("sent {wanted}, found {found}"),
        None => "one has more parts than the other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clew_model::wire;

    use super::*;
    use crate::workload::tests::data_set;
    use crate::workload::{Wave, World};

    fn world() -> (World, Wave<'static>, usize) {
        let data_set = data_set(64);
        let world: &'static World = Box::leak(Box::new(data_set.world()));
        let wave = Wave::new(world, &data_set, 0);
        let trace = wave.traces.iter().position(|trace| trace.spans.len() > 5).unwrap();
        (data_set.world(), wave, trace)
    }

    fn answer(parts: &[Vec<u8>], partial: bool) -> Bytes {
        let mut body = Vec::new();
        wire::put_bytes_field(&mut body, 1, &parts.concat());
        if partial {
            wire::put_varint_field(&mut body, 3, 1);
        }
        Bytes::from(body)
    }

    fn places(trace: usize, spans: std::ops::Range<usize>) -> Vec<(usize, usize)> {
        spans.map(|span| (trace, span)).collect()
    }

    #[test]
    fn the_right_trace_has_no_differences_in_any_order() {
        let (world, wave, trace) = world();
        let count = wave.traces[trace].spans.len();
        let all = wave.encode(&world, &places(trace, 0..count));
        let expected =
            Expected::new(wave.traces[trace].id, &all.clone().into(), &Bytes::new()).unwrap();
        let compare = |body: &Bytes| compare_trace(&expected, StatusCode::OK, body);
        assert_eq!(compare(&answer(&[all], false)), Vec::<String>::new());
        let parts = [
            wave.encode(&world, &places(trace, 3..count)),
            wave.encode(&world, &places(trace, 0..3)),
        ];
        assert_eq!(compare(&answer(&parts, false)), Vec::<String>::new());
        assert!(!compare(&answer(&parts, true)).is_empty());
        assert!(compare(&answer(&parts[..1], false))[0].contains("3 of"));
        let twice = [parts[0].clone(), parts[1].clone(), parts[1].clone()];
        assert!(compare(&answer(&twice, false))[0].contains("more than once"));
        let other = usize::from(trace == 0);
        let foreign = [parts[0].clone(), parts[1].clone(), wave.encode(&world, &[(other, 0)])];
        assert!(compare(&answer(&foreign, false))[0].contains("never sent"));
        assert!(!compare_trace(&expected, StatusCode::NOT_FOUND, &Bytes::new()).is_empty());
    }

    #[test]
    fn a_changed_span_is_noticed() {
        let (world, mut wave, trace) = world();
        let count = wave.traces[trace].spans.len();
        let sent = wave.encode(&world, &places(trace, 0..count)).into();
        let expected = Expected::new(wave.traces[trace].id, &sent, &Bytes::new()).unwrap();
        wave.traces[trace].spans[2].attributes[0].1 = 7.into();
        let body = answer(&[wave.encode(&world, &places(trace, 0..count))], false);
        let found = compare_trace(&expected, StatusCode::OK, &body);
        assert!(found.len() == 1 && found[0].contains("attributes"), "{found:?}");
    }

    #[test]
    fn spans_of_unknown_fate_may_be_there_or_not() {
        let (world, wave, trace) = world();
        let count = wave.traces[trace].spans.len();
        let sure = wave.encode(&world, &places(trace, 0..4));
        let unknown = wave.encode(&world, &places(trace, 4..count));
        let expected =
            Expected::new(wave.traces[trace].id, &sure.clone().into(), &unknown.clone().into())
                .unwrap();
        for parts in [&[sure.clone()][..], &[sure, unknown.clone()]] {
            let found = compare_trace(&expected, StatusCode::OK, &answer(parts, false));
            assert_eq!(found, Vec::<String>::new());
        }
        assert!(!compare_trace(&expected, StatusCode::OK, &answer(&[unknown], false)).is_empty());
    }

    #[test]
    fn a_trace_of_which_nothing_is_known_may_be_absent() {
        let (world, wave, trace) = world();
        let unknown = wave.encode(&world, &[(trace, 0)]).into();
        let expected = Expected::new(wave.traces[trace].id, &Bytes::new(), &unknown).unwrap();
        let compare = |status| compare_trace(&expected, status, &Bytes::new());
        assert_eq!(compare(StatusCode::NOT_FOUND), Vec::<String>::new());
        assert!(!compare(StatusCode::INTERNAL_SERVER_ERROR).is_empty());
    }

    #[test]
    fn absence_has_two_forms() {
        assert!(is_absent(StatusCode::NOT_FOUND, &Bytes::new()));
        assert!(is_absent(StatusCode::OK, &answer(&[], false)));
        assert!(!is_absent(StatusCode::BAD_GATEWAY, &Bytes::new()));
        let (world, wave, trace) = world();
        let body = answer(&[wave.encode(&world, &places(trace, 0..1))], false);
        assert!(!is_absent(StatusCode::OK, &body));
        assert!(holds_span(&body, wave.traces[trace].spans[0].span_id));
        assert!(!holds_span(&body, wave.traces[trace].spans[1].span_id));
    }
}
