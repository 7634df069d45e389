//! Evaluates a condition on a span the slow and obvious way.

use std::cmp::Ordering;
use std::ops::Bound;

use clew_model::otlp::view::{
    AnyValueView, KeyValueView, ScopeView, SpanView, array_elements, resource_attributes,
};
use clew_model::trace::{SpanRecord, Trace, TraceSummary};
use clew_model::wire::WireError;
use clew_traceql::plan::{Condition, Field, Intrinsic, Scope, Test};
use clew_traceql::value::{Kind, Static, Status};

/// One value of a field: something to compare, or something that is only there.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Comparable(Static),
    Opaque,
}

/// What the model says of a span and a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Some value passes, whichever of repeated keys counts.
    pub(crate) may_pass: bool,
    /// The value that counts passes for certain.
    pub(crate) passes: bool,
    /// The model does not know this field.
    pub(crate) unknown: bool,
}

pub(crate) fn evaluate(
    record: &SpanRecord,
    trace: &TraceSummary,
    condition: &Condition,
) -> Verdict {
    let Some(groups) = values(record, trace, &condition.field) else {
        return Verdict { may_pass: true, passes: false, unknown: true };
    };
    let pass = |value: &Value| test(value, &condition.test);
    Verdict {
        may_pass: groups.iter().flatten().any(pass),
        passes: groups.first().is_some_and(|first| {
            first.iter().any(|value| {
                pass(value)
                    && !(matches!(condition.test, Test::Exists) && matches!(value, Value::Opaque))
            })
        }),
        unknown: false,
    }
}

fn texts(text: &str) -> Option<Vec<Vec<Value>>> {
    Some(vec![vec![Value::Comparable(Static::String(text.into()))]])
}

/// The values of a field; each group stems from one attribute, and the first group counts.
pub(crate) fn values(
    record: &SpanRecord,
    trace: &TraceSummary,
    field: &Field,
) -> Option<Vec<Vec<Value>>> {
    let span = SpanView::parse(&record.bytes).unwrap();
    let of = |key: &str, pairs: &mut dyn Iterator<Item = Result<KeyValueView<'_>, WireError>>| {
        Some(
            pairs
                .map(|pair| pair.unwrap())
                .filter(|pair| pair.key == key)
                .map(|pair| attribute(&pair.value))
                .collect(),
        )
    };
    match field {
        Field::Attribute(Scope::Span, key) => of(key, &mut span.attributes()),
        Field::Attribute(Scope::Resource, key) => {
            of(key, &mut resource_attributes(&record.resource.bytes))
        }
        Field::Attribute(Scope::Instrumentation, key) => {
            of(key, &mut ScopeView::parse(&record.scope.bytes).unwrap().attributes())
        }
        Field::Attribute(Scope::Event, key) => {
            of(key, &mut span.events().flat_map(|event| event.unwrap().attributes()))
        }
        Field::Attribute(Scope::Link, key) => {
            of(key, &mut span.links().flat_map(|link| link.unwrap().attributes()))
        }
        Field::Intrinsic(intrinsic) => intrinsic_values(record, &span, trace, *intrinsic),
    }
}

fn intrinsic_values(
    record: &SpanRecord,
    span: &SpanView<'_>,
    trace: &TraceSummary,
    field: Intrinsic,
) -> Option<Vec<Vec<Value>>> {
    let one = |value| Some(vec![vec![Value::Comparable(value)]]);
    let nanos = |nanos: u64| one(Static::Duration(i64::try_from(nanos).unwrap()));
    match field {
        Intrinsic::Name => texts(span.name),
        Intrinsic::StatusMessage => texts(span.status_message),
        Intrinsic::Status => one(Static::Status(match span.status_code {
            1 => Status::Ok,
            2 => Status::Error,
            _ => Status::Unset,
        })),
        Intrinsic::Kind => one(Static::Kind(match span.kind {
            1 => Kind::Internal,
            2 => Kind::Server,
            3 => Kind::Client,
            4 => Kind::Producer,
            5 => Kind::Consumer,
            _ => Kind::Unspecified,
        })),
        Intrinsic::Duration => nanos(span.duration_nanos()),
        Intrinsic::EventName => Some(
            span.events()
                .map(|event| vec![Value::Comparable(Static::String(event.unwrap().name.into()))])
                .collect(),
        ),
        Intrinsic::InstrumentationName => {
            texts(ScopeView::parse(&record.scope.bytes).unwrap().name)
        }
        Intrinsic::InstrumentationVersion => {
            texts(ScopeView::parse(&record.scope.bytes).unwrap().version)
        }
        Intrinsic::TraceDuration => nanos(trace.duration_nanos()),
        Intrinsic::RootName => {
            trace.root_name.as_ref().map_or(Some(Vec::new()), |name| texts(name))
        }
        Intrinsic::RootService => {
            trace.root_service.as_ref().map_or(Some(Vec::new()), |name| texts(name))
        }
        Intrinsic::TraceId => texts(&trace.id.to_string()),
        Intrinsic::NestedSetParent if span.parent().is_none() => one(Static::Int(-1)),
        // Anything but negative.
        Intrinsic::NestedSetParent => one(Static::Int(0)),
        _ => None,
    }
}

fn attribute(value: &AnyValueView<'_>) -> Vec<Value> {
    let scalar = |value: &AnyValueView<'_>| match value {
        AnyValueView::String(text) => Value::Comparable(Static::String((*text).into())),
        AnyValueView::Bool(truth) => Value::Comparable(Static::Bool(*truth)),
        AnyValueView::Int(number) => Value::Comparable(Static::Int(*number)),
        AnyValueView::Double(number) => Value::Comparable(Static::Float(*number)),
        _ => Value::Opaque,
    };
    match value {
        AnyValueView::Array(raw) => {
            let mut elements: Vec<_> =
                array_elements(raw).map(|element| scalar(&element.unwrap())).collect();
            if !elements.iter().any(|element| matches!(element, Value::Comparable(_))) {
                elements.push(Value::Opaque);
            }
            elements
        }
        value => vec![scalar(value)],
    }
}

fn number(value: &Static) -> Option<Result<i64, f64>> {
    match value {
        Static::Int(number) | Static::Duration(number) => Some(Ok(*number)),
        Static::Float(number) => Some(Err(*number)),
        _ => None,
    }
}

fn int_with_float(int: i64, float: f64) -> Option<Ordering> {
    float.partial_cmp(&0.0)?;
    if float.abs() >= 1e19 {
        return 0.0.partial_cmp(&float);
    }
    let whole = float.floor();
    let order = i128::from(int).cmp(&(whole as i128));
    Some(order.then(if float > whole { Ordering::Less } else { Ordering::Equal }))
}

fn compare(a: Result<i64, f64>, b: Result<i64, f64>) -> Option<Ordering> {
    match (a, b) {
        (Ok(a), Ok(b)) => Some(a.cmp(&b)),
        (Err(a), Err(b)) => a.partial_cmp(&b),
        (Ok(a), Err(b)) => int_with_float(a, b),
        (Err(a), Ok(b)) => int_with_float(b, a).map(Ordering::reverse),
    }
}

fn within<B>(low: &Bound<B>, high: &Bound<B>, order: impl Fn(&B) -> Option<Ordering>) -> bool {
    let above = match low {
        Bound::Unbounded => true,
        Bound::Included(low) => order(low).is_some_and(Ordering::is_ge),
        Bound::Excluded(low) => order(low).is_some_and(Ordering::is_gt),
    };
    above
        && match high {
            Bound::Unbounded => true,
            Bound::Included(high) => order(high).is_some_and(Ordering::is_le),
            Bound::Excluded(high) => order(high).is_some_and(Ordering::is_lt),
        }
}

fn test(value: &Value, test: &Test) -> bool {
    let Value::Comparable(value) = value else { return matches!(test, Test::Exists) };
    match test {
        Test::Exists => true,
        Test::Equals(wanted) => match (number(value), number(wanted)) {
            (Some(a), Some(b)) => compare(a, b) == Some(Ordering::Equal),
            _ => value == wanted,
        },
        Test::NumberRange(low, high) => number(value).is_some_and(|value| {
            !matches!(value, Err(nan) if nan.is_nan())
                && within(low, high, |bound| compare(value, Err(*bound)))
        }),
        Test::StringRange(low, high) => match value {
            Static::String(text) => within(low, high, |bound| Some((**text).cmp(&**bound))),
            _ => false,
        },
        Test::Matches(regex) => matches!(value, Static::String(text) if regex.is_match(text)),
    }
}

/// The traces of some buffers, merged, ascending by id.
pub(crate) fn merged(buffers: &[bytes::Bytes]) -> Vec<Trace> {
    let mut fragments: Vec<Trace> =
        buffers.iter().flat_map(|buffer| Trace::decode(buffer).unwrap()).collect();
    fragments.sort_by_key(|trace| trace.id);
    fragments
        .chunk_by(|a, b| a.id == b.id)
        .map(|same| Trace::merge(same.iter().cloned()).unwrap())
        .collect()
}
