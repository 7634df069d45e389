//! From the values of OTLP to those of TraceQL, and to the messages of the search API.

use std::sync::Arc;

use clew_model::otlp::AnyValueView;
use clew_model::otlp::view::{array_elements, kind, list_entries, status};
use clew_model::wire::WireError;
use clew_proto::common::v1::any_value::Value;
use clew_proto::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use clew_traceql::value::{Kind, Static, Status};

/// How deep values nest in an answer; what lies deeper is left out. Ingest refuses deeper ones.
const DEPTH_MAX: u32 = 32;

/// The value as TraceQL compares it: scalars, and arrays of scalars. Bytes and key-value lists are
/// there but equal nothing, which is what an empty array does. `None`: no value was sent.
pub(crate) fn static_of(value: &AnyValueView<'_>) -> Result<Option<Static>, WireError> {
    Ok(match value {
        AnyValueView::Empty => None,
        AnyValueView::Array(raw) => {
            let mut elements = Vec::new();
            for element in array_elements(raw) {
                elements.extend(scalar_of(&element?));
            }
            Some(Static::Array(elements))
        }
        AnyValueView::KeyValueList(_) | AnyValueView::Bytes(_) => Some(Static::Array(Vec::new())),
        scalar => scalar_of(scalar),
    })
}

fn scalar_of(value: &AnyValueView<'_>) -> Option<Static> {
    match value {
        AnyValueView::String(text) => Some(Static::String(Arc::from(*text))),
        AnyValueView::Bool(truth) => Some(Static::Bool(*truth)),
        AnyValueView::Int(number) => Some(Static::Int(*number)),
        AnyValueView::Double(number) => Some(Static::Float(*number)),
        AnyValueView::Empty
        | AnyValueView::Array(_)
        | AnyValueView::KeyValueList(_)
        | AnyValueView::Bytes(_) => None,
    }
}

/// The status of an OTLP number; unknown ones count as unset.
pub(crate) const fn status_of(code: i32) -> Status {
    match code {
        status::OK => Status::Ok,
        status::ERROR => Status::Error,
        _ => Status::Unset,
    }
}

/// The kind of an OTLP number; unknown ones count as unspecified.
pub(crate) const fn kind_of(number: i32) -> Kind {
    match number {
        kind::INTERNAL => Kind::Internal,
        kind::SERVER => Kind::Server,
        kind::CLIENT => Kind::Client,
        kind::PRODUCER => Kind::Producer,
        kind::CONSUMER => Kind::Consumer,
        _ => Kind::Unspecified,
    }
}

/// The value as a message of an answer.
pub(crate) fn any_value_message(value: &AnyValueView<'_>) -> Result<AnyValue, WireError> {
    Ok(AnyValue { value: message_value(value, DEPTH_MAX)? })
}

fn message_value(value: &AnyValueView<'_>, depth: u32) -> Result<Option<Value>, WireError> {
    let Some(depth) = depth.checked_sub(1) else { return Ok(None) };
    Ok(Some(match value {
        AnyValueView::Empty => return Ok(None),
        AnyValueView::String(text) => Value::StringValue((*text).to_owned()),
        AnyValueView::Bool(truth) => Value::BoolValue(*truth),
        AnyValueView::Int(number) => Value::IntValue(*number),
        AnyValueView::Double(number) => Value::DoubleValue(*number),
        AnyValueView::Bytes(bytes) => Value::BytesValue(bytes.to_vec().into()),
        AnyValueView::Array(raw) => {
            let mut values = Vec::new();
            for element in array_elements(raw) {
                values.push(AnyValue { value: message_value(&element?, depth)? });
            }
            Value::ArrayValue(ArrayValue { values })
        }
        AnyValueView::KeyValueList(raw) => {
            let mut values = Vec::new();
            for entry in list_entries(raw) {
                let entry = entry?;
                let value = AnyValue { value: message_value(&entry.value, depth)? };
                values.push(KeyValue { key: entry.key.to_owned(), value: Some(value) });
            }
            Value::KvlistValue(KeyValueList { values })
        }
    }))
}
