//! Runs one leaf's part of a query over its sources, within bounds.

use std::sync::Arc;

use clew_model::Trace;
use clew_node::Tasks;
use clew_proto::query::v1::Inspected;

use crate::QueryError;
use crate::source::SpanSource;

/// Bounds on the work of one query at one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLimits {
    /// Bytes of spans that may be decoded.
    pub inspected_bytes_max: u64,
    /// Spans that may be decoded.
    pub inspected_spans_max: u64,
    /// Bytes of spans that one fetch by id may return.
    pub fetched_bytes_max: u64,
    /// Sources that are read at the same time.
    pub sources_at_once: usize,
    /// Traces decoded in one step.
    pub batch_traces_max: usize,
    /// Spans decoded in one step; a single larger trace is still decoded whole.
    pub batch_spans_max: u64,
    /// Names or values an answer may hold, whatever the request asks for.
    pub tags_max: usize,
    /// Bytes of names or values an answer may hold.
    pub tags_bytes_max: u64,
}

impl Default for QueryLimits {
    fn default() -> QueryLimits {
        QueryLimits {
            inspected_bytes_max: 16 << 30,
            inspected_spans_max: 50_000_000,
            fetched_bytes_max: 256 << 20,
            sources_at_once: 8,
            batch_traces_max: 512,
            batch_spans_max: 50_000,
            tags_max: 100_000,
            tags_bytes_max: 1_000_000,
        }
    }
}

impl QueryLimits {
    /// How many names or values an answer may hold if the request asks for `limit`, zero being no
    /// bound of its own.
    pub(crate) fn tags(&self, limit: u32) -> usize {
        match limit {
            0 => self.tags_max,
            limit => usize::try_from(limit).unwrap_or(usize::MAX).min(self.tags_max),
        }
    }
}

/// A source that gave no answer, or only a part of it.
#[derive(Debug, Clone)]
pub struct SourceFailure {
    /// The source's name.
    pub source: Arc<str>,
    /// Why.
    pub error: QueryError,
}

/// An answer with what is missing from it. Whoever merges answers says so to the user.
#[derive(Debug, Clone)]
pub struct Outcome<T> {
    /// What the sources that could be read say.
    pub response: T,
    /// The others.
    pub failed: Vec<SourceFailure>,
}

impl<T> Outcome<T> {
    pub(crate) fn map<R>(self, change: impl FnOnce(T) -> R) -> Outcome<R> {
        Outcome { response: change(self.response), failed: self.failed }
    }
}

/// Runs queries; cheap to clone. Dropping a query's future starts no further work.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) tasks: Tasks,
    pub(crate) limits: Arc<QueryLimits>,
}

impl Engine {
    /// An engine that does its heavy work on `tasks`.
    pub fn new(tasks: Tasks, limits: QueryLimits) -> Engine {
        Engine { tasks, limits: Arc::new(limits) }
    }

    /// The bounds.
    pub fn limits(&self) -> &QueryLimits {
        &self.limits
    }
}

/// Counts what a query looked at, against the bounds.
pub(crate) struct Meter<'a> {
    limits: &'a QueryLimits,
    sources: &'a [Arc<dyn SpanSource>],
    reads_before: (u64, u64),
    inspected: Inspected,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(limits: &'a QueryLimits, sources: &'a [Arc<dyn SpanSource>]) -> Meter<'a> {
        let reads_before = reads(sources);
        Meter { limits, sources, reads_before, inspected: Inspected::default() }
    }

    /// Notes decoded traces.
    ///
    /// # Errors
    /// [`QueryError::TooMuch`].
    pub(crate) fn decoded(&mut self, traces: &[Trace]) -> Result<(), QueryError> {
        self.inspected.traces += traces.len() as u64;
        for trace in traces {
            self.inspected.spans += trace.spans.len() as u64;
            self.inspected.bytes += trace_bytes(trace);
        }
        let limits = self.limits;
        if self.inspected.bytes > limits.inspected_bytes_max {
            let limit = limits.inspected_bytes_max;
            return Err(QueryError::TooMuch { what: "bytes of spans", limit });
        }
        if self.inspected.spans > limits.inspected_spans_max {
            return Err(QueryError::TooMuch { what: "spans", limit: limits.inspected_spans_max });
        }
        Ok(())
    }

    /// Notes traces that an index described.
    pub(crate) fn described(&mut self, traces: usize) {
        self.inspected.traces += traces as u64;
    }

    /// Notes traces that an index named.
    pub(crate) fn named(&mut self, traces: usize) {
        self.inspected.candidates += traces as u64;
    }

    pub(crate) fn finish(self) -> Inspected {
        let (reads, read_bytes) = reads(self.sources);
        Inspected {
            reads: reads.saturating_sub(self.reads_before.0),
            read_bytes: read_bytes.saturating_sub(self.reads_before.1),
            ..self.inspected
        }
    }
}

/// Reads and the bytes they returned.
fn reads(sources: &[Arc<dyn SpanSource>]) -> (u64, u64) {
    let sum = |of: fn(&dyn SpanSource) -> u64| sources.iter().map(|s| of(s.as_ref())).sum();
    (sum(|source| source.reads()), sum(|source| source.read_bytes()))
}

/// The size of a trace's spans in bytes.
pub(crate) fn trace_bytes(trace: &Trace) -> u64 {
    trace.spans.iter().map(|span| span.bytes.len() as u64).sum()
}

/// The sum of what two leaves looked at.
pub(crate) fn add_inspected(sum: &mut Inspected, part: &Inspected) {
    sum.traces = sum.traces.saturating_add(part.traces);
    sum.spans = sum.spans.saturating_add(part.spans);
    sum.bytes = sum.bytes.saturating_add(part.bytes);
    sum.reads = sum.reads.saturating_add(part.reads);
    sum.read_bytes = sum.read_bytes.saturating_add(part.read_bytes);
    sum.candidates = sum.candidates.saturating_add(part.candidates);
}
