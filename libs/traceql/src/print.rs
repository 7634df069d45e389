//! The printer: every tree in normal form prints as text that parses to the same tree.
//!
//! Anything that would need thought about precedence is put in parentheses.

use std::fmt::{self, Display, Formatter};

use crate::ast::{
    Aggregate, Body, FieldExpr, MetricsExpr, MetricsFunction, MetricsQuery, Pipeline, Query,
    ScalarExpr, ScalarFilter, SpansetExpr, Stage,
};
use crate::value::Static;

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Search(pipeline) => write!(f, "{pipeline}")?,
            Body::Metrics(metrics) => write!(f, "{metrics}")?,
        }
        if self.hints.is_empty() {
            return Ok(());
        }
        f.write_str(" with(")?;
        let hints = self.hints.iter().map(|hint| format!("{}={}", hint.name, hint.value));
        write_list(f, hints)?;
        f.write_str(")")
    }
}

impl Display for Pipeline {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, stage) in self.stages.iter().enumerate() {
            let bar = if at == 0 { "" } else { " | " };
            write!(f, "{bar}{stage}")?;
        }
        Ok(())
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Spanset(spanset) => write!(f, "{spanset}"),
            Stage::Scalar(filter) => write!(f, "{filter}"),
            Stage::By(expr) => write!(f, "by({expr})"),
            Stage::Coalesce => f.write_str("coalesce()"),
            Stage::Select(fields) => {
                f.write_str("select(")?;
                write_list(f, fields)?;
                f.write_str(")")
            }
        }
    }
}

impl Display for SpansetExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            SpansetExpr::Filter(filter) => write!(f, "{{ {filter} }}"),
            SpansetExpr::Pipeline(pipeline) => write!(f, "({pipeline})"),
            SpansetExpr::Binary { op, left, right } => {
                let nested = |side: &SpansetExpr| matches!(side, SpansetExpr::Binary { .. });
                write_wrapped(f, nested(left), left)?;
                write!(f, " {} ", op.as_str())?;
                write_wrapped(f, nested(right), right)
            }
        }
    }
}

impl Display for FieldExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            FieldExpr::Literal(value) => write!(f, "{value}"),
            FieldExpr::Field(field) => write!(f, "{field}"),
            FieldExpr::Not(inner) => write_prefix(f, "!", inner),
            FieldExpr::Negate(inner) => write_prefix(f, "-", inner),
            FieldExpr::Arithmetic { op, left, right } => {
                write_wrapped(f, !is_operand(left), left)?;
                write!(f, " {} ", op.as_str())?;
                write_wrapped(f, !is_operand(right), right)
            }
            FieldExpr::Compare { op, left, right } => {
                write_wrapped(f, !is_comparand(left), left)?;
                write!(f, " {} ", op.as_str())?;
                write_wrapped(f, !is_comparand(right), right)
            }
            FieldExpr::Match { negated, value, pattern } => {
                write_wrapped(f, !is_comparand(value), value)?;
                let op = if *negated { "!~" } else { "=~" };
                write!(f, " {op} {}", Static::string(pattern.source()))
            }
            FieldExpr::And(terms) => write_terms(f, " && ", terms),
            FieldExpr::Or(terms) => write_terms(f, " || ", terms),
        }
    }
}

fn write_terms(f: &mut Formatter<'_>, separator: &str, terms: &[FieldExpr]) -> fmt::Result {
    for (at, term) in terms.iter().enumerate() {
        if at > 0 {
            f.write_str(separator)?;
        }
        write_wrapped(f, matches!(term, FieldExpr::And(_) | FieldExpr::Or(_)), term)?;
    }
    Ok(())
}

fn write_prefix(f: &mut Formatter<'_>, sign: &str, inner: &FieldExpr) -> fmt::Result {
    f.write_str(sign)?;
    let plain = is_operand(inner) || matches!(inner, FieldExpr::Not(_) | FieldExpr::Negate(_));
    write_wrapped(f, !plain, inner)
}

/// Whether the expression stands beside an arithmetic operator as it is. A negative number does
/// not: `-1 ^ 2` is `-(1 ^ 2)`.
fn is_operand(expr: &FieldExpr) -> bool {
    match expr {
        FieldExpr::Literal(value) => !is_negative(value),
        FieldExpr::Field(_) => true,
        _ => false,
    }
}

/// Whether the expression stands beside a comparison as it is.
fn is_comparand(expr: &FieldExpr) -> bool {
    matches!(
        expr,
        FieldExpr::Literal(_)
            | FieldExpr::Field(_)
            | FieldExpr::Not(_)
            | FieldExpr::Negate(_)
            | FieldExpr::Arithmetic { .. }
    )
}

fn is_negative(value: &Static) -> bool {
    match value {
        Static::Int(value) | Static::Duration(value) => *value < 0,
        Static::Float(value) => value.is_sign_negative(),
        _ => false,
    }
}

impl Display for ScalarFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, self.op, self.right)
    }
}

impl Display for ScalarExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ScalarExpr::Literal(value) => write!(f, "{value}"),
            ScalarExpr::Aggregate(aggregate) => write!(f, "{aggregate}"),
            ScalarExpr::Pipeline(pipeline, aggregate) => write!(f, "({pipeline} | {aggregate})"),
            ScalarExpr::Arithmetic { op, left, right } => {
                let nested = |side: &ScalarExpr| match side {
                    ScalarExpr::Literal(value) => is_negative(value),
                    ScalarExpr::Arithmetic { .. } => true,
                    ScalarExpr::Aggregate(_) | ScalarExpr::Pipeline(..) => false,
                };
                write_wrapped(f, nested(left), left)?;
                write!(f, " {} ", op.as_str())?;
                write_wrapped(f, nested(right), right)
            }
        }
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Aggregate::Count => f.write_str("count()"),
            Aggregate::Avg(expr) => write!(f, "avg({expr})"),
            Aggregate::Min(expr) => write!(f, "min({expr})"),
            Aggregate::Max(expr) => write!(f, "max({expr})"),
            Aggregate::Sum(expr) => write!(f, "sum({expr})"),
        }
    }
}

impl Display for MetricsExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            MetricsExpr::Query(query) => write!(f, "{query}"),
            MetricsExpr::Number(value) => write!(f, "{value}"),
            MetricsExpr::Arithmetic { op, left, right } => {
                let nested = |side: &MetricsExpr| match side {
                    MetricsExpr::Number(value) => is_negative(value),
                    _ => true,
                };
                write_wrapped(f, nested(left), left)?;
                write!(f, " {} ", op.as_str())?;
                write_wrapped(f, nested(right), right)
            }
            MetricsExpr::Rank { input, top, limit } => {
                write_wrapped(f, matches!(**input, MetricsExpr::Arithmetic { .. }), input)?;
                write!(f, " | {}({limit})", if *top { "topk" } else { "bottomk" })
            }
            MetricsExpr::Threshold { input, op, value } => {
                write_wrapped(f, matches!(**input, MetricsExpr::Arithmetic { .. }), input)?;
                write!(f, " {op} {value}")
            }
        }
    }
}

impl Display for MetricsQuery {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}", self.pipeline, self.function)?;
        if self.by.is_empty() {
            return Ok(());
        }
        f.write_str(" by(")?;
        write_list(f, &self.by)?;
        f.write_str(")")
    }
}

impl Display for MetricsFunction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            MetricsFunction::QuantileOverTime(field, quantiles) => {
                write!(f, "quantile_over_time({field}")?;
                for quantile in quantiles {
                    write!(f, ", {quantile:?}")?;
                }
                f.write_str(")")
            }
            MetricsFunction::Compare { selection, top, window } => {
                write!(f, "compare({{ {selection} }}")?;
                if let Some(top) = top {
                    write!(f, ", {top}")?;
                }
                if let Some((start, end)) = window {
                    write!(f, ", {start}, {end}")?;
                }
                f.write_str(")")
            }
            other => match other.field() {
                Some(field) => write!(f, "{}({field})", other.name()),
                None => write!(f, "{}()", other.name()),
            },
        }
    }
}

impl MetricsFunction {
    /// The function's name, which is also the `__name__` of an ungrouped series.
    pub const fn name(&self) -> &'static str {
        match self {
            MetricsFunction::Rate => "rate",
            MetricsFunction::CountOverTime => "count_over_time",
            MetricsFunction::MinOverTime(_) => "min_over_time",
            MetricsFunction::MaxOverTime(_) => "max_over_time",
            MetricsFunction::AvgOverTime(_) => "avg_over_time",
            MetricsFunction::SumOverTime(_) => "sum_over_time",
            MetricsFunction::QuantileOverTime(..) => "quantile_over_time",
            MetricsFunction::HistogramOverTime(_) => "histogram_over_time",
            MetricsFunction::Compare { .. } => "compare",
        }
    }

    /// The field whose values the function takes, if it takes one.
    pub const fn field(&self) -> Option<&crate::field::FieldRef> {
        match self {
            MetricsFunction::Rate
            | MetricsFunction::CountOverTime
            | MetricsFunction::Compare { .. } => None,
            MetricsFunction::MinOverTime(field)
            | MetricsFunction::MaxOverTime(field)
            | MetricsFunction::AvgOverTime(field)
            | MetricsFunction::SumOverTime(field)
            | MetricsFunction::QuantileOverTime(field, _)
            | MetricsFunction::HistogramOverTime(field) => Some(field),
        }
    }
}

fn write_wrapped(f: &mut Formatter<'_>, wrap: bool, inner: &dyn Display) -> fmt::Result {
    if wrap { write!(f, "({inner})") } else { write!(f, "{inner}") }
}

fn write_list<T: Display>(
    f: &mut Formatter<'_>,
    items: impl IntoIterator<Item = T>,
) -> fmt::Result {
    for (at, item) in items.into_iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
}
