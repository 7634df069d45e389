//! Posting lists as they are stored: which rows have a term.
//!
//! A list is dense if it has at least 64 rows and at least one in sixteen of the block's; it is
//! then a roaring bitmap in the portable format. Any other list is varints: the first row, then
//! for each further row its distance from the one before. The number of rows stands beside the
//! list, so nothing in the list says which form it has.

use roaring::RoaringBitmap;

use clew_model::wire::put_varint;

use crate::codec::ByteReader;
use crate::error::BlockError;
use crate::rows::RowSet;

const SECTION: &str = "postings";

fn is_dense(count: u32, rows: u32) -> bool {
    count >= 64 && u64::from(count) * 16 >= u64::from(rows)
}

/// Turns rows in any order into posting lists; reused for all lists of a block.
#[derive(Debug)]
pub(crate) struct PostingsWriter {
    rows: u32,
    bits: Vec<u8>,
    out: Vec<u8>,
}

impl PostingsWriter {
    /// For a block with that many rows.
    pub(crate) fn new(rows: u32) -> PostingsWriter {
        PostingsWriter { rows, bits: vec![0; (rows as usize).div_ceil(8)], out: Vec::new() }
    }

    /// Appends the list of `list`, which it sorts and rids of repeated rows; returns how many are
    /// left.
    pub(crate) fn put(&mut self, list: &mut Vec<u32>) -> Result<u32, BlockError> {
        if list.len() as u64 * 8 >= u64::from(self.rows) && list.len() >= 64 {
            self.sort_by_bits(list);
        } else {
            list.sort_unstable();
            list.dedup();
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
        Ok(count)
    }

    /// Sorting by setting bits costs one pass over the block's rows, whatever the order.
    fn sort_by_bits(&mut self, list: &mut Vec<u32>) {
        for row in list.iter() {
            if let Some(byte) = self.bits.get_mut(*row as usize / 8) {
                *byte |= 1 << (row % 8);
            }
        }
        list.clear();
        for (at, byte) in (0u32..).zip(&mut self.bits) {
            let mut left = std::mem::take(byte);
            while left != 0 {
                list.push(at * 8 + left.trailing_zeros());
                left &= left - 1;
            }
        }
    }

    /// Where the next list will begin.
    pub(crate) fn position(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// Adds the rows of a stored list of `count` rows to `into`.
pub(crate) fn read_postings(
    bytes: &[u8],
    count: u32,
    rows: u32,
    into: &mut RowSet,
) -> Result<(), BlockError> {
    let corrupt = |reason| BlockError::corrupt(SECTION, reason);
    if is_dense(count, rows) {
        let bitmap =
            RoaringBitmap::deserialize_from(bytes).map_err(|_| corrupt("a bitmap is damaged"))?;
        // Reading does not check everything that set operations rely on.
        bitmap.internal_validate().map_err(|_| corrupt("a bitmap is damaged"))?;
        if bitmap.len() != u64::from(count) || bitmap.max().is_some_and(|row| row >= rows) {
            return Err(corrupt("a bitmap has not the rows stated"));
        }
        into.0 |= bitmap;
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
            let bytes = writer.finish();
            let mut set = RowSet::new();
            read_postings(&bytes[..first_end], count, rows, &mut set).unwrap();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(&bytes[first_end..], &[0]);
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
