//! Random conditions over the pools that the spans are made from.

use std::ops::Bound;
use std::sync::Arc;

use clew_traceql::plan::{Condition, Field, Intrinsic, Scope, Test};
use clew_traceql::value::{Kind, Static, Status};
use proptest::prelude::*;
use proptest::sample::select;
use regex::Regex;

use crate::spans::{double, int, key, text};

const INTRINSICS: [Intrinsic; 16] = [
    Intrinsic::Duration,
    Intrinsic::Name,
    Intrinsic::Status,
    Intrinsic::StatusMessage,
    Intrinsic::Kind,
    Intrinsic::SpanId,
    Intrinsic::ChildCount,
    Intrinsic::TraceDuration,
    Intrinsic::RootName,
    Intrinsic::RootService,
    Intrinsic::TraceId,
    Intrinsic::EventName,
    Intrinsic::LinkTraceId,
    Intrinsic::InstrumentationName,
    Intrinsic::InstrumentationVersion,
    Intrinsic::NestedSetParent,
];

pub(crate) fn field() -> impl Strategy<Value = Field> {
    let scope = select(vec![
        Scope::Span,
        Scope::Resource,
        Scope::Event,
        Scope::Link,
        Scope::Instrumentation,
    ]);
    prop_oneof![
        (scope, key()).prop_map(|(scope, key)| Field::Attribute(scope, key.into())),
        select(INTRINSICS.to_vec()).prop_map(Field::Intrinsic),
    ]
}

fn bounds<T: std::fmt::Debug + Clone>(
    value: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = (Bound<T>, Bound<T>)> {
    let bound = || {
        prop_oneof![
            Just(Bound::Unbounded),
            value.clone().prop_map(Bound::Included),
            value.clone().prop_map(Bound::Excluded),
        ]
    };
    (bound(), bound())
}

fn number() -> impl Strategy<Value = f64> + Clone {
    select(vec![-1.0, -0.5, 0.0, 0.5, 5.0, 499.5, 500.0, 9_007_199_254_740_992.0, 1e300])
}

fn test() -> impl Strategy<Value = Test> {
    let shared = text().prop_map(Arc::from).boxed();
    let pattern =
        select(vec!["^(?s:a.*)$", "^(?s:.*t)$", "^(?s:)$", "^(?s:GET|500)$", "^(?s:.*)$"]);
    prop_oneof![
        1 => Just(Test::Exists),
        3 => text().prop_map(|text| Test::Equals(Static::String(text.into()))),
        2 => int().prop_map(|number| Test::Equals(Static::Int(number))),
        1 => int().prop_map(|number| Test::Equals(Static::Duration(number))),
        2 => double().prop_map(|number| Test::Equals(Static::Float(number))),
        1 => any::<bool>().prop_map(|truth| Test::Equals(Static::Bool(truth))),
        1 => select(vec![Status::Unset, Status::Ok, Status::Error])
            .prop_map(|status| Test::Equals(Static::Status(status))),
        1 => select(vec![Kind::Unspecified, Kind::Server, Kind::Client])
            .prop_map(|kind| Test::Equals(Static::Kind(kind))),
        2 => bounds(number()).prop_map(|(low, high)| Test::NumberRange(low, high)),
        2 => bounds(shared).prop_map(|(low, high)| Test::StringRange(low, high)),
        2 => pattern.prop_map(|pattern| Test::Matches(Arc::new(Regex::new(pattern).unwrap()))),
    ]
}

pub(crate) fn condition() -> impl Strategy<Value = Condition> {
    (field(), test()).prop_map(|(field, test)| Condition { field, test })
}
