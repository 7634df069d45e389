//! Which traces of one source may match, worked out on its index: the same code for heads and
//! blocks.

mod newest;
mod piece;
mod pipeline;

use std::cmp::Reverse;
use std::sync::Arc;

use clew_block::{BlockError, LookupResult, RowSet};
use clew_model::UnixNanos;
use clew_traceql::plan::{Condition, Field, Intrinsic, Prefilter, Scope};

pub(crate) use self::piece::{CutPiece, CutPieces, cut_pieces};
use crate::source::{Candidate, Selected, Selection, TimeRange};
use crate::structure::Parent;

/// The index of a source as far as selecting needs it.
pub(crate) trait RowIndex {
    /// The rows that can pass a condition.
    fn lookup(&self, condition: &Condition) -> Result<LookupResult, BlockError>;

    /// Keeps those of the rows that can pass a condition, and tells whether all of them do; `None`
    /// if a lookup is no dearer.
    fn filter(&self, condition: &Condition, rows: &mut RowSet) -> Option<bool>;

    /// How many trace ordinals there are.
    fn trace_count(&self) -> u32;

    /// The ordinals of the traces that have one of the rows.
    fn traces_of(&self, rows: &RowSet) -> RowSet;

    /// The trace of an ordinal; `None` if this read sees no span of it.
    fn candidate(&self, ordinal: u32) -> Option<Candidate>;

    /// Adds the rows of a trace.
    fn add_rows(&self, ordinal: u32, rows: &mut RowSet);

    /// Whether a trace has one of the rows.
    fn has_row(&self, ordinal: u32, rows: &RowSet) -> bool;

    /// For every [`clew_block::NEWEST_STEP`] traces in the order of their ordinals a time after
    /// which none of them starts, in nanoseconds since the epoch. Empty if ordinals do not follow
    /// time.
    fn newest_starts(&self) -> &[u64] {
        &[]
    }

    /// The ordinal of a trace.
    fn find(&self, id: &clew_model::TraceId) -> Option<u32>;

    /// Whether the rows of a trace lie far from each other.
    fn is_scattered(&self) -> bool {
        false
    }

    /// The spans of a trace; `None` if only decoding tells.
    fn trace_rows(&self, ordinal: u32) -> Option<Box<dyn TraceRows + '_>>;

    /// How long a row's span lasts, in nanoseconds.
    fn duration(&self, row: u32) -> Option<u64>;

    /// When a row's span starts and ends, in nanoseconds since the epoch.
    fn start_end(&self, row: u32) -> Option<(u64, u64)>;
}

/// The spans of one trace of an index, each once, by their places in an order that stays.
pub(crate) trait TraceRows {
    /// How many there are.
    fn count(&self) -> u32;

    /// The row of a span.
    fn row(&self, place: u32) -> u32;

    /// The places of the spans that have one of the rows, ascending.
    fn places(&self, rows: &FilterRows) -> Vec<u32>;

    /// The id of a span.
    fn span_id(&self, place: u32) -> Option<[u8; 8]>;

    /// Where a span's parent is.
    fn parent(&self, place: u32) -> Parent;

    /// The id of a parent that is missing, if the index knows it.
    fn absent_parent(&self, place: u32) -> Option<[u8; 8]>;
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

    /// None for all.
    fn into_filter(self, index: &impl RowIndex) -> Option<FilterRows> {
        match self {
            Set::All => None,
            Set::Some(rows) => Some(FilterRows::new(rows, index)),
        }
    }
}

/// The rows that pass a filter, of which every trace is asked for a few. Also as bits where those are
/// scattered: a set that is not dense searches for each.
pub(crate) struct FilterRows {
    rows: RowSet,
    bits: Vec<u64>,
}

impl FilterRows {
    fn new(rows: RowSet, index: &impl RowIndex) -> FilterRows {
        let mut bits = Vec::new();
        if index.is_scattered() {
            for row in rows.iter() {
                let word = row as usize / 64;
                if word >= bits.len() {
                    bits.resize(word + 1, 0);
                }
                bits[word] |= 1u64 << (row % 64);
            }
        }
        FilterRows { rows, bits }
    }

    /// Whether a row passes.
    pub(crate) fn contains(&self, row: u32) -> bool {
        if self.bits.is_empty() {
            return self.rows.contains(row);
        }
        self.bits.get(row as usize / 64).is_some_and(|word| word & (1u64 << (row % 64)) != 0)
    }

    /// Those of the rows that pass, ascending.
    pub(crate) fn range(&self, rows: std::ops::Range<u32>) -> impl Iterator<Item = u32> + '_ {
        self.rows.range(rows)
    }
}

/// The traces of the source that may match.
pub(crate) fn select(index: &impl RowIndex, selection: &Selection) -> Result<Selected, BlockError> {
    if let Some(pipeline) = &selection.pipeline {
        return pipeline::select(index, selection, pipeline);
    }
    let may_decide = selection.decisive && selection.conditions.len() == 1;
    let mut whole = Set::All;
    for condition in &selection.conditions {
        let found = rows_of(index, condition)?;
        let traces = match found.set {
            Set::All => Set::All,
            Set::Some(rows) if may_decide && found.exact => {
                return select_exactly(index, selection, rows);
            }
            Set::Some(rows) => Set::Some(index.traces_of(&rows)),
        };
        whole = whole.intersect(traces);
        if whole.is_empty() {
            break;
        }
    }
    let whole = whole_traces(index, selection, whole);
    let split = split_traces(index, selection)?;
    Ok(Selected { whole, split, ..Selected::default() })
}

/// The newest of the traces that have one of the rows, all of which match.
fn select_exactly(
    index: &impl RowIndex,
    selection: &Selection,
    rows: RowSet,
) -> Result<Selected, BlockError> {
    let (whole, cut) = match newest::newest(index, selection, &rows) {
        Some(newest) => newest,
        None => {
            let traces = Set::Some(index.traces_of(&rows));
            let mut whole = whole_traces(index, selection, traces);
            let cut = whole.len() > selection.limit;
            if cut {
                let rank = |candidate: &Candidate| (Reverse(candidate.start), candidate.id);
                whole.select_nth_unstable_by_key(selection.limit, rank);
                whole.truncate(selection.limit);
            }
            (whole, cut)
        }
    };
    let has_match = |ordinal: &u32| index.has_row(*ordinal, &rows);
    let split = selection.split.ids().iter().filter_map(|id| index.find(id)).filter(has_match);
    let split = split.filter_map(|ordinal| index.candidate(ordinal)).collect();
    Ok(Selected { whole, split, matches: Some(Arc::new(rows)), cut, ..Selected::default() })
}

/// Whether a trace that lies here alone can be in the answer by its times.
fn wanted(selection: &Selection, candidate: &Candidate) -> bool {
    selection.range.overlaps(candidate.start, candidate.end)
        && candidate.end.0.saturating_sub(candidate.start.0) >= selection.min_duration
        && !selection.split.contains(&candidate.id)
}

fn whole_traces(index: &impl RowIndex, selection: &Selection, traces: Set) -> Vec<Candidate> {
    let wanted = |candidate: &Candidate| wanted(selection, candidate);
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
    let traces = match rows_of(index, &selection.fragment)?.set {
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

/// Rows that can pass a prefilter.
struct Found {
    set: Set,
    /// Whether all of them pass.
    exact: bool,
}

/// The rows that can pass a prefilter.
fn rows_of(index: &impl RowIndex, prefilter: &Prefilter) -> Result<Found, BlockError> {
    match prefilter {
        Prefilter::All => Ok(Found { set: Set::All, exact: false }),
        Prefilter::None => Ok(Found { set: Set::Some(RowSet::new()), exact: true }),
        Prefilter::Condition(condition) => {
            let LookupResult { rows, exact } = index.lookup(condition)?;
            Ok(Found { set: Set::Some(rows), exact })
        }
        Prefilter::And(parts) => {
            let mut all = Found { set: Set::All, exact: !parts.is_empty() };
            // What needs a pass over all rows comes last, when there may be few rows left.
            let (last, first): (Vec<_>, Vec<_>) = parts.iter().partition(|part| is_scan(part));
            for part in first.into_iter().chain(last) {
                if let (Prefilter::Condition(condition), Set::Some(rows)) = (part, &mut all.set)
                    && let Some(exact) = index.filter(condition, rows)
                {
                    all.exact &= exact;
                    continue;
                }
                let found = rows_of(index, part)?;
                all.set = all.set.intersect(found.set);
                all.exact &= found.exact;
                if all.set.is_empty() {
                    all.exact = true;
                    break;
                }
            }
            Ok(all)
        }
        Prefilter::Or(parts) => {
            let mut rows = RowSet::new();
            let mut exact = true;
            let mut before = None;
            for part in parts {
                let found = rows_of(index, part)?;
                exact &= found.exact;
                match found.set {
                    Set::All => return Ok(Found { set: Set::All, exact: false }),
                    Set::Some(more) => {
                        // A span's own value, whatever it is, hides that of its resource.
                        exact &=
                            !before.is_some_and(|span| is_unscoped(span, part)) || more.is_empty();
                        rows.unite(&more);
                    }
                }
                before = Some(part);
            }
            Ok(Found { set: Set::Some(rows), exact })
        }
    }
}

fn is_scan(part: &Prefilter) -> bool {
    matches!(
        part,
        Prefilter::Condition(Condition { field: Field::Intrinsic(Intrinsic::Duration), .. })
    )
}

/// Whether these are the two places of an unscoped attribute. They are neighbours, also among the
/// alternatives of a larger condition, which are one list.
fn is_unscoped(span: &Prefilter, resource: &Prefilter) -> bool {
    match (span, resource) {
        (Prefilter::Condition(a), Prefilter::Condition(b)) => match (&a.field, &b.field) {
            (Field::Attribute(a, name), Field::Attribute(b, other)) => {
                (*a, *b) == (Scope::Span, Scope::Resource) && name == other
            }
            _ => false,
        },
        _ => false,
    }
}

/// The rows that pass every condition, of spans that overlap the range; `None` if the index cannot
/// tell exactly.
pub(crate) fn exact_rows(
    index: &impl RowIndex,
    selection: &Selection,
) -> Result<Option<RowSet>, BlockError> {
    let mut exact: Option<RowSet> = None;
    for condition in &selection.conditions {
        let Found { set: Set::Some(rows), exact: true } = rows_of(index, condition)? else {
            return Ok(None);
        };
        match &mut exact {
            None => exact = Some(rows),
            Some(exact) => exact.intersect(&rows),
        }
    }
    let Some(mut rows) = exact else { return Ok(None) };
    rows.subtract(&outside(index, &rows, selection.range));
    Ok(Some(rows))
}

/// At least those of the rows whose spans lie outside the range, and none that lies in it.
fn outside(index: &impl RowIndex, rows: &RowSet, range: TimeRange) -> RowSet {
    let (mut outside, mut partly) = (RowSet::new(), RowSet::new());
    for trace in index.traces_of(rows).iter() {
        match index.candidate(trace) {
            Some(known) if range.start <= known.start && known.end <= range.end => {}
            Some(known) if range.overlaps(known.start, known.end) => {
                index.add_rows(trace, &mut partly);
            }
            _ => index.add_rows(trace, &mut outside),
        }
    }
    partly.intersect(rows);
    for row in partly.iter() {
        let inside = index
            .start_end(row)
            .is_some_and(|(start, end)| range.overlaps(UnixNanos(start), UnixNanos(end)));
        if !inside {
            outside.insert(row);
        }
    }
    outside
}
