//! From a compiled filter to its prefilter.
//!
//! The law: a span the filter matches passes the prefilter. So whatever an index cannot tell is
//! widened, never narrowed, and a negation is pushed inwards until it stands before something whose
//! opposite an index knows: almost nothing, because an absent field makes every comparison false
//! and so every negated comparison true.

use std::ops::Bound;
use std::sync::Arc;

use super::{CONDITIONS_MAX, Field, Prefilter, Scope, Test};
use crate::eval::{Node, Slot, Value, ValueTest};
use crate::value::{CompareOp, Static};

/// The prefilter of a compiled filter.
pub(crate) fn of_node(root: &Node) -> Prefilter {
    holds(root).bounded(CONDITIONS_MAX)
}

/// Spans for which the node may be true.
fn holds(node: &Node) -> Prefilter {
    match node {
        Node::Const(true) => Prefilter::All,
        Node::Const(false) => Prefilter::None,
        Node::All(terms) => Prefilter::and(terms.iter().map(holds)),
        Node::Any(terms) => Prefilter::or(terms.iter().map(holds)),
        Node::Not(inner) => fails(inner),
        Node::Tests { slot, all: true, tests } => {
            Prefilter::and(tests.iter().map(|test| test_holds(slot, test)))
        }
        Node::Tests { slot, all: false, tests } => {
            Prefilter::or(tests.iter().map(|test| test_holds(slot, test)))
        }
        Node::Compare { left, right, .. } => Prefilter::and([present(left), present(right)]),
        Node::Match { value, .. } => present(value),
    }
}

/// Spans for which the node may be false.
fn fails(node: &Node) -> Prefilter {
    match node {
        Node::Const(true) => Prefilter::None,
        Node::Const(false) => Prefilter::All,
        Node::All(terms) => Prefilter::or(terms.iter().map(fails)),
        Node::Any(terms) => Prefilter::and(terms.iter().map(fails)),
        Node::Not(inner) => holds(inner),
        Node::Tests { slot, tests, .. } => match tests.as_slice() {
            [ValueTest::Absent] if !several(slot) => exists(slot),
            _ => Prefilter::All,
        },
        Node::Compare { .. } | Node::Match { .. } => Prefilter::All,
    }
}

/// Whether a span can have several values or, without event or link, no place for one.
fn several(slot: &Slot) -> bool {
    match slot {
        Slot::At(field) => field.is_event() || field.is_link(),
        Slot::Unscoped(_) => false,
        Slot::OfParent(..) | Slot::Nowhere => true,
    }
}

/// Spans on which every field has a value that the value of the expression needs.
fn present(value: &Value) -> Prefilter {
    match value {
        Value::Literal(Static::Nil) => Prefilter::None,
        Value::Literal(_) | Value::Bool(_) => Prefilter::All,
        Value::Field(slot) => exists(slot),
        Value::Not(inner) | Value::Negate(inner) => present(inner),
        Value::Arithmetic { left, right, .. } => Prefilter::and([present(left), present(right)]),
    }
}

fn exists(slot: &Slot) -> Prefilter {
    on(slot, &Test::Exists)
}

/// The test wherever the field can be: an unscoped attribute may be on the span or the resource.
fn on(slot: &Slot, test: &Test) -> Prefilter {
    match slot {
        Slot::Nowhere => Prefilter::None,
        // Indexes know the attributes of a span, not those of its parent.
        Slot::OfParent(..) => Prefilter::All,
        Slot::At(field) => Prefilter::condition(field.clone(), test.clone()),
        Slot::Unscoped(name) => Prefilter::or([Scope::Span, Scope::Resource].map(|scope| {
            Prefilter::condition(Field::Attribute(scope, Arc::clone(name)), test.clone())
        })),
    }
}

fn test_holds(slot: &Slot, test: &ValueTest) -> Prefilter {
    let test = match test {
        ValueTest::Absent if *slot == Slot::Nowhere => return Prefilter::None,
        ValueTest::Absent => return Prefilter::All,
        ValueTest::Is(value) => Test::Equals(Static::Bool(*value)),
        ValueTest::Match { negated: false, regex } => Test::Matches(Arc::clone(regex)),
        ValueTest::Present | ValueTest::Match { negated: true, .. } => Test::Exists,
        ValueTest::Compare(CompareOp::Ne, _) => Test::Exists,
        ValueTest::Compare(CompareOp::Eq, literal) => Test::Equals(literal.clone()),
        ValueTest::Compare(op, literal) => range(*op, literal),
    };
    on(slot, &test)
}

fn range(op: CompareOp, literal: &Static) -> Test {
    match literal {
        Static::Int(value) | Static::Duration(value) => int_range(op, *value),
        Static::Float(value) => float_range(op, *value),
        Static::String(text) => {
            let (low, high) = bounds(op, Arc::clone(text));
            Test::StringRange(low, high)
        }
        _ => Test::Exists,
    }
}

fn bounds<T>(op: CompareOp, value: T) -> (Bound<T>, Bound<T>) {
    match op {
        CompareOp::Lt => (Bound::Unbounded, Bound::Excluded(value)),
        CompareOp::Le => (Bound::Unbounded, Bound::Included(value)),
        CompareOp::Gt => (Bound::Excluded(value), Bound::Unbounded),
        CompareOp::Ge => (Bound::Included(value), Bound::Unbounded),
        CompareOp::Eq | CompareOp::Ne => (Bound::Unbounded, Bound::Unbounded),
    }
}

/// Integers below this convert to doubles and back without loss.
const EXACT: f64 = 9_007_199_254_740_992.0;

fn int_range(op: CompareOp, value: i64) -> Test {
    // Rounding keeps the order, so whatever is above an integer is not below the double nearest to
    // it, rounded itself or not.
    #[allow(clippy::cast_precision_loss, reason = "inclusive bounds make up for the rounding")]
    float_range(op, value as f64)
}

fn float_range(op: CompareOp, value: f64) -> Test {
    let (mut low, mut high) = bounds(op, value);
    // A literal like 2^53 is exact, but an index that rounds its integers puts neighbours on it.
    if value.abs() >= EXACT {
        for bound in [&mut low, &mut high] {
            if let Bound::Excluded(value) = *bound {
                *bound = Bound::Included(value);
            }
        }
    }
    Test::NumberRange(low, high)
}
