//! Filters that an index decides alone, so that a search finds spans, and values are listed, without
//! decoding a span.

use clew_traceql::plan::{Intrinsic, Prefilter, Scope};
use clew_traceql::value::{CompareOp, Static};
use clew_traceql::{FieldExpr, FieldRef};

/// Whether a row passes `condition` if and only if its span matches `filter`, provided that every
/// lookup is exact.
pub(crate) fn decides(condition: &Prefilter, filter: &FieldExpr) -> bool {
    // A planner may leave conditions out where there are too many; then the numbers differ.
    tests(filter).is_some_and(|tests| tests > 0 && tests == lookups(condition))
}

/// How many tests the filter is made of; `None` if one of them is not for an index.
fn tests(filter: &FieldExpr) -> Option<usize> {
    match filter {
        FieldExpr::And(parts) | FieldExpr::Or(parts) => {
            parts.iter().map(tests).sum::<Option<usize>>()
        }
        FieldExpr::Compare { op, left, right } => match (left.as_ref(), right.as_ref()) {
            (FieldExpr::Field(field), FieldExpr::Literal(literal))
            | (FieldExpr::Literal(literal), FieldExpr::Field(field)) => {
                // Absence and difference are not looked up; presence is.
                let looked_up = match literal {
                    Static::Nil => *op == CompareOp::Ne,
                    _ => *op != CompareOp::Ne,
                };
                if looked_up { lookups_of(field) } else { None }
            }
            _ => None,
        },
        FieldExpr::Match { negated: false, value, .. } => match value.as_ref() {
            FieldExpr::Field(field) => lookups_of(field),
            _ => None,
        },
        _ => None,
    }
}

/// How many lookups decide a test on the field; `None` if a span may have it several times.
fn lookups_of(field: &FieldRef) -> Option<usize> {
    match field {
        FieldRef::Attribute { parent: false, scope: Some(scope), .. } => {
            matches!(scope, Scope::Span | Scope::Resource | Scope::Instrumentation).then_some(1)
        }
        // On the span or, if it has none, on the resource.
        FieldRef::Attribute { parent: false, scope: None, .. } => Some(2),
        FieldRef::Intrinsic { intrinsic, .. } => matches!(
            intrinsic,
            Intrinsic::Name | Intrinsic::Status | Intrinsic::Kind | Intrinsic::Duration
        )
        .then_some(1),
        FieldRef::Attribute { .. } | FieldRef::Parent => None,
    }
}

fn lookups(condition: &Prefilter) -> usize {
    match condition {
        Prefilter::All | Prefilter::None => 0,
        Prefilter::Condition(_) => 1,
        Prefilter::And(parts) | Prefilter::Or(parts) => parts.iter().map(lookups).sum(),
    }
}
