//! Merges the blocks of one tenant: pages in, finished blocks out.
//!
//! The heavy part runs in short pieces off the async threads, each over the pages at hand, so that a
//! job can be paced and stopped in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_block::{
    BlockError, BlockMeta, BlockOptions, BlockWriter, Heritage, Merge, MergeStep, Merged, Origin,
    PageWanted, TraceMarks,
};
use clew_catalog::{DeletionId, JobSpec, ObjectKey, Removed, TenantTerms};
use clew_model::{ErrorKind, TenantId, TraceId};
use clew_node::Deps;
use clew_storage::Bucket;
use futures::future::try_join_all;

use crate::marks::{Elsewhere, LastRing};
use crate::metrics::CompactorMetrics;
use crate::pages::{InputBlock, StoredPage, damaged};
use crate::throttle::Throttle;
use crate::{CompactorError, Config};

/// The world that a merge works in.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) deps: &'a Deps,
    pub(crate) bucket: &'a Bucket,
    pub(crate) throttle: &'a Throttle,
    pub(crate) metrics: &'a CompactorMetrics,
    pub(crate) rings: &'a LastRing,
    /// What the blocks of the job say about where they come from.
    pub(crate) heritage: &'a Heritage,
}

/// A block that came out.
pub(crate) struct MadeBlock {
    pub(crate) bytes: Vec<u8>,
    /// The lowest and the highest trace id, if the tenant's traces lie in several blocks.
    pub(crate) ids: Option<(TraceId, TraceId)>,
}

/// Traces that one input must not give away, ascending, each with the deletion that says so.
pub(crate) type Excluded = Vec<(TraceId, DeletionId)>;

/// The traces of `tenant` that are deleted in an object of that revision.
pub(crate) fn excluded(spec: &JobSpec, tenant: &TenantId, revision: u64) -> Excluded {
    let concerning = spec.deletions.iter().filter(|d| d.tenant == *tenant && d.concerns(revision));
    let mut excluded: Excluded = concerning
        .flat_map(|deletion| deletion.ids().iter().map(|id| (*id, deletion.id)))
        .collect();
    excluded.sort_unstable();
    excluded.dedup_by_key(|(id, _)| *id);
    excluded
}

/// A merge between two pieces of work.
pub(crate) struct TenantMerge {
    inputs: Vec<InputBlock>,
    work: Option<Box<Work>>,
    lineage: Vec<String>,
    tenant: TenantId,
    /// Whether a block came out before.
    parts: usize,
}

/// What goes to and fro between async and blocking threads.
struct Work {
    merge: Merge,
    objects: Vec<ObjectKey>,
    excluded: Vec<Excluded>,
    elsewhere: Elsewhere,
    limits: (u32, u64),
    writer: BlockWriter,
    ids: Option<(TraceId, TraceId)>,
    counts: Counts,
}

/// What a merge counted.
#[derive(Debug, Default)]
struct Counts {
    spans: u64,
    duplicates: u64,
    joined: u64,
    cleared: u64,
    removed: BTreeMap<DeletionId, (u64, u64)>,
}

/// Why a piece of work ended.
enum Pause {
    Pages(Vec<PageWanted>),
    Full,
    End,
}

impl TenantMerge {
    pub(crate) fn new(
        context: &Context<'_>,
        spec: &JobSpec,
        terms: &TenantTerms,
        inputs: Vec<InputBlock>,
        elsewhere: Elsewhere,
    ) -> Result<TenantMerge, CompactorError> {
        let tenant = terms.tenant.clone();
        let revision = |key: &ObjectKey| {
            spec.inputs.iter().find(|input| input.key == *key).map_or(0, |input| input.revision)
        };
        let lineage: Vec<String> = inputs.iter().map(|input| input.object.to_string()).collect();
        let config = context.config;
        let work = Work {
            merge: Merge::new(inputs.iter().map(|input| input.block.clone()).collect()),
            objects: inputs.iter().map(|input| input.object).collect(),
            excluded: inputs
                .iter()
                .map(|input| excluded(spec, &tenant, revision(&input.object)))
                .collect(),
            elsewhere,
            limits: (config.block_spans_max, config.block_bytes_max.0),
            writer: writer(context, &tenant, spec, &lineage)?,
            ids: None,
            counts: Counts::default(),
        };
        Ok(TenantMerge { inputs, work: Some(Box::new(work)), lineage, tenant, parts: 0 })
    }

    /// The next finished block; nothing at the end.
    pub(crate) async fn next(
        &mut self,
        context: &Context<'_>,
        spec: &JobSpec,
        removed: &mut BTreeMap<DeletionId, Removed>,
    ) -> Result<Option<MadeBlock>, CompactorError> {
        let mut pages: Vec<(PageWanted, StoredPage)> = Vec::new();
        while let Some(work) = self.work.take() {
            let piece = async { context.deps.tasks.compute(move || advance(work, pages)).await };
            let (mut work, pause) = context.throttle.paced(piece).await??;
            match pause {
                Pause::Pages(wanted) => {
                    pages = self.read(context.bucket, &wanted).await?;
                    self.work = Some(work);
                }
                Pause::Full => {
                    let fresh = writer(context, &self.tenant, spec, &self.lineage)?;
                    let full = std::mem::replace(&mut work.writer, fresh);
                    let ids = work.ids.take();
                    self.work = Some(work);
                    self.parts += 1;
                    return Ok(Some(finish(context, full, ids).await?));
                }
                Pause::End => {
                    let Work { writer, ids, counts, .. } = *work;
                    note(context.metrics, counts, removed);
                    if writer.spans() == 0 {
                        return Ok(None);
                    }
                    let ids = ids.filter(|_| self.parts > 0);
                    return Ok(Some(finish(context, writer, ids).await?));
                }
            }
        }
        Ok(None)
    }

    async fn read(
        &mut self,
        bucket: &Bucket,
        wanted: &[PageWanted],
    ) -> Result<Vec<(PageWanted, StoredPage)>, CompactorError> {
        let reads = self.inputs.iter_mut().enumerate().filter_map(|(at, input)| {
            let place = *wanted.iter().find(|place| place.input == at)?;
            Some(async move { Ok((place, input.page(bucket, place.page).await?)) })
        });
        try_join_all(reads.collect::<Vec<_>>()).await
    }
}

fn writer(
    context: &Context<'_>,
    tenant: &TenantId,
    spec: &JobSpec,
    lineage: &[String],
) -> Result<BlockWriter, CompactorError> {
    let options = BlockOptions { page_level: context.config.zstd_level, ..BlockOptions::default() };
    let origin = Origin { shard: u64::from(spec.shard.0), ..Origin::default() };
    let heritage = context.heritage.clone();
    let meta = BlockMeta { tenant: tenant.clone(), origin, lineage: lineage.to_vec(), heritage };
    Ok(BlockWriter::new(&options, meta, context.deps.rng.next_u64())?)
}

async fn finish(
    context: &Context<'_>,
    writer: BlockWriter,
    ids: Option<(TraceId, TraceId)>,
) -> Result<MadeBlock, CompactorError> {
    let piece = async { context.deps.tasks.compute(move || writer.finish()).await };
    let bytes = context.throttle.paced(piece).await??;
    Ok(MadeBlock { bytes, ids })
}

/// Takes the pages in and goes on until more are needed or the block is full.
fn advance(
    mut work: Box<Work>,
    pages: Vec<(PageWanted, StoredPage)>,
) -> Result<(Box<Work>, Pause), CompactorError> {
    for (place, stored) in pages {
        work.take_page(place, &stored)?;
    }
    loop {
        let step = work.merge.step();
        match step.map_err(|of| work.damaged(of.input, of.error))? {
            MergeStep::Pages(wanted) => return Ok((work, Pause::Pages(wanted))),
            MergeStep::End => return Ok((work, Pause::End)),
            MergeStep::Trace(merged) => {
                work.write(&merged)?;
                let (spans_max, bytes_max) = work.limits;
                if work.writer.spans() >= spans_max || work.writer.span_bytes() >= bytes_max {
                    return Ok((work, Pause::Full));
                }
            }
        }
    }
}

impl Work {
    fn take_page(&mut self, place: PageWanted, stored: &StoredPage) -> Result<(), CompactorError> {
        let Some(block) = self.merge.block(place.input) else { return Ok(()) };
        let page = block.page(place.page, &stored.packed, &stored.columns);
        let page = page.map_err(|error| self.damaged(place.input, error))?;
        let excluded = self.excluded.get(place.input).map(Vec::as_slice).unwrap_or_default();
        let removed = &mut self.counts.removed;
        let supplied = self.merge.supply(place.input, page, |trace, spans| {
            let found = excluded.binary_search_by(|(id, _)| id.cmp(trace));
            let Some((_, deletion)) = found.ok().and_then(|at| excluded.get(at)) else {
                return true;
            };
            let sums = removed.entry(*deletion).or_default();
            sums.0 += 1;
            sums.1 += spans as u64;
            false
        });
        supplied.map_err(|error| self.damaged(place.input, error))
    }

    fn write(&mut self, merged: &Merged) -> Result<(), CompactorError> {
        let counts = &mut self.counts;
        counts.duplicates += merged.duplicates;
        counts.joined += u64::from(merged.fragments > 1);
        let split = merged.split && self.elsewhere.may_hold(&merged.id);
        counts.cleared += u64::from(merged.split && !split);
        counts.spans += merged.spans as u64;
        let marks = TraceMarks { split, ..TraceMarks::default() };
        self.writer.push_merged(merged, marks).map_err(|error| match merged.only_input() {
            Some(input) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => {
                self.damaged(input, error)
            }
            _ => error.into(),
        })?;
        let first = self.ids.map_or(merged.id, |(first, _)| first);
        self.ids = Some((first, merged.id));
        Ok(())
    }

    /// What is wrong with an input.
    fn damaged(&self, input: usize, error: BlockError) -> CompactorError {
        match self.objects.get(input) {
            Some(object) => damaged(*object, &error.to_string()),
            None => error.into(),
        }
    }
}

fn note(metrics: &CompactorMetrics, counts: Counts, removed: &mut BTreeMap<DeletionId, Removed>) {
    metrics.spans.inc_by(counts.spans);
    metrics.duplicate_spans.inc_by(counts.duplicates);
    metrics.joined_traces.inc_by(counts.joined);
    metrics.cleared_marks.inc_by(counts.cleared);
    for (deletion, (traces, spans)) in counts.removed {
        metrics.dropped_traces.with_label_values(&["deletion"]).inc_by(traces);
        let sum = removed.entry(deletion).or_insert(Removed { deletion, traces: 0, spans: 0 });
        sum.traces += traces;
        sum.spans += spans;
    }
}

/// Whether an input has to be written anew at all: one of its blocks holds a deleted trace, or it
/// has bytes that belong to nobody.
pub(crate) async fn is_affected(
    bucket: &Bucket,
    spec: &JobSpec,
    input: &Arc<clew_catalog::ObjectMeta>,
) -> Result<bool, CompactorError> {
    if input.dead_bytes() > 0 {
        return Ok(true);
    }
    for place in &input.tenants {
        let excluded = excluded(spec, &place.tenant, input.revision);
        if excluded.is_empty() {
            continue;
        }
        let opened = InputBlock::open(bucket, input.key, place.clone()).await?;
        if excluded.iter().any(|(id, _)| opened.block.filter().contains(id)) {
            return Ok(true);
        }
    }
    Ok(false)
}
