//! Reads a block: opened from its tail, then asked for what each step needs.
//!
//! The block itself fetches nothing. [`Footer::section_range`] and [`PageDirectory`] say which
//! bytes to get; methods take those bytes, verify them and answer.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use clew_model::TraceId;
use clew_model::trace::{ResourceRecord, ScopeRecord, Trace};

use crate::codec::{ByteReader, Decompressor, verify};
use crate::columns::Columns;
use crate::error::BlockError;
use crate::filter::TraceFilter;
use crate::footer::{Codec, Footer, Section, SectionKind};
use crate::index::{BlockSearch, IndexSections, SearchParts};
use crate::keys::{BlockKey, Keys};
use crate::page::{BlockRecords, Page, PageDirectory, Shapes};
use crate::records::Describe;
use crate::traces::TraceTable;

/// The ids of traces whose other spans may lie elsewhere, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitIds(Vec<TraceId>);

impl SplitIds {
    fn parse(raw: &[u8]) -> Result<SplitIds, BlockError> {
        let corrupt = |reason| BlockError::corrupt(SectionKind::SplitIds.as_str(), reason);
        let (ids, rest) = raw.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(corrupt("it ends inside an id"));
        }
        let ids: Vec<TraceId> = ids.iter().copied().map(TraceId).collect();
        if !ids.is_sorted_by(|a, b| a < b) {
            return Err(corrupt("its ids are not sorted"));
        }
        Ok(SplitIds(ids))
    }

    /// The ids, ascending.
    pub fn ids(&self) -> &[TraceId] {
        &self.0
    }

    /// Whether the trace is one of them.
    pub fn contains(&self, id: &TraceId) -> bool {
        self.0.binary_search(id).is_ok()
    }
}

/// An opened block. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Block {
    footer: Arc<Footer>,
    pages: Arc<PageDirectory>,
    records: Arc<BlockRecords>,
    filter: Arc<TraceFilter>,
    split: Arc<SplitIds>,
    keys: Arc<Keys>,
}

impl Block {
    /// Opens the block that ends with `tail`.
    ///
    /// # Errors
    /// [`BlockError::TailTooShort`] with the number of bytes needed, [`BlockError::Corrupt`], or
    /// [`BlockError::UnsupportedVersion`].
    pub fn open(tail: &Bytes) -> Result<Block, BlockError> {
        let footer = Footer::parse(tail)?;
        let length = usize::try_from(footer.block_length()).unwrap_or(usize::MAX);
        // More than the block is no harm: what is in front of it in an object.
        let tail = &tail.slice(tail.len().saturating_sub(length)..);
        if tail.len() < footer.tail_length as usize {
            return Err(BlockError::TailTooShort { needed: u64::from(footer.tail_length) });
        }
        let mut zstd = Decompressor::default();
        let mut read = |kind| -> Result<Bytes, BlockError> {
            let section = footer.section(kind)?;
            let range = range_in_tail(&footer, section, tail.len())
                .ok_or(BlockError::NotLoaded { section: kind.as_str() })?;
            unpack(kind, section, tail.slice(range), &mut zstd)
        };
        let pages = footer.section_range(SectionKind::Pages)?;
        let columns = footer.section_range(SectionKind::Columns)?;
        let directory = read(SectionKind::PageDirectory)?;
        Ok(Block {
            pages: Arc::new(PageDirectory::parse(&directory, pages, columns)?),
            records: Arc::new(BlockRecords {
                resources: read_records::<ResourceRecord>(
                    SectionKind::Resources,
                    &read(SectionKind::Resources)?,
                )?,
                scopes: read_records::<ScopeRecord>(
                    SectionKind::Scopes,
                    &read(SectionKind::Scopes)?,
                )?,
                shapes: Shapes::parse(&read(SectionKind::Shapes)?)?,
            }),
            filter: Arc::new(TraceFilter::from_bytes(&read(SectionKind::Filter)?)?),
            split: Arc::new(SplitIds::parse(&read(SectionKind::SplitIds)?)?),
            keys: Arc::new(Keys::parse(&read(SectionKind::Keys)?)?),
            footer: Arc::new(footer),
        })
    }

    /// What the block is.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Which page holds what.
    pub fn pages(&self) -> &PageDirectory {
        &self.pages
    }

    /// The distinct resources and scopes.
    pub fn records(&self) -> &Arc<BlockRecords> {
        &self.records
    }

    /// The trace-id filter.
    pub fn filter(&self) -> &Arc<TraceFilter> {
        &self.filter
    }

    /// The ids of traces whose other spans may lie elsewhere.
    pub fn split_ids(&self) -> &Arc<SplitIds> {
        &self.split
    }

    /// What each attribute costs in the index, as far as its key table tells: posting lists and
    /// columns of its own, not its share of the dictionary.
    pub fn key_costs(&self) -> Vec<KeyCost> {
        self.keys.all().iter().map(KeyCost::of).collect()
    }

    /// The byte ranges of the block that [`Block::search`] takes, in that order.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when the block lacks one of the sections.
    pub fn search_ranges(&self) -> Result<SearchSections<Range<u64>>, BlockError> {
        Ok(SearchSections {
            traces: self.footer.section_range(SectionKind::Traces)?,
            dictionary: self.footer.section_range(SectionKind::Dictionary)?,
            postings: self.footer.section_range(SectionKind::Postings)?,
            locator: self.footer.section_range(SectionKind::Locator)?,
            numbers: self.footer.section_range(SectionKind::Numbers)?,
            columns: self.footer.section_range(SectionKind::Columns)?,
        })
    }

    /// Reads the trace table from the bytes of its section.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`].
    pub fn trace_table(&self, section: &Bytes) -> Result<TraceTable, BlockError> {
        let raw = self.unpack(SectionKind::Traces, section, &mut Decompressor::default())?;
        let table = TraceTable::parse(&raw, self.footer.min_start)?;
        let counted = (table.entries().len() as u64, u64::from(table.row_count()));
        if counted != (self.footer.traces, self.footer.spans) {
            return Err(BlockError::corrupt("trace table", "it has not the traces stated"));
        }
        Ok(table)
    }

    /// Opens the index for lookups from the bytes of its sections.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`].
    pub fn search(&self, sections: &SearchSections<Bytes>) -> Result<BlockSearch, BlockError> {
        self.search_with(Arc::new(self.trace_table(&sections.traces)?), sections)
    }

    /// As [`Block::search`], with a trace table that was read before.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`].
    pub fn search_with(
        &self,
        traces: Arc<TraceTable>,
        sections: &SearchSections<Bytes>,
    ) -> Result<BlockSearch, BlockError> {
        if u64::from(traces.row_count()) != self.footer.spans {
            return Err(BlockError::corrupt("trace table", "it is another block's"));
        }
        let mut zstd = Decompressor::default();
        let mut unpack = |kind, section: &Bytes| self.unpack(kind, section, &mut zstd);
        BlockSearch::open(SearchParts {
            keys: Arc::clone(&self.keys),
            index: IndexSections {
                dictionary: unpack(SectionKind::Dictionary, &sections.dictionary)?,
                postings: unpack(SectionKind::Postings, &sections.postings)?,
                locator: unpack(SectionKind::Locator, &sections.locator)?,
                numbers: unpack(SectionKind::Numbers, &sections.numbers)?,
            },
            pages: Arc::clone(&self.pages),
            columns: Columns::parse(&sections.columns, &self.pages)?,
            traces,
            records: Arc::clone(&self.records),
        })
    }

    /// Decodes a page, by its index in the directory, from its bytes and those of its columns.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`].
    pub fn page(&self, index: usize, packed: &[u8], columns: &Bytes) -> Result<Page, BlockError> {
        let entry = self.pages.entries().get(index);
        let entry = entry.ok_or(BlockError::NotLoaded { section: "page" })?;
        Page::decode(packed, columns, entry, &self.records)
    }

    /// The spans of a trace from the pages that [`PageDirectory::pages_of`] names, in that order.
    /// `None` if the block does not have the trace.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`].
    pub fn trace<'a>(
        &self,
        id: &TraceId,
        pages: impl IntoIterator<Item = &'a Page>,
    ) -> Result<Option<Trace>, BlockError> {
        let mut trace = Trace { id: *id, spans: Vec::new() };
        for page in pages {
            trace.spans.extend(page.trace(id, &self.records)?.spans);
        }
        Ok((!trace.spans.is_empty()).then_some(trace))
    }

    fn unpack(
        &self,
        kind: SectionKind,
        bytes: &Bytes,
        zstd: &mut Decompressor,
    ) -> Result<Bytes, BlockError> {
        unpack(kind, self.footer.section(kind)?, bytes.clone(), zstd)
    }
}

/// What an attribute costs in the index of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCost {
    /// Whose attribute: `intrinsic`, `span`, `event` or `link`.
    pub scope: &'static str,
    /// Its name.
    pub name: String,
    /// Bytes of posting lists and columns of its own.
    pub bytes: u64,
    /// How many spans have it.
    pub rows: u64,
    /// How many distinct values it has; of rare ones each counts.
    pub values: u64,
}

impl KeyCost {
    fn of(key: &BlockKey) -> KeyCost {
        let rare = [&key.rare_texts, &key.rare_ints, &key.rare_floats];
        let rare = || rare.iter().filter_map(|rare| rare.as_ref());
        let bytes = key.postings.len() + rare().map(|rare| rare.place.len()).sum::<usize>();
        let values = u64::from(key.terms) + rare().map(|rare| u64::from(rare.count)).sum::<u64>();
        KeyCost {
            scope: key.scope.as_str(),
            name: key.name.to_string(),
            bytes: bytes as u64,
            rows: u64::from(key.rows),
            values,
        }
    }
}

/// The sections a search needs: their byte ranges, or their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchSections<T> {
    /// [`SectionKind::Traces`].
    pub traces: T,
    /// [`SectionKind::Dictionary`].
    pub dictionary: T,
    /// [`SectionKind::Postings`].
    pub postings: T,
    /// [`SectionKind::Locator`].
    pub locator: T,
    /// [`SectionKind::Numbers`].
    pub numbers: T,
    /// [`SectionKind::Columns`].
    pub columns: T,
}

fn range_in_tail(footer: &Footer, section: &Section, tail: usize) -> Option<Range<usize>> {
    // The footer's own length is what lies between its start and the tail's end.
    let tail_start = footer.block_length().checked_sub(tail as u64)?;
    let start = usize::try_from(section.bytes.start.checked_sub(tail_start)?).ok()?;
    let length = usize::try_from(section.bytes.end - section.bytes.start).ok()?;
    Some(start..start.checked_add(length).filter(|end| *end <= tail)?)
}

/// Verifies and decompresses a section.
fn unpack(
    kind: SectionKind,
    section: &Section,
    bytes: Bytes,
    zstd: &mut Decompressor,
) -> Result<Bytes, BlockError> {
    let name = kind.as_str();
    if bytes.len() as u64 != section.bytes.end - section.bytes.start {
        return Err(BlockError::corrupt(name, "it has another length than stated"));
    }
    verify(name, &bytes, section.crc32c)?;
    match section.codec {
        Codec::Raw if section.raw_length == bytes.len() as u64 => Ok(bytes),
        Codec::Raw => Err(BlockError::corrupt(name, "it has another length than stated")),
        Codec::Zstd => {
            let length = usize::try_from(section.raw_length).unwrap_or(usize::MAX);
            zstd.decompress(name, &bytes, length)
        }
    }
}

/// Raw form of resources or scopes: count, then per record message and schema URL, each with its
/// length in front.
fn read_records<R: Describe>(kind: SectionKind, raw: &Bytes) -> Result<Vec<Arc<R>>, BlockError> {
    let mut reader = ByteReader::new(kind.as_str(), raw);
    let count = reader.count(2)?;
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let message = reader.bytes()?;
        let end = raw.len() - reader.remaining();
        let message = raw.slice(end - message.len()..end);
        records.push(Arc::new(R::new(message, Arc::from(reader.text()?))));
    }
    reader.finish()?;
    Ok(records)
}
