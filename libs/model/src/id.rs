//! Trace and span identifiers (W3C Trace Context: 16 and 8 bytes, all-zero is invalid).

/// A text or byte string that is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A character that is no hexadecimal digit.
    #[error(
        "trace IDs can only contain hex characters: invalid character '{character}' at position {position}"
    )]
    NotHex {
        /// The offending character.
        character: char,
        /// Its position, counted from 1.
        position: usize,
    },
    /// More hexadecimal digits than the identifier has.
    #[error("trace IDs can't be larger than 128 bits: {digits} hex digits")]
    TooLong {
        /// How many digits were given.
        digits: usize,
    },
    /// No digits at all.
    #[error("the id is empty")]
    Empty,
}

/// A trace identifier: 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// A span identifier: 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// The identifier in `bytes`, if there are exactly 16 and one is not zero.
    pub fn from_wire(bytes: &[u8]) -> Option<TraceId> {
        let id: [u8; 16] = bytes.try_into().ok()?;
        (id != [0; 16]).then_some(TraceId(id))
    }

    /// Parses hexadecimal text of up to 32 digits in either case; shorter text is padded with
    /// zeros on the left, as the Tempo API does.
    ///
    /// # Errors
    /// [`IdError`] when there are no digits, too many, or other characters.
    pub fn parse_padded(text: &str) -> Result<TraceId, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        for (at, character) in text.chars().enumerate() {
            if !character.is_ascii_hexdigit() {
                return Err(IdError::NotHex { character, position: at + 1 });
            }
        }
        if text.len() > 32 {
            return Err(IdError::TooLong { digits: text.len() });
        }
        let mut id = [0u8; 16];
        for (from_right, digit) in text.bytes().rev().enumerate() {
            let nibble = hex_value(digit);
            id[15 - from_right / 2] |= nibble << (4 * (from_right % 2));
        }
        Ok(TraceId(id))
    }

    /// The hexadecimal digits without leading zeros, as the Tempo search API prints them.
    pub fn to_short_hex(self) -> String {
        let full = self.to_string();
        let short = full.trim_start_matches('0');
        if short.is_empty() { "0".to_owned() } else { short.to_owned() }
    }
}

impl SpanId {
    /// The identifier in `bytes`, if there are exactly 8 and one is not zero.
    pub fn from_wire(bytes: &[u8]) -> Option<SpanId> {
        let id: [u8; 8] = bytes.try_into().ok()?;
        (id != [0; 8]).then_some(SpanId(id))
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

/// `bytes` as lower-case hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The bytes that `text` spells in hexadecimal, or nothing if it is not an even number of digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let digits = text.as_bytes();
    Some(digits.chunks_exact(2).map(|pair| hex_value(pair[0]) << 4 | hex_value(pair[1])).collect())
}

macro_rules! hex_display {
    ($($id:ty),*) => {$(
        impl std::fmt::Display for $id {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }
        impl std::fmt::Debug for $id {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }
    )*};
}
hex_display!(TraceId, SpanId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_are_padded_on_the_left() {
        let id = TraceId::parse_padded("aBc").unwrap();
        assert_eq!(id.to_string(), "00000000000000000000000000000abc");
        assert_eq!(id.to_short_hex(), "abc");
    }

    #[test]
    fn bad_ids_name_the_position() {
        assert_eq!(
            TraceId::parse_padded("12g4"),
            Err(IdError::NotHex { character: 'g', position: 3 })
        );
        assert_eq!(TraceId::parse_padded(&"1".repeat(33)), Err(IdError::TooLong { digits: 33 }));
        assert_eq!(TraceId::parse_padded(""), Err(IdError::Empty));
    }

    #[test]
    fn all_zero_is_no_id() {
        assert_eq!(TraceId::from_wire(&[0; 16]), None);
        assert_eq!(TraceId::from_wire(&[1; 15]), None);
        assert_eq!(SpanId::from_wire(&[0; 8]), None);
        assert_eq!(SpanId::from_wire(&[1; 8]), Some(SpanId([1; 8])));
    }
}
