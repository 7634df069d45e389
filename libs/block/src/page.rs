//! Trace pages: the spans themselves, whole traces after each other in zstd frames of bounded
//! size, and the directory that tells which page holds a trace.
//!
//! Raw form of a page: per trace its id (16 bytes) and span count (varint), then runs of spans
//! with the same resource and scope: resource ordinal, scope ordinal, run length (varints) and per
//! span its length (varint) and its bytes. A trace larger than a page has pages of its own; the
//! parts repeat its id.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use clew_model::TraceId;
use clew_model::trace::{ResourceRecord, ScopeRecord, SpanRecord, Trace};
use clew_model::wire::{put_varint, varint_len};

use crate::codec::{ByteReader, DECOMPRESSED_BYTES_MAX, compress, decompress, narrow, verify};
use crate::error::BlockError;

const PAGE: &str = "page";
const DIRECTORY: &str = "page directory";

/// A span on its way into a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageSpan<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) resource: u32,
    pub(crate) scope: u32,
}

/// Where a page is and what it begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageEntry {
    /// The id of its first trace.
    pub first_trace: TraceId,
    /// Its first row.
    pub first_row: u32,
    /// The ordinal of its first trace in the trace table.
    pub first_ordinal: u32,
    /// The page's bytes, counted from the beginning of the block.
    pub bytes: Range<u64>,
    raw_length: u32,
    crc32c: u32,
}

/// Collects pages.
#[derive(Debug)]
pub(crate) struct PagesWriter {
    level: i32,
    target: usize,
    raw: Vec<u8>,
    first: Option<(TraceId, u32, u32)>,
    out: Vec<u8>,
    entries: Vec<PageEntry>,
}

impl PagesWriter {
    /// `target` is how many raw bytes a page should have.
    pub(crate) fn new(level: i32, target: usize) -> PagesWriter {
        PagesWriter {
            level,
            target: target.max(1),
            raw: Vec::with_capacity(target),
            first: None,
            out: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Appends a trace whose first span is at `row`; returns its first page.
    pub(crate) fn add(
        &mut self,
        id: TraceId,
        ordinal: u32,
        row: u32,
        spans: &[PageSpan<'_>],
    ) -> Result<u32, BlockError> {
        let size: usize = 24 + spans.iter().map(span_size).sum::<usize>();
        if !self.raw.is_empty() && self.raw.len() + size > self.target {
            self.flush()?;
        }
        let page = narrow(self.entries.len());
        if size <= self.target {
            self.first.get_or_insert((id, row, ordinal));
            put_trace(&mut self.raw, id, spans);
            return Ok(page);
        }
        let mut row = row;
        let mut rest = spans;
        while !rest.is_empty() {
            let mut part_size = 0;
            let fitting = rest.iter().take_while(|span| {
                part_size += span_size(span);
                part_size <= self.target
            });
            let (part, others) = rest.split_at(fitting.count().max(1));
            self.first = Some((id, row, ordinal));
            put_trace(&mut self.raw, id, part);
            self.flush()?;
            row += narrow(part.len());
            rest = others;
        }
        Ok(page)
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        let Some((first_trace, first_row, first_ordinal)) = self.first.take() else {
            return Ok(());
        };
        if self.raw.len() > DECOMPRESSED_BYTES_MAX {
            let limit = DECOMPRESSED_BYTES_MAX as u64;
            return Err(BlockError::Limit { what: "bytes in a span", limit });
        }
        let packed = compress(&self.raw, self.level)?;
        let start = self.out.len() as u64;
        self.out.extend_from_slice(&packed);
        self.entries.push(PageEntry {
            first_trace,
            first_row,
            first_ordinal,
            bytes: start..self.out.len() as u64,
            raw_length: narrow(self.raw.len()),
            crc32c: crc32c::crc32c(&packed),
        });
        self.raw.clear();
        Ok(())
    }

    /// The pages and the raw page directory.
    pub(crate) fn finish(mut self) -> Result<(Vec<u8>, Vec<u8>), BlockError> {
        self.flush()?;
        let mut directory = Vec::new();
        put_varint(&mut directory, self.entries.len() as u64);
        let (mut row, mut ordinal) = (0, 0);
        for entry in &self.entries {
            directory.extend_from_slice(&entry.first_trace.0);
            put_varint(&mut directory, u64::from(entry.first_row - row));
            put_varint(&mut directory, u64::from(entry.first_ordinal - ordinal));
            put_varint(&mut directory, entry.bytes.end - entry.bytes.start);
            put_varint(&mut directory, u64::from(entry.raw_length));
            directory.extend_from_slice(&entry.crc32c.to_le_bytes());
            (row, ordinal) = (entry.first_row, entry.first_ordinal);
        }
        Ok((self.out, directory))
    }
}

fn span_size(span: &PageSpan<'_>) -> usize {
    span.bytes.len() + varint_len(span.bytes.len() as u64) + 3
}

fn put_trace(out: &mut Vec<u8>, id: TraceId, spans: &[PageSpan<'_>]) {
    out.extend_from_slice(&id.0);
    put_varint(out, spans.len() as u64);
    for run in spans.chunk_by(|a, b| (a.resource, a.scope) == (b.resource, b.scope)) {
        let Some(first) = run.first() else { continue };
        put_varint(out, u64::from(first.resource));
        put_varint(out, u64::from(first.scope));
        put_varint(out, run.len() as u64);
        for span in run {
            put_varint(out, span.bytes.len() as u64);
            out.extend_from_slice(span.bytes);
        }
    }
}

/// Which page holds what.
#[derive(Debug, Clone)]
pub struct PageDirectory {
    entries: Vec<PageEntry>,
}

impl PageDirectory {
    /// Reads the raw directory of pages that fill `pages` of the block.
    pub(crate) fn parse(raw: &[u8], pages: Range<u64>) -> Result<PageDirectory, BlockError> {
        let mut reader = ByteReader::new(DIRECTORY, raw);
        let count = reader.count(24)?;
        let mut entries: Vec<PageEntry> = Vec::with_capacity(count);
        let (mut at, mut row, mut ordinal) = (pages.start, 0u32, 0u32);
        for _ in 0..count {
            let first_trace = TraceId(reader.array()?);
            let too_large = reader.corrupt("a number is too large");
            row = row.checked_add(reader.varint_u32()?).ok_or(too_large)?;
            let too_large = reader.corrupt("a number is too large");
            ordinal = ordinal.checked_add(reader.varint_u32()?).ok_or(too_large)?;
            let length = reader.varint()?;
            let raw_length = reader.varint_u32()?;
            let crc32c = reader.u32()?;
            let end = at.checked_add(length).filter(|end| *end <= pages.end);
            let end = end.ok_or_else(|| reader.corrupt("a page lies outside the pages"))?;
            if entries.last().is_some_and(|last| last.first_trace > first_trace) {
                return Err(reader.corrupt("its traces are not sorted"));
            }
            entries.push(PageEntry {
                first_trace,
                first_row: row,
                first_ordinal: ordinal,
                bytes: at..end,
                raw_length,
                crc32c,
            });
            at = end;
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

/// A decoded page.
#[derive(Debug, Clone)]
pub struct Page {
    raw: Bytes,
    first_row: u32,
    traces: Vec<(TraceId, Range<u32>)>,
    spans: Vec<Slot>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    start: u32,
    end: u32,
    resource: u32,
    scope: u32,
}

impl Page {
    /// Verifies and decodes the bytes of a page.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when they are not what the directory describes.
    pub fn decode(packed: &[u8], entry: &PageEntry) -> Result<Page, BlockError> {
        verify(PAGE, packed, entry.crc32c)?;
        let raw = decompress(PAGE, packed, entry.raw_length as usize)?;
        let mut page = Page {
            raw: raw.clone(),
            first_row: entry.first_row,
            traces: Vec::new(),
            spans: Vec::new(),
        };
        let mut reader = ByteReader::new(PAGE, &raw);
        while reader.remaining() > 0 {
            page.read_trace(&mut reader)?;
        }
        Ok(page)
    }

    fn read_trace(&mut self, reader: &mut ByteReader<'_>) -> Result<(), BlockError> {
        let id = TraceId(reader.array()?);
        let mut left = reader.count(1)?;
        let first = self.next_row(reader)?;
        while left > 0 {
            let (resource, scope) = (reader.varint_u32()?, reader.varint_u32()?);
            let run = reader.count(1)?;
            if run == 0 || run > left {
                return Err(reader.corrupt("a run of spans has an impossible length"));
            }
            left -= run;
            for _ in 0..run {
                let length = reader.bytes()?.len();
                let end = self.raw.len() - reader.remaining();
                self.spans.push(Slot {
                    start: narrow(end - length),
                    end: narrow(end),
                    resource,
                    scope,
                });
            }
        }
        let end = self.next_row(reader)?;
        self.traces.push((id, first..end));
        Ok(())
    }

    fn next_row(&self, reader: &ByteReader<'_>) -> Result<u32, BlockError> {
        self.first_row
            .checked_add(narrow(self.spans.len()))
            .ok_or_else(|| reader.corrupt("it has too many rows"))
    }

    /// The traces of the page with their rows in it. A trace larger than a page goes on in the
    /// next one.
    pub fn traces(&self) -> &[(TraceId, Range<u32>)] {
        &self.traces
    }

    /// The rows of the page.
    pub fn rows(&self) -> Range<u32> {
        self.first_row..self.first_row + narrow(self.spans.len())
    }

    /// The span at a row of the page; it shares the page's memory.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when it refers to a resource or scope that is not there.
    pub fn span(&self, row: u32, records: &BlockRecords) -> Result<Option<SpanRecord>, BlockError> {
        let slot = row.checked_sub(self.first_row).and_then(|at| self.spans.get(at as usize));
        let Some(slot) = slot else { return Ok(None) };
        let missing = || BlockError::corrupt(PAGE, "a span has no resource or scope");
        Ok(Some(SpanRecord {
            resource: records.resources.get(slot.resource as usize).ok_or_else(missing)?.clone(),
            scope: records.scopes.get(slot.scope as usize).ok_or_else(missing)?.clone(),
            bytes: self.raw.slice(slot.start as usize..slot.end as usize),
        }))
    }

    /// The spans of a trace in this page, in the order of their rows; none if it is not here.
    ///
    /// # Errors
    /// As [`Page::span`].
    pub fn trace(&self, id: &TraceId, records: &BlockRecords) -> Result<Trace, BlockError> {
        let mut spans = Vec::new();
        for (_, rows) in self.traces.iter().filter(|(found, _)| found == id) {
            for row in rows.clone() {
                spans.extend(self.span(row, records)?);
            }
        }
        Ok(Trace { id: *id, spans })
    }

    /// About how many bytes of memory the page takes.
    pub fn memory_bytes(&self) -> usize {
        self.raw.len() + self.spans.len() * size_of::<Slot>() + self.traces.len() * 24
    }
}

/// The distinct resources and scopes of a block, by ordinal.
#[derive(Debug, Clone, Default)]
pub struct BlockRecords {
    /// The resources.
    pub resources: Vec<Arc<ResourceRecord>>,
    /// The instrumentation scopes.
    pub scopes: Vec<Arc<ScopeRecord>>,
}
