//! What one query reads: the blocks of a catalog view, and a cut through every shard's log.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_catalog::{
    DeletionId, Gap, ObjectKey, ObjectMeta, Quarantine, ShardId, TenantBlock, View,
};
use clew_model::{TenantId, TraceId};
use clew_node::Problem;
use clew_proto::query::v1::Cut;
use futures::future::join_all;

use super::Root;
use super::cut::CutError;
use super::missing::Missing;
use super::run::place;
use crate::ask::TimeRange;

/// How many views one query takes when shards call the first too old.
const VIEWS_MAX: usize = 3;

/// A block to read.
#[derive(Debug, Clone)]
pub(super) struct BlockRef {
    /// The object that holds it.
    pub(super) object: ObjectKey,
    /// Where it lies there, and what the catalog knows of it.
    pub(super) block: TenantBlock,
    /// Traces that were deleted after it was written, ascending.
    pub(super) deleted: Arc<[TraceId]>,
}

/// One query's cut through one tenant's data.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) tenant: TenantId,
    /// The tenant's readable blocks, latest end first.
    pub(super) blocks: Vec<BlockRef>,
    /// What the heads are asked for.
    pub(super) cuts: Vec<Cut>,
    /// Split traces in the heads.
    pub(super) head_split_ids: Vec<TraceId>,
    /// The tenant's damaged blocks: nothing reads them.
    quarantined: Vec<Quarantine>,
    /// What a restored catalog knows to be gone, of whichever tenant.
    gaps: Vec<Gap>,
    /// What cannot be read of either.
    pub(super) missing: Missing,
}

impl Root {
    /// Takes a cut through everything `tenant` has now, or, if only one trace is read, through the
    /// shards that may hold it.
    pub(super) async fn snapshot(
        &self,
        tenant: &TenantId,
        trace: Option<TraceId>,
    ) -> Result<Snapshot, Problem> {
        let mut taken = 0;
        loop {
            let mut missing = Missing::default();
            let view = self.views.take(tenant, &mut missing).await?;
            // A restored catalog may not know where traces went before.
            let trace = trace.filter(|_| !view.map_guessed);
            let homes = trace.and_then(|trace| self.homes.of(&view.generations, tenant, trace));
            let is_asked = |shard: ShardId| homes.as_ref().is_none_or(|h| h.contains(&shard));
            let shards: Vec<_> = view.shards.values().filter(|s| is_asked(s.shard)).collect();
            let cuts = join_all(shards.iter().map(|shard| self.shards.cut(tenant, shard))).await;
            taken += 1;
            if taken < VIEWS_MAX && cuts.iter().any(|cut| matches!(cut, Err(CutError::TooOld))) {
                continue;
            }
            let mut snapshot = Snapshot {
                tenant: tenant.clone(),
                blocks: Vec::new(),
                cuts: Vec::new(),
                head_split_ids: Vec::new(),
                quarantined: view
                    .quarantined(tenant)
                    .filter(|damaged| is_asked(damaged.object.shard()))
                    .cloned()
                    .collect(),
                gaps: view.gaps.iter().filter(|gap| is_asked(gap.shard)).cloned().collect(),
                missing,
            };
            let mut newer = Vec::new();
            for (shard, cut) in shards.iter().zip(cuts) {
                match cut {
                    Ok(cut) => {
                        snapshot.cuts.push(cut.cut);
                        snapshot.head_split_ids.extend(cut.split_ids);
                        newer.extend(cut.objects);
                    }
                    Err(error) => snapshot.miss_shard(shard.shard.0, error),
                }
            }
            snapshot.take_blocks(&view, newer, is_asked);
            return Ok(snapshot);
        }
    }
}

impl Snapshot {
    fn miss_shard(&mut self, shard: u32, error: CutError) {
        let why = match error {
            CutError::TooOld => "it has flushed past every view of the catalog".to_owned(),
            CutError::Away(problem) => problem.message,
        };
        self.missing.add("shard", place(shard), why);
    }

    fn take_blocks(
        &mut self,
        view: &View,
        newer: Vec<Arc<ObjectMeta>>,
        is_asked: impl Fn(ShardId) -> bool,
    ) {
        // A map by key: a view that was taken while a shard flushed may know its objects already.
        let mut blocks: BTreeMap<ObjectKey, (TenantBlock, Arc<[TraceId]>)> = BTreeMap::new();
        // Of many blocks few lists are needed: each deletion concerns all that are older than it.
        let mut deleted: BTreeMap<Option<DeletionId>, Arc<[TraceId]>> = BTreeMap::new();
        let known = view.blocks(&self.tenant).filter(|(object, _)| is_asked(object.shard()));
        for (object, block) in known {
            let first = view.first_deletion(&self.tenant, object.revision);
            let list = deleted
                .entry(first)
                .or_insert_with(|| view.deleted(&self.tenant, object.revision).into());
            blocks.insert(object.key, (block.clone(), Arc::clone(list)));
        }
        for object in newer {
            if let Some(block) = object.block(&self.tenant)
                && !blocks.contains_key(&object.key)
                && self.quarantined.iter().all(|damaged| damaged.object != object.key)
            {
                // What was flushed after the view was taken, no deletion in the view concerns.
                blocks.insert(object.key, (block.clone(), Arc::from([])));
            }
        }
        let block_of = |(object, (block, deleted))| BlockRef { object, block, deleted };
        self.blocks = blocks.into_iter().map(block_of).collect();
        let newest = |block: &BlockRef| (std::cmp::Reverse(block.block.max_time), block.object);
        self.blocks.sort_by_key(newest);
    }

    /// Names what is damaged or gone and may lie in `range`.
    pub(super) fn miss_known(&self, range: TimeRange, missing: &mut Missing) {
        for damaged in &self.quarantined {
            if range.overlaps(damaged.min_time, damaged.max_time) {
                let why = format!("quarantined: {}", damaged.reason);
                missing.add("quarantined", format!("block {}", damaged.object), why);
            }
        }
        for gap in &self.gaps {
            if range.overlaps(gap.min_time, gap.max_time) {
                let why = "it is gone, known since the catalog was restored".to_owned();
                missing.add("gap", gap.to_string(), why);
            }
        }
    }

    /// Whether nothing at all could be read: no head, and every block there is is missing.
    pub(super) fn is_blind(&self, missing: &Missing) -> bool {
        let heads = self.cuts.iter().filter(|cut| !missing.has(&place(cut.shard))).count();
        let named = |block: &&BlockRef| !missing.has(&block.place());
        heads == 0 && !missing.is_empty() && !self.blocks.iter().any(|block| named(&block))
    }

    /// The blocks that overlap `range`; with `wide` also those within `horizon` nanoseconds of it,
    /// since fragments of a trace in range may lie there.
    pub(super) fn blocks_in(&self, range: TimeRange, horizon: u64, wide: bool) -> Vec<BlockRef> {
        let range = if wide { range.widened(horizon) } else { range };
        let wanted = |block: &&BlockRef| range.overlaps(block.block.min_time, block.block.max_time);
        self.blocks.iter().filter(wanted).cloned().collect()
    }
}

impl BlockRef {
    /// How people call it.
    pub(super) fn place(&self) -> String {
        format!("block {}", self.object)
    }
}
