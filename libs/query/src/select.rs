//! Which traces of one source may match, worked out on its index: the same code for heads and
//! blocks.

use clew_block::{BlockError, LookupResult, RowSet};
use clew_traceql::plan::{Condition, Prefilter};

use crate::source::{Candidate, Selected, Selection};

/// The index of a source as far as selecting needs it.
pub(crate) trait RowIndex {
    /// The rows that can pass a condition.
    fn lookup(&self, condition: &Condition) -> Result<LookupResult, BlockError>;

    /// How many trace ordinals there are.
    fn trace_count(&self) -> u32;

    /// The ordinals of the traces that have one of the rows.
    fn traces_of(&self, rows: &RowSet) -> RowSet;

    /// The trace of an ordinal; `None` if this read sees no span of it.
    fn candidate(&self, ordinal: u32) -> Option<Candidate>;

    /// Adds the rows of a trace.
    fn add_rows(&self, ordinal: u32, rows: &mut RowSet);

    /// The ordinal of a trace.
    fn find(&self, id: &clew_model::TraceId) -> Option<u32>;
}

/// A set of rows or traces, "all" kept apart: it is common, and free to intersect.
enum Set {
    All,
    Some(RowSet),
}

impl Set {
    fn intersect(self, other: Set) -> Set {
        match (self, other) {
            (Set::All, other) | (other, Set::All) => other,
            (Set::Some(mut left), Set::Some(right)) => {
                left.intersect(&right);
                Set::Some(left)
            }
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Set::Some(rows) if rows.is_empty())
    }
}

/// The traces of the source that may match.
pub(crate) fn select(index: &impl RowIndex, selection: &Selection) -> Result<Selected, BlockError> {
    let mut whole = Set::All;
    for condition in &selection.conditions {
        let traces = match rows_of(index, condition)? {
            Set::All => Set::All,
            Set::Some(rows) => Set::Some(index.traces_of(&rows)),
        };
        whole = whole.intersect(traces);
        if whole.is_empty() {
            break;
        }
    }
    Ok(Selected {
        whole: whole_traces(index, selection, whole),
        split: split_traces(index, selection)?,
    })
}

fn whole_traces(index: &impl RowIndex, selection: &Selection, traces: Set) -> Vec<Candidate> {
    let wanted = |candidate: &Candidate| {
        selection.range.overlaps(candidate.start, candidate.end)
            && candidate.end.0.saturating_sub(candidate.start.0) >= selection.min_duration
            && !selection.split.contains(&candidate.id)
    };
    let candidate = |ordinal| index.candidate(ordinal).filter(wanted);
    match traces {
        Set::All => (0..index.trace_count()).filter_map(candidate).collect(),
        Set::Some(traces) => traces.iter().filter_map(candidate).collect(),
    }
}

/// Fragments are neither judged by their times nor by their durations: other fragments of the
/// trace may lie in the range and make it longer.
fn split_traces(
    index: &impl RowIndex,
    selection: &Selection,
) -> Result<Vec<Candidate>, BlockError> {
    let split = &selection.split;
    if split.is_empty() {
        return Ok(Vec::new());
    }
    let traces = match rows_of(index, &selection.fragment)? {
        Set::All => None,
        Set::Some(rows) => Some(index.traces_of(&rows)),
    };
    let count = traces.as_ref().map_or(u64::from(index.trace_count()), RowSet::len);
    // Whichever list is shorter is looked up in the other.
    if count <= split.ids().len() as u64 {
        let candidate = |ordinal| index.candidate(ordinal).filter(|c| split.contains(&c.id));
        return Ok(match traces {
            None => (0..index.trace_count()).filter_map(candidate).collect(),
            Some(traces) => traces.iter().filter_map(candidate).collect(),
        });
    }
    let wanted = |ordinal: &u32| traces.as_ref().is_none_or(|traces| traces.contains(*ordinal));
    let found = split.ids().iter().filter_map(|id| index.find(id)).filter(wanted);
    Ok(found.filter_map(|ordinal| index.candidate(ordinal)).collect())
}

/// The rows that can pass a prefilter.
fn rows_of(index: &impl RowIndex, prefilter: &Prefilter) -> Result<Set, BlockError> {
    match prefilter {
        Prefilter::All => Ok(Set::All),
        Prefilter::None => Ok(Set::Some(RowSet::new())),
        Prefilter::Condition(condition) => Ok(Set::Some(index.lookup(condition)?.rows)),
        Prefilter::And(parts) => {
            let mut rows = Set::All;
            for part in parts {
                rows = rows.intersect(rows_of(index, part)?);
                if rows.is_empty() {
                    break;
                }
            }
            Ok(rows)
        }
        Prefilter::Or(parts) => {
            let mut rows = RowSet::new();
            for part in parts {
                match rows_of(index, part)? {
                    Set::All => return Ok(Set::All),
                    Set::Some(more) => rows.unite(&more),
                }
            }
            Ok(Set::Some(rows))
        }
    }
}

/// The rows that pass every condition, of traces that overlap the range; `None` if the index
/// cannot tell exactly.
pub(crate) fn exact_rows(
    index: &impl RowIndex,
    selection: &Selection,
) -> Result<Option<RowSet>, BlockError> {
    let mut exact: Option<RowSet> = None;
    for condition in &selection.conditions {
        let Some(rows) = exact_rows_of(index, condition)? else { return Ok(None) };
        match &mut exact {
            None => exact = Some(rows),
            Some(exact) => exact.intersect(&rows),
        }
    }
    let Some(mut rows) = exact else { return Ok(None) };
    let mut outside = RowSet::new();
    for trace in index.traces_of(&rows).iter() {
        let inside = index
            .candidate(trace)
            .is_some_and(|trace| selection.range.overlaps(trace.start, trace.end));
        if !inside {
            index.add_rows(trace, &mut outside);
        }
    }
    rows.subtract(&outside);
    Ok(Some(rows))
}

fn exact_rows_of(
    index: &impl RowIndex,
    condition: &Prefilter,
) -> Result<Option<RowSet>, BlockError> {
    match condition {
        Prefilter::All => Ok(None),
        Prefilter::None => Ok(Some(RowSet::new())),
        Prefilter::Condition(condition) => {
            let found = index.lookup(condition)?;
            Ok(found.exact.then_some(found.rows))
        }
        Prefilter::And(parts) => {
            let mut parts = parts.iter();
            let Some(first) = parts.next() else { return Ok(None) };
            let Some(mut rows) = exact_rows_of(index, first)? else { return Ok(None) };
            for part in parts {
                let Some(more) = exact_rows_of(index, part)? else { return Ok(None) };
                rows.intersect(&more);
            }
            Ok(Some(rows))
        }
        Prefilter::Or(parts) => {
            let mut rows = RowSet::new();
            for part in parts {
                let Some(more) = exact_rows_of(index, part)? else { return Ok(None) };
                rows.unite(&more);
            }
            Ok(Some(rows))
        }
    }
}
