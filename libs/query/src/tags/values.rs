//! A bounded, sorted set of attribute values.

use std::sync::Arc;

use async_trait::async_trait;
use clew_proto::query::v1::tag_values_response::Value as ValueMessage;
use clew_proto::query::v1::{Inspected, TagValuesResponse};
use clew_traceql::plan::Field;
use clew_traceql::value::Static;

use super::bounded::{BoundedSet, Weighed};
use super::{Collect, TagField, values_of};
use crate::QueryError;
use crate::engine::{QueryLimits, add_inspected};
use crate::source::{Selection, SpanSource};
use crate::view::SpanRef;

/// A value of an answer. Sorted by type, numbers by value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum TagValue {
    Keyword(String),
    String(String),
    Int(i64),
    Float(OrderedFloat),
    Bool(bool),
}

/// A double in the total order of IEEE 754.
#[derive(Debug, Clone, Copy)]
struct OrderedFloat(f64);

impl PartialEq for OrderedFloat {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OrderedFloat {}

impl PartialOrd for OrderedFloat {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedFloat {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl TagValue {
    fn of(value: &Static) -> Option<TagValue> {
        match value {
            Static::String(text) => Some(TagValue::String(text.to_string())),
            Static::Int(number) => Some(TagValue::Int(*number)),
            // Both zeros and every not-a-number are one value each, as in the index.
            Static::Float(number) if number.is_nan() => {
                Some(TagValue::Float(OrderedFloat(f64::NAN)))
            }
            Static::Float(number) => Some(TagValue::Float(OrderedFloat(number + 0.0))),
            Static::Bool(truth) => Some(TagValue::Bool(*truth)),
            Static::Status(word) => Some(TagValue::Keyword(word.as_str().to_owned())),
            Static::Kind(word) => Some(TagValue::Keyword(word.as_str().to_owned())),
            Static::Nil | Static::Duration(_) | Static::Array(_) => None,
        }
    }

    fn from_message(message: ValueMessage) -> TagValue {
        let ValueMessage { r#type, value } = message;
        let typed = match r#type.as_str() {
            "keyword" => return TagValue::Keyword(value),
            "int" => value.parse().ok().map(TagValue::Int),
            "float" => value.parse().ok().map(|number| TagValue::Float(OrderedFloat(number))),
            "bool" => value.parse().ok().map(TagValue::Bool),
            _ => None,
        };
        typed.unwrap_or(TagValue::String(value))
    }

    fn into_message(self) -> ValueMessage {
        let (r#type, value) = match self {
            TagValue::Keyword(word) => ("keyword", word),
            TagValue::String(text) => ("string", text),
            TagValue::Int(number) => ("int", number.to_string()),
            TagValue::Float(OrderedFloat(number)) => ("float", number.to_string()),
            TagValue::Bool(truth) => ("bool", truth.to_string()),
        };
        ValueMessage { r#type: r#type.to_owned(), value }
    }
}

impl Weighed for TagValue {
    fn bytes(&self) -> u64 {
        match self {
            TagValue::Keyword(text) | TagValue::String(text) => text.len() as u64,
            TagValue::Int(_) | TagValue::Float(_) => 8,
            TagValue::Bool(_) => 1,
        }
    }
}

/// The first values of a field that fit the bounds.
#[derive(Debug, Clone)]
pub(super) struct ValueSet {
    /// Whose values; none when answers are merged.
    field: Option<TagField>,
    places: Arc<[Field]>,
    values: BoundedSet<TagValue>,
}

impl ValueSet {
    pub(super) fn new(
        field: Option<TagField>,
        limit: u32,
        bytes_max: u64,
        limits: &QueryLimits,
    ) -> ValueSet {
        let bytes_max = if bytes_max == 0 { limits.tags_bytes_max } else { bytes_max };
        let values = BoundedSet::new(limits.tags(limit), bytes_max);
        let places = field.as_ref().map(TagField::fields).unwrap_or_default().into();
        ValueSet { field, places, values }
    }

    pub(super) fn insert(&mut self, value: &Static) {
        // Intrinsics are always there, so an empty one says nothing.
        let of_intrinsic = matches!(*self.places, [Field::Intrinsic(_)]);
        if of_intrinsic && matches!(value, Static::String(text) if text.is_empty()) {
            return;
        }
        if let Some(value) = TagValue::of(value) {
            self.values.insert(value);
        }
    }

    pub(super) fn into_response(self, inspected: Inspected) -> TagValuesResponse {
        TagValuesResponse {
            values: self.values.into_members().map(TagValue::into_message).collect(),
            inspected: Some(inspected),
            ..TagValuesResponse::default()
        }
    }
}

#[async_trait]
impl Collect for ValueSet {
    async fn by_index(
        &mut self,
        source: &dyn SpanSource,
        within: Option<&Arc<Selection>>,
    ) -> Result<bool, QueryError> {
        let Some(field) = &self.field else { return Ok(true) };
        let Some(found) = source.tag_values(field, within).await? else { return Ok(false) };
        found.iter().for_each(|value| self.insert(value));
        Ok(true)
    }

    fn span(&mut self, span: &SpanRef<'_, '_>) {
        for field in &*Arc::clone(&self.places) {
            values_of(span, field, &mut |value| self.insert(&value));
        }
    }

    fn fresh(&self) -> ValueSet {
        ValueSet {
            field: self.field.clone(),
            places: Arc::clone(&self.places),
            values: self.values.fresh(),
        }
    }

    fn absorb(&mut self, other: ValueSet) {
        self.values.absorb(other.values);
    }
}

/// The values of all answers, each once, sorted; at most `limit` values and `bytes_max` bytes,
/// where zero stands for the default bounds.
pub fn merge_tag_values(
    responses: impl IntoIterator<Item = TagValuesResponse>,
    limit: u32,
    bytes_max: u64,
) -> TagValuesResponse {
    let mut merged = ValueSet::new(None, limit, bytes_max, &QueryLimits::default());
    let mut inspected = Inspected::default();
    for response in responses {
        response
            .values
            .into_iter()
            .map(TagValue::from_message)
            .for_each(|value| merged.values.insert(value));
        if let Some(part) = &response.inspected {
            add_inspected(&mut inspected, part);
        }
    }
    merged.into_response(inspected)
}
