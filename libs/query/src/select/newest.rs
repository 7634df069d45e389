//! The newest traces that have a row of a set, without a look at all rows of it: traces of a head
//! are numbered in the order of their arrival, so the newest ones are near the end.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use clew_block::{NEWEST_STEP, RowSet};

use super::{RowIndex, wanted};
use crate::search::Rank;
use crate::source::{Candidate, Selection};

/// Sets with fewer rows per trace that is wanted are looked through as a whole.
const ROWS_PER_TRACE: u64 = 64;

/// The newest traces, as many as `selection` wants or all, and whether some were left out. `None`
/// if looking through all rows is as good.
pub(super) fn newest(
    index: &impl RowIndex,
    selection: &Selection,
    rows: &RowSet,
) -> Option<(Vec<Candidate>, bool)> {
    let starts = index.newest_starts();
    let least = (selection.limit as u64).saturating_mul(ROWS_PER_TRACE);
    if starts.is_empty() || selection.limit == 0 || rows.len() < least {
        return None;
    }
    let mut latest = 0;
    let bounds: Vec<u64> = starts
        .iter()
        .map(|start| {
            latest = latest.max(*start);
            latest
        })
        .collect();
    let mut best: BTreeMap<Rank, Candidate> = BTreeMap::new();
    let mut left_out = false;
    // A look at a row costs more here than there, so no more of them than there are in the set.
    let mut looks = rows.len();
    for (step, bound) in bounds.iter().enumerate().rev() {
        let bar = best.last_key_value().map(|(rank, _)| *rank);
        let bar = bar.filter(|_| best.len() >= selection.limit);
        if bar.is_some_and(|(Reverse(start), _)| start.0 > *bound) {
            return Some((best.into_values().collect(), true));
        }
        let first = u32::try_from(step).ok()?.checked_mul(NEWEST_STEP)?;
        let end = first.saturating_add(NEWEST_STEP).min(index.trace_count());
        for ordinal in (first..end).rev() {
            let Some(candidate) = index.candidate(ordinal) else { continue };
            let rank = (Reverse(candidate.start), candidate.id);
            if !wanted(selection, &candidate) || bar.is_some_and(|bar| rank > bar) {
                // What is behind the bar may match: then it is left out.
                left_out |= bar.is_some();
                continue;
            }
            looks = looks.checked_sub(u64::from(candidate.spans))?;
            if index.has_row(ordinal, rows) {
                best.insert(rank, candidate);
                if best.len() > selection.limit {
                    best.pop_last();
                    left_out = true;
                }
            }
        }
    }
    Some((best.into_values().collect(), left_out))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clew_block::{BlockError, LookupResult};
    use clew_model::{TraceId, UnixNanos};
    use clew_traceql::plan::{Condition, Prefilter};
    use proptest::prelude::*;

    use super::*;
    use crate::select::TraceRows;
    use crate::source::TimeRange;

    /// Traces by ordinal: the start, and whether one of its two rows is in the set.
    struct Traces {
        traces: Vec<(u64, bool)>,
        newest_starts: Vec<u64>,
    }

    impl RowIndex for Traces {
        fn lookup(&self, _: &Condition) -> Result<LookupResult, BlockError> {
            unreachable!("the rows are given")
        }

        fn filter(&self, _: &Condition, _: &mut RowSet) -> Option<bool> {
            None
        }

        fn trace_count(&self) -> u32 {
            u32::try_from(self.traces.len()).unwrap()
        }

        fn traces_of(&self, _: &RowSet) -> RowSet {
            unreachable!("not all rows are looked at")
        }

        fn candidate(&self, ordinal: u32) -> Option<Candidate> {
            let (start, _) = self.traces[ordinal as usize];
            let mut id = [0; 16];
            id[12..].copy_from_slice(&(u32::MAX - ordinal).to_be_bytes());
            let (id, start) = (TraceId(id), UnixNanos(start));
            Some(Candidate { ordinal, id, start, end: start, spans: 2 })
        }

        fn add_rows(&self, _: u32, _: &mut RowSet) {}

        fn has_row(&self, ordinal: u32, rows: &RowSet) -> bool {
            rows.contains(ordinal * 2) || rows.contains(ordinal * 2 + 1)
        }

        fn newest_starts(&self) -> &[u64] {
            &self.newest_starts
        }

        fn find(&self, _: &TraceId) -> Option<u32> {
            None
        }

        fn trace_rows(&self, _: u32) -> Option<Box<dyn TraceRows + '_>> {
            None
        }

        fn duration(&self, _: u32) -> Option<u64> {
            None
        }

        fn start_end(&self, _: u32) -> Option<(u64, u64)> {
            None
        }
    }

    fn selection(limit: usize) -> Arc<Selection> {
        let plan = crate::SearchPlan::from_request(&clew_proto::query::v1::SearchRequest {
            query: "{ .a = 1 }".to_owned(),
            limit: u32::try_from(limit).unwrap(),
            ..clew_proto::query::v1::SearchRequest::default()
        });
        let plan = plan.unwrap();
        let mut selection = Selection::clone(plan.selection());
        selection.conditions = vec![Prefilter::All];
        selection.range = TimeRange::ALL;
        Arc::new(selection)
    }

    proptest! {
        /// Starts follow ordinals up to a jitter, as they do where traces come in as they happen.
        #[test]
        fn they_are_the_newest_of_all(
            jitters in prop::collection::vec((0u64..3_000, prop::bool::weighted(0.8)), 1..1_500),
            limit in 1usize..6,
        ) {
            let traces: Vec<(u64, bool)> = (0u64..)
                .zip(jitters)
                .map(|(at, (jitter, matches))| (at * 10 + jitter / 10 * 10, matches))
                .collect();
            let newest_starts = traces
                .chunks(NEWEST_STEP as usize)
                .map(|step| step.iter().map(|(start, _)| *start).max().unwrap())
                .collect();
            let matching = (0u32..).zip(&traces).filter(|(_, (_, matches))| *matches);
            let rows: RowSet = matching.map(|(ordinal, _)| ordinal * 2 + 1).collect();
            let index = Traces { traces, newest_starts };
            let all = (0..index.trace_count()).filter(|ordinal| index.has_row(*ordinal, &rows));
            let mut all: Vec<Candidate> = all.filter_map(|o| index.candidate(o)).collect();
            all.sort_by_key(|candidate| (Reverse(candidate.start), candidate.id));
            if let Some((found, left_out)) = newest(&index, &selection(limit), &rows) {
                prop_assert!(left_out || all.len() <= limit);
                all.truncate(limit);
                prop_assert_eq!(found, all);
            }
        }
    }
}
