//! Spans for tests, as OTLP bytes.

use bytes::Bytes;
use clew_model::TraceId;
use clew_model::wire::{put_bytes_field, put_fixed64_field, put_varint_field};

/// A second in nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// An attribute value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(&'static str),
    Int(i64),
    Double(f64),
    Bytes(&'static [u8]),
    /// Of texts.
    Array(&'static [&'static str]),
}

/// Attributes by name.
pub(crate) type Attributes = Vec<(&'static str, Value)>;

/// A span to be written.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: u64,
    pub(crate) id: u64,
    /// 0 for a root.
    pub(crate) parent: u64,
    pub(crate) name: String,
    pub(crate) service: &'static str,
    /// As in OTLP: 2 server, 3 client.
    pub(crate) kind: u64,
    /// As in OTLP: 2 error.
    pub(crate) status: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: Attributes,
    /// Of the resource, beside the service.
    pub(crate) resource: Attributes,
    /// Those of each event; the first one happens a millisecond and a half after the start, each
    /// other one as long after the one before it.
    pub(crate) events: Vec<Attributes>,
}

/// The id of trace number `trace`.
pub(crate) fn trace_id(trace: u64) -> TraceId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&trace.to_be_bytes());
    TraceId(id)
}

/// A root span of trace `trace` that starts at second `at` and takes one.
pub(crate) fn root(trace: u64, at: u64) -> Span {
    Span {
        trace,
        id: trace * 1_000 + 1,
        parent: 0,
        name: format!("GET /{trace}"),
        service: "shop",
        kind: 2,
        status: 0,
        start: at * SECOND,
        end: (at + 1) * SECOND,
        attributes: vec![("http.status_code", Value::Int(200))],
        resource: Vec::new(),
        events: Vec::new(),
    }
}

/// Span number `number` of the trace of `parent`, below it and as long.
pub(crate) fn child(parent: &Span, number: u64) -> Span {
    Span {
        id: parent.trace * 1_000 + number,
        parent: parent.id,
        name: format!("child {number}"),
        service: "db",
        kind: 3,
        attributes: vec![("db.system", Value::Text("postgres"))],
        ..parent.clone()
    }
}

/// The spans as an encoded TracesData, a resource for each.
pub(crate) fn encode(spans: &[Span]) -> Bytes {
    let mut out = Vec::new();
    for span in spans {
        let mut resource = Vec::new();
        put_bytes_field(&mut resource, 1, &attribute("service.name", &Value::Text(span.service)));
        for (key, value) in &span.resource {
            put_bytes_field(&mut resource, 1, &attribute(key, value));
        }
        let mut scope_spans = Vec::new();
        put_bytes_field(&mut scope_spans, 2, &span_bytes(span));
        let mut resource_spans = Vec::new();
        put_bytes_field(&mut resource_spans, 1, &resource);
        put_bytes_field(&mut resource_spans, 2, &scope_spans);
        put_bytes_field(&mut out, 1, &resource_spans);
    }
    Bytes::from(out)
}

fn span_bytes(span: &Span) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes_field(&mut out, 1, &trace_id(span.trace).0);
    put_bytes_field(&mut out, 2, &span.id.to_be_bytes());
    if span.parent != 0 {
        put_bytes_field(&mut out, 4, &span.parent.to_be_bytes());
    }
    put_bytes_field(&mut out, 5, span.name.as_bytes());
    put_varint_field(&mut out, 6, span.kind);
    put_fixed64_field(&mut out, 7, span.start);
    put_fixed64_field(&mut out, 8, span.end);
    for (key, value) in &span.attributes {
        put_bytes_field(&mut out, 9, &attribute(key, value));
    }
    for (at, attributes) in (1..).zip(&span.events) {
        let mut event = Vec::new();
        put_fixed64_field(&mut event, 1, span.start + at * 1_500_000);
        for (key, value) in attributes {
            put_bytes_field(&mut event, 3, &attribute(key, value));
        }
        put_bytes_field(&mut out, 11, &event);
    }
    if span.status != 0 {
        let mut status = Vec::new();
        put_varint_field(&mut status, 3, span.status);
        put_bytes_field(&mut out, 15, &status);
    }
    out
}

fn attribute(key: &str, value: &Value) -> Vec<u8> {
    let mut any = Vec::new();
    match value {
        Value::Text(text) => put_bytes_field(&mut any, 1, text.as_bytes()),
        Value::Int(number) => put_varint_field(&mut any, 3, number.cast_unsigned()),
        Value::Double(number) => put_fixed64_field(&mut any, 4, number.to_bits()),
        Value::Bytes(bytes) => put_bytes_field(&mut any, 7, bytes),
        Value::Array(texts) => {
            let mut array = Vec::new();
            for text in *texts {
                let mut element = Vec::new();
                put_bytes_field(&mut element, 1, text.as_bytes());
                put_bytes_field(&mut array, 1, &element);
            }
            put_bytes_field(&mut any, 5, &array);
        }
    }
    let mut pair = Vec::new();
    put_bytes_field(&mut pair, 1, key.as_bytes());
    put_bytes_field(&mut pair, 2, &any);
    pair
}
