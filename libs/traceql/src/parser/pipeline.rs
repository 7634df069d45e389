//! Pipelines, spansets and scalars. One grammar reads them all, since only after the closing
//! parenthesis it is known whether `(` opened a spanset, a pipeline, a scalar or time series.

use super::{Level, Parsed, Parser, Tall};
use crate::ast::{
    Aggregate, ArithmeticOp, FieldExpr, MetricsExpr, Pipeline, ScalarExpr, ScalarFilter,
    SpansetExpr, SpansetOp, Stage,
};
use crate::check;
use crate::error::Fail;
use crate::value::{CompareOp, Static};

/// Something a pipeline's text can turn out to be.
pub(super) enum Node {
    /// One spanset.
    Spanset(SpansetExpr),
    /// Several stages, or one that is no spanset.
    Search(Pipeline),
    /// A number or an aggregate.
    Scalar(ScalarExpr),
    /// A comparison of scalars.
    ScalarFilter(ScalarFilter),
    /// Time series.
    Metrics(MetricsExpr),
}

type TallNode = Tall<Node>;

impl SpansetExpr {
    pub(super) fn into_pipeline(self) -> Pipeline {
        match self {
            SpansetExpr::Pipeline(pipeline) => *pipeline,
            other => Pipeline { stages: vec![Stage::Spanset(other)] },
        }
    }
}

pub(super) fn scalar_stage(filter: ScalarFilter) -> Pipeline {
    Pipeline { stages: vec![Stage::Scalar(filter)] }
}

impl Node {
    const fn describe(&self) -> &'static str {
        match self {
            Node::Spanset(_) => "a spanset",
            Node::Search(_) => "a pipeline",
            Node::Scalar(_) => "a scalar",
            Node::ScalarFilter(_) => "a scalar filter",
            Node::Metrics(_) => "a metrics query",
        }
    }
}

impl Parser {
    /// Stages joined by `|`.
    pub(super) fn pipeline(&mut self) -> Parsed<TallNode> {
        let mut stages = Vec::new();
        let mut height = 0;
        loop {
            let offset = self.offset();
            if let Some(function) = self.metrics_function()? {
                if stages.is_empty() {
                    let message = "a metrics function needs spans: write `{} | ...` before it";
                    return Err(Fail::new(offset, message));
                }
                let query = self.metrics_query(offset, Pipeline { stages }, function)?;
                let node = self.grown(offset, Node::Metrics(query), height)?;
                return self.second_stages(node);
            }
            let stage = self.stage()?;
            height = height.max(stage.height);
            match stage.tree {
                Node::Spanset(SpansetExpr::Pipeline(inner)) if stages.is_empty() => {
                    // `({a} | {b}) | ...` is the pipeline itself.
                    stages = inner.stages;
                }
                Node::Spanset(spanset) => stages.push(Stage::Spanset(spanset)),
                Node::Search(inner) => {
                    let first = stages.is_empty();
                    self.check_coalesce(offset, first, &inner)?;
                    stages.extend(inner.stages);
                }
                Node::ScalarFilter(filter) => stages.push(Stage::Scalar(filter)),
                Node::Metrics(metrics) if stages.is_empty() => {
                    let node = Tall { tree: Node::Metrics(metrics), height };
                    return self.second_stages(node);
                }
                Node::Metrics(_) => {
                    return Err(Fail::new(offset, "a metrics query cannot follow a pipeline"));
                }
                Node::Scalar(scalar) => return self.scalar_end(offset, stages, scalar, height),
            }
            if !self.eat("|") {
                return Ok(Tall { tree: pipeline_node(stages), height: height + 1 });
            }
        }
    }

    fn check_coalesce(&self, offset: usize, first: bool, stages: &Pipeline) -> Parsed<()> {
        let leads = first && matches!(stages.stages.first(), Some(Stage::Coalesce));
        self.check(offset, || {
            if leads { Err("coalesce() cannot be the first stage".to_owned()) } else { Ok(()) }
        })
    }

    /// A scalar ends a pipeline; what it is compared with stands after the parenthesis.
    fn scalar_end(
        &mut self,
        offset: usize,
        stages: Vec<Stage>,
        scalar: ScalarExpr,
        height: usize,
    ) -> Parsed<TallNode> {
        if stages.is_empty() {
            return Ok(Tall { tree: Node::Scalar(scalar), height });
        }
        match scalar {
            ScalarExpr::Aggregate(aggregate) if self.depth > 0 => {
                let pipeline = Box::new(Pipeline { stages });
                let tree = Node::Scalar(ScalarExpr::Pipeline(pipeline, aggregate));
                self.grown(offset, tree, height)
            }
            _ => {
                let message = "an aggregate or number is no stage; compare it, as in `count() > 2`";
                Err(Fail::new(offset, message))
            }
        }
    }

    /// One stage that is no metrics function.
    fn stage(&mut self) -> Parsed<TallNode> {
        let offset = self.offset();
        let stage = match self.peek_word() {
            Some("by") => {
                self.advance();
                let expr = self.argument()?;
                self.check(offset, || check::group(&expr))?;
                Stage::By(expr)
            }
            Some("coalesce") => {
                self.advance();
                self.expect_no_arguments()?;
                Stage::Coalesce
            }
            Some("select") => {
                self.advance();
                Stage::Select(self.field_list()?)
            }
            _ => return self.combined(Level::Logic),
        };
        let tree = Node::Search(Pipeline { stages: vec![stage] });
        Ok(Tall { tree, height: 1 })
    }

    /// Spansets, scalars and series with the operators between them.
    fn combined(&mut self, least: Level) -> Parsed<TallNode> {
        let mut left = self.operand()?;
        while let Some(symbol) = self.peek_symbol() {
            let Some(level) = Level::of(symbol).filter(|level| *level >= least) else {
                break;
            };
            let offset = self.offset();
            self.advance();
            let next = if level == Level::Power { level } else { level.tighter() };
            let right = self.nested(|parser| parser.combined(next))?;
            let height = left.height.max(right.height);
            let tree = self.combine(offset, symbol, left.tree, right.tree)?;
            left = self.grown(offset, tree, height)?;
        }
        Ok(left)
    }

    fn combine(&self, offset: usize, symbol: &str, left: Node, right: Node) -> Parsed<Node> {
        let spanset_op = SpansetOp::from_text(symbol);
        let compare_op = CompareOp::ALL.into_iter().find(|op| op.as_str() == symbol);
        let arithmetic_op = ArithmeticOp::ALL.into_iter().find(|op| op.as_str() == symbol);
        match (left, right) {
            (Node::Spanset(left), Node::Spanset(right)) if spanset_op.is_some() => {
                let Some(op) = spanset_op else {
                    return Err(Fail::new(offset, "operator is missing"));
                };
                let (left, right) = (Box::new(left), Box::new(right));
                Ok(Node::Spanset(SpansetExpr::Binary { op, left, right }))
            }
            (Node::Scalar(left), Node::Scalar(right)) => match (compare_op, arithmetic_op) {
                (Some(op), _) => {
                    let filter = ScalarFilter { op, left, right };
                    self.check(offset, || check::scalar_filter(&filter))?;
                    Ok(Node::ScalarFilter(filter))
                }
                (None, Some(op)) => {
                    let (left, right) = (Box::new(left), Box::new(right));
                    Ok(Node::Scalar(ScalarExpr::Arithmetic { op, left, right }))
                }
                (None, None) => Err(mismatch(offset, symbol, "a scalar", "a scalar")),
            },
            (left @ (Node::Metrics(_) | Node::Scalar(_)), right @ Node::Metrics(_))
            | (left @ Node::Metrics(_), right @ Node::Scalar(_)) => {
                self.combine_metrics(offset, symbol, left, right)
            }
            (left, right) => Err(mismatch(offset, symbol, left.describe(), right.describe())),
        }
    }

    fn operand(&mut self) -> Parsed<TallNode> {
        let offset = self.offset();
        match self.peek_symbol() {
            Some("{") => {
                let filter = self.braced_filter()?;
                // The filter's own depth is bounded where it is read.
                return Ok(Tall { tree: Node::Spanset(SpansetExpr::Filter(filter)), height: 1 });
            }
            Some("(") => return self.wrapped(),
            _ => {}
        }
        if let Some(aggregate) = self.aggregate()? {
            let tree = Node::Scalar(ScalarExpr::Aggregate(aggregate));
            return Ok(Tall { tree, height: 1 });
        }
        let known = matches!(
            self.peek(),
            crate::lexer::Token::Int(_)
                | crate::lexer::Token::Float(_)
                | crate::lexer::Token::Duration(_)
        );
        if !known && self.peek_symbol() != Some("-") {
            return Err(self.unexpected("`{`, `(`, a number or a function"));
        }
        match self.literal()? {
            value @ (Static::Int(_) | Static::Float(_) | Static::Duration(_)) => {
                Ok(Tall { tree: Node::Scalar(ScalarExpr::Literal(value)), height: 1 })
            }
            _ => Err(Fail::new(offset, "expected a number")),
        }
    }

    fn wrapped(&mut self) -> Parsed<TallNode> {
        self.expect("(")?;
        let inner = self.nested(Parser::pipeline)?;
        self.expect(")")?;
        let Tall { tree, height } = inner;
        let tree = match tree {
            Node::Search(pipeline) => Node::Spanset(SpansetExpr::Pipeline(Box::new(pipeline))),
            Node::ScalarFilter(filter) => {
                Node::Spanset(SpansetExpr::Pipeline(Box::new(scalar_stage(filter))))
            }
            other => other,
        };
        Ok(Tall { tree, height })
    }

    fn aggregate(&mut self) -> Parsed<Option<Aggregate>> {
        let wrap: fn(FieldExpr) -> Aggregate = match self.peek_word() {
            Some("count") => {
                self.advance();
                self.expect_no_arguments()?;
                return Ok(Some(Aggregate::Count));
            }
            Some("avg") => Aggregate::Avg,
            Some("min") => Aggregate::Min,
            Some("max") => Aggregate::Max,
            Some("sum") => Aggregate::Sum,
            _ => return Ok(None),
        };
        let offset = self.offset();
        self.advance();
        let expr = self.argument()?;
        self.check(offset, || check::aggregate(&expr))?;
        Ok(Some(wrap(expr)))
    }
}

/// One spanset stays one; everything else is a pipeline.
fn pipeline_node(mut stages: Vec<Stage>) -> Node {
    match stages.pop() {
        Some(Stage::Spanset(spanset)) if stages.is_empty() => Node::Spanset(spanset),
        Some(Stage::Scalar(filter)) if stages.is_empty() => Node::ScalarFilter(filter),
        Some(last) => {
            stages.push(last);
            Node::Search(Pipeline { stages })
        }
        None => Node::Search(Pipeline { stages }),
    }
}

pub(super) fn mismatch(offset: usize, symbol: &str, left: &str, right: &str) -> Fail {
    Fail::new(offset, format!("operator `{symbol}` does not apply to {left} and {right}"))
}
