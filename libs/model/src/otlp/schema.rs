//! The OTLP trace messages as tables, so that the checker of requests, the JSON reader and the
//! JSON writer agree on field numbers, names and types.
//!
//! Source: `opentelemetry-proto` 1.x. Field tables are in the order of field numbers, which is also
//! the order in which the JSON writer prints.

/// A message type.
pub(crate) struct MessageDef {
    /// Its name in the .proto file, for error messages.
    pub(crate) name: &'static str,
    /// Whether this is `AnyValue`: the only message with a `oneof` (members are printed also when
    /// zero, the last one sent wins) and the only one that nests without end.
    pub(crate) any_value: bool,
    /// Its fields by ascending number.
    pub(crate) fields: &'static [FieldDef],
}

impl MessageDef {
    /// The field with that number, and its position in the table.
    #[inline]
    pub(crate) fn field(&self, number: u32) -> Option<(usize, &'static FieldDef)> {
        // Numbers are dense from 1 in all messages but one, so the guess is nearly always right.
        let guess = (number as usize).wrapping_sub(1);
        match self.fields.get(guess) {
            Some(field) if field.number == number => Some((guess, field)),
            _ => self.fields.iter().enumerate().find(|(_, field)| field.number == number),
        }
    }

    /// The field called `name` in JSON: the lowerCamelCase or the original name.
    pub(crate) fn named(&self, name: &str) -> Option<&'static FieldDef> {
        self.fields.iter().find(|field| field.json == name || field.name == name)
    }
}

/// A field of a message.
pub(crate) struct FieldDef {
    /// The field number.
    pub(crate) number: u32,
    /// The name in the .proto file.
    pub(crate) name: &'static str,
    /// The name in JSON.
    pub(crate) json: &'static str,
    /// Whether it may occur several times.
    pub(crate) repeated: bool,
    /// The type of one value.
    pub(crate) kind: FieldKind,
}

/// The type of a field.
#[derive(Clone, Copy)]
pub(crate) enum FieldKind {
    Text,
    Bytes,
    /// `bytes` that hold 16 bytes or none; hexadecimal in OTLP/JSON.
    TraceId,
    /// `bytes` that hold 8 bytes or none; hexadecimal in OTLP/JSON.
    SpanId,
    Bool,
    Int64,
    Uint32,
    Fixed32,
    Fixed64,
    Double,
    /// An enum with its names.
    Enum(&'static [(&'static str, i32)]),
    Message(&'static MessageDef),
}

const fn one(number: u32, name: &'static str, json: &'static str, kind: FieldKind) -> FieldDef {
    FieldDef { number, name, json, repeated: false, kind }
}

const fn many(number: u32, name: &'static str, json: &'static str, kind: FieldKind) -> FieldDef {
    FieldDef { number, name, json, repeated: true, kind }
}

const fn message(name: &'static str, fields: &'static [FieldDef]) -> MessageDef {
    MessageDef { name, any_value: false, fields }
}

use FieldKind::{
    Bool, Bytes, Double, Enum, Fixed32, Fixed64, Int64, Message, SpanId, Text, TraceId, Uint32,
};

/// `TracesData`, which has the same form as `ExportTraceServiceRequest`.
pub(crate) static TRACES_DATA: MessageDef =
    message("TracesData", &[many(1, "resource_spans", "resourceSpans", Message(&RESOURCE_SPANS))]);

pub(crate) static RESOURCE_SPANS: MessageDef = message(
    "ResourceSpans",
    &[
        one(1, "resource", "resource", Message(&RESOURCE)),
        many(2, "scope_spans", "scopeSpans", Message(&SCOPE_SPANS)),
        one(3, "schema_url", "schemaUrl", Text),
    ],
);

pub(crate) static SCOPE_SPANS: MessageDef = message(
    "ScopeSpans",
    &[
        one(1, "scope", "scope", Message(&SCOPE)),
        many(2, "spans", "spans", Message(&SPAN)),
        one(3, "schema_url", "schemaUrl", Text),
    ],
);

pub(crate) static RESOURCE: MessageDef = message(
    "Resource",
    &[
        many(1, "attributes", "attributes", Message(&KEY_VALUE)),
        one(2, "dropped_attributes_count", "droppedAttributesCount", Uint32),
        many(3, "entity_refs", "entityRefs", Message(&ENTITY_REF)),
    ],
);

static ENTITY_REF: MessageDef = message(
    "EntityRef",
    &[
        one(1, "schema_url", "schemaUrl", Text),
        one(2, "type", "type", Text),
        many(3, "id_keys", "idKeys", Text),
        many(4, "description_keys", "descriptionKeys", Text),
    ],
);

pub(crate) static SCOPE: MessageDef = message(
    "InstrumentationScope",
    &[
        one(1, "name", "name", Text),
        one(2, "version", "version", Text),
        many(3, "attributes", "attributes", Message(&KEY_VALUE)),
        one(4, "dropped_attributes_count", "droppedAttributesCount", Uint32),
    ],
);

/// Field numbers of [`SPAN`] that the checker treats on their own.
pub(crate) mod span_field {
    pub(crate) const TRACE_ID: u32 = 1;
    pub(crate) const SPAN_ID: u32 = 2;
    pub(crate) const PARENT_SPAN_ID: u32 = 4;
    pub(crate) const ATTRIBUTES: u32 = 9;
    pub(crate) const EVENTS: u32 = 11;
    pub(crate) const LINKS: u32 = 13;
}

pub(crate) static SPAN: MessageDef = message(
    "Span",
    &[
        one(1, "trace_id", "traceId", TraceId),
        one(2, "span_id", "spanId", SpanId),
        one(3, "trace_state", "traceState", Text),
        one(4, "parent_span_id", "parentSpanId", SpanId),
        one(5, "name", "name", Text),
        one(6, "kind", "kind", Enum(SPAN_KINDS)),
        one(7, "start_time_unix_nano", "startTimeUnixNano", Fixed64),
        one(8, "end_time_unix_nano", "endTimeUnixNano", Fixed64),
        many(9, "attributes", "attributes", Message(&KEY_VALUE)),
        one(10, "dropped_attributes_count", "droppedAttributesCount", Uint32),
        many(11, "events", "events", Message(&EVENT)),
        one(12, "dropped_events_count", "droppedEventsCount", Uint32),
        many(13, "links", "links", Message(&LINK)),
        one(14, "dropped_links_count", "droppedLinksCount", Uint32),
        one(15, "status", "status", Message(&STATUS)),
        one(16, "flags", "flags", Fixed32),
    ],
);

static EVENT: MessageDef = message(
    "Event",
    &[
        one(1, "time_unix_nano", "timeUnixNano", Fixed64),
        one(2, "name", "name", Text),
        many(3, "attributes", "attributes", Message(&KEY_VALUE)),
        one(4, "dropped_attributes_count", "droppedAttributesCount", Uint32),
    ],
);

static LINK: MessageDef = message(
    "Link",
    &[
        one(1, "trace_id", "traceId", TraceId),
        one(2, "span_id", "spanId", SpanId),
        one(3, "trace_state", "traceState", Text),
        many(4, "attributes", "attributes", Message(&KEY_VALUE)),
        one(5, "dropped_attributes_count", "droppedAttributesCount", Uint32),
        one(6, "flags", "flags", Fixed32),
    ],
);

static STATUS: MessageDef = message(
    "Status",
    &[one(2, "message", "message", Text), one(3, "code", "code", Enum(STATUS_CODES))],
);

static KEY_VALUE: MessageDef = message(
    "KeyValue",
    &[one(1, "key", "key", Text), one(2, "value", "value", Message(&ANY_VALUE))],
);

pub(crate) static ANY_VALUE: MessageDef = MessageDef {
    name: "AnyValue",
    any_value: true,
    fields: &[
        one(1, "string_value", "stringValue", Text),
        one(2, "bool_value", "boolValue", Bool),
        one(3, "int_value", "intValue", Int64),
        one(4, "double_value", "doubleValue", Double),
        one(5, "array_value", "arrayValue", Message(&ARRAY_VALUE)),
        one(6, "kvlist_value", "kvlistValue", Message(&KEY_VALUE_LIST)),
        one(7, "bytes_value", "bytesValue", Bytes),
    ],
};

static ARRAY_VALUE: MessageDef =
    message("ArrayValue", &[many(1, "values", "values", Message(&ANY_VALUE))]);

static KEY_VALUE_LIST: MessageDef =
    message("KeyValueList", &[many(1, "values", "values", Message(&KEY_VALUE))]);

static SPAN_KINDS: &[(&str, i32)] = &[
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
];

static STATUS_CODES: &[(&str, i32)] =
    &[("STATUS_CODE_UNSET", 0), ("STATUS_CODE_OK", 1), ("STATUS_CODE_ERROR", 2)];

#[cfg(test)]
mod tests {
    use super::*;

    /// lowerCamelCase of a snake_case name.
    fn camel(name: &str) -> String {
        let mut out = String::new();
        let mut upper = false;
        for c in name.chars() {
            match c {
                '_' => upper = true,
                c if upper => {
                    out.push(c.to_ascii_uppercase());
                    upper = false;
                }
                c => out.push(c),
            }
        }
        out
    }

    #[test]
    fn tables_are_ordered_and_names_agree() {
        let all = [
            &TRACES_DATA,
            &RESOURCE_SPANS,
            &SCOPE_SPANS,
            &RESOURCE,
            &ENTITY_REF,
            &SCOPE,
            &SPAN,
            &EVENT,
            &LINK,
            &STATUS,
            &KEY_VALUE,
            &ANY_VALUE,
            &ARRAY_VALUE,
            &KEY_VALUE_LIST,
        ];
        for message in all {
            assert!(message.fields.is_sorted_by(|a, b| a.number < b.number), "{}", message.name);
            for (at, field) in message.fields.iter().enumerate() {
                assert_eq!(field.json, camel(field.name));
                assert_eq!(message.field(field.number).unwrap().0, at);
                assert_eq!(message.named(field.json).unwrap().number, field.number);
                assert_eq!(message.named(field.name).unwrap().number, field.number);
            }
            assert!(message.field(1000).is_none() && message.field(0).is_none());
        }
    }
}
