//! TraceQL: text to AST to checked query to logical plan, and the evaluation of a filter on a span.
//!
//! Pure: no clock, no I/O, no async runtime. Semantics follow Grafana Tempo's TraceQL; where Tempo
//! is merely wrong, `docs/traceql.md` says what Clew does instead.
//!
//! [`parse`] turns text into a checked [`Query`], which prints as text that parses to the same
//! query. [`Filter`] decides whether a span, seen through [`SpanValues`], matches; its
//! [`Prefilter`] is what an index can do beforehand, always a superset.
//!
//! ```
//! let query = clew_traceql::parse("{ span.http.status_code >= 500 && name =~ `GET .*` }")?;
//! let filter = clew_traceql::Filter::new(query.as_filter().unwrap_or(&clew_traceql::FieldExpr::TRUE));
//! assert!(!filter.is_never());
//! # Ok::<(), clew_traceql::QueryError>(())
//! ```

pub mod ast;
mod check;
mod error;
pub mod eval;
mod field;
mod lexer;
mod parser;
mod pattern;
pub mod plan;
mod print;
mod referenced;
mod tags;
pub mod value;

pub use ast::{FieldExpr, Query};
pub use check::{COMPARE_TOP_MAX, GROUP_FIELDS_BUCKETED_MAX, GROUP_FIELDS_MAX};
pub use error::{EvalError, QueryError};
pub use eval::{Filter, SpanValues};
pub use field::{FieldRef, ValueType};
pub use parser::{DEPTH_MAX, PATTERNS_MAX, QUERY_BYTES_MAX, parse, parse_field, parse_unchecked};
pub use pattern::{Pattern, PatternError};
pub use plan::{Condition, Field, Intrinsic, Prefilter, Scope, Test, prefilter};
pub use referenced::referenced_fields;
pub use tags::tag_filter;
pub use value::{CompareOp, Kind, Static, Status, compare, compare_any};
