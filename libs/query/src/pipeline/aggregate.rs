//! Scalars of a spanset: aggregates of its spans, and arithmetic on them.

use std::sync::Arc;

use clew_traceql::EvalError;
use clew_traceql::ast::ArithmeticOp;
use clew_traceql::eval::calculate;
use clew_traceql::value::{CompareOp, Static, compare};

use super::run::{stages, united};
use super::{Aggregate, Function, Scalar, Spans, Spanset};

/// What the scalars of one comparison were worked out from.
#[derive(Default)]
pub(super) struct Tally {
    /// Aggregates with their values.
    pub(super) attributes: Vec<(Arc<str>, Static)>,
    /// An aggregate was of the spanset at hand.
    pub(super) whole: bool,
    /// What pipelines found in it.
    pub(super) found: Vec<Spanset>,
}

/// The scalar's value; nil if there is none.
pub(super) fn scalar(
    of: &Scalar,
    set: &Spanset,
    trace: &dyn Spans,
    tally: &mut Tally,
) -> Result<Static, EvalError> {
    match of {
        Scalar::Literal(value) => Ok(value.clone()),
        Scalar::Aggregate(of) => {
            tally.whole = true;
            aggregate(of, &set.spans, trace, tally)
        }
        Scalar::Pipeline(inner, of) => {
            let mut found = stages(inner, vec![set.clone()], trace)?;
            let value = aggregate(of, &united(&found), trace, tally)?;
            tally.found.append(&mut found);
            Ok(value)
        }
        Scalar::Arithmetic { op, left, right } => {
            let left = scalar(left, set, trace, tally)?;
            calculate(*op, &left, &scalar(right, set, trace, tally)?)
        }
    }
}

fn aggregate(
    of: &Aggregate,
    spans: &[u32],
    trace: &dyn Spans,
    tally: &mut Tally,
) -> Result<Static, EvalError> {
    let value = match of.function {
        Function::Count => Static::Int(i64::try_from(spans.len()).unwrap_or(i64::MAX)),
        Function::Min(value) => extreme(CompareOp::Lt, value, spans, trace)?,
        Function::Max(value) => extreme(CompareOp::Gt, value, spans, trace)?,
        Function::Sum(value) => sum(value, spans, trace)?.0,
        Function::Avg(value) => average(sum(value, spans, trace)?),
    };
    tally.attributes.push((Arc::clone(&of.label), value.clone()));
    Ok(value)
}

fn is_number(value: &Static) -> bool {
    match value {
        Static::Int(_) | Static::Duration(_) => true,
        Static::Float(value) => !value.is_nan(),
        _ => false,
    }
}

/// The first value that no other one outdoes.
fn extreme(
    better: CompareOp,
    value: usize,
    spans: &[u32],
    trace: &dyn Spans,
) -> Result<Static, EvalError> {
    let mut best = Static::Nil;
    for span in spans {
        let value = trace.value(value, *span)?;
        let wins = best.is_nil() || compare(better, &value, &best) == Some(true);
        if is_number(&value) && wins {
            best = value;
        }
    }
    Ok(best)
}

/// The sum and how many values are in it: numbers of the type of the first one, nothing else.
fn sum(value: usize, spans: &[u32], trace: &dyn Spans) -> Result<(Static, usize), EvalError> {
    let mut sum = Static::Nil;
    let mut count = 0;
    for span in spans {
        let value = trace.value(value, *span)?;
        if !is_number(&value) {
            continue;
        }
        sum = match (&sum, &value) {
            (Static::Nil, _) => value,
            (Static::Int(_), Static::Int(_))
            | (Static::Duration(_), Static::Duration(_))
            | (Static::Float(_), Static::Float(_)) => calculate(ArithmeticOp::Add, &sum, &value)?,
            _ => continue,
        };
        count += 1;
    }
    Ok((sum, count))
}

/// A duration for durations, else a float.
fn average((sum, count): (Static, usize)) -> Static {
    let count = i64::try_from(count).unwrap_or(i64::MAX).max(1);
    match sum {
        Static::Duration(sum) => Static::Duration(sum / count),
        Static::Int(sum) => Static::Float(float(sum) / float(count)),
        Static::Float(sum) => Static::Float(sum / float(count)),
        _ => Static::Nil,
    }
}

#[allow(clippy::cast_precision_loss, reason = "an average is rounded by nature")]
fn float(value: i64) -> f64 {
    value as f64
}
