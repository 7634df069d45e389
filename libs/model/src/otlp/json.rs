//! OTLP/JSON to protobuf.
//!
//! The mapping is protobuf's JSON mapping with OTLP's changes: ids are hexadecimal, enums are
//! numbers. Read generously, as the specification asks: unknown fields are skipped, the original
//! field names and enum names are understood too, 64-bit integers may be numbers or strings.
//!
//! The body is read as a stream and written as protobuf in one pass. Ids that are no hexadecimal
//! are written as they came, so that the scan rejects that span and not the request. JSON nested
//! deeper than 127 levels is refused (about 29 levels of attribute values).

mod number;
mod text;

use std::fmt::{self, Formatter};

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use self::number::NumberSeed;
use self::text::{BytesSeed, KeySeed, TextForm};
use super::request::ScanLimits;
use super::schema::{FieldDef, FieldKind, MessageDef, TRACES_DATA};
use crate::ModelError;
use crate::wire::{put_bytes_field, put_varint, varint_len};

/// The longest error message; parser messages may quote the input.
const MESSAGE_BYTES_MAX: usize = 300;

/// Rewrites an OTLP/JSON `ExportTraceServiceRequest` as protobuf bytes. Checking the spans is left
/// to [`super::request::scan`].
///
/// # Errors
/// [`ModelError::TooLarge`]; [`ModelError::Json`] with line and column when the body is not JSON or
/// a known field has a value of another type.
pub fn json_to_protobuf(body: &[u8], limits: &ScanLimits) -> Result<Vec<u8>, ModelError> {
    if body.len() > limits.request_bytes_max {
        let bytes_max = limits.request_bytes_max;
        return Err(ModelError::TooLarge { bytes: body.len(), bytes_max });
    }
    // Protobuf is shorter than the JSON of the same data.
    let mut out = Vec::with_capacity(body.len() / 2);
    let mut parser = serde_json::Deserializer::from_slice(body);
    MessageSeed { def: &TRACES_DATA, null_is_empty: false, out: &mut out }
        .deserialize(&mut parser)
        .and_then(|()| parser.end())
        .map_err(|error| json_error(&error))?;
    Ok(out)
}

fn json_error(error: &serde_json::Error) -> ModelError {
    let (line, column) = (error.line(), error.column());
    let mut message = error.to_string();
    // The position has fields of its own.
    let suffix = format!(" at line {line} column {column}");
    if let Some(stripped) = message.strip_suffix(&suffix) {
        message.truncate(stripped.len());
    }
    if message.len() > MESSAGE_BYTES_MAX {
        let cut = (0..=MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(cut.unwrap_or_default());
        message.push('…');
    }
    ModelError::Json { message, line, column }
}

/// Appends the content of one message.
struct MessageSeed<'o> {
    def: &'static MessageDef,
    /// `null` stands for a message that was not sent, but a request is an object.
    null_is_empty: bool,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.def.name)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.null_is_empty {
            return Ok(());
        }
        Err(E::invalid_type(serde::de::Unexpected::Unit, &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key_seed(KeySeed { def: self.def })? {
            match field {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(field) if field.repeated => {
                    map.next_value_seed(RepeatedSeed { field, out: self.out })?;
                }
                Some(field) => {
                    let presence =
                        if self.def.any_value { Presence::Explicit } else { Presence::NonZero };
                    map.next_value_seed(ValueSeed { field, presence, out: self.out })?;
                }
            }
        }
        Ok(())
    }
}

/// Appends every element of a repeated field.
struct RepeatedSeed<'o> {
    field: &'static FieldDef,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for RepeatedSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RepeatedSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "an array ({})", self.field.json)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let RepeatedSeed { field, out } = self;
        loop {
            let seed = ValueSeed { field, presence: Presence::Element, out: &mut *out };
            if elements.next_element_seed(seed)?.is_none() {
                return Ok(());
            }
        }
    }
}

/// When a value is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// Zero values are the same as absent ones and left out.
    NonZero,
    /// A member of a `oneof`: written also when zero, absent when null.
    Explicit,
    /// An element of an array: always written, null as zero.
    Element,
}

/// Appends one field with one value.
struct ValueSeed<'o> {
    field: &'static FieldDef,
    presence: Presence,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let ValueSeed { field, presence, out } = self;
        let form = match field.kind {
            FieldKind::Message(def) => return put_message(field, def, presence, out, deserializer),
            FieldKind::Text => TextForm::Text,
            FieldKind::Bytes => TextForm::Base64,
            FieldKind::TraceId | FieldKind::SpanId => TextForm::Hex,
            _ => return NumberSeed { field, presence, out }.deserialize(deserializer),
        };
        let content = BytesSeed { field, form }.deserialize(deserializer)?;
        let written = match &content {
            Some(content) => presence != Presence::NonZero || !content.is_empty(),
            None => presence == Presence::Element,
        };
        if written {
            put_bytes_field(out, field.number, content.as_deref().unwrap_or_default());
        }
        Ok(())
    }
}

/// Appends a message as a length-delimited field. The content is written first and then moved by
/// the few bytes its length takes: no buffers for nested messages, and nesting is bounded.
fn put_message<'de, D: Deserializer<'de>>(
    field: &'static FieldDef,
    def: &'static MessageDef,
    presence: Presence,
    out: &mut Vec<u8>,
    deserializer: D,
) -> Result<(), D::Error> {
    let field_start = out.len();
    put_varint(out, u64::from(field.number) << 3 | 2);
    // Most messages are short enough for a length of one byte.
    out.push(0);
    let start = out.len();
    let sent = OptionalMessage { def, out }.deserialize(deserializer)?;
    if !sent && presence != Presence::Element {
        out.truncate(field_start);
        return Ok(());
    }
    let end = out.len();
    let length = u64::try_from(end - start).map_err(D::Error::custom)?;
    let extra = varint_len(length) - 1;
    if extra > 0 {
        out.resize(end + extra, 0);
        out.copy_within(start..end, start + extra);
    }
    let mut rest = length;
    for byte in &mut out[start - 1..start + extra] {
        *byte = (rest & 0x7f) as u8 | 0x80;
        rest >>= 7;
    }
    out[start + extra - 1] &= 0x7f;
    Ok(())
}

/// A message that may be null. Yields whether it was there.
struct OptionalMessage<'o> {
    def: &'static MessageDef,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for OptionalMessage<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for OptionalMessage<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.def.name)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        MessageSeed { def: self.def, null_is_empty: true, out: self.out }
            .deserialize(deserializer)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
