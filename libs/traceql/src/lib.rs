//! TraceQL: text to AST to checked query to logical plan, and the evaluation of a filter on a span.
//!
//! Pure: no clock, no I/O, no async runtime. Semantics follow Grafana Tempo's TraceQL; where Tempo
//! is merely wrong, `docs/traceql.md` says what Clew does instead.

pub mod plan;
pub mod value;
