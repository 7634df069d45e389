//! The querier against a small cluster in memory: real catalog, real blocks, real heads.

mod api;
mod cluster;
mod faults;
mod metastore;
mod random;
mod shard;
mod spans;
