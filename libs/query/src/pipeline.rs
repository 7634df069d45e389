//! Searches that are more than one filter: pipelines of spanset expressions, groups and aggregates,
//! compiled once and run on one whole trace after the other.
//!
//! A trace is a list of spans in the model's order, seen through [`Spans`]; so the same code judges
//! decoded traces and rows of an index. Every stage maps spansets to spansets, and a trace is found
//! if one is left.

mod aggregate;
mod compile;
mod condition;
mod decoded;
mod relate;
mod result;
mod run;

use std::sync::Arc;

use clew_traceql::EvalError;
use clew_traceql::ast::{ArithmeticOp, Relation};
use clew_traceql::eval::{Expression, Filter};
use clew_traceql::plan::Prefilter;
use clew_traceql::value::{CompareOp, Static};

pub(crate) use self::condition::TraceCondition;
pub(crate) use self::decoded::Decoded;
use self::result::ResultFilters;
use crate::structure::{Parent, Structure};

/// The most spansets of one trace.
pub(crate) const SPANSETS_MAX: usize = 10_000;

/// A compiled pipeline.
#[derive(Debug)]
pub(crate) struct Pipeline {
    stages: Vec<Stage>,
    /// Every filter in it, in the order of the text.
    filters: Vec<Leaf>,
    /// Every expression that has a value on a span.
    values: Vec<Expression>,
    /// What a trace must have to be found, as far as an index can tell.
    condition: TraceCondition,
    /// Whether an index that looks everything up exactly can run it.
    indexed: bool,
    /// Whether it asks how spans are related.
    relates: bool,
    result: ResultFilters,
}

/// One filter of a pipeline.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) filter: Filter,
    /// Holds for every span that the filter matches.
    pub(crate) prefilter: Prefilter,
    /// Each holds for some span of a trace with a span that the filter matches.
    elsewhere: Vec<Prefilter>,
}

#[derive(Debug)]
enum Stage {
    Spansets(Spansets),
    Scalar(ScalarFilter),
    By { label: Arc<str>, value: usize },
    Coalesce,
}

/// An expression over spansets. Numbers are places in the pipeline's lists.
#[derive(Debug)]
enum Spansets {
    Filter(usize),
    Both(Box<Spansets>, Box<Spansets>),
    Either(Box<Spansets>, Box<Spansets>),
    Related { how: Related, left: Box<Spansets>, right: Box<Spansets> },
    Pipeline(Vec<Stage>),
}

/// A structural operator.
#[derive(Debug, Clone, Copy)]
struct Related {
    operator: &'static str,
    relation: Relation,
    form: clew_traceql::ast::Form,
}

#[derive(Debug)]
struct ScalarFilter {
    op: CompareOp,
    left: Scalar,
    right: Scalar,
}

#[derive(Debug)]
enum Scalar {
    Literal(Static),
    /// Of the spanset at hand.
    Aggregate(Aggregate),
    /// Of the spans that a pipeline finds in the spanset at hand.
    Pipeline(Vec<Stage>, Aggregate),
    Arithmetic {
        op: ArithmeticOp,
        left: Box<Scalar>,
        right: Box<Scalar>,
    },
}

#[derive(Debug)]
struct Aggregate {
    /// How an answer calls it.
    label: Arc<str>,
    function: Function,
}

#[derive(Debug, Clone, Copy)]
enum Function {
    Count,
    Avg(usize),
    Min(usize),
    Max(usize),
    Sum(usize),
}

/// Some spans of a trace, by their places in the model's order, ascending; and what groups and
/// aggregates said of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spanset {
    pub(crate) spans: Vec<u32>,
    pub(crate) attributes: Vec<(Arc<str>, Static)>,
}

/// The spans of one whole trace.
pub(crate) trait Spans {
    /// How many there are.
    fn count(&self) -> u32;

    /// Those of `spans`, or of all, that pass the pipeline's filter number `filter`, ascending.
    fn passing(&self, filter: usize, spans: Option<&[u32]>) -> Result<Vec<u32>, EvalError>;

    /// The value of the pipeline's expression number `value` on a span.
    fn value(&self, value: usize, span: u32) -> Result<Static, EvalError>;

    /// Who is whose child.
    fn structure(&self) -> &Structure;

    /// The parent of a span, if that is cheaper to find than the whole structure.
    fn parent(&self, span: u32) -> Option<Parent>;
}

impl Leaf {
    /// Each holds for some span of a trace with a span that the filter matches.
    pub(crate) fn elsewhere(&self) -> &[Prefilter] {
        &self.elsewhere
    }
}

impl Pipeline {
    /// Its filters.
    pub(crate) fn filters(&self) -> &[Leaf] {
        &self.filters
    }

    /// What a trace must have to be found.
    pub(crate) fn condition(&self) -> &TraceCondition {
        &self.condition
    }

    /// Whether an index can run it, if it looks every filter up exactly.
    pub(crate) fn is_indexed(&self) -> bool {
        self.indexed
    }

    /// Whether it asks how spans are related.
    pub(crate) fn relates(&self) -> bool {
        self.relates
    }

    /// Filters of which every span that is left passes one, none if that is not known; and whether of
    /// a trace that is found all spans are left that pass one.
    pub(crate) fn result(&self) -> (&[usize], bool) {
        (&self.result.filters, self.result.all)
    }

    /// The value of expression number `value` on a decoded span.
    fn value_on(
        &self,
        value: usize,
        span: &dyn clew_traceql::SpanValues,
    ) -> Result<Static, EvalError> {
        self.values.get(value).map_or(Ok(Static::Nil), |expression| expression.value(span))
    }
}
