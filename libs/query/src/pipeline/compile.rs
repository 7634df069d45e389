//! From the syntax tree to what is run: filters and expressions are compiled and numbered, so that
//! an index can look each of them up once.

use std::sync::Arc;

use clew_traceql::ast::{self, SpansetExpr, SpansetOp};
use clew_traceql::eval::{Expression, Filter};
use clew_traceql::plan::Intrinsic;
use clew_traceql::{FieldExpr, FieldRef};

use super::{
    Aggregate, Function, Leaf, Pipeline, Related, ResultFilters, Scalar, ScalarFilter, Spansets,
    Stage, TraceCondition, condition,
};
use crate::decisive::decides;

impl Pipeline {
    /// Compiles a checked pipeline.
    pub(crate) fn new(pipeline: &ast::Pipeline) -> Pipeline {
        let mut compiler = Compiler { indexed: true, ..Compiler::default() };
        let stages = compiler.stages(pipeline);
        let Compiler { filters, values, indexed, relates } = compiler;
        let condition = condition::of_stages(&stages, &filters);
        let result = ResultFilters::of(&stages);
        Pipeline { stages, filters, values, condition, indexed, relates, result }
    }

    /// Whether it never finds anything.
    pub(crate) fn is_never(&self) -> bool {
        matches!(self.condition, TraceCondition::None)
    }
}

#[derive(Default)]
struct Compiler {
    filters: Vec<Leaf>,
    values: Vec<Expression>,
    indexed: bool,
    relates: bool,
}

impl Compiler {
    fn stages(&mut self, pipeline: &ast::Pipeline) -> Vec<Stage> {
        let mut stages = Vec::with_capacity(pipeline.stages.len());
        for stage in &pipeline.stages {
            stages.push(match stage {
                ast::Stage::Spanset(spanset) => Stage::Spansets(self.spansets(spanset)),
                ast::Stage::Scalar(filter) => Stage::Scalar(ScalarFilter {
                    op: filter.op,
                    left: self.scalar(&filter.left),
                    right: self.scalar(&filter.right),
                }),
                ast::Stage::By(expr) => {
                    // An index describes one spanset of a trace.
                    self.indexed = false;
                    Stage::By { label: Arc::from(format!("by({expr})")), value: self.value(expr) }
                }
                ast::Stage::Coalesce => Stage::Coalesce,
                // What is selected is shown, and changes nothing else.
                ast::Stage::Select(_) => continue,
            });
        }
        stages
    }

    fn spansets(&mut self, spansets: &SpansetExpr) -> Spansets {
        match spansets {
            SpansetExpr::Filter(filter) => Spansets::Filter(self.filter(filter)),
            SpansetExpr::Pipeline(pipeline) => Spansets::Pipeline(self.stages(pipeline)),
            SpansetExpr::Binary { op, left, right } => {
                let (left, right) = (Box::new(self.spansets(left)), Box::new(self.spansets(right)));
                match *op {
                    SpansetOp::And => Spansets::Both(left, right),
                    SpansetOp::Or => Spansets::Either(left, right),
                    SpansetOp::Structural(relation, form) => {
                        self.relates = true;
                        let how = Related { operator: op.as_str(), relation, form };
                        Spansets::Related { how, left, right }
                    }
                }
            }
        }
    }

    fn filter(&mut self, expr: &FieldExpr) -> usize {
        let filter = Filter::new(expr);
        let known = filter.prefilter();
        self.indexed &= filter.is_always() || filter.is_never() || decides(&known, expr);
        let elsewhere = condition::of_parents(expr);
        self.filters.push(Leaf { filter, prefilter: known, elsewhere });
        self.filters.len() - 1
    }

    fn value(&mut self, expr: &FieldExpr) -> usize {
        self.values.push(Expression::new(expr));
        self.values.len() - 1
    }

    fn scalar(&mut self, scalar: &ast::ScalarExpr) -> Scalar {
        match scalar {
            ast::ScalarExpr::Literal(value) => Scalar::Literal(value.clone()),
            ast::ScalarExpr::Aggregate(aggregate) => {
                Scalar::Aggregate(self.aggregate(aggregate, aggregate.to_string()))
            }
            ast::ScalarExpr::Pipeline(pipeline, aggregate) => {
                let stages = self.stages(pipeline);
                Scalar::Pipeline(stages, self.aggregate(aggregate, scalar.to_string()))
            }
            ast::ScalarExpr::Arithmetic { op, left, right } => {
                let (left, right) = (Box::new(self.scalar(left)), Box::new(self.scalar(right)));
                Scalar::Arithmetic { op: *op, left, right }
            }
        }
    }

    fn aggregate(&mut self, aggregate: &ast::Aggregate, label: String) -> Aggregate {
        let (wrap, expr): (fn(usize) -> Function, _) = match aggregate {
            ast::Aggregate::Count => {
                return Aggregate { label: Arc::from(label), function: Function::Count };
            }
            ast::Aggregate::Avg(expr) => (Function::Avg, expr),
            ast::Aggregate::Min(expr) => (Function::Min, expr),
            ast::Aggregate::Max(expr) => (Function::Max, expr),
            ast::Aggregate::Sum(expr) => (Function::Sum, expr),
        };
        let duration = matches!(
            expr,
            FieldExpr::Field(FieldRef::Intrinsic { intrinsic: Intrinsic::Duration, .. })
        );
        self.indexed &= duration;
        Aggregate { label: Arc::from(label), function: wrap(self.value(expr)) }
    }
}
