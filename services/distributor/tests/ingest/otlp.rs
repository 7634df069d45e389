//! Building OTLP requests and reading the answers, by field numbers.

use std::io::Write;

use bytes::Bytes;
use clew_model::TraceId;
use clew_model::wire::{Reader, put_bytes_field, put_len_header, put_varint_field};
use serde_json::{Value, json};

/// A trace id made of a number.
pub(crate) fn trace_id(n: u32) -> TraceId {
    let mut id = [0xaa; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    TraceId(id)
}

/// An encoded span.
pub(crate) fn span(trace: u32, id: u64, name: &str) -> Vec<u8> {
    raw_span(&trace_id(trace).0, &id.to_be_bytes(), name)
}

/// An encoded span with any ids.
pub(crate) fn raw_span(trace_id: &[u8], span_id: &[u8], name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes_field(&mut out, 1, trace_id);
    put_bytes_field(&mut out, 2, span_id);
    put_bytes_field(&mut out, 5, name.as_bytes());
    put_varint_field(&mut out, 6, 2);
    out
}

/// A request of one resource and scope.
pub(crate) fn request(spans: &[Vec<u8>]) -> Bytes {
    request_of(b"", spans)
}

/// The same with an encoded resource.
pub(crate) fn request_of(resource: &[u8], spans: &[Vec<u8>]) -> Bytes {
    let mut scope_spans = Vec::new();
    for span in spans {
        put_bytes_field(&mut scope_spans, 2, span);
    }
    let mut resource_spans = Vec::new();
    put_bytes_field(&mut resource_spans, 1, resource);
    put_bytes_field(&mut resource_spans, 2, &scope_spans);
    let mut out = Vec::new();
    put_bytes_field(&mut out, 1, &resource_spans);
    out.into()
}

/// An encoded resource with one attribute.
pub(crate) fn resource(key: &str, value: &str) -> Vec<u8> {
    let mut any = Vec::new();
    put_bytes_field(&mut any, 1, value.as_bytes());
    let mut pair = Vec::new();
    put_bytes_field(&mut pair, 1, key.as_bytes());
    put_bytes_field(&mut pair, 2, &any);
    let mut out = Vec::new();
    put_bytes_field(&mut out, 1, &pair);
    out
}

/// A span with an attribute of `depth` arrays inside each other.
pub(crate) fn nested_span(depth: usize) -> Vec<u8> {
    let field_len = |length| clew_model::wire::bytes_field_len(1, length);
    let mut lengths = vec![0usize];
    for at in 1..depth {
        lengths.push(field_len(field_len(lengths[at - 1])));
    }
    let mut pair = Vec::new();
    put_bytes_field(&mut pair, 1, b"k");
    put_len_header(&mut pair, 2, lengths[depth - 1]);
    for at in (1..depth).rev() {
        put_len_header(&mut pair, 5, field_len(lengths[at - 1]));
        put_len_header(&mut pair, 1, lengths[at - 1]);
    }
    let mut out = span(1, 1, "nested");
    put_bytes_field(&mut out, 9, &pair);
    out
}

/// The JSON form of a request of one span.
pub(crate) fn json_request(trace: u32, id: u64, name: &str) -> Value {
    let span = json!({
        "traceId": trace_id(trace).0.map(|b| format!("{b:02x}")).concat(),
        "spanId": format!("{id:016x}"),
        "name": name,
        "kind": 2,
    });
    json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] })
}

pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 1).unwrap()
}

fn bytes_field(message: &[u8], number: u32) -> Option<&[u8]> {
    let mut fields = Reader::new(message).map(Result::unwrap);
    fields.find(|field| field.number == number).map(|field| field.bytes().unwrap())
}

fn varint_field(message: &[u8], number: u32) -> Option<u64> {
    let mut fields = Reader::new(message).map(Result::unwrap);
    fields.find(|field| field.number == number).map(|field| field.varint().unwrap())
}

/// `rejected_spans` and `error_message` of an `ExportTraceServiceResponse`, if it has a
/// `partial_success`.
pub(crate) fn partial_success(response: &[u8]) -> Option<(u64, String)> {
    let partial = bytes_field(response, 1)?;
    let message = bytes_field(partial, 2).unwrap_or_default();
    Some((varint_field(partial, 1).unwrap_or(0), String::from_utf8(message.to_vec()).unwrap()))
}

/// Code and message of a `google.rpc.Status`.
pub(crate) fn status(body: &[u8]) -> (u64, String) {
    let message = bytes_field(body, 2).unwrap_or_default();
    (varint_field(body, 1).unwrap_or(0), String::from_utf8(message.to_vec()).unwrap())
}

/// A gRPC frame around a message.
pub(crate) fn frame(compressed: bool, message: &[u8]) -> Vec<u8> {
    let mut out = vec![u8::from(compressed)];
    out.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    out.extend_from_slice(message);
    out
}
