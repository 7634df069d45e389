//! The meaning of filters, written a second time straight from the rules, slow and simple: the
//! whole expression is evaluated for every pair of an event and a link.

#![allow(clippy::cast_possible_truncation, reason = "whole numbers, in range or clamped")]

use std::cmp::Ordering;
use std::ops::RangeBounds;

use clew_traceql::ast::ArithmeticOp;
use clew_traceql::{
    CompareOp, Condition, Field, FieldExpr, FieldRef, Intrinsic, Prefilter, Scope, Static, Test,
};

use crate::span::{Part, Span, find};

/// Evaluation failed.
#[derive(Debug, PartialEq)]
pub(crate) struct Failed;

type Outcome<T> = Result<T, Failed>;

#[derive(Clone, Copy)]
struct View<'a> {
    span: &'a Span,
    event: Option<&'a Part>,
    link: Option<&'a Part>,
}

pub(crate) fn matches(expr: &FieldExpr, span: &Span) -> Outcome<bool> {
    for event in parts(&span.events) {
        for link in parts(&span.links) {
            if eval(expr, View { span, event, link })? == Static::Bool(true) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn parts(all: &[Part]) -> Vec<Option<&Part>> {
    if all.is_empty() { vec![None] } else { all.iter().map(Some).collect() }
}

/// What is absent, or counts as absent, leaves the place of a name without scope to the resource.
fn present(value: &&Static) -> bool {
    !matches!(value, Static::Nil) && !matches!(value, Static::Array(all) if all.is_empty())
}

/// `None`: there is no event or link that could have the field.
fn look_up(field: &FieldRef, view: View<'_>) -> Option<Static> {
    let value = match field {
        FieldRef::Parent => return None,
        FieldRef::Attribute { parent: true, scope, name } => {
            let (span, resource) =
                view.span.parent.as_ref().map_or((None, None), |(span, resource)| {
                    (span.get(&**name), resource.get(&**name))
                });
            match scope {
                Some(Scope::Span) => span.cloned(),
                Some(Scope::Resource) => resource.cloned(),
                _ => span.filter(present).or(resource).cloned(),
            }
        }
        FieldRef::Attribute { scope, name, .. } => {
            let name: &str = name;
            match scope {
                None => view.span.span.get(name).filter(present).or(view.span.resource.get(name)),
                Some(Scope::Span) => view.span.span.get(name),
                Some(Scope::Resource) => view.span.resource.get(name),
                Some(Scope::Instrumentation) => view.span.instrumentation.get(name),
                Some(Scope::Event) => view.event?.attributes.get(name),
                Some(Scope::Link) => view.link?.attributes.get(name),
            }
            .cloned()
        }
        FieldRef::Intrinsic { intrinsic, .. } => match intrinsic {
            Intrinsic::EventName | Intrinsic::EventTimeSinceStart => {
                find(&view.event?.intrinsics, *intrinsic)
            }
            Intrinsic::LinkSpanId | Intrinsic::LinkTraceId => {
                find(&view.link?.intrinsics, *intrinsic)
            }
            _ => find(&view.span.intrinsics, *intrinsic),
        },
    };
    Some(match value {
        Some(Static::Array(elements)) if elements.is_empty() => Static::Nil,
        Some(value) => value,
        None => Static::Nil,
    })
}

fn eval(expr: &FieldExpr, view: View<'_>) -> Outcome<Static> {
    let truth = |expr: &FieldExpr| Ok(eval(expr, view)? == Static::Bool(true));
    Ok(match expr {
        FieldExpr::Literal(value) => value.clone(),
        FieldExpr::Field(field) => look_up(field, view).unwrap_or(Static::Nil),
        FieldExpr::Not(inner) => match eval(inner, view)? {
            Static::Bool(value) => Static::Bool(!value),
            _ => Static::Nil,
        },
        FieldExpr::Negate(inner) => match eval(inner, view)? {
            Static::Array(_) => return Err(Failed),
            Static::Int(value) => Static::Int(clamp(-i128::from(value))),
            Static::Duration(value) => Static::Duration(clamp(-i128::from(value))),
            Static::Float(value) => Static::Float(-value),
            _ => Static::Nil,
        },
        FieldExpr::Arithmetic { op, left, right } => {
            arithmetic(*op, &eval(left, view)?, &eval(right, view)?)?
        }
        FieldExpr::And(terms) => {
            for term in terms {
                if !truth(term)? {
                    return Ok(Static::Bool(false));
                }
            }
            Static::Bool(true)
        }
        FieldExpr::Or(terms) => {
            for term in terms {
                if truth(term)? {
                    return Ok(Static::Bool(true));
                }
            }
            Static::Bool(false)
        }
        FieldExpr::Match { negated, value, pattern } => {
            let texts: Vec<String> = elements(&eval(value, view)?)
                .into_iter()
                .filter_map(|element| match element {
                    Static::String(text) => Some(text.to_string()),
                    _ => None,
                })
                .collect();
            let any = texts.iter().any(|text| pattern.is_match(text));
            Static::Bool(!texts.is_empty() && any != *negated)
        }
        FieldExpr::Compare { op, left, right } => Static::Bool(comparison(*op, left, right, view)?),
    })
}

fn elements(value: &Static) -> Vec<Static> {
    match value {
        Static::Array(elements) => elements.clone(),
        other => vec![other.clone()],
    }
}

fn comparison(op: CompareOp, left: &FieldExpr, right: &FieldExpr, view: View<'_>) -> Outcome<bool> {
    for (side, other) in [(left, right), (right, left)] {
        if let (FieldExpr::Literal(Static::Nil), FieldExpr::Field(field)) = (side, other) {
            let found = look_up(field, view);
            return Ok(match op {
                CompareOp::Eq => found == Some(Static::Nil),
                CompareOp::Ne => found.is_some_and(|value| value != Static::Nil),
                _ => false,
            });
        }
    }
    let left_value = padded(left, eval(left, view)?, right);
    let right_value = padded(right, eval(right, view)?, left);
    let is_array = |value: &Static| matches!(value, Static::Array(_));
    if is_array(&left_value) && is_array(&right_value) {
        return Ok(false);
    }
    let mut verdicts = Vec::new();
    for left in elements(&left_value) {
        for right in elements(&right_value) {
            verdicts.extend(compare(op, &left, &right));
        }
    }
    Ok(if op == CompareOp::Ne {
        !verdicts.is_empty() && verdicts.iter().all(|differs| *differs)
    } else {
        verdicts.contains(&true)
    })
}

/// A literal beside an identifier, filled up with zeros.
fn padded(side: &FieldExpr, value: Static, other: &FieldExpr) -> Static {
    let (FieldExpr::Literal(Static::String(text)), FieldExpr::Field(field)) = (side, other) else {
        return value;
    };
    let FieldRef::Intrinsic { intrinsic, .. } = field else {
        return value;
    };
    let width = match intrinsic {
        Intrinsic::SpanId | Intrinsic::ParentId | Intrinsic::LinkSpanId => 16,
        Intrinsic::TraceId | Intrinsic::LinkTraceId => 32,
        _ => return value,
    };
    if text.is_empty() || text.len() >= width {
        return value;
    }
    Static::string(&format!("{}{}", "0".repeat(width - text.len()), text.to_lowercase()))
}

fn compare(op: CompareOp, left: &Static, right: &Static) -> Option<bool> {
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        return Some(holds(op, order(left, right)));
    }
    let order = match (left, right) {
        (Static::String(left), Static::String(right)) => left.cmp(right),
        (Static::Bool(left), Static::Bool(right)) => left.cmp(right),
        (Static::Status(left), Static::Status(right)) => left.cmp(right),
        (Static::Kind(left), Static::Kind(right)) => left.cmp(right),
        _ => return None,
    };
    let ordered = matches!(left, Static::String(_));
    (ordered || matches!(op, CompareOp::Eq | CompareOp::Ne)).then(|| holds(op, Some(order)))
}

fn holds(op: CompareOp, order: Option<Ordering>) -> bool {
    match op {
        CompareOp::Eq => order == Some(Ordering::Equal),
        CompareOp::Ne => order != Some(Ordering::Equal),
        CompareOp::Lt => order == Some(Ordering::Less),
        CompareOp::Gt => order == Some(Ordering::Greater),
        CompareOp::Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        CompareOp::Ge => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

/// A number between two integers, or exactly one; not-a-number is none.
type Place = Option<(i128, i128, f64)>;

fn number(value: &Static) -> Option<Place> {
    match value {
        Static::Int(value) | Static::Duration(value) => {
            Some(Some((i128::from(*value), i128::from(*value), 0.0)))
        }
        Static::Float(value) if value.is_nan() => Some(None),
        Static::Float(value) => {
            Some(Some((value.floor() as i128, value.ceil() as i128, value - value.floor())))
        }
        _ => None,
    }
}

fn order(left: Place, right: Place) -> Option<Ordering> {
    let ((left_floor, _, left_rest), (right_floor, _, right_rest)) = (left?, right?);
    left_floor.cmp(&right_floor).then(left_rest.partial_cmp(&right_rest)?).into()
}

fn clamp(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn arithmetic(op: ArithmeticOp, left: &Static, right: &Static) -> Outcome<Static> {
    if matches!(left, Static::Array(_)) || matches!(right, Static::Array(_)) {
        return Err(Failed);
    }
    let whole = |value: &Static| match value {
        Static::Int(value) | Static::Duration(value) => Some(i128::from(*value)),
        _ => None,
    };
    let duration = |value: &Static| matches!(value, Static::Duration(_));
    let durations = usize::from(duration(left)) + usize::from(duration(right));
    if let (Some(left), Some(right)) = (whole(left), whole(right)) {
        let exact = match op {
            ArithmeticOp::Add => Some(left + right),
            ArithmeticOp::Sub => Some(left - right),
            ArithmeticOp::Mul if durations < 2 => Some(left * right),
            ArithmeticOp::Div | ArithmeticOp::Rem if durations == 0 && right == 0 => {
                return Err(Failed);
            }
            ArithmeticOp::Div if durations == 0 => Some(left / right),
            ArithmeticOp::Rem if right == 0 => return Ok(Static::Nil),
            ArithmeticOp::Rem => Some(left % right),
            ArithmeticOp::Pow if durations == 0 && right >= 0 => Some(power(left, right)),
            _ => None,
        };
        if let Some(exact) = exact {
            let exact = clamp(exact);
            return Ok(if durations > 0 { Static::Duration(exact) } else { Static::Int(exact) });
        }
    }
    let float = |value: &Static| match value {
        Static::Int(value) | Static::Duration(value) => Some(*value as f64),
        Static::Float(value) => Some(*value),
        _ => None,
    };
    let (Some(left), Some(right)) = (float(left), float(right)) else {
        return Ok(Static::Nil);
    };
    let result = match op {
        ArithmeticOp::Add => left + right,
        ArithmeticOp::Sub => left - right,
        ArithmeticOp::Mul => left * right,
        ArithmeticOp::Div if right != 0.0 => left / right,
        ArithmeticOp::Rem if right != 0.0 => left % right,
        ArithmeticOp::Pow if left != 0.0 || right >= 0.0 => left.powf(right),
        _ => f64::NAN,
    };
    Ok(if result.is_nan() { Static::Nil } else { Static::Float(result) })
}

fn power(base: i128, exponent: i128) -> i128 {
    // Past 64 steps nothing changes but the sign.
    let steps = if exponent > 64 { 64 + exponent % 2 } else { exponent };
    (0..steps).fold(1, |product, _| i128::from(clamp(product)) * base)
}

/// Whether the span passes, condition by condition.
pub(crate) fn passes(prefilter: &Prefilter, span: &Span) -> bool {
    match prefilter {
        Prefilter::All => true,
        Prefilter::None => false,
        Prefilter::And(parts) => parts.iter().all(|part| passes(part, span)),
        Prefilter::Or(parts) => parts.iter().any(|part| passes(part, span)),
        Prefilter::Condition(condition) => condition_passes(condition, span),
    }
}

fn condition_passes(condition: &Condition, span: &Span) -> bool {
    let values: Vec<Static> = stored(&condition.field, span).iter().flat_map(elements).collect();
    values.iter().any(|value| match &condition.test {
        Test::Exists => true,
        Test::Equals(wanted) => compare(CompareOp::Eq, value, wanted) == Some(true),
        Test::Matches(regex) => matches!(value, Static::String(text) if regex.is_match(text)),
        Test::StringRange(low, high) => match value {
            Static::String(text) => (low.clone(), high.clone()).contains(text),
            _ => false,
        },
        // As an index does that keeps doubles.
        Test::NumberRange(low, high) => match value {
            Static::Int(value) | Static::Duration(value) => {
                (*low, *high).contains(&(*value as f64))
            }
            Static::Float(value) => (*low, *high).contains(value),
            _ => false,
        },
    })
}

fn stored(field: &Field, span: &Span) -> Vec<Static> {
    let all = |parts: &[Part], get: &dyn Fn(&Part) -> Option<Static>| {
        parts.iter().filter_map(get).collect::<Vec<_>>()
    };
    match field {
        Field::Attribute(scope, name) => {
            let name: &str = name;
            let of = |part: &Part| part.attributes.get(name).cloned();
            match scope {
                Scope::Span => span.span.get(name).cloned().into_iter().collect(),
                Scope::Resource => span.resource.get(name).cloned().into_iter().collect(),
                Scope::Instrumentation => {
                    span.instrumentation.get(name).cloned().into_iter().collect()
                }
                Scope::Event => all(&span.events, &of),
                Scope::Link => all(&span.links, &of),
            }
        }
        Field::Intrinsic(intrinsic) => {
            let of = |part: &Part| find(&part.intrinsics, *intrinsic);
            match intrinsic {
                Intrinsic::EventName | Intrinsic::EventTimeSinceStart => all(&span.events, &of),
                Intrinsic::LinkSpanId | Intrinsic::LinkTraceId => all(&span.links, &of),
                _ => find(&span.intrinsics, *intrinsic).into_iter().collect(),
            }
        }
    }
}
