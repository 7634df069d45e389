//! The append-only indexed table of spans in memory: what a shard leader answers recent reads
//! from, and what a block is written from.
//!
//! A table keeps the buffers it is given and points into them; a span costs one [`Row`], its
//! postings and the bytes of values not seen before. Rows are numbered in the order of arrival and
//! every read is cut at a row, so a query sees the same prefix on every leader.
//!
//! Readers take `&self`; whoever owns the table decides between a lock and sealing it.

mod frames;
mod read;

pub use self::read::RowFacts;

use std::ops::Range;

use bytes::Bytes;
use clew_model::TraceId;
use clew_model::otlp::SpanView;
use clew_model::trace::{ResourceRecord, ScopeRecord};
use hashbrown::HashTable;

use self::frames::{Frame, read_frames};
use crate::codec::narrow;
use crate::error::BlockError;
use crate::extract::{Extracted, KeyGuess, index_span};
use crate::hash::hash64;
use crate::records::Records;
use crate::terms::TermStore;

/// Marks the end of a trace's chain of rows.
const NO_ROW: u32 = u32::MAX;

/// The most rows of one table.
pub const ROWS_MAX: u64 = 1 << 31;

/// So many traces, in the order of their ordinals, share a bound of [`SpanTable::newest_starts`].
pub const NEWEST_STEP: u32 = 128;

/// What one call of [`SpanTable::push`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pushed {
    /// The rows of the new spans.
    pub rows: Range<u32>,
    /// Ordinals of the traces that this table had no span of before.
    pub new_traces: Range<u32>,
    /// Spans that were left out because their bytes are damaged. Validated input has none.
    pub rejected: u32,
}

/// What is kept of a span beside its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) start: u64,
    /// Never before the start.
    pub(crate) end: u64,
    pub(crate) span_id: [u8; 8],
    /// All zero for a root span.
    pub(crate) parent_id: [u8; 8],
    pub(crate) kind: i32,
    pub(crate) status: i32,
    pub(crate) resource: u32,
    pub(crate) scope: u32,
    chunk: u32,
    offset: u32,
    length: u32,
    /// The trace's next row.
    next: u32,
}

/// What is kept of a trace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TraceRows {
    pub(crate) id: TraceId,
    first: u32,
    last: u32,
    /// Of all its rows: the earliest start, the latest end, how many there are.
    start: u64,
    end: u64,
    rows: u32,
    pub(crate) split: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub struct SpanTable {
    seed: u64,
    chunks: Vec<Bytes>,
    chunk_bytes: usize,
    rows: Vec<Row>,
    /// The trace of each row, apart because a search looks at it for every row it finds.
    trace_of: Vec<u32>,
    traces: Vec<TraceRows>,
    /// See [`SpanTable::newest_starts`].
    newest_starts: Vec<u64>,
    /// The traces that are marked as split.
    split: Vec<u32>,
    trace_index: HashTable<u32>,
    resources: Records<ResourceRecord>,
    scopes: Records<ScopeRecord>,
    terms: TermStore,
    guess: KeyGuess,
    /// The earliest start and the latest end of all rows.
    bounds: Option<(u64, u64)>,
}

impl SpanTable {
    /// An empty table. `seed` goes into its hash tables and should not be guessable by those who
    /// send spans; it has no influence on any answer.
    pub fn new(seed: u64) -> SpanTable {
        SpanTable {
            seed,
            chunks: Vec::new(),
            chunk_bytes: 0,
            rows: Vec::new(),
            trace_of: Vec::new(),
            traces: Vec::new(),
            newest_starts: Vec::new(),
            split: Vec::new(),
            trace_index: HashTable::new(),
            resources: Records::new(seed),
            scopes: Records::new(seed),
            terms: TermStore::new(seed),
            guess: KeyGuess::default(),
            bounds: None,
        }
    }

    /// Appends the spans of an encoded, uncompressed OTLP `TracesData` in their order and keeps
    /// the buffer.
    ///
    /// # Errors
    /// [`BlockError::NotOtlp`] when the bytes do not even divide into spans and
    /// [`BlockError::Limit`] when the table is full; the table is unchanged then. A span whose
    /// own bytes are damaged is left out and counted.
    pub fn push(&mut self, traces_data: &Bytes) -> Result<Pushed, BlockError> {
        let frames = read_frames(traces_data)?;
        self.check_room(traces_data.len(), frames.spans.len())?;
        let (first_row, first_trace) = (self.row_count(), self.trace_count());
        let mut rejected = 0;
        let mut at = usize::MAX;
        let (mut resource, mut scope) = (0, 0);
        let mut extracted = Extracted::default();
        for span in &frames.spans {
            let row = narrow(self.rows.len());
            let raw = &traces_data[span.bytes.clone()];
            let has_ids = |view: &SpanView<'_>| view.trace().is_some() && view.span().is_some();
            let (terms, guess) = (&mut self.terms, &mut self.guess);
            let indexed = index_span(terms, guess, &mut extracted, raw, row, has_ids);
            let ids =
                indexed.ok().flatten().and_then(|view| Some((view, view.trace()?, view.span()?)));
            let Some((view, trace, id)) = ids else {
                rejected += 1;
                continue;
            };
            if span.frame != at {
                at = span.frame;
                let frame: &Frame<'_> = &frames.frames[at];
                resource = self.resources.intern(&frame.resource, frame.resource_schema_url);
                scope = self.scopes.intern(&frame.scope, frame.scope_schema_url);
            }
            self.resources.note(resource, row);
            self.scopes.note(scope, row);
            let start = view.start_unix_nanos;
            let end = view.end_unix_nanos.max(start);
            let trace = self.note_trace(trace, row, start, end);
            let (first, last) = self.bounds.unwrap_or((start, end));
            self.bounds = Some((first.min(start), last.max(end)));
            self.trace_of.push(trace);
            self.rows.push(Row {
                start,
                end,
                span_id: id.0,
                parent_id: view.parent().map_or([0; 8], |parent| parent.0),
                kind: view.kind,
                status: view.status_code,
                resource,
                scope,
                chunk: narrow(self.chunks.len()),
                offset: narrow(span.bytes.start),
                length: narrow(span.bytes.len()),
                next: NO_ROW,
            });
        }
        let pushed = Pushed {
            rows: first_row..self.row_count(),
            new_traces: first_trace..self.trace_count(),
            rejected,
        };
        if !pushed.rows.is_empty() {
            self.chunk_bytes += traces_data.len();
            self.chunks.push(traces_data.clone());
        }
        Ok(pushed)
    }

    fn check_room(&self, bytes: usize, spans: usize) -> Result<(), BlockError> {
        if (self.rows.len() + spans) as u64 > ROWS_MAX {
            return Err(BlockError::Limit { what: "rows in a table", limit: ROWS_MAX });
        }
        if u32::try_from(bytes).is_err() {
            return Err(BlockError::Limit { what: "bytes at once", limit: u64::from(u32::MAX) });
        }
        self.terms.reserve(bytes)
    }

    /// The ordinal of the row's trace; links the row to the trace's other rows.
    fn note_trace(&mut self, id: TraceId, row: u32, start: u64, end: u64) -> u32 {
        if let Some(ordinal) = self.find(&id) {
            let trace = &mut self.traces[ordinal as usize];
            self.rows[trace.last as usize].next = row;
            trace.last = row;
            trace.start = trace.start.min(start);
            trace.end = trace.end.max(end);
            trace.rows += 1;
            return ordinal;
        }
        let ordinal = narrow(self.traces.len());
        // A trace's start can only become earlier.
        match self.newest_starts.last_mut() {
            Some(newest) if !ordinal.is_multiple_of(NEWEST_STEP) => *newest = start.max(*newest),
            _ => self.newest_starts.push(start),
        }
        self.traces.push(TraceRows {
            id,
            first: row,
            last: row,
            start,
            end,
            rows: 1,
            split: false,
        });
        let (seed, traces) = (self.seed, &self.traces);
        self.trace_index.insert_unique(hash64(seed, &id.0), ordinal, |other| {
            hash64(seed, &traces[*other as usize].id.0)
        });
        ordinal
    }

    /// The ordinal of a trace, if the table has a span of it.
    pub fn find(&self, id: &TraceId) -> Option<u32> {
        self.trace_index
            .find(hash64(self.seed, &id.0), |trace| self.traces[*trace as usize].id == *id)
            .copied()
    }

    /// Marks a trace as one whose other spans may lie elsewhere. No effect on an unknown ordinal.
    pub fn mark_split(&mut self, trace: u32) {
        if let Some(entry) = self.traces.get_mut(trace as usize)
            && !entry.split
        {
            entry.split = true;
            self.split.push(trace);
        }
    }

    /// Whether the trace was marked.
    pub fn is_split(&self, trace: u32) -> bool {
        self.traces.get(trace as usize).is_some_and(|trace| trace.split)
    }

    /// The ordinals of the marked traces, in no particular order.
    pub fn split_traces(&self) -> &[u32] {
        &self.split
    }

    /// The id of a trace by its ordinal.
    pub fn trace_id(&self, trace: u32) -> Option<TraceId> {
        self.traces.get(trace as usize).map(|trace| trace.id)
    }

    /// How many spans there are. Rows are numbered from zero.
    pub fn row_count(&self) -> u32 {
        narrow(self.rows.len())
    }

    /// How many traces there are. Their ordinals count from zero in order of first appearance.
    pub fn trace_count(&self) -> u32 {
        narrow(self.traces.len())
    }

    /// For every [`NEWEST_STEP`] traces in the order of their ordinals a time after which none of
    /// them starts, nanoseconds since the epoch.
    pub fn newest_starts(&self) -> &[u64] {
        &self.newest_starts
    }

    /// About how many bytes of memory the table takes, with the buffers it keeps.
    pub fn memory_bytes(&self) -> usize {
        self.chunk_bytes
            + self.rows.capacity() * (size_of::<Row>() + 4)
            + self.traces.capacity() * size_of::<TraceRows>()
            + self.trace_index.capacity() * 5
            + self.resources.memory_bytes()
            + self.scopes.memory_bytes()
            + self.terms.memory_bytes()
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn traces(&self) -> &[TraceRows] {
        &self.traces
    }

    pub(crate) fn terms(&self) -> &TermStore {
        &self.terms
    }

    pub(crate) fn resources(&self) -> &Records<ResourceRecord> {
        &self.resources
    }

    pub(crate) fn scopes(&self) -> &Records<ScopeRecord> {
        &self.scopes
    }

    /// The encoded span of a row.
    pub(crate) fn span_bytes(&self, row: &Row) -> &[u8] {
        &self.chunks[row.chunk as usize][row.offset as usize..][..row.length as usize]
    }

    fn span_slice(&self, row: &Row) -> Bytes {
        let start = row.offset as usize;
        self.chunks[row.chunk as usize].slice(start..start + row.length as usize)
    }

    /// The rows of a trace below `rows_max`, ascending.
    pub(crate) fn trace_rows(&self, trace: u32, rows_max: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = self.traces.get(trace as usize).map_or(NO_ROW, |trace| trace.first);
        std::iter::from_fn(move || {
            let row = next;
            if row >= rows_max {
                return None;
            }
            next = self.rows.get(row as usize)?.next;
            Some(row)
        })
    }
}
