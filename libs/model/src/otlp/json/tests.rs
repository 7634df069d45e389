//! Examples of OTLP/JSON, as the specification and real senders write it.

use super::*;
use crate::otlp::request::{RejectReason, scan};
use crate::otlp::view::{AnyValueView, SpanView, array_elements, list_entries};

const ID: &str = r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174""#;

fn convert(body: &str) -> Result<Vec<u8>, ModelError> {
    json_to_protobuf(body.as_bytes(), &ScanLimits::default())
}

/// The only span of a request whose span has `fields` beside its ids.
fn span(fields: &str) -> Vec<u8> {
    let body =
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{ID},{fields}}}]}}]}}]}}"#);
    let scanned = scan(&convert(&body).unwrap().into(), &ScanLimits::default()).unwrap();
    assert_eq!(scanned.rejected.message(), "");
    scanned.span_bytes(&scanned.spans[0]).to_vec()
}

fn fails(fields: &str) -> String {
    let body =
        format!("{{\"resourceSpans\":[{{\"scopeSpans\":[\n{{\"spans\":[{{{fields}}}]}}]}}]}}");
    match convert(&body) {
        Err(ModelError::Json { message, line: 2, .. }) => message,
        other => panic!("{other:?}"),
    }
}

fn first_value(fields: &str) -> String {
    let bytes = span(&format!(r#""attributes":[{{"key":"k","value":{fields}}}]"#));
    let view = SpanView::parse(&bytes).unwrap();
    let pair = view.attributes().next().unwrap().unwrap();
    assert_eq!(pair.key, "k");
    format!("{:?}", pair.value)
}

#[test]
fn the_forms_of_every_type() {
    let bytes = span(
        r#""parent_span_id":"EEE19B7EC3C1B173","name":"I am a span","kind":"SPAN_KIND_SERVER",
        "startTimeUnixNano":"1544712660000000000","end_time_unix_nano":1544712661000000000,
        "flags":257,"status":{"code":"2","message":"no"},"traceState":null,"unknown":[{"a":[1]}]"#,
    );
    let view = SpanView::parse(&bytes).unwrap();
    assert_eq!(view.trace().unwrap().to_string(), "5b8efff798038103d269b633813fc60c");
    assert_eq!(view.parent().unwrap().to_string(), "eee19b7ec3c1b173");
    assert_eq!((view.name, view.kind, view.status_code), ("I am a span", 2, 2));
    assert_eq!(view.start_unix_nanos, 1_544_712_660_000_000_000);
    assert_eq!(view.end_unix_nanos, 1_544_712_661_000_000_000);
    assert_eq!(view.status_message, "no");
}

#[test]
fn attribute_values() {
    assert_eq!(first_value(r#"{"stringValue":""}"#), r#"String("")"#);
    assert_eq!(first_value(r#"{"boolValue":false}"#), "Bool(false)");
    assert_eq!(first_value(r#"{"intValue":"-5"}"#), "Int(-5)");
    assert_eq!(first_value(r#"{"intValue":0}"#), "Int(0)");
    assert_eq!(first_value(r#"{"intValue":1e3}"#), "Int(1000)");
    assert_eq!(first_value(r#"{"doubleValue":2}"#), "Double(2.0)");
    assert_eq!(first_value(r#"{"doubleValue":"-Infinity"}"#), "Double(-inf)");
    assert_eq!(first_value(r#"{"doubleValue":"1e-3"}"#), "Double(0.001)");
    assert_eq!(first_value(r#"{"bytesValue":"AP-_"}"#), "Bytes([0, 255, 191])");
    assert_eq!(first_value(r#"{"bytesValue":"AP8="}"#), "Bytes([0, 255])");
    assert_eq!(first_value("{}"), "Empty");
    assert_eq!(first_value("null"), "Empty");
    assert_eq!(first_value(r#"{"intValue":null}"#), "Empty");
}

#[test]
fn nested_values() {
    let bytes = span(
        r#""attributes":[{"key":"k","value":{"arrayValue":{"values":[{"intValue":1},null,
        {"kvlistValue":{"values":[{"key":"a","value":{"boolValue":true}}]}}]}}}]"#,
    );
    let view = SpanView::parse(&bytes).unwrap();
    let AnyValueView::Array(raw) = view.attributes().next().unwrap().unwrap().value else {
        panic!("no array");
    };
    let elements: Vec<_> = array_elements(raw).map(Result::unwrap).collect();
    assert_eq!(elements[..2], [AnyValueView::Int(1), AnyValueView::Empty]);
    let AnyValueView::KeyValueList(raw) = elements[2] else { panic!("no list") };
    let entry = list_entries(raw).next().unwrap().unwrap();
    assert_eq!((entry.key, entry.value), ("a", AnyValueView::Bool(true)));
}

#[test]
fn bad_ids_reject_one_span_only() {
    let body = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[
            {{{ID}}},{{"traceId":"xyz","spanId":"eee19b7ec3c1b174"}},
            {{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b17"}},
            {{"traceId":"5b8efff798038103d269b633813fc60c"}}]}}]}}]}}"#
    );
    let scan = scan(&convert(&body).unwrap().into(), &ScanLimits::default()).unwrap();
    assert_eq!(scan.spans.len(), 1);
    let rejected: Vec<_> = scan.rejected.iter().map(|(reason, n, _)| (reason, n)).collect();
    assert_eq!(rejected, [(RejectReason::InvalidTraceId, 1), (RejectReason::InvalidSpanId, 2)]);
}

#[test]
fn a_string_cut_inside_a_character_is_repaired() {
    let bytes = span(r#""name":"caf\u00e9 \ud83d""#);
    assert_eq!(SpanView::parse(&bytes).unwrap().name, "café \u{fffd}");
    let bytes = span(r#""name":"\ud83d\ude00""#);
    assert_eq!(SpanView::parse(&bytes).unwrap().name, "😀");
}

#[test]
fn errors_name_the_field_and_the_place() {
    assert_eq!(
        fails(r#""startTimeUnixNano":-1"#),
        "invalid value: integer `-1`, expected an unsigned 64-bit integer (startTimeUnixNano)"
    );
    assert!(fails(r#""name":5"#).ends_with("expected a string (name)"));
    assert!(fails(r#""kind":"SPAN_KIND_SPAGHETTI""#).contains("(kind)"));
    assert!(fails(r#""droppedLinksCount":4294967296"#).contains("(droppedLinksCount)"));
    assert!(fails(r#""attributes":{}"#).ends_with("expected an array (attributes)"));
    assert!(fails(r#""status":"ok""#).ends_with("expected an object (Status)"));
    assert!(fails(r#""attributes":[{"value":{"intValue":1.5}}]"#).contains("(intValue)"));
    assert!(
        fails(r#""attributes":[{"value":{"intValue":"9223372036854775808"}}]"#).contains("int")
    );
    assert!(fails(r#""attributes":[{"value":{"boolValue":1}}]"#).contains("true or false"));
    assert!(fails(r#""attributes":[{"value":{"doubleValue":"inf"}}]"#).contains("a number"));
    assert!(fails(r#""attributes":[{"value":{"bytesValue":"?"}}]"#).starts_with("bytesValue: "));
    let long = fails(&format!(r#""kind":"{}""#, "é".repeat(4000)));
    assert!(long.len() <= MESSAGE_BYTES_MAX + 3);
}

#[test]
fn what_is_no_request() {
    for body in ["", "null", "[]", "1", "{", "{} x", "{\"resourceSpans\":1}", "\u{feff}{}"] {
        assert!(matches!(convert(body), Err(ModelError::Json { .. })), "{body}");
    }
    for body in ["{}", " {\"resourceSpans\":null} ", "{\"resourceSpans\":[]}", "{\"x\":{}}"] {
        assert_eq!(convert(body), Ok(Vec::new()), "{body}");
    }
    let limits = ScanLimits { request_bytes_max: 1, ..ScanLimits::default() };
    assert!(matches!(json_to_protobuf(b"{}", &limits), Err(ModelError::TooLarge { .. })));
}

#[test]
fn deep_nesting_is_an_error() {
    let deep = format!("{{\"resourceSpans\":{}", "[".repeat(200_000));
    assert!(matches!(convert(&deep), Err(ModelError::Json { .. })));
    let value = "{\"arrayValue\":{\"values\":[".repeat(100_000);
    let deep =
        format!(r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"k","value":{value}"#);
    assert!(matches!(convert(&deep), Err(ModelError::Json { .. })));
}
