//! OTLP protobuf of generated spans, written straight from the generator's own types.

use clew_model::{TraceId, wire};

use super::span::{Attribute, Event, Link, Span, Value};

/// Appends a `KeyValue` as field `number`.
pub(crate) fn put_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: &Value<'_>) {
    let value_len = value_len(value);
    let length = wire::bytes_field_len(1, key.len()) + wire::bytes_field_len(2, value_len);
    wire::put_len_header(out, number, length);
    wire::put_bytes_field(out, 1, key.as_bytes());
    wire::put_len_header(out, 2, value_len);
    put_value(out, value);
}

#[allow(clippy::cast_sign_loss, reason = "int64 is sent as its bit pattern")]
fn value_len(value: &Value<'_>) -> usize {
    match value {
        Value::Text(text) => wire::bytes_field_len(1, text.len()),
        Value::Bool(_) => 2,
        Value::Int(number) => 1 + wire::varint_len(*number as u64),
        Value::Double(_) => 9,
        Value::Texts(texts) => wire::bytes_field_len(5, array_len(texts)),
    }
}

fn array_len(texts: &[&str]) -> usize {
    texts.iter().map(|text| wire::bytes_field_len(1, wire::bytes_field_len(1, text.len()))).sum()
}

#[allow(clippy::cast_sign_loss, reason = "int64 is sent as its bit pattern")]
fn put_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Text(text) => wire::put_bytes_field(out, 1, text.as_bytes()),
        Value::Bool(truth) => wire::put_varint_field(out, 2, u64::from(*truth)),
        Value::Int(number) => wire::put_varint_field(out, 3, *number as u64),
        Value::Double(number) => wire::put_fixed64_field(out, 4, number.to_bits()),
        Value::Texts(texts) => {
            wire::put_len_header(out, 5, array_len(texts));
            for text in *texts {
                wire::put_len_header(out, 1, wire::bytes_field_len(1, text.len()));
                wire::put_bytes_field(out, 1, text.as_bytes());
            }
        }
    }
}

fn put_attributes(out: &mut Vec<u8>, number: u32, attributes: &[Attribute<'_>]) {
    for (key, value) in attributes {
        put_attribute(out, number, key, value);
    }
}

/// Appends the content of a `Span`.
#[allow(clippy::cast_sign_loss, reason = "kinds and codes are small positive numbers")]
pub(crate) fn put_span(out: &mut Vec<u8>, trace: TraceId, span: &Span<'_>) {
    wire::put_bytes_field(out, 1, &trace.0);
    wire::put_bytes_field(out, 2, &span.span_id.0);
    if let Some(parent) = span.parent {
        wire::put_bytes_field(out, 4, &parent.0);
    }
    wire::put_bytes_field(out, 5, span.name.as_bytes());
    wire::put_varint_field(out, 6, span.kind as u64);
    wire::put_fixed64_field(out, 7, span.start);
    wire::put_fixed64_field(out, 8, span.end);
    put_attributes(out, 9, &span.attributes);
    let mut part = Vec::new();
    for event in &span.events {
        part.clear();
        put_event(&mut part, event);
        wire::put_bytes_field(out, 11, &part);
    }
    for link in &span.links {
        part.clear();
        put_link(&mut part, link);
        wire::put_bytes_field(out, 13, &part);
    }
    part.clear();
    if !span.status_message.is_empty() {
        wire::put_bytes_field(&mut part, 2, span.status_message.as_bytes());
    }
    if span.status != 0 {
        wire::put_varint_field(&mut part, 3, span.status as u64);
    }
    wire::put_bytes_field(out, 15, &part);
    // W3C trace flags: sampled.
    wire::put_fixed32_field(out, 16, 1);
}

fn put_event(out: &mut Vec<u8>, event: &Event<'_>) {
    wire::put_fixed64_field(out, 1, event.time);
    wire::put_bytes_field(out, 2, event.name.as_bytes());
    put_attributes(out, 3, &event.attributes);
}

fn put_link(out: &mut Vec<u8>, link: &Link<'_>) {
    wire::put_bytes_field(out, 1, &link.trace_id.0);
    wire::put_bytes_field(out, 2, &link.span_id.0);
    put_attributes(out, 4, &link.attributes);
}

#[cfg(test)]
mod tests {
    use clew_model::SpanId;
    use clew_model::otlp::{AnyValueView, SpanView};

    use super::*;

    #[test]
    fn a_span_reads_back_as_written() {
        let span = Span {
            span_id: SpanId([2; 8]),
            parent: Some(SpanId([3; 8])),
            name: "work".into(),
            kind: 2,
            start: 10,
            end: 30,
            attributes: vec![
                ("a", "text".into()),
                ("b", Value::Int(-5)),
                ("c", Value::Double(0.5)),
                ("d", true.into()),
                ("e", Value::Texts(&["x", "yy"])),
            ],
            events: vec![Event { time: 12, name: "note", attributes: vec![("k", 7.into())] }],
            links: vec![Link {
                trace_id: TraceId([8; 16]),
                span_id: SpanId([9; 8]),
                attributes: vec![("l", "m".into())],
            }],
            status: 2,
            status_message: "broken".into(),
            resource: 0,
            scope: 0,
        };
        let mut bytes = Vec::new();
        put_span(&mut bytes, TraceId([1; 16]), &span);
        let view = SpanView::parse(&bytes).unwrap();
        assert_eq!(view.trace(), Some(TraceId([1; 16])));
        assert_eq!(view.span(), Some(span.span_id));
        assert_eq!(view.parent(), span.parent);
        assert_eq!((view.name, view.kind), ("work", 2));
        assert_eq!((view.start_unix_nanos, view.end_unix_nanos), (10, 30));
        assert_eq!((view.status_code, view.status_message), (2, "broken"));
        let values: Vec<_> = view.attributes().map(|pair| pair.unwrap().value).collect();
        assert_eq!(values[0], AnyValueView::String("text"));
        assert_eq!(values[1], AnyValueView::Int(-5));
        assert_eq!(values[2], AnyValueView::Double(0.5));
        assert_eq!(values[3], AnyValueView::Bool(true));
        let AnyValueView::Array(array) = values[4] else { panic!("{:?}", values[4]) };
        let texts: Vec<_> =
            clew_model::otlp::view::array_elements(array).map(|v| v.unwrap()).collect();
        assert_eq!(texts, [AnyValueView::String("x"), AnyValueView::String("yy")]);
        let event = view.events().next().unwrap().unwrap();
        assert_eq!((event.time_unix_nanos, event.name), (12, "note"));
        assert_eq!(event.attributes().next().unwrap().unwrap().value, AnyValueView::Int(7));
        let link = view.links().next().unwrap().unwrap();
        assert_eq!((link.trace_id, link.span_id), (&[8; 16][..], &[9; 8][..]));
        assert_eq!(link.attributes().next().unwrap().unwrap().key, "l");
    }
}
