//! Reads the columns of a page back; see [`super::values`] for their forms.

use clew_model::wire::put_varint;

use super::values::{
    FORM_ALL, FORM_DISTINCT, FORM_FEW, FORM_HEX, FORM_ONE, FORM_PLANES, number_bytes, unzigzag,
};
use crate::codec::{ByteReader, narrow};
use crate::error::BlockError;

/// The three streams of a page, each read from front to back.
#[derive(Debug)]
pub(super) struct StreamReaders<'a> {
    pub(super) codes: ByteReader<'a>,
    pub(super) text: ByteReader<'a>,
    pub(super) plain: ByteReader<'a>,
}

/// A column of byte strings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Strings {
    /// The distinct values, one after the other.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<u32>,
    /// Each value's number; none if every value has its own.
    numbers: Option<Vec<u32>>,
}

impl Strings {
    /// The value at a position.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&[u8]> {
        let number = match &self.numbers {
            Some(numbers) => *numbers.get(at)? as usize,
            None => at,
        };
        self.distinct(number)
    }

    #[inline]
    fn distinct(&self, number: usize) -> Option<&[u8]> {
        let end = *self.ends.get(number)? as usize;
        let start = number.checked_sub(1).map_or(Some(0), |at| self.ends.get(at).copied())?;
        self.bytes.get(start as usize..end)
    }

    /// The positions of a value, ascending.
    pub(crate) fn positions<'s>(&'s self, value: &'s [u8]) -> impl Iterator<Item = u32> + 's {
        let found: Vec<u32> = (0..self.ends.len())
            .filter(|number| self.distinct(*number) == Some(value))
            .map(narrow)
            .collect();
        let is_found = move |number: u32| found.contains(&number);
        let count = self.numbers.as_ref().map_or(self.ends.len(), Vec::len);
        (0..narrow(count)).filter(move |at| {
            is_found(self.numbers.as_ref().map_or(*at, |numbers| numbers[*at as usize]))
        })
    }

    /// About how many bytes of memory the column takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.ends.len() * 4 + self.numbers.as_ref().map_or(0, |n| n.len() * 4)
    }

    /// Reads a column of `count` values.
    pub(super) fn read(from: &mut StreamReaders<'_>, count: usize) -> Result<Strings, BlockError> {
        match from.codes.u8()? {
            FORM_DISTINCT => Strings::read_distinct(from, count),
            FORM_ALL => Strings::read_all(from, count),
            FORM_HEX => Strings::read_hex(from, count),
            _ => Err(from.codes.corrupt("a column has an unknown form")),
        }
    }

    fn read_distinct(from: &mut StreamReaders<'_>, count: usize) -> Result<Strings, BlockError> {
        let distinct = from.codes.count(1)?;
        let mut lengths = Vec::with_capacity(distinct);
        for _ in 0..distinct {
            lengths.push(from.codes.varint_u32()?);
        }
        let mut strings = Strings::default();
        strings.take(from, lengths)?;
        let mut numbers = vec![0u32; count];
        if distinct != 1 {
            for plane in 0..number_bytes(distinct) {
                for (number, byte) in numbers.iter_mut().zip(from.codes.take(count)?) {
                    *number |= u32::from(*byte) << (8 * plane);
                }
            }
            if numbers.iter().any(|number| *number as usize >= distinct) {
                return Err(from.codes.corrupt("a value is missing"));
            }
        }
        strings.numbers = Some(numbers);
        Ok(strings)
    }

    fn read_all(from: &mut StreamReaders<'_>, count: usize) -> Result<Strings, BlockError> {
        let mut strings = Strings::default();
        match from.codes.varint_u32()?.checked_sub(1) {
            // Lengths are checked against what there is, so `count` of them can be listed.
            Some(length) => strings.take(from, std::iter::repeat_n(length, count))?,
            None => {
                let mut lengths = Vec::with_capacity(count.min(from.codes.remaining()));
                for _ in 0..count {
                    lengths.push(from.codes.varint_u32()?);
                }
                strings.take(from, lengths)?;
            }
        }
        Ok(strings)
    }

    fn take(
        &mut self,
        from: &mut StreamReaders<'_>,
        lengths: impl IntoIterator<Item = u32>,
    ) -> Result<(), BlockError> {
        let mut end = 0u32;
        for length in lengths {
            end = end
                .checked_add(length)
                .filter(|end| *end as usize <= from.text.remaining())
                .ok_or_else(|| from.text.corrupt("its values are longer than it is"))?;
            self.ends.push(end);
        }
        self.bytes = from.text.take(end as usize)?.to_vec();
        Ok(())
    }

    fn read_hex(from: &mut StreamReaders<'_>, count: usize) -> Result<Strings, BlockError> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let length = from.codes.count(0)?;
        let pattern = from.text.take(length)?;
        let digits = pattern.iter().filter(|byte| **byte == 0).count();
        let packed = digits.div_ceil(2);
        let packed_all = packed.saturating_mul(count);
        let plain = from.plain.take(packed_all)?;
        let bytes_max = length.checked_mul(count).filter(|bytes| *bytes <= u32::MAX as usize);
        // A pattern with few digits would unpack to far more than is stored.
        let sound = digits * 2 >= length && (packed > 0 || count == 0);
        let Some(bytes_max) = bytes_max.filter(|_| sound) else {
            return Err(from.text.corrupt("a pattern has too few digits"));
        };
        let mut strings =
            Strings { bytes: Vec::with_capacity(bytes_max), ends: Vec::new(), numbers: None };
        for value in plain.chunks_exact(packed.max(1)) {
            let mut digit = 0;
            for byte in pattern {
                if *byte != 0 {
                    strings.bytes.push(*byte);
                    continue;
                }
                let pair = value[digit / 2];
                let nibble = if digit % 2 == 0 { pair >> 4 } else { pair & 15 };
                strings.bytes.push(DIGITS[usize::from(nibble)]);
                digit += 1;
            }
            strings.ends.push(narrow(strings.bytes.len()));
        }
        Ok(strings)
    }
}

/// Reads a column of `count` numbers.
pub(super) fn read_ints(
    from: &mut StreamReaders<'_>,
    count: usize,
) -> Result<Vec<i64>, BlockError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match from.codes.u8()? {
        FORM_ONE => Ok(vec![unzigzag(from.codes.varint()?); count]),
        FORM_FEW => {
            let distinct = usize::from(from.codes.u8()?) + 1;
            let mut values = Vec::with_capacity(distinct);
            for _ in 0..distinct {
                values.push(unzigzag(from.codes.varint()?));
            }
            let missing = from.codes.corrupt("a value is missing");
            let numbers = from.codes.take(count)?.iter();
            let value = |number: &u8| values.get(usize::from(*number)).copied();
            numbers.map(value).collect::<Option<Vec<i64>>>().ok_or(missing)
        }
        FORM_PLANES => {
            let low = i64::from_le_bytes(from.codes.array()?);
            let width = usize::from(from.codes.u8()?);
            if !(1..=8).contains(&width) {
                return Err(from.codes.corrupt("a number is too wide"));
            }
            let mut above = vec![0u64; count];
            for plane in 0..width {
                let stream = if plane + 1 == width { &mut from.codes } else { &mut from.plain };
                for (value, byte) in above.iter_mut().zip(stream.take(count)?) {
                    *value |= u64::from(*byte) << (8 * plane);
                }
            }
            Ok(above.into_iter().map(|above| low.wrapping_add(above.cast_signed())).collect())
        }
        _ => Err(from.codes.corrupt("a column has an unknown form")),
    }
}

/// Appends `bytes` behind their length, as a field of protobuf has them.
#[inline]
pub(super) fn put_framed(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::values::{ByteColumn, Streams, write_ints};
    use super::*;

    fn readers(streams: &Streams) -> StreamReaders<'_> {
        StreamReaders {
            codes: ByteReader::new("test", &streams.codes),
            text: ByteReader::new("test", &streams.text),
            plain: ByteReader::new("test", &streams.plain),
        }
    }

    fn column(values: &[Vec<u8>]) -> (ByteColumn, Vec<u8>) {
        let (mut column, mut bytes) = (ByteColumn::default(), Vec::new());
        let mut known: Vec<&Vec<u8>> = Vec::new();
        for value in values {
            let number = known.iter().position(|other| *other == value).unwrap_or_else(|| {
                column.distinct.push((narrow(bytes.len()), narrow(value.len())));
                bytes.extend_from_slice(value);
                known.push(value);
                known.len() - 1
            });
            column.numbers.push(narrow(number));
        }
        (column, bytes)
    }

    fn check_strings(values: &[Vec<u8>]) {
        let (column, bytes) = column(values);
        let mut streams = Streams::default();
        column.write(&bytes, &mut streams);
        let mut from = readers(&streams);
        let read = Strings::read(&mut from, values.len()).unwrap();
        for (at, value) in values.iter().enumerate() {
            assert_eq!(read.get(at), Some(value.as_slice()));
            assert!(read.positions(value).any(|found| found as usize == at));
        }
        assert_eq!(read.get(values.len()), None);
        assert_eq!([from.codes, from.text, from.plain].map(|r| r.remaining()), [0, 0, 0]);
    }

    proptest! {
        #[test]
        fn strings_round_trip(
            values in prop_oneof![
                proptest::collection::vec("[ab]{0,2}".prop_map(String::into_bytes), 1..300),
                proptest::collection::vec("id-[0-9a-f]{8}-[0-9a-f]{3}".prop_map(String::into_bytes), 1..40),
                proptest::collection::vec("[0-9a-g]{3}".prop_map(String::into_bytes), 1..40),
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 1..40),
                (1u32..700).prop_map(|n| (0..n).chain(0..n).map(|n| n.to_be_bytes().to_vec()).collect()),
            ],
        ) {
            check_strings(&values);
        }

        #[test]
        fn numbers_round_trip(
            values in proptest::collection::vec(
                prop_oneof![any::<i64>(), 0i64..3, -9i64..400], 0..600),
        ) {
            let mut streams = Streams::default();
            write_ints(&values, &mut streams);
            let mut from = readers(&streams);
            prop_assert_eq!(read_ints(&mut from, values.len()).unwrap(), values);
            prop_assert_eq!([from.codes, from.plain].map(|r| r.remaining()), [0, 0]);
        }

        #[test]
        fn any_bytes_are_columns_or_errors(
            codes: Vec<u8>, text: Vec<u8>, plain: Vec<u8>, count in 0usize..500,
        ) {
            let streams = Streams { codes, text, plain };
            if let Ok(read) = Strings::read(&mut readers(&streams), count) {
                let _ = read.get(count.saturating_sub(1));
            }
            let _ = read_ints(&mut readers(&streams), count);
        }
    }
}
