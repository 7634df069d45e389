//! Blocks that this process reads, as sources of a query.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_model::{ErrorKind, TraceId};
use clew_node::{Deps, Problem, Tasks};
use clew_query::{
    BlockCache, BlockReader, DiskCache, Engine, QueryError, QueryLimits, SourceFailure, SpanSource,
};
use clew_storage::Bucket;

use super::filters::Filters;
use super::snapshot::BlockRef;
use crate::Config;

/// The blocks of the bucket, and the engine that reads them.
pub(super) struct Blocks {
    reader: BlockReader,
    cache: BlockCache,
    filters: Filters,
    engine: Engine,
    tasks: Tasks,
}

impl Blocks {
    pub(super) fn new(
        bucket: Bucket,
        disk: Option<DiskCache>,
        deps: &Deps,
        config: &Config,
    ) -> Blocks {
        let query = &config.query;
        let limits = QueryLimits {
            inspected_bytes_max: query.inspected_bytes_max.0,
            inspected_spans_max: query.inspected_spans_max,
            fetched_bytes_max: query.fetched_bytes_max.0,
            sources_at_once: config.concurrent_reads_max,
            tags_bytes_max: query.tag_values_bytes_max.0,
            ..QueryLimits::default()
        };
        let cache = BlockCache::new(config.cache_bytes.0);
        let tasks = deps.tasks.clone();
        let reader = BlockReader::new(bucket, cache.clone(), tasks.clone()).with_disk_cache(disk);
        let engine = Engine::new(tasks.clone(), limits);
        let filters = Filters::new(config.filter_cache_bytes.0);
        Blocks { reader, cache, filters, engine, tasks }
    }

    /// Runs leaves.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Heavy work off the async threads.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        self.tasks.compute(work).await.map_err(|error| problem_of(QueryError::from(error)))
    }

    /// The blocks as sources; nothing is read yet.
    pub(super) fn sources(&self, blocks: &[BlockRef]) -> Vec<Arc<dyn SpanSource>> {
        let source =
            |block: &BlockRef| Arc::new(self.reader.source(place_of(block))) as Arc<dyn SpanSource>;
        blocks.iter().map(source).collect()
    }

    /// Those of `blocks` that may have one of the traces, as far as is known without reading.
    pub(super) fn possible(&self, blocks: &[BlockRef], ids: &[TraceId]) -> Vec<BlockRef> {
        let may_hold = |block: &&BlockRef| {
            ids.iter().any(|id| block.block.may_hold(id)) && self.filters.may_hold(block, ids)
        };
        blocks.iter().filter(may_hold).cloned().collect()
    }

    /// Remembers the filters of blocks that were opened just now.
    pub(super) fn remember(&self, blocks: &[BlockRef]) {
        for block in blocks.iter().filter(|block| !self.filters.is_known(block)) {
            if let Some(filter) = self.reader.source(place_of(block)).known_filter() {
                self.filters.keep(block, filter);
            }
        }
    }

    /// Blocks that are read at the same time.
    pub(super) fn reads_at_once(&self) -> usize {
        self.engine.limits().sources_at_once.max(1)
    }

    /// Bytes of block sections in memory.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cache.bytes()
    }
}

/// What came of work on blocks.
#[derive(Debug)]
pub(super) struct BlockAnswer<T> {
    pub(super) value: T,
    /// The blocks that could not be read.
    pub(super) failed: Vec<Failure>,
}

/// A block that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Its place among those asked.
    pub(super) block: usize,
    pub(super) kind: ErrorKind,
    pub(super) why: String,
}

/// Which of the blocks failed, and why.
pub(super) fn failures_of(failed: Vec<SourceFailure>, blocks: &[BlockRef]) -> Vec<Failure> {
    if failed.is_empty() {
        return Vec::new();
    }
    let names = blocks.iter().enumerate().map(|(at, block)| (name_of(block), at));
    let by_name: BTreeMap<String, usize> = names.collect();
    let failure = |SourceFailure { source, error }| {
        let block = by_name.get(source.as_ref()).copied().unwrap_or(usize::MAX);
        Failure { block, kind: error.kind(), why: error.to_string() }
    };
    failed.into_iter().map(failure).collect()
}

/// How the engine calls a block.
fn name_of(block: &BlockRef) -> String {
    format!("{}@{}", block.object, block.block.offset)
}

fn place_of(block: &BlockRef) -> clew_query::BlockRef {
    let known = &block.block;
    clew_query::BlockRef {
        object: Arc::from(block.object.to_string()),
        tenant: known.tenant.clone(),
        shard: u64::from(block.object.shard().0),
        flush: block.object.flushed().map(|(incarnation, through)| (incarnation.0, through)),
        offset: known.offset,
        length: known.length,
        tail_length: known.footer_length,
        min_time: known.min_time,
        max_time: known.max_time,
        spans: known.spans,
        traces: known.traces,
        splits: known.splits,
        deleted: Arc::clone(&block.deleted),
    }
}

/// An engine's error as it leaves this process.
pub(super) fn problem_of(error: QueryError) -> Problem {
    Problem::new(error.kind(), "query", error.to_string())
}
