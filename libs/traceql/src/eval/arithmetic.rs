//! Arithmetic on values.
//!
//! Integers stay integers and saturate; a duration with an integer stays a duration, except that
//! dividing one always gives a float (a ratio of durations would be lost in an integer). What has
//! no number for a result, such as a float divided by zero, is nil and so matches nothing.

use crate::ast::ArithmeticOp;
use crate::error::EvalError;
use crate::value::Static;

/// `left op right`; nil if an operand is no number.
pub(crate) fn apply(op: ArithmeticOp, left: &Static, right: &Static) -> Result<Static, EvalError> {
    match (left, right) {
        (Static::Array(_), _) | (_, Static::Array(_)) => Err(EvalError::ArrayArithmetic),
        (Static::Int(left), Static::Int(right)) => integers(op, *left, *right),
        (Static::Duration(left), Static::Int(right))
        | (Static::Int(left), Static::Duration(right)) => Ok(durations(op, *left, *right)),
        (Static::Duration(left), Static::Duration(right)) => Ok(match op {
            // A square of nanoseconds would not fit.
            ArithmeticOp::Mul => floats(op, float(*left), float(*right)),
            _ => durations(op, *left, *right),
        }),
        _ => Ok(match (as_float(left), as_float(right)) {
            (Some(left), Some(right)) => floats(op, left, right),
            _ => Static::Nil,
        }),
    }
}

/// `-value`; nil if it is no number.
pub(crate) fn negate(value: &Static) -> Result<Static, EvalError> {
    match value {
        Static::Int(value) => Ok(Static::Int(value.saturating_neg())),
        Static::Duration(value) => Ok(Static::Duration(value.saturating_neg())),
        Static::Float(value) => Ok(Static::Float(-value)),
        Static::Array(_) => Err(EvalError::ArrayArithmetic),
        _ => Ok(Static::Nil),
    }
}

fn integers(op: ArithmeticOp, left: i64, right: i64) -> Result<Static, EvalError> {
    if right == 0 && matches!(op, ArithmeticOp::Div | ArithmeticOp::Rem) {
        return Err(EvalError::DivisionByZero);
    }
    Ok(match op {
        ArithmeticOp::Add => Static::Int(left.saturating_add(right)),
        ArithmeticOp::Sub => Static::Int(left.saturating_sub(right)),
        ArithmeticOp::Mul => Static::Int(left.saturating_mul(right)),
        ArithmeticOp::Div => Static::Int(left.saturating_div(right)),
        ArithmeticOp::Rem => Static::Int(left.wrapping_rem(right)),
        ArithmeticOp::Pow => power(left, right),
    })
}

/// 2^3 is 8. A negative exponent gives a float.
fn power(base: i64, exponent: i64) -> Static {
    if exponent < 0 {
        return floats(ArithmeticOp::Pow, float(base), float(exponent));
    }
    match u32::try_from(exponent) {
        Ok(exponent) => Static::Int(base.saturating_pow(exponent)),
        // Only 0, 1 and -1 do not saturate, and of the exponent only its parity counts: any
        // exponent of the same parity that is large enough gives the same.
        Err(_) => Static::Int(base.saturating_pow(if exponent % 2 == 0 { 64 } else { 65 })),
    }
}

fn durations(op: ArithmeticOp, left: i64, right: i64) -> Static {
    match op {
        ArithmeticOp::Add => Static::Duration(left.saturating_add(right)),
        ArithmeticOp::Sub => Static::Duration(left.saturating_sub(right)),
        ArithmeticOp::Mul => Static::Duration(left.saturating_mul(right)),
        ArithmeticOp::Rem if right != 0 => Static::Duration(left.wrapping_rem(right)),
        ArithmeticOp::Rem => Static::Nil,
        ArithmeticOp::Div | ArithmeticOp::Pow => floats(op, float(left), float(right)),
    }
}

fn floats(op: ArithmeticOp, left: f64, right: f64) -> Static {
    let result = match op {
        ArithmeticOp::Add => left + right,
        ArithmeticOp::Sub => left - right,
        ArithmeticOp::Mul => left * right,
        ArithmeticOp::Div | ArithmeticOp::Rem if right == 0.0 => return Static::Nil,
        ArithmeticOp::Div => left / right,
        ArithmeticOp::Rem => left % right,
        ArithmeticOp::Pow if left == 0.0 && right < 0.0 => return Static::Nil,
        ArithmeticOp::Pow => left.powf(right),
    };
    if result.is_nan() { Static::Nil } else { Static::Float(result) }
}

fn as_float(value: &Static) -> Option<f64> {
    match value {
        Static::Int(value) | Static::Duration(value) => Some(float(*value)),
        Static::Float(value) => Some(*value),
        _ => None,
    }
}

#[allow(clippy::cast_precision_loss, reason = "float arithmetic is inexact by nature")]
fn float(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(op: ArithmeticOp, left: i64, right: i64) -> Static {
        apply(op, &Static::Int(left), &Static::Int(right)).unwrap()
    }

    #[test]
    fn integers_stay_exact_and_saturate() {
        assert_eq!(int(ArithmeticOp::Pow, 2, 3), Static::Int(8));
        assert_eq!(int(ArithmeticOp::Pow, 2, -1), Static::Float(0.5));
        assert_eq!(int(ArithmeticOp::Pow, 0, 0), Static::Int(1));
        assert_eq!(int(ArithmeticOp::Pow, 0, -1), Static::Nil);
        assert_eq!(int(ArithmeticOp::Pow, 3, 1000), Static::Int(i64::MAX));
        assert_eq!(int(ArithmeticOp::Pow, -3, i64::MAX), Static::Int(i64::MIN));
        assert_eq!(int(ArithmeticOp::Pow, -1, i64::MAX), Static::Int(-1));
        assert_eq!(int(ArithmeticOp::Pow, -1, i64::MAX - 1), Static::Int(1));
        assert_eq!(int(ArithmeticOp::Add, i64::MAX, 1), Static::Int(i64::MAX));
        assert_eq!(int(ArithmeticOp::Div, 7, 2), Static::Int(3));
        assert_eq!(int(ArithmeticOp::Div, i64::MIN, -1), Static::Int(i64::MAX));
        assert_eq!(int(ArithmeticOp::Rem, i64::MIN, -1), Static::Int(0));
    }

    #[test]
    fn division_by_zero() {
        for op in [ArithmeticOp::Div, ArithmeticOp::Rem] {
            assert_eq!(apply(op, &Static::Int(1), &Static::Int(0)), Err(EvalError::DivisionByZero));
            for zero in [Static::Float(0.0), Static::Int(0), Static::Duration(0)] {
                assert_eq!(apply(op, &Static::Float(1.0), &zero), Ok(Static::Nil));
            }
            assert_eq!(apply(op, &Static::Duration(1), &Static::Int(0)), Ok(Static::Nil));
        }
    }

    #[test]
    fn durations_keep_their_unit_except_in_ratios() {
        let second = Static::Duration(1_000_000_000);
        let apply = |op, left: &Static, right: &Static| apply(op, left, right).unwrap();
        assert_eq!(
            apply(ArithmeticOp::Mul, &second, &Static::Int(2)),
            Static::Duration(2_000_000_000)
        );
        assert_eq!(
            apply(ArithmeticOp::Div, &Static::Duration(500_000_000), &second),
            Static::Float(0.5)
        );
        assert_eq!(
            apply(ArithmeticOp::Add, &second, &Static::Float(0.5)),
            Static::Float(1_000_000_000.5)
        );
    }

    #[test]
    fn what_is_no_number_gives_nil_and_arrays_are_errors() {
        assert_eq!(
            apply(ArithmeticOp::Add, &Static::string("1"), &Static::Int(1)),
            Ok(Static::Nil)
        );
        assert_eq!(apply(ArithmeticOp::Add, &Static::Nil, &Static::Int(1)), Ok(Static::Nil));
        assert_eq!(
            apply(ArithmeticOp::Add, &Static::Array(vec![]), &Static::Nil),
            Err(EvalError::ArrayArithmetic)
        );
        assert_eq!(negate(&Static::Int(i64::MIN)), Ok(Static::Int(i64::MAX)));
        assert_eq!(negate(&Static::Bool(true)), Ok(Static::Nil));
    }
}
