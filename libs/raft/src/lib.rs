//! Replicated logs and state machines: openraft for consensus, RocksDB for the log, one of each per
//! process for all groups. Neither library shows through.
//!
//! - A [`LogStore`] is the process's log database with its single writer thread.
//! - A [`Host`] opens replicas of groups on it and answers their peers; a [`Transport`] connects it
//!   to other hosts.
//! - A [`Group`] replicates commands into a [`StateMachine`] (the metastore's catalog); a
//!   [`ShardGroup`] is a log of payloads that is consumed with [`Group::read_committed`] and purged
//!   by [`Group::flushed`] up to its watermark, exactly.
//!
//! Invariants:
//! - What [`Group::propose`] or [`Group::append`] returned successfully is synced on a majority of
//!   the voters.
//! - In every replica: purged ≤ watermark ≤ applied ≤ committed. A purge and its marker are one
//!   write, and the state behind it is durable before.
//! - Every write to the database goes through one queue into one write-ahead log, so that after a
//!   crash what was written later never survives what was written earlier.
//! - The first failed write or sync stops all writes ([`LogStore::failed`]); the process must end.
//!
//! A failed call is unknown, not undone, except where [`Error`] says so.

mod codec;
mod ending;
mod error;
mod group;
mod handover;
mod host;
mod ids;
mod leadership;
mod log;
mod machine;
mod member;
mod rpc;
mod runtime;
mod shard;
mod store;
mod transport;
mod types;
mod wire;

pub use ending::Ending;
pub use error::Error;
pub use group::{Group, Proposed, ShardGroup};
pub use host::{GroupOptions, GroupSpec, Host};
pub use ids::{GroupId, LogId, NodeAddr, ReplicaId};
pub use leadership::Leadership;
pub use machine::StateMachine;
pub use member::{CommittedEntry, GroupStatus, Members};
pub use rpc::{Addresses, MESSAGE_DEADLINE, PeerServer, Peers};
pub use shard::ShardState;
#[cfg(feature = "test-support")]
pub use store::SimulatedDisk;
pub use store::{LogOptions, LogStore};
pub use transport::{NoPeers, Transport};
pub use wire::MESSAGE_BYTES_MAX;
