//! The cluster's memory as a pure state machine: members, the shard map, every object in the bucket,
//! and how far each shard's log is in them.
//!
//! A [`State`] changes by [`State::apply`] alone, which takes [`Command`]s in the order of a
//! replicated log. It has no clock (commands carry their proposer's time, kept monotone), no
//! randomness, no I/O and no unordered maps: equal logs give equal states. [`MemoryCatalog`] is the
//! same machine without the log.
//!
//! Readers take a [`View`] of their tenants at a revision and follow it by
//! [`State::changes_since`]. [`State::encode`] is the snapshot; [`State::state_hash`] compares
//! replicas.
//!
//! Invariants:
//! - The flushed objects of an incarnation cover its log from the start to the watermark without gap
//!   or overlap; the watermark of an incarnation never falls.
//! - An incarnation and a replica id are issued once.
//! - An object is in the index of a tenant if and only if it has a block of the tenant that is not
//!   quarantined.
//! - Every command may be repeated: the second time changes nothing but the revision and the time
//!   (and, for a node, when it was last seen).

mod changes;
mod command;
mod error;
mod ident;
mod key;
mod member;
mod memory;
mod object;
mod outcome;
mod planner;
mod snapshot;
mod state;
mod topology;
mod view;
mod wire;

pub use changes::{Change, ChangeKind};
pub use clew_ring::{MapGeneration, MapShard, NodeId, ShardId, ShardMap};
pub use command::{
    AddGeneration, COMMAND_BYTES_MAX, COMMAND_VERSION, Command, CommitFlush, CreateCluster,
    IssueReplicaId, NoteLead, OpenShardLog, PlaceShard, QuarantineBlock, RegisterNode, Request,
    SetNodeState,
};
pub use error::DecodeError;
pub use ident::{ClusterId, DiskId, Incarnation, LogPoint, ReplicaId, RequestId};
pub use key::{FlushKey, KeyError, ObjectKey};
pub use member::{NodeInfo, NodeState, Roles};
pub use memory::{Answered, MemoryCatalog};
pub use object::{OBJECT_BYTES_MAX, OBJECT_TENANTS_MAX, ObjectError, ObjectMeta, TenantBlock};
pub use outcome::{
    ClusterOutcome, FlushOutcome, GenerationOutcome, LeadOutcome, OpenOutcome, Outcome,
    PlaceOutcome, QuarantineOutcome, Refusal,
};
pub use planner::plan_places;
pub use state::{Generation, Liveness, ReplicaInfo, ShardLog, State};
pub use topology::{ShardLead, ShardPlace, SharedTopology, Topology};
pub use view::{Members, Quarantine, ShardView, View, decode_changes, encode_changes};
