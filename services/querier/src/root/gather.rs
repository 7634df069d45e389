//! Fragments of traces from every place that may hold one.

use std::collections::BTreeSet;

use clew_catalog::ObjectKey;
use clew_model::{ErrorKind, Trace, TraceId};
use clew_node::Problem;
use clew_proto::query::v1::{FetchRequest, Inspected};
use clew_query::{QueryError, encode_ids, merge_traces};

use super::Root;
use super::block_work::Fetch;
use super::blocks::problem_of;
use super::heads::sift;
use super::missing::Missing;
use super::run::{Step, place};
use super::snapshot::{BlockRef, Snapshot};
use crate::ask::TimeRange;

impl Root {
    /// The whole traces of `ids`, which have fragments near `range`. Fragments lie within the
    /// horizon of one another, so blocks are asked in widening circles until no fragment reaches
    /// further.
    pub(super) async fn gather(
        &self,
        snapshot: &Snapshot,
        ids: &[TraceId],
        range: TimeRange,
        last: bool,
        missing: &mut Missing,
    ) -> Result<Step<Vec<Trace>>, Problem> {
        let heads = self.fragments_of_heads(snapshot, ids, last, missing).await?;
        let Step::Done(heads) = heads else { return Ok(Step::Moved) };
        let mut reach = range.widened(self.horizon());
        reach = self.reached(reach, &heads.traces);
        let mut fragments = heads.traces;
        let mut asked: BTreeSet<ObjectKey> = BTreeSet::new();
        loop {
            let blocks = snapshot.blocks_in(reach, 0, false);
            let fresh: Vec<BlockRef> =
                blocks.into_iter().filter(|block| asked.insert(block.object)).collect();
            if fresh.is_empty() {
                return Ok(Step::Done(merge_traces(fragments)));
            }
            let fetched = self.fragments_of_blocks(snapshot, &fresh, ids, missing).await?;
            reach = self.reached(reach, &fetched.traces);
            fragments.extend(fetched.traces);
        }
    }

    /// `reach`, longer where the horizon of a fragment ends beyond it.
    fn reached(&self, reach: TimeRange, fragments: &[Trace]) -> TimeRange {
        fragments.iter().fold(reach, |reach, fragment| {
            let summary = fragment.summary();
            let near = TimeRange { start: summary.start, end: summary.end }.widened(self.horizon());
            TimeRange { start: reach.start.min(near.start), end: reach.end.max(near.end) }
        })
    }

    /// What these blocks have of `ids`.
    pub(super) async fn fragments_of_blocks(
        &self,
        snapshot: &Snapshot,
        blocks: &[BlockRef],
        ids: &[TraceId],
        missing: &mut Missing,
    ) -> Result<Fragments, Problem> {
        let possible = self.blocks.possible(blocks, ids);
        let mut fragments = Fragments::default();
        for fetched in self.on_blocks(snapshot, &possible, &Fetch(ids), missing).await? {
            fragments.traces.extend(fetched.traces);
            fragments.count(fetched.inspected);
        }
        let limit = self.config.query.fetched_bytes_max.0;
        if fragments.inspected.bytes > limit {
            return Err(problem_of(QueryError::TooMuch { what: "bytes of traces by id", limit }));
        }
        Ok(fragments)
    }

    /// What the heads have of `ids`.
    pub(super) async fn fragments_of_heads(
        &self,
        snapshot: &Snapshot,
        ids: &[TraceId],
        last: bool,
        missing: &mut Missing,
    ) -> Result<Step<Fragments>, Problem> {
        let request =
            FetchRequest { tenant: snapshot.tenant.to_string(), trace_ids: encode_ids(ids).into() };
        let answers = self.fetch_heads(snapshot, &request).await;
        let Step::Done(answers) = sift(answers, last, missing)? else { return Ok(Step::Moved) };
        let mut fragments = Fragments::default();
        for (shard, fetched) in answers {
            match Trace::decode(&fetched.traces) {
                Ok(traces) => fragments.traces.extend(traces),
                Err(error) => missing.add("shard", place(shard), error.to_string()),
            }
            fragments.count(fetched.inspected.unwrap_or_default());
        }
        Ok(Step::Done(fragments))
    }
}

/// Whether a fetch failed because the traces asked for do not fit into one answer: besides ids there
/// is nothing in such a request that could be wrong.
pub(super) fn is_too_much(problem: &Problem) -> bool {
    problem.kind == ErrorKind::Invalid
}

/// Pieces of traces with what finding them took.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    pub(super) traces: Vec<Trace>,
    pub(super) inspected: Inspected,
    /// A place has more than fits into one answer, and none of it is here.
    pub(super) too_large: bool,
}

impl Fragments {
    /// Adds the pieces of other places.
    pub(super) fn add(&mut self, other: Fragments) {
        self.traces.extend(other.traces);
        self.too_large |= other.too_large;
        self.count(other.inspected);
    }

    fn count(&mut self, more: Inspected) {
        let sum = &mut self.inspected;
        sum.traces = sum.traces.saturating_add(more.traces);
        sum.spans = sum.spans.saturating_add(more.spans);
        sum.bytes = sum.bytes.saturating_add(more.bytes);
        sum.reads = sum.reads.saturating_add(more.reads);
    }
}
