//! The ingester: hosts shard replicas, keeps the recent spans of the shards it leads, flushes them
//! as blocks, and answers for recent data.
//!
//! A shard is a raft group whose log is the write-ahead log. What happens to a batch:
//!
//! 1. [`append`]: batches that wait become one log entry; it is acknowledged after commit, which
//!    means fsynced on a majority of the shard's replicas.
//! 2. [`head`]: the committed log, from the watermark on, is consumed into indexed tables in memory.
//!    The same code runs while ingesting, after a restart and after a failover.
//! 3. [`flush`]: a sealed prefix of the head becomes one object in the bucket, is registered in the
//!    catalog by compare-and-set on the watermark, and only then is the log told to forget it.
//!
//! Invariants:
//! - An entry is in exactly one place for a reader that knows the watermark W and the consumed index
//!   U: in blocks if its index is at or below W, in the head if it lies in (W, U].
//! - The log is purged only up to a watermark the catalog has confirmed.
//! - Segments of the head cover the log without gap or overlap and are dropped oldest first.

mod agree;
mod append;
mod boot;
mod config;
mod error;
mod flush;
mod head;
mod hosting;
mod lead;
mod metastore;
mod metrics;
mod read;
mod sections;
mod service;
mod shard;
mod split;

pub use boot::{DISK_ID_FILE, Handle, Ingester, Parts};
pub use config::{Config, FlushConfig};
pub use error::IngesterError;
pub use head::read_entry;
pub use service::ShardServer;
