//! Examples of the JSON that Tempo's clients read.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::otlp::request::ScanLimits;
use crate::otlp::{json_to_protobuf, scan};
use crate::wire::{put_bytes_field, put_fixed64_field, put_varint_field};
use crate::{ErrorKind, TraceId};

const REQUEST: &str = r#"{"resourceSpans":[{
  "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
  "scopeSpans":[{"scope":{"name":"lib","version":"1"},
    "spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"00000000000000ff",
      "name":"a \"quoted\"\\\n\u0001 café","kind":2,"startTimeUnixNano":"1544712660000000000",
      "endTimeUnixNano":"1544712661000000000",
      "attributes":[{"key":"i","value":{"intValue":"-5"}},{"key":"z","value":{"intValue":"0"}},
        {"key":"d","value":{"doubleValue":1.5}},{"key":"n","value":{"doubleValue":"NaN"}},
        {"key":"f","value":{"boolValue":false}},{"key":"e","value":{}},
        {"key":"b","value":{"bytesValue":"AP8="}},
        {"key":"l","value":{"kvlistValue":{"values":[{"key":"x","value":{"stringValue":""}}]}}},
        {"key":"a","value":{"arrayValue":{"values":[{"intValue":1},{"doubleValue":1e21}]}}}],
      "events":[{"timeUnixNano":"1","name":"ev"}],"droppedEventsCount":3,
      "links":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"00000000000000fe"}],
      "status":{"message":"bad","code":2},"flags":257}],"schemaUrl":"s"}]}]}"#;

fn decode(json: &str) -> Trace {
    let body = Bytes::from(json_to_protobuf(json.as_bytes(), &ScanLimits::default()).unwrap());
    assert!(scan(&body, &ScanLimits::default()).unwrap().rejected.is_empty());
    Trace::decode(&body).unwrap().remove(0)
}

#[test]
fn a_trace_as_tempo_prints_it() {
    let mut out = String::new();
    write_resource_spans_json(&decode(REQUEST), &mut out).unwrap();
    let expected = concat!(
        r#"[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"#,
        r#""scopeSpans":[{"scope":{"name":"lib","version":"1"},"spans":[{"#,
        r#""traceId":"AQIDBAUGBwgJCgsMDQ4PEA==","spanId":"AAAAAAAAAP8=","#,
        r#""name":"a \"quoted\"\\\n\u0001 café","kind":"SPAN_KIND_SERVER","#,
        r#""startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000","#,
        r#""attributes":[{"key":"i","value":{"intValue":"-5"}},{"key":"z","value":{"intValue":"0"}},"#,
        r#"{"key":"d","value":{"doubleValue":1.5}},{"key":"n","value":{"doubleValue":"NaN"}},"#,
        r#"{"key":"f","value":{"boolValue":false}},{"key":"e","value":{}},"#,
        r#"{"key":"b","value":{"bytesValue":"AP8="}},"#,
        r#"{"key":"l","value":{"kvlistValue":{"values":[{"key":"x","value":{"stringValue":""}}]}}},"#,
        r#"{"key":"a","value":{"arrayValue":{"values":[{"intValue":"1"},{"doubleValue":1e21}]}}}],"#,
        r#""events":[{"timeUnixNano":"1","name":"ev"}],"droppedEventsCount":3,"#,
        r#""links":[{"traceId":"AQIDBAUGBwgJCgsMDQ4PEA==","spanId":"AAAAAAAAAP4="}],"#,
        r#""status":{"message":"bad","code":"STATUS_CODE_ERROR"},"flags":257}],"schemaUrl":"s"}]}]"#,
    );
    assert_eq!(out, expected);
}

#[test]
fn hexadecimal_ids_read_back_to_the_same_bytes() {
    let trace = decode(REQUEST);
    let mut out = String::from("{\"resourceSpans\":");
    write_resource_spans_json_as(&trace, IdStyle::Hex, &mut out).unwrap();
    out.push('}');
    assert!(out.contains("\"spanId\":\"00000000000000ff\""));
    assert_eq!(json_to_protobuf(out.as_bytes(), &ScanLimits::default()).unwrap(), trace.encode());
}

fn one_span(bytes: Vec<u8>) -> Trace {
    let span = crate::trace::SpanRecord {
        resource: Arc::default(),
        scope: Arc::default(),
        bytes: Bytes::from(bytes),
    };
    Trace { id: TraceId([1; 16]), spans: vec![span] }
}

fn print(bytes: Vec<u8>) -> Result<String, ModelError> {
    let mut out = String::new();
    write_resource_spans_json(&one_span(bytes), &mut out)?;
    Ok(out)
}

#[test]
fn unusual_encodings() {
    let mut bytes = Vec::new();
    let mut code = Vec::new();
    put_varint_field(&mut code, 3, 1);
    put_bytes_field(&mut bytes, 15, &code);
    put_bytes_field(&mut bytes, 15, b"\x12\x01m");
    put_varint_field(&mut bytes, 6, 77);
    put_varint_field(&mut bytes, 10, 0);
    put_fixed64_field(&mut bytes, 7, 0);
    put_bytes_field(&mut bytes, 99, b"unknown");
    // Of a value sent twice the last counts.
    put_bytes_field(&mut bytes, 9, b"\x12\x05\x18\x05\x0a\x01s");
    assert_eq!(
        print(bytes).unwrap(),
        concat!(
            r#"[{"resource":{},"scopeSpans":[{"scope":{},"spans":[{"kind":77,"#,
            r#""attributes":[{"value":{"stringValue":"s"}}],"#,
            r#""status":{"message":"m","code":"STATUS_CODE_OK"}}]}]}]"#
        )
    );
}

#[test]
fn damage_is_an_error() {
    let error = print(b"\x0a\x09".to_vec()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let mut value = Vec::new();
    for _ in 0..VALUE_DEPTH_MAX {
        let mut array = Vec::new();
        put_bytes_field(&mut array, 1, &value);
        value.clear();
        put_bytes_field(&mut value, 5, &array);
    }
    let mut pair = Vec::new();
    put_bytes_field(&mut pair, 2, &value);
    let mut span = Vec::new();
    put_bytes_field(&mut span, 9, &pair);
    assert_eq!(print(span), Err(ModelError::Damaged(WireError::TooDeep)));
    assert!(any_value_to_json(AnyValueView::parse(&value).unwrap()).to_string().len() > 100);
}

#[test]
fn values_for_search() {
    let json = |value| any_value_to_json(value).to_string();
    assert_eq!(json(AnyValueView::String("a\"b")), r#"{"stringValue":"a\"b"}"#);
    assert_eq!(json(AnyValueView::Int(i64::MIN)), r#"{"intValue":"-9223372036854775808"}"#);
    assert_eq!(json(AnyValueView::Double(1.5)), r#"{"doubleValue":1.5}"#);
    assert_eq!(json(AnyValueView::Double(f64::NEG_INFINITY)), r#"{"doubleValue":"-Infinity"}"#);
    assert_eq!(json(AnyValueView::Bool(false)), r#"{"boolValue":false}"#);
    assert_eq!(json(AnyValueView::Bytes(b"\0\xff")), r#"{"bytesValue":"AP8="}"#);
    assert_eq!(json(AnyValueView::Empty), "{}");
    assert_eq!(
        json(AnyValueView::Array(b"\x0a\x02\x18\x05\x0a\x00")),
        r#"{"arrayValue":{"values":[{"intValue":"5"},{}]}}"#
    );
    assert_eq!(
        json(AnyValueView::KeyValueList(b"\x0a\x07\x0a\x01k\x12\x02\x10\x01")),
        r#"{"kvlistValue":{"values":[{"key":"k","value":{"boolValue":true}}]}}"#
    );
}

#[test]
fn doubles_are_short_and_read_back() {
    for (value, text) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1e20, "100000000000000000000"),
        (-2.5e300, "-2.5e300"),
    ] {
        let mut out = String::new();
        Writer { ids: IdStyle::Hex, out: &mut out }.double(value);
        assert_eq!(out, text);
        assert_eq!(out.parse::<f64>().unwrap().to_bits(), value.to_bits());
    }
}
