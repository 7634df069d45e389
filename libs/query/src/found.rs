//! From a whole trace to its entry in a search answer, or to none.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_model::{SpanId, Trace, TraceSummary, id};
use clew_proto::common::v1::any_value::Value;
use clew_proto::common::v1::{AnyValue, KeyValue};
use clew_proto::query::v1::FoundTrace;
use clew_proto::tempopb::{ServiceStats, Span, SpanSet, TraceSearchMetadata};
use clew_traceql::EvalError;
use clew_traceql::FieldRef;
use clew_traceql::eval::{Cursor, SpanValues};
use clew_traceql::plan::{Intrinsic, Scope};
use clew_traceql::value::Static;

use crate::pipeline::{Decoded, Spanset};
use crate::plan::{Matcher, SearchPlan, Shown};
use crate::view::{SpanRef, TraceView, any_value_message, span_values};

/// What the Tempo API calls the service of a trace whose root has not arrived.
const NO_ROOT: &str = "<root span not yet received>";

/// Why a trace could not be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JudgeError {
    /// The query does not fit the data.
    #[error(transparent)]
    Evaluate(#[from] EvalError),
    /// The trace's bytes are damaged.
    #[error(transparent)]
    Damaged(#[from] clew_model::wire::WireError),
}

/// Spans that matched, as far as they are shown.
struct Matched {
    count: u32,
    shown: Vec<Span>,
}

/// Judges a whole, merged trace.
pub(crate) fn judge(trace: &Trace, plan: &SearchPlan) -> Result<Option<FoundTrace>, JudgeError> {
    let view = TraceView::new(trace)?;
    let summary = view.summary();
    if trace.spans.is_empty()
        || !plan.range().overlaps(summary.start, summary.end)
        || !plan.admits_duration(summary.duration_nanos())
    {
        return Ok(None);
    }
    let span_sets = match plan.matcher() {
        Matcher::Filter(filter) => {
            let mut matched = Matched { count: 0, shown: Vec::new() };
            for span in each_span(&view) {
                if filter.matches(&span)? {
                    matched.add(&span, plan);
                }
            }
            if matched.count == 0 {
                view.check()?;
                return Ok(None);
            }
            vec![SpanSet { spans: matched.shown, matched: matched.count, attributes: Vec::new() }]
        }
        Matcher::Pipeline(pipeline) => {
            let found = pipeline.run(&Decoded { pipeline, view: &view })?;
            if found.is_empty() {
                view.check()?;
                return Ok(None);
            }
            found.iter().map(|set| shown_spanset(set, &view, plan)).collect()
        }
        Matcher::Tags(rules) => {
            let holds = rules.iter().all(|rule| each_span(&view).any(|span| rule.matches(&span)));
            if !holds {
                view.check()?;
                return Ok(None);
            }
            Vec::new()
        }
    };
    view.check()?;
    Ok(Some(found_trace(summary, span_sets)))
}

/// A spanset as an answer shows it.
fn shown_spanset(set: &Spanset, view: &TraceView<'_>, plan: &SearchPlan) -> SpanSet {
    let shown = set.spans.iter().take(plan.spans_per_spanset());
    let shown = shown.filter_map(|span| span_values(view, *span as usize));
    SpanSet {
        spans: shown.map(|span| shown_span(&span, plan)).collect(),
        matched: u32::try_from(set.spans.len()).unwrap_or(u32::MAX),
        attributes: spanset_attributes(&set.attributes),
    }
}

/// What groups and aggregates said of a spanset.
pub(crate) fn spanset_attributes(attributes: &[(Arc<str>, Static)]) -> Vec<KeyValue> {
    let attribute = |(key, value): &(Arc<str>, Static)| KeyValue {
        key: key.to_string(),
        value: Some(message_of(value)),
    };
    attributes.iter().map(attribute).collect()
}

/// Adds what an index said of the one spanset of a trace, unless judging the trace already did.
pub(crate) fn add_attributes(found: &mut FoundTrace, attributes: Option<Vec<KeyValue>>) {
    let set = found.metadata.as_mut().and_then(|metadata| metadata.span_sets.first_mut());
    if let (Some(set), Some(attributes)) = (set, attributes)
        && set.attributes.is_empty()
    {
        set.attributes = attributes;
    }
}

/// The entry of a trace with the spans that matched.
pub(crate) fn found_trace(summary: &TraceSummary, span_sets: Vec<SpanSet>) -> FoundTrace {
    FoundTrace {
        trace_id: summary.id.0.to_vec().into(),
        start_unix_nanos: summary.start.0,
        metadata: Some(metadata(summary, span_sets)),
    }
}

/// The spans of a trace, one after the other.
pub(crate) fn each_span<'v, 'a>(
    view: &'v TraceView<'a>,
) -> impl Iterator<Item = SpanRef<'v, 'a>> + use<'v, 'a> {
    (0..view.spans().len()).filter_map(|at| span_values(view, at))
}

impl Matched {
    /// Spans come sorted by start and id, so those shown are the first ones.
    fn add(&mut self, span: &SpanRef<'_, '_>, plan: &SearchPlan) {
        self.count = self.count.saturating_add(1);
        if self.shown.len() < plan.spans_per_spanset() {
            self.shown.push(shown_span(span, plan));
        }
    }
}

fn metadata(summary: &TraceSummary, span_sets: Vec<SpanSet>) -> TraceSearchMetadata {
    let services = summary.services.iter().map(|service| {
        let stats = ServiceStats { span_count: service.spans, error_count: service.errors };
        (service.name.to_string(), stats)
    });
    TraceSearchMetadata {
        trace_id: summary.id.to_short_hex(),
        root_service_name: summary.root_service.as_deref().unwrap_or(NO_ROOT).to_owned(),
        root_trace_name: summary.root_name.as_deref().unwrap_or_default().to_owned(),
        start_time_unix_nano: summary.start.0,
        duration_ms: u32::try_from(summary.duration_nanos() / 1_000_000).unwrap_or(u32::MAX),
        // The same as the first of the others; whoever answers a client puts it there.
        span_set: None,
        span_sets,
        service_stats: services.collect::<BTreeMap<_, _>>(),
    }
}

/// The span as an answer shows it.
pub(crate) fn shown_span(values: &SpanRef<'_, '_>, plan: &SearchPlan) -> Span {
    let (span, fields) = (values.span(), plan.shown());
    let place = plan.place(values);
    let named = fields.iter().any(|field| intrinsic_of(&field.field) == Some(Intrinsic::Name));
    Span {
        span_id: span.span().map_or_else(|| id::to_hex(span.span_id), |id: SpanId| id.to_string()),
        name: if named { span.name.to_owned() } else { String::new() },
        start_time_unix_nano: span.start_unix_nanos,
        duration_nanos: span.duration_nanos(),
        attributes: fields
            .iter()
            .filter_map(|field| shown_attribute(values, field, place))
            .collect(),
    }
}

pub(crate) fn intrinsic_of(field: &FieldRef) -> Option<Intrinsic> {
    match field {
        FieldRef::Intrinsic { intrinsic, .. } => Some(*intrinsic),
        FieldRef::Attribute { .. } | FieldRef::Parent => None,
    }
}

/// The value under the field's bare name. None when the answer says it elsewhere, or when the span
/// has no such value and was not asked not to have it.
fn shown_attribute(values: &SpanRef<'_, '_>, shown: &Shown, place: Cursor) -> Option<KeyValue> {
    let value = match &shown.field {
        FieldRef::Parent => return None,
        FieldRef::Attribute { parent: true, scope, name } => {
            attribute(&values.parent()?, *scope, name, place)
        }
        FieldRef::Attribute { scope, name, .. } => attribute(values, *scope, name, place),
        FieldRef::Intrinsic { intrinsic, .. } => shown_intrinsic(values, *intrinsic, place),
    };
    shown_value(shown, value)
}

/// The value under the field's bare name; absence is shown if it was asked for.
pub(crate) fn shown_value(shown: &Shown, value: Option<AnyValue>) -> Option<KeyValue> {
    let absent = || AnyValue { value: Some(Value::StringValue(Static::Nil.to_string())) };
    let value = value.or_else(|| shown.absence.then(absent))?;
    let key = match &shown.field {
        // Apart from the span's own attribute of that name.
        FieldRef::Attribute { parent: true, name, .. } => format!("parent.{name}"),
        field => field.key().to_owned(),
    };
    Some(KeyValue { key, value: Some(value) })
}

/// An attribute; without a scope the span's, or the resource's if that of the span counts as absent.
fn attribute(
    values: &SpanRef<'_, '_>,
    scope: Option<Scope>,
    name: &str,
    place: Cursor,
) -> Option<AnyValue> {
    let of = |scope| {
        let pair = values.raw_attribute(scope, name, place)?;
        any_value_message(&pair.value).ok().filter(|message| message.value.is_some())
    };
    if let Some(scope) = scope {
        return of(scope);
    }
    match values.attribute(Scope::Span, name) {
        None => of(Scope::Resource),
        Some(value) if is_empty(&value) => of(Scope::Resource).or_else(|| of(Scope::Span)),
        Some(_) => of(Scope::Span),
    }
}

fn is_empty(value: &Static) -> bool {
    matches!(value, Static::Array(elements) if elements.is_empty())
}

fn shown_intrinsic(
    values: &SpanRef<'_, '_>,
    intrinsic: Intrinsic,
    place: Cursor,
) -> Option<AnyValue> {
    let value = match intrinsic {
        Intrinsic::Name
        | Intrinsic::Duration
        | Intrinsic::SpanId
        | Intrinsic::TraceId
        | Intrinsic::TraceDuration
        | Intrinsic::RootName
        | Intrinsic::RootService => return None,
        Intrinsic::EventName | Intrinsic::EventTimeSinceStart => {
            values.event_intrinsic(place.event.unwrap_or(0), intrinsic)?
        }
        Intrinsic::LinkTraceId | Intrinsic::LinkSpanId => {
            values.link_intrinsic(place.link.unwrap_or(0), intrinsic)?
        }
        of_span => values.intrinsic(of_span)?,
    };
    Some(message_of(&value))
}

/// The value as a message; words and durations are shown as text.
pub(crate) fn message_of(value: &Static) -> AnyValue {
    let value = match value {
        Static::Int(number) => Value::IntValue(*number),
        Static::Float(number) => Value::DoubleValue(*number),
        Static::Bool(truth) => Value::BoolValue(*truth),
        Static::String(text) => Value::StringValue(text.to_string()),
        other => Value::StringValue(other.to_string()),
    };
    AnyValue { value: Some(value) }
}
