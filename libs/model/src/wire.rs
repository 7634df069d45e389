//! The protobuf wire format, read without copying and written without message structs.
//!
//! Source: the protobuf encoding specification (varints, tags, length-delimited fields). Groups
//! (wire types 3 and 4) are refused: OTLP has none.

/// Bytes that are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends inside a field.
    #[error("the message ends inside a field")]
    Truncated,
    /// A varint of more than ten bytes.
    #[error("a varint is longer than ten bytes")]
    VarintTooLong,
    /// A field number of zero or a wire type that does not exist.
    #[error("a field has an impossible tag")]
    BadTag,
    /// A known field came with another wire type than its own.
    #[error("field {0} has the wrong wire type")]
    WrongType(u32),
    /// A string field that is not UTF-8.
    #[error("field {0} is not valid UTF-8")]
    NotUtf8(u32),
    /// Messages nested deeper than the limit.
    #[error("messages are nested too deeply")]
    TooDeep,
}

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// The field number.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
}

impl<'a> Field<'a> {
    /// The value as bytes.
    ///
    /// # Errors
    /// [`WireError::WrongType`] for any other wire type.
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::WrongType(self.number)),
        }
    }

    /// The value as text.
    ///
    /// # Errors
    /// [`WireError`] when it is not a string field or not UTF-8.
    pub fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::NotUtf8(self.number))
    }

    /// The value of a varint field.
    ///
    /// # Errors
    /// [`WireError::WrongType`] for any other wire type.
    pub fn varint(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(WireError::WrongType(self.number)),
        }
    }

    /// The value of a fixed64 field.
    ///
    /// # Errors
    /// [`WireError::WrongType`] for any other wire type.
    pub fn fixed64(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Fixed64(value) => Ok(value),
            _ => Err(WireError::WrongType(self.number)),
        }
    }

    /// The value of a fixed32 field.
    ///
    /// # Errors
    /// [`WireError::WrongType`] for any other wire type.
    pub fn fixed32(&self) -> Result<u32, WireError> {
        match self.value {
            Value::Fixed32(value) => Ok(value),
            _ => Err(WireError::WrongType(self.number)),
        }
    }
}

/// Reads the fields of one message in order.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of the message in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The bytes not read yet. What a field took is the difference of two calls.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field, or `None` at the end of the message.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no field; the reader is then at an unspecified place.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::BadTag)?;
        if number == 0 {
            return Err(WireError::BadTag);
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(WireError::BadTag),
        };
        Ok(Some(Field { number, value }))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        if let [byte, rest @ ..] = self.rest
            && *byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        let mut value = 0u64;
        for (at, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { WireError::Truncated } else { WireError::VarintTooLong })
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        if length > self.rest.len() {
            return Err(WireError::Truncated);
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| WireError::Truncated)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Field<'a>, WireError>;

    /// As [`Reader::next_field`]; after an error the iterator ends.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let item = self.next_field().transpose();
        if matches!(item, Some(Err(_))) {
            self.rest = &[];
        }
        item
    }
}

/// Appends `value` as a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// How many bytes [`put_varint`] writes for `value`.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends a varint field; zero is written too.
#[inline]
pub fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends a fixed64 field.
#[inline]
pub fn put_fixed64_field(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a fixed32 field.
#[inline]
pub fn put_fixed32_field(out: &mut Vec<u8>, number: u32, value: u32) {
    put_varint(out, u64::from(number) << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a length-delimited field.
#[inline]
pub fn put_bytes_field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_len_header(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends the tag and length of a length-delimited field whose content follows.
#[inline]
pub fn put_len_header(out: &mut Vec<u8>, number: u32, length: usize) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, length as u64);
}

/// How many bytes a length-delimited field of `length` content bytes takes.
#[inline]
pub const fn bytes_field_len(number: u32, length: usize) -> usize {
    varint_len((number as u64) << 3 | 2) + varint_len(length as u64) + length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value));
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert!(reader.rest.is_empty());
        }

        #[test]
        fn any_bytes_end_without_panic(bytes: Vec<u8>) {
            let fields = Reader::new(&bytes).count();
            prop_assert!(fields <= bytes.len());
        }
    }

    #[test]
    fn fields_come_back_as_written() {
        let mut bytes = Vec::new();
        put_varint_field(&mut bytes, 1, 300);
        put_fixed64_field(&mut bytes, 2, 7);
        put_bytes_field(&mut bytes, 3, b"abc");
        put_fixed32_field(&mut bytes, 100, 9);
        let fields: Vec<_> = Reader::new(&bytes).map(|f| f.unwrap()).collect();
        assert_eq!(fields[0], Field { number: 1, value: Value::Varint(300) });
        assert_eq!(fields[1], Field { number: 2, value: Value::Fixed64(7) });
        assert_eq!(fields[2], Field { number: 3, value: Value::Bytes(b"abc") });
        assert_eq!(fields[3], Field { number: 100, value: Value::Fixed32(9) });
    }

    #[test]
    fn damaged_messages_are_errors() {
        assert_eq!(Reader::new(&[0x0a, 5, 1]).next_field(), Err(WireError::Truncated));
        assert_eq!(Reader::new(&[0x08]).next_field(), Err(WireError::Truncated));
        assert_eq!(Reader::new(&[0x08, 0x80]).next_field(), Err(WireError::Truncated));
        assert_eq!(Reader::new(&[0xff; 11]).next_field(), Err(WireError::VarintTooLong));
        assert_eq!(Reader::new(&[0x0b]).next_field(), Err(WireError::BadTag));
        assert_eq!(Reader::new(&[0x00, 0]).next_field(), Err(WireError::BadTag));
    }
}
