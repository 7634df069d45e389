//! Spans as rows of a table: `clew block export --format parquet`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clew_model::TenantId;
use clew_model::id::to_hex;
use clew_model::otlp::view::{
    AnyValueView, KeyValueView, ScopeView, SpanView, array_elements, kind, list_entries,
    resource_attributes, status,
};
use clew_model::trace::SpanRecord;
use clew_model::wire::WireError;
use serde_json::{Map, Value, json};

use crate::parquet::{Cell, Codec, Column, Kind, ParquetWriter, Sink};

/// Values nested deeper are left out; what was ingested is never as deep.
const DEPTH_MAX: u32 = 64;

const fn required(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, is_optional: false }
}

const fn optional(name: &'static str) -> Column {
    Column { name, kind: Kind::Text, is_optional: true }
}

/// The columns, documented in docs/operations.md.
const COLUMNS: [Column; 17] = [
    required("tenant", Kind::Text),
    required("trace_id", Kind::Text),
    required("span_id", Kind::Text),
    optional("parent_span_id"),
    optional("service"),
    required("name", Kind::Text),
    required("kind", Kind::Text),
    required("status", Kind::Text),
    optional("status_message"),
    required("start", Kind::Timestamp),
    required("duration_nanos", Kind::Number),
    optional("trace_state"),
    optional("scope"),
    required("attributes", Kind::Json),
    required("resource_attributes", Kind::Json),
    required("events", Kind::Json),
    required("links", Kind::Json),
];

/// Writes spans as a Parquet file.
pub(super) struct SpanTable(ParquetWriter);

impl SpanTable {
    pub(super) fn new(sink: Sink<'_>) -> SpanTable {
        SpanTable(ParquetWriter::new(&COLUMNS, Codec::Zstd, sink))
    }

    /// Adds a span.
    pub(super) fn push(
        &mut self,
        tenant: &TenantId,
        span: &SpanRecord,
        sink: Sink<'_>,
    ) -> Result<(), String> {
        let damaged = |error: WireError| format!("a span is damaged: {error}");
        let view = SpanView::parse(&span.bytes).map_err(damaged)?;
        let scope = ScopeView::parse(&span.scope.bytes).map_err(damaged)?;
        let resource = attributes(resource_attributes(&span.resource.bytes)).map_err(damaged)?;
        let own = attributes(view.attributes()).map_err(damaged)?.to_string();
        let events = events(&view).map_err(damaged)?.to_string();
        let links = links(&view).map_err(damaged)?.to_string();
        let ids = [view.trace_id, view.span_id, view.parent_span_id].map(to_hex);
        let [trace, id, parent] = &ids;
        let service = resource.get("service.name").and_then(Value::as_str).unwrap_or_default();
        let resource_text = resource.to_string();
        let (kind, status) = (kind_name(view.kind), status_name(view.status_code));
        let cells = [
            Cell::Text(tenant.as_str()),
            Cell::Text(trace),
            Cell::Text(id),
            given(parent),
            given(service),
            Cell::Text(view.name),
            Cell::Text(&kind),
            Cell::Text(&status),
            given(view.status_message),
            number(view.start_unix_nanos),
            number(view.duration_nanos()),
            given(view.trace_state),
            given(scope.name),
            Cell::Text(&own),
            Cell::Text(&resource_text),
            Cell::Text(&events),
            Cell::Text(&links),
        ];
        self.0.row(&cells, sink).map_err(|error| error.to_string())
    }

    pub(super) fn finish(self, sink: Sink<'_>) -> Result<(), String> {
        self.0.finish(sink).map_err(|error| error.to_string())
    }
}

fn given(text: &str) -> Cell<'_> {
    if text.is_empty() { Cell::Missing } else { Cell::Text(text) }
}

fn number(value: u64) -> Cell<'static> {
    Cell::Number(i64::try_from(value).unwrap_or(i64::MAX))
}

fn kind_name(number: i32) -> String {
    let name = match number {
        kind::UNSPECIFIED => "unspecified",
        kind::INTERNAL => "internal",
        kind::SERVER => "server",
        kind::CLIENT => "client",
        kind::PRODUCER => "producer",
        kind::CONSUMER => "consumer",
        other => return other.to_string(),
    };
    name.to_owned()
}

fn status_name(number: i32) -> String {
    let name = match number {
        status::UNSET => "unset",
        status::OK => "ok",
        status::ERROR => "error",
        other => return other.to_string(),
    };
    name.to_owned()
}

fn events(span: &SpanView<'_>) -> Result<Value, WireError> {
    let events = span.events().map(|event| {
        let event = event?;
        let attributes = attributes(event.attributes())?;
        Ok(json!({
            "time_unix_nano": event.time_unix_nanos,
            "name": event.name,
            "attributes": attributes,
        }))
    });
    events.collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn links(span: &SpanView<'_>) -> Result<Value, WireError> {
    let links = span.links().map(|link| {
        let link = link?;
        let attributes = attributes(link.attributes())?;
        Ok(json!({
            "trace_id": to_hex(link.trace_id),
            "span_id": to_hex(link.span_id),
            "attributes": attributes,
        }))
    });
    links.collect::<Result<Vec<_>, _>>().map(Value::Array)
}

/// Attributes as an object; of those with one name the last counts.
fn attributes<'a>(
    pairs: impl Iterator<Item = Result<KeyValueView<'a>, WireError>>,
) -> Result<Value, WireError> {
    let mut object = Map::new();
    for pair in pairs {
        let KeyValueView { key, value, .. } = pair?;
        object.insert(key.to_owned(), plain(value, DEPTH_MAX)?);
    }
    Ok(Value::Object(object))
}

/// The value as plain JSON: bytes in base64, numbers that JSON does not have as texts.
fn plain(value: AnyValueView<'_>, depth_left: u32) -> Result<Value, WireError> {
    let depth_left = depth_left.checked_sub(1).ok_or(WireError::TooDeep)?;
    Ok(match value {
        AnyValueView::Empty => Value::Null,
        AnyValueView::String(text) => json!(text),
        AnyValueView::Bool(truth) => json!(truth),
        AnyValueView::Int(number) => json!(number),
        AnyValueView::Double(number) if number.is_finite() => json!(number),
        AnyValueView::Double(number) => json!(number.to_string()),
        AnyValueView::Bytes(bytes) => json!(BASE64.encode(bytes)),
        AnyValueView::Array(raw) => {
            let elements = array_elements(raw).map(|element| plain(element?, depth_left));
            Value::Array(elements.collect::<Result<_, _>>()?)
        }
        AnyValueView::KeyValueList(raw) => {
            let mut object = Map::new();
            for entry in list_entries(raw) {
                let KeyValueView { key, value, .. } = entry?;
                object.insert(key.to_owned(), plain(value, depth_left)?);
            }
            Value::Object(object)
        }
    })
}

#[cfg(test)]
mod tests {
    use clew_model::Trace;
    use clew_model::otlp::{ScanLimits, json_to_protobuf};

    use super::*;

    const REQUEST: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{
      "traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"00000000000000ff",
      "startTimeUnixNano":"5","endTimeUnixNano":"7","kind":9,
      "attributes":[{"key":"i","value":{"intValue":"9223372036854775807"}},
        {"key":"d","value":{"doubleValue":1.5}},{"key":"n","value":{"doubleValue":"NaN"}},
        {"key":"f","value":{"boolValue":false}},{"key":"e","value":{}},
        {"key":"b","value":{"bytesValue":"AP8="}},
        {"key":"l","value":{"kvlistValue":{"values":[{"key":"x","value":{"stringValue":"y"}}]}}},
        {"key":"a","value":{"arrayValue":{"values":[{"intValue":1},{"stringValue":"two"}]}}}],
      "events":[{"timeUnixNano":"6","name":"ev","attributes":[{"key":"k","value":{"intValue":1}}]}],
      "links":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"00000000000000fe"}]
      }]}]}]}"#;

    fn span() -> SpanRecord {
        let body = json_to_protobuf(REQUEST.as_bytes(), &ScanLimits::default()).unwrap();
        Trace::decode(&body.into()).unwrap().remove(0).spans.remove(0)
    }

    #[test]
    fn attributes_are_plain_json() {
        let span = span();
        let view = SpanView::parse(&span.bytes).unwrap();
        let expected = json!({
            "i": i64::MAX, "d": 1.5, "n": "NaN", "f": false, "e": null, "b": "AP8=",
            "l": {"x": "y"}, "a": [1, "two"],
        });
        assert_eq!(attributes(view.attributes()).unwrap(), expected);
        let event = json!([{"time_unix_nano": 6, "name": "ev", "attributes": {"k": 1}}]);
        assert_eq!(events(&view).unwrap(), event);
        let link = json!([{
            "trace_id": "0102030405060708090a0b0c0d0e0f10",
            "span_id": "00000000000000fe",
            "attributes": {},
        }]);
        assert_eq!(links(&view).unwrap(), link);
        assert_eq!(
            (kind_name(view.kind), status_name(view.status_code)),
            ("9".into(), "unset".into())
        );
    }

    #[test]
    fn a_damaged_span_is_an_error_and_not_a_row() {
        let mut sink = |_: &[u8]| {};
        let mut table = SpanTable::new(&mut sink);
        let whole = span();
        let damaged = SpanRecord { bytes: whole.bytes.slice(..whole.bytes.len() - 1), ..whole };
        let error = table.push(&TenantId::single(), &damaged, &mut sink).unwrap_err();
        assert!(error.starts_with("a span is damaged"), "{error}");
    }
}
