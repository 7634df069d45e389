//! A load test for trace stores: makes realistic traces, sends them over OTLP, remembers what was
//! acknowledged, and checks through the Tempo API that all of it is found, once, and exactly.
//!
//! - [`workload`] makes the traces, the same ones for the same [`workload::DataSet`].

pub mod error;
pub mod expect;
pub mod workload;

pub use error::Error;
