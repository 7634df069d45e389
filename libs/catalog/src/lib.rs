//! The cluster's memory as a pure state machine: members, the shard map, every object in the bucket,
//! and how far each shard's log is in them.
//!
//! A [`State`] changes by [`State::apply`] alone, which takes [`Command`]s in the order of a
//! replicated log. It has no clock (commands carry their proposer's time, kept monotone), no
//! randomness, no I/O and no unordered maps: equal logs give equal states. [`MemoryCatalog`] is the
//! same machine without the log.
//!
//! A catalog that was lost is made again by [`restore`], from a [`Backup`] and the objects in the bucket,
//! or from those alone.
//!
//! Readers take a [`View`] of their tenants at a revision and follow it by
//! [`State::changes_since`]. [`State::encode`] is the snapshot; [`State::state_hash`] compares
//! replicas.
//!
//! Invariants:
//! - The flushed objects of an incarnation cover its log from the start to the watermark without overlap,
//!   and without a gap but those that an operator accepted ([`Gap`]); the watermark of an incarnation
//!   never falls.
//! - An incarnation and a replica id are issued once.
//! - An object is in the index of a tenant if and only if it has a block of the tenant that is not
//!   quarantined.
//! - An object is live, dead, or unknown. What a compaction reads becomes dead in the command that
//!   makes what it wrote live; dead ones become unknown only when their bytes are gone.
//! - A live object is an input of one job at most.
//! - The feature level never falls, and no command of a higher one changes anything.
//! - Every command may be repeated: the second time changes nothing but the revision and the time
//!   (and, for a node, when it was last seen).

mod backup;
mod changes;
mod command;
mod compaction;
mod deletion;
mod error;
mod feature;
mod gap;
mod ident;
mod key;
mod member;
mod memory;
mod object;
mod outcome;
mod planner;
mod restore;
mod snapshot;
mod sound;
mod state;
mod topology;
mod view;
mod wire;

pub use backup::{BACKUP_HEAD_BYTES, Backup, BackupKey, BackupSummary};
pub use changes::{Change, ChangeKind};
pub use clew_ring::{MapGeneration, MapShard, NodeId, ShardId, ShardMap};
pub use command::{
    AbandonJob, AcceptGap, AddGeneration, BeginJob, COMMAND_BYTES_MAX, COMMAND_VERSION, ClaimLog,
    Command, CommitFlush, CommitJob, ConfirmDeleted, CreateCluster, DeleteTraces, DropBlocks,
    ForgetGaps, ForgetNode, IssueReplicaId, LiftQuarantine, NoteLead, OpenShardLog, PlaceShard,
    QuarantineBlock, RaiseFeatureLevel, RegisterNode, RemoveTenant, Removed, RenewJob, Request,
    SetNodeState, SetTenant, Striking, Unpark,
};
pub use compaction::{
    DeadObject, JOB_INPUTS_MAX, Job, JobSpec, LEVEL_MAX, Retention, STRIKES_MAX,
    STRIKES_OF_FAILURE, STRIKES_OF_SILENCE, Strikes, TenantSettings, TenantTerms,
};
pub use deletion::{DELETION_QUERY_BYTES_MAX, DELETION_TRACES_MAX, Deletion, DeletionScope};
pub use error::DecodeError;
pub use feature::{FeatureLevel, FeatureRange, LevelPlan, Signs, plan_feature_level};
pub use gap::{GAPS_MAX, Gap};
pub use ident::{
    ClusterId, DeletionId, DiskId, Incarnation, JobId, LogPoint, ReplicaId, RequestId,
};
pub use key::{CompactedKey, FlushKey, KeyError, ObjectKey};
pub use member::{NodeInfo, NodeState, Roles};
pub use memory::{Answered, MemoryCatalog};
pub use object::{OBJECT_BYTES_MAX, OBJECT_TENANTS_MAX, ObjectError, ObjectMeta, TenantBlock};
pub use outcome::{
    ClaimOutcome, ClusterOutcome, DeletionOutcome, FlushOutcome, ForgetOutcome, GapOutcome,
    GenerationOutcome, JobOutcome, LeadOutcome, LiftOutcome, OpenOutcome, Outcome, PlaceOutcome,
    QuarantineOutcome, Refusal,
};
pub use planner::{CompactionOptions, PlannedJob, plan_places};
pub use restore::{
    FoundObject, Listing, LogRange, Rebuilding, Report, Restored, ShardReport, restore,
};
pub use sound::Unsound;
pub use state::{Generation, Liveness, ReplicaInfo, ShardLog, State};
pub use topology::{ShardLead, ShardPlace, SharedTopology, Topology};
pub use view::{Members, Quarantine, ShardView, View, decode_changes, encode_changes};
