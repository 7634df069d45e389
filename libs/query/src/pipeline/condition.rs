//! What a trace must have to be found, as far as an index can tell: some span for each filter that
//! cannot be left out. A superset, like everything that is asked of an index.

use clew_traceql::ast::Form;
use clew_traceql::plan::{Condition, Field, Prefilter, Test, prefilter};
use clew_traceql::value::Static;
use clew_traceql::{FieldExpr, FieldRef};

use super::{Leaf, Scalar, ScalarFilter, Spansets, Stage};
use crate::plan::of_fragment;

/// A condition on a trace.
#[derive(Debug, Clone)]
pub(crate) enum TraceCondition {
    /// Nothing is known.
    All,
    /// No trace can match.
    None,
    /// Some span may pass the filter of that number.
    Has(usize),
    /// All of these.
    And(Vec<TraceCondition>),
    /// Any of these.
    Or(Vec<TraceCondition>),
}

impl TraceCondition {
    fn and(parts: impl IntoIterator<Item = TraceCondition>) -> TraceCondition {
        let mut kept = Vec::new();
        for part in parts {
            match part {
                TraceCondition::All => {}
                TraceCondition::None => return TraceCondition::None,
                TraceCondition::And(inner) => kept.extend(inner),
                part => kept.push(part),
            }
        }
        match kept.len() {
            0 => TraceCondition::All,
            1 => kept.pop().unwrap_or(TraceCondition::All),
            _ => TraceCondition::And(kept),
        }
    }

    fn or(parts: impl IntoIterator<Item = TraceCondition>) -> TraceCondition {
        let mut kept = Vec::new();
        for part in parts {
            match part {
                TraceCondition::None => {}
                TraceCondition::All => return TraceCondition::All,
                TraceCondition::Or(inner) => kept.extend(inner),
                part => kept.push(part),
            }
        }
        match kept.len() {
            0 => TraceCondition::None,
            1 => kept.pop().unwrap_or(TraceCondition::None),
            _ => TraceCondition::Or(kept),
        }
    }

    /// What some span of every trace that can match passes, wherever it lies: of what must all hold
    /// the part that probably holds least often. Every place must be asked the same.
    pub(crate) fn fragment(&self, filters: &[Leaf]) -> Prefilter {
        match self {
            TraceCondition::All => Prefilter::All,
            TraceCondition::None => Prefilter::None,
            TraceCondition::Has(filter) => {
                filters.get(*filter).map_or(Prefilter::All, |leaf| of_fragment(&leaf.prefilter))
            }
            TraceCondition::And(parts) => {
                let parts = parts.iter().map(|part| part.fragment(filters));
                parts.min_by_key(breadth).unwrap_or(Prefilter::All)
            }
            TraceCondition::Or(parts) => {
                Prefilter::or(parts.iter().map(|part| part.fragment(filters)))
            }
        }
    }
}

/// A guess of how many spans pass: the smaller, the fewer.
fn breadth(prefilter: &Prefilter) -> u8 {
    match prefilter {
        Prefilter::None => 0,
        Prefilter::Condition(Condition { field, test }) => match (field, test) {
            (_, Test::Exists) => 5,
            (_, Test::Equals(Static::Status(_) | Static::Kind(_) | Static::Bool(_))) => 3,
            (Field::Attribute(..) | Field::Intrinsic(_), Test::Equals(_)) => 1,
            (_, Test::StringRange(..) | Test::NumberRange(..)) => 4,
            (_, Test::Matches(_)) => 2,
        },
        Prefilter::And(parts) => parts.iter().map(breadth).min().unwrap_or(u8::MAX),
        Prefilter::Or(parts) => parts.iter().map(breadth).max().unwrap_or(0),
        Prefilter::All => u8::MAX,
    }
}

pub(super) fn of_stages(stages: &[Stage], filters: &[Leaf]) -> TraceCondition {
    TraceCondition::and(stages.iter().map(|stage| match stage {
        Stage::Spansets(spansets) => of_spansets(spansets, filters),
        Stage::Scalar(filter) => of_scalars(filter, filters),
        Stage::By { .. } | Stage::Coalesce => TraceCondition::All,
    }))
}

fn of_spansets(spansets: &Spansets, filters: &[Leaf]) -> TraceCondition {
    match spansets {
        Spansets::Filter(filter) => match filters.get(*filter) {
            Some(leaf) if leaf.prefilter.is_none() => TraceCondition::None,
            Some(leaf) if leaf.prefilter.is_all() && leaf.elsewhere.is_empty() => {
                TraceCondition::All
            }
            _ => TraceCondition::Has(*filter),
        },
        Spansets::Both(left, right) => {
            TraceCondition::and([of_spansets(left, filters), of_spansets(right, filters)])
        }
        Spansets::Either(left, right) => {
            TraceCondition::or([of_spansets(left, filters), of_spansets(right, filters)])
        }
        Spansets::Related { how, left, right } => match how.form {
            Form::Plain | Form::Union => {
                TraceCondition::and([of_spansets(left, filters), of_spansets(right, filters)])
            }
            // Nothing on the left is fine.
            Form::Negated => of_spansets(right, filters),
        },
        Spansets::Pipeline(stages) => of_stages(stages, filters),
    }
}

/// A comparison of pipelines keeps the spans that one of them found; one with an aggregate of the
/// spanset at hand keeps that.
fn of_scalars(filter: &ScalarFilter, filters: &[Leaf]) -> TraceCondition {
    let mut found = Vec::new();
    for side in [&filter.left, &filter.right] {
        if !of_scalar(side, filters, &mut found) {
            return TraceCondition::All;
        }
    }
    TraceCondition::or(found)
}

/// Adds what the pipelines need; false if a spanset at hand is kept.
fn of_scalar(scalar: &Scalar, filters: &[Leaf], found: &mut Vec<TraceCondition>) -> bool {
    match scalar {
        Scalar::Literal(_) => true,
        Scalar::Aggregate(_) => false,
        Scalar::Pipeline(stages, _) => {
            found.push(of_stages(stages, filters));
            true
        }
        Scalar::Arithmetic { left, right, .. } => {
            of_scalar(left, filters, found) && of_scalar(right, filters, found)
        }
    }
}

/// What some span of the trace must pass because it is the parent of a span that matches: the terms
/// that speak of the parent alone, turned into terms on a span itself.
pub(super) fn of_parents(filter: &FieldExpr) -> Vec<Prefilter> {
    let terms = match filter {
        FieldExpr::And(terms) => terms.as_slice(),
        other => std::slice::from_ref(other),
    };
    let of_parent = |term: &&FieldExpr| {
        let fields = term.fields();
        !fields.is_empty() && fields.iter().all(FieldRef::is_parent)
    };
    let known = terms.iter().filter(of_parent).map(|term| prefilter(&as_own(term)));
    known.filter(|known| !known.is_all()).collect()
}

/// The expression with every field of the parent as one of the span itself.
fn as_own(expr: &FieldExpr) -> FieldExpr {
    let boxed = |expr: &FieldExpr| Box::new(as_own(expr));
    match expr {
        FieldExpr::Literal(value) => FieldExpr::Literal(value.clone()),
        FieldExpr::Field(FieldRef::Attribute { scope, name, .. }) => {
            FieldExpr::Field(FieldRef::Attribute {
                parent: false,
                scope: *scope,
                name: name.clone(),
            })
        }
        FieldExpr::Field(field) => FieldExpr::Field(field.clone()),
        FieldExpr::Not(inner) => FieldExpr::Not(boxed(inner)),
        FieldExpr::Negate(inner) => FieldExpr::Negate(boxed(inner)),
        FieldExpr::Arithmetic { op, left, right } => {
            FieldExpr::Arithmetic { op: *op, left: boxed(left), right: boxed(right) }
        }
        FieldExpr::Compare { op, left, right } => {
            FieldExpr::Compare { op: *op, left: boxed(left), right: boxed(right) }
        }
        FieldExpr::Match { negated, value, pattern } => {
            FieldExpr::Match { negated: *negated, value: boxed(value), pattern: pattern.clone() }
        }
        FieldExpr::And(terms) => FieldExpr::And(terms.iter().map(as_own).collect()),
        FieldExpr::Or(terms) => FieldExpr::Or(terms.iter().map(as_own).collect()),
    }
}
