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
            Static::Float(number) => TagValue::float(*number),
            Static::Bool(truth) => Some(TagValue::Bool(*truth)),
            Static::Status(word) => Some(TagValue::Keyword(word.as_str().to_owned())),
            Static::Kind(word) => Some(TagValue::Keyword(word.as_str().to_owned())),
            Static::Nil | Static::Duration(_) | Static::Array(_) => None,
        }
    }

    /// Infinities and not-a-number cannot be written in a query, so they are no suggestions. Both
    /// zeros are one value, as in the index.
    fn float(number: f64) -> Option<TagValue> {
        number.is_finite().then_some(TagValue::Float(OrderedFloat(number + 0.0)))
    }

    fn from_message(message: ValueMessage) -> Option<TagValue> {
        let ValueMessage { r#type, value } = message;
        let typed = match r#type.as_str() {
            "keyword" => return Some(TagValue::Keyword(value)),
            "int" => value.parse().ok().map(TagValue::Int),
            "float" => match value.parse() {
                Ok(number) => return TagValue::float(number),
                Err(_) => None,
            },
            "bool" => value.parse().ok().map(TagValue::Bool),
            _ => None,
        };
        Some(typed.unwrap_or(TagValue::String(value)))
    }

    fn into_message(self) -> ValueMessage {
        let (r#type, value) = match self {
            TagValue::Keyword(word) => ("keyword", word),
            TagValue::String(text) => ("string", text),
            TagValue::Int(number) => ("int", number.to_string()),
            TagValue::Float(OrderedFloat(number)) => ("float", float_text(number)),
            TagValue::Bool(truth) => ("bool", truth.to_string()),
        };
        ValueMessage { r#type: r#type.to_owned(), value }
    }
}

/// A double as Tempo writes it, which also reads as a literal of a query: Go's shortest form, with a
/// point or an exponent.
fn float_text(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => format!("{digits}e{exponent:+03}"),
        _ => format!("{number:?}"),
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
            .filter_map(TagValue::from_message)
            .for_each(|value| merged.values.insert(value));
        if let Some(part) = &response.inspected {
            add_inspected(&mut inspected, part);
        }
    }
    merged.into_response(inspected)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubles_are_written_as_go_writes_them() {
        for (number, text) in [
            (0.0, "0.0"),
            (5.0, "5.0"),
            (-500.5, "-500.5"),
            (123_456.5, "123456.5"),
            (1e6, "1e+06"),
            (1_234_567.5, "1.2345675e+06"),
            (9_223_372_036_854_775_808.0, "9.223372036854776e+18"),
            (1e300, "1e+300"),
            (0.0001, "0.0001"),
            (0.000_012, "1.2e-05"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        ] {
            assert_eq!(float_text(number), text);
        }
    }

    fn suggested(value: Static) -> Option<ValueMessage> {
        TagValue::of(&value).map(TagValue::into_message)
    }

    #[test]
    fn what_cannot_be_written_is_not_suggested() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(suggested(Static::Float(number)), None);
            let message = ValueMessage { r#type: "float".to_owned(), value: number.to_string() };
            assert_eq!(TagValue::from_message(message), None);
        }
    }

    proptest! {
        #[test]
        fn a_suggested_number_is_a_literal_that_finds_its_span(
            value in prop_oneof![
                any::<f64>().prop_map(Static::Float),
                (-400i32..400).prop_map(|exponent| Static::Float(10f64.powi(exponent))),
                any::<i64>().prop_map(Static::Int),
                prop::sample::select(vec![i64::MIN, i64::MAX]).prop_map(Static::Int),
            ],
        ) {
            let Some(message) = suggested(value.clone()) else { return Ok(()) };
            let query = format!("{{ span.a = {} }}", message.value);
            let parsed = clew_traceql::parse(&query);
            prop_assert!(parsed.is_ok(), "{query}: {parsed:?}");
            let filter = clew_traceql::tag_filter(&query).unwrap();
            let clew_traceql::FieldExpr::Compare { right, .. } = filter else {
                return Err(TestCaseError::fail("no comparison"));
            };
            let clew_traceql::FieldExpr::Literal(literal) = *right else {
                return Err(TestCaseError::fail("no literal"));
            };
            let finds = clew_traceql::compare(clew_traceql::CompareOp::Eq, &value, &literal);
            prop_assert_eq!(finds, Some(true), "{}", query);
            prop_assert_eq!(TagValue::from_message(message), TagValue::of(&value));
        }
    }
}
