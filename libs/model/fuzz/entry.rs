//! What the fuzz targets do with their input. The property tests include this file too, so that it
//! is compiled and run without a fuzzer.

#![allow(clippy::unwrap_used, reason = "a law that does not hold must end the run")]

use bytes::Bytes;
use clew_model::otlp::{
    AnyValueView, IdStyle, ScanLimits, SpanView, json_to_protobuf, regroup, scan,
    write_resource_spans_json_as,
};
use clew_model::{Trace, TraceId};

/// Any bytes as OTLP/JSON: what is read can be scanned.
#[allow(dead_code, reason = "each target uses one of the two")]
pub(crate) fn otlp_json(data: &[u8]) {
    if let Ok(protobuf) = json_to_protobuf(data, &ScanLimits::default()) {
        // Known fields were written with their own types, so the framing holds.
        scan(&Bytes::from(protobuf.clone()), &ScanLimits::default()).unwrap();
        otlp_scan(&protobuf);
    }
}

/// Any bytes as a protobuf request: what the scan accepts, everything behind it can read.
#[allow(dead_code, reason = "each target uses one of the two")]
pub(crate) fn otlp_scan(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let _ = Trace::decode(&body);
    let Ok(scanned) = scan(&body, &ScanLimits::default()) else { return };
    for span in &scanned.spans {
        read_everything(scanned.span_bytes(span), span.trace_id);
    }
    let parts = regroup(&scanned, |id| usize::from(id.0[0]) % 3, 3);
    let mut spans = 0;
    for part in parts {
        for trace in Trace::decode(&Bytes::from(part)).unwrap() {
            spans += trace.spans.len();
            use_trace(trace);
        }
    }
    assert_eq!(spans, scanned.spans.len());
}

fn read_everything(raw: &[u8], id: TraceId) {
    let span = SpanView::parse(raw).unwrap();
    assert_eq!(span.trace(), Some(id));
    assert!(span.span().is_some());
    let mut attributes: Vec<_> = span.attributes().map(Result::unwrap).collect();
    for event in span.events() {
        attributes.extend(event.unwrap().attributes().map(Result::unwrap));
    }
    for link in span.links() {
        attributes.extend(link.unwrap().attributes().map(Result::unwrap));
    }
    for attribute in attributes {
        let json = clew_model::otlp::any_value_to_json(attribute.value);
        assert_eq!(json == serde_json::json!({}), attribute.value == AnyValueView::Empty);
    }
}

fn use_trace(trace: Trace) {
    let mut merged = Trace::merge([trace.clone(), trace]).unwrap();
    let summary = merged.summary();
    assert!(summary.start <= summary.end);
    let encoded = Bytes::from(merged.encode());
    let decoded = Trace::merge(Trace::decode(&encoded).unwrap()).unwrap();
    assert_eq!(decoded, merged);
    merged.unshare_span_ids();
    let mut json = String::from("{\"resourceSpans\":");
    write_resource_spans_json_as(&merged, IdStyle::Hex, &mut json).unwrap();
    json.push('}');
    serde_json::from_str::<serde::de::IgnoredAny>(&json).unwrap();
}
