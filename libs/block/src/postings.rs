//! Posting lists as they are stored: which rows have a term.
//!
//! A list is dense if it has at least 64 rows and at least one in sixteen of the block's; it is
//! then a roaring bitmap in the portable format. Any other list is varints: the first row, then
//! for each further row its distance from the one before. The number of rows stands beside the
//! list, so nothing in the list says which form it has.
//!
//! Lists are packed in zstd frames of about 64 KiB, which takes a third off them; a list lies in one
//! frame and is named by its place in the frames' content as if they were one. Stored form of the
//! section: the frames; per frame its raw and packed length (varints); the length of those numbers
//! (4 bytes).

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use roaring::RoaringBitmap;

use clew_model::wire::put_varint;

use crate::codec::{ByteReader, Compressor, Decompressor};
use crate::error::BlockError;
use crate::rows::RowSet;

const SECTION: &str = "postings";

/// A frame ends behind the list that brings it to this size.
const FRAME_BYTES: usize = 64 << 10;
const FRAME_LEVEL: i32 = 1;

/// A list with one of so many rows is sorted by setting bits: a pass over so many rows costs about as
/// much as sorting one.
const SORTED_BY_BITS: u64 = 256;

fn is_dense(count: u32, rows: u32) -> bool {
    count >= 64 && u64::from(count) * 16 >= u64::from(rows)
}

/// Turns rows in any order into posting lists; reused for all lists of a block.
#[derive(Debug)]
pub(crate) struct PostingsWriter {
    rows: u32,
    bits: Vec<u64>,
    /// The frame at hand, and where it begins in the content of all frames.
    out: Vec<u8>,
    start: usize,
    frames: Frames,
}

/// Packed frames with their raw and packed lengths.
#[derive(Debug, Default)]
struct Frames {
    zstd: Compressor,
    packed: Vec<u8>,
    lengths: Vec<(usize, usize)>,
}

impl Frames {
    fn put(&mut self, raw: &[u8]) -> Result<(), BlockError> {
        let packed = self.zstd.compress(raw, FRAME_LEVEL)?;
        self.packed.extend_from_slice(&packed);
        self.lengths.push((raw.len(), packed.len()));
        Ok(())
    }
}

impl PostingsWriter {
    /// For a block with that many rows.
    pub(crate) fn new(rows: u32) -> PostingsWriter {
        PostingsWriter {
            rows,
            bits: vec![0; (rows as usize).div_ceil(64)],
            out: Vec::new(),
            start: 0,
            frames: Frames::default(),
        }
    }

    /// Appends the list of `list`, which it sorts and rids of repeated rows; returns how many are
    /// left.
    pub(crate) fn put(&mut self, list: &mut Vec<u32>) -> Result<u32, BlockError> {
        if !list.is_sorted_by(|a, b| a < b) {
            if list.len() as u64 * SORTED_BY_BITS >= u64::from(self.rows) {
                self.sort_by_bits(list);
            } else {
                list.sort_unstable();
                list.dedup();
            }
        }
        let count = crate::codec::narrow(list.len());
        if is_dense(count, self.rows) {
            let mut bitmap = RoaringBitmap::new();
            // The list ascends strictly, so nothing is refused.
            let _ = bitmap.append(list.iter().copied());
            bitmap.optimize();
            bitmap
                .serialize_into(&mut self.out)
                .map_err(BlockError::engine("writing a posting list"))?;
        } else {
            let mut before = 0;
            for row in list.iter() {
                put_varint(&mut self.out, u64::from(row - before));
                before = *row;
            }
        }
        if self.out.len() >= FRAME_BYTES {
            self.end_frame()?;
        }
        Ok(count)
    }

    fn end_frame(&mut self) -> Result<(), BlockError> {
        if !self.out.is_empty() {
            self.frames.put(&self.out)?;
            self.start += self.out.len();
            self.out.clear();
        }
        Ok(())
    }

    /// Sorting by setting bits costs one pass over the block's rows, whatever the order.
    fn sort_by_bits(&mut self, list: &mut Vec<u32>) {
        for row in list.iter() {
            if let Some(word) = self.bits.get_mut(*row as usize / 64) {
                *word |= 1 << (row % 64);
            }
        }
        list.clear();
        for (at, word) in (0u32..).zip(&mut self.bits) {
            let mut left = std::mem::take(word);
            while left != 0 {
                list.push(at * 64 + left.trailing_zeros());
                left &= left - 1;
            }
        }
    }

    /// Where the next list will begin, or the one before ended.
    pub(crate) fn position(&self) -> usize {
        self.start + self.out.len()
    }

    /// The section, with the lists of `behind` after its own.
    pub(crate) fn finish(mut self, mut behind: PostingsWriter) -> Result<Vec<u8>, BlockError> {
        self.end_frame()?;
        behind.end_frame()?;
        let Frames { packed: mut out, mut lengths, .. } = self.frames;
        out.append(&mut behind.frames.packed);
        lengths.append(&mut behind.frames.lengths);
        let start = out.len();
        for (raw, packed) in lengths {
            put_varint(&mut out, raw as u64);
            put_varint(&mut out, packed as u64);
        }
        let length = crate::codec::narrow(out.len() - start);
        out.extend_from_slice(&length.to_le_bytes());
        Ok(out)
    }
}

/// The section, opened. A frame is unpacked when it is first needed, and then kept.
#[derive(Debug, Clone)]
pub(crate) struct Postings {
    frames: Arc<[Frame]>,
}

#[derive(Debug)]
struct Frame {
    /// Where its content begins among that of all frames.
    start: usize,
    raw_length: usize,
    packed: Bytes,
    raw: OnceLock<Bytes>,
}

impl Postings {
    /// Reads the section.
    pub(crate) fn parse(section: &Bytes) -> Result<Postings, BlockError> {
        let corrupt = |reason| BlockError::corrupt(SECTION, reason);
        let (rest, length) =
            section.split_last_chunk::<4>().ok_or_else(|| corrupt("it is too short"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let packed = rest.len().checked_sub(length).ok_or_else(|| corrupt("it is too short"))?;
        let mut reader = ByteReader::new(SECTION, &rest[packed..]);
        let (mut start, mut at) = (0usize, 0usize);
        let mut frames = Vec::new();
        while reader.remaining() > 0 {
            let (raw_length, packed_length) = (reader.varint_u32()?, reader.varint_u32()?);
            let end = at.saturating_add(packed_length as usize);
            if end > packed {
                return Err(corrupt("a frame lies outside"));
            }
            let raw_length = raw_length as usize;
            let packed = section.slice(at..end);
            frames.push(Frame { start, raw_length, packed, raw: OnceLock::new() });
            start = start.saturating_add(raw_length);
            at = end;
        }
        Ok(Postings { frames: frames.into() })
    }

    /// How many bytes all lists take.
    pub(crate) fn raw_length(&self) -> usize {
        self.frames.last().map_or(0, |frame| frame.start.saturating_add(frame.raw_length))
    }

    /// Adds the rows of the list at `place`, which has `count` of a block's `rows`, to `into`.
    pub(crate) fn add(
        &self,
        place: &Range<usize>,
        count: u32,
        rows: u32,
        into: &mut RowSet,
    ) -> Result<(), BlockError> {
        let outside = || BlockError::corrupt(SECTION, "a list lies outside");
        let at = self.frames.partition_point(|frame| frame.start <= place.start);
        let frame = at.checked_sub(1).and_then(|at| self.frames.get(at)).ok_or_else(outside)?;
        let raw = match frame.raw.get() {
            Some(raw) => raw,
            None => {
                let mut zstd = Decompressor::default();
                let raw = zstd.decompress(SECTION, &frame.packed, frame.raw_length)?;
                frame.raw.get_or_init(|| raw)
            }
        };
        let end = place.end.checked_sub(frame.start).ok_or_else(outside)?;
        let list = raw.get(place.start - frame.start..end).ok_or_else(outside)?;
        read_postings(list, count, rows, into)
    }
}

/// Adds the rows of a stored list of `count` rows to `into`.
fn read_postings(bytes: &[u8], count: u32, rows: u32, into: &mut RowSet) -> Result<(), BlockError> {
    let corrupt = |reason| BlockError::corrupt(SECTION, reason);
    if is_dense(count, rows) {
        let bitmap =
            RoaringBitmap::deserialize_from(bytes).map_err(|_| corrupt("a bitmap is damaged"))?;
        // Reading does not check everything that set operations rely on.
        bitmap.internal_validate().map_err(|_| corrupt("a bitmap is damaged"))?;
        if bitmap.len() != u64::from(count) || bitmap.max().is_some_and(|row| row >= rows) {
            return Err(corrupt("a bitmap has not the rows stated"));
        }
        if into.is_empty() {
            into.0 = bitmap;
        } else {
            into.0 |= bitmap;
        }
        return Ok(());
    }
    let mut reader = ByteReader::new(SECTION, bytes);
    if count as usize > bytes.len() {
        return Err(corrupt("a list is too short"));
    }
    let mut list = Vec::with_capacity(count as usize);
    let mut row = 0u32;
    for at in 0..count {
        let distance = reader.varint_u32()?;
        row = row
            .checked_add(distance)
            .filter(|row| *row < rows && (at == 0 || distance > 0))
            .ok_or_else(|| corrupt("a list does not ascend within the block"))?;
        list.push(row);
    }
    reader.finish()?;
    into.extend_sorted(&list);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lists_round_trip_in_any_order(
            rows in 1u32..3_000, list in proptest::collection::vec(any::<u32>(), 0..2_000),
        ) {
            let mut list: Vec<u32> = list.into_iter().map(|row| row % rows).collect();
            let model: BTreeSet<u32> = list.iter().copied().collect();
            let mut writer = PostingsWriter::new(rows);
            let count = writer.put(&mut list).unwrap();
            prop_assert_eq!(count as usize, model.len());
            // A second list finds the scratch space clean.
            let first_end = writer.position();
            writer.put(&mut vec![0]).unwrap();
            let end = writer.position();
            let mut behind = PostingsWriter::new(rows);
            behind.put(&mut vec![0]).unwrap();
            let postings = Postings::parse(&Bytes::from(writer.finish(behind).unwrap())).unwrap();
            let read = |place: Range<usize>, count| {
                let mut set = RowSet::new();
                postings.add(&place, count, rows, &mut set).unwrap();
                set.iter().collect::<Vec<_>>()
            };
            if count > 0 {
                prop_assert_eq!(read(0..first_end, count), model.into_iter().collect::<Vec<_>>());
            }
            prop_assert_eq!(read(first_end..end, 1), [0]);
            prop_assert_eq!(read(end..end + 1, 1), [0]);
            prop_assert_eq!(postings.raw_length(), end + 1);
        }

        #[test]
        fn any_bytes_are_a_section_or_an_error(bytes: Vec<u8>, place in 0usize..300) {
            if let Ok(postings) = Postings::parse(&Bytes::from(bytes)) {
                let _ = postings.add(&(place..place + 2), 1, 10, &mut RowSet::new());
            }
        }

        #[test]
        fn any_bytes_are_rows_of_the_block_or_an_error(
            bytes: Vec<u8>, count in 0u32..200, rows in 0u32..200,
        ) {
            let mut set = RowSet::new();
            if read_postings(&bytes, count, rows, &mut set).is_ok() {
                prop_assert_eq!(set.len(), u64::from(count));
                prop_assert!(set.iter().all(|row| row < rows));
            }
        }
    }
}
