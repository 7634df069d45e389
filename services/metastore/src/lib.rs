//! The metastore: the catalog of `clew_catalog` replicated by one raft group, behind
//! `clew.metastore.v1.MetastoreService`.
//!
//! Invariants: the catalog changes only by committed commands; a view is never older than the
//! moment it was asked for, because it waits for a read index taken after the call arrived.

mod backup;
mod beats;
mod blocks;
mod compaction;
mod config;
mod controller;
mod error;
mod form;
mod leader;
mod levels;
mod machine;
mod restore;
mod service;
mod status;
mod vacant;

pub use config::Config;
pub use error::MetastoreError;
pub use service::{Metastore, Parts};
pub use vacant::Vacant;
