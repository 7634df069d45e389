//! Which fields a query mentions: a search answer shows them on every matched span.

use crate::ast::{
    Aggregate, Body, FieldExpr, MetricsExpr, MetricsFunction, MetricsQuery, Pipeline, Query,
    ScalarExpr, SpansetExpr, Stage,
};
use crate::field::FieldRef;

/// The fields a query mentions or selects, each once, in the order of their first mention. Two
/// spellings of one intrinsic are one field; `.a` and `span.a` are two.
pub fn referenced_fields(query: &Query) -> Vec<FieldRef> {
    let mut found = Found::default();
    match &query.body {
        Body::Search(pipeline) => found.pipeline(pipeline),
        Body::Metrics(metrics) => found.metrics(metrics),
    }
    found.fields
}

impl FieldExpr {
    /// The fields the expression mentions, each once, in the order of their first mention.
    pub fn fields(&self) -> Vec<FieldRef> {
        let mut found = Found::default();
        found.expr(self);
        found.fields
    }
}

#[derive(Default)]
struct Found {
    fields: Vec<FieldRef>,
    seen: std::collections::HashSet<FieldRef>,
}

impl Found {
    fn field(&mut self, field: &FieldRef) {
        let canonical = match field {
            FieldRef::Intrinsic { intrinsic, .. } => FieldRef::intrinsic(*intrinsic),
            other => other.clone(),
        };
        if self.seen.insert(canonical) {
            self.fields.push(field.clone());
        }
    }

    fn expr(&mut self, expr: &FieldExpr) {
        match expr {
            FieldExpr::Literal(_) => {}
            FieldExpr::Field(field) => self.field(field),
            FieldExpr::Not(inner) | FieldExpr::Negate(inner) => self.expr(inner),
            FieldExpr::Match { value, .. } => self.expr(value),
            FieldExpr::Arithmetic { left, right, .. } | FieldExpr::Compare { left, right, .. } => {
                self.expr(left);
                self.expr(right);
            }
            FieldExpr::And(terms) | FieldExpr::Or(terms) => {
                terms.iter().for_each(|term| self.expr(term));
            }
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline) {
        for stage in &pipeline.stages {
            match stage {
                Stage::Spanset(spanset) => self.spanset(spanset),
                Stage::Scalar(filter) => {
                    self.scalar(&filter.left);
                    self.scalar(&filter.right);
                }
                Stage::By(expr) => self.expr(expr),
                Stage::Coalesce => {}
                Stage::Select(fields) => fields.iter().for_each(|field| self.field(field)),
            }
        }
    }

    fn spanset(&mut self, spanset: &SpansetExpr) {
        match spanset {
            SpansetExpr::Filter(filter) => self.expr(filter),
            SpansetExpr::Pipeline(pipeline) => self.pipeline(pipeline),
            SpansetExpr::Binary { left, right, .. } => {
                self.spanset(left);
                self.spanset(right);
            }
        }
    }

    fn scalar(&mut self, scalar: &ScalarExpr) {
        match scalar {
            ScalarExpr::Literal(_) => {}
            ScalarExpr::Aggregate(aggregate) => self.aggregate(aggregate),
            ScalarExpr::Pipeline(pipeline, aggregate) => {
                self.pipeline(pipeline);
                self.aggregate(aggregate);
            }
            ScalarExpr::Arithmetic { left, right, .. } => {
                self.scalar(left);
                self.scalar(right);
            }
        }
    }

    fn aggregate(&mut self, aggregate: &Aggregate) {
        match aggregate {
            Aggregate::Count => {}
            Aggregate::Avg(expr)
            | Aggregate::Min(expr)
            | Aggregate::Max(expr)
            | Aggregate::Sum(expr) => self.expr(expr),
        }
    }

    fn metrics(&mut self, metrics: &MetricsExpr) {
        match metrics {
            MetricsExpr::Query(query) => self.metrics_query(query),
            MetricsExpr::Number(_) => {}
            MetricsExpr::Arithmetic { left, right, .. } => {
                self.metrics(left);
                self.metrics(right);
            }
            MetricsExpr::Rank { input, .. } | MetricsExpr::Threshold { input, .. } => {
                self.metrics(input);
            }
        }
    }

    fn metrics_query(&mut self, query: &MetricsQuery) {
        self.pipeline(&query.pipeline);
        if let Some(field) = query.function.field() {
            self.field(field);
        }
        if let MetricsFunction::Compare { selection, .. } = &query.function {
            self.expr(selection);
        }
        query.by.iter().for_each(|field| self.field(field));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        let query = crate::parse(text).unwrap();
        referenced_fields(&query).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn fields_keep_their_spelling_and_order() {
        assert_eq!(
            of("{ span.b = 1 && .a > duration && span:duration > 1s && .a } | select(name, .c)"),
            ["span.b", ".a", "duration", "name", ".c"]
        );
        assert_eq!(of("{} | avg(span.x) > 1 | by(resource.y)"), ["span.x", "resource.y"]);
        assert_eq!(
            of("({ .a } | rate() by(.b)) / ({ .c } | max_over_time(.d))"),
            [".a", ".b", ".c", ".d"]
        );
        assert!(of("{}").is_empty());
    }

    #[test]
    fn answers_are_keyed_without_scope() {
        let keys: Vec<String> = referenced_fields(
            &crate::parse("{ resource.service.name != nil && span:id != nil && span:name != `` }")
                .unwrap(),
        )
        .iter()
        .map(|field| field.key().to_owned())
        .collect();
        assert_eq!(keys, ["service.name", "span:id", "name"]);
    }
}
