//! What was read of blocks, kept within a bound of bytes and shared by all queries: opened blocks,
//! trace tables, indexes and decoded pages.
//!
//! Pages have a room of their own. Every search needs the indexes of its blocks, and they are large:
//! in one room, a query that decodes many pages would drive them out, and the law by which moka lets
//! entries in (TinyLFU: who comes must be wanted more often than all that has to go for it together)
//! would keep them out.

use std::collections::HashMap;
use std::sync::Arc;

use clew_block::{Block, BlockSearch, Page, TraceTable};
use futures::lock::Mutex as WaitingMutex;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::QueryError;

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

/// What became of a part that is being made; whoever holds the lock makes it.
type Made = Arc<WaitingMutex<Option<Result<Entry, QueryError>>>>;

/// The cache of a process. Cheap to clone.
#[derive(Clone)]
pub struct BlockCache {
    indexes: Cache<Key, Entry>,
    pages: Cache<Key, Entry>,
    /// What is being made now. Not moka's own way, whose waiters go by real time, which no seed repeats.
    making: Arc<Mutex<HashMap<Key, Made>>>,
}

/// One of those who want a part that is being made; the last one to go forgets it.
struct Wanting<'a> {
    cache: &'a BlockCache,
    key: &'a Key,
    made: Made,
}

impl<'a> Wanting<'a> {
    fn begin(cache: &'a BlockCache, key: &'a Key) -> Wanting<'a> {
        let made = Arc::clone(cache.making.lock().entry(key.clone()).or_default());
        Wanting { cache, key, made }
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        let mut making = self.cache.making.lock();
        let is_ours = making.get(self.key).is_some_and(|made| Arc::ptr_eq(made, &self.made));
        // Ours and the map's: nobody else can come to it but through the map.
        if is_ours && Arc::strong_count(&self.made) == 2 {
            making.remove(self.key);
        }
    }
}

impl BlockCache {
    /// A cache of at most about `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> BlockCache {
        let weigh = |_: &Key, entry: &Entry| {
            u32::try_from(entry.bytes.saturating_add(ENTRY_BYTES)).unwrap_or(u32::MAX)
        };
        let room = |bytes_max| Cache::builder().max_capacity(bytes_max).weigher(weigh).build();
        let pages = bytes_max / PAGE_SHARE;
        BlockCache { indexes: room(bytes_max - pages), pages: room(pages), making: Arc::default() }
    }

    /// About how many bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.indexes.weighted_size().saturating_add(self.pages.weighted_size())
    }

    /// The entry, if it is there.
    pub(super) fn get(&self, key: &Key) -> Option<Cached> {
        self.room(key.part).get(key).map(|entry| entry.cached)
    }

    /// Takes an entry in, if there is room for it.
    pub(super) fn keep(&self, key: Key, entry: Entry) {
        self.room(key.part).insert(key, entry);
    }

    /// The entry, or what `make` gives, which is kept. Who wants it meanwhile waits, and shares what
    /// comes of it, an error too; if the one who makes it goes away the next one does it.
    pub(super) async fn get_or_make(
        &self,
        key: Key,
        make: impl Future<Output = Result<Entry, QueryError>> + Send,
    ) -> Result<Cached, QueryError> {
        if let Some(cached) = self.get(&key) {
            return Ok(cached);
        }
        let wanting = Wanting::begin(self, &key);
        let mut made = wanting.made.lock().await;
        if let Some(result) = &*made {
            return result.clone().map(|entry| entry.cached);
        }
        let result = make.await;
        if let Ok(entry) = &result {
            self.keep(key.clone(), entry.clone());
        }
        // Who comes from now on finds it in the cache, or tries again.
        self.making.lock().remove(&key);
        made.insert(result).clone().map(|entry| entry.cached)
    }

    /// Where a part belongs.
    fn room(&self, part: Part) -> &Cache<Key, Entry> {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use clew_block::{BlockMeta, BlockOptions, BlockWriter, Heritage, Origin};
    use clew_model::TenantId;
    use futures::future::{join, pending};

    use super::*;

    fn key() -> Key {
        Key { object: "some".into(), offset: 0, part: Part::Block }
    }

    fn entry() -> Entry {
        let meta = BlockMeta {
            tenant: TenantId::parse("some").unwrap(),
            origin: Origin::default(),
            lineage: Vec::new(),
            heritage: Heritage::default(),
        };
        let writer = BlockWriter::new(&BlockOptions::default(), meta, 1).unwrap();
        let block = Block::open(&writer.finish().unwrap().into()).unwrap();
        Entry { cached: Cached::Block(Arc::new(block)), bytes: 1 }
    }

    /// Lets others run before it does its work, and counts how often that is done.
    async fn make(
        count: &AtomicUsize,
        result: Result<Entry, QueryError>,
    ) -> Result<Entry, QueryError> {
        count.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        result
    }

    #[tokio::test]
    async fn who_wants_a_part_meanwhile_shares_what_comes_of_it() {
        let error = QueryError::NotSupported { what: "tests" };
        for result in [Ok(entry()), Err(error)] {
            let (cache, count) = (BlockCache::new(1 << 20), AtomicUsize::new(0));
            let want = || cache.get_or_make(key(), make(&count, result.clone()));
            let (one, other) = join(want(), want()).await;
            assert_eq!((one.is_ok(), other.is_ok()), (result.is_ok(), result.is_ok()));
            assert_eq!(count.load(Ordering::Relaxed), 1);
            assert!(cache.making.lock().is_empty());
            // What is there is not made again; an error is not kept.
            assert_eq!(want().await.is_ok(), result.is_ok());
            assert_eq!(count.load(Ordering::Relaxed), if result.is_ok() { 1 } else { 2 });
        }
    }

    #[tokio::test]
    async fn if_the_maker_goes_away_the_next_one_makes_it() {
        let (cache, count) = (BlockCache::new(1 << 20), AtomicUsize::new(0));
        let mut gone = Box::pin(cache.get_or_make(key(), pending()));
        assert!(futures::poll!(gone.as_mut()).is_pending());
        let mut waits = Box::pin(cache.get_or_make(key(), make(&count, Ok(entry()))));
        assert!(futures::poll!(waits.as_mut()).is_pending());
        drop(gone);
        assert!(waits.await.is_ok());
        assert_eq!(count.load(Ordering::Relaxed), 1);
        let mut alone = Box::pin(cache.get_or_make(Key { offset: 1, ..key() }, pending()));
        assert!(futures::poll!(alone.as_mut()).is_pending());
        drop(alone);
        assert!(cache.making.lock().is_empty());
    }
}
