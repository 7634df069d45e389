//! Metrics functions and what may follow them.

use super::pipeline::{Node, mismatch};
use super::{Parsed, Parser, Tall};
use crate::ast::{ArithmeticOp, MetricsExpr, MetricsFunction, MetricsQuery, Pipeline, ScalarExpr};
use crate::check;
use crate::error::Fail;
use crate::value::{CompareOp, Static};

impl Parser {
    /// A metrics function, if the next word names one.
    pub(super) fn metrics_function(&mut self) -> Parsed<Option<MetricsFunction>> {
        let offset = self.offset();
        let function = match self.peek_word() {
            Some("rate") => self.without_field(MetricsFunction::Rate)?,
            Some("count_over_time") => self.without_field(MetricsFunction::CountOverTime)?,
            Some("min_over_time") => self.with_field(MetricsFunction::MinOverTime)?,
            Some("max_over_time") => self.with_field(MetricsFunction::MaxOverTime)?,
            Some("avg_over_time") => self.with_field(MetricsFunction::AvgOverTime)?,
            Some("sum_over_time") => self.with_field(MetricsFunction::SumOverTime)?,
            Some("histogram_over_time") => self.with_field(MetricsFunction::HistogramOverTime)?,
            Some("quantile_over_time") => self.quantiles()?,
            Some("compare") => self.compare_function()?,
            _ => return Ok(None),
        };
        self.check(offset, || check::metrics_function(&function))?;
        Ok(Some(function))
    }

    fn without_field(&mut self, function: MetricsFunction) -> Parsed<MetricsFunction> {
        self.advance();
        self.expect_no_arguments()?;
        Ok(function)
    }

    fn with_field(
        &mut self,
        function: fn(crate::field::FieldRef) -> MetricsFunction,
    ) -> Parsed<MetricsFunction> {
        self.advance();
        self.expect("(")?;
        let field = self.field_ref()?;
        self.expect(")")?;
        Ok(function(field))
    }

    fn quantiles(&mut self) -> Parsed<MetricsFunction> {
        self.advance();
        self.expect("(")?;
        let field = self.field_ref()?;
        let mut quantiles = Vec::new();
        while self.eat(",") {
            let offset = self.offset();
            quantiles.push(match self.literal()? {
                Static::Float(value) => value,
                #[allow(clippy::cast_precision_loss, reason = "only 0 and 1 are in range")]
                Static::Int(value) => value as f64,
                _ => return Err(Fail::new(offset, "a quantile is a number from 0 to 1")),
            });
        }
        self.expect(")")?;
        if quantiles.is_empty() {
            return Err(self.fail("quantile_over_time needs at least one quantile"));
        }
        Ok(MetricsFunction::QuantileOverTime(field, quantiles))
    }

    fn compare_function(&mut self) -> Parsed<MetricsFunction> {
        self.advance();
        self.expect("(")?;
        let selection = self.braced_filter()?;
        let mut arguments = Vec::new();
        while self.eat(",") {
            arguments.push(self.integer()?);
        }
        let (top, window) = match *arguments.as_slice() {
            [] => (None, None),
            [top] => (Some(top), None),
            [top, start, end] => (Some(top), Some((start, end))),
            _ => {
                let message = "compare takes a filter, then maybe topN, then maybe start and end";
                return Err(self.fail(message));
            }
        };
        self.expect(")")?;
        Ok(MetricsFunction::Compare { selection, top, window })
    }

    fn integer(&mut self) -> Parsed<i64> {
        let offset = self.offset();
        match self.literal()? {
            Static::Int(value) => Ok(value),
            _ => Err(Fail::new(offset, "expected an integer")),
        }
    }

    /// After a function: its `by(...)`.
    pub(super) fn metrics_query(
        &mut self,
        offset: usize,
        pipeline: Pipeline,
        function: MetricsFunction,
    ) -> Parsed<MetricsExpr> {
        let mut by = Vec::new();
        if self.eat_word("by") {
            by = self.field_list()?;
        }
        let query = MetricsQuery { pipeline, function, by };
        self.check(offset, || check::metrics_query(&query))?;
        Ok(MetricsExpr::Query(Box::new(query)))
    }

    /// After time series: any number of `| topk(n)`, `| bottomk(n)` and comparisons.
    pub(super) fn second_stages(&mut self, node: Tall<Node>) -> Parsed<Tall<Node>> {
        let Tall { tree: Node::Metrics(mut metrics), mut height } = node else {
            return Ok(node);
        };
        loop {
            let offset = self.offset();
            metrics = if self.eat("|") {
                self.rank(metrics)?
            } else if let Some(op) = self.compare_op() {
                self.advance();
                let value = self.literal()?;
                threshold(self, offset, metrics, op, value)?
            } else {
                return Ok(Tall { tree: Node::Metrics(metrics), height });
            };
            let grown = self.grown(offset, metrics, height)?;
            (metrics, height) = (grown.tree, grown.height);
        }
    }

    fn compare_op(&self) -> Option<CompareOp> {
        let symbol = self.peek_symbol()?;
        CompareOp::ALL.into_iter().find(|op| op.as_str() == symbol)
    }

    fn rank(&mut self, input: MetricsExpr) -> Parsed<MetricsExpr> {
        let offset = self.offset();
        let top = match self.peek_word() {
            Some("topk") => true,
            Some("bottomk") => false,
            _ => return Err(self.unexpected("topk or bottomk")),
        };
        self.advance();
        self.expect("(")?;
        let limit = self.integer()?;
        self.expect(")")?;
        self.check(offset, || check::rank(&input, limit))?;
        Ok(MetricsExpr::Rank { input: Box::new(input), top, limit })
    }

    /// An operator of which at least one side is time series.
    pub(super) fn combine_metrics(
        &self,
        offset: usize,
        symbol: &str,
        left: Node,
        right: Node,
    ) -> Parsed<Node> {
        let compare_op = CompareOp::ALL.into_iter().find(|op| op.as_str() == symbol);
        if let Some(op) = compare_op {
            return match (left, right) {
                (Node::Metrics(input), Node::Scalar(ScalarExpr::Literal(value))) => {
                    Ok(Node::Metrics(threshold(self, offset, input, op, value)?))
                }
                _ => Err(Fail::new(offset, "a metrics query compares with a number on its right")),
            };
        }
        let arithmetic_op = ArithmeticOp::ALL.into_iter().find(|op| op.as_str() == symbol);
        let Some(op) = arithmetic_op.filter(|op| is_metrics_op(*op)) else {
            return Err(mismatch(offset, symbol, "metrics queries", "numbers"));
        };
        let left = Box::new(metrics_operand(offset, left)?);
        let right = Box::new(metrics_operand(offset, right)?);
        self.check(offset, || check::metrics_arithmetic(&left, &right))?;
        Ok(Node::Metrics(MetricsExpr::Arithmetic { op, left, right }))
    }
}

const fn is_metrics_op(op: ArithmeticOp) -> bool {
    matches!(op, ArithmeticOp::Add | ArithmeticOp::Sub | ArithmeticOp::Mul | ArithmeticOp::Div)
}

fn threshold(
    parser: &Parser,
    offset: usize,
    input: MetricsExpr,
    op: CompareOp,
    value: Static,
) -> Parsed<MetricsExpr> {
    if !matches!(value, Static::Int(_) | Static::Float(_) | Static::Duration(_)) {
        return Err(Fail::new(offset, "a metrics query compares with a number or a duration"));
    }
    parser.check(offset, || check::threshold(&input))?;
    Ok(MetricsExpr::Threshold { input: Box::new(input), op, value })
}

fn metrics_operand(offset: usize, node: Node) -> Parsed<MetricsExpr> {
    match node {
        Node::Metrics(metrics) => Ok(metrics),
        Node::Scalar(scalar) => constant(offset, scalar),
        _ => Err(Fail::new(offset, "expected a metrics query in parentheses or a number")),
    }
}

fn constant(offset: usize, scalar: ScalarExpr) -> Parsed<MetricsExpr> {
    match scalar {
        ScalarExpr::Literal(value @ (Static::Int(_) | Static::Float(_))) => {
            Ok(MetricsExpr::Number(value))
        }
        ScalarExpr::Arithmetic { op, left, right } if is_metrics_op(op) => {
            let left = Box::new(constant(offset, *left)?);
            let right = Box::new(constant(offset, *right)?);
            Ok(MetricsExpr::Arithmetic { op, left, right })
        }
        ScalarExpr::Literal(_) => {
            Err(Fail::new(offset, "durations do not combine with metrics queries"))
        }
        _ => Err(Fail::new(offset, "expected a metrics query in parentheses or a number")),
    }
}
