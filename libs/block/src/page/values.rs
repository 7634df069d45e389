//! Columns of values in a page: each kind of column is written in the form that leaves the least to
//! the compressor. Three streams take the parts, so that each is compressed among its like: `codes`
//! (small numbers, skewed), `text` (characters), and `plain` (bytes that look random and are not
//! compressed).
//!
//! Byte strings begin with a form byte in `codes`:
//! - 0, few distinct values: their number (varint), each one's length (varint) in `codes` and bytes
//!   in `text`, the most frequent first; then per value its number, unless there is only one.
//! - 1, mostly distinct: 1 plus the common length (varint) or 0 and each length; bytes in `text`.
//! - 2, distinct, of one length, alike but for hexadecimal digits: the length (varint) in `codes`,
//!   the pattern in `text` with a zero for each digit, and the digits, two in a byte, in `plain`.
//!
//! Numbers begin with a form byte too:
//! - 0, all the same: the number (zigzag varint).
//! - 1, at most 256 distinct: their number less 1 (one byte), each (zigzag varint), the most
//!   frequent first; then per value its number (one byte).
//! - 2, others: the smallest (8 bytes), the width w in bytes (1), then what is above the smallest
//!   in w planes, the lowest byte of all values first; the highest plane in `codes`, the rest in
//!   `plain`.
//!
//! Numbers of values are one byte each up to 256 distinct ones, else two or four planes.

use clew_model::wire::put_varint;

use crate::codec::narrow;

/// The streams of a page.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) codes: Vec<u8>,
    pub(crate) text: Vec<u8>,
    pub(crate) plain: Vec<u8>,
}

impl Streams {
    pub(crate) fn clear(&mut self) {
        self.codes.clear();
        self.text.clear();
        self.plain.clear();
    }
}

pub(crate) const FORM_DISTINCT: u8 = 0;
pub(crate) const FORM_ALL: u8 = 1;
pub(crate) const FORM_HEX: u8 = 2;
pub(crate) const FORM_ONE: u8 = 0;
pub(crate) const FORM_FEW: u8 = 1;
pub(crate) const FORM_PLANES: u8 = 2;

/// A zigzag-coded number.
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The number of a zigzag code.
pub(crate) const fn unzigzag(coded: u64) -> i64 {
    (coded >> 1).cast_signed() ^ -((coded & 1).cast_signed())
}

/// Byte strings: distinct ones by number, and each value's number.
#[derive(Debug, Default)]
pub(crate) struct ByteColumn {
    /// Where the distinct values lie in the page's buffer.
    pub(crate) distinct: Vec<(u32, u32)>,
    pub(crate) numbers: Vec<u32>,
}

impl ByteColumn {
    pub(crate) fn clear(&mut self) {
        self.distinct.clear();
        self.numbers.clear();
    }

    /// Writes the column; `bytes` is the page's buffer.
    pub(crate) fn write(&self, bytes: &[u8], out: &mut Streams) {
        let few = self.distinct.len() * 5 <= self.numbers.len() * 3;
        if few || self.distinct.len() < 4 {
            self.write_distinct(bytes, out);
        } else if let Some(pattern) = self.hex_pattern(bytes) {
            self.write_hex(bytes, &pattern, out);
        } else {
            self.write_all(bytes, out);
        }
    }

    fn value<'b>(&self, bytes: &'b [u8], number: u32) -> &'b [u8] {
        let (start, length) = self.distinct[number as usize];
        &bytes[start as usize..][..length as usize]
    }

    fn write_distinct(&self, bytes: &[u8], out: &mut Streams) {
        let (order, places) = by_frequency(self.distinct.len(), &self.numbers);
        out.codes.push(FORM_DISTINCT);
        put_varint(&mut out.codes, order.len() as u64);
        for number in &order {
            let value = self.value(bytes, *number);
            put_varint(&mut out.codes, value.len() as u64);
            out.text.extend_from_slice(value);
        }
        if order.len() > 1 {
            put_numbers(order.len(), self.numbers.iter().map(|at| places[*at as usize]), out);
        }
    }

    fn write_all(&self, bytes: &[u8], out: &mut Streams) {
        out.codes.push(FORM_ALL);
        let length = |number: &u32| self.distinct[*number as usize].1;
        let first = self.numbers.first().map_or(0, length);
        if self.numbers.iter().all(|number| length(number) == first) {
            put_varint(&mut out.codes, u64::from(first) + 1);
        } else {
            out.codes.push(0);
            for number in &self.numbers {
                put_varint(&mut out.codes, u64::from(length(number)));
            }
        }
        for number in &self.numbers {
            out.text.extend_from_slice(self.value(bytes, *number));
        }
    }

    /// The bytes that all values have in common, zero where they differ, if they differ in lower
    /// case hexadecimal digits only, of which some are letters.
    fn hex_pattern(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut pattern = self.value(bytes, 0).to_vec();
        let mut letters = false;
        let mut place = |kept: &mut u8, byte: u8| {
            letters |= byte.is_ascii_lowercase();
            if *kept == byte {
                return true;
            }
            let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let differs = is_digit(byte) && (*kept == 0 || is_digit(*kept));
            *kept = 0;
            differs
        };
        for number in 1..narrow(self.distinct.len()) {
            let value = self.value(bytes, number);
            if value.len() != pattern.len() || value.contains(&0) {
                return None;
            }
            if !pattern.iter_mut().zip(value).all(|(kept, byte)| place(kept, *byte)) {
                return None;
            }
        }
        let digits = pattern.iter().filter(|byte| **byte == 0).count();
        (letters && digits * 2 >= pattern.len()).then_some(pattern)
    }

    fn write_hex(&self, bytes: &[u8], pattern: &[u8], out: &mut Streams) {
        out.codes.push(FORM_HEX);
        put_varint(&mut out.codes, pattern.len() as u64);
        out.text.extend_from_slice(pattern);
        for number in &self.numbers {
            let mut half = None;
            for (byte, kept) in self.value(bytes, *number).iter().zip(pattern) {
                if *kept != 0 {
                    continue;
                }
                let digit = if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 };
                match half.take() {
                    None => half = Some(digit),
                    Some(high) => out.plain.push(high << 4 | digit),
                }
            }
            if let Some(high) = half {
                out.plain.push(high << 4);
            }
        }
    }
}

/// The numbers sorted by how often they occur, and the place of each number in that order.
fn by_frequency(distinct: usize, numbers: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut counts = vec![0u32; distinct];
    for number in numbers {
        counts[*number as usize] += 1;
    }
    let mut order: Vec<u32> = (0..narrow(distinct)).collect();
    order.sort_by_key(|number| std::cmp::Reverse(counts[*number as usize]));
    let mut places = vec![0; distinct];
    for (place, number) in (0u32..).zip(&order) {
        places[*number as usize] = place;
    }
    (order, places)
}

/// How many bytes the number of one of `distinct` values takes.
pub(crate) const fn number_bytes(distinct: usize) -> usize {
    match distinct {
        0..=0x100 => 1,
        0x101..=0x1_0000 => 2,
        _ => 4,
    }
}

fn put_numbers(distinct: usize, numbers: impl Iterator<Item = u32> + Clone, out: &mut Streams) {
    for plane in 0..number_bytes(distinct) {
        out.codes.extend(numbers.clone().map(|number| number.to_le_bytes()[plane]));
    }
}

/// Numbers distinct values as long as there are few: a table of so few slots costs less than sorting,
/// and no choice of values makes it cost much.
struct Few {
    /// A place in `distinct` and one more, or 0.
    slots: [u16; Few::SLOTS],
    distinct: Vec<i64>,
}

impl Few {
    const SLOTS: usize = 1024;
    const DISTINCT_MAX: usize = 256;

    /// The distinct values in ascending order and each value's number among them; `None` if there
    /// are more than 256, or more than half as many as there are values.
    fn number(values: &[i64]) -> Option<(Vec<i64>, Vec<u32>)> {
        let mut few = Few { slots: [0; Few::SLOTS], distinct: Vec::new() };
        let most = Few::DISTINCT_MAX.min(values.len() / 2);
        let mut numbers: Vec<u32> = Vec::with_capacity(values.len());
        let mut before = None;
        for value in values {
            let number = match before {
                Some((known, number)) if known == *value => number,
                _ => few.number_of(*value),
            };
            if few.distinct.len() > most {
                return None;
            }
            before = Some((*value, number));
            numbers.push(number);
        }
        let mut sorted = few.distinct.clone();
        sorted.sort_unstable();
        let place = |value: &i64| narrow(sorted.binary_search(value).unwrap_or(0));
        let places: Vec<u32> = few.distinct.iter().map(place).collect();
        for number in &mut numbers {
            *number = places[*number as usize];
        }
        Some((sorted, numbers))
    }

    #[inline]
    fn number_of(&mut self, value: i64) -> u32 {
        let hash = value.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        let mut slot = usize::try_from(hash).unwrap_or(0) % Few::SLOTS;
        loop {
            match self.slots[slot] {
                0 => {
                    self.distinct.push(value);
                    let number = narrow(self.distinct.len());
                    // One more than may stay, at most.
                    self.slots[slot] = u16::try_from(number).unwrap_or(u16::MAX);
                    return number - 1;
                }
                known if self.distinct[usize::from(known) - 1] == value => {
                    return u32::from(known) - 1;
                }
                _ => slot = (slot + 1) % Few::SLOTS,
            }
        }
    }
}

/// Writes a column of numbers.
pub(crate) fn write_ints(values: &[i64], out: &mut Streams) {
    let (Some(&low), Some(&high)) = (values.iter().min(), values.iter().max()) else { return };
    if low == high {
        out.codes.push(FORM_ONE);
        put_varint(&mut out.codes, zigzag(low));
        return;
    }
    if let Some((distinct, numbers)) = Few::number(values) {
        let (order, places) = by_frequency(distinct.len(), &numbers);
        out.codes.push(FORM_FEW);
        out.codes.push((distinct.len() - 1).to_le_bytes()[0]);
        for number in order {
            put_varint(&mut out.codes, zigzag(distinct[number as usize]));
        }
        let places = numbers.iter().map(|number| places[*number as usize]);
        out.codes.extend(places.map(|place| place.to_le_bytes()[0]));
        return;
    }
    let above = |value: i64| value.wrapping_sub(low).cast_unsigned();
    let width = (64 - above(high).leading_zeros()).div_ceil(8) as usize;
    out.codes.push(FORM_PLANES);
    out.codes.extend_from_slice(&low.to_le_bytes());
    out.codes.push(width.to_le_bytes()[0]);
    for plane in 0..width {
        let into = if plane + 1 == width { &mut out.codes } else { &mut out.plain };
        into.extend(values.iter().map(|value| above(*value).to_le_bytes()[plane]));
    }
}
