//! Which traces of one source may match a pipeline; and, where the index looks every filter up
//! exactly, which do, with the spans that are left of them, without decoding a span.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use clew_block::{BlockError, RowSet};
use clew_proto::common::v1::KeyValue;
use clew_traceql::EvalError;
use clew_traceql::value::Static;

use super::{FilterRows, Found, RowIndex, Set, TraceRows, rows_of, split_traces, whole_traces};
use crate::found::spanset_attributes;
use crate::pipeline::{Pipeline, Spans, TraceCondition};
use crate::source::{Candidate, Selected, Selection};
use crate::structure::{Parent, Structure};

/// The traces of the source that may match.
pub(super) fn select(
    index: &impl RowIndex,
    selection: &Selection,
    pipeline: &Pipeline,
) -> Result<Selected, BlockError> {
    let mut lookups = Lookups { index, pipeline, known: BTreeMap::new() };
    let traces = lookups.traces(pipeline.condition())?;
    let whole = whole_traces(index, selection, traces);
    let split = split_traces(index, selection)?;
    let filters = if selection.decisive && !whole.is_empty() { lookups.all()? } else { None };
    let Some(filters) = filters else {
        return Ok(Selected { whole, split, ..Selected::default() });
    };
    let mut decided = Decided::default();
    let mut candidates = whole.clone();
    candidates.sort_unstable_by_key(|candidate| (Reverse(candidate.start), candidate.id));
    let mut candidates = candidates.into_iter();
    while decided.kept.len() < selection.limit
        && let Some(candidate) = candidates.next()
    {
        if decided.take(candidate, index, pipeline, &filters).is_err() {
            // Whoever judges the traces meets the error again and reports it.
            return Ok(Selected { whole, split, ..Selected::default() });
        }
    }
    decided.rows.sort_unstable();
    Ok(Selected {
        whole: decided.kept,
        split,
        matches: Some(Arc::new(RowSet::from_ascending(&decided.rows))),
        attributes: decided.attributes,
        cut: candidates.next().is_some(),
    })
}

/// The rows of each filter, none for all, if the index looks all of them up exactly.
pub(super) fn exact_filters(
    index: &impl RowIndex,
    pipeline: &Pipeline,
) -> Result<Option<Vec<Option<FilterRows>>>, BlockError> {
    Lookups { index, pipeline, known: BTreeMap::new() }.all()
}

/// The rows of each filter, looked up when first needed.
struct Lookups<'a, I> {
    index: &'a I,
    pipeline: &'a Pipeline,
    known: BTreeMap<usize, Found>,
}

impl<I: RowIndex> Lookups<'_, I> {
    fn rows(&mut self, filter: usize) -> Result<&Found, BlockError> {
        if !self.known.contains_key(&filter) {
            let leaf = &self.pipeline.filters()[filter];
            let found = if leaf.filter.is_always() {
                Found { set: Set::All, exact: true }
            } else {
                rows_of(self.index, &leaf.prefilter)?
            };
            self.known.insert(filter, found);
        }
        Ok(&self.known[&filter])
    }

    fn traces(&mut self, condition: &TraceCondition) -> Result<Set, BlockError> {
        match condition {
            TraceCondition::All => Ok(Set::All),
            TraceCondition::None => Ok(Set::Some(RowSet::new())),
            TraceCondition::Has(filter) => {
                let (index, pipeline) = (self.index, self.pipeline);
                let mut traces = traces_of(index, &self.rows(*filter)?.set);
                for elsewhere in pipeline.filters()[*filter].elsewhere() {
                    let found = rows_of(index, elsewhere)?;
                    traces = traces.intersect(traces_of(index, &found.set));
                }
                Ok(traces)
            }
            TraceCondition::And(parts) => {
                let mut traces = Set::All;
                for part in parts {
                    traces = traces.intersect(self.traces(part)?);
                    if traces.is_empty() {
                        break;
                    }
                }
                Ok(traces)
            }
            TraceCondition::Or(parts) => {
                let mut traces = RowSet::new();
                for part in parts {
                    match self.traces(part)? {
                        Set::All => return Ok(Set::All),
                        Set::Some(more) => traces.unite(&more),
                    }
                }
                Ok(Set::Some(traces))
            }
        }
    }

    /// The rows of every filter, none for all, if all of them are exact.
    fn all(mut self) -> Result<Option<Vec<Option<FilterRows>>>, BlockError> {
        for filter in 0..self.pipeline.filters().len() {
            if !self.rows(filter)?.exact {
                return Ok(None);
            }
        }
        let index = self.index;
        let rows = |found: Found| found.set.into_filter(index);
        Ok(Some(self.known.into_values().map(rows).collect()))
    }
}

fn traces_of(index: &impl RowIndex, rows: &Set) -> Set {
    match rows {
        Set::All => Set::All,
        Set::Some(rows) => Set::Some(index.traces_of(rows)),
    }
}

/// What is known of the candidates so far.
#[derive(Default)]
struct Decided {
    /// Those that match, and those of which only decoding tells.
    kept: Vec<Candidate>,
    rows: Vec<u32>,
    attributes: BTreeMap<clew_model::TraceId, Vec<KeyValue>>,
}

impl Decided {
    fn take(
        &mut self,
        candidate: Candidate,
        index: &impl RowIndex,
        pipeline: &Pipeline,
        filters: &[Option<FilterRows>],
    ) -> Result<(), EvalError> {
        let Some(rows) = index.trace_rows(candidate.ordinal) else {
            self.kept.push(candidate);
            return Ok(());
        };
        let trace = Rows { index, rows, filters, structure: OnceCell::new() };
        // Without groups there is at most one spanset.
        let Some(found) = pipeline.run(&trace)?.pop() else { return Ok(()) };
        self.kept.push(candidate);
        self.rows.extend(found.spans.iter().map(|span| trace.rows.row(*span)));
        if !found.attributes.is_empty() {
            self.attributes.insert(candidate.id, spanset_attributes(&found.attributes));
        }
        Ok(())
    }
}

/// The rows of one trace as the spans of a pipeline.
struct Rows<'a, I> {
    index: &'a I,
    rows: Box<dyn TraceRows + 'a>,
    filters: &'a [Option<FilterRows>],
    structure: OnceCell<Structure>,
}

impl<I: RowIndex> Spans for Rows<'_, I> {
    fn count(&self) -> u32 {
        self.rows.count()
    }

    fn passing(&self, filter: usize, spans: Option<&[u32]>) -> Result<Vec<u32>, EvalError> {
        Ok(match (self.filters.get(filter), spans) {
            (None, _) => Vec::new(),
            (Some(None), Some(spans)) => spans.to_vec(),
            (Some(None), None) => (0..self.count()).collect(),
            (Some(Some(rows)), None) => self.rows.places(rows),
            (Some(Some(rows)), Some(spans)) => {
                let passes = |span: &u32| rows.contains(self.rows.row(*span));
                spans.iter().copied().filter(passes).collect()
            }
        })
    }

    /// Durations are all that an indexed pipeline asks for.
    fn value(&self, _: usize, span: u32) -> Result<Static, EvalError> {
        let nanos = self.index.duration(self.rows.row(span)).unwrap_or(0);
        Ok(Static::Duration(i64::try_from(nanos).unwrap_or(i64::MAX)))
    }

    fn structure(&self) -> &Structure {
        self.structure.get_or_init(|| {
            let parents: Vec<Parent> =
                (0..self.count()).map(|place| self.rows.parent(place)).collect();
            Structure::of(&parents)
        })
    }

    fn parent(&self, span: u32) -> Option<Parent> {
        Some(self.rows.parent(span))
    }
}
