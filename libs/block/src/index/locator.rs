//! Finds the page that holds a value which the dictionary does not have: a static function from the
//! hash of a value to its page, for values that lie in one page only, and a list for the others.
//!
//! Values that hardly ever repeat (request ids) would dominate a dictionary, and are only ever
//! looked up whole. The function is a binary fuse construction (Graf and Lemire, "Binary Fuse
//! Filters", 2022) that stores a page number and eight bits of the hash where the filter stores
//! bits of the hash alone: a value that is not there yields a page once in 256 times, and the page
//! then shows that it has no such value.
//!
//! Stored form: number of listed values (varint); per value, sorted, its hash (8 bytes) and page
//! (varint); number of pages (varint); number of values of the function (varint), and if there are
//! any: seed (8 bytes), binary logarithm of the segment length (1), number of segments less 2
//! (varint), then the slots, each as many bits as a page number needs plus eight, lowest bit first.

use bytes::Bytes;
use clew_model::wire::put_varint;

use crate::codec::{ByteReader, narrow};
use crate::error::BlockError;

const SECTION: &str = "locator";
const CHECK_BITS: u32 = 8;

/// Attempts with other seeds before the values are listed instead; one in thousands fails once.
const ATTEMPTS: u64 = 64;

/// A value's hash and the page it lies in.
pub(crate) type Located = (u64, u32);

/// Mixes the hash of a value with that of its key.
pub(crate) const fn located_hash(key: u64, value: u64) -> u64 {
    mix(value ^ key.rotate_left(32))
}

/// The finaliser of MurmurHash3.
const fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// How hashes spread over the slots.
#[derive(Debug, Clone, Copy)]
struct Layout {
    seed: u64,
    segment_bits: u32,
    segments: u32,
}

impl Layout {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "logarithms of a 32-bit count"
    )]
    fn for_values(count: usize) -> Layout {
        let count = count.max(2) as f64;
        let segment_bits = ((count.ln() / 3.33f64.ln() + 2.25).floor() as u32).min(18);
        let factor = (0.875 + 0.25 * 1e6f64.ln() / count.ln()).max(1.125);
        let slots = (count * factor).ceil();
        let segments = (slots / f64::from(1u32 << segment_bits)).ceil() as u32;
        Layout { seed: 0, segment_bits, segments: segments.saturating_sub(2).max(1) }
    }

    const fn slot_count(&self) -> usize {
        (self.segments as usize + 2) << self.segment_bits
    }

    /// The three slots of a hash that was mixed with the seed.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the high half of a product of 64 by 32 bits"
    )]
    fn slots(&self, hash: u64) -> [usize; 3] {
        let length = 1usize << self.segment_bits;
        let range = (self.segments as u64) << self.segment_bits;
        let first = ((u128::from(hash) * u128::from(range)) >> 64) as usize;
        let mask = length - 1;
        [
            first,
            (first + length) ^ ((hash >> 18) as usize & mask),
            (first + 2 * length) ^ (hash as usize & mask),
        ]
    }
}

/// What a slot's exclusive or must come to: the page behind eight bits of the hash.
const fn stored(hash: u64, page: u32) -> u64 {
    (page as u64) << CHECK_BITS | (hash >> 37) & 0xff
}

/// Writes the section. Pages are below `pages`; a value may come with several pages.
pub(crate) fn put_locator(mut values: Vec<Located>, pages: u32) -> Vec<u8> {
    values.sort_unstable();
    values.dedup();
    let mut listed: Vec<Located> = Vec::new();
    let mut single: Vec<Located> = Vec::new();
    for same in values.chunk_by(|a, b| a.0 == b.0) {
        if same.len() == 1 { &mut single } else { &mut listed }.extend_from_slice(same);
    }
    let function = Function::build(&single);
    if function.is_none() {
        listed.append(&mut single);
        listed.sort_unstable();
    }
    let mut out = Vec::new();
    put_varint(&mut out, listed.len() as u64);
    for (hash, page) in &listed {
        out.extend_from_slice(&hash.to_le_bytes());
        put_varint(&mut out, u64::from(*page));
    }
    put_varint(&mut out, u64::from(pages));
    put_varint(&mut out, single.len() as u64);
    if let (false, Some(Function { layout, slots })) = (single.is_empty(), function) {
        out.extend_from_slice(&layout.seed.to_le_bytes());
        out.push(layout.segment_bits.to_le_bytes()[0]);
        put_varint(&mut out, u64::from(layout.segments));
        put_slots(&mut out, &slots, slot_bits(pages));
    }
    out
}

const fn slot_bits(pages: u32) -> u32 {
    CHECK_BITS + (u32::BITS - pages.leading_zeros())
}

fn put_slots(out: &mut Vec<u8>, slots: &[u64], bits: u32) {
    let (mut pending, mut filled) = (0u128, 0);
    for slot in slots {
        pending |= u128::from(*slot) << filled;
        filled += bits;
        while filled >= 8 {
            out.push(pending.to_le_bytes()[0]);
            pending >>= 8;
            filled -= 8;
        }
    }
    out.push(pending.to_le_bytes()[0]);
}

/// The slots of a function under construction.
struct Function {
    layout: Layout,
    slots: Vec<u64>,
}

impl Function {
    /// `None` if no seed works, which equal hashes would make sure of.
    fn build(values: &[Located]) -> Option<Function> {
        let layout = Layout::for_values(values.len());
        (0..ATTEMPTS).find_map(|seed| Function::peel(values, Layout { seed, ..layout }))
    }

    /// Removes values one by one that have a slot to themselves, then fills the slots in the
    /// reverse order.
    fn peel(values: &[Located], layout: Layout) -> Option<Function> {
        let slot_count = layout.slot_count();
        // Per slot how many values are left there, and the exclusive or of their places.
        let mut counts = vec![0u32; slot_count];
        let mut places = vec![0u32; slot_count];
        for (place, (hash, _)) in (0u32..).zip(values) {
            for slot in layout.slots(mix(hash.wrapping_add(layout.seed))) {
                counts[slot] += 1;
                places[slot] ^= place;
            }
        }
        let mut alone: Vec<usize> = (0..slot_count).filter(|slot| counts[*slot] == 1).collect();
        let mut order: Vec<(u32, u32)> = Vec::with_capacity(values.len());
        while let Some(slot) = alone.pop() {
            if counts[slot] != 1 {
                continue;
            }
            let place = places[slot];
            order.push((place, narrow(slot)));
            let hash = mix(values[place as usize].0.wrapping_add(layout.seed));
            for other in layout.slots(hash) {
                counts[other] -= 1;
                places[other] ^= place;
                if counts[other] == 1 {
                    alone.push(other);
                }
            }
        }
        if order.len() < values.len() {
            return None;
        }
        let mut slots = vec![0u64; slot_count];
        for (place, slot) in order.into_iter().rev() {
            let (hash, page) = values[place as usize];
            let mixed = mix(hash.wrapping_add(layout.seed));
            // The slot itself is still zero.
            let others = layout.slots(mixed).into_iter().fold(0, |sum, slot| sum ^ slots[slot]);
            slots[slot as usize] = others ^ stored(mixed, page);
        }
        Some(Function { layout, slots })
    }
}

/// The section, opened.
#[derive(Debug, Clone)]
pub(crate) struct Locator {
    listed: Vec<Located>,
    pages: u32,
    function: Option<(Layout, Bytes)>,
}

impl Locator {
    /// Reads the section.
    pub(crate) fn parse(bytes: &Bytes) -> Result<Locator, BlockError> {
        let mut reader = ByteReader::new(SECTION, bytes);
        let count = reader.count(9)?;
        let mut listed = Vec::with_capacity(count);
        for _ in 0..count {
            listed.push((reader.u64()?, reader.varint_u32()?));
        }
        let pages = reader.varint_u32()?;
        let function = if reader.varint()? == 0 {
            None
        } else {
            let (seed, segment_bits) = (reader.u64()?, u32::from(reader.u8()?));
            let segments = reader.varint_u32()?;
            if segment_bits > 18 || segments == 0 {
                return Err(reader.corrupt("its segments have an impossible size"));
            }
            let layout = Layout { seed, segment_bits, segments };
            let bits = layout.slot_count() as u64 * u64::from(slot_bits(pages));
            let length = usize::try_from(bits / 8 + 1).unwrap_or(usize::MAX);
            let at = bytes.len() - reader.remaining();
            reader.take(length)?;
            Some((layout, bytes.slice(at..at + length)))
        };
        reader.finish()?;
        if !listed.is_sorted() {
            return Err(reader.corrupt("its values are not sorted"));
        }
        Ok(Locator { listed, pages, function })
    }

    /// The pages that may hold a value; few, and mostly none if no page does.
    pub(crate) fn pages_of(&self, hash: u64) -> Vec<u32> {
        let from = self.listed.partition_point(|(listed, _)| *listed < hash);
        let listed = self.listed[from..].iter().take_while(|(listed, _)| *listed == hash);
        let mut pages: Vec<u32> = listed.map(|(_, page)| *page).collect();
        if let Some((layout, slots)) = &self.function {
            let mixed = mix(hash.wrapping_add(layout.seed));
            let bits = slot_bits(self.pages);
            let sum = layout
                .slots(mixed)
                .into_iter()
                .fold(0, |sum, slot| sum ^ slot_at(slots, slot, bits));
            let page = narrow(usize::try_from(sum >> CHECK_BITS).unwrap_or(usize::MAX));
            if page < self.pages && stored(mixed, page) == sum {
                pages.push(page);
            }
        }
        pages
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.listed.len() * 16 + self.function.as_ref().map_or(0, |(_, slots)| slots.len())
    }
}

/// The bits of a slot; slots have at most 40.
fn slot_at(slots: &[u8], slot: usize, bits: u32) -> u64 {
    let at = slot * bits as usize;
    let mut word = [0u8; 8];
    let rest = slots.get(at / 8..).unwrap_or_default();
    let length = rest.len().min(8);
    word[..length].copy_from_slice(&rest[..length]);
    (u64::from_le_bytes(word) >> (at % 8)) & ((1 << bits) - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn check(values: &[Located], pages: u32) -> Locator {
        let locator = Locator::parse(&Bytes::from(put_locator(values.to_vec(), pages))).unwrap();
        let mut expected: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
        for (hash, page) in values {
            expected.entry(*hash).or_default().insert(*page);
        }
        for (hash, pages) in expected {
            let found: BTreeSet<u32> = locator.pages_of(hash).into_iter().collect();
            assert!(found.is_superset(&pages), "{hash}");
            assert!(found.len() <= pages.len() + 1);
        }
        locator
    }

    proptest! {
        #[test]
        fn every_value_is_located(
            values in proptest::collection::vec((0u64..500, 0u32..9), 0..300),
        ) {
            let values: Vec<Located> =
                values.into_iter().map(|(hash, page)| (mix(hash), page)).collect();
            check(&values, 9);
        }

        #[test]
        fn any_bytes_are_a_locator_or_an_error(bytes: Vec<u8>, hash: u64) {
            if let Ok(locator) = Locator::parse(&Bytes::from(bytes)) {
                let _ = locator.pages_of(hash);
            }
        }
    }

    #[test]
    fn strangers_are_seldom_located_and_a_value_takes_few_bits() {
        let values: Vec<Located> =
            (0..200_000u32).map(|at| (mix(u64::from(at)), at / 700)).collect();
        let locator = check(&values, 286);
        let strangers =
            (1_000_000..1_100_000u64).filter(|at| !locator.pages_of(mix(*at)).is_empty());
        let located = strangers.count();
        assert!(located < 600, "{located} of 100,000");
        assert!(locator.memory_bytes() < 200_000 * 20 / 8, "{}", locator.memory_bytes());
    }

    #[test]
    fn equal_hashes_on_several_pages_are_listed() {
        let locator = check(&[(7, 1), (7, 3), (7, 3), (9, 2)], 4);
        assert_eq!(&locator.pages_of(7)[..2], [1, 3]);
    }
}
