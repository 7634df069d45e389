//! From the syntax tree to what is evaluated: constants folded, literals on the right, tests on one
//! field joined.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Node, Slot, Value, ValueTest, arithmetic, matches_regex};
use crate::ast::FieldExpr;
use crate::plan::Field;
use crate::value::{CompareOp, Static, compare_any};

/// The expression as a condition: true where its value is the boolean true.
pub(crate) fn node(expr: &FieldExpr) -> Node {
    match expr {
        FieldExpr::Literal(value) => Node::Const(*value == Static::Bool(true)),
        FieldExpr::Field(field) => test(Slot::of(field), ValueTest::Is(true)),
        FieldExpr::Negate(_) | FieldExpr::Arithmetic { .. } => Node::Const(false),
        FieldExpr::Not(inner) => negated(inner),
        FieldExpr::Compare { op, left, right } => comparison(*op, left, right),
        FieldExpr::Match { negated, value, pattern } => {
            let regex = Arc::clone(pattern.regex());
            match self::value(value) {
                Value::Literal(text) => Node::Const(matches_regex(*negated, &regex, &text)),
                Value::Field(slot) => test(slot, ValueTest::Match { negated: *negated, regex }),
                value => Node::Match { negated: *negated, value, regex },
            }
        }
        FieldExpr::And(terms) => joined(terms, true),
        FieldExpr::Or(terms) => joined(terms, false),
    }
}

/// `!inner`, true where the value of `inner` is the boolean false.
fn negated(inner: &FieldExpr) -> Node {
    match inner {
        FieldExpr::Literal(value) => Node::Const(*value == Static::Bool(false)),
        FieldExpr::Field(field) => test(Slot::of(field), ValueTest::Is(false)),
        FieldExpr::Negate(_) | FieldExpr::Arithmetic { .. } => Node::Const(false),
        // `!!x` is true exactly where x is.
        FieldExpr::Not(twice) => node(twice),
        _ => match node(inner) {
            Node::Const(value) => Node::Const(!value),
            other => Node::Not(Box::new(other)),
        },
    }
}

fn test(slot: Slot, test: ValueTest) -> Node {
    Node::Tests { slot, all: true, tests: vec![test] }
}

/// The expression as a value.
pub(crate) fn value(expr: &FieldExpr) -> Value {
    match expr {
        FieldExpr::Literal(value) => Value::Literal(value.clone()),
        FieldExpr::Field(field) => Value::Field(Slot::of(field)),
        FieldExpr::Not(inner) => match value(inner) {
            Value::Literal(Static::Bool(value)) => Value::Literal(Static::Bool(!value)),
            other => Value::Not(Box::new(other)),
        },
        FieldExpr::Negate(inner) => match value(inner) {
            Value::Literal(literal) => folded(arithmetic::negate(&literal), || {
                Value::Negate(Box::new(Value::Literal(literal.clone())))
            }),
            other => Value::Negate(Box::new(other)),
        },
        FieldExpr::Arithmetic { op, left, right } => match (value(left), value(right)) {
            (Value::Literal(left), Value::Literal(right)) => {
                folded(arithmetic::apply(*op, &left, &right), || Value::Arithmetic {
                    op: *op,
                    left: Box::new(Value::Literal(left.clone())),
                    right: Box::new(Value::Literal(right.clone())),
                })
            }
            (left, right) => {
                Value::Arithmetic { op: *op, left: Box::new(left), right: Box::new(right) }
            }
        },
        _ => match node(expr) {
            Node::Const(value) => Value::Literal(Static::Bool(value)),
            other => Value::Bool(Box::new(other)),
        },
    }
}

/// A constant's value, or the expression itself if it is an error: then every span shows it.
fn folded<E>(result: Result<Static, E>, unfolded: impl FnOnce() -> Value) -> Value {
    result.map_or_else(|_| unfolded(), Value::Literal)
}

fn comparison(op: CompareOp, left: &FieldExpr, right: &FieldExpr) -> Node {
    match (left, right) {
        (FieldExpr::Field(field), FieldExpr::Literal(Static::Nil))
        | (FieldExpr::Literal(Static::Nil), FieldExpr::Field(field)) => {
            let presence = match op {
                CompareOp::Eq => ValueTest::Absent,
                CompareOp::Ne => ValueTest::Present,
                _ => return Node::Const(false),
            };
            return test(Slot::of(field), presence);
        }
        _ => {}
    }
    match (value(left), value(right)) {
        (Value::Literal(left), Value::Literal(right)) => {
            Node::Const(compare_any(op, &left, &right))
        }
        (Value::Field(slot), Value::Literal(literal)) => against(slot, op, literal),
        (Value::Literal(literal), Value::Field(slot)) => against(slot, op.flipped(), literal),
        (left, right) => Node::Compare { op, left, right },
    }
}

fn against(slot: Slot, op: CompareOp, literal: Static) -> Node {
    if literal.is_nil() {
        // A constant expression without a value, such as 1.0 / 0.
        return Node::Const(false);
    }
    let literal = padded(&slot, literal);
    test(slot, ValueTest::Compare(op, literal))
}

/// Identifiers compare as hex digits at full width, so a literal may leave out leading zeros or
/// have too many, and may be in upper case. An empty one stays empty.
fn padded(slot: &Slot, literal: Static) -> Static {
    let (Slot::At(Field::Intrinsic(intrinsic)), Static::String(text)) = (slot, &literal) else {
        return literal;
    };
    match intrinsic.hex_digits() {
        Some(digits) if !text.is_empty() => {
            let significant = text.trim_start_matches('0').to_ascii_lowercase();
            Static::string(&format!("{significant:0>digits$}"))
        }
        _ => literal,
    }
}

fn joined(terms: &[FieldExpr], all: bool) -> Node {
    let mut nodes: Vec<Node> = Vec::new();
    let mut places: HashMap<Slot, usize> = HashMap::new();
    for term in terms {
        match node(term) {
            Node::Const(value) if value == all => {}
            Node::Const(_) => return Node::Const(!all),
            Node::Tests { slot, all: inner_all, tests } if tests.len() == 1 || inner_all == all => {
                // Tests cannot fail, so an earlier place changes no outcome but an error's.
                match places.get(&slot).and_then(|place| nodes.get_mut(*place)) {
                    Some(Node::Tests { tests: earlier, .. }) => earlier.extend(tests),
                    _ => {
                        places.insert(slot.clone(), nodes.len());
                        nodes.push(Node::Tests { slot, all, tests });
                    }
                }
            }
            other => nodes.push(other),
        }
    }
    match nodes.pop() {
        None => Node::Const(all),
        Some(only) if nodes.is_empty() => only,
        Some(last) => {
            nodes.push(last);
            if all { Node::All(nodes) } else { Node::Any(nodes) }
        }
    }
}
