//! Random spans as OTLP bytes, from small pools so that everything collides.

use bytes::Bytes;
use clew_model::wire::{put_bytes_field, put_fixed64_field, put_varint_field};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// An attribute value.
#[derive(Debug, Clone)]
pub(crate) enum Any {
    Empty,
    Text(String),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(Vec<Any>),
    List,
    Bytes,
}

pub(crate) type Attributes = Vec<(String, Any)>;

#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: u8,
    pub(crate) id: u8,
    pub(crate) parent: u8,
    pub(crate) kind: i32,
    pub(crate) start: u64,
    pub(crate) duration: i64,
    pub(crate) name: String,
    pub(crate) status: i32,
    pub(crate) message: String,
    pub(crate) attributes: Attributes,
    pub(crate) events: Vec<(String, Attributes)>,
    pub(crate) links: Vec<Attributes>,
}

#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) resource: Attributes,
    pub(crate) schema_url: String,
    pub(crate) scope: (String, String, Attributes),
    pub(crate) spans: Vec<Span>,
}

fn message(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

pub(crate) fn any_value(value: &Any) -> Vec<u8> {
    message(|out| match value {
        Any::Empty => {}
        Any::Text(text) => put_bytes_field(out, 1, text.as_bytes()),
        Any::Bool(truth) => put_varint_field(out, 2, u64::from(*truth)),
        Any::Int(number) => put_varint_field(out, 3, number.cast_unsigned()),
        Any::Double(number) => put_fixed64_field(out, 4, number.to_bits()),
        Any::Array(elements) => {
            let array = message(|out| {
                for element in elements {
                    put_bytes_field(out, 1, &any_value(element));
                }
            });
            put_bytes_field(out, 5, &array);
        }
        Any::List => put_bytes_field(out, 6, &[]),
        Any::Bytes => put_bytes_field(out, 7, b"\xff\x00"),
    })
}

fn put_attributes(out: &mut Vec<u8>, number: u32, attributes: &Attributes) {
    for (key, value) in attributes {
        let pair = message(|out| {
            put_bytes_field(out, 1, key.as_bytes());
            put_bytes_field(out, 2, &any_value(value));
        });
        put_bytes_field(out, number, &pair);
    }
}

impl Span {
    pub(crate) fn trace_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[0] = self.trace & 1;
        id[15] = self.trace + 1;
        id
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        message(|out| {
            put_bytes_field(out, 1, &self.trace_id());
            put_bytes_field(out, 2, &[self.id + 1; 8]);
            if self.parent > 0 {
                put_bytes_field(out, 4, &[self.parent; 8]);
            }
            put_bytes_field(out, 5, self.name.as_bytes());
            put_varint_field(out, 6, i64::from(self.kind).cast_unsigned());
            put_fixed64_field(out, 7, self.start);
            put_fixed64_field(out, 8, self.start.saturating_add_signed(self.duration));
            put_attributes(out, 9, &self.attributes);
            for (name, attributes) in &self.events {
                let event = message(|out| {
                    put_bytes_field(out, 2, name.as_bytes());
                    put_attributes(out, 3, attributes);
                });
                put_bytes_field(out, 11, &event);
            }
            for attributes in &self.links {
                put_bytes_field(out, 13, &message(|out| put_attributes(out, 4, attributes)));
            }
            let status = message(|out| {
                put_bytes_field(out, 2, self.message.as_bytes());
                put_varint_field(out, 3, i64::from(self.status).cast_unsigned());
            });
            put_bytes_field(out, 15, &status);
        })
    }
}

impl Batch {
    fn put(&self, out: &mut Vec<u8>) {
        let scope_spans = message(|out| {
            let scope = message(|out| {
                put_bytes_field(out, 1, self.scope.0.as_bytes());
                put_bytes_field(out, 2, self.scope.1.as_bytes());
                put_attributes(out, 3, &self.scope.2);
            });
            put_bytes_field(out, 1, &scope);
            for span in &self.spans {
                put_bytes_field(out, 2, &span.encode());
            }
        });
        let resource_spans = message(|out| {
            put_bytes_field(out, 1, &message(|out| put_attributes(out, 1, &self.resource)));
            put_bytes_field(out, 2, &scope_spans);
            put_bytes_field(out, 3, self.schema_url.as_bytes());
        });
        put_bytes_field(out, 1, &resource_spans);
    }
}

/// The batches as one `TracesData`.
pub(crate) fn traces_data(batches: &[Batch]) -> Bytes {
    Bytes::from(message(|out| batches.iter().for_each(|batch| batch.put(out))))
}

/// Texts on both sides of the length that a term keeps.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let stem = "s".repeat(255);
    prop_oneof![
        4 => select(vec!["", "a", "b", "ab", "GET", "500", "service", "\u{0}"]).prop_map(str::to_owned),
        1 => select(vec!["t", "tt", "tu", "ttt"]).prop_map(move |end| stem.clone() + end),
    ]
}

pub(crate) fn int() -> impl Strategy<Value = i64> {
    select(vec![0, 1, -1, 5, 500, 1 << 53, (1 << 53) + 1, i64::MAX, i64::MIN])
}

pub(crate) fn double() -> impl Strategy<Value = f64> {
    select(vec![0.0, -0.0, 0.5, 5.0, 500.0, -1.0, 9_007_199_254_740_992.0, f64::NAN, f64::INFINITY])
}

fn scalar() -> impl Strategy<Value = Any> {
    prop_oneof![
        4 => text().prop_map(Any::Text),
        3 => int().prop_map(Any::Int),
        2 => double().prop_map(Any::Double),
        1 => any::<bool>().prop_map(Any::Bool),
        1 => select(vec![Any::Empty, Any::List, Any::Bytes]),
    ]
}

fn value() -> impl Strategy<Value = Any> {
    prop_oneof![5 => scalar(), 1 => vec(scalar(), 0..3).prop_map(Any::Array)]
}

pub(crate) fn key() -> impl Strategy<Value = String> {
    select(vec!["k", "l", "k\u{0}", "service.name", "name"]).prop_map(str::to_owned)
}

fn attributes(most: usize) -> impl Strategy<Value = Attributes> {
    vec((key(), value()), 0..=most)
}

prop_compose! {
    fn span(traces: u8)(
        ids in (0..traces, 0u8..9, 0u8..10),
        kind in select(vec![0, 1, 2, 3, 4, 5, 9]),
        times in (select(vec![0u64, 7, 1_000, 1_000_000]), select(vec![-5i64, 0, 5, 500, 1_000_000])),
        texts in (text(), text()),
        status in 0i32..4,
        attributes in attributes(4),
        events in vec((text(), attributes(2)), 0..2),
        links in vec(attributes(2), 0..2),
    ) -> Span {
        Span {
            trace: ids.0, id: ids.1, parent: ids.2, kind, start: times.0, duration: times.1,
            name: texts.0, status, message: texts.1, attributes, events, links,
        }
    }
}

prop_compose! {
    fn batch(traces: u8)(
        resource in attributes(2),
        schema_url in select(vec!["", "u"]),
        scope in (text(), text(), attributes(1)),
        spans in vec(span(traces), 1..6),
    ) -> Batch {
        Batch { resource, schema_url: schema_url.to_owned(), scope, spans }
    }
}

/// Batches of spans of a few traces, with duplicates.
pub(crate) fn batches() -> impl Strategy<Value = Vec<Batch>> {
    (1u8..6).prop_flat_map(|traces| vec(batch(traces), 0..8))
}
