//! What was read of blocks, kept within a bound of bytes and shared by all queries: opened blocks,
//! trace tables, indexes and decoded pages.
//!
//! Pages have a room of their own. Every search needs the indexes of its blocks, and they are large:
//! in one room, a query that decodes many pages would drive them out, and the law by which moka lets
//! entries in (TinyLFU: who comes must be wanted more often than all that has to go for it together)
//! would keep them out.

use std::sync::Arc;

use clew_block::{Block, BlockSearch, Page, TraceTable};
use moka::future::Cache;

/// About what an entry costs beside its contents.
const ENTRY_BYTES: usize = 128;

/// What of a block an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// The block, opened.
    Block,
    /// Its trace table.
    Traces,
    /// Its index.
    Search,
    /// A page by its number.
    Page(u32),
}

/// Names an entry: an object never changes, so a part of it never does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) object: Arc<str>,
    pub(super) offset: u64,
    pub(super) part: Part,
}

/// A part of a block, decoded.
#[derive(Debug, Clone)]
pub(super) enum Cached {
    Block(Arc<Block>),
    Traces(Arc<TraceTable>),
    Search(Arc<BlockSearch>),
    Page(Arc<Page>),
}

/// An entry with its size, which is fixed when it is made.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) cached: Cached,
    pub(super) bytes: usize,
}

/// Pages may take one part in so many of the cache.
const PAGE_SHARE: u64 = 4;

/// The cache of a process. Cheap to clone.
#[derive(Clone)]
pub struct BlockCache {
    indexes: Cache<Key, Entry>,
    pages: Cache<Key, Entry>,
}

impl BlockCache {
    /// A cache of at most about `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> BlockCache {
        let weigh = |_: &Key, entry: &Entry| {
            u32::try_from(entry.bytes.saturating_add(ENTRY_BYTES)).unwrap_or(u32::MAX)
        };
        let room = |bytes_max| Cache::builder().max_capacity(bytes_max).weigher(weigh).build();
        let pages = bytes_max / PAGE_SHARE;
        BlockCache { indexes: room(bytes_max - pages), pages: room(pages) }
    }

    /// About how many bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.indexes.weighted_size().saturating_add(self.pages.weighted_size())
    }

    /// Where a part belongs.
    pub(super) fn room(&self, part: Part) -> &Cache<Key, Entry> {
        match part {
            Part::Page(_) => &self.pages,
            Part::Block | Part::Traces | Part::Search => &self.indexes,
        }
    }
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockCache").field("bytes", &self.bytes()).finish()
    }
}
