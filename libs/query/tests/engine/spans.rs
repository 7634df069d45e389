//! Small random traces as plain values, and their OTLP form.

use bytes::Bytes;
use clew_model::wire::{put_bytes_field, put_fixed64_field, put_varint_field};
use proptest::prelude::*;

/// Values attributes take.
#[derive(Debug, Clone, PartialEq)]
pub enum Val {
    Text(String),
    Int(i64),
    Truth(bool),
    Texts(Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    pub service: Option<String>,
    pub a: Option<Val>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub e: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SpanModel {
    pub id: u8,
    /// 0 for a root.
    pub parent: u8,
    pub kind: u8,
    pub status: u8,
    pub start: u64,
    pub duration: u64,
    pub name: String,
    pub a: Option<Val>,
    pub b: Option<Val>,
    pub resource: Resource,
    pub events: Vec<Event>,
}

#[derive(Debug, Clone)]
pub struct TraceModel {
    pub id: u8,
    /// Distinct ids, sorted by (start, id).
    pub spans: Vec<SpanModel>,
}

impl TraceModel {
    pub fn start(&self) -> u64 {
        self.spans.iter().map(|span| span.start).min().unwrap()
    }

    pub fn end(&self) -> u64 {
        self.spans.iter().map(|span| span.start + span.duration).max().unwrap()
    }

    pub fn root(&self) -> Option<&SpanModel> {
        self.spans.iter().find(|span| span.parent == 0)
    }
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["x", "y", "xy", ""]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Val> {
    prop_oneof![
        4 => word().prop_map(Val::Text),
        3 => (0i64..4).prop_map(Val::Int),
        1 => any::<bool>().prop_map(Val::Truth),
        1 => prop::collection::vec(word(), 1..3).prop_map(Val::Texts),
    ]
}

fn resource() -> impl Strategy<Value = Resource> {
    (prop::option::weighted(0.9, word()), prop::option::weighted(0.3, value()))
        .prop_map(|(service, a)| Resource { service, a })
}

fn span(id: u8) -> impl Strategy<Value = SpanModel> {
    let event = (word(), prop::option::of(word())).prop_map(|(name, e)| Event { name, e });
    (
        (0u8..6, 0u8..6, 0u8..3),
        (0u64..100, 0u64..30),
        word(),
        (prop::option::of(value()), prop::option::of(value())),
        resource(),
        prop::collection::vec(event, 0..3),
    )
        .prop_map(
            move |((parent, kind, status), (start, duration), name, (a, b), resource, events)| {
                // A span is nobody's child by its own id: that is a broken client, tested elsewhere.
                let parent = if parent == id { 0 } else { parent };
                SpanModel {
                    id,
                    parent,
                    kind,
                    status,
                    start,
                    duration,
                    name,
                    a,
                    b,
                    resource,
                    events,
                }
            },
        )
}

pub fn traces() -> impl Strategy<Value = Vec<TraceModel>> {
    let spans = (1u8..7).prop_flat_map(|count| (1..=count).map(span).collect::<Vec<_>>());
    prop::collection::vec(spans, 0..7).prop_map(|traces| {
        (1u8..)
            .zip(traces)
            .map(|(id, mut spans)| {
                spans.sort_by_key(|span| (span.start, span.id));
                TraceModel { id, spans }
            })
            .collect()
    })
}

fn any_value(value: &Val) -> Vec<u8> {
    let mut raw = Vec::new();
    match value {
        Val::Text(text) => put_bytes_field(&mut raw, 1, text.as_bytes()),
        Val::Truth(truth) => put_varint_field(&mut raw, 2, u64::from(*truth)),
        Val::Int(number) => put_varint_field(&mut raw, 3, number.cast_unsigned()),
        Val::Texts(texts) => {
            let mut array = Vec::new();
            for text in texts {
                put_bytes_field(&mut array, 1, &any_value(&Val::Text(text.clone())));
            }
            put_bytes_field(&mut raw, 5, &array);
        }
    }
    raw
}

fn put_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: &Val) {
    let mut pair = Vec::new();
    put_bytes_field(&mut pair, 1, key.as_bytes());
    put_bytes_field(&mut pair, 2, &any_value(value));
    put_bytes_field(out, field, &pair);
}

/// One span of a trace as a `TracesData` of its own.
pub fn encode(trace: &TraceModel, span: &SpanModel) -> Bytes {
    let mut raw = Vec::new();
    put_bytes_field(&mut raw, 1, &[trace.id; 16]);
    put_bytes_field(&mut raw, 2, &[span.id; 8]);
    if span.parent != 0 {
        put_bytes_field(&mut raw, 4, &[span.parent; 8]);
    }
    put_bytes_field(&mut raw, 5, span.name.as_bytes());
    put_varint_field(&mut raw, 6, u64::from(span.kind));
    put_fixed64_field(&mut raw, 7, span.start);
    put_fixed64_field(&mut raw, 8, span.start + span.duration);
    for (key, value) in [("a", &span.a), ("b", &span.b)] {
        if let Some(value) = value {
            put_attribute(&mut raw, 9, key, value);
        }
    }
    for event in &span.events {
        let mut message = Vec::new();
        put_bytes_field(&mut message, 2, event.name.as_bytes());
        if let Some(e) = &event.e {
            put_attribute(&mut message, 3, "e", &Val::Text(e.clone()));
        }
        put_bytes_field(&mut raw, 11, &message);
    }
    let mut status = Vec::new();
    put_varint_field(&mut status, 3, u64::from(span.status));
    put_bytes_field(&mut raw, 15, &status);

    let mut resource = Vec::new();
    if let Some(service) = &span.resource.service {
        put_attribute(&mut resource, 1, "service.name", &Val::Text(service.clone()));
    }
    if let Some(a) = &span.resource.a {
        put_attribute(&mut resource, 1, "a", a);
    }
    let mut scope_spans = Vec::new();
    put_bytes_field(&mut scope_spans, 2, &raw);
    let mut resource_spans = Vec::new();
    put_bytes_field(&mut resource_spans, 1, &resource);
    put_bytes_field(&mut resource_spans, 2, &scope_spans);
    let mut traces_data = Vec::new();
    put_bytes_field(&mut traces_data, 1, &resource_spans);
    Bytes::from(traces_data)
}

/// A span that no query may see.
pub fn later_span() -> SpanModel {
    SpanModel {
        id: 77,
        parent: 0,
        kind: 1,
        status: 2,
        start: 0,
        duration: 1000,
        name: "later".to_owned(),
        a: Some(Val::Text("later".to_owned())),
        b: None,
        resource: Resource { service: Some("later".to_owned()), a: None },
        events: Vec::new(),
    }
}
