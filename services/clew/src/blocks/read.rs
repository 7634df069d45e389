//! Blocks in the bucket, opened, read page by page, and checked to the last byte.

use std::ops::Range;

use bytes::Bytes;
use clew_block::{Block, BlockError, SearchSections};
use clew_catalog::{ObjectKey, TenantBlock};
use clew_compactor::identity_of;
use clew_model::{ErrorKind, Trace};
use clew_storage::Bucket;

/// Why a block could not be read, or is not what is registered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The bucket did not give it.
    #[error(transparent)]
    Storage(#[from] clew_storage::Error),
    /// Its bytes are not those of the block.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// Its bytes are whole and do not hold what its footer says.
    #[error("it holds {found} spans instead of {stated}")]
    Spans {
        /// As many as there are.
        found: u64,
        /// As many as there should be.
        stated: u64,
    },
}

impl Fault {
    /// [`ErrorKind::Corrupt`] is the block's fault, all else somebody else's.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Fault::Storage(error) => error.kind(),
            Fault::Block(error) => error.kind(),
            Fault::Spans { .. } => ErrorKind::Corrupt,
        }
    }
}

/// Opens a block, if it is the one that is registered.
pub(crate) async fn open(
    bucket: &Bucket,
    key: ObjectKey,
    place: &TenantBlock,
) -> Result<Block, Fault> {
    let end = place.offset.saturating_add(place.length);
    let mut tail_length = u64::from(place.footer_length).min(place.length);
    loop {
        let tail = bucket.get_range(&key.to_string(), end - tail_length..end).await?;
        match Block::open(&tail) {
            // The catalog may know a shorter tail than the block has, but no shorter block.
            Err(BlockError::TailTooShort { needed }) if needed > place.length => {
                let (section, reason) = ("footer", "it belongs to a longer block");
                return Err(BlockError::Corrupt { section, reason }.into());
            }
            Err(BlockError::TailTooShort { needed }) if needed > tail_length => {
                tail_length = needed;
            }
            opened => {
                let block = opened?;
                identity_of(key, place).check(block.footer())?;
                return Ok(block);
            }
        }
    }
}

/// Reads a whole block and checks every byte of it against its checksums. One that is damaged is read
/// a second time, since a transfer may be garbled.
pub(crate) async fn verify(
    bucket: &Bucket,
    key: ObjectKey,
    place: &TenantBlock,
) -> Result<(), Fault> {
    match verify_once(bucket, key, place).await {
        Err(fault) if fault.kind() == ErrorKind::Corrupt => verify_once(bucket, key, place).await,
        verified => verified,
    }
}

async fn verify_once(bucket: &Bucket, key: ObjectKey, place: &TenantBlock) -> Result<(), Fault> {
    let block = open(bucket, key, place).await?;
    let mut spans = 0;
    for number in 0..block.pages().entries().len() {
        let traces = page(bucket, key, place, &block, number).await?;
        spans += traces.iter().map(|trace| trace.spans.len() as u64).sum::<u64>();
    }
    if spans != place.spans {
        return Err(Fault::Spans { found: spans, stated: place.spans });
    }
    let ranges = block.search_ranges()?;
    let wanted = [
        at(place, &ranges.traces),
        at(place, &ranges.dictionary),
        at(place, &ranges.postings),
        at(place, &ranges.locator),
        at(place, &ranges.numbers),
        at(place, &ranges.columns),
    ];
    let read = bucket.get_ranges(&key.to_string(), &wanted).await?;
    let [traces, dictionary, postings, locator, numbers, columns] =
        <[Bytes; 6]>::try_from(read).map_err(|_| missing("index"))?;
    let sections = SearchSections { traces, dictionary, postings, locator, numbers, columns };
    block.search(&sections)?;
    Ok(())
}

/// The traces of a page.
pub(super) async fn page(
    bucket: &Bucket,
    key: ObjectKey,
    place: &TenantBlock,
    block: &Block,
    number: usize,
) -> Result<Vec<Trace>, Fault> {
    let Some(entry) = block.pages().entries().get(number) else { return Ok(Vec::new()) };
    let ranges = [at(place, &entry.bytes), at(place, &entry.columns)];
    let read = bucket.get_ranges(&key.to_string(), &ranges).await?;
    let [packed, columns] = read.as_slice() else { return Err(missing("page").into()) };
    Ok(block.page(number, packed, columns)?.all_traces(block.records())?)
}

/// Where a range of a block lies in its object.
fn at(place: &TenantBlock, range: &Range<u64>) -> Range<u64> {
    place.offset.saturating_add(range.start)..place.offset.saturating_add(range.end)
}

/// Cannot happen: as much is read as was asked for.
fn missing(section: &'static str) -> BlockError {
    BlockError::Corrupt { section, reason: "it is missing" }
}
