//! The seam between the engine and the places that hold spans: blocks and heads.
//!
//! A source answers for one tenant and does not change while a query runs. It knows which of its
//! traces may match (from indexes, a superset), can hand out whole fragments, and can name the
//! keys and values it holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use clew_block::{RowSet, TraceExtent};
use clew_model::{Trace, TraceId, UnixNanos};
use clew_proto::common::v1::KeyValue;
use clew_proto::query::v1::FoundTrace;
use clew_traceql::plan::{Prefilter, Scope};
use clew_traceql::value::Static;

use crate::QueryError;
use crate::ids::SplitSet;
use crate::piece::Pieces;
use crate::pipeline::Pipeline;
use crate::plan::SearchPlan;
use crate::tags::TagField;

/// What sort of place a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// An immutable block in the bucket.
    Block,
    /// Recent spans of a shard, in memory.
    Head,
}

/// What is known of a source without reading it.
#[derive(Debug, Clone)]
pub struct SourceInfo {
    /// Names it in errors: the object's key, or the shard.
    pub name: Arc<str>,
    /// What sort of place it is.
    pub kind: SourceKind,
    /// How many spans it holds.
    pub spans: u64,
    /// How many traces it holds spans of.
    pub traces: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// No span starts before this.
    pub min_time: UnixNanos,
    /// No span starts or ends after this.
    pub max_time: UnixNanos,
}

/// A span of time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// The first nanosecond.
    pub start: UnixNanos,
    /// The last nanosecond.
    pub end: UnixNanos,
}

impl TimeRange {
    /// Everything.
    pub const ALL: TimeRange = TimeRange { start: UnixNanos(0), end: UnixNanos(u64::MAX) };

    /// The range of a request, in which an end of zero means "no bound".
    pub const fn from_request(start: u64, end: u64) -> TimeRange {
        let end = if end == 0 { u64::MAX } else { end };
        TimeRange { start: UnixNanos(start), end: UnixNanos(end) }
    }

    /// Whether something that lasts from `start` to `end` lies at least partly in the range.
    pub fn overlaps(&self, start: UnixNanos, end: UnixNanos) -> bool {
        start <= self.end && end >= self.start
    }
}

/// A trace of a source, or the fragment of it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its number in this source.
    pub ordinal: u32,
    /// Its id.
    pub id: TraceId,
    /// The earliest start of its spans here.
    pub start: UnixNanos,
    /// The latest end of its spans here.
    pub end: UnixNanos,
    /// How many spans it has here, counting repeated ones.
    pub spans: u32,
}

impl Candidate {
    pub(crate) fn new(ordinal: u32, extent: &TraceExtent) -> Candidate {
        let TraceExtent { id, start, end, spans } = *extent;
        Candidate { ordinal, id, start: UnixNanos(start), end: UnixNanos(end), spans }
    }
}

/// Which traces of a source are wanted.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Each must hold for some span of a trace that is not split.
    pub conditions: Vec<Prefilter>,
    /// Must hold for some span of a split trace, in at least one of the places where it lies.
    pub fragment: Prefilter,
    /// Traces that are not split must overlap this.
    pub range: TimeRange,
    /// Traces that are not split must last at least this long, in nanoseconds.
    pub min_duration: u64,
    /// Traces that may have spans elsewhere.
    pub split: SplitSet,
    /// Whether a span matches if and only if it passes the conditions, so that exact lookups spare
    /// the decoding of spans.
    pub decisive: bool,
    /// Of traces that match for certain no more than so many, the newest, are needed.
    pub limit: usize,
    /// What is looked for, if it is more than the conditions.
    pub(crate) pipeline: Option<Arc<Pipeline>>,
}

/// The traces of a source that may match.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selected {
    /// Traces that lie in this source alone.
    pub whole: Vec<Candidate>,
    /// Fragments of split traces.
    pub split: Vec<Candidate>,
    /// The rows that match, if the index could tell for certain.
    pub matches: Option<Arc<RowSet>>,
    /// What is said of the spansets of those traces.
    pub attributes: BTreeMap<TraceId, Vec<KeyValue>>,
    /// Whether traces were left out because of [`Selection::limit`].
    pub cut: bool,
}

/// Where one tenant's spans lie: a block, or a head up to some log index.
#[async_trait]
pub trait SpanSource: Send + Sync {
    /// What is known without reading.
    fn info(&self) -> &SourceInfo;

    /// How many range reads this source has made of the object store so far.
    fn reads(&self) -> u64 {
        0
    }

    /// How many bytes those reads returned.
    fn read_bytes(&self) -> u64 {
        0
    }

    /// A superset of the traces here that match. Sorted by nothing in particular.
    async fn select(&self, selection: &Arc<Selection>) -> Result<Selected, QueryError>;

    /// The entries in a search's answer of the traces with these ordinals, of which `matches` are
    /// the rows that match. Those that the plan does not admit are left out.
    async fn describe(
        &self,
        plan: &SearchPlan,
        matches: &Arc<RowSet>,
        ordinals: &[u32],
    ) -> Result<Vec<FoundTrace>, QueryError>;

    /// What the index here tells of the traces with these ids, as far as they lie here, for a search
    /// that can be judged by pieces.
    async fn pieces(&self, plan: &SearchPlan, ids: &[TraceId]) -> Result<Pieces, QueryError>;

    /// The traces with these ordinals, in no particular order, each merged from what this place
    /// has of it.
    async fn fetch(&self, ordinals: &[u32]) -> Result<Vec<Trace>, QueryError>;

    /// For each id its ordinal here, if the trace has spans here.
    async fn find(&self, ids: &[TraceId]) -> Result<Vec<Option<u32>>, QueryError>;

    /// Traces here that are marked as possibly having spans elsewhere, ascending.
    async fn split_ids(&self) -> Result<Vec<TraceId>, QueryError>;

    /// Every attribute name here with its scope; those of `scope` only, if one is given.
    async fn tag_names(&self, scope: Option<Scope>) -> Result<Vec<(Scope, Arc<str>)>, QueryError>;

    /// Every value the field has here, scalars only; arrays give their elements. With a selection
    /// whose conditions a filter is equal to, only values on spans that pass it; `None` if that
    /// cannot be told without decoding spans.
    async fn tag_values(
        &self,
        field: &TagField,
        within: Option<&Arc<Selection>>,
    ) -> Result<Option<Vec<Static>>, QueryError>;
}
