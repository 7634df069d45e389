//! The vocabulary of Clew: identifiers, tenants, error kinds, spans as OTLP bytes, and the laws by
//! which pieces of a trace become one trace.
//!
//! This crate is pure: no clock, no I/O, no async runtime. A span is kept as the bytes it arrived
//! in (an encoded `opentelemetry.proto.trace.v1.Span`) and read through borrowed views, so that no
//! part of the write path builds an owned span tree.
//!
//! Invariants:
//! - [`TraceId`] and [`SpanId`] of a stored span are never all zero.
//! - A span's identity is (tenant, trace id, span id, kind); [`trace::Trace::merge`] keeps one span
//!   per identity, chosen by a fixed total order, so merging is associative, commutative and
//!   idempotent.

pub mod error;
pub mod id;
pub mod otlp;
mod planted;
pub mod tenant;
pub mod time;
pub mod trace;
pub mod wire;

pub use error::{ErrorKind, ModelError};
pub use id::{IdError, SpanId, TraceId};
pub use planted::planted;
pub use tenant::{TenantError, TenantId};
pub use time::UnixNanos;
pub use trace::{Trace, TraceSummary};
