//! Which spans a tag request speaks of: those in a time range that a query finds, if there is one.
//!
//! What is one filter on a span asks each span for its own time, other queries the whole trace for
//! its; without a query whole sources are taken or left. So the pieces in which a trace lies do not
//! matter.
//!
//! The query is read leniently, as editors send it while the user still types. What is one filter
//! on a span is judged span by span, wherever the span lies. Everything else is judged on whole
//! traces, so traces that may lie in several places are left to the root; and so is every query, if
//! what is asked for is said of whole traces, as the name of their root.

use std::sync::Arc;

use clew_model::UnixNanos;
use clew_traceql::ast::{self, Body, MetricsExpr, SpansetExpr, Stage};
use clew_traceql::eval::Filter;
use clew_traceql::plan::prefilter;
use clew_traceql::{EvalError, FieldExpr, FieldRef, tag_filter};

use crate::decisive::decides;
use crate::ids::SplitSet;
use crate::pipeline::{Decoded, Pipeline};
use crate::plan::plain_filter;
use crate::source::{Selection, TimeRange};
use crate::tags::TagField;
use crate::view::{TraceView, span_values};

/// Which spans count.
pub(super) struct Restriction {
    pub(super) range: TimeRange,
    pub(super) filter: Option<TagFilter>,
}

/// The query of a tag request.
pub(super) struct TagFilter {
    pub(super) judge: Judge,
    pub(super) selection: Arc<Selection>,
    /// Whether an index can decide it, if all its lookups are exact.
    pub(super) indexed: bool,
}

/// What tells the spans of a trace that count.
#[derive(Clone)]
pub(super) enum Judge {
    /// Each span by itself, also whether it lies in the range.
    Filter(Arc<Filter>, TimeRange),
    Pipeline(Arc<Pipeline>),
}

/// A query as far as it can be read.
enum Wanted {
    Everything,
    Spans(FieldExpr),
    Traces(ast::Pipeline),
}

impl Wanted {
    /// `whole` if what is asked for is said of whole traces.
    fn of(query: &str, whole: bool) -> Wanted {
        let of_filter = |filter: Option<FieldExpr>| match filter {
            None => Wanted::Everything,
            Some(filter) if whole => {
                let spansets = SpansetExpr::Filter(filter);
                Wanted::Traces(ast::Pipeline { stages: vec![Stage::Spanset(spansets)] })
            }
            Some(filter) => Wanted::Spans(filter),
        };
        let pipeline = match clew_traceql::parse(query).map(|query| query.body) {
            Ok(Body::Search(pipeline)) => pipeline,
            Ok(Body::Metrics(MetricsExpr::Query(query))) => query.pipeline,
            Ok(Body::Metrics(_)) | Err(_) => {
                return of_filter(tag_filter(query));
            }
        };
        match plain_filter(&pipeline) {
            Some(filter) if !filter.fields().iter().any(needs_trace) => {
                of_filter(tag_filter(query))
            }
            _ => Wanted::Traces(pipeline),
        }
    }
}

/// Whether other spans of the trace have a say in the field's value.
fn needs_trace(field: &FieldRef) -> bool {
    match field {
        FieldRef::Intrinsic { intrinsic, .. } => intrinsic.is_trace_level(),
        FieldRef::Attribute { parent, .. } => *parent,
        FieldRef::Parent => true,
    }
}

/// Whether the query of a tag request, for the values of `field` if it is for values, is judged on
/// whole traces, so that those that may lie in several places have to be gathered.
pub fn tag_query_needs_traces(query: &str, field: Option<&TagField>) -> bool {
    matches!(Wanted::of(query, is_of_trace(field)), Wanted::Traces(_))
}

fn is_of_trace(field: Option<&TagField>) -> bool {
    field.is_some_and(TagField::is_of_trace)
}

impl Restriction {
    /// Text that is no query restricts nothing.
    pub(super) fn new(
        query: &str,
        field: Option<&TagField>,
        (start, end): (u64, u64),
        split: SplitSet,
    ) -> Restriction {
        let range = TimeRange::from_request(start, end);
        let selection = |conditions, fragment, split, pipeline| {
            Arc::new(Selection {
                conditions,
                fragment,
                range,
                min_duration: 0,
                split,
                decisive: false,
                limit: usize::MAX,
                pipeline,
            })
        };
        let filter = match Wanted::of(query, is_of_trace(field)) {
            Wanted::Everything => None,
            Wanted::Spans(filter) => {
                let condition = prefilter(&filter);
                let none = SplitSet::default();
                Some(TagFilter {
                    indexed: decides(&condition, &filter),
                    judge: Judge::Filter(Arc::new(Filter::new(&filter)), range),
                    selection: selection(vec![condition.clone()], condition, none, None),
                })
            }
            Wanted::Traces(pipeline) => {
                let pipeline = Arc::new(Pipeline::new(&pipeline));
                let fragment = pipeline.condition().fragment(pipeline.filters());
                Some(TagFilter {
                    indexed: false,
                    judge: Judge::Pipeline(Arc::clone(&pipeline)),
                    selection: selection(Vec::new(), fragment, split, Some(pipeline)),
                })
            }
        };
        Restriction { range, filter }
    }
}

impl Judge {
    /// The places of the spans that count.
    pub(super) fn spans(&self, view: &TraceView<'_>) -> Result<Vec<usize>, EvalError> {
        let mut found = Vec::new();
        match self {
            Judge::Filter(filter, range) => {
                for at in 0..view.spans().len() {
                    let Some(values) = span_values(view, at) else { continue };
                    let span = values.span();
                    let end = span.start_unix_nanos.saturating_add(span.duration_nanos());
                    let inside = range.overlaps(UnixNanos(span.start_unix_nanos), UnixNanos(end));
                    if inside && filter.matches(&values)? {
                        found.push(at);
                    }
                }
            }
            Judge::Pipeline(pipeline) => {
                let sets = pipeline.run(&Decoded { pipeline, view })?;
                found.extend(sets.into_iter().flat_map(|set| set.spans).map(|at| at as usize));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_other_spans_needs_whole_traces() {
        for query in [
            "{} >> {}",
            "{ .a } | count() > 1",
            "{ rootName = `a` }",
            "{ .a } && { .b }",
            "{ parent.a = 1 }",
            "{ nestedSetParent < 0 }",
            "{ .a } >> { .b } | rate()",
        ] {
            assert!(tag_query_needs_traces(query, None), "{query}");
        }
        for query in [
            "",
            "{}",
            "{ .a = 1 }",
            "{ .a = 1 && .b = }",
            "{ .a } | select(.b)",
            "{ .a",
            "{ .a } | rate()",
            "nonsense",
            "({} | rate()) / 2",
        ] {
            assert!(!tag_query_needs_traces(query, None), "{query}");
        }
    }

    #[test]
    fn what_is_said_of_whole_traces_needs_them_unless_nothing_is_left_out() {
        let root_name = TagField::parse("rootName").unwrap();
        for (query, needs) in [("{ .a = 1 }", true), ("{ .a = 1 && .b = }", true), ("{}", false)] {
            assert_eq!(tag_query_needs_traces(query, Some(&root_name)), needs, "{query}");
        }
        let name = TagField::parse("name").unwrap();
        assert!(!tag_query_needs_traces("{ .a = 1 }", Some(&name)));
    }
}
