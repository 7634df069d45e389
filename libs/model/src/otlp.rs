//! OTLP traces as bytes: borrowed views over the protobuf form (`opentelemetry-proto` 1.x,
//! `trace/v1/trace.proto`, `common/v1/common.proto`, `resource/v1/resource.proto`), checks and
//! regrouping of requests, and the two JSON forms.

pub mod json;
pub mod request;
pub mod to_json;
pub mod view;

pub(crate) mod envelope;
mod schema;

pub use json::json_to_protobuf;
pub use request::{RejectReason, Rejections, Scan, ScanLimits, regroup, scan};
pub use to_json::{
    IdStyle, any_value_to_json, write_resource_spans_json, write_resource_spans_json_as,
};
pub use view::{AnyValueView, EventView, KeyValueView, LinkView, SpanView};
