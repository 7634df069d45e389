//! Attribute values and 64-bit integers in protobuf-JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clew_proto::common::v1::any_value::Value;
use clew_proto::common::v1::{AnyValue, KeyValue};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The deepest nesting of arrays and maps that is written; what lies below is left out.
const DEPTH_MAX: usize = 32;

/// A 64-bit integer, which protobuf-JSON writes as a string.
pub(super) struct Text<T>(pub(super) T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Attributes as `[{"key":…,"value":{…}}]`.
pub(super) struct Attributes<'a>(pub(super) &'a [KeyValue]);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|attribute| Attribute(attribute, 0)))
    }
}

struct Attribute<'a>(&'a KeyValue, usize);

impl Serialize for Attribute<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("key", &self.0.key)?;
        map.serialize_entry("value", &Any(self.0.value.as_ref(), self.1))?;
        map.end()
    }
}

struct Any<'a>(Option<&'a AnyValue>, usize);

impl Serialize for Any<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let below = self.1 + 1;
        match self.0.and_then(|any| any.value.as_ref()) {
            None => {}
            Some(Value::StringValue(text)) => map.serialize_entry("stringValue", text)?,
            Some(Value::BoolValue(flag)) => map.serialize_entry("boolValue", flag)?,
            Some(Value::IntValue(number)) => map.serialize_entry("intValue", &Text(number))?,
            Some(Value::DoubleValue(number)) => {
                map.serialize_entry("doubleValue", &Double(*number))?
            }
            Some(Value::BytesValue(bytes)) => {
                map.serialize_entry("bytesValue", &STANDARD.encode(bytes))?;
            }
            Some(Value::ArrayValue(_) | Value::KvlistValue(_)) if below > DEPTH_MAX => {}
            Some(Value::ArrayValue(array)) => {
                let values = array.values.iter().map(|value| Any(Some(value), below));
                map.serialize_entry("arrayValue", &Values { values: values.collect() })?;
            }
            Some(Value::KvlistValue(list)) => {
                let values = list.values.iter().map(|pair| Attribute(pair, below));
                map.serialize_entry("kvlistValue", &Values { values: values.collect() })?;
            }
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
struct Values<T> {
    values: Vec<T>,
}

struct Double(f64);

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // JSON has no such numbers; protobuf-JSON spells them.
        if self.0.is_nan() {
            serializer.serialize_str("NaN")
        } else if self.0.is_infinite() {
            serializer.serialize_str(if self.0 > 0.0 { "Infinity" } else { "-Infinity" })
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use clew_proto::common::v1::{ArrayValue, KeyValueList};

    use super::*;

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    #[test]
    fn values_are_written_by_type() {
        let array = ArrayValue { values: vec![any(Value::IntValue(1)), AnyValue { value: None }] };
        let list = KeyValueList {
            values: vec![KeyValue {
                key: "k".to_owned(),
                value: Some(any(Value::BoolValue(false))),
            }],
        };
        for (value, json) in [
            (Value::StringValue("a\"".to_owned()), r#"{"stringValue":"a\""}"#),
            (Value::IntValue(i64::MIN), r#"{"intValue":"-9223372036854775808"}"#),
            (Value::DoubleValue(1.5), r#"{"doubleValue":1.5}"#),
            (Value::DoubleValue(f64::NEG_INFINITY), r#"{"doubleValue":"-Infinity"}"#),
            (Value::BytesValue(vec![1, 255].into()), r#"{"bytesValue":"Af8="}"#),
            (Value::ArrayValue(array), r#"{"arrayValue":{"values":[{"intValue":"1"},{}]}}"#),
            (
                Value::KvlistValue(list),
                r#"{"kvlistValue":{"values":[{"key":"k","value":{"boolValue":false}}]}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&Any(Some(&any(value)), 0)).unwrap(), json);
        }
    }

    #[test]
    fn deep_values_are_cut() {
        let mut value = any(Value::IntValue(1));
        for _ in 0..1_000 {
            value = any(Value::ArrayValue(ArrayValue { values: vec![value] }));
        }
        let json = serde_json::to_string(&Any(Some(&value), 0)).unwrap();
        assert_eq!(json.matches("arrayValue").count(), DEPTH_MAX);
    }
}
