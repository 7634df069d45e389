//! Running a pipeline on one trace.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use clew_traceql::EvalError;
use clew_traceql::value::{Static, compare_any};

use super::aggregate::{Tally, scalar};
use super::relate::related;
use super::{Pipeline, SPANSETS_MAX, ScalarFilter, Spans, Spanset, Spansets, Stage};

impl Pipeline {
    /// The spansets that are left of the trace; none if it does not match.
    ///
    /// # Errors
    /// [`EvalError`] when the query does not fit the data.
    pub(crate) fn run(&self, trace: &dyn Spans) -> Result<Vec<Spanset>, EvalError> {
        if trace.count() == 0 {
            return Ok(Vec::new());
        }
        // Most queries begin with filters, for which "all spans" need not be written down.
        match self.stages.split_first() {
            Some((Stage::Spansets(first), rest)) => stages(rest, apply(first, None, trace)?, trace),
            _ => stages(&self.stages, vec![everything(trace)], trace),
        }
    }
}

/// All spans of a trace.
fn everything(trace: &dyn Spans) -> Spanset {
    Spanset { spans: (0..trace.count()).collect(), attributes: Vec::new() }
}

/// What the stages leave of the spansets.
pub(super) fn stages(
    stages: &[Stage],
    mut sets: Vec<Spanset>,
    trace: &dyn Spans,
) -> Result<Vec<Spanset>, EvalError> {
    for stage in stages {
        if sets.is_empty() {
            break;
        }
        sets = match stage {
            Stage::Spansets(spansets) => {
                let mut left = Vec::with_capacity(sets.len());
                for set in sets {
                    left.append(&mut apply(spansets, Some(set), trace)?);
                }
                left
            }
            Stage::Scalar(filter) => {
                let mut left = Vec::with_capacity(sets.len());
                for set in sets {
                    left.extend(compare(filter, set, trace)?);
                }
                left
            }
            Stage::By { label, value } => group(label, *value, &sets, trace)?,
            Stage::Coalesce => vec![Spanset { spans: united(&sets), attributes: Vec::new() }],
        };
        if sets.len() > SPANSETS_MAX {
            return Err(EvalError::TooManySpansets { limit: SPANSETS_MAX });
        }
    }
    Ok(sets)
}

/// What an expression leaves of one spanset, or of all spans. What it combines keeps the attributes of the spanset
/// it was applied to.
fn apply(
    spansets: &Spansets,
    within: Option<Spanset>,
    trace: &dyn Spans,
) -> Result<Vec<Spanset>, EvalError> {
    let (left, right) = match spansets {
        Spansets::Filter(filter) => {
            let spans = trace.passing(*filter, within.as_ref().map(|set| set.spans.as_slice()))?;
            let attributes = within.map(|set| set.attributes).unwrap_or_default();
            return Ok(some(Spanset { spans, attributes }));
        }
        Spansets::Pipeline(inner) => {
            let within = within.unwrap_or_else(|| everything(trace));
            return stages(inner, vec![within], trace);
        }
        Spansets::Both(left, right)
        | Spansets::Either(left, right)
        | Spansets::Related { left, right, .. } => (left, right),
    };
    let mut left = apply(left, within.clone(), trace)?;
    if left.is_empty() && matches!(spansets, Spansets::Both(..)) {
        return Ok(Vec::new());
    }
    let mut right = apply(right, within.clone(), trace)?;
    let spans = match spansets {
        Spansets::Related { how, .. } => {
            if left.len() > 1 || right.len() > 1 {
                return Err(EvalError::SeveralSpansets { operator: how.operator });
            }
            let spans = |sets: &mut Vec<Spanset>| sets.pop().map_or(Vec::new(), |set| set.spans);
            let (left, right) = (spans(&mut left), spans(&mut right));
            related(*how, &left, right, trace)
        }
        Spansets::Both(..) if right.is_empty() => Vec::new(),
        _ => {
            left.append(&mut right);
            united(&left)
        }
    };
    let attributes = within.map(|set| set.attributes).unwrap_or_default();
    Ok(some(Spanset { spans, attributes }))
}

fn some(set: Spanset) -> Vec<Spanset> {
    if set.spans.is_empty() { Vec::new() } else { vec![set] }
}

/// The spans of all of them, each once.
pub(super) fn united(sets: &[Spanset]) -> Vec<u32> {
    match sets {
        [set] => set.spans.clone(),
        _ => {
            let mut spans: Vec<u32> = sets.iter().flat_map(|set| &set.spans).copied().collect();
            spans.sort_unstable();
            spans.dedup();
            spans
        }
    }
}

/// The spanset, or what of it the scalars were worked out from, if the comparison holds.
fn compare(
    filter: &ScalarFilter,
    mut set: Spanset,
    trace: &dyn Spans,
) -> Result<Option<Spanset>, EvalError> {
    let mut tally = Tally::default();
    let left = scalar(&filter.left, &set, trace, &mut tally)?;
    let right = scalar(&filter.right, &set, trace, &mut tally)?;
    if !compare_any(filter.op, &left, &right) {
        return Ok(None);
    }
    if !tally.whole {
        set.spans = united(&tally.found);
    }
    for (label, value) in tally.attributes {
        match set.attributes.iter_mut().find(|(known, _)| *known == label) {
            Some((_, known)) => *known = value,
            None => set.attributes.push((label, value)),
        }
    }
    Ok((!set.spans.is_empty()).then_some(set))
}

/// Splits every spanset by a value; groups come in the order of their first spans.
fn group(
    label: &Arc<str>,
    value: usize,
    sets: &[Spanset],
    trace: &dyn Spans,
) -> Result<Vec<Spanset>, EvalError> {
    let mut groups: Vec<Spanset> = Vec::new();
    for set in sets {
        let mut places: HashMap<String, usize> = HashMap::new();
        for span in &set.spans {
            let value = trace.value(value, *span)?;
            let place = match places.entry(key(&value)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    if groups.len() >= SPANSETS_MAX {
                        return Err(EvalError::TooManySpansets { limit: SPANSETS_MAX });
                    }
                    let mut attributes = set.attributes.clone();
                    attributes.push((Arc::clone(label), value));
                    groups.push(Spanset { spans: Vec::new(), attributes });
                    *new.insert(groups.len() - 1)
                }
            };
            groups[place].spans.push(*span);
        }
    }
    Ok(groups)
}

/// Values that are told apart: the integer 1 and the text 1 are two groups.
fn key(value: &Static) -> String {
    match value {
        Static::String(text) => format!("s{text}"),
        other => format!("{}:{other}", other.type_name()),
    }
}
