//! The querier against a small cluster in memory: real catalog, real blocks, real heads.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

mod api;
mod cluster;
mod faults;
mod metastore;
mod random;
mod shard;
mod spans;
mod spread;
mod values;
