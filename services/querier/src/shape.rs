//! Answers as Tempo's clients decode them: JSON exactly as Grafana reads it, protobuf as `tempopb`.
//!
//! The JSON is protobuf-JSON: 64-bit integers are strings, zero values are left out. Where Grafana's
//! decoders need a field although it is zero, it is kept; that is valid protobuf-JSON too.

mod explain;
mod search;
mod tags;
mod trace;
mod value;

pub(crate) use explain::explained;
pub(crate) use search::SearchJson;
pub(crate) use tags::{
    INTRINSIC_NAMES, TagNamesJson, TagNamesV2Json, TagValuesJson, TagValuesV2Json,
};
pub(crate) use trace::{trace_v1_json, trace_v2_json};

/// The word for an answer that misses something.
pub(crate) const PARTIAL: &str = "PARTIAL";
