//! The rows of a block's index, as the evaluation of a query looks at them.

use std::ops::Range;

use clew_block::{BlockError, BlockSearch, LookupResult, RowSet};
use clew_model::TraceId;
use clew_traceql::plan::Condition;

use crate::select::{FilterRows, RowIndex, TraceRows};
use crate::source::Candidate;
use crate::structure::Parent;

impl RowIndex for BlockSearch {
    fn lookup(&self, condition: &Condition) -> Result<LookupResult, BlockError> {
        BlockSearch::lookup(self, condition)
    }

    fn filter(&self, condition: &Condition, rows: &mut RowSet) -> Option<bool> {
        BlockSearch::filter(self, condition, rows)
    }

    fn trace_count(&self) -> u32 {
        u32::try_from(self.traces().entries().len()).unwrap_or(u32::MAX)
    }

    fn traces_of(&self, rows: &RowSet) -> RowSet {
        RowSet::from_ascending(&self.traces().traces_of_rows(rows.iter()))
    }

    fn candidate(&self, ordinal: u32) -> Option<Candidate> {
        Some(Candidate::new(ordinal, self.traces().extent(ordinal)?))
    }

    fn add_rows(&self, ordinal: u32, rows: &mut RowSet) {
        if let Some(trace) = self.traces().get(ordinal) {
            rows.insert_range(trace.rows.clone());
        }
    }

    fn has_row(&self, ordinal: u32, rows: &RowSet) -> bool {
        let trace = self.traces().get(ordinal);
        trace.is_some_and(|trace| rows.range(trace.rows.clone()).next().is_some())
    }

    fn find(&self, id: &TraceId) -> Option<u32> {
        self.traces().find(id)
    }

    /// A block holds every span once, in the model's order.
    fn trace_rows(&self, ordinal: u32) -> Option<Box<dyn TraceRows + '_>> {
        let rows = self.traces().get(ordinal)?.rows.clone();
        Some(Box::new(BlockTrace { index: self, rows }))
    }

    fn duration(&self, row: u32) -> Option<u64> {
        self.columns().duration(row)
    }

    fn start_end(&self, row: u32) -> Option<(u64, u64)> {
        self.row_start_end(row)
    }
}

/// A trace of a block: its rows follow one another.
struct BlockTrace<'a> {
    index: &'a BlockSearch,
    rows: Range<u32>,
}

impl TraceRows for BlockTrace<'_> {
    fn count(&self) -> u32 {
        self.rows.end.saturating_sub(self.rows.start)
    }

    fn row(&self, place: u32) -> u32 {
        self.rows.start.saturating_add(place)
    }

    fn places(&self, rows: &FilterRows) -> Vec<u32> {
        rows.range(self.rows.clone()).map(|row| row - self.rows.start).collect()
    }

    fn parent(&self, place: u32) -> Parent {
        match self.index.columns().parent(self.row(place)) {
            Some(clew_block::Parent::Root) => Parent::Root,
            // A damaged column must not lead outside of the trace.
            Some(clew_block::Parent::Row(row)) if self.rows.contains(&row) => {
                Parent::Span(row - self.rows.start)
            }
            _ => Parent::Missing,
        }
    }

    fn span_id(&self, place: u32) -> Option<[u8; 8]> {
        self.index.columns().span_id(self.row(place))
    }

    fn absent_parent(&self, place: u32) -> Option<[u8; 8]> {
        self.index.columns().absent_parent(self.row(place))
    }
}
