//! A block in the bucket as a source. Nothing is read before it is needed, and what was read and
//! verified once is shared through the cache in memory, and through the one on disk if there is one.

mod cache;
mod describe;
mod disk;
mod pages;
mod reads;
mod rows;
mod verified;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use clew_block::{
    Block, BlockError, BlockSearch, Identity, Page, RowSet, SearchSections, SectionKind,
    TraceFilter, TraceTable,
};
use clew_model::{TenantId, Trace, TraceId, UnixNanos};
use clew_node::Tasks;
use clew_proto::query::v1::FoundTrace;
use clew_storage::Bucket;
use clew_traceql::plan::{Field, Scope};
use clew_traceql::value::Static;

pub use self::cache::BlockCache;
use self::cache::{Cached, Entry, Key, Part};
pub use self::disk::{DiskCache, DiskCacheOptions};
use self::pages::{first_page_of, ordinal_in_page, pages_of, trace_in_page};
use self::reads::{Section, Via};
use crate::QueryError;
use crate::piece::Pieces;
use crate::plan::SearchPlan;
use crate::select::{exact_rows, select};
use crate::source::{Selected, Selection, SourceInfo, SourceKind, SpanSource};
use crate::tags::{TagField, long_value};

/// So many values of one field are read from the pages of a block.
const VALUES_MAX: usize = 100_000;

/// Where a tenant's block is, as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRef {
    /// The object's key.
    pub object: Arc<str>,
    /// Whose block it is.
    pub tenant: TenantId,
    /// The shard that the key names.
    pub shard: u64,
    /// The incarnation and the last log index that the key of a flushed object names.
    pub flush: Option<(u64, u64)>,
    /// Where the block begins in the object, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// How many bytes at its end are read to open it.
    pub tail_length: u32,
    /// The earliest start of its spans.
    pub min_time: UnixNanos,
    /// The latest end of its spans.
    pub max_time: UnixNanos,
    /// How many spans it holds.
    pub spans: u64,
    /// How many traces it holds spans of.
    pub traces: u64,
    /// How many of those may have spans elsewhere.
    pub splits: u64,
    /// Traces that were deleted and are still in it, ascending: nobody sees them any more.
    pub deleted: Arc<[TraceId]>,
}

impl BlockRef {
    fn identity(&self) -> Identity {
        Identity {
            tenant: self.tenant.clone(),
            shard: self.shard,
            flush: self.flush,
            spans: self.spans,
            traces: self.traces,
            split: self.splits,
            min_start: self.min_time.0,
            max_end: self.max_time.0,
        }
    }
}

/// Opens blocks: a bucket, and the cache that all its readers share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlockReader {
    bucket: Bucket,
    cache: BlockCache,
    disk: Option<DiskCache>,
    tasks: Tasks,
}

impl BlockReader {
    /// Reads blocks of `bucket` through `cache` and decodes on `tasks`.
    pub fn new(bucket: Bucket, cache: BlockCache, tasks: Tasks) -> BlockReader {
        BlockReader { bucket, cache, disk: None, tasks }
    }

    /// The same reader with a cache on disk below the one in memory.
    #[must_use]
    pub fn with_disk_cache(self, disk: Option<DiskCache>) -> BlockReader {
        BlockReader { disk, ..self }
    }

    /// The block as a source. Reads nothing yet.
    pub fn source(&self, block: BlockRef) -> BlockSource {
        let info = SourceInfo {
            name: Arc::from(format!("{}@{}", block.object, block.offset)),
            kind: SourceKind::Block,
            spans: block.spans,
            traces: block.traces,
            bytes: block.length,
            min_time: block.min_time,
            max_time: block.max_time,
        };
        BlockSource {
            reader: self.clone(),
            info,
            block,
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct BlockSource {
    reader: BlockReader,
    info: SourceInfo,
    block: BlockRef,
    reads: AtomicU64,
    read_bytes: AtomicU64,
}

impl BlockSource {
    /// Work of more than half a millisecond on bytes of this block.
    async fn compute<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R, BlockError> + Send + 'static,
    ) -> Result<R, QueryError> {
        self.reader.tasks.compute(work).await?.map_err(QueryError::block(&self.info.name))
    }

    fn key(&self, part: Part) -> Key {
        Key { object: Arc::clone(&self.block.object), offset: self.block.offset, part }
    }

    fn cached(&self, part: Part) -> Option<Cached> {
        self.reader.cache.get(&self.key(part))
    }

    fn keep(&self, part: Part, entry: Entry) {
        self.reader.cache.keep(self.key(part), entry);
    }

    /// The part from the cache, or made now; queries that want it meanwhile wait for this one.
    async fn part(
        &self,
        part: Part,
        make: impl Future<Output = Result<Entry, QueryError>> + Send,
    ) -> Result<Cached, QueryError> {
        self.reader.cache.get_or_make(self.key(part), make).await
    }

    async fn opened(&self) -> Result<Arc<Block>, QueryError> {
        let make = self.twice(|via| self.open(via));
        match Box::pin(self.part(Part::Block, make)).await? {
            Cached::Block(block) => Ok(block),
            _ => Err(self.confused()),
        }
    }

    async fn open(&self, via: Via) -> Result<Entry, QueryError> {
        let mut tail_length = u64::from(self.block.tail_length).min(self.block.length);
        loop {
            let tail = self.read(self.block.length - tail_length..self.block.length, via).await?;
            let bytes = tail.bytes.clone();
            let opened = self.compute(move || Ok(Block::open(&bytes))).await?;
            let needed = match opened {
                Err(BlockError::TailTooShort { needed }) => needed,
                opened => {
                    let block = opened.map_err(QueryError::block(&self.info.name))?;
                    let checked = self.block.identity().check(block.footer());
                    checked.map_err(QueryError::block(&self.info.name))?;
                    self.keep_on_disk([tail]);
                    let bytes = usize::try_from(tail_length).unwrap_or(usize::MAX);
                    let cached = Cached::Block(Arc::new(block));
                    return Ok(Entry { cached, bytes: bytes.saturating_mul(2) });
                }
            };
            // The catalog may know a shorter tail than the block has, but no shorter block.
            if needed <= tail_length || needed > self.block.length {
                return Err(self.corrupt("footer", "it belongs to a longer block"));
            }
            tail_length = needed;
        }
    }

    async fn traces(&self, block: &Arc<Block>) -> Result<Arc<TraceTable>, QueryError> {
        let make = self.twice(|via| self.read_traces(block, via));
        match Box::pin(self.part(Part::Traces, make)).await? {
            Cached::Traces(traces) => Ok(traces),
            _ => Err(self.confused()),
        }
    }

    async fn read_traces(&self, block: &Arc<Block>, via: Via) -> Result<Entry, QueryError> {
        let ranges = block.search_ranges().map_err(QueryError::block(&self.info.name))?;
        let section = self.read(ranges.traces, via).await?;
        let (block, bytes) = (Arc::clone(block), section.bytes.clone());
        let table = self.compute(move || block.trace_table(&bytes)).await?;
        self.keep_on_disk([section]);
        let bytes = table.memory_bytes();
        Ok(Entry { cached: Cached::Traces(Arc::new(table)), bytes })
    }

    async fn index(&self) -> Result<Arc<BlockSearch>, QueryError> {
        let block = self.opened().await?;
        let traces = self.traces(&block).await?;
        let make = self.twice(|via| self.read_index(&block, &traces, via));
        match Box::pin(self.part(Part::Search, make)).await? {
            Cached::Search(search) => Ok(search),
            _ => Err(self.confused()),
        }
    }

    async fn read_index(
        &self,
        block: &Arc<Block>,
        traces: &Arc<TraceTable>,
        via: Via,
    ) -> Result<Entry, QueryError> {
        let ranges = block.search_ranges().map_err(QueryError::block(&self.info.name))?;
        let wanted =
            [ranges.dictionary, ranges.postings, ranges.locator, ranges.numbers, ranges.columns];
        let sections = self.read_all(&wanted, via).await?;
        let Ok([dictionary, postings, locator, numbers, columns]) =
            <[Section; 5]>::try_from(sections)
        else {
            return Err(self.confused());
        };
        let bytes = index_bytes(block);
        let (block, traces) = (Arc::clone(block), Arc::clone(traces));
        let sections = SearchSections {
            // Only the table parsed before is used for the traces.
            traces: Bytes::new(),
            dictionary: dictionary.bytes.clone(),
            postings: postings.bytes.clone(),
            locator: locator.bytes.clone(),
            numbers: numbers.bytes.clone(),
            columns: columns.bytes.clone(),
        };
        let search = self.compute(move || block.search_with(traces, &sections)).await?;
        self.keep_on_disk([dictionary, postings, locator, numbers, columns]);
        let bytes = bytes.saturating_add(search.memory_bytes());
        Ok(Entry { cached: Cached::Search(Arc::new(search)), bytes })
    }

    /// The trace-id filter, if the block was opened and is still at hand.
    pub fn known_filter(&self) -> Option<Arc<TraceFilter>> {
        match self.cached(Part::Block)? {
            Cached::Block(block) => Some(Arc::clone(block.filter())),
            _ => None,
        }
    }

    fn is_deleted(&self, id: &TraceId) -> bool {
        self.block.deleted.binary_search(id).is_ok()
    }

    /// Cannot happen: parts are stored under their own names.
    fn confused(&self) -> QueryError {
        self.corrupt("cache", "it holds another part under this name")
    }

    fn corrupt(&self, section: &'static str, reason: &'static str) -> QueryError {
        QueryError::block(&self.info.name)(BlockError::Corrupt { section, reason })
    }
}

/// `rows`, or all, without those of deleted traces; nothing if that is all.
fn without_deleted(
    index: &BlockSearch,
    deleted: &[TraceId],
    rows: Option<RowSet>,
) -> Option<RowSet> {
    let traces = index.traces();
    let mut gone = RowSet::new();
    for id in deleted {
        if let Some(trace) = traces.find(id).and_then(|ordinal| traces.get(ordinal)) {
            gone.insert_range(trace.rows.clone());
        }
    }
    if gone.is_empty() {
        return rows;
    }
    let mut rows = rows.unwrap_or_else(|| RowSet::from_range(0..traces.row_count()));
    rows.subtract(&gone);
    Some(rows)
}

/// About how many bytes an opened index takes.
fn index_bytes(block: &Block) -> usize {
    let kinds = [SectionKind::Dictionary, SectionKind::Postings, SectionKind::Columns];
    let lengths = kinds.iter().filter_map(|kind| block.footer().section(*kind).ok());
    lengths.map(|section| usize::try_from(section.raw_length).unwrap_or(usize::MAX)).sum()
}

#[async_trait]
impl SpanSource for BlockSource {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    async fn select(&self, selection: &Arc<Selection>) -> Result<Selected, QueryError> {
        let (index, selection) = (self.verified_index(selection).await?, Arc::clone(selection));
        self.compute(move || select(&index, &selection)).await
    }

    async fn describe(
        &self,
        plan: &SearchPlan,
        matches: &Arc<RowSet>,
        ordinals: &[u32],
    ) -> Result<Vec<FoundTrace>, QueryError> {
        self.describe_traces(plan, matches, ordinals).await
    }

    async fn pieces(&self, plan: &SearchPlan, ids: &[TraceId]) -> Result<Pieces, QueryError> {
        self.pieces_of_traces(plan, ids).await
    }

    async fn fetch(&self, ordinals: &[u32]) -> Result<Vec<Trace>, QueryError> {
        let block = self.opened().await?;
        let first = |ordinal: &u32| Some((*ordinal, first_page_of(block.pages(), *ordinal)?));
        let firsts: Vec<(u32, usize)> = ordinals.iter().filter_map(first).collect();
        let mut pages = self.pages(&block, firsts.iter().map(|(_, page)| *page).collect()).await?;
        let id = |(ordinal, number): &(u32, usize)| {
            trace_in_page(block.pages(), *number, pages.get(number)?, *ordinal)
        };
        let ids: Vec<TraceId> = firsts.iter().filter_map(id).collect();
        let further: BTreeSet<usize> = ids
            .iter()
            .flat_map(|id| pages_of(block.pages(), id))
            .filter(|number| !pages.contains_key(number))
            .collect();
        if !further.is_empty() {
            pages.append(&mut self.pages(&block, further).await?);
        }
        self.compute(move || {
            let mut traces = Vec::with_capacity(ids.len());
            for id in ids {
                let pages = pages_of(block.pages(), &id).filter_map(|number| pages.get(&number));
                let trace = block.trace(&id, pages.map(Arc::as_ref))?;
                traces.extend(trace);
            }
            Ok(traces)
        })
        .await
    }

    async fn find(&self, ids: &[TraceId]) -> Result<Vec<Option<u32>>, QueryError> {
        let block = self.opened().await?;
        let first_page = |id: &TraceId| {
            let possible = !self.is_deleted(id) && block.filter().contains(id);
            possible.then(|| pages_of(block.pages(), id).next()).flatten()
        };
        let firsts: Vec<Option<usize>> = ids.iter().map(first_page).collect();
        let pages = self.pages(&block, firsts.iter().flatten().copied().collect()).await?;
        let ordinal = |(id, number): (&TraceId, &Option<usize>)| {
            let number = (*number)?;
            ordinal_in_page(block.pages(), number, pages.get(&number)?, id)
        };
        Ok(ids.iter().zip(&firsts).map(ordinal).collect())
    }

    async fn split_ids(&self) -> Result<Vec<TraceId>, QueryError> {
        if self.block.splits == 0 {
            return Ok(Vec::new());
        }
        let opened = self.opened().await?;
        let marked = opened.split_ids().ids().iter().copied();
        Ok(marked.filter(|id| !self.is_deleted(id)).collect())
    }

    async fn tag_names(&self, scope: Option<Scope>) -> Result<Vec<(Scope, Arc<str>)>, QueryError> {
        let index = self.index().await?;
        self.compute(move || {
            let names = index.tag_names(scope)?.into_iter();
            Ok(names.map(|name| (name.scope, name.name)).collect())
        })
        .await
    }

    async fn tag_values(
        &self,
        field: &TagField,
        within: Option<&Arc<Selection>>,
    ) -> Result<Option<Vec<Static>>, QueryError> {
        let index = self.index().await?;
        let (fields, within) = (field.fields(), within.cloned());
        let deleted = Arc::clone(&self.block.deleted);
        let found = self
            .compute(move || {
                let rows = match within {
                    None => None,
                    Some(selection) => match exact_rows(index.as_ref(), &selection)? {
                        None => return Ok(None),
                        rows => rows,
                    },
                };
                let rows = without_deleted(&index, &deleted, rows);
                let mut values = Vec::new();
                let mut long = Vec::new();
                for field in fields {
                    let end = index.tag_values(&field, rows.as_ref(), &mut |found| {
                        values.push(found.value);
                        ControlFlow::Continue(())
                    })?;
                    long.push((field, end.long_values));
                }
                Ok(Some((values, long)))
            })
            .await?;
        let Some((mut values, long)) = found else { return Ok(None) };
        for (field, rows) in long {
            self.long_values(&field, &rows, &mut values).await?;
        }
        Ok(Some(values))
    }
}

impl BlockSource {
    /// The values that the index does not hold: too long, or too rare.
    async fn long_values(
        &self,
        field: &Field,
        rows: &RowSet,
        values: &mut Vec<Static>,
    ) -> Result<(), QueryError> {
        let block = self.opened().await?;
        let mut wanted = BTreeSet::new();
        let mut next = rows.first_at_or_after(0);
        while let Some(row) = next {
            let Some(page) = block.pages().page_of_row(row) else { break };
            wanted.insert(page);
            let entry = &block.pages().entries()[page];
            next = rows.first_at_or_after(entry.first_row.saturating_add(entry.rows.max(1)));
        }
        for page in wanted {
            // An answer has room for fewer; whoever asks cuts it off there.
            if values.len() >= VALUES_MAX {
                return Ok(());
            }
            let pages = self.pages(&block, BTreeSet::from([page])).await?;
            let (block, rows, field) = (Arc::clone(&block), rows.clone(), field.clone());
            let of_pages = move || {
                let mut values = Vec::new();
                for page in pages.values() {
                    values_in_page(&block, page, &rows, &field, &mut values)?;
                }
                Ok(values)
            };
            values.append(&mut self.compute(of_pages).await?);
        }
        Ok(())
    }
}

/// The values of a field on the rows of a page, each once.
fn values_in_page(
    block: &Block,
    page: &Page,
    rows: &RowSet,
    field: &Field,
    values: &mut Vec<Static>,
) -> Result<(), BlockError> {
    if let Field::Attribute(Scope::Span, name) = field {
        let mut texts = BTreeSet::new();
        page.visit_texts(name, rows, block.records(), |text| {
            if !texts.contains(text) {
                texts.insert(Arc::<str>::from(text));
            }
        });
        values.extend(texts.into_iter().map(Static::String));
        return Ok(());
    }
    for row in rows.range(page.rows()) {
        if let Some(span) = page.span(row, block.records())? {
            // Only the span is looked at; values do not depend on the trace's id.
            let trace = Trace { id: TraceId([0; 16]), spans: vec![span] };
            long_value(&trace, field, values);
        }
    }
    Ok(())
}
