//! Borrowed views of spans and their parts.
//!
//! A view is made by one shallow pass over the message; repeated parts (attributes, events, links)
//! are visited lazily, straight from the bytes. Strings were checked for UTF-8 when the span was
//! accepted; a view checks again, because stored bytes may be damaged.

use crate::wire::{Field, Reader, Value, WireError};
use crate::{SpanId, TraceId};

/// Span kinds as OTLP numbers them.
pub mod kind {
    /// Not stated.
    pub const UNSPECIFIED: i32 = 0;
    /// Internal operation.
    pub const INTERNAL: i32 = 1;
    /// Server side of a call.
    pub const SERVER: i32 = 2;
    /// Client side of a call.
    pub const CLIENT: i32 = 3;
    /// Sends a message.
    pub const PRODUCER: i32 = 4;
    /// Receives a message.
    pub const CONSUMER: i32 = 5;
}

/// Status codes as OTLP numbers them.
pub mod status {
    /// Not set.
    pub const UNSET: i32 = 0;
    /// Validated as successful.
    pub const OK: i32 = 1;
    /// Failed.
    pub const ERROR: i32 = 2;
}

/// One span, read from its encoded bytes.
#[derive(Debug, Clone, Copy)]
pub struct SpanView<'a> {
    /// The whole encoded message.
    pub raw: &'a [u8],
    /// Field 1, as it came: check with [`TraceId::from_wire`].
    pub trace_id: &'a [u8],
    /// Field 2, as it came.
    pub span_id: &'a [u8],
    /// Field 4; empty for a root span.
    pub parent_span_id: &'a [u8],
    /// Field 3, W3C trace state.
    pub trace_state: &'a str,
    /// Field 5.
    pub name: &'a str,
    /// Field 6, see [`kind`].
    pub kind: i32,
    /// Field 7, nanoseconds since the epoch.
    pub start_unix_nanos: u64,
    /// Field 8, nanoseconds since the epoch.
    pub end_unix_nanos: u64,
    /// Field 15.3, see [`status`].
    pub status_code: i32,
    /// Field 15.2.
    pub status_message: &'a str,
}

impl<'a> SpanView<'a> {
    /// Field numbers of the repeated parts.
    const ATTRIBUTES: u32 = 9;
    const EVENTS: u32 = 11;
    const LINKS: u32 = 13;

    /// Reads the scalar fields of the encoded span in `raw`.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no span.
    pub fn parse(raw: &'a [u8]) -> Result<SpanView<'a>, WireError> {
        let mut span = SpanView {
            raw,
            trace_id: &[],
            span_id: &[],
            parent_span_id: &[],
            trace_state: "",
            name: "",
            kind: 0,
            start_unix_nanos: 0,
            end_unix_nanos: 0,
            status_code: 0,
            status_message: "",
        };
        let mut reader = Reader::new(raw);
        while let Some(field) = reader.next_field()? {
            match field.number {
                1 => span.trace_id = field.bytes()?,
                2 => span.span_id = field.bytes()?,
                3 => span.trace_state = field.text()?,
                4 => span.parent_span_id = field.bytes()?,
                5 => span.name = field.text()?,
                6 => span.kind = enum_value(&field)?,
                7 => span.start_unix_nanos = field.fixed64()?,
                8 => span.end_unix_nanos = field.fixed64()?,
                15 => span.read_status(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(span)
    }

    fn read_status(&mut self, bytes: &'a [u8]) -> Result<(), WireError> {
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.next_field()? {
            match field.number {
                2 => self.status_message = field.text()?,
                3 => self.status_code = enum_value(&field)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The checked trace id.
    pub fn trace(&self) -> Option<TraceId> {
        TraceId::from_wire(self.trace_id)
    }

    /// The checked span id.
    pub fn span(&self) -> Option<SpanId> {
        SpanId::from_wire(self.span_id)
    }

    /// The parent's id; `None` for a root span (empty or all zero).
    pub fn parent(&self) -> Option<SpanId> {
        SpanId::from_wire(self.parent_span_id)
    }

    /// End minus start in nanoseconds; zero when the clock ran backwards.
    pub fn duration_nanos(&self) -> u64 {
        self.end_unix_nanos.saturating_sub(self.start_unix_nanos)
    }

    /// The span's attributes in stored order.
    pub fn attributes(
        &self,
    ) -> impl Iterator<Item = Result<KeyValueView<'a>, WireError>> + use<'a> {
        messages(self.raw, Self::ATTRIBUTES).map(|m| KeyValueView::parse(m?))
    }

    /// The span's events in stored order.
    pub fn events(&self) -> impl Iterator<Item = Result<EventView<'a>, WireError>> + use<'a> {
        messages(self.raw, Self::EVENTS).map(|m| EventView::parse(m?))
    }

    /// The span's links in stored order.
    pub fn links(&self) -> impl Iterator<Item = Result<LinkView<'a>, WireError>> + use<'a> {
        messages(self.raw, Self::LINKS).map(|m| LinkView::parse(m?))
    }
}

fn enum_value(field: &Field<'_>) -> Result<i32, WireError> {
    // Enums are int32 varints; numbers beyond it are truncated as protobuf decoders do.
    #[allow(clippy::cast_possible_truncation, reason = "protobuf truncates enums to 32 bits")]
    field.varint().map(|value| value as i32)
}

/// The encoded messages under field `number` of the message `raw`.
pub fn messages(raw: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8], WireError>> {
    Reader::new(raw).filter_map(move |field| match field {
        Ok(field) if field.number == number => Some(field.bytes()),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

/// One key and its value.
#[derive(Debug, Clone, Copy)]
pub struct KeyValueView<'a> {
    /// The attribute's name.
    pub key: &'a str,
    /// Its value; [`AnyValueView::Empty`] when none was sent.
    pub value: AnyValueView<'a>,
}

impl<'a> KeyValueView<'a> {
    /// Reads an encoded `KeyValue`.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are none.
    #[inline]
    pub fn parse(raw: &'a [u8]) -> Result<KeyValueView<'a>, WireError> {
        if let Some((key, value)) = plain_pair(raw)
            && let Some(value) = AnyValueView::plain(value)
            && let Ok(key) = std::str::from_utf8(key)
        {
            return Ok(KeyValueView { key, value });
        }
        KeyValueView::parse_any(raw)
    }

    fn parse_any(raw: &'a [u8]) -> Result<KeyValueView<'a>, WireError> {
        let mut pair = KeyValueView { key: "", value: AnyValueView::Empty };
        let mut reader = Reader::new(raw);
        while let Some(field) = reader.next_field()? {
            match field.number {
                1 => pair.key = field.text()?,
                2 => pair.value = AnyValueView::parse(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(pair)
    }
}

/// An attribute's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AnyValueView<'a> {
    /// Nothing was sent.
    Empty,
    /// Text.
    String(&'a str),
    /// True or false.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// An encoded `ArrayValue`; see [`array_elements`].
    Array(&'a [u8]),
    /// An encoded `KeyValueList`; see [`list_entries`].
    KeyValueList(&'a [u8]),
    /// Raw bytes.
    Bytes(&'a [u8]),
}

/// The key and the encoded value of a `KeyValue` in the form in which nearly all come: key, then
/// value, both shorter than 128 bytes. Attributes are most of what is read of spans, so their usual
/// form has a way of its own; `None` is for the general one to decide.
#[inline]
pub(crate) fn plain_pair(raw: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, key_length @ ..0x80, rest @ ..] = raw else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(*key_length))?;
    let [0x12, value_length @ ..0x80, value @ ..] = rest else { return None };
    (value.len() == usize::from(*value_length)).then_some((key, value))
}

impl<'a> AnyValueView<'a> {
    /// The value, if it is one scalar in the form in which nearly all come.
    #[inline]
    pub(crate) fn plain(raw: &'a [u8]) -> Option<AnyValueView<'a>> {
        match raw {
            [0x0a, length @ ..0x80, text @ ..] if text.len() == usize::from(*length) => {
                std::str::from_utf8(text).ok().map(AnyValueView::String)
            }
            [0x10, truth @ ..0x80] => Some(AnyValueView::Bool(*truth != 0)),
            [0x18, number @ ..] if !number.is_empty() && number.len() <= 9 => {
                let (last, others) = number.split_last()?;
                if *last >= 0x80 || others.iter().any(|byte| *byte < 0x80) {
                    return None;
                }
                let value =
                    number.iter().rev().fold(0, |sum: u64, byte| sum << 7 | u64::from(byte & 0x7f));
                Some(AnyValueView::Int(value.cast_signed()))
            }
            [0x21, bits @ ..] => {
                let bits = <[u8; 8]>::try_from(bits).ok()?;
                Some(AnyValueView::Double(f64::from_bits(u64::from_le_bytes(bits))))
            }
            _ => None,
        }
    }

    /// Reads an encoded `AnyValue`. Nested values are not visited.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are none.
    pub fn parse(raw: &'a [u8]) -> Result<AnyValueView<'a>, WireError> {
        let mut value = AnyValueView::Empty;
        let mut reader = Reader::new(raw);
        while let Some(field) = reader.next_field()? {
            value = match (field.number, field.value) {
                (1, _) => AnyValueView::String(field.text()?),
                (2, _) => AnyValueView::Bool(field.varint()? != 0),
                #[allow(clippy::cast_possible_wrap, reason = "int64 is sent as its bit pattern")]
                (3, _) => AnyValueView::Int(field.varint()? as i64),
                (4, Value::Fixed64(bits)) => AnyValueView::Double(f64::from_bits(bits)),
                (4, _) => return Err(WireError::WrongType(4)),
                (5, _) => AnyValueView::Array(field.bytes()?),
                (6, _) => AnyValueView::KeyValueList(field.bytes()?),
                (7, _) => AnyValueView::Bytes(field.bytes()?),
                _ => continue,
            };
        }
        Ok(value)
    }
}

/// The elements of an encoded `ArrayValue`.
pub fn array_elements(raw: &[u8]) -> impl Iterator<Item = Result<AnyValueView<'_>, WireError>> {
    messages(raw, 1).map(|m| AnyValueView::parse(m?))
}

/// The entries of an encoded `KeyValueList`.
pub fn list_entries(raw: &[u8]) -> impl Iterator<Item = Result<KeyValueView<'_>, WireError>> {
    messages(raw, 1).map(|m| KeyValueView::parse(m?))
}

/// The attributes of an encoded `Resource` (field 1).
pub fn resource_attributes(
    raw: &[u8],
) -> impl Iterator<Item = Result<KeyValueView<'_>, WireError>> {
    messages(raw, 1).map(|m| KeyValueView::parse(m?))
}

/// One event of a span.
#[derive(Debug, Clone, Copy)]
pub struct EventView<'a> {
    /// The whole encoded message.
    pub raw: &'a [u8],
    /// Field 1, nanoseconds since the epoch.
    pub time_unix_nanos: u64,
    /// Field 2.
    pub name: &'a str,
}

impl<'a> EventView<'a> {
    /// Reads an encoded `Span.Event`.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are none.
    pub fn parse(raw: &'a [u8]) -> Result<EventView<'a>, WireError> {
        let mut event = EventView { raw, time_unix_nanos: 0, name: "" };
        let mut reader = Reader::new(raw);
        while let Some(field) = reader.next_field()? {
            match field.number {
                1 => event.time_unix_nanos = field.fixed64()?,
                2 => event.name = field.text()?,
                _ => {}
            }
        }
        Ok(event)
    }

    /// The event's attributes.
    pub fn attributes(
        &self,
    ) -> impl Iterator<Item = Result<KeyValueView<'a>, WireError>> + use<'a> {
        messages(self.raw, 3).map(|m| KeyValueView::parse(m?))
    }
}

/// One link of a span.
#[derive(Debug, Clone, Copy)]
pub struct LinkView<'a> {
    /// The whole encoded message.
    pub raw: &'a [u8],
    /// Field 1.
    pub trace_id: &'a [u8],
    /// Field 2.
    pub span_id: &'a [u8],
}

impl<'a> LinkView<'a> {
    /// Reads an encoded `Span.Link`.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are none.
    pub fn parse(raw: &'a [u8]) -> Result<LinkView<'a>, WireError> {
        let mut link = LinkView { raw, trace_id: &[], span_id: &[] };
        let mut reader = Reader::new(raw);
        while let Some(field) = reader.next_field()? {
            match field.number {
                1 => link.trace_id = field.bytes()?,
                2 => link.span_id = field.bytes()?,
                _ => {}
            }
        }
        Ok(link)
    }

    /// The link's attributes.
    pub fn attributes(
        &self,
    ) -> impl Iterator<Item = Result<KeyValueView<'a>, WireError>> + use<'a> {
        messages(self.raw, 4).map(|m| KeyValueView::parse(m?))
    }
}

/// The scalar fields of an encoded `InstrumentationScope`.
#[derive(Debug, Clone, Copy)]
pub struct ScopeView<'a> {
    /// The whole encoded message.
    pub raw: &'a [u8],
    /// Field 1.
    pub name: &'a str,
    /// Field 2.
    pub version: &'a str,
}

impl<'a> ScopeView<'a> {
    /// Reads an encoded `InstrumentationScope`.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are none.
    pub fn parse(raw: &'a [u8]) -> Result<ScopeView<'a>, WireError> {
        let mut scope = ScopeView { raw, name: "", version: "" };
        let mut reader = Reader::new(raw);
        while let Some(field) = reader.next_field()? {
            match field.number {
                1 => scope.name = field.text()?,
                2 => scope.version = field.text()?,
                _ => {}
            }
        }
        Ok(scope)
    }

    /// The scope's attributes.
    pub fn attributes(
        &self,
    ) -> impl Iterator<Item = Result<KeyValueView<'a>, WireError>> + use<'a> {
        messages(self.raw, 3).map(|m| KeyValueView::parse(m?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{put_bytes_field, put_fixed64_field, put_varint_field};

    /// Encoded pairs as senders write them, and the same with a byte changed.
    fn pair() -> impl Strategy<Value = Vec<u8>> {
        let value = prop_oneof![
            "[a-z\u{80}-\u{ffff}]{0,140}".prop_map(|text| {
                let mut out = Vec::new();
                put_bytes_field(&mut out, 1, text.as_bytes());
                out
            }),
            (2u32..4, prop_oneof![any::<u64>(), 0u64..300]).prop_map(|(number, value)| {
                let mut out = Vec::new();
                put_varint_field(&mut out, number, value);
                out
            }),
            any::<u64>().prop_map(|bits| {
                let mut out = Vec::new();
                put_fixed64_field(&mut out, 4, bits);
                out
            }),
            proptest::collection::vec(any::<u8>(), 0..12),
        ];
        ("[a-z.]{0,20}", value, any::<bool>(), any::<(prop::sample::Index, u8)>()).prop_map(
            |(key, value, damaged, (at, byte))| {
                let mut out = Vec::new();
                put_bytes_field(&mut out, 1, key.as_bytes());
                put_bytes_field(&mut out, 2, &value);
                if damaged {
                    let at = at.index(out.len());
                    out[at] = byte;
                }
                out
            },
        )
    }

    proptest! {
        #[test]
        fn the_usual_form_is_read_as_the_general_way_does(raw in pair()) {
            let (quick, general) = (KeyValueView::parse(&raw), KeyValueView::parse_any(&raw));
            prop_assert_eq!(format!("{quick:?}"), format!("{general:?}"));
        }
    }
}
