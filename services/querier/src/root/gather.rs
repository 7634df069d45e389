//! Fragments of traces, or pieces that indexes tell, from every place that may hold one.

use std::collections::BTreeSet;

use clew_catalog::ObjectKey;
use clew_model::{ErrorKind, Trace, TraceId, UnixNanos};
use clew_node::Problem;
use clew_proto::query::v1::{Inspected, Piece};
use clew_query::{Fetched, QueryError};

use super::Root;
use super::block_work::Fetch;
use super::blocks::problem_of;
use super::heads::sift;
use super::missing::Missing;
use super::run::{Step, place};
use super::snapshot::{BlockRef, Snapshot};
use crate::ask::TimeRange;

impl Root {
    /// What all places have of traces with fragments near `range`. Fragments lie within the horizon
    /// of one another, so blocks are asked in widening circles until no fragment reaches further.
    pub(super) async fn gather_fragments(
        &self,
        snapshot: &Snapshot,
        wanted: Fetch<'_>,
        range: TimeRange,
        last: bool,
        missing: &mut Missing,
    ) -> Result<Step<Fragments>, Problem> {
        let heads = self.fragments_of_heads(snapshot, wanted, last, missing).await?;
        let Step::Done(mut fragments) = heads else { return Ok(Step::Moved) };
        let mut reach = self.reached(range.widened(self.horizon()), &fragments);
        let mut asked: BTreeSet<ObjectKey> = BTreeSet::new();
        loop {
            let blocks = snapshot.blocks_in(reach, 0, false);
            let fresh: Vec<BlockRef> =
                blocks.into_iter().filter(|block| asked.insert(block.object)).collect();
            if fresh.is_empty() {
                return Ok(Step::Done(fragments));
            }
            let fetched = self.fragments_of_blocks(snapshot, &fresh, wanted, missing).await?;
            reach = self.reached(reach, &fetched);
            fragments.add(fetched);
        }
    }

    /// `reach`, longer where the horizon of a fragment ends beyond it.
    fn reached(&self, reach: TimeRange, fragments: &Fragments) -> TimeRange {
        let of_trace = |trace: &Trace| {
            let summary = trace.summary();
            TimeRange { start: summary.start, end: summary.end }
        };
        let traces = fragments.traces.iter().map(of_trace);
        let pieces = fragments.pieces.iter().filter_map(extent_of);
        traces.chain(pieces).fold(reach, |reach, extent| {
            let near = extent.widened(self.horizon());
            TimeRange { start: reach.start.min(near.start), end: reach.end.max(near.end) }
        })
    }

    /// What these blocks have of the traces.
    pub(super) async fn fragments_of_blocks(
        &self,
        snapshot: &Snapshot,
        blocks: &[BlockRef],
        wanted: Fetch<'_>,
        missing: &mut Missing,
    ) -> Result<Fragments, Problem> {
        let possible = self.blocks.possible(blocks, wanted.ids);
        let mut fragments = Fragments::default();
        for fetched in self.on_blocks(snapshot, &possible, &wanted, missing).await? {
            fragments.take(fetched);
        }
        let limit = self.config.query.fetched_bytes_max.0;
        if fragments.inspected.bytes.saturating_add(fragments.pieces_bytes) > limit {
            return Err(problem_of(QueryError::TooMuch { what: "bytes of traces by id", limit }));
        }
        Ok(fragments)
    }

    /// What the heads have of the traces.
    pub(super) async fn fragments_of_heads(
        &self,
        snapshot: &Snapshot,
        wanted: Fetch<'_>,
        last: bool,
        missing: &mut Missing,
    ) -> Result<Step<Fragments>, Problem> {
        let request = wanted.request(snapshot.tenant.to_string());
        let answers = self.fetch_heads(snapshot, &request).await;
        let Step::Done(answers) = sift(answers, last, missing)? else { return Ok(Step::Moved) };
        let mut fragments = Fragments::default();
        for (shard, fetched) in answers {
            match Fetched::decode(fetched) {
                Ok(fetched) => fragments.take(fetched),
                Err(error) => missing.add("shard", place(shard), error.to_string()),
            }
        }
        Ok(Step::Done(fragments))
    }
}

/// Whether a fetch failed because the traces asked for do not fit into one answer: besides ids there
/// is nothing in such a request that could be wrong.
pub(super) fn is_too_much(problem: &Problem) -> bool {
    problem.kind == ErrorKind::Invalid
}

/// When the spans of a piece happened.
fn extent_of(piece: &Piece) -> Option<TimeRange> {
    let start = *piece.starts.iter().min()?;
    let ends = piece.starts.iter().zip(&piece.durations).map(|(start, d)| start.saturating_add(*d));
    Some(TimeRange { start: UnixNanos(start), end: UnixNanos(ends.max()?) })
}

/// What places have of traces, with what finding it took.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    pub(super) traces: Vec<Trace>,
    pub(super) pieces: Vec<Piece>,
    pub(super) pieces_bytes: u64,
    /// Traces of which a place could not tell a piece.
    pub(super) unjudged: Vec<TraceId>,
    pub(super) inspected: Inspected,
    /// A place has more than fits into one answer, and none of it is here.
    pub(super) too_large: bool,
}

impl Fragments {
    /// Adds what other places have.
    pub(super) fn add(&mut self, other: Fragments) {
        self.traces.extend(other.traces);
        self.pieces.extend(other.pieces);
        self.pieces_bytes = self.pieces_bytes.saturating_add(other.pieces_bytes);
        self.unjudged.extend(other.unjudged);
        self.too_large |= other.too_large;
        self.count(other.inspected);
    }

    fn take(&mut self, fetched: Fetched) {
        self.traces.extend(fetched.traces);
        let bytes = fetched.pieces.iter().map(prost::Message::encoded_len).sum::<usize>() as u64;
        self.pieces_bytes = self.pieces_bytes.saturating_add(bytes);
        self.pieces.extend(fetched.pieces);
        self.unjudged.extend(fetched.unjudged);
        self.count(fetched.inspected);
    }

    fn count(&mut self, more: Inspected) {
        let sum = &mut self.inspected;
        sum.traces = sum.traces.saturating_add(more.traces);
        sum.spans = sum.spans.saturating_add(more.spans);
        sum.bytes = sum.bytes.saturating_add(more.bytes);
        sum.reads = sum.reads.saturating_add(more.reads);
        sum.read_bytes = sum.read_bytes.saturating_add(more.read_bytes);
    }
}
