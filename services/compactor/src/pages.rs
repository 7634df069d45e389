//! Reading the pages of an input in order, several with one request.

use std::collections::VecDeque;

use bytes::Bytes;
use clew_block::{Block, BlockError, Identity};
use clew_catalog::{ObjectKey, TenantBlock};
use clew_storage::{Bucket, Error as BucketError};

use crate::CompactorError;

/// How many bytes of pages are read ahead.
const READ_AHEAD_BYTES: u64 = 2 << 20;

/// A tenant's block of an input.
#[derive(Debug)]
pub(crate) struct InputBlock {
    pub(crate) object: ObjectKey,
    pub(crate) place: TenantBlock,
    pub(crate) block: Block,
    /// Pages read and not used yet: number, bytes, bytes of columns.
    ahead: VecDeque<(usize, Bytes, Bytes)>,
}

/// A page as it is stored.
pub(crate) struct StoredPage {
    pub(crate) packed: Bytes,
    pub(crate) columns: Bytes,
}

impl InputBlock {
    /// Opens a block of an object.
    pub(crate) async fn open(
        bucket: &Bucket,
        object: ObjectKey,
        place: TenantBlock,
    ) -> Result<InputBlock, CompactorError> {
        let name = object.to_string();
        let mut tail_length = u64::from(place.footer_length).min(place.length);
        loop {
            let end = place.offset.saturating_add(place.length);
            let tail = bucket.get_range(&name, end - tail_length..end).await;
            let tail = tail.map_err(|error| of_input(object, error))?;
            match Block::open(&tail) {
                Ok(block) => {
                    let checked = identity_of(object, &place).check(block.footer());
                    checked.map_err(|error| damaged(object, &error.to_string()))?;
                    return Ok(InputBlock { object, place, block, ahead: VecDeque::new() });
                }
                Err(BlockError::TailTooShort { needed })
                    if needed > tail_length && needed <= place.length =>
                {
                    tail_length = needed;
                }
                Err(error) => return Err(damaged(object, &error.to_string())),
            }
        }
    }

    /// The bytes of a page. Pages are asked for in ascending order.
    pub(crate) async fn page(
        &mut self,
        bucket: &Bucket,
        number: usize,
    ) -> Result<StoredPage, CompactorError> {
        loop {
            while let Some((at, packed, columns)) = self.ahead.pop_front() {
                if at == number {
                    return Ok(StoredPage { packed, columns });
                }
            }
            self.read_ahead(bucket, number).await?;
            if self.ahead.front().is_none_or(|(at, ..)| *at != number) {
                return Err(damaged(self.object, "it lacks a page that its directory lists"));
            }
        }
    }

    async fn read_ahead(&mut self, bucket: &Bucket, from: usize) -> Result<(), CompactorError> {
        let entries = self.block.pages().entries();
        let mut ranges = Vec::new();
        let mut bytes = 0;
        for entry in entries.iter().skip(from) {
            let length =
                entry.bytes.end - entry.bytes.start + entry.columns.end - entry.columns.start;
            if !ranges.is_empty() && bytes + length > READ_AHEAD_BYTES {
                break;
            }
            bytes += length;
            let offset = self.place.offset;
            ranges.push(offset + entry.bytes.start..offset + entry.bytes.end);
            ranges.push(offset + entry.columns.start..offset + entry.columns.end);
        }
        let read = bucket.get_ranges(&self.object.to_string(), &ranges).await;
        let read = read.map_err(|error| of_input(self.object, error))?;
        let (pairs, _) = read.as_chunks::<2>();
        for (number, [packed, columns]) in (from..).zip(pairs) {
            self.ahead.push_back((number, packed.clone(), columns.clone()));
        }
        Ok(())
    }
}

/// What the catalog says of a tenant's block in an object.
pub fn identity_of(object: ObjectKey, place: &TenantBlock) -> Identity {
    Identity {
        tenant: place.tenant.clone(),
        shard: u64::from(object.shard().0),
        flush: object.flushed().map(|(incarnation, through)| (incarnation.0, through)),
        spans: place.spans,
        traces: place.traces,
        split: place.splits,
        min_start: place.min_time.0,
        max_end: place.max_time.0,
    }
}

/// An error of the bucket, where it tells something of the object rather than of the bucket.
pub(crate) fn of_input(object: ObjectKey, error: BucketError) -> CompactorError {
    match error {
        BucketError::NotFound { .. } | BucketError::TooShort { .. } => {
            damaged(object, &error.to_string())
        }
        error => CompactorError::Bucket(error),
    }
}

pub(crate) fn damaged(object: ObjectKey, reason: &str) -> CompactorError {
    CompactorError::Input { object, reason: reason.to_owned() }
}
