//! A trace as a set of spans, each with the resource and scope it was reported under.
//!
//! Merge laws: a span's identity is (span id, kind). Of spans with equal identity the greatest by
//! (encoded length, encoded bytes, resource, scope) stays. Because that is a total order over what
//! a span is, [`Trace::merge`] gives the same trace for the same spans in any order, in any
//! grouping, and any number of times.

mod decode;
mod encode;
mod merge;
mod summary;
mod unshare;

use std::sync::Arc;

use bytes::Bytes;

pub(crate) use self::encode::{ResourceGroup, ScopeGroup, group_spans};
pub use self::summary::{ServiceStats, TraceSummary};
use crate::TraceId;

/// A resource as it was sent: the encoded `Resource` message and its schema URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ResourceRecord {
    /// The encoded `Resource`; empty when none was sent.
    pub bytes: Bytes,
    /// `ResourceSpans.schema_url`.
    pub schema_url: Arc<str>,
}

/// An instrumentation scope as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ScopeRecord {
    /// The encoded `InstrumentationScope`; empty when none was sent.
    pub bytes: Bytes,
    /// `ScopeSpans.schema_url`.
    pub schema_url: Arc<str>,
}

/// One span with where it came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpanRecord {
    /// The resource that reported it.
    pub resource: Arc<ResourceRecord>,
    /// The scope that reported it.
    pub scope: Arc<ScopeRecord>,
    /// The encoded `Span`.
    pub bytes: Bytes,
}

/// A trace, or the fragment of it that one place holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The trace's id.
    pub id: TraceId,
    /// Its spans.
    pub spans: Vec<SpanRecord>,
}
