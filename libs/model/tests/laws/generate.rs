//! Generated requests with writers of their own, so that the code under test is not its own judge.

use clew_model::id::to_hex;
use clew_model::wire::{put_bytes_field, put_fixed32_field, put_fixed64_field, put_varint_field};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Empty,
    Text(String),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
    Array(Vec<Value>),
    List(Vec<Pair>),
}

#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) time: u64,
    pub(crate) name: String,
    pub(crate) attributes: Vec<Pair>,
    pub(crate) dropped: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) trace: u8,
    pub(crate) span: u8,
    pub(crate) attributes: Vec<Pair>,
    pub(crate) flags: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: u8,
    pub(crate) id: u8,
    pub(crate) parent: u8,
    pub(crate) name: String,
    pub(crate) kind: u8,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: Vec<Pair>,
    pub(crate) events: Vec<Event>,
    pub(crate) links: Vec<Link>,
    pub(crate) status: Option<(String, u8)>,
    pub(crate) flags: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) name: String,
    pub(crate) attributes: Vec<Pair>,
    pub(crate) schema_url: String,
    pub(crate) spans: Vec<Span>,
}

#[derive(Debug, Clone)]
pub(crate) struct Resource {
    pub(crate) attributes: Vec<Pair>,
    pub(crate) dropped: u32,
    pub(crate) schema_url: String,
    pub(crate) scopes: Vec<Scope>,
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{0,8}", "\\PC{0,6}", Just("\u{1}\"\\\n\u{7f}😀".to_owned())]
}

fn value() -> impl Strategy<Value = Value> {
    let double = prop_oneof![
        any::<f64>().prop_map(|d| if d.is_nan() { f64::NAN } else { d }),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(-0.0),
        (-5i32..5).prop_map(f64::from),
    ];
    let leaf = prop_oneof![
        Just(Value::Empty),
        text().prop_map(Value::Text),
        any::<bool>().prop_map(Value::Bool),
        prop_oneof![any::<i64>(), -2i64..3].prop_map(Value::Int),
        double.prop_map(Value::Double),
        vec(any::<u8>(), 0..6).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            vec((text(), inner).prop_map(|(key, value)| Pair { key, value }), 0..4)
                .prop_map(Value::List),
        ]
    })
}

fn attributes() -> impl Strategy<Value = Vec<Pair>> {
    vec((text(), value()).prop_map(|(key, value)| Pair { key, value }), 0..4)
}

/// Small ranges, so that ids and times collide often.
fn time() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..4, Just(u64::MAX), any::<u64>()]
}

fn event() -> impl Strategy<Value = Event> {
    (time(), text(), attributes(), 0u32..3).prop_map(|(time, name, attributes, dropped)| Event {
        time,
        name,
        attributes,
        dropped,
    })
}

fn link() -> impl Strategy<Value = Link> {
    (1u8..4, 1u8..4, attributes(), 0u32..3).prop_map(|(trace, span, attributes, flags)| Link {
        trace,
        span,
        attributes,
        flags,
    })
}

pub(crate) fn span() -> impl Strategy<Value = Span> {
    let ids = (1u8..4, 1u8..6, 0u8..6, 0u8..7);
    let parts = (attributes(), vec(event(), 0..3), vec(link(), 0..2));
    let status = option::of((text(), 0u8..4));
    (ids, text(), time(), time(), parts, status, any::<u32>()).prop_map(
        |((trace, id, parent, kind), name, start, end, parts, status, flags)| {
            let (attributes, events, links) = parts;
            Span {
                trace,
                id,
                parent,
                name,
                kind,
                start,
                end,
                attributes,
                events,
                links,
                status,
                flags,
            }
        },
    )
}

fn scope() -> impl Strategy<Value = Scope> {
    ("[ab]?", attributes(), "[uv]?", vec(span(), 0..5)).prop_map(
        |(name, attributes, schema_url, spans)| Scope { name, attributes, schema_url, spans },
    )
}

fn resource() -> impl Strategy<Value = Resource> {
    (attributes(), 0u32..2, "[uv]?", vec(scope(), 0..3)).prop_map(
        |(attributes, dropped, schema_url, scopes)| Resource {
            attributes,
            dropped,
            schema_url,
            scopes,
        },
    )
}

pub(crate) fn request() -> impl Strategy<Value = Vec<Resource>> {
    vec(resource(), 0..4)
}

// ---- protobuf ----

/// Appends `content` as a field, also when empty.
fn nest(out: &mut Vec<u8>, number: u32, content: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    content(&mut inner);
    put_bytes_field(out, number, &inner);
}

fn put_text(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put_bytes_field(out, number, text.as_bytes());
    }
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint_field(out, number, value);
    }
}

fn put_time(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_fixed64_field(out, number, value);
    }
}

fn put_flags(out: &mut Vec<u8>, number: u32, value: u32) {
    if value != 0 {
        put_fixed32_field(out, number, value);
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Empty => {}
        Value::Text(text) => put_bytes_field(out, 1, text.as_bytes()),
        Value::Bool(value) => put_varint_field(out, 2, u64::from(*value)),
        Value::Int(value) => put_varint_field(out, 3, value.cast_unsigned()),
        Value::Double(value) => put_fixed64_field(out, 4, value.to_bits()),
        Value::Bytes(bytes) => put_bytes_field(out, 7, bytes),
        Value::Array(values) => nest(out, 5, |out| {
            values.iter().for_each(|value| nest(out, 1, |out| put_value(out, value)));
        }),
        Value::List(pairs) => nest(out, 6, |out| put_pairs(out, 1, pairs)),
    }
}

fn put_pairs(out: &mut Vec<u8>, number: u32, pairs: &[Pair]) {
    for pair in pairs {
        nest(out, number, |out| {
            put_text(out, 1, &pair.key);
            nest(out, 2, |out| put_value(out, &pair.value));
        });
    }
}

impl Span {
    pub(crate) fn protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes_field(&mut out, 1, &[self.trace; 16]);
        put_bytes_field(&mut out, 2, &[self.id; 8]);
        if self.parent != 0 {
            put_bytes_field(&mut out, 4, &[self.parent; 8]);
        }
        put_text(&mut out, 5, &self.name);
        put_number(&mut out, 6, u64::from(self.kind));
        put_time(&mut out, 7, self.start);
        put_time(&mut out, 8, self.end);
        put_pairs(&mut out, 9, &self.attributes);
        for event in &self.events {
            nest(&mut out, 11, |out| {
                put_time(out, 1, event.time);
                put_text(out, 2, &event.name);
                put_pairs(out, 3, &event.attributes);
                put_number(out, 4, u64::from(event.dropped));
            });
        }
        for link in &self.links {
            nest(&mut out, 13, |out| {
                put_bytes_field(out, 1, &[link.trace; 16]);
                put_bytes_field(out, 2, &[link.span; 8]);
                put_pairs(out, 4, &link.attributes);
                put_flags(out, 6, link.flags);
            });
        }
        if let Some((message, code)) = &self.status {
            nest(&mut out, 15, |out| {
                put_text(out, 2, message);
                put_number(out, 3, u64::from(*code));
            });
        }
        put_flags(&mut out, 16, self.flags);
        out
    }
}

/// The encoded request.
pub(crate) fn protobuf(request: &[Resource]) -> Vec<u8> {
    protobuf_with(request, &[])
}

/// The encoded request, with `extra` appended to the spans of every scope.
pub(crate) fn protobuf_with(request: &[Resource], extra: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for resource in request {
        nest(&mut out, 1, |out| {
            nest(out, 1, |out| {
                put_pairs(out, 1, &resource.attributes);
                put_number(out, 2, u64::from(resource.dropped));
            });
            for scope in &resource.scopes {
                nest(out, 2, |out| {
                    nest(out, 1, |out| {
                        put_text(out, 1, &scope.name);
                        put_pairs(out, 3, &scope.attributes);
                    });
                    scope.spans.iter().for_each(|span| put_bytes_field(out, 2, &span.protobuf()));
                    extra.iter().for_each(|span| put_bytes_field(out, 2, span));
                    put_text(out, 3, &scope.schema_url);
                });
            }
            put_text(out, 3, &resource.schema_url);
        });
    }
    out
}

// ---- JSON ----

/// An object of the members that are not null.
fn object(members: Json) -> Json {
    let Json::Object(members) = members else { return members };
    Json::Object(members.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>())
}

fn unless_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn unless_zero(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

fn time_json(time: u64) -> Option<String> {
    unless_zero(time).map(|time| time.to_string())
}

fn each<T>(items: &[T], json: impl Fn(&T) -> Json) -> Option<Vec<Json>> {
    (!items.is_empty()).then(|| items.iter().map(json).collect())
}

fn double_json(value: f64) -> Json {
    if value.is_finite() {
        json!(value)
    } else if value.is_nan() {
        json!("NaN")
    } else if value > 0.0 {
        json!("Infinity")
    } else {
        json!("-Infinity")
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(crate) fn value_json(value: &Value) -> Json {
    match value {
        Value::Empty => json!({}),
        Value::Text(text) => json!({ "stringValue": text }),
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Int(value) => json!({ "intValue": value.to_string() }),
        Value::Double(value) => json!({ "doubleValue": double_json(*value) }),
        Value::Bytes(bytes) => json!({ "bytesValue": base64(bytes) }),
        Value::Array(values) => {
            json!({ "arrayValue": object(json!({ "values": each(values, value_json) })) })
        }
        Value::List(pairs) => {
            json!({ "kvlistValue": object(json!({ "values": each(pairs, pair_json) })) })
        }
    }
}

fn pair_json(pair: &Pair) -> Json {
    object(json!({ "key": unless_empty(&pair.key), "value": value_json(&pair.value) }))
}

fn event_json(event: &Event) -> Json {
    object(json!({
        "timeUnixNano": time_json(event.time),
        "name": unless_empty(&event.name),
        "attributes": each(&event.attributes, pair_json),
        "droppedAttributesCount": unless_zero(u64::from(event.dropped)),
    }))
}

fn link_json(link: &Link) -> Json {
    object(json!({
        "traceId": to_hex(&[link.trace; 16]),
        "spanId": to_hex(&[link.span; 8]),
        "attributes": each(&link.attributes, pair_json),
        "flags": unless_zero(u64::from(link.flags)),
    }))
}

fn named(names: &[&str], number: u8) -> Json {
    match names.get(usize::from(number)) {
        _ if number == 0 => Json::Null,
        Some(name) => json!(name),
        None => json!(number),
    }
}

/// The span as protobuf-JSON with hexadecimal ids.
pub(crate) fn span_json(span: &Span) -> Json {
    const KINDS: [&str; 6] = [
        "SPAN_KIND_UNSPECIFIED",
        "SPAN_KIND_INTERNAL",
        "SPAN_KIND_SERVER",
        "SPAN_KIND_CLIENT",
        "SPAN_KIND_PRODUCER",
        "SPAN_KIND_CONSUMER",
    ];
    const CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];
    let status = |(message, code): &(String, u8)| {
        object(json!({ "message": unless_empty(message), "code": named(&CODES, *code) }))
    };
    object(json!({
        "traceId": to_hex(&[span.trace; 16]),
        "spanId": to_hex(&[span.id; 8]),
        "parentSpanId": (span.parent != 0).then(|| to_hex(&[span.parent; 8])),
        "name": unless_empty(&span.name),
        "kind": named(&KINDS, span.kind),
        "startTimeUnixNano": time_json(span.start),
        "endTimeUnixNano": time_json(span.end),
        "attributes": each(&span.attributes, pair_json),
        "events": each(&span.events, event_json),
        "links": each(&span.links, link_json),
        "status": span.status.as_ref().map(status),
        "flags": unless_zero(u64::from(span.flags)),
    }))
}

fn scope_json(scope: &Scope) -> Json {
    object(json!({
        "scope": object(json!({
            "name": unless_empty(&scope.name),
            "attributes": each(&scope.attributes, pair_json),
        })),
        "spans": each(&scope.spans, span_json),
        "schemaUrl": unless_empty(&scope.schema_url),
    }))
}

fn resource_json(resource: &Resource) -> Json {
    object(json!({
        "resource": object(json!({
            "attributes": each(&resource.attributes, pair_json),
            "droppedAttributesCount": unless_zero(u64::from(resource.dropped)),
        })),
        "scopeSpans": each(&resource.scopes, scope_json),
        "schemaUrl": unless_empty(&resource.schema_url),
    }))
}

/// The request as OTLP/JSON, with fields in the order of their numbers.
pub(crate) fn otlp_json(request: &[Resource]) -> Json {
    object(json!({ "resourceSpans": each(request, resource_json) }))
}
