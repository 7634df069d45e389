//! A filter on one whole trace that is asked for by id: its matches stay, and of the other spans
//! those that tell where the matches stand.

use std::collections::VecDeque;

use clew_model::Trace;
use clew_traceql::FieldRef;
use clew_traceql::eval::Filter;
use clew_traceql::plan::Intrinsic;

use crate::QueryError;
use crate::found::JudgeError;
use crate::structure::Structure;
use crate::view::{TraceView, span_values};

/// Which spans of a trace stay.
#[derive(Debug)]
pub struct Prune {
    filter: Filter,
    /// Hops from a match up to ancestors that stay; `None` for all.
    up: Option<u32>,
    /// Hops from a match down to descendants that stay; `None` for all.
    down: Option<u32>,
}

impl Prune {
    /// Keeps what matches `query`, which is one plain filter, and spans so many hops above and below
    /// a match; `None` is any number of hops.
    ///
    /// # Errors
    /// [`QueryError`] of kind invalid when the query is anything else, or asks for what is the same
    /// for the whole trace or changes when spans are left out.
    pub fn new(query: &str, up: Option<u32>, down: Option<u32>) -> Result<Prune, QueryError> {
        let query = clew_traceql::parse(query)?;
        let plain = "must be one filter in braces, without pipelines, operators and metrics";
        let filter = query.as_filter().ok_or_else(|| QueryError::bad("q", plain))?;
        if let Some(field) = filter.fields().iter().find(|field| is_of_trace(field)) {
            let reason = format!("{field} is about the whole trace and cannot be used here");
            return Err(QueryError::bad("q", reason));
        }
        Ok(Prune { filter: Filter::new(filter), up, down })
    }

    /// Whether nothing is left out.
    pub fn keeps_all(&self) -> bool {
        self.filter.is_always()
    }

    /// Leaves out the other spans of a whole trace; how many those were.
    ///
    /// # Errors
    /// [`QueryError`] when the filter does not fit the data or the trace is damaged.
    pub fn apply(&self, trace: &mut Trace) -> Result<usize, QueryError> {
        let kept = self.kept(trace).map_err(|error| match error {
            JudgeError::Evaluate(error) => QueryError::Evaluate(error),
            JudgeError::Damaged(error) => QueryError::Damaged {
                source_name: format!("trace {}", trace.id).into(),
                reason: error.to_string(),
            },
        })?;
        let before = trace.spans.len();
        let mut kept = kept.into_iter();
        trace.spans.retain(|_| kept.next().unwrap_or(false));
        Ok(before - trace.spans.len())
    }

    fn kept(&self, trace: &Trace) -> Result<Vec<bool>, JudgeError> {
        let view = TraceView::new(trace)?;
        let mut matches = Vec::with_capacity(trace.spans.len());
        for at in 0..trace.spans.len() {
            matches.push(match span_values(&view, at) {
                Some(values) => self.filter.matches(&values)?,
                None => false,
            });
        }
        let mut kept = matches.clone();
        add_ancestors(&mut kept, &matches, view.structure(), self.up);
        add_descendants(&mut kept, &matches, view.structure(), self.down);
        view.check()?;
        Ok(kept)
    }
}

/// Hops as a number that counts down; "all" is more than there can be.
fn hops(bound: Option<u32>) -> u64 {
    bound.map_or(u64::MAX, u64::from)
}

fn add_ancestors(kept: &mut [bool], matches: &[bool], structure: &Structure, bound: Option<u32>) {
    // The hops that were left when a span was passed: who has fewer left need not go there again.
    let mut left: Vec<Option<u64>> = vec![None; kept.len()];
    for at in (0..matches.len()).filter(|at| matches[*at]) {
        let (mut at, mut rest) = (at, hops(bound));
        while let Some(more) = rest.checked_sub(1)
            && let Some(parent) = structure.parent(at)
            && left[parent].is_none_or(|passed| passed < more)
        {
            kept[parent] = true;
            left[parent] = Some(more);
            (at, rest) = (parent, if bound.is_none() { u64::MAX } else { more });
        }
    }
}

fn add_descendants(kept: &mut [bool], matches: &[bool], structure: &Structure, bound: Option<u32>) {
    if bound == Some(0) {
        return;
    }
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); kept.len()];
    for at in 0..kept.len() {
        if let Some(parent) = structure.parent(at) {
            children[parent].push(at);
        }
    }
    let mut seen = matches.to_vec();
    let mut next: VecDeque<(usize, u64)> =
        (0..matches.len()).filter(|at| matches[*at]).map(|at| (at, hops(bound))).collect();
    // Nearest first, so every span is reached with the most hops left.
    while let Some((at, rest)) = next.pop_front() {
        let Some(rest) = rest.checked_sub(1) else { continue };
        for child in std::mem::take(&mut children[at]) {
            if !std::mem::replace(&mut seen[child], true) {
                kept[child] = true;
                next.push_back((child, rest));
            }
        }
    }
}

/// Whether a field is one of the trace, or changes when spans are left out.
fn is_of_trace(field: &FieldRef) -> bool {
    match field {
        FieldRef::Intrinsic { intrinsic: Intrinsic::ChildCount, .. } => false,
        FieldRef::Intrinsic { intrinsic: Intrinsic::TraceId, .. } => true,
        FieldRef::Intrinsic { intrinsic, .. } => intrinsic.is_trace_level(),
        FieldRef::Attribute { .. } | FieldRef::Parent => false,
    }
}

#[cfg(test)]
mod tests {
    use clew_model::SpanId;

    use super::*;
    use crate::structure::{Link, parents};

    /// 1 → 2 → 3 → 4, and 1 → 5.
    fn tree() -> Structure {
        let link =
            |id: u8, parent: u8| Link { id: SpanId([id; 8]).0, parent: [parent; 8], kind: 1 };
        let links = [link(1, 0), link(2, 1), link(3, 2), link(4, 3), link(5, 1)];
        Structure::of(&parents(&links, |_, _| true))
    }

    fn around(at: usize, up: Option<u32>, down: Option<u32>) -> Vec<usize> {
        let matches: Vec<bool> = (1..6).map(|id| id == at).collect();
        let mut kept = matches.clone();
        add_ancestors(&mut kept, &matches, &tree(), up);
        add_descendants(&mut kept, &matches, &tree(), down);
        (1..6).filter(|id| kept[id - 1]).collect()
    }

    #[test]
    fn hops_are_counted_from_the_matches() {
        assert_eq!(around(3, Some(0), Some(0)), [3]);
        assert_eq!(around(3, Some(1), Some(0)), [2, 3]);
        assert_eq!(around(4, None, Some(0)), [1, 2, 3, 4]);
        assert_eq!(around(1, None, Some(1)), [1, 2, 5]);
        assert_eq!(around(1, None, Some(2)), [1, 2, 3, 5]);
        assert_eq!(around(1, Some(0), None), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn only_plain_filters_on_spans_prune() {
        for query in [
            "{} | count() > 1",
            "{} >> {}",
            "{} | rate()",
            "{ rootName = `a` }",
            "{ nestedSetLeft = 1 }",
            "{ trace:id = `1` }",
            "{ .a = }",
            "{} && {}",
        ] {
            assert!(Prune::new(query, None, None).is_err(), "{query}");
        }
        assert!(Prune::new("{ span:childCount > 1 && parent.a = 1 }", None, None).is_ok());
        assert!(Prune::new("{ }", None, None).unwrap().keeps_all());
    }
}
