//! Evaluation of a filter on one span.
//!
//! A filter is compiled once: constants folded, identifiers padded, tests on the same field joined
//! so that it is looked up once. Rules that are easy to get wrong:
//!
//! - An absent field makes every comparison false, `!=` and `!~` included; only `= nil` holds.
//! - Values whose types do not compare make a comparison false, never an error.
//! - Conditions on event fields inside one filter are about the same event, links alike: the
//!   filter holds if there is an event and a link for which the whole expression holds. A span
//!   without events is judged once, with every condition on event fields false.
//! - `!` of something that is not boolean is not true.

use std::sync::Arc;

use regex::Regex;

use crate::ast::{ArithmeticOp, FieldExpr};
use crate::error::EvalError;
use crate::field::FieldRef;
use crate::plan::{Field, Intrinsic, Prefilter, Scope};
use crate::value::{CompareOp, Static, compare_any};

mod arithmetic;
mod choice;
mod compile;

use self::choice::{Choice, plan_choice};
pub use self::choice::{Cursor, EVENT_LINK_PAIRS_MAX};

/// What a filter can ask of a span. Absent is `None`; an array attribute is one value, and an empty
/// one counts as absent.
///
/// Identifiers come as lower-case hex digits at full width: 32 for traces, 16 for spans. The
/// parent id of a root is absent.
pub trait SpanValues {
    /// An attribute of the span, its resource or its instrumentation scope.
    fn attribute(&self, scope: Scope, name: &str) -> Option<Static>;
    /// An intrinsic that is not of an event or link.
    fn intrinsic(&self, intrinsic: Intrinsic) -> Option<Static>;
    /// How many events the span has.
    fn event_count(&self) -> usize;
    /// An attribute of the event at an index below [`Self::event_count`].
    fn event_attribute(&self, event: usize, name: &str) -> Option<Static>;
    /// `event:name` or `event:timeSinceStart` of an event.
    fn event_intrinsic(&self, event: usize, intrinsic: Intrinsic) -> Option<Static>;
    /// How many links the span has.
    fn link_count(&self) -> usize;
    /// An attribute of the link at an index below [`Self::link_count`].
    fn link_attribute(&self, link: usize, name: &str) -> Option<Static>;
    /// `link:traceID` or `link:spanID` of a link.
    fn link_intrinsic(&self, link: usize, intrinsic: Intrinsic) -> Option<Static>;
    /// An attribute of the parent span, or of its resource; absent if there is no parent.
    fn parent_attribute(&self, scope: Scope, name: &str) -> Option<Static>;
}

/// A compiled filter.
#[derive(Debug, Clone)]
pub struct Filter {
    root: Node,
    /// Terms of a conjunction that need neither event nor link, tried before any is chosen.
    before: Vec<Node>,
    choice: Choice,
}

/// A boolean expression; evaluation is two-valued.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Const(bool),
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    /// All or any of the tests on the value of one field.
    Tests {
        slot: Slot,
        all: bool,
        tests: Vec<ValueTest>,
    },
    Compare {
        op: CompareOp,
        left: Value,
        right: Value,
    },
    Match {
        negated: bool,
        value: Value,
        regex: Arc<Regex>,
    },
}

/// A test on one value.
#[derive(Debug, Clone)]
pub(crate) enum ValueTest {
    Is(bool),
    Present,
    Absent,
    Compare(CompareOp, Static),
    Match { negated: bool, regex: Arc<Regex> },
}

/// An expression with a value of any type.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Literal(Static),
    Field(Slot),
    Not(Box<Value>),
    Negate(Box<Value>),
    Arithmetic { op: ArithmeticOp, left: Box<Value>, right: Box<Value> },
    Bool(Box<Node>),
}

/// Where a field's value is looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    /// On the span, then on the resource.
    Unscoped(Arc<str>),
    /// In one place.
    At(Field),
    /// On the parent span: in one scope, or there and then on its resource.
    OfParent(Option<Scope>, Arc<str>),
    /// Nowhere: the parent span as a whole, which is no value.
    Nowhere,
}

/// What a look-up found.
enum Found {
    /// There is no event (or link) to have the field.
    NoHost,
    Absent,
    Value(Static),
}

impl Filter {
    /// Compiles the expression. What is not boolean matches nothing.
    pub fn new(expr: &FieldExpr) -> Filter {
        let root = compile::node(expr);
        let (before, choice) = plan_choice(&root);
        Filter { root, before, choice }
    }

    /// Whether it is known without looking that no span matches.
    pub fn is_never(&self) -> bool {
        matches!(self.root, Node::Const(false))
    }

    /// Whether it is known without looking that every span matches.
    pub fn is_always(&self) -> bool {
        matches!(self.root, Node::Const(true))
    }

    /// What an index can do before the filter runs: never excludes a span that matches.
    pub fn prefilter(&self) -> Prefilter {
        crate::plan::of_node(&self.root)
    }

    /// Whether the span matches.
    ///
    /// # Errors
    /// Integer division by zero, arithmetic on an array, or too many pairs of events and links.
    pub fn matches(&self, span: &dyn SpanValues) -> Result<bool, EvalError> {
        Ok(self.place(span)?.is_some())
    }

    /// The first event and link for which the filter holds; `None` if the span does not match.
    ///
    /// # Errors
    /// As [`Filter::matches`].
    pub fn place(&self, span: &dyn SpanValues) -> Result<Option<Cursor>, EvalError> {
        if !all_hold(&self.before, span, Cursor::default())? {
            return Ok(None);
        }
        self.choice.first(&self.root, span)
    }

    /// Whether the filter speaks of events or links.
    pub fn chooses(&self) -> bool {
        !matches!(self.choice, Choice::Neither)
    }
}

/// A compiled expression with a value on every span, for `by` and aggregates. Fields of events and
/// links are those of the first one.
#[derive(Debug, Clone)]
pub struct Expression {
    value: Value,
    events: bool,
    links: bool,
}

impl Expression {
    /// Compiles the expression.
    pub fn new(expr: &FieldExpr) -> Expression {
        let value = compile::value(expr);
        let (events, links) = (value.needs(Field::is_event), value.needs(Field::is_link));
        Expression { value, events, links }
    }

    /// The value on a span; nil if there is none.
    ///
    /// # Errors
    /// Integer division by zero, or arithmetic on an array.
    pub fn value(&self, span: &dyn SpanValues) -> Result<Static, EvalError> {
        let cursor = Cursor {
            event: (self.events && span.event_count() > 0).then_some(0),
            link: (self.links && span.link_count() > 0).then_some(0),
        };
        self.value.get(span, cursor)
    }
}

/// `left op right` with numbers, as in a scalar filter; nil if an operand is no number or there is
/// no result.
///
/// # Errors
/// Integer division by zero, or arithmetic on an array.
pub fn calculate(op: ArithmeticOp, left: &Static, right: &Static) -> Result<Static, EvalError> {
    arithmetic::apply(op, left, right)
}

fn all_hold(terms: &[Node], span: &dyn SpanValues, cursor: Cursor) -> Result<bool, EvalError> {
    for term in terms {
        if !term.holds(span, cursor)? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Node {
    fn holds(&self, span: &dyn SpanValues, cursor: Cursor) -> Result<bool, EvalError> {
        match self {
            Node::Const(value) => Ok(*value),
            Node::All(terms) => all_hold(terms, span, cursor),
            Node::Any(terms) => {
                for term in terms {
                    if term.holds(span, cursor)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Node::Not(inner) => Ok(!inner.holds(span, cursor)?),
            Node::Tests { slot, all, tests } => {
                let found = slot.look_up(span, cursor);
                Ok(if *all {
                    tests.iter().all(|test| test.passes(&found))
                } else {
                    tests.iter().any(|test| test.passes(&found))
                })
            }
            Node::Compare { op, left, right } => {
                Ok(compare_any(*op, &left.get(span, cursor)?, &right.get(span, cursor)?))
            }
            Node::Match { negated, value, regex } => {
                Ok(matches_regex(*negated, regex, &value.get(span, cursor)?))
            }
        }
    }

    /// Whether evaluation can end in an error.
    fn can_fail(&self) -> bool {
        match self {
            Node::Const(_) | Node::Tests { .. } => false,
            Node::All(terms) | Node::Any(terms) => terms.iter().any(Node::can_fail),
            Node::Not(inner) => inner.can_fail(),
            Node::Compare { left, right, .. } => left.can_fail() || right.can_fail(),
            Node::Match { value, .. } => value.can_fail(),
        }
    }

    /// Whether a field of this sort is mentioned.
    fn needs(&self, sort: fn(&Field) -> bool) -> bool {
        match self {
            Node::Const(_) => false,
            Node::All(terms) | Node::Any(terms) => terms.iter().any(|term| term.needs(sort)),
            Node::Not(inner) => inner.needs(sort),
            Node::Tests { slot, .. } => slot.is(sort),
            Node::Compare { left, right, .. } => left.needs(sort) || right.needs(sort),
            Node::Match { value, .. } => value.needs(sort),
        }
    }
}

impl Value {
    fn get(&self, span: &dyn SpanValues, cursor: Cursor) -> Result<Static, EvalError> {
        match self {
            Value::Literal(value) => Ok(value.clone()),
            Value::Field(slot) => Ok(match slot.look_up(span, cursor) {
                Found::Value(value) => value,
                Found::NoHost | Found::Absent => Static::Nil,
            }),
            Value::Not(inner) => Ok(match inner.get(span, cursor)? {
                Static::Bool(value) => Static::Bool(!value),
                _ => Static::Nil,
            }),
            Value::Negate(inner) => arithmetic::negate(&inner.get(span, cursor)?),
            Value::Arithmetic { op, left, right } => {
                let left = left.get(span, cursor)?;
                arithmetic::apply(*op, &left, &right.get(span, cursor)?)
            }
            Value::Bool(node) => node.holds(span, cursor).map(Static::Bool),
        }
    }

    fn can_fail(&self) -> bool {
        match self {
            Value::Literal(_) | Value::Field(_) => false,
            Value::Not(inner) => inner.can_fail(),
            Value::Negate(_) | Value::Arithmetic { .. } => true,
            Value::Bool(node) => node.can_fail(),
        }
    }

    fn needs(&self, sort: fn(&Field) -> bool) -> bool {
        match self {
            Value::Literal(_) => false,
            Value::Field(slot) => slot.is(sort),
            Value::Not(inner) | Value::Negate(inner) => inner.needs(sort),
            Value::Arithmetic { left, right, .. } => left.needs(sort) || right.needs(sort),
            Value::Bool(node) => node.needs(sort),
        }
    }
}

impl ValueTest {
    fn passes(&self, found: &Found) -> bool {
        match (self, found) {
            (ValueTest::Absent, found) => matches!(found, Found::Absent),
            (_, Found::NoHost | Found::Absent) => false,
            (ValueTest::Present, Found::Value(_)) => true,
            (ValueTest::Is(wanted), Found::Value(value)) => *value == Static::Bool(*wanted),
            (ValueTest::Compare(op, literal), Found::Value(value)) => {
                compare_any(*op, value, literal)
            }
            (ValueTest::Match { negated, regex }, Found::Value(value)) => {
                matches_regex(*negated, regex, value)
            }
        }
    }
}

/// Only text matches or fails to match; of an array, any text may match but none may for `!~`.
fn matches_regex(negated: bool, regex: &Regex, value: &Static) -> bool {
    match value {
        Static::String(text) => regex.is_match(text) != negated,
        Static::Array(elements) => {
            let mut texts = elements.iter().filter_map(|element| match element {
                Static::String(text) => Some(text),
                _ => None,
            });
            if !negated {
                return texts.any(|text| regex.is_match(text));
            }
            let mut any_text = false;
            texts.all(|text| {
                any_text = true;
                !regex.is_match(text)
            }) && any_text
        }
        _ => false,
    }
}

impl Slot {
    pub(crate) fn of(field: &FieldRef) -> Slot {
        match field {
            FieldRef::Parent => Slot::Nowhere,
            FieldRef::Attribute { parent: true, scope, name } => {
                Slot::OfParent(*scope, Arc::clone(name))
            }
            FieldRef::Attribute { scope: None, name, .. } => Slot::Unscoped(Arc::clone(name)),
            FieldRef::Attribute { scope: Some(scope), name, .. } => {
                Slot::At(Field::Attribute(*scope, Arc::clone(name)))
            }
            FieldRef::Intrinsic { intrinsic, .. } => Slot::At(Field::Intrinsic(*intrinsic)),
        }
    }

    fn is(&self, sort: fn(&Field) -> bool) -> bool {
        matches!(self, Slot::At(field) if sort(field))
    }

    fn look_up(&self, span: &dyn SpanValues, cursor: Cursor) -> Found {
        let value = match self {
            Slot::Nowhere => return Found::NoHost,
            Slot::Unscoped(name) => there(span.attribute(Scope::Span, name))
                .or_else(|| span.attribute(Scope::Resource, name)),
            Slot::OfParent(Some(scope), name) => span.parent_attribute(*scope, name),
            Slot::OfParent(None, name) => there(span.parent_attribute(Scope::Span, name))
                .or_else(|| span.parent_attribute(Scope::Resource, name)),
            Slot::At(field) if field.is_event() => match (cursor.event, field) {
                (None, _) => return Found::NoHost,
                (Some(event), Field::Attribute(_, name)) => span.event_attribute(event, name),
                (Some(event), Field::Intrinsic(i)) => span.event_intrinsic(event, *i),
            },
            Slot::At(field) if field.is_link() => match (cursor.link, field) {
                (None, _) => return Found::NoHost,
                (Some(link), Field::Attribute(_, name)) => span.link_attribute(link, name),
                (Some(link), Field::Intrinsic(i)) => span.link_intrinsic(link, *i),
            },
            Slot::At(Field::Attribute(scope, name)) => span.attribute(*scope, name),
            Slot::At(Field::Intrinsic(intrinsic)) => span.intrinsic(*intrinsic),
        };
        there(value).map_or(Found::Absent, Found::Value)
    }
}

/// The value unless it counts as absent. An empty array does: indexes do not see it, and no element
/// could pass a test.
fn there(value: Option<Static>) -> Option<Static> {
    value.filter(|value| match value {
        Static::Nil => false,
        Static::Array(elements) => !elements.is_empty(),
        _ => true,
    })
}
