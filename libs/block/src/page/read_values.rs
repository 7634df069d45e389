//! Reads the columns of a page back; see [`super::values`] for their forms.

use bytes::Bytes;
use clew_model::wire::put_varint;

use super::values::{
    FORM_ALL, FORM_DISTINCT, FORM_FEW, FORM_HEX, FORM_ONE, FORM_PLANES, number_bytes, unzigzag,
};
use crate::codec::{ByteReader, narrow};
use crate::error::BlockError;

/// The three streams of a page, each read from front to back; columns share their memory.
#[derive(Debug)]
pub(super) struct StreamReaders<'a> {
    pub(super) codes: ByteReader<'a>,
    pub(super) text: ByteReader<'a>,
    pub(super) plain: ByteReader<'a>,
    codes_bytes: &'a Bytes,
    text_bytes: &'a Bytes,
    plain_bytes: &'a Bytes,
}

impl<'a> StreamReaders<'a> {
    pub(super) fn new(
        section: &'static str,
        codes: &'a Bytes,
        text: &'a Bytes,
        plain: &'a Bytes,
    ) -> StreamReaders<'a> {
        StreamReaders {
            codes: ByteReader::new(section, codes),
            text: ByteReader::new(section, text),
            plain: ByteReader::new(section, plain),
            codes_bytes: codes,
            text_bytes: text,
            plain_bytes: plain,
        }
    }
}

/// Numbers below 2^32 as they are stored: a plane per byte, the lowest first.
#[derive(Debug, Clone)]
struct Planes {
    bytes: Bytes,
    count: usize,
}

impl Planes {
    #[inline]
    fn get(&self, at: usize) -> Option<usize> {
        if at >= self.count {
            return None;
        }
        if self.bytes.len() == self.count {
            return self.bytes.get(at).map(|number| usize::from(*number));
        }
        let planes = self.bytes.chunks_exact(self.count).enumerate();
        Some(planes.fold(0, |sum, (plane, bytes)| sum | usize::from(bytes[at]) << (8 * plane)))
    }
}

/// A column of byte strings. Nothing is unpacked before it is asked for: mostly a few rows of a
/// page are wanted.
#[derive(Debug, Clone)]
pub(crate) struct Strings {
    count: usize,
    form: StringsForm,
}

#[derive(Debug, Clone)]
enum StringsForm {
    /// Distinct values, by their ends in `text`, and each value's number if there are several.
    Distinct { text: Bytes, ends: Vec<u32>, numbers: Option<Planes> },
    /// Values of one length.
    Even { text: Bytes, length: usize },
    /// Values by their ends.
    All { text: Bytes, ends: Vec<u32> },
    /// A pattern with zeros for the digits, and the digits of each value, two in a byte.
    Hex { pattern: Bytes, digits: Bytes, packed: usize },
}

/// The value between two ends.
#[inline]
fn between<'t>(text: &'t Bytes, ends: &[u32], at: usize) -> Option<&'t [u8]> {
    let end = *ends.get(at)? as usize;
    let start = at.checked_sub(1).map_or(Some(0), |before| ends.get(before).copied())?;
    text.get(start as usize..end)
}

impl Strings {
    /// How many distinct values there are, if they are numbered.
    pub(super) fn distinct(&self) -> Option<usize> {
        match &self.form {
            StringsForm::Distinct { ends, .. } => Some(ends.len()),
            _ => None,
        }
    }

    /// The number of the value at a position, if values are numbered.
    #[inline]
    pub(super) fn number(&self, at: usize) -> Option<usize> {
        match &self.form {
            StringsForm::Distinct { numbers: Some(numbers), .. } => numbers.get(at),
            StringsForm::Distinct { numbers: None, .. } => (at < self.count).then_some(0),
            _ => None,
        }
    }

    /// The value with a number.
    #[inline]
    pub(super) fn numbered(&self, number: usize) -> Option<&[u8]> {
        match &self.form {
            StringsForm::Distinct { text, ends, .. } => between(text, ends, number),
            _ => None,
        }
    }

    /// The length of the value at a position.
    #[inline]
    pub(crate) fn length(&self, at: usize) -> Option<usize> {
        match &self.form {
            StringsForm::Hex { pattern, .. } => (at < self.count).then_some(pattern.len()),
            _ => self.stored(at).map(<[u8]>::len),
        }
    }

    /// Appends the value at a position; false if there is none.
    #[inline]
    pub(crate) fn append(&self, at: usize, out: &mut Vec<u8>) -> bool {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let StringsForm::Hex { pattern, digits, packed } = &self.form else {
            return self.stored(at).map(|value| out.extend_from_slice(value)).is_some();
        };
        let Some(digits) = digits.get(at * packed..(at + 1) * packed) else { return false };
        let mut digit = 0;
        for byte in pattern {
            if *byte != 0 {
                out.push(*byte);
                continue;
            }
            let pair = digits[digit / 2];
            let nibble = if digit % 2 == 0 { pair >> 4 } else { pair & 15 };
            out.push(DIGITS[usize::from(nibble)]);
            digit += 1;
        }
        true
    }

    /// The value at a position, if it is stored in one piece.
    #[inline]
    fn stored(&self, at: usize) -> Option<&[u8]> {
        match &self.form {
            StringsForm::Distinct { text, ends, numbers: None } => {
                (at < self.count).then(|| between(text, ends, 0))?
            }
            StringsForm::Distinct { text, ends, numbers: Some(numbers) } => {
                between(text, ends, numbers.get(at)?)
            }
            StringsForm::Even { text, length } => {
                (at < self.count).then(|| text.get(at * length..(at + 1) * length))?
            }
            StringsForm::All { text, ends } => between(text, ends, at),
            StringsForm::Hex { .. } => None,
        }
    }

    /// The positions of a value, ascending.
    pub(crate) fn positions(&self, value: &[u8]) -> Vec<u32> {
        let all = 0..narrow(self.count);
        if let StringsForm::Distinct { text, ends, numbers } = &self.form {
            let number = (0..ends.len()).find(|at| between(text, ends, *at) == Some(value));
            return match (number, numbers) {
                (None, _) => Vec::new(),
                (Some(_), None) => all.collect(),
                (number, Some(numbers)) => {
                    all.filter(|at| numbers.get(*at as usize) == number).collect()
                }
            };
        }
        let mut buffer = Vec::new();
        let equals = |at: &u32| {
            buffer.clear();
            let length = self.length(*at as usize);
            length == Some(value.len()) && self.append(*at as usize, &mut buffer) && buffer == value
        };
        all.filter(equals).collect()
    }

    /// Reads a column of `count` values.
    pub(super) fn read(from: &mut StreamReaders<'_>, count: usize) -> Result<Strings, BlockError> {
        let form = match from.codes.u8()? {
            FORM_DISTINCT => Strings::read_distinct(from, count)?,
            FORM_ALL => Strings::read_all(from, count)?,
            FORM_HEX => Strings::read_hex(from, count)?,
            _ => return Err(from.codes.corrupt("a column has an unknown form")),
        };
        Ok(Strings { count, form })
    }

    fn read_distinct(
        from: &mut StreamReaders<'_>,
        count: usize,
    ) -> Result<StringsForm, BlockError> {
        let distinct = from.codes.count(1)?;
        let (text, ends) = read_lengths(from, distinct)?;
        if distinct == 1 {
            return Ok(StringsForm::Distinct { text, ends, numbers: None });
        }
        let length = count.saturating_mul(number_bytes(distinct));
        let taken = from.codes.take(length)?;
        let numbers = Planes { bytes: from.codes_bytes.slice_ref(taken), count };
        Ok(StringsForm::Distinct { text, ends, numbers: Some(numbers) })
    }

    fn read_all(from: &mut StreamReaders<'_>, count: usize) -> Result<StringsForm, BlockError> {
        match from.codes.varint_u32()?.checked_sub(1) {
            Some(length) => {
                let length = length as usize;
                let bytes = length.saturating_mul(count);
                let text = from.text.take(bytes)?;
                Ok(StringsForm::Even { text: from.text_bytes.slice_ref(text), length })
            }
            None => {
                let (text, ends) = read_lengths(from, count)?;
                Ok(StringsForm::All { text, ends })
            }
        }
    }

    fn read_hex(from: &mut StreamReaders<'_>, count: usize) -> Result<StringsForm, BlockError> {
        let length = from.codes.count(0)?;
        let pattern = from.text.take(length)?;
        let places = pattern.iter().filter(|byte| **byte == 0).count();
        // A pattern with few digits would unpack to far more than is stored.
        if places == 0 || places * 2 < length {
            return Err(from.text.corrupt("a pattern has too few digits"));
        }
        let packed = places.div_ceil(2);
        let digits = from.plain.take(packed.saturating_mul(count))?;
        Ok(StringsForm::Hex {
            pattern: from.text_bytes.slice_ref(pattern),
            digits: from.plain_bytes.slice_ref(digits),
            packed,
        })
    }

    /// About how many bytes the column takes beside the page's streams.
    pub(crate) fn memory_bytes(&self) -> usize {
        match &self.form {
            StringsForm::Distinct { ends, .. } | StringsForm::All { ends, .. } => ends.len() * 4,
            StringsForm::Even { .. } | StringsForm::Hex { .. } => 0,
        }
    }
}

/// Reads the lengths of values, and the values.
fn read_lengths(
    from: &mut StreamReaders<'_>,
    count: usize,
) -> Result<(Bytes, Vec<u32>), BlockError> {
    let mut ends = Vec::with_capacity(count.min(from.codes.remaining()));
    let mut end = 0u32;
    for _ in 0..count {
        end = end
            .checked_add(from.codes.varint_u32()?)
            .filter(|end| *end as usize <= from.text.remaining())
            .ok_or_else(|| from.text.corrupt("its values are longer than it is"))?;
        ends.push(end);
    }
    let text = from.text.take(end as usize)?;
    Ok((from.text_bytes.slice_ref(text), ends))
}

/// A column of numbers.
#[derive(Debug, Clone)]
pub(crate) enum Ints {
    /// All the same.
    One { value: i64, count: usize },
    /// Few distinct ones, and each value's number.
    Few { values: Vec<i64>, numbers: Bytes },
    /// What is above the lowest, in planes: those of `plain`, then one of `codes`.
    Planes { low: i64, lower: Bytes, highest: Bytes },
}

impl Ints {
    /// How many distinct numbers there are, if they are numbered themselves.
    pub(super) fn distinct(&self) -> Option<usize> {
        match self {
            Ints::One { .. } => Some(1),
            Ints::Few { values, .. } => Some(values.len()),
            Ints::Planes { .. } => None,
        }
    }

    /// The distinct number at a place.
    #[inline]
    pub(super) fn distinct_at(&self, place: usize) -> Option<i64> {
        match self {
            Ints::One { value, .. } => Some(*value),
            Ints::Few { values, .. } => values.get(place).copied(),
            Ints::Planes { .. } => None,
        }
    }

    /// The place of the number at a position among the distinct ones.
    #[inline]
    pub(super) fn place(&self, at: usize) -> Option<usize> {
        match self {
            Ints::One { count, .. } => (at < *count).then_some(0),
            Ints::Few { numbers, .. } => numbers.get(at).map(|number| usize::from(*number)),
            Ints::Planes { .. } => None,
        }
    }

    /// The value at a position.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<i64> {
        match self {
            Ints::One { value, count } => (at < *count).then_some(*value),
            Ints::Few { values, numbers } => values.get(usize::from(*numbers.get(at)?)).copied(),
            Ints::Planes { low, lower, highest } => {
                let count = highest.len();
                let top = u64::from(*highest.get(at)?);
                let planes = lower.chunks_exact(count);
                let shift = 8 * planes.len();
                let above = planes.enumerate().fold(top << shift, |sum, (plane, bytes)| {
                    sum | u64::from(bytes[at]) << (8 * plane)
                });
                Some(low.wrapping_add(above.cast_signed()))
            }
        }
    }

    /// About how many bytes the column takes beside the page's streams.
    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Ints::Few { values, .. } => values.len() * 8,
            Ints::One { .. } | Ints::Planes { .. } => 0,
        }
    }

    /// Reads a column of `count` numbers.
    pub(super) fn read(from: &mut StreamReaders<'_>, count: usize) -> Result<Ints, BlockError> {
        if count == 0 {
            return Ok(Ints::One { value: 0, count });
        }
        match from.codes.u8()? {
            FORM_ONE => Ok(Ints::One { value: unzigzag(from.codes.varint()?), count }),
            FORM_FEW => {
                let distinct = usize::from(from.codes.u8()?) + 1;
                let mut values = Vec::with_capacity(distinct);
                for _ in 0..distinct {
                    values.push(unzigzag(from.codes.varint()?));
                }
                let numbers = from.codes.take(count)?;
                Ok(Ints::Few { values, numbers: from.codes_bytes.slice_ref(numbers) })
            }
            FORM_PLANES => {
                let low = i64::from_le_bytes(from.codes.array()?);
                let width = usize::from(from.codes.u8()?);
                if !(1..=8).contains(&width) {
                    return Err(from.codes.corrupt("a number is too wide"));
                }
                let lower = from.plain.take(count.saturating_mul(width - 1))?;
                let highest = from.codes.take(count)?;
                Ok(Ints::Planes {
                    low,
                    lower: from.plain_bytes.slice_ref(lower),
                    highest: from.codes_bytes.slice_ref(highest),
                })
            }
            _ => Err(from.codes.corrupt("a column has an unknown form")),
        }
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

    struct Stored([Bytes; 3]);

    impl Stored {
        fn new(streams: Streams) -> Stored {
            Stored([streams.codes, streams.text, streams.plain].map(Bytes::from))
        }

        fn readers(&self) -> StreamReaders<'_> {
            let [codes, text, plain] = &self.0;
            StreamReaders::new("test", codes, text, plain)
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
        let stored = Stored::new(streams);
        let mut from = stored.readers();
        let read = Strings::read(&mut from, values.len()).unwrap();
        let mut buffer = Vec::new();
        for (at, value) in values.iter().enumerate() {
            buffer.clear();
            assert!(read.append(at, &mut buffer));
            assert_eq!((read.length(at), &buffer), (Some(value.len()), value));
            assert!(read.positions(value).contains(&narrow(at)));
        }
        assert_eq!(read.length(values.len()), None);
        assert!(!read.append(values.len(), &mut buffer));
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
            let stored = Stored::new(streams);
            let mut from = stored.readers();
            let read = Ints::read(&mut from, values.len()).unwrap();
            let all: Vec<i64> = (0..values.len()).filter_map(|at| read.get(at)).collect();
            prop_assert_eq!((&all, read.get(values.len())), (&values, None));
            prop_assert_eq!([from.codes, from.plain].map(|r| r.remaining()), [0, 0]);
        }

        #[test]
        fn any_bytes_are_columns_or_errors(
            codes: Vec<u8>, text: Vec<u8>, plain: Vec<u8>, count in 0usize..500,
        ) {
            let stored = Stored::new(Streams { codes, text, plain });
            if let Ok(read) = Strings::read(&mut stored.readers(), count) {
                let mut out = Vec::new();
                for at in 0..count {
                    prop_assert_eq!(read.length(at).is_some(), read.append(at, &mut out));
                }
                read.positions(b"a");
            }
            if let Ok(read) = Ints::read(&mut stored.readers(), count) {
                let _ = (0..count).filter_map(|at| read.get(at)).count();
            }
        }
    }
}
