//! A load test for trace stores: makes realistic traces, sends them over OTLP, remembers what was
//! acknowledged, and checks through the Tempo API that all of it is found, once, and exactly.
//!
//! - [`workload`] makes the traces, the same ones for the same [`workload::DataSet`].
//! - [`send`] sends them and keeps the [`ledger`].
//! - [`expect`] computes the right answers from the generated traces alone.
//! - [`check`] compares answers with them, [`verify`] asks for all of them, [`queries`] measures what
//!   they cost.
//! - [`bench`] does all of it with a fixed workload against a server of its own, for numbers that
//!   can be compared. [`soak`] and [`overload`] try such a server's promises: with a crash in the
//!   middle, and with more than it can take.

pub mod bench;
pub mod check;
pub mod error;
pub mod expect;
pub mod ledger;
pub mod measure;
pub mod overload;
mod own_cluster;
pub mod own_server;
pub mod queries;
pub mod report;
pub mod send;
pub mod soak;
pub mod target;
pub mod verify;
pub mod workload;

pub use error::Error;
