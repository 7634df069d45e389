//! The pages of a block: read in runs, decoded off the async threads, kept in the cache; on disk each
//! for itself, because every query makes other runs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use clew_block::{Block, Page, PageDirectory};
use clew_model::TraceId;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::cache::{Cached, Entry, Part};
use super::{BlockSource, Section, Via};
use crate::QueryError;

/// Pages this close together are read at once, in bytes.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// The most bytes read at once, unless one page is larger.
const RUN_BYTES_MAX: u64 = 2 << 20;

/// Reads of one source at the same time.
const READS_AT_ONCE: usize = 8;

/// Decoded pages by number.
pub(super) type Pages = BTreeMap<usize, Arc<Page>>;

impl BlockSource {
    /// The pages with these numbers, decoded.
    pub(super) async fn pages(
        &self,
        block: &Arc<Block>,
        wanted: BTreeSet<usize>,
    ) -> Result<Pages, QueryError> {
        self.twice(|via| self.read_pages(block, &wanted, via)).await
    }

    async fn read_pages(
        &self,
        block: &Arc<Block>,
        wanted: &BTreeSet<usize>,
        via: Via,
    ) -> Result<Pages, QueryError> {
        let mut pages = Pages::new();
        let mut missing = Vec::new();
        for number in wanted.iter().copied() {
            match self.cached(page_part(number)) {
                Some(Cached::Page(page)) => {
                    pages.insert(number, page);
                }
                _ => missing.push(number),
            }
        }
        if via == Via::Disk && self.reader.disk.is_some() && !missing.is_empty() {
            missing = self.pages_on_disk(block, missing, &mut pages).await?;
        }
        let runs = runs(block.pages(), &missing);
        let read = stream::iter(runs)
            .map(|run| self.read_run(Arc::clone(block), run))
            .buffer_unordered(READS_AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        pages.extend(read.into_iter().flatten());
        Ok(pages)
    }

    async fn read_run(
        &self,
        block: Arc<Block>,
        run: Run,
    ) -> Result<Vec<(usize, Arc<Page>)>, QueryError> {
        let (bytes, columns) = self.fetch_pair(&run.bytes, &run.columns).await?;
        let sections = self.sections_of(&block, &run, &bytes, &columns)?;
        let decoded = self
            .compute(move || {
                let decode = |number: &usize| {
                    let entry = block.pages().entries().get(*number);
                    let packed = entry.and_then(|entry| part_of(&bytes, &run.bytes, &entry.bytes));
                    let of_page =
                        entry.and_then(|entry| part_of(&columns, &run.columns, &entry.columns));
                    let (packed, of_page) =
                        (packed.unwrap_or_default(), of_page.unwrap_or_default());
                    let page = block.page(*number, &packed, &of_page)?;
                    Ok((*number, Arc::new(page)))
                };
                run.pages.iter().map(decode).collect::<Result<Vec<_>, _>>()
            })
            .await?;
        self.keep_on_disk(sections);
        self.keep_pages(&decoded);
        Ok(decoded)
    }

    fn keep_pages(&self, decoded: &[(usize, Arc<Page>)]) {
        for (number, page) in decoded {
            let entry =
                Entry { cached: Cached::Page(Arc::clone(page)), bytes: page.memory_bytes() };
            self.keep(page_part(*number), entry);
        }
    }

    /// What a run has of each of its pages, if that is to be kept on disk.
    fn sections_of(
        &self,
        block: &Block,
        run: &Run,
        bytes: &Bytes,
        columns: &Bytes,
    ) -> Result<Vec<Section>, QueryError> {
        let mut sections = Vec::new();
        if self.reader.disk.is_none() {
            return Ok(sections);
        }
        for entry in run.pages.iter().filter_map(|number| block.pages().entries().get(*number)) {
            let parts =
                [(bytes, &run.bytes, &entry.bytes), (columns, &run.columns, &entry.columns)];
            for (bytes, whole, part) in parts {
                let fetched = Some(self.place(part)?);
                let bytes = part_of(bytes, whole, part);
                sections.extend(bytes.map(|bytes| Section { bytes, fetched }));
            }
        }
        Ok(sections)
    }

    /// Adds to `pages` those of `numbers` that are on disk; gives the others.
    async fn pages_on_disk(
        &self,
        block: &Arc<Block>,
        numbers: Vec<usize>,
        pages: &mut Pages,
    ) -> Result<Vec<usize>, QueryError> {
        let looked_for = stream::iter(numbers)
            .map(|number| self.page_on_disk(Arc::clone(block), number))
            .buffered(READS_AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        let (mut missing, mut found) = (Vec::new(), Vec::new());
        for (number, parts) in looked_for {
            match parts {
                Some((packed, columns)) => found.push((number, packed, columns)),
                None => missing.push(number),
            }
        }
        if !found.is_empty() {
            let block = Arc::clone(block);
            let decode = move || {
                let decode = |(number, packed, columns): (usize, Bytes, Bytes)| {
                    Ok((number, Arc::new(block.page(number, &packed, &columns)?)))
                };
                found.into_iter().map(decode).collect::<Result<Vec<_>, _>>()
            };
            let decoded = self.compute(decode).await?;
            self.keep_pages(&decoded);
            pages.extend(decoded);
        }
        Ok(missing)
    }

    async fn page_on_disk(
        &self,
        block: Arc<Block>,
        number: usize,
    ) -> Result<(usize, Option<(Bytes, Bytes)>), QueryError> {
        let Some(entry) = block.pages().entries().get(number) else { return Ok((number, None)) };
        let Some(packed) = self.on_disk(&entry.bytes).await? else { return Ok((number, None)) };
        let columns = self.on_disk(&entry.columns).await?;
        Ok((number, columns.map(|columns| (packed, columns))))
    }
}

fn page_part(number: usize) -> Part {
    // A block has far fewer pages than this, as each has a span and rows are 32-bit numbers.
    Part::Page(u32::try_from(number).unwrap_or(u32::MAX))
}

/// The pages of one trace.
pub(super) fn pages_of(directory: &PageDirectory, id: &TraceId) -> Range<usize> {
    directory.pages_of(id)
}

/// The first page of the trace with an ordinal.
pub(super) fn first_page_of(directory: &PageDirectory, ordinal: u32) -> Option<usize> {
    let entries = directory.entries();
    let from = entries.partition_point(|entry| entry.first_ordinal < ordinal);
    // A page that begins with the trace, else the last one that begins with an earlier trace.
    match entries.get(from) {
        Some(entry) if entry.first_ordinal == ordinal => Some(from),
        _ => from.checked_sub(1),
    }
}

/// The id of the trace with an ordinal, from its first page.
pub(super) fn trace_in_page(
    directory: &PageDirectory,
    number: usize,
    page: &Page,
    ordinal: u32,
) -> Option<TraceId> {
    let at = ordinal.checked_sub(directory.entries().get(number)?.first_ordinal)?;
    page.traces().nth(usize::try_from(at).ok()?).map(|(id, _)| id)
}

/// The ordinal of a trace, from its first page; `None` if it is not there.
pub(super) fn ordinal_in_page(
    directory: &PageDirectory,
    number: usize,
    page: &Page,
    id: &TraceId,
) -> Option<u32> {
    let first = directory.entries().get(number)?.first_ordinal;
    let at = page.traces().position(|(found, _)| found == *id)?;
    first.checked_add(u32::try_from(at).ok()?)
}

/// Pages that are read at once.
struct Run {
    bytes: Range<u64>,
    columns: Range<u64>,
    pages: Vec<usize>,
}

fn runs(directory: &PageDirectory, numbers: &[usize]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for number in numbers {
        let Some(entry) = directory.entries().get(*number) else { continue };
        match runs.last_mut() {
            Some(run)
                if entry.bytes.start.saturating_sub(run.bytes.end) <= GAP_BYTES_MAX
                    && entry.bytes.end.saturating_sub(run.bytes.start) <= RUN_BYTES_MAX =>
            {
                run.bytes.end = entry.bytes.end;
                run.columns.end = entry.columns.end;
                run.pages.push(*number);
            }
            _ => runs.push(Run {
                bytes: entry.bytes.clone(),
                columns: entry.columns.clone(),
                pages: vec![*number],
            }),
        }
    }
    runs
}

/// The bytes of `part`, which lies in `whole`, from the bytes of `whole`.
fn part_of(bytes: &Bytes, whole: &Range<u64>, part: &Range<u64>) -> Option<Bytes> {
    let start = usize::try_from(part.start.checked_sub(whole.start)?).ok()?;
    let end = usize::try_from(part.end.checked_sub(whole.start)?).ok()?;
    (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
}
