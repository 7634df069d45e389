//! Terms: how a value of an attribute or intrinsic becomes bytes whose order is the order of the
//! values, so that one dictionary answers equality, ranges, prefixes and existence.
//!
//! A term is (key, type code, value bytes). Numbers are eight big-endian bytes whose bytewise
//! order is the numeric order; text is its bytes. Text longer than [`STRING_BYTES_MAX`] is cut and
//! gets a hash, so a lookup of such text yields candidates only.

use clew_model::otlp::AnyValueView;
use clew_model::otlp::view::{PlainValue, array_elements, is_utf8};
use clew_model::wire::WireError;
use clew_traceql::plan::Scope;
use clew_traceql::value::{Kind, Static, Status};

use crate::hash::hash64;

/// Type codes, part of the block format. Codes of array elements have [`code::ARRAY`] added.
pub(crate) mod code {
    /// The attribute is there, but has no value that could be compared: bytes, lists, nothing.
    pub(crate) const PRESENT: u8 = 0x01;
    /// Text.
    pub(crate) const STRING: u8 = 0x10;
    /// The beginning of long text and its hash.
    pub(crate) const LONG_STRING: u8 = 0x11;
    /// One byte, 0 or 1.
    pub(crate) const BOOL: u8 = 0x20;
    /// A 64-bit integer.
    pub(crate) const INT: u8 = 0x30;
    /// A double; minus zero is stored as zero and every NaN as the same one.
    pub(crate) const FLOAT: u8 = 0x40;
    /// A status, one byte as OTLP numbers it.
    pub(crate) const STATUS: u8 = 0x50;
    /// A span kind, one byte as OTLP numbers it.
    pub(crate) const KIND: u8 = 0x60;
    /// Four big-endian bytes: the ordinal of a resource or a scope.
    pub(crate) const ORDINAL: u8 = 0x70;
    /// Added to the code of an array's element.
    pub(crate) const ARRAY: u8 = 0x80;
}

/// The longest text kept whole in a term, in bytes.
pub(crate) const STRING_BYTES_MAX: usize = 256;

/// The length of a [`code::LONG_STRING`] term: beginning and hash.
pub(crate) const LONG_STRING_BYTES: usize = STRING_BYTES_MAX + 8;

/// Whose attributes a key belongs to; the number is part of the block format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum KeyScope {
    /// A field of the span itself, or a row's ordinal in another table.
    Intrinsic = 0,
    /// The span's.
    Span = 1,
    /// An event's.
    Event = 3,
    /// A link's.
    Link = 4,
}

impl KeyScope {
    pub(crate) const fn from_code(code: u8) -> Option<KeyScope> {
        match code {
            0 => Some(KeyScope::Intrinsic),
            1 => Some(KeyScope::Span),
            3 => Some(KeyScope::Event),
            4 => Some(KeyScope::Link),
            _ => None,
        }
    }

    /// The name used in listings.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            KeyScope::Intrinsic => "intrinsic",
            KeyScope::Span => "span",
            KeyScope::Event => "event",
            KeyScope::Link => "link",
        }
    }

    /// The key scope of a query's scope, if its attributes are indexed per span.
    pub(crate) const fn of(scope: Scope) -> Option<KeyScope> {
        match scope {
            Scope::Span => Some(KeyScope::Span),
            Scope::Event => Some(KeyScope::Event),
            Scope::Link => Some(KeyScope::Link),
            Scope::Resource | Scope::Instrumentation => None,
        }
    }
}

/// The keys that every table has, in this order; their position is their ordinal in a table.
pub(crate) mod intrinsic {
    /// The span's name.
    pub(crate) const NAME: u32 = 0;
    /// The span's status.
    pub(crate) const STATUS: u32 = 1;
    /// The span's kind.
    pub(crate) const KIND: u32 = 2;
    /// The status message, if not empty.
    pub(crate) const STATUS_MESSAGE: u32 = 3;
    /// The names of the span's events.
    pub(crate) const EVENT_NAME: u32 = 4;
    /// True for spans without a parent; no term for others.
    pub(crate) const ROOT: u32 = 5;
    /// The span's resource, an ordinal.
    pub(crate) const RESOURCE: u32 = 6;
    /// The span's instrumentation scope, an ordinal.
    pub(crate) const SCOPE: u32 = 7;
    /// Their names.
    pub(crate) const NAMES: [&str; 8] =
        ["name", "status", "kind", "statusMessage", "event:name", "root", "resource", "scope"];
}

/// The bytes of one value, borrowed where they exist.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TermBytes<'a> {
    /// The bytes themselves.
    Borrowed(&'a [u8]),
    /// A number.
    Word([u8; 8]),
    /// One byte or none.
    Byte(u8),
    /// Text to be cut and hashed.
    Long(&'a [u8]),
    /// No bytes.
    Empty,
}

/// Calls `put` with the bytes of `value` as they stand in a term.
#[inline]
pub(crate) fn with_bytes<R>(value: &TermBytes<'_>, put: impl FnOnce(&[u8]) -> R) -> R {
    match value {
        TermBytes::Borrowed(bytes) => put(bytes),
        TermBytes::Word(word) => put(word),
        TermBytes::Byte(byte) => put(&[*byte]),
        TermBytes::Long(text) => put(&long_string(text)),
        TermBytes::Empty => put(&[]),
    }
}

/// The term bytes of text longer than [`STRING_BYTES_MAX`].
pub(crate) fn long_string(text: &[u8]) -> [u8; LONG_STRING_BYTES] {
    let mut bytes = [0; LONG_STRING_BYTES];
    let kept = text.len().min(STRING_BYTES_MAX);
    bytes[..kept].copy_from_slice(&text[..kept]);
    bytes[STRING_BYTES_MAX..].copy_from_slice(&hash64(0, text).to_be_bytes());
    bytes
}

/// Text as a term.
#[inline]
pub(crate) fn text_term(text: &[u8]) -> (u8, TermBytes<'_>) {
    if text.len() <= STRING_BYTES_MAX {
        (code::STRING, TermBytes::Borrowed(text))
    } else {
        (code::LONG_STRING, TermBytes::Long(text))
    }
}

/// Calls `emit` for every term of an attribute's value: one for a scalar, one per scalar element
/// of an array, and one that says "present" where nothing can be compared.
///
/// # Errors
/// [`WireError`] when the value's bytes are damaged; terms may have been emitted by then.
#[inline]
pub(crate) fn value_terms<'a>(
    value: &AnyValueView<'a>,
    emit: &mut impl FnMut(u8, TermBytes<'a>),
) -> Result<(), WireError> {
    if let Some((code, bytes)) = scalar_term(value) {
        emit(code, bytes);
        return Ok(());
    }
    let mut incomparable = true;
    if let AnyValueView::Array(raw) = value {
        for element in array_elements(raw) {
            if let Some((code, bytes)) = scalar_term(&element?) {
                emit(code | code::ARRAY, bytes);
                incomparable = false;
            }
        }
    }
    if incomparable {
        emit(code::PRESENT, TermBytes::Empty);
    }
    Ok(())
}

#[inline]
fn scalar_term<'a>(value: &AnyValueView<'a>) -> Option<(u8, TermBytes<'a>)> {
    match *value {
        AnyValueView::String(text) => Some(text_term(text.as_bytes())),
        AnyValueView::Bool(truth) => Some((code::BOOL, TermBytes::Byte(u8::from(truth)))),
        AnyValueView::Int(number) => Some((code::INT, TermBytes::Word(encode_int(number)))),
        AnyValueView::Double(number) => Some((code::FLOAT, TermBytes::Word(encode_float(number)))),
        AnyValueView::Empty
        | AnyValueView::Array(_)
        | AnyValueView::KeyValueList(_)
        | AnyValueView::Bytes(_) => None,
    }
}

/// A plain value as a term; `None` if its text is no text.
#[inline]
pub(crate) fn plain_term(value: PlainValue<'_>) -> Option<(u8, TermBytes<'_>)> {
    Some(match value {
        PlainValue::Text(text) if is_utf8(text) => text_term(text),
        PlainValue::Text(_) => return None,
        PlainValue::Bool(truth) => (code::BOOL, TermBytes::Byte(u8::from(truth))),
        PlainValue::Int(number) => (code::INT, TermBytes::Word(encode_int(number))),
        PlainValue::Double(bits) => {
            (code::FLOAT, TermBytes::Word(encode_float(f64::from_bits(bits))))
        }
    })
}

const SIGN: u64 = 1 << 63;

/// The integer as bytes in numeric order.
#[inline]
pub(crate) const fn encode_int(number: i64) -> [u8; 8] {
    (number.cast_unsigned() ^ SIGN).to_be_bytes()
}

const fn decode_int(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ SIGN).cast_signed()
}

/// The double as bytes in numeric order, NaN above everything.
#[inline]
pub(crate) fn encode_float(number: f64) -> [u8; 8] {
    let number = if number.is_nan() { f64::NAN.abs() } else { number + 0.0 };
    let bits = number.to_bits();
    let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
    ordered.to_be_bytes()
}

fn decode_float(bytes: [u8; 8]) -> f64 {
    let ordered = u64::from_be_bytes(bytes);
    f64::from_bits(if ordered & SIGN == 0 { !ordered } else { ordered & !SIGN })
}

/// A status as it is indexed: numbers OTLP does not know count as unset.
pub(crate) const fn status_byte(code: i32) -> u8 {
    match code {
        1 => 1,
        2 => 2,
        _ => 0,
    }
}

/// A kind as it is indexed: numbers OTLP does not know count as unspecified.
pub(crate) const fn kind_byte(kind: i32) -> u8 {
    match kind {
        1 => 1,
        2 => 2,
        3 => 3,
        4 => 4,
        5 => 5,
        _ => 0,
    }
}

/// The byte of a status word.
pub(crate) const fn status_code(status: Status) -> u8 {
    match status {
        Status::Unset => 0,
        Status::Ok => 1,
        Status::Error => 2,
    }
}

/// The byte of a kind word.
pub(crate) const fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Unspecified => 0,
        Kind::Internal => 1,
        Kind::Server => 2,
        Kind::Client => 3,
        Kind::Producer => 4,
        Kind::Consumer => 5,
    }
}

/// What the value of a term tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decoded {
    /// The whole value.
    Value(Static),
    /// It was too long to be kept.
    Long,
    /// It cannot be compared.
    Incomparable,
}

/// The value of a term, or nothing when the bytes are none.
pub(crate) fn decode(type_code: u8, bytes: &[u8]) -> Option<Decoded> {
    let value = match type_code & !code::ARRAY {
        code::PRESENT => return Some(Decoded::Incomparable),
        code::LONG_STRING => return Some(Decoded::Long),
        code::STRING => Static::String(std::str::from_utf8(bytes).ok()?.into()),
        code::BOOL => Static::Bool(*bytes.first()? != 0),
        code::INT => Static::Int(decode_int(bytes.try_into().ok()?)),
        code::FLOAT => Static::Float(decode_float(bytes.try_into().ok()?)),
        code::STATUS => Static::Status(match bytes.first()? {
            0 => Status::Unset,
            1 => Status::Ok,
            2 => Status::Error,
            _ => return None,
        }),
        code::KIND => Static::Kind(match bytes.first()? {
            0 => Kind::Unspecified,
            1 => Kind::Internal,
            2 => Kind::Server,
            3 => Kind::Client,
            4 => Kind::Producer,
            5 => Kind::Consumer,
            _ => return None,
        }),
        _ => return None,
    };
    Some(Decoded::Value(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_of_integers_is_order_of_bytes(a: i64, b: i64) {
            prop_assert_eq!(a.cmp(&b), encode_int(a).cmp(&encode_int(b)));
            prop_assert_eq!(decode_int(encode_int(a)), a);
        }

        #[test]
        fn order_of_doubles_is_order_of_bytes(a: f64, b: f64) {
            if let Some(order) = a.partial_cmp(&b) {
                prop_assert_eq!(order, encode_float(a).cmp(&encode_float(b)));
            }
            if !a.is_nan() {
                prop_assert_eq!(decode_float(encode_float(a)), a);
            }
        }
    }

    #[test]
    fn zeros_are_one_and_nan_is_above_infinity() {
        assert_eq!(encode_float(0.0), encode_float(-0.0));
        assert_eq!(encode_float(f64::NAN), encode_float(-f64::NAN));
        assert!(encode_float(f64::NAN) > encode_float(f64::INFINITY));
    }

    #[test]
    fn long_text_is_told_apart_behind_its_beginning() {
        let a = "a".repeat(STRING_BYTES_MAX) + "x";
        let b = "a".repeat(STRING_BYTES_MAX) + "y";
        assert_ne!(long_string(a.as_bytes()), long_string(b.as_bytes()));
        assert_eq!(text_term(&a.as_bytes()[..STRING_BYTES_MAX]).0, code::STRING);
        assert_eq!(text_term(a.as_bytes()).0, code::LONG_STRING);
    }
}
