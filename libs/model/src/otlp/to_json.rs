//! Stored protobuf bytes to protobuf-JSON, as the Tempo API prints traces: lowerCamelCase names,
//! 64-bit integers as strings, enums by name, zero values left out, bytes in base64.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use smallvec::SmallVec;

use super::request::VALUE_DEPTH_MAX;
use super::schema::{FieldDef, FieldKind, MessageDef, RESOURCE, SCOPE, SPAN};
use super::view::{AnyValueView, array_elements, list_entries};
use crate::ModelError;
use crate::id::to_hex;
use crate::trace::{ResourceGroup, ScopeGroup, Trace, group_spans};
use crate::wire::{Field, Reader, Value, WireError};

/// How trace and span ids are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdStyle {
    /// As all bytes in protobuf-JSON: what the Tempo API answers.
    #[default]
    Base64,
    /// Lower-case hexadecimal: OTLP/JSON.
    Hex,
}

/// Appends the trace's `ResourceSpans` as a JSON array with base64 ids.
///
/// # Errors
/// As [`write_resource_spans_json_as`].
pub fn write_resource_spans_json(trace: &Trace, out: &mut String) -> Result<(), ModelError> {
    write_resource_spans_json_as(trace, IdStyle::Base64, out)
}

/// Appends the trace's `ResourceSpans` as a JSON array, grouped as [`Trace::encode`] does.
///
/// `resource` and `scope` are always there, since readers of Tempo's answers rely on it.
///
/// # Errors
/// [`ModelError::Damaged`] when stored bytes do not parse; `out` then ends anywhere.
pub fn write_resource_spans_json_as(
    trace: &Trace,
    ids: IdStyle,
    out: &mut String,
) -> Result<(), ModelError> {
    let mut writer = Writer { ids, out };
    writer.resource_spans(&group_spans(&trace.spans)).map_err(ModelError::Damaged)
}

/// An attribute value in the JSON form of the search API, such as `{"intValue":"5"}`; an empty
/// value is `{}`. What does not parse or lies deeper than [`VALUE_DEPTH_MAX`] becomes empty.
pub fn any_value_to_json(value: AnyValueView<'_>) -> serde_json::Value {
    json_value(value, VALUE_DEPTH_MAX)
}

fn json_value(value: AnyValueView<'_>, depth_left: u32) -> serde_json::Value {
    use serde_json::{Value as Json, json};
    let Some(depth_left) = depth_left.checked_sub(1) else { return json!({}) };
    match value {
        AnyValueView::Empty => json!({}),
        AnyValueView::String(text) => json!({ "stringValue": text }),
        AnyValueView::Bool(value) => json!({ "boolValue": value }),
        AnyValueView::Int(value) => json!({ "intValue": value.to_string() }),
        AnyValueView::Double(value) if value.is_finite() => json!({ "doubleValue": value }),
        AnyValueView::Double(value) => json!({ "doubleValue": not_finite(value) }),
        AnyValueView::Bytes(bytes) => json!({ "bytesValue": BASE64.encode(bytes) }),
        AnyValueView::Array(raw) => {
            let values: Vec<Json> = array_elements(raw)
                .map_while(Result::ok)
                .map(|element| json_value(element, depth_left))
                .collect();
            json!({ "arrayValue": { "values": values } })
        }
        AnyValueView::KeyValueList(raw) => {
            let values: Vec<Json> = list_entries(raw)
                .map_while(Result::ok)
                .map(|entry| json!({ "key": entry.key, "value": json_value(entry.value, depth_left) }))
                .collect();
            json!({ "kvlistValue": { "values": values } })
        }
    }
}

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// Known fields of a message with their positions in its table.
type Fields<'a> = SmallVec<[(usize, Field<'a>); 16]>;

struct Writer<'o> {
    ids: IdStyle,
    out: &'o mut String,
}

impl Writer<'_> {
    fn resource_spans(&mut self, groups: &[ResourceGroup<'_>]) -> Result<(), WireError> {
        self.out.push('[');
        for (at, group) in groups.iter().enumerate() {
            self.out.push_str(if at == 0 { "{\"resource\":" } else { ",{\"resource\":" });
            self.message(&group.resource.bytes, &RESOURCE, VALUE_DEPTH_MAX)?;
            self.out.push_str(",\"scopeSpans\":[");
            for (at, scope) in group.scopes.iter().enumerate() {
                self.out.push_str(if at == 0 { "" } else { "," });
                self.scope_spans(scope)?;
            }
            self.out.push(']');
            self.schema_url(&group.resource.schema_url);
            self.out.push('}');
        }
        self.out.push(']');
        Ok(())
    }

    fn scope_spans(&mut self, group: &ScopeGroup<'_>) -> Result<(), WireError> {
        self.out.push_str("{\"scope\":");
        self.message(&group.scope.bytes, &SCOPE, VALUE_DEPTH_MAX)?;
        self.out.push_str(",\"spans\":[");
        for (at, span) in group.spans.iter().enumerate() {
            self.out.push_str(if at == 0 { "" } else { "," });
            self.message(&span.bytes, &SPAN, VALUE_DEPTH_MAX)?;
        }
        self.out.push(']');
        self.schema_url(&group.scope.schema_url);
        self.out.push('}');
        Ok(())
    }

    fn schema_url(&mut self, url: &str) {
        if !url.is_empty() {
            self.out.push_str(",\"schemaUrl\":");
            self.text(url);
        }
    }

    /// Appends an encoded message as an object. Recursion ends after `depth_left` values.
    fn message(
        &mut self,
        raw: &[u8],
        def: &'static MessageDef,
        depth_left: u32,
    ) -> Result<(), WireError> {
        let depth_left = match (def.any_value, depth_left.checked_sub(1)) {
            (true, None) => return Err(WireError::TooDeep),
            (true, Some(left)) => left,
            (false, _) => depth_left,
        };
        let fields = known_fields(raw, def)?;
        self.out.push('{');
        let mut first = true;
        for run in fields.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((at, last)) = run.last() else { continue };
            let field = &def.fields[*at];
            if !field.repeated && !def.any_value && is_zero(last, field) {
                continue;
            }
            self.out.push_str(if first { "\"" } else { ",\"" });
            self.out.push_str(field.json);
            self.out.push_str("\":");
            first = false;
            match field.kind {
                _ if field.repeated => self.array(run, field, depth_left)?,
                FieldKind::Message(inner) if run.len() > 1 => {
                    self.message(&joined(run)?, inner, depth_left)?;
                }
                _ => self.value(last, field, depth_left)?,
            }
        }
        self.out.push('}');
        Ok(())
    }

    fn array(
        &mut self,
        run: &[(usize, Field<'_>)],
        field: &FieldDef,
        depth_left: u32,
    ) -> Result<(), WireError> {
        self.out.push('[');
        for (at, (_, element)) in run.iter().enumerate() {
            self.out.push_str(if at == 0 { "" } else { "," });
            self.value(element, field, depth_left)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn value(
        &mut self,
        value: &Field<'_>,
        field: &FieldDef,
        depth_left: u32,
    ) -> Result<(), WireError> {
        // Writing to a string does not fail.
        let _ = match field.kind {
            FieldKind::Message(inner) => return self.message(value.bytes()?, inner, depth_left),
            FieldKind::Text => {
                self.text(value.text()?);
                Ok(())
            }
            FieldKind::Bytes => {
                self.base64(value.bytes()?);
                Ok(())
            }
            FieldKind::TraceId | FieldKind::SpanId => {
                match self.ids {
                    IdStyle::Base64 => self.base64(value.bytes()?),
                    IdStyle::Hex => self.text(&to_hex(value.bytes()?)),
                }
                Ok(())
            }
            FieldKind::Bool => write!(self.out, "{}", value.varint()? != 0),
            FieldKind::Int64 => write!(self.out, "\"{}\"", value.varint()?.cast_signed()),
            #[allow(clippy::cast_possible_truncation, reason = "protobuf truncates to 32 bits")]
            FieldKind::Uint32 => write!(self.out, "{}", value.varint()? as u32),
            FieldKind::Fixed32 => write!(self.out, "{}", value.fixed32()?),
            FieldKind::Fixed64 => write!(self.out, "\"{}\"", value.fixed64()?),
            FieldKind::Double => {
                self.double(f64::from_bits(value.fixed64()?));
                Ok(())
            }
            FieldKind::Enum(names) => {
                #[allow(clippy::cast_possible_truncation, reason = "enums are 32 bits")]
                let number = value.varint()? as i32;
                match names.iter().find(|(_, value)| *value == number) {
                    Some((name, _)) => write!(self.out, "\"{name}\""),
                    None => write!(self.out, "{number}"),
                }
            }
        };
        Ok(())
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.out.push('"');
        BASE64.encode_string(bytes, self.out);
        self.out.push('"');
    }

    /// As Go prints doubles: shortest digits, an exponent only for the very large and very small.
    fn double(&mut self, value: f64) {
        let _ = if !value.is_finite() {
            write!(self.out, "\"{}\"", not_finite(value))
        } else if value == 0.0 || (1e-6..1e21).contains(&value.abs()) {
            write!(self.out, "{value}")
        } else {
            write!(self.out, "{value:e}")
        };
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte >= b' ' && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.out.push_str(&text[plain..at]);
            plain = at + 1;
            let _ = match byte {
                b'"' | b'\\' => write!(self.out, "\\{}", char::from(byte)),
                b'\n' => write!(self.out, "\\n"),
                b'\r' => write!(self.out, "\\r"),
                b'\t' => write!(self.out, "\\t"),
                _ => write!(self.out, "\\u{byte:04x}"),
            };
        }
        self.out.push_str(&text[plain..]);
        self.out.push('"');
    }
}

/// The fields that the schema knows, in its order; of an `AnyValue` only the last one sent.
fn known_fields<'a>(raw: &'a [u8], def: &'static MessageDef) -> Result<Fields<'a>, WireError> {
    let mut fields = Fields::new();
    let mut reader = Reader::new(raw);
    while let Some(field) = reader.next_field()? {
        if let Some((at, _)) = def.field(field.number) {
            if def.any_value {
                fields.clear();
            }
            fields.push((at, field));
        }
    }
    if !fields.is_sorted_by_key(|(at, _)| *at) {
        fields.sort_by_key(|(at, _)| *at);
    }
    Ok(fields)
}

/// The pieces of a message that was sent in several.
fn joined(run: &[(usize, Field<'_>)]) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::new();
    for (_, piece) in run {
        bytes.extend_from_slice(piece.bytes()?);
    }
    Ok(bytes)
}

/// Whether the value is the one an absent field has. Messages are never: their presence counts.
fn is_zero(value: &Field<'_>, field: &FieldDef) -> bool {
    match value.value {
        Value::Bytes(bytes) => bytes.is_empty() && !matches!(field.kind, FieldKind::Message(_)),
        Value::Varint(bits) => bits == 0,
        Value::Fixed64(bits) => bits == 0,
        Value::Fixed32(bits) => bits == 0,
    }
}

#[cfg(test)]
mod tests;
