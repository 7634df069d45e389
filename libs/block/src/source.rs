//! What an index can tell, whether it is a span table in memory or a section of a block: the seam
//! that lets both answer lookups and tag requests by the same code.

use std::ops::{ControlFlow, Range};

use clew_model::TraceId;

use crate::error::BlockError;
use crate::probe::Probe;
use crate::rows::RowSet;
use crate::term::KeyScope;

/// What an index knows of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyFacts {
    /// The index's own number for it.
    pub(crate) handle: u32,
    /// Some row may have several values of which only one counts.
    pub(crate) repeated: bool,
}

/// Where an index keeps the rows of a term.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    /// In a term store.
    Term(u32),
    /// In the postings section, with the number of rows.
    Postings(Range<usize>, u32),
}

/// A term at hand during a visit.
#[derive(Debug)]
pub(crate) struct TermRef<'a> {
    pub(crate) code: u8,
    pub(crate) value: &'a [u8],
    pub(crate) place: Place,
}

/// Facts of a trace as far as it lies in the source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TraceFacts<'a> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The root's name and service, if there is a root.
    pub(crate) root: Option<(&'a str, &'a str)>,
    /// Other spans of it may lie elsewhere and say otherwise.
    pub(crate) uncertain: bool,
}

/// Decides on a term; breaking ends the visit.
pub(crate) type TermVisitor<'a> =
    dyn FnMut(&TermRef<'_>) -> Result<ControlFlow<()>, BlockError> + 'a;

/// Resources or scopes: which of the two tables of records is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Resource,
    Scope,
}

/// See the [module](self). Rows and traces beyond the limit of the read do not exist for it.
pub(crate) trait IndexSource {
    /// How many rows there are.
    fn row_limit(&self) -> u32;

    /// A key, if some row may have it.
    fn key(&self, scope: KeyScope, name: &[u8]) -> Option<KeyFacts>;

    /// All keys with their scope and the number of rows that have them, which may count rows
    /// beyond the limit.
    fn visit_keys(&self, visit: &mut dyn FnMut(KeyScope, &str, u64));

    /// Visits the terms of a key that lie in the probe's range; all without a probe.
    fn visit_terms(
        &self,
        key: u32,
        probe: Option<&Probe>,
        visit: &mut TermVisitor<'_>,
    ) -> Result<(), BlockError>;

    /// Adds the rows of a term to `rows`.
    fn add_rows(&self, place: &Place, rows: &mut RowSet) -> Result<(), BlockError>;

    /// Adds the rows that may have a rare text, one that no term stands for; whether those are
    /// certain to have it.
    fn add_rare_text(&self, key: u32, text: &[u8], rows: &mut RowSet) -> Result<bool, BlockError>;

    /// The rows that have rare texts.
    fn rare_text_rows(&self, key: u32) -> Result<RowSet, BlockError>;

    /// Visits the rows of the rare numbers of a type, with the numbers as terms order them.
    fn visit_rare_numbers(
        &self,
        key: u32,
        type_code: u8,
        visit: &mut dyn FnMut(u32, u64),
    ) -> Result<(), BlockError>;

    /// How many rows a term has.
    fn count_rows(&self, place: &Place) -> u64;

    /// How many rows each record has.
    fn count_record_rows(&self, kind: RecordKind) -> Result<Vec<u64>, BlockError>;

    /// The rows that have a key.
    fn key_rows(&self, key: u32) -> Result<RowSet, BlockError>;

    /// How many distinct records there are.
    fn record_count(&self, kind: RecordKind) -> u32;

    /// The encoded message of a record.
    fn record_message(&self, kind: RecordKind, ordinal: u32) -> &[u8];

    /// The rows of a record.
    fn record_rows(&self, kind: RecordKind, ordinal: u32) -> Result<RowSet, BlockError>;

    /// The rows whose span lasts at least `shortest` and at most `longest` nanoseconds.
    fn rows_by_duration(&self, shortest: u64, longest: u64) -> RowSet;

    /// Visits the traces with their ordinals.
    fn visit_traces(
        &self,
        visit: &mut dyn FnMut(u32, &TraceFacts<'_>) -> ControlFlow<()>,
    ) -> Result<(), BlockError>;

    /// The ordinal of a trace.
    fn find_trace(&self, id: &TraceId) -> Option<u32>;

    /// Adds the rows of a trace to `rows`.
    fn add_trace_rows(&self, trace: u32, rows: &mut RowSet);
}
