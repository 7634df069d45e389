//! What a well-formed query must obey to mean something. Each rule looks at one node whose
//! children passed already; the parser adds the place to the message.

use crate::ast::{
    ArithmeticOp, FieldExpr, MetricsExpr, MetricsFunction, MetricsQuery, ScalarExpr, ScalarFilter,
};
use crate::field::{FieldRef, ValueType};
use crate::plan::Scope;
use crate::value::{CompareOp, Static};

/// The most fields a metrics query may group by.
pub const GROUP_FIELDS_MAX: usize = 5;
/// The same for functions whose series carry one more label of their own.
pub const GROUP_FIELDS_BUCKETED_MAX: usize = 4;
/// The most values per attribute `compare` may return.
pub const COMPARE_TOP_MAX: i64 = 1000;

type Verdict = Result<(), String>;

/// What is known of an expression's values.
pub(crate) fn value_type(expr: &FieldExpr) -> ValueType {
    match expr {
        FieldExpr::Literal(value) => match value {
            Static::Nil => ValueType::Nil,
            Static::Int(_) | Static::Float(_) | Static::Duration(_) => ValueType::Number,
            Static::String(_) => ValueType::String,
            Static::Bool(_) => ValueType::Bool,
            Static::Status(_) => ValueType::Status,
            Static::Kind(_) => ValueType::Kind,
            Static::Array(_) => ValueType::Any,
        },
        FieldExpr::Field(field) => field.value_type(),
        FieldExpr::Negate(_) | FieldExpr::Arithmetic { .. } => ValueType::Number,
        FieldExpr::Not(_)
        | FieldExpr::Compare { .. }
        | FieldExpr::Match { .. }
        | FieldExpr::And(_)
        | FieldExpr::Or(_) => ValueType::Bool,
    }
}

fn wants(what: &str, wanted: ValueType, expr: &FieldExpr) -> Verdict {
    let found = value_type(expr);
    if found == wanted || found == ValueType::Any {
        return Ok(());
    }
    Err(format!("{what} must be a {}, found {}", wanted.as_str(), found.as_str()))
}

/// The parent span as a whole is no value.
pub(crate) fn field(field: &FieldRef) -> Verdict {
    match field {
        FieldRef::Parent => Err("`parent` alone is not supported; use an attribute of the parent \
                                 (parent.name), span:parentID, or nestedSetParent < 0 for a root"
            .to_owned()),
        _ => Ok(()),
    }
}

/// `{ expr }`
pub(crate) fn filter(expr: &FieldExpr) -> Verdict {
    wants("a filter", ValueType::Bool, expr)
}

/// A side of `&&` or `||`.
pub(crate) fn term(expr: &FieldExpr) -> Verdict {
    wants("an operand of `&&` and `||`", ValueType::Bool, expr)
}

/// `!expr`
pub(crate) fn not(expr: &FieldExpr) -> Verdict {
    wants("the operand of `!`", ValueType::Bool, expr)
}

/// `-expr`
pub(crate) fn negate(expr: &FieldExpr) -> Verdict {
    wants("the operand of `-`", ValueType::Number, expr)
}

/// `left op right` with numbers.
pub(crate) fn arithmetic(op: ArithmeticOp, left: &FieldExpr, right: &FieldExpr) -> Verdict {
    let what = format!("an operand of `{}`", op.as_str());
    wants(&what, ValueType::Number, left)?;
    wants(&what, ValueType::Number, right)
}

/// `expr =~ "..."`
pub(crate) fn matching(expr: &FieldExpr) -> Verdict {
    wants("what a regular expression is matched with", ValueType::String, expr)
}

/// `left op right`
pub(crate) fn comparison(op: CompareOp, left: &FieldExpr, right: &FieldExpr) -> Verdict {
    let (left_type, right_type) = (value_type(left), value_type(right));
    if left_type == ValueType::Nil || right_type == ValueType::Nil {
        return nil_comparison(op, left, right);
    }
    let known = left_type != ValueType::Any && right_type != ValueType::Any;
    if known && left_type != right_type {
        return Err(format!(
            "{} and {} cannot be compared",
            left_type.as_str(),
            right_type.as_str()
        ));
    }
    let unordered = |value| matches!(value, ValueType::Status | ValueType::Kind | ValueType::Bool);
    if op.is_ordering() && (unordered(left_type) || unordered(right_type)) {
        let kind = if unordered(left_type) { left_type } else { right_type };
        return Err(format!("a {} compares only with `=` and `!=`", kind.as_str()));
    }
    Ok(())
}

fn nil_comparison(op: CompareOp, left: &FieldExpr, right: &FieldExpr) -> Verdict {
    if op.is_ordering() {
        return Err("nil compares only with `=` and `!=`".to_owned());
    }
    for side in [left, right] {
        match side {
            FieldExpr::Literal(Static::Nil) => {}
            FieldExpr::Field(field) if op == CompareOp::Eq && always_present(field) => {
                return Err(format!("`{field}` is never nil"));
            }
            FieldExpr::Field(_) => {}
            _ => return Err("only a field can be compared with nil".to_owned()),
        }
    }
    Ok(())
}

fn always_present(field: &FieldRef) -> bool {
    match field {
        FieldRef::Intrinsic { .. } => true,
        FieldRef::Attribute { parent: false, scope: Some(Scope::Resource), name } => {
            &**name == "service.name"
        }
        FieldRef::Attribute { .. } | FieldRef::Parent => false,
    }
}

/// Whether the value can differ between spans.
fn uses_span(expr: &FieldExpr) -> bool {
    match expr {
        FieldExpr::Literal(_) => false,
        FieldExpr::Field(_) => true,
        FieldExpr::Not(inner) | FieldExpr::Negate(inner) => uses_span(inner),
        FieldExpr::Match { value, .. } => uses_span(value),
        FieldExpr::Arithmetic { left, right, .. } | FieldExpr::Compare { left, right, .. } => {
            uses_span(left) || uses_span(right)
        }
        FieldExpr::And(terms) | FieldExpr::Or(terms) => terms.iter().any(uses_span),
    }
}

/// `by(expr)`
pub(crate) fn group(expr: &FieldExpr) -> Verdict {
    if uses_span(expr) {
        return Ok(());
    }
    Err(format!("by() needs a field of the span, found {expr}"))
}

/// `avg(expr)` and its like
pub(crate) fn aggregate(expr: &FieldExpr) -> Verdict {
    wants("what is aggregated", ValueType::Number, expr)?;
    if uses_span(expr) {
        return Ok(());
    }
    Err(format!("an aggregate needs a field of the span, found {expr}"))
}

/// `count() > 2`
pub(crate) fn scalar_filter(filter: &ScalarFilter) -> Verdict {
    if uses_spans(&filter.left) || uses_spans(&filter.right) {
        return Ok(());
    }
    Err("a scalar filter needs an aggregate, such as count()".to_owned())
}

/// Whether the value can differ between spansets.
fn uses_spans(scalar: &ScalarExpr) -> bool {
    match scalar {
        ScalarExpr::Literal(_) => false,
        ScalarExpr::Aggregate(_) | ScalarExpr::Pipeline(..) => true,
        ScalarExpr::Arithmetic { left, right, .. } => uses_spans(left) || uses_spans(right),
    }
}

/// One metrics function with its arguments.
pub(crate) fn metrics_function(function: &MetricsFunction) -> Verdict {
    if let Some(field) = function.field() {
        let found = field.value_type();
        if !matches!(found, ValueType::Number | ValueType::Any) {
            let name = function.name();
            return Err(format!("{name} needs a number, found {}: {field}", found.as_str()));
        }
    }
    match function {
        MetricsFunction::QuantileOverTime(_, quantiles) => {
            match quantiles.iter().find(|quantile| !(0.0..=1.0).contains(*quantile)) {
                Some(quantile) => Err(format!("a quantile lies between 0 and 1: {quantile}")),
                None => Ok(()),
            }
        }
        MetricsFunction::Compare { top: Some(top), .. } if !(1..=COMPARE_TOP_MAX).contains(top) => {
            Err(format!("compare's topN lies between 1 and {COMPARE_TOP_MAX}: {top}"))
        }
        MetricsFunction::Compare { window: Some((start, end)), .. } if start > end => {
            Err(format!("compare's start is after its end: {start}, {end}"))
        }
        _ => Ok(()),
    }
}

/// A function with its groups.
pub(crate) fn metrics_query(query: &MetricsQuery) -> Verdict {
    let max = match query.function {
        MetricsFunction::Compare { .. } if !query.by.is_empty() => {
            return Err("compare() cannot be grouped".to_owned());
        }
        MetricsFunction::QuantileOverTime(..) | MetricsFunction::HistogramOverTime(_) => {
            GROUP_FIELDS_BUCKETED_MAX
        }
        _ => GROUP_FIELDS_MAX,
    };
    if query.by.len() > max {
        return Err(format!(
            "{} groups by at most {max} fields, found {}",
            query.function.name(),
            query.by.len()
        ));
    }
    Ok(())
}

/// `input | topk(limit)`
pub(crate) fn rank(input: &MetricsExpr, limit: i64) -> Verdict {
    if limit <= 0 {
        return Err(format!("topk and bottomk need a limit over 0: {limit}"));
    }
    no_compare(input, "topk and bottomk do not apply to compare()")
}

/// `input > value`
pub(crate) fn threshold(input: &MetricsExpr) -> Verdict {
    no_compare(input, "comparisons do not apply to compare()")
}

/// `left / right`
pub(crate) fn metrics_arithmetic(left: &MetricsExpr, right: &MetricsExpr) -> Verdict {
    let message = "arithmetic does not apply to compare()";
    no_compare(left, message)?;
    no_compare(right, message)
}

/// Looks at the innermost input only: operands of arithmetic were checked when it was built.
fn no_compare(expr: &MetricsExpr, message: &str) -> Verdict {
    match expr {
        MetricsExpr::Query(query) if matches!(query.function, MetricsFunction::Compare { .. }) => {
            Err(message.to_owned())
        }
        _ => Ok(()),
    }
}
