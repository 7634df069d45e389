//! The filter of a tag lookup, read leniently: editors send it while the user still types.

use crate::ast::{Body, FieldExpr, Pipeline, Query, SpansetExpr, SpansetOp, Stage};
use crate::parser::{parse, parse_lenient_filter};
use crate::plan::Field;
use crate::value::Static;

/// The filter that restricts a tag lookup; `None` is no restriction.
///
/// A matcher that is unfinished or makes no sense counts as true, a query that cannot be used at
/// all as no filter. Structural queries do not restrict. Spans that match the query pass the
/// filter.
pub fn tag_filter(text: &str) -> Option<FieldExpr> {
    let filter = match parse(text) {
        Ok(query) => of_query(&query)?,
        Err(_) => parse_lenient_filter(text).ok()?,
    };
    let filter = simplified(filter);
    (filter != FieldExpr::TRUE).then_some(filter)
}

fn of_query(query: &Query) -> Option<FieldExpr> {
    match &query.body {
        Body::Search(pipeline) => of_pipeline(pipeline),
        Body::Metrics(crate::ast::MetricsExpr::Query(query)) => of_pipeline(&query.pipeline),
        Body::Metrics(_) => None,
    }
}

fn of_pipeline(pipeline: &Pipeline) -> Option<FieldExpr> {
    let mut filters = Vec::new();
    for stage in &pipeline.stages {
        if let Stage::Spanset(spanset) = stage {
            filters.push(of_spanset(spanset)?);
        }
    }
    // Each stage may speak of another event or link, which a single filter cannot say.
    let chooses = |filter: &FieldExpr| {
        filter
            .fields()
            .iter()
            .flat_map(|field| field.fields())
            .any(|field: Field| field.is_event() || field.is_link())
    };
    let mut chosen = false;
    filters.retain(|filter| {
        let keep = !(chosen && chooses(filter));
        chosen |= chooses(filter);
        keep
    });
    Some(FieldExpr::and(filters))
}

/// `{a} && {b}` and `{a} || {b}` both answer spans of either side.
fn of_spanset(spanset: &SpansetExpr) -> Option<FieldExpr> {
    match spanset {
        SpansetExpr::Filter(filter) => Some(filter.clone()),
        SpansetExpr::Binary { op: SpansetOp::And | SpansetOp::Or, left, right } => {
            Some(FieldExpr::or([of_spanset(left)?, of_spanset(right)?]))
        }
        SpansetExpr::Binary { .. } => None,
        SpansetExpr::Pipeline(pipeline) => of_pipeline(pipeline),
    }
}

/// Leaves out terms that are literally true.
fn simplified(filter: FieldExpr) -> FieldExpr {
    match filter {
        FieldExpr::And(terms) => FieldExpr::and(
            terms.into_iter().map(simplified).filter(|term| *term != FieldExpr::TRUE),
        ),
        FieldExpr::Or(terms) => {
            let terms: Vec<FieldExpr> = terms.into_iter().map(simplified).collect();
            if terms.contains(&FieldExpr::Literal(Static::Bool(true))) {
                return FieldExpr::TRUE;
            }
            FieldExpr::or(terms)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<String> {
        tag_filter(text).map(|filter| filter.to_string())
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn complete_filters_restrict() {
        assert_eq!(of("{ .a = 1 }"), some(".a = 1"));
        assert_eq!(of("{ .a = 1 } | select(.b)"), some(".a = 1"));
        assert_eq!(of("{ .a = 1 } | { .b = 2 }"), some(".a = 1 && .b = 2"));
        assert_eq!(of("{ event.a = 1 } | { event.b = 2 }"), some("event.a = 1"));
        assert_eq!(of("{ .a = 1 } && { .b = 2 }"), some(".a = 1 || .b = 2"));
        assert_eq!(of("{ .a = 1 } | rate()"), some(".a = 1"));
    }

    #[test]
    fn unfinished_matchers_count_as_true() {
        assert_eq!(of("{ .a = 1 && .b = }"), some(".a = 1"));
        assert_eq!(of("{ .b = && .a = 1 }"), some(".a = 1"));
        assert_eq!(of("{ .b && }"), some(".b"));
        assert_eq!(of("{ .a = 1 && resource.x }"), some(".a = 1 && resource.x"));
        assert_eq!(of("{ .a = 1 && name }"), some(".a = 1"));
        assert_eq!(of("{ .a = 1 && .b = \"unclosed }"), some(".a = 1"));
        assert_eq!(of("{ .a = 1 && (.b = 2 || .c ="), some(".a = 1"));
        assert_eq!(of("{ .a = 1 && (.b = 2 && .c = )"), some(".a = 1 && .b = 2"));
        assert_eq!(of("{ .a = 1 && .b =~ \"(\" }"), some(".a = 1"));
        assert_eq!(of("{ .a = 1 && duration > }"), some(".a = 1"));
        assert_eq!(of("{ .a = 1 && .b = 1 .c }"), some(".a = 1"));
        assert_eq!(of("{ .a = 1"), some(".a = 1"));
        assert_eq!(of("{ 1 = `a` && .a = 1 }"), some(".a = 1"));
    }

    #[test]
    fn what_cannot_be_used_does_not_restrict() {
        for text in [
            "",
            " ",
            "{}",
            "{ }",
            "{ true }",
            "{",
            "}",
            "{ .a = 1 || .b = }",
            "{ .a = 1 } >> { .b }",
            "nonsense",
            "{ .a = }",
            "{ name }",
            "{ .a = 1 } {",
            "({} | rate()) / 2",
            "{ .a = 1 ) && .b = 2 }",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
