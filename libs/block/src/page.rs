//! Trace pages: the spans themselves, whole traces after each other, taken apart into columns of
//! like values and compressed in pages of bounded size; and the directory that tells which page
//! holds a trace.
//!
//! What stands in the columns section (ids, times, resource, kind, status, parent) is not repeated
//! in the page. The fields that a span has and their order, its *shape*, is kept once per block. A
//! page holds which shape each row has and, field by field, the values. Putting a span together
//! gives the bytes that were sent, to the last one.
//!
//! Stored form: raw and packed length of the codes, raw and packed length of the text (varints),
//! codes (zstd), text (zstd), plain bytes. In the order of writing: the smallest start of its
//! traces (8 bytes, codes); number of traces (varint, codes); per trace its id (16 bytes, plain),
//! its start minus the smallest (varint, codes), its rows here (varint, codes); the rows' shapes and
//! the rows' scopes as columns of numbers; then every field's values in the order of fields, as in
//! [`values`]. A trace larger than a page has pages of its own; the parts repeat its id.

mod carry;
mod decode;
mod join;
mod read_values;
mod shapes;
mod split;
mod values;
mod write;

use std::ops::Range;
use std::sync::Arc;

use clew_model::TraceId;
use clew_model::trace::{ResourceRecord, ScopeRecord};
use clew_model::wire::put_varint;

pub(crate) use self::carry::{CarriedRow, Carrier};
pub use self::decode::Page;
pub(crate) use self::decode::PageCursor;
pub(crate) use self::shapes::Shapes;
pub(crate) use self::write::{PageSpan, PageTrace, PagesWriter};
use crate::codec::ByteReader;
use crate::error::BlockError;

const PAGE: &str = "page";
const DIRECTORY: &str = "page directory";

/// Where a page is and what it begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageEntry {
    /// The id of its first trace.
    pub first_trace: TraceId,
    /// Its first row.
    pub first_row: u32,
    /// How many rows it has.
    pub rows: u32,
    /// The ordinal of its first trace in the trace table.
    pub first_ordinal: u32,
    /// The page's bytes, counted from the beginning of the block.
    pub bytes: Range<u64>,
    /// The bytes of its columns, counted from the beginning of the block.
    pub columns: Range<u64>,
    /// How many bytes its spans have when they are put together.
    pub(crate) raw_length: u32,
    pub(crate) crc32c: u32,
    pub(crate) columns_crc32c: u32,
}

/// What a writer of pages leaves.
pub(crate) struct PagesParts {
    pub(crate) pages: Vec<u8>,
    pub(crate) columns: Vec<u8>,
    /// The raw directory.
    pub(crate) directory: Vec<u8>,
    /// The raw shapes.
    pub(crate) shapes: Vec<u8>,
    pub(crate) entries: Vec<PageEntry>,
}

/// Number of pages; per page first trace id (16 bytes), rows, first trace ordinal minus that of the
/// page before, length, length of the columns, length of the spans (varints), CRC-32C of the page
/// and of its columns (4 bytes each).
fn put_directory(entries: &[PageEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, entries.len() as u64);
    let mut ordinal = 0;
    for entry in entries {
        out.extend_from_slice(&entry.first_trace.0);
        put_varint(&mut out, u64::from(entry.rows));
        put_varint(&mut out, u64::from(entry.first_ordinal - ordinal));
        put_varint(&mut out, entry.bytes.end - entry.bytes.start);
        put_varint(&mut out, entry.columns.end - entry.columns.start);
        put_varint(&mut out, u64::from(entry.raw_length));
        out.extend_from_slice(&entry.crc32c.to_le_bytes());
        out.extend_from_slice(&entry.columns_crc32c.to_le_bytes());
        ordinal = entry.first_ordinal;
    }
    out
}

/// Which page holds what.
#[derive(Debug, Clone)]
pub struct PageDirectory {
    entries: Vec<PageEntry>,
}

impl PageDirectory {
    /// Reads the raw directory of pages that fill `pages` of the block, and their columns
    /// `columns`.
    pub(crate) fn parse(
        raw: &[u8],
        pages: Range<u64>,
        columns: Range<u64>,
    ) -> Result<PageDirectory, BlockError> {
        let mut reader = ByteReader::new(DIRECTORY, raw);
        let count = reader.count(29)?;
        let mut entries: Vec<PageEntry> = Vec::with_capacity(count);
        let (mut at, mut columns_at) = (pages.start, columns.start);
        let (mut row, mut ordinal) = (0u32, 0u32);
        for _ in 0..count {
            let first_trace = TraceId(reader.array()?);
            let rows = reader.varint_u32()?;
            let too_large = reader.corrupt("a number is too large");
            ordinal = ordinal.checked_add(reader.varint_u32()?).ok_or(too_large)?;
            let (length, columns_length) = (reader.varint()?, reader.varint()?);
            let raw_length = reader.varint_u32()?;
            let (crc32c, columns_crc32c) = (reader.u32()?, reader.u32()?);
            let within = |at: u64, length: u64, all: &Range<u64>| {
                at.checked_add(length).filter(|end| *end <= all.end)
            };
            let ends = within(at, length, &pages).zip(within(columns_at, columns_length, &columns));
            let (end, columns_end) =
                ends.ok_or_else(|| reader.corrupt("a page lies outside the pages"))?;
            if entries.last().is_some_and(|last| last.first_trace > first_trace) {
                return Err(reader.corrupt("its traces are not sorted"));
            }
            entries.push(PageEntry {
                first_trace,
                first_row: row,
                rows,
                first_ordinal: ordinal,
                bytes: at..end,
                columns: columns_at..columns_end,
                raw_length,
                crc32c,
                columns_crc32c,
            });
            let too_large = reader.corrupt("a number is too large");
            row = row.checked_add(rows).ok_or(too_large)?;
            (at, columns_at) = (end, columns_end);
        }
        reader.finish()?;
        Ok(PageDirectory { entries })
    }

    /// All pages in the order of their traces.
    pub fn entries(&self) -> &[PageEntry] {
        &self.entries
    }

    /// The pages that hold a trace, if the block has it: consecutive indices into
    /// [`PageDirectory::entries`].
    pub fn pages_of(&self, id: &TraceId) -> Range<usize> {
        let from = self.entries.partition_point(|entry| entry.first_trace < *id);
        let to = self.entries.partition_point(|entry| entry.first_trace <= *id);
        if from < to { from..to } else { from.saturating_sub(1)..to }
    }

    /// The page that holds a row.
    pub fn page_of_row(&self, row: u32) -> Option<usize> {
        self.entries.partition_point(|entry| entry.first_row <= row).checked_sub(1)
    }
}

/// What pages refer to, by ordinal: distinct resources and scopes, and the shapes of spans.
#[derive(Debug, Clone, Default)]
pub struct BlockRecords {
    /// The resources.
    pub resources: Vec<Arc<ResourceRecord>>,
    /// The instrumentation scopes.
    pub scopes: Vec<Arc<ScopeRecord>>,
    pub(crate) shapes: Shapes,
}
