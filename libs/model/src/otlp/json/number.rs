//! JSON numbers of OTLP/JSON: integers (also as strings), doubles, booleans and enums.

use std::fmt::{self, Formatter};

use serde::de::{DeserializeSeed, Deserializer, Error, Unexpected, Visitor};

use super::Presence;
use crate::otlp::schema::{FieldDef, FieldKind};
use crate::wire::{put_fixed32_field, put_fixed64_field, put_varint_field};

/// 2^64 and 2^63 as doubles: the first ones past the integers.
const U64_END: f64 = 18_446_744_073_709_551_616.0;
const I64_END: f64 = 9_223_372_036_854_775_808.0;

/// Appends one numeric field.
pub(super) struct NumberSeed<'o> {
    pub(super) field: &'static FieldDef,
    pub(super) presence: Presence,
    pub(super) out: &'o mut Vec<u8>,
}

/// A JSON value before it is fitted into the field's type.
#[derive(Clone, Copy)]
enum Number {
    Unsigned(u64),
    Signed(i64),
    Double(f64),
}

impl<'de> DeserializeSeed<'de> for NumberSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for NumberSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let what = match self.field.kind {
            FieldKind::Bool => "true or false",
            FieldKind::Int64 => "a signed 64-bit integer",
            FieldKind::Uint32 | FieldKind::Fixed32 => "an unsigned 32-bit integer",
            FieldKind::Fixed64 => "an unsigned 64-bit integer",
            FieldKind::Enum(_) => "an enum's number or name",
            _ => "a number",
        };
        write!(f, "{what} ({})", self.field.json)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.presence == Presence::Element { self.put(Number::Unsigned(0)) } else { Ok(()) }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.field.kind {
            FieldKind::Bool => self.put_bits(u64::from(value)),
            _ => return Err(E::invalid_type(Unexpected::Bool(value), &self)),
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.put(Number::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.put(Number::Signed(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.put(Number::Double(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if let FieldKind::Enum(names) = self.field.kind
            && let Some((_, value)) = names.iter().find(|(name, _)| *name == text)
        {
            return self.put(Number::Signed(i64::from(*value)));
        }
        let number = match self.field.kind {
            FieldKind::Bool => None,
            FieldKind::Double => parse_double(text),
            _ => parse_integer(text),
        };
        match number {
            Some(number) => self.put(number),
            None => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

impl NumberSeed<'_> {
    /// Fits `number` into the field's type and appends it.
    fn put<E: Error>(self, number: Number) -> Result<(), E> {
        let bits = match self.field.kind {
            FieldKind::Double => Some(as_double(number).to_bits()),
            FieldKind::Fixed64 => as_unsigned(number),
            FieldKind::Uint32 | FieldKind::Fixed32 => {
                as_unsigned(number).filter(|value| u32::try_from(*value).is_ok())
            }
            // Both are sent as the 64-bit pattern of the sign-extended number.
            FieldKind::Int64 => as_signed(number).map(i64::cast_unsigned),
            FieldKind::Enum(_) => as_signed(number)
                .filter(|value| i32::try_from(*value).is_ok())
                .map(i64::cast_unsigned),
            _ => None,
        };
        let Some(bits) = bits else {
            let unexpected = match number {
                Number::Unsigned(value) => Unexpected::Unsigned(value),
                Number::Signed(value) => Unexpected::Signed(value),
                Number::Double(value) => Unexpected::Float(value),
            };
            return Err(E::invalid_value(unexpected, &self));
        };
        self.put_bits(bits);
        Ok(())
    }

    fn put_bits(self, bits: u64) {
        if bits == 0 && self.presence == Presence::NonZero {
            return;
        }
        let NumberSeed { field, out, .. } = self;
        match field.kind {
            FieldKind::Double | FieldKind::Fixed64 => put_fixed64_field(out, field.number, bits),
            #[allow(clippy::cast_possible_truncation, reason = "the range was checked in `put`")]
            FieldKind::Fixed32 => put_fixed32_field(out, field.number, bits as u32),
            _ => put_varint_field(out, field.number, bits),
        }
    }
}

fn parse_integer(text: &str) -> Option<Number> {
    let unsigned = text.parse().ok().map(Number::Unsigned);
    let signed = || text.parse().ok().map(Number::Signed);
    // "1.0" and "1e3" are integers too, as the protobuf mapping has it.
    let double = || text.parse().ok().map(Number::Double);
    unsigned.or_else(signed).or_else(double)
}

fn parse_double(text: &str) -> Option<Number> {
    let value = match text {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        // The parser of the standard library knows more words than JSON does.
        _ if text.bytes().any(|b| b.is_ascii_alphabetic() && !matches!(b, b'e' | b'E')) => {
            return None;
        }
        _ => text.parse().ok()?,
    };
    Some(Number::Double(value))
}

#[allow(clippy::cast_precision_loss, reason = "a double is what was asked for")]
fn as_double(number: Number) -> f64 {
    match number {
        Number::Unsigned(value) => value as f64,
        Number::Signed(value) => value as f64,
        Number::Double(value) => value,
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole and in range, as checked"
)]
fn as_unsigned(number: Number) -> Option<u64> {
    match number {
        Number::Unsigned(value) => Some(value),
        Number::Signed(value) => u64::try_from(value).ok(),
        Number::Double(value) => {
            (value.fract() == 0.0 && (0.0..U64_END).contains(&value)).then_some(value as u64)
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "whole and in range, as checked")]
fn as_signed(number: Number) -> Option<i64> {
    match number {
        Number::Unsigned(value) => i64::try_from(value).ok(),
        Number::Signed(value) => Some(value),
        Number::Double(value) => {
            (value.fract() == 0.0 && (-I64_END..I64_END).contains(&value)).then_some(value as i64)
        }
    }
}
