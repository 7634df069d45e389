//! Columns of numbers, one per row, in blocks of 128 that each use as few bits as their values
//! need. Reading one value or all of them decodes nothing else.
//!
//! Stored form of a column: the number of values (varint); per block the smallest value (8 bytes)
//! and a byte with the bit width of what is above it and, as its highest bit, whether that is
//! counted in thousands (many clocks give microseconds only); then the blocks' bits, each block
//! starting at a byte, value `i` of a block at bits `i * width`, lowest first.

use bytes::Bytes;
use clew_model::wire::put_varint;

use crate::codec::ByteReader;
use crate::error::BlockError;

const SECTION: &str = "columns";
const BLOCK: usize = 128;
const HEADER_BYTES: usize = 9;
const THOUSANDS: u8 = 0x80;

/// Appends a column.
pub(crate) fn put_column(out: &mut Vec<u8>, values: &[u64]) {
    put_varint(out, values.len() as u64);
    let mut bits = Vec::with_capacity(values.len() * 2);
    for block in values.chunks(BLOCK) {
        let low = block.iter().copied().min().unwrap_or(0);
        let high = block.iter().copied().max().unwrap_or(0);
        let thousands = high > low && block.iter().all(|value| (value - low) % 1000 == 0);
        let (unit, flag) = if thousands { (1000, THOUSANDS) } else { (1, 0) };
        let width = 64 - ((high - low) / unit).leading_zeros();
        out.extend_from_slice(&low.to_le_bytes());
        out.push(width.to_le_bytes()[0] | flag);
        put_bits(&mut bits, block.iter().map(|value| (value - low) / unit), width);
    }
    out.extend_from_slice(&bits);
}

fn put_bits(out: &mut Vec<u8>, block: impl Iterator<Item = u64>, width: u32) {
    if width == 0 {
        return;
    }
    let mut pending = 0u128;
    let mut filled = 0;
    for value in block {
        pending |= u128::from(value) << filled;
        filled += width;
        while filled >= 8 {
            out.push(pending.to_le_bytes()[0]);
            pending >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(pending.to_le_bytes()[0]);
    }
}

/// What a block's values are made from.
struct Header {
    low: u64,
    unit: u64,
    width: usize,
}

/// A column as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    length: u32,
    headers: Bytes,
    bits: Bytes,
    /// Where each block's bits begin.
    starts: Vec<u32>,
}

impl Column {
    /// Reads a column from the front of `bytes`; returns it with the bytes behind it.
    pub(crate) fn parse(bytes: &Bytes, length: u32) -> Result<(Column, Bytes), BlockError> {
        let mut reader = ByteReader::new(SECTION, bytes);
        let stated = reader.varint_u32()?;
        if stated != length {
            return Err(reader.corrupt("a column has not one value per row"));
        }
        let blocks = (length as usize).div_ceil(BLOCK);
        let at = bytes.len() - reader.remaining();
        let header_bytes = reader.take(blocks.saturating_mul(HEADER_BYTES))?;
        let mut starts = Vec::with_capacity(blocks);
        let mut end = 0usize;
        for (block, header) in header_bytes.chunks_exact(HEADER_BYTES).enumerate() {
            let width = usize::from(header[8] & !THOUSANDS);
            if width > 64 {
                return Err(reader.corrupt("a column is too wide"));
            }
            let values = BLOCK.min(length as usize - block * BLOCK);
            starts.push(u32::try_from(end).map_err(|_| reader.corrupt("a column is too long"))?);
            end += (values * width).div_ceil(8);
        }
        reader.take(end)?;
        let bits_at = at + header_bytes.len();
        let column = Column {
            length,
            headers: bytes.slice(at..bits_at),
            bits: bytes.slice(bits_at..bits_at + end),
            starts,
        };
        Ok((column, bytes.slice(bits_at + end..)))
    }

    /// How many values there are.
    pub(crate) const fn len(&self) -> usize {
        self.length as usize
    }

    /// The value of a row; `None` past the end.
    pub(crate) fn get(&self, row: u32) -> Option<u64> {
        if row >= self.length {
            return None;
        }
        let (block, within) = (row as usize / BLOCK, row as usize % BLOCK);
        let Header { low, unit, width } = self.header(block)?;
        let bits = self.bits.get(*self.starts.get(block)? as usize..)?;
        Some(low.wrapping_add(bits_at(bits, within * width, width).wrapping_mul(unit)))
    }

    fn header(&self, block: usize) -> Option<Header> {
        let header = self.headers.get(block * HEADER_BYTES..(block + 1) * HEADER_BYTES)?;
        let (low, coded) = header.split_first_chunk::<8>()?;
        let coded = *coded.first()?;
        Some(Header {
            low: u64::from_le_bytes(*low),
            unit: if coded & THOUSANDS == 0 { 1 } else { 1000 },
            width: usize::from(coded & !THOUSANDS),
        })
    }

    /// Appends all values to `out`.
    pub(crate) fn unpack(&self, out: &mut Vec<u64>) {
        out.reserve(self.len());
        self.for_each(|_, value| out.push(value));
    }

    /// Calls `visit` with every row and its value.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(u32, u64)) {
        let mut row = 0;
        for (block, start) in self.starts.iter().enumerate() {
            let (Some(Header { low, unit, width }), Some(bits)) =
                (self.header(block), self.bits.get(*start as usize..))
            else {
                return;
            };
            for within in 0..BLOCK.min((self.length - row) as usize) {
                let above = bits_at(bits, within * width, width).wrapping_mul(unit);
                visit(row, low.wrapping_add(above));
                row += 1;
            }
        }
    }
}

/// The `width` bits that begin at bit `at`, of which bytes past the end are zero.
#[inline]
fn bits_at(bytes: &[u8], at: usize, width: usize) -> u64 {
    if width == 0 {
        return 0;
    }
    let from = at / 8;
    let mut word = [0u8; 16];
    match bytes.get(from..from + 9) {
        Some(nine) => word[..9].copy_from_slice(nine),
        None => {
            let rest = bytes.get(from..).unwrap_or_default();
            word[..rest.len().min(9)].copy_from_slice(&rest[..rest.len().min(9)]);
        }
    }
    let shifted = u128::from_le_bytes(word) >> (at % 8);
    #[allow(clippy::cast_possible_truncation, reason = "masked to at most 64 bits")]
    let value = (shifted & ((1u128 << width) - 1)) as u64;
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn columns_round_trip(
            values in proptest::collection::vec(
                prop_oneof![any::<u64>(), 0u64..10, Just(7u64), 1u64 << 40..1 << 41], 0..400),
            unit in prop_oneof![Just(1u64), Just(1000)],
            behind: Vec<u8>,
        ) {
            let values: Vec<u64> = values.into_iter().map(|value| value / unit * unit).collect();
            let mut bytes = Vec::new();
            put_column(&mut bytes, &values);
            bytes.extend_from_slice(&behind);
            let length = u32::try_from(values.len()).unwrap();
            let (column, rest) = Column::parse(&Bytes::from(bytes), length).unwrap();
            prop_assert_eq!(&rest[..], behind);
            let mut all = Vec::new();
            column.for_each(|row, value| {
                assert_eq!(row as usize, all.len());
                all.push(value);
            });
            prop_assert_eq!(&all, &values);
            for (row, value) in (0..).zip(&values) {
                prop_assert_eq!(column.get(row), Some(*value));
            }
            prop_assert_eq!(column.get(length), None);
        }

        #[test]
        fn any_bytes_are_a_column_or_an_error(bytes: Vec<u8>, length in 0u32..300, row: u32) {
            if let Ok((column, _)) = Column::parse(&Bytes::from(bytes), length) {
                let _ = column.get(row);
                column.for_each(|_, _| {});
            }
        }
    }

    #[test]
    fn constant_columns_take_no_bits() {
        let mut bytes = Vec::new();
        put_column(&mut bytes, &[5; 1280]);
        assert_eq!(bytes.len(), 2 + 10 * HEADER_BYTES);
    }
}
