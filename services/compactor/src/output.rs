//! Puts finished blocks into objects and stores them: large ones alone, small ones of several
//! tenants together if their spans are kept equally long.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use clew_block::{TenantEntry, pack, pack_last};
use clew_catalog::{JobSpec, LogPoint, ObjectKey, ObjectMeta, TenantBlock, TenantTerms};
use clew_model::{TenantId, TraceId, UnixNanos};

use crate::merge::{Context, MadeBlock};
use crate::{CompactorError, crash_point};

/// Collects the blocks of a job.
pub(crate) struct Output<'a> {
    context: &'a Context<'a>,
    spec: &'a JobSpec,
    packs: BTreeMap<Duration, Pack>,
    /// Full, and kept until it is known whether it is the last: that one says how many there are.
    held: Option<Pack>,
    objects: Vec<ObjectMeta>,
}

#[derive(Default)]
struct Pack {
    blocks: Vec<(TenantId, Vec<u8>)>,
    ids: Vec<(TenantId, Option<(TraceId, TraceId)>)>,
    bytes: u64,
}

impl Pack {
    fn add(&mut self, tenant: &TenantId, block: MadeBlock) {
        self.bytes = self.bytes.saturating_add(block.bytes.len() as u64);
        self.ids.push((tenant.clone(), block.ids));
        self.blocks.push((tenant.clone(), block.bytes));
    }
}

impl<'a> Output<'a> {
    pub(crate) fn new(context: &'a Context<'a>, spec: &'a JobSpec) -> Output<'a> {
        Output { context, spec, packs: BTreeMap::new(), held: None, objects: Vec::new() }
    }

    /// Takes a block. A tenant's blocks that hold parts of its traces come one after the other.
    pub(crate) async fn put(
        &mut self,
        terms: &TenantTerms,
        block: MadeBlock,
    ) -> Result<(), CompactorError> {
        let config = self.context.config;
        let is_large = block.bytes.len() as u64 >= config.own_object_bytes.0;
        if is_large || block.ids.is_some() {
            let mut alone = Pack::default();
            alone.add(&terms.tenant, block);
            return self.hold(alone).await;
        }
        let pack = self.packs.entry(terms.class).or_default();
        pack.add(&terms.tenant, block);
        if pack.bytes >= config.object_bytes_max.0
            && let Some(full) = self.packs.remove(&terms.class)
        {
            return self.hold(full).await;
        }
        Ok(())
    }

    /// Stores what is left, and gives all objects.
    pub(crate) async fn finish(mut self) -> Result<Vec<ObjectMeta>, CompactorError> {
        for (_, pack) in std::mem::take(&mut self.packs) {
            self.hold(pack).await?;
        }
        if let Some(last) = self.held.take() {
            self.store(last, true).await?;
        }
        Ok(self.objects)
    }

    /// Stores what was held so far, and holds this.
    async fn hold(&mut self, pack: Pack) -> Result<(), CompactorError> {
        match self.held.replace(pack) {
            Some(earlier) => self.store(earlier, false).await,
            None => Ok(()),
        }
    }

    async fn store(&mut self, made: Pack, is_last: bool) -> Result<(), CompactorError> {
        let Pack { blocks, ids, .. } = made;
        let objects = u32::try_from(self.objects.len() + 1).unwrap_or(u32::MAX);
        let packed = async {
            let packing = move || match is_last {
                true => pack_last(blocks, objects),
                false => pack(blocks),
            };
            self.context.deps.tasks.compute(packing).await
        };
        let (bytes, entries) = self.context.throttle.paced(packed).await??;
        let random = self.context.deps.rng.next_u64();
        let key = ObjectKey::compacted(self.spec.shard, self.spec.job, random);
        let size = bytes.len() as u64;
        crash_point("compact::merged");
        self.context.bucket.put_new(&key.to_string(), Bytes::from(bytes)).await?;
        crash_point("compact::uploaded");
        let ids_of = |tenant: &TenantId| {
            ids.iter().find(|(whose, _)| whose == tenant).and_then(|(_, ids)| *ids)
        };
        let metrics = self.context.metrics;
        metrics.output_objects.inc();
        metrics.output_bytes.inc_by(size);
        self.objects.push(ObjectMeta {
            key,
            size,
            from: 0,
            through: LogPoint::default(),
            level: self.spec.level,
            // The catalog decides these.
            created_at: UnixNanos(0),
            data_at: UnixNanos(0),
            revision: 0,
            tenants: entries.into_iter().map(|entry| tenant_block(entry, &ids_of)).collect(),
        });
        Ok(())
    }
}

fn tenant_block(
    entry: TenantEntry,
    ids_of: &impl Fn(&TenantId) -> Option<(TraceId, TraceId)>,
) -> TenantBlock {
    TenantBlock {
        ids: ids_of(&entry.tenant),
        tenant: entry.tenant,
        offset: entry.offset,
        length: entry.length,
        footer_length: entry.tail_length,
        min_time: UnixNanos(entry.min_start),
        max_time: UnixNanos(entry.max_end),
        spans: entry.spans,
        traces: entry.traces,
        splits: entry.split,
    }
}
