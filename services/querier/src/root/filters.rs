//! Trace-id filters at hand: a look-up by id asks thousands of blocks, and nearly all of them can
//! say at once that they do not have the trace, without being opened or turned into a source.

use std::sync::Arc;

use clew_block::TraceFilter;
use clew_catalog::ObjectKey;
use clew_model::TraceId;
use moka::sync::Cache;

use super::snapshot::BlockRef;

/// About what an entry costs beside its filter.
const ENTRY_BYTES: usize = 160;

/// The filters of blocks that were opened lately, within a bound of bytes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Filters(Cache<(ObjectKey, u64), Arc<TraceFilter>>);

impl Filters {
    pub(super) fn new(bytes_max: u64) -> Filters {
        let weigh = |_: &(ObjectKey, u64), filter: &Arc<TraceFilter>| {
            u32::try_from(filter.memory_bytes().saturating_add(ENTRY_BYTES)).unwrap_or(u32::MAX)
        };
        Filters(Cache::builder().max_capacity(bytes_max).weigher(weigh).build())
    }

    /// Whether the block may have one of the traces; what is not known may.
    pub(super) fn may_hold(&self, block: &BlockRef, ids: &[TraceId]) -> bool {
        match self.0.get(&key(block)) {
            Some(filter) => ids.iter().any(|id| filter.contains(id)),
            None => true,
        }
    }

    pub(super) fn is_known(&self, block: &BlockRef) -> bool {
        self.0.contains_key(&key(block))
    }

    pub(super) fn keep(&self, block: &BlockRef, filter: Arc<TraceFilter>) {
        self.0.insert(key(block), filter);
    }
}

fn key(block: &BlockRef) -> (ObjectKey, u64) {
    (block.object, block.block.offset)
}
