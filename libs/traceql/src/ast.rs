//! The syntax tree of a query. What it means is said where it is evaluated; how it is written, in
//! the parser and the printer, which are inverse to each other.
//!
//! Trees are in a normal form that the parser keeps: a conjunction holds no conjunction, a minus
//! before a number literal is part of the literal, parentheses leave no trace.

use std::sync::Arc;

use crate::field::FieldRef;
use crate::pattern::Pattern;
use crate::value::{CompareOp, Static};

/// A whole query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// What is asked for.
    pub body: Body,
    /// `with(name=value, ...)`; unknown ones are to be ignored.
    pub hints: Vec<Hint>,
}

/// What a query asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Traces with spansets.
    Search(Pipeline),
    /// Time series.
    Metrics(MetricsExpr),
}

/// One hint.
#[derive(Debug, Clone, PartialEq)]
pub struct Hint {
    /// Its name.
    pub name: Arc<str>,
    /// Its value.
    pub value: Static,
}

/// Stages joined by `|`; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// The stages in order.
    pub stages: Vec<Stage>,
}

/// One stage of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// Filters and their combinations.
    Spanset(SpansetExpr),
    /// A comparison of aggregates, as in `count() > 2`.
    Scalar(ScalarFilter),
    /// `by(expr)`
    By(FieldExpr),
    /// `coalesce()`
    Coalesce,
    /// `select(field, ...)`
    Select(Vec<FieldRef>),
}

/// Spansets and what combines them.
#[derive(Debug, Clone, PartialEq)]
pub enum SpansetExpr {
    /// `{ expr }`; `{}` is the literal true.
    Filter(FieldExpr),
    /// Two spansets combined.
    Binary {
        /// How.
        op: SpansetOp,
        /// The left side.
        left: Box<SpansetExpr>,
        /// The right side.
        right: Box<SpansetExpr>,
    },
    /// A pipeline in parentheses; never just one spanset stage.
    Pipeline(Box<Pipeline>),
}

/// How two spansets combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpansetOp {
    /// `&&`
    And,
    /// `||`
    Or,
    /// A structural operator.
    Structural(Relation, Form),
}

/// What the right-side span is to the left-side span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `>>`
    Descendant,
    /// `<<`
    Ancestor,
    /// `>`
    Child,
    /// `<`
    Parent,
    /// `~`
    Sibling,
}

/// Which spans a structural operator returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Right-side spans with a related left-side span.
    Plain,
    /// Right-side spans without one (`!`).
    Negated,
    /// Related spans of both sides (`&`).
    Union,
}

/// An expression over one span; a filter if it is boolean.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldExpr {
    /// A constant; never an array.
    Literal(Static),
    /// A field's value.
    Field(FieldRef),
    /// `!e`
    Not(Box<FieldExpr>),
    /// `-e`; never of a number literal.
    Negate(Box<FieldExpr>),
    /// `e op e` with numbers.
    Arithmetic {
        /// The operator.
        op: ArithmeticOp,
        /// The left side.
        left: Box<FieldExpr>,
        /// The right side.
        right: Box<FieldExpr>,
    },
    /// `e op e`
    Compare {
        /// The operator.
        op: CompareOp,
        /// The left side.
        left: Box<FieldExpr>,
        /// The right side.
        right: Box<FieldExpr>,
    },
    /// `e =~ "pattern"` or `e !~ "pattern"`
    Match {
        /// Whether it is `!~`.
        negated: bool,
        /// What is matched.
        value: Box<FieldExpr>,
        /// The expression, anchored at both ends.
        pattern: Pattern,
    },
    /// All of at least two terms, none of them an `And`.
    And(Vec<FieldExpr>),
    /// Any of at least two terms, none of them an `Or`.
    Or(Vec<FieldExpr>),
}

/// Operators on numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArithmeticOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Rem,
    /// `^`
    Pow,
}

/// A comparison of scalars of a spanset.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalarFilter {
    /// The operator.
    pub op: CompareOp,
    /// The left side.
    pub left: ScalarExpr,
    /// The right side.
    pub right: ScalarExpr,
}

/// A value of a spanset.
#[derive(Debug, Clone, PartialEq)]
pub enum ScalarExpr {
    /// A number or duration.
    Literal(Static),
    /// An aggregate of the spanset at hand.
    Aggregate(Aggregate),
    /// An aggregate at the end of a pipeline in parentheses.
    Pipeline(Box<Pipeline>, Aggregate),
    /// `e op e`
    Arithmetic {
        /// The operator.
        op: ArithmeticOp,
        /// The left side.
        left: Box<ScalarExpr>,
        /// The right side.
        right: Box<ScalarExpr>,
    },
}

/// A function of the spans of a spanset.
#[derive(Debug, Clone, PartialEq)]
pub enum Aggregate {
    /// `count()`
    Count,
    /// `avg(e)`
    Avg(FieldExpr),
    /// `min(e)`
    Min(FieldExpr),
    /// `max(e)`
    Max(FieldExpr),
    /// `sum(e)`
    Sum(FieldExpr),
}

/// An expression whose value is a set of time series.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricsExpr {
    /// `pipeline | function by(...)`
    Query(Box<MetricsQuery>),
    /// A number (int or float) as an operand.
    Number(Static),
    /// `+ - * /` between series.
    Arithmetic {
        /// The operator; never `Rem` or `Pow`.
        op: ArithmeticOp,
        /// The left side.
        left: Box<MetricsExpr>,
        /// The right side.
        right: Box<MetricsExpr>,
    },
    /// `input | topk(n)` or `| bottomk(n)`
    Rank {
        /// What is ranked.
        input: Box<MetricsExpr>,
        /// The largest rather than the smallest.
        top: bool,
        /// How many series per timestamp.
        limit: i64,
    },
    /// `input > value`
    Threshold {
        /// What is compared.
        input: Box<MetricsExpr>,
        /// The operator.
        op: CompareOp,
        /// A number or duration.
        value: Static,
    },
}

/// One metrics function over the spans of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsQuery {
    /// What selects the spans.
    pub pipeline: Pipeline,
    /// The function.
    pub function: MetricsFunction,
    /// Fields that tell series apart.
    pub by: Vec<FieldRef>,
}

/// A metrics function.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricsFunction {
    /// `rate()`
    Rate,
    /// `count_over_time()`
    CountOverTime,
    /// `min_over_time(field)`
    MinOverTime(FieldRef),
    /// `max_over_time(field)`
    MaxOverTime(FieldRef),
    /// `avg_over_time(field)`
    AvgOverTime(FieldRef),
    /// `sum_over_time(field)`
    SumOverTime(FieldRef),
    /// `quantile_over_time(field, q, ...)`, each q in 0..=1
    QuantileOverTime(FieldRef, Vec<f64>),
    /// `histogram_over_time(field)`
    HistogramOverTime(FieldRef),
    /// `compare({selection}, topN, startNs, endNs)`
    Compare {
        /// The spans compared with the rest.
        selection: FieldExpr,
        /// Values per attribute, if given.
        top: Option<i64>,
        /// Unix nanoseconds the selection is limited to, if given.
        window: Option<(i64, i64)>,
    },
}

impl Query {
    /// The filter, if the query is nothing but `{ filter }`.
    pub fn as_filter(&self) -> Option<&FieldExpr> {
        match &self.body {
            Body::Search(pipeline) => match pipeline.stages.as_slice() {
                [Stage::Spanset(SpansetExpr::Filter(filter))] => Some(filter),
                _ => None,
            },
            Body::Metrics(_) => None,
        }
    }

    /// The value of the last hint of that name.
    pub fn hint(&self, name: &str) -> Option<&Static> {
        self.hints.iter().rev().find(|hint| &*hint.name == name).map(|hint| &hint.value)
    }

    /// Whether the query asks for time series.
    pub const fn is_metrics(&self) -> bool {
        matches!(self.body, Body::Metrics(_))
    }
}

impl Pipeline {
    /// A pipeline of one filter.
    pub fn filter(filter: FieldExpr) -> Pipeline {
        Pipeline { stages: vec![Stage::Spanset(SpansetExpr::Filter(filter))] }
    }
}

impl FieldExpr {
    /// The literal true: the filter `{}`.
    pub const TRUE: FieldExpr = FieldExpr::Literal(Static::Bool(true));

    /// All of the terms, in normal form.
    pub fn and(terms: impl IntoIterator<Item = FieldExpr>) -> FieldExpr {
        let mut flat = Vec::new();
        for term in terms {
            match term {
                FieldExpr::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        single(&mut flat, true).unwrap_or(FieldExpr::And(flat))
    }

    /// Any of the terms, in normal form.
    pub fn or(terms: impl IntoIterator<Item = FieldExpr>) -> FieldExpr {
        let mut flat = Vec::new();
        for term in terms {
            match term {
                FieldExpr::Or(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        single(&mut flat, false).unwrap_or(FieldExpr::Or(flat))
    }

    /// The negative, in normal form.
    pub fn negate(self) -> FieldExpr {
        match self {
            FieldExpr::Literal(Static::Int(value)) => {
                FieldExpr::Literal(Static::Int(value.saturating_neg()))
            }
            FieldExpr::Literal(Static::Duration(value)) => {
                FieldExpr::Literal(Static::Duration(value.saturating_neg()))
            }
            FieldExpr::Literal(Static::Float(value)) => FieldExpr::Literal(Static::Float(-value)),
            other => FieldExpr::Negate(Box::new(other)),
        }
    }
}

/// The only term, or what no term at all stands for.
fn single(terms: &mut Vec<FieldExpr>, empty: bool) -> Option<FieldExpr> {
    match terms.len() {
        0 => Some(FieldExpr::Literal(Static::Bool(empty))),
        1 => terms.pop(),
        _ => None,
    }
}

impl ArithmeticOp {
    /// Every operator.
    pub const ALL: [ArithmeticOp; 6] = [
        ArithmeticOp::Add,
        ArithmeticOp::Sub,
        ArithmeticOp::Mul,
        ArithmeticOp::Div,
        ArithmeticOp::Rem,
        ArithmeticOp::Pow,
    ];

    /// The operator as written.
    pub const fn as_str(self) -> &'static str {
        match self {
            ArithmeticOp::Add => "+",
            ArithmeticOp::Sub => "-",
            ArithmeticOp::Mul => "*",
            ArithmeticOp::Div => "/",
            ArithmeticOp::Rem => "%",
            ArithmeticOp::Pow => "^",
        }
    }
}

impl SpansetOp {
    /// Every operator with its text.
    pub const ALL: [(SpansetOp, &'static str); 17] = [
        (SpansetOp::And, "&&"),
        (SpansetOp::Or, "||"),
        (SpansetOp::Structural(Relation::Descendant, Form::Plain), ">>"),
        (SpansetOp::Structural(Relation::Descendant, Form::Negated), "!>>"),
        (SpansetOp::Structural(Relation::Descendant, Form::Union), "&>>"),
        (SpansetOp::Structural(Relation::Ancestor, Form::Plain), "<<"),
        (SpansetOp::Structural(Relation::Ancestor, Form::Negated), "!<<"),
        (SpansetOp::Structural(Relation::Ancestor, Form::Union), "&<<"),
        (SpansetOp::Structural(Relation::Child, Form::Plain), ">"),
        (SpansetOp::Structural(Relation::Child, Form::Negated), "!>"),
        (SpansetOp::Structural(Relation::Child, Form::Union), "&>"),
        (SpansetOp::Structural(Relation::Parent, Form::Plain), "<"),
        (SpansetOp::Structural(Relation::Parent, Form::Negated), "!<"),
        (SpansetOp::Structural(Relation::Parent, Form::Union), "&<"),
        (SpansetOp::Structural(Relation::Sibling, Form::Plain), "~"),
        (SpansetOp::Structural(Relation::Sibling, Form::Negated), "!~"),
        (SpansetOp::Structural(Relation::Sibling, Form::Union), "&~"),
    ];

    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).map_or("", |(_, text)| text)
    }

    /// The operator of that text.
    pub fn from_text(text: &str) -> Option<SpansetOp> {
        Self::ALL.iter().find(|(_, spelled)| *spelled == text).map(|(op, _)| *op)
    }
}
