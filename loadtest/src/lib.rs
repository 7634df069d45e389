//! A load test for trace stores: makes realistic traces, sends them over OTLP, remembers what was
//! acknowledged, and checks through the Tempo API that all of it is found, once, and exactly.
//!
//! - [`workload`] makes the traces, the same ones for the same [`workload::DataSet`].
//! - [`send`] sends them and keeps the [`ledger`].
//! - [`expect`] computes the right answers from the generated traces alone.
//! - [`check`] compares answers with them, [`verify`] asks for all of them, [`queries`] measures what
//!   they cost.

pub mod check;
pub mod error;
pub mod expect;
pub mod ledger;
pub mod measure;
pub mod queries;
pub mod report;
pub mod send;
pub mod target;
pub mod verify;
pub mod workload;

pub use error::Error;
