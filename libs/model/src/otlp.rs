//! OTLP traces as bytes: borrowed views over the protobuf form (`opentelemetry-proto` 1.x,
//! `trace/v1/trace.proto`, `common/v1/common.proto`, `resource/v1/resource.proto`).

pub mod view;

pub use view::{AnyValueView, EventView, KeyValueView, LinkView, SpanView};
