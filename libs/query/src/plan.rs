//! A search, parsed and compiled once: what indexes can look up, what decides on a decoded trace,
//! and what the answer shows.

mod legacy;

use std::sync::Arc;

use clew_model::TraceId;
use clew_proto::query::v1::SearchRequest;
use clew_traceql::ast::{self, Body, Query, SpansetExpr, Stage};
use clew_traceql::eval::{Cursor, Filter, SpanValues};
use clew_traceql::plan::{Condition, Field, Intrinsic, Prefilter, Test, prefilter};
use clew_traceql::{CompareOp, FieldExpr, FieldRef, Static, referenced_fields};

pub(crate) use self::legacy::TagRule;
use crate::QueryError;
use crate::decisive::decides;
use crate::ids::{SplitSet, decode_ids};
use crate::pipeline::Pipeline;
use crate::source::{Selection, TimeRange};

/// What decides whether a whole, merged trace is found.
pub(crate) enum Matcher {
    /// One `{ }` filter, true for at least one span.
    Filter(Filter),
    /// Anything else that TraceQL can say of a trace.
    Pipeline(Arc<Pipeline>),
    /// The legacy form: each rule holds for some span. No rules: every trace.
    Tags(Vec<TagRule>),
}

/// A field that the answer shows for matched spans.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    pub(crate) field: FieldRef,
    /// The query asks for its absence, so absence is shown too.
    pub(crate) absence: bool,
}

/// A compiled search. Cheap to clone.
#[derive(Clone)]
pub struct SearchPlan(Arc<Inner>);

struct Inner {
    matcher: Arc<Matcher>,
    shown: Arc<[Shown]>,
    selection: Arc<Selection>,
    max_duration: u64,
    limit: usize,
    spans_per_spanset: usize,
    empty: bool,
}

impl SearchPlan {
    /// Parses and compiles the request, the set F included.
    ///
    /// # Errors
    /// [`QueryError`] of kind invalid: what is wrong, or not supported yet.
    pub fn from_request(request: &SearchRequest) -> Result<SearchPlan, QueryError> {
        let split = decode_ids(&request.split_ids)?.into_iter().collect();
        SearchPlan::new(request, split)
    }

    fn new(request: &SearchRequest, split: SplitSet) -> Result<SearchPlan, QueryError> {
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        if limit == 0 {
            return Err(QueryError::bad("limit", "must be greater than zero"));
        }
        let range = TimeRange::from_request(request.start_unix_nanos, request.end_unix_nanos);
        if range.start > range.end {
            return Err(QueryError::bad("time range", "end is before start"));
        }
        let (min, max) = (request.min_duration_nanos, request.max_duration_nanos);
        if max != 0 && max < min {
            return Err(QueryError::bad("maxDuration", "is less than minDuration"));
        }
        let compiled = Compiled::of(request)?;
        let selection = Selection {
            conditions: compiled.conditions,
            fragment: compiled.fragment,
            range,
            min_duration: min,
            split,
            decisive: compiled.decisive,
            // A trace that is too long is only found out later.
            limit: if max == 0 { limit } else { usize::MAX },
            pipeline: compiled.pipeline,
        };
        Ok(SearchPlan(Arc::new(Inner {
            empty: selection.conditions.iter().any(|c| matches!(c, Prefilter::None))
                || selection.pipeline.as_ref().is_some_and(|pipeline| pipeline.is_never()),
            matcher: Arc::new(compiled.matcher),
            shown: compiled.shown.into(),
            selection: Arc::new(selection),
            max_duration: if max == 0 { u64::MAX } else { max },
            limit,
            spans_per_spanset: usize::try_from(request.spans_per_spanset).unwrap_or(usize::MAX),
        })))
    }

    /// The same search for the traces outside another set F, which is known only after the cut.
    #[must_use]
    pub fn with_split(&self, ids: impl IntoIterator<Item = TraceId>) -> SearchPlan {
        let mut selection = Selection::clone(&self.0.selection);
        selection.split = ids.into_iter().collect();
        self.with_selection(selection)
    }

    fn with_selection(&self, selection: Selection) -> SearchPlan {
        SearchPlan(Arc::new(Inner {
            matcher: Arc::clone(&self.0.matcher),
            shown: Arc::clone(&self.0.shown),
            selection: Arc::new(selection),
            max_duration: self.0.max_duration,
            limit: self.0.limit,
            spans_per_spanset: self.0.spans_per_spanset,
            empty: self.0.empty,
        }))
    }

    /// The same search, for which sources name all traces that match and not only the newest.
    pub(crate) fn without_cut(&self) -> SearchPlan {
        let mut selection = Selection::clone(&self.0.selection);
        selection.limit = usize::MAX;
        self.with_selection(selection)
    }

    /// Whether nothing can match, so that no source need be read.
    pub fn is_empty(&self) -> bool {
        self.0.empty
    }

    /// How many traces are wanted.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// When the traces must have happened.
    pub fn range(&self) -> TimeRange {
        self.0.selection.range
    }

    /// The set F.
    pub fn split(&self) -> &SplitSet {
        &self.0.selection.split
    }

    pub(crate) fn selection(&self) -> &Arc<Selection> {
        &self.0.selection
    }

    /// A test that the field passes on every span that matches, if the filter has one.
    pub(crate) fn test_on(&self, field: &Field) -> Option<&Test> {
        fn of<'a>(condition: &'a Prefilter, field: &Field) -> Option<&'a Test> {
            match condition {
                Prefilter::Condition(condition) if condition.field == *field => {
                    Some(&condition.test)
                }
                Prefilter::And(parts) => parts.iter().find_map(|part| of(part, field)),
                _ => None,
            }
        }
        self.0.selection.conditions.iter().find_map(|condition| of(condition, field))
    }

    pub(crate) fn matcher(&self) -> &Matcher {
        &self.0.matcher
    }

    /// The event and link through which a span was found, as far as a filter speaks of them.
    pub(crate) fn place(&self, span: &dyn SpanValues) -> Cursor {
        let place = |filter: &Filter| {
            // Judging the span told of errors.
            let place = if filter.chooses() { filter.place(span).ok() } else { None };
            place.flatten()
        };
        let found = match self.matcher() {
            Matcher::Filter(filter) => place(filter),
            Matcher::Pipeline(pipeline) => {
                pipeline.filters().iter().find_map(|leaf| place(&leaf.filter))
            }
            Matcher::Tags(_) => None,
        };
        found.unwrap_or_default()
    }

    /// Whether split traces can be judged by what indexes tell of their pieces.
    pub fn takes_pieces(&self) -> bool {
        let selection = self.selection();
        let looked_up = match self.matcher() {
            Matcher::Filter(_) => selection.conditions.len() == 1,
            Matcher::Pipeline(_) => true,
            Matcher::Tags(_) => false,
        };
        selection.decisive && looked_up
    }

    /// How many filters a piece tells of.
    pub(crate) fn filter_count(&self) -> usize {
        match self.matcher() {
            Matcher::Filter(_) => 1,
            Matcher::Pipeline(pipeline) => pipeline.filters().len(),
            Matcher::Tags(_) => 0,
        }
    }

    /// Whether it matters how spans are related.
    pub(crate) fn relates(&self) -> bool {
        matches!(self.matcher(), Matcher::Pipeline(pipeline) if pipeline.relates())
    }

    /// Which filters the spans that are shown pass, and whether those are the first ones that do.
    pub(crate) fn shown_filters(&self) -> (&[usize], bool) {
        match self.matcher() {
            Matcher::Filter(_) => (&[0], true),
            Matcher::Pipeline(pipeline) => pipeline.result(),
            Matcher::Tags(_) => (&[], true),
        }
    }

    pub(crate) fn shown(&self) -> &[Shown] {
        &self.0.shown
    }

    pub(crate) fn spans_per_spanset(&self) -> usize {
        self.0.spans_per_spanset
    }

    /// Whether a whole trace of this duration in nanoseconds is wanted.
    pub(crate) fn admits_duration(&self, nanos: u64) -> bool {
        (self.0.selection.min_duration..=self.0.max_duration).contains(&nanos)
    }
}

impl std::fmt::Debug for SearchPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SearchPlan")
            .field("selection", &self.0.selection)
            .field("limit", &self.0.limit)
            .finish_non_exhaustive()
    }
}

/// Why a query that is to yield series is refused: for what is wrong with it or, as nothing runs such
/// queries yet, for what it is.
pub fn refuse_metrics_query(query: &str) -> QueryError {
    if query.trim().is_empty() {
        return QueryError::bad("q", "a metrics query is needed, such as {} | rate()");
    }
    match clew_traceql::parse(query) {
        Err(error) => QueryError::Parse(error),
        Ok(Query { body: Body::Search(_), .. }) => {
            QueryError::bad("q", "no metrics query: it has no function such as rate()")
        }
        Ok(Query { body: Body::Metrics(_), .. }) => QueryError::NotSupported { what: METRICS },
    }
}

const METRICS: &str = "TraceQL metrics";

struct Compiled {
    matcher: Matcher,
    conditions: Vec<Prefilter>,
    fragment: Prefilter,
    shown: Vec<Shown>,
    decisive: bool,
    pipeline: Option<Arc<Pipeline>>,
}

impl Compiled {
    fn of(request: &SearchRequest) -> Result<Compiled, QueryError> {
        if !request.tags.is_empty() && !request.query.trim().is_empty() {
            return Err(QueryError::bad("search", "tags and a query exclude each other"));
        }
        if request.query.trim().is_empty() {
            let rules = request.tags.iter().map(|(key, value)| TagRule::new(key, value));
            let rules = rules.collect::<Result<Vec<_>, _>>()?;
            let conditions: Vec<_> = rules.iter().map(TagRule::prefilter).collect();
            // Every rule must hold in some fragment, so any one of them finds all split traces;
            // but every leaf must use the same one, and it must not need the whole trace.
            let fragment =
                conditions.iter().map(of_fragment).find(|c| !matches!(c, Prefilter::All));
            return Ok(Compiled {
                matcher: Matcher::Tags(rules),
                fragment: fragment.unwrap_or(Prefilter::All),
                conditions,
                shown: Vec::new(),
                decisive: false,
                pipeline: None,
            });
        }
        let query = clew_traceql::parse(&request.query)?;
        let Body::Search(pipeline) = &query.body else {
            return Err(QueryError::NotSupported { what: METRICS });
        };
        let shown = shown_fields(&query, pipeline);
        let describable = shown.iter().all(|shown| is_of_span(&shown.field));
        if let Some(filter) = plain_filter(pipeline) {
            let condition = prefilter(filter);
            return Ok(Compiled {
                matcher: Matcher::Filter(Filter::new(filter)),
                fragment: of_fragment(&condition),
                decisive: describable && decides(&condition, filter),
                conditions: vec![condition],
                shown,
                pipeline: None,
            });
        }
        let pipeline = Arc::new(Pipeline::new(pipeline));
        Ok(Compiled {
            fragment: pipeline.condition().fragment(pipeline.filters()),
            conditions: Vec::new(),
            shown,
            decisive: describable && pipeline.is_indexed(),
            matcher: Matcher::Pipeline(Arc::clone(&pipeline)),
            pipeline: Some(pipeline),
        })
    }
}

/// Whether what is shown of a span does not depend on the other spans of its trace.
fn is_of_span(field: &FieldRef) -> bool {
    match field {
        FieldRef::Attribute { parent, .. } => !parent,
        FieldRef::Intrinsic { intrinsic, .. } => !matches!(
            intrinsic,
            Intrinsic::ChildCount
                | Intrinsic::NestedSetLeft
                | Intrinsic::NestedSetRight
                | Intrinsic::NestedSetParent
        ),
        FieldRef::Parent => false,
    }
}

fn shown_fields(query: &Query, pipeline: &ast::Pipeline) -> Vec<Shown> {
    let mut absent = Vec::new();
    for filter in filters_of(pipeline) {
        asked_absent(filter, &mut absent);
    }
    let fields = referenced_fields(query).into_iter();
    fields.map(|field| Shown { absence: absent.contains(&&field), field }).collect()
}

/// The fields that the filter compares with nil for equality.
fn asked_absent<'a>(filter: &'a FieldExpr, absent: &mut Vec<&'a FieldRef>) {
    match filter {
        FieldExpr::And(parts) | FieldExpr::Or(parts) => {
            parts.iter().for_each(|part| asked_absent(part, absent));
        }
        FieldExpr::Compare { op: CompareOp::Eq, left, right } => {
            match (left.as_ref(), right.as_ref()) {
                (FieldExpr::Field(field), FieldExpr::Literal(Static::Nil))
                | (FieldExpr::Literal(Static::Nil), FieldExpr::Field(field)) => absent.push(field),
                _ => {}
            }
        }
        _ => {}
    }
}

/// The filter of a query that is nothing else, but for what it selects to be shown.
pub(crate) fn plain_filter(pipeline: &ast::Pipeline) -> Option<&FieldExpr> {
    let mut stages = pipeline.stages.iter().filter(|stage| !matches!(stage, Stage::Select(_)));
    match (stages.next(), stages.next()) {
        (Some(Stage::Spanset(SpansetExpr::Filter(filter))), None) => {
            let of_parent = filter.fields().iter().any(FieldRef::is_parent);
            (!of_parent).then_some(filter)
        }
        _ => None,
    }
}

/// Every filter of a pipeline.
fn filters_of(pipeline: &ast::Pipeline) -> Vec<&FieldExpr> {
    fn of_spansets<'a>(spansets: &'a SpansetExpr, found: &mut Vec<&'a FieldExpr>) {
        match spansets {
            SpansetExpr::Filter(filter) => found.push(filter),
            SpansetExpr::Pipeline(pipeline) => found.extend(filters_of(pipeline)),
            SpansetExpr::Binary { left, right, .. } => {
                of_spansets(left, found);
                of_spansets(right, found);
            }
        }
    }
    let mut found = Vec::new();
    for stage in &pipeline.stages {
        if let Stage::Spanset(spansets) = stage {
            of_spansets(spansets, &mut found);
        }
    }
    found
}

/// What of a condition can be asked of a fragment: values of the whole trace are unknown there.
pub(crate) fn of_fragment(condition: &Prefilter) -> Prefilter {
    match condition {
        Prefilter::All => Prefilter::All,
        Prefilter::None => Prefilter::None,
        Prefilter::Condition(Condition {
            field:
                Field::Intrinsic(
                    Intrinsic::TraceDuration | Intrinsic::RootName | Intrinsic::RootService,
                ),
            ..
        }) => Prefilter::All,
        Prefilter::Condition(condition) => Prefilter::Condition(condition.clone()),
        Prefilter::And(parts) => {
            let mut parts: Vec<_> = parts.iter().map(of_fragment).collect();
            parts.retain(|part| !matches!(part, Prefilter::All));
            if parts.is_empty() { Prefilter::All } else { Prefilter::And(parts) }
        }
        Prefilter::Or(parts) => {
            let parts: Vec<_> = parts.iter().map(of_fragment).collect();
            let all = parts.iter().any(|part| matches!(part, Prefilter::All));
            if all { Prefilter::All } else { Prefilter::Or(parts) }
        }
    }
}
