//! The commands that change the catalog, each a typed request with a typed answer.

use clew_model::{TenantId, TraceId, UnixNanos};
use clew_ring::{NodeId, ShardId};

use crate::compaction::TenantSettings;
use crate::feature::{FeatureLevel, FeatureRange};
use crate::ident::{
    ClusterId, DeletionId, DiskId, Incarnation, JobId, LogPoint, ReplicaId, RequestId,
};
use crate::key::ObjectKey;
use crate::member::NodeState;
use crate::member::Roles;
use crate::object::ObjectMeta;
use crate::outcome::{
    ClaimOutcome, ClusterOutcome, DeletionOutcome, FlushOutcome, ForgetOutcome, GapOutcome,
    GenerationOutcome, JobOutcome, LeadOutcome, LiftOutcome, OpenOutcome, Outcome, PlaceOutcome,
    QuarantineOutcome, Refusal,
};
use crate::topology::ShardLead;
use crate::wire;

/// The version of the command encoding that this release writes. It grows when an older release
/// would misread every command. A new command, or a new field that changes what one does, leaves it
/// as it is and belongs to a [`FeatureLevel`] instead: see [`Command::feature_level`].
pub const COMMAND_VERSION: u32 = 1;

/// The largest encoded command, in bytes.
pub const COMMAND_BYTES_MAX: usize = 16 << 20;

/// A request with a typed answer, so that every way to propose a command is typed the same.
pub trait Request {
    /// What a caller gets.
    type Answer;

    /// The command to propose.
    fn into_command(self) -> Command;

    /// The answer in an outcome of such a command.
    ///
    /// # Errors
    /// The [`Refusal`] in the outcome, or [`Refusal::Mismatched`] for the outcome of another kind
    /// of command.
    fn answer(outcome: Outcome) -> Result<Self::Answer, Refusal>;
}

/// Creates the cluster with its first map generation. Repeating it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateCluster {
    /// The cluster's id, chosen at random.
    pub cluster: ClusterId,
    /// How many shards the first map generation has.
    pub shard_count: u32,
}

/// Tells that a node is there and what it runs; repeated as its sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterNode {
    /// Its name.
    pub node: NodeId,
    /// Where its internal RPC listens, as `host:port`.
    pub addr: String,
    /// Its failure zone; empty when unknown.
    pub zone: String,
    /// Its share of the shards compared with other nodes, at least 1.
    pub capacity: u32,
    /// The roles it runs.
    pub roles: Roles,
    /// The feature levels that its release supports. Not kept: they are good for as long as the
    /// process lives, which tells them again in its signs of life.
    pub features: FeatureRange,
}

/// Asks for the replica id of a disk. The same disk gets the same id; it moves with the disk to
/// another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueReplicaId {
    /// The data directory, by the random id stored in it.
    pub disk: DiskId,
    /// The node it is attached to, registered before.
    pub node: NodeId,
    /// The id that the logs on the disk belong to, if there are any: a restored catalog may be older
    /// than they are.
    pub holds: Option<ReplicaId>,
}

/// Opens a shard's log under a new incarnation and closes the previous one. Repeating a request
/// gives the same incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenShardLog {
    /// The shard, of some map generation.
    pub shard: ShardId,
    /// The replicas the log starts with, all issued before.
    pub replicas: Vec<ReplicaId>,
    /// The incarnation the caller believes open; nothing for a shard that never had a log.
    pub replaces: Option<Incarnation>,
    /// Names this attempt over its retries.
    pub request: RequestId,
}

/// Registers a flushed object and moves its shard's watermark to its end, if the object starts
/// exactly at the watermark and its incarnation is open. Repeating it is safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitFlush {
    /// The object, already in the bucket.
    pub object: ObjectMeta,
}

/// Takes a damaged block out of queries, which then say what they miss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineBlock {
    /// The object.
    pub object: ObjectKey,
    /// The tenant of the damaged block.
    pub tenant: TenantId,
    /// What is wrong, for the operator; cut to 512 bytes.
    pub reason: String,
}

/// Lets queries read a block again that is whole, whatever was found before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiftQuarantine {
    /// The object.
    pub object: ObjectKey,
    /// The tenant of the block.
    pub tenant: TenantId,
}

/// Tells who leads a shard's log and who its members are, as the leader itself knows. Older news are
/// without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteLead {
    /// The shard.
    pub shard: ShardId,
    /// The incarnation of its log.
    pub incarnation: Incarnation,
    /// The leader and the members.
    pub lead: ShardLead,
    /// Up to where the log was purged, as its entries are in registered objects.
    pub flushed: LogPoint,
}

/// Tells a restored catalog of a log that it does not know: one that was opened after the backup. It
/// becomes the shard's open log if nobody has led that since the restore, and it is later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimLog {
    /// The shard.
    pub shard: ShardId,
    /// The incarnation of the log that is on a disk.
    pub incarnation: Incarnation,
    /// The replica that has it.
    pub replica: ReplicaId,
}

/// Accepts that what a shard's log has purged is not in the catalog, and will not come back: the
/// shard goes on behind it, and queries name the gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptGap {
    /// The shard.
    pub shard: ShardId,
    /// The incarnation of its log.
    pub incarnation: Incarnation,
}

/// Forgets gaps: queries do not name them any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForgetGaps {
    /// Those of this shard; nothing for all.
    pub shard: Option<ShardId>,
}

/// Decides which replicas hold a shard's log from now on; its leader changes the members to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceShard {
    /// The shard.
    pub shard: ShardId,
    /// The incarnation of its log.
    pub incarnation: Incarnation,
    /// Where it is placed in the eyes of the proposer.
    pub from: Vec<ReplicaId>,
    /// Where it shall be, the one that shall lead first.
    pub to: Vec<ReplicaId>,
}

/// Says what an operator wants of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetNodeState {
    /// The node.
    pub node: NodeId,
    /// What is wanted.
    pub state: NodeState,
}

/// Begins a new map generation with the shards 0 to `shard_count` - 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddGeneration {
    /// The newest generation in the eyes of the proposer.
    pub after: u64,
    /// How many shards it has; not fewer than there are.
    pub shard_count: u32,
}

/// Begins a compaction if all inputs are live and no other job holds them. Repeating a request gives
/// the same job as long as it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginJob {
    /// The objects to merge, all of one shard.
    pub inputs: Vec<ObjectKey>,
    /// The level of what it makes, at least 1.
    pub level: u32,
    /// Who does it, for people.
    pub worker: String,
    /// Names this attempt over its retries.
    pub request: RequestId,
    /// When another may take over.
    pub expires_at: UnixNanos,
}

/// Tells that a job goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewJob {
    /// The job.
    pub job: JobId,
    /// When another may take over.
    pub expires_at: UnixNanos,
}

/// What a job left out because of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// The deletion.
    pub deletion: DeletionId,
    /// Traces left out.
    pub traces: u64,
    /// Spans left out.
    pub spans: u64,
}

/// Swaps all inputs of a job for all its outputs, if the job still runs and every input is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitJob {
    /// The job.
    pub job: JobId,
    /// What it made, already in the bucket.
    pub outputs: Vec<ObjectMeta>,
    /// Inputs that stay as they are: no deletion that the job knew of concerns what is in them.
    pub kept: Vec<ObjectKey>,
    /// What it left out.
    pub removed: Vec<Removed>,
}

/// What a worker holds against an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Striking {
    /// The object, an input of the job.
    pub object: ObjectKey,
    /// How much it counts.
    pub count: u32,
    /// What happened; cut to 512 bytes.
    pub reason: String,
}

/// Ends a job without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbandonJob {
    /// The job.
    pub job: JobId,
    /// The objects that are to blame.
    pub strikes: Vec<Striking>,
}

/// Lets compactions try objects again, whatever they held against them before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpark {
    /// The objects.
    pub objects: Vec<ObjectKey>,
}

/// Takes objects or single blocks out of the catalog: their time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropBlocks {
    /// Whole objects.
    pub objects: Vec<ObjectKey>,
    /// Single tenants' blocks in objects that others still use.
    pub blocks: Vec<(ObjectKey, TenantId)>,
}

/// Tells that the bytes of dead objects are gone from the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfirmDeleted {
    /// The objects.
    pub objects: Vec<ObjectKey>,
}

/// Deletes traces from all objects registered before. Repeating a request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteTraces {
    /// Whose.
    pub tenant: TenantId,
    /// Which, at most [`crate::DELETION_TRACES_MAX`].
    pub ids: Vec<TraceId>,
    /// How they were chosen, for the record.
    pub query: String,
    /// Names this attempt over its retries.
    pub request: RequestId,
}

/// Deletes everything that a tenant has, and its settings. Repeating a request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveTenant {
    /// Whose.
    pub tenant: TenantId,
    /// Names this attempt over its retries.
    pub request: RequestId,
}

/// Gives a tenant settings of its own, or takes them away if all are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetTenant {
    /// The tenant.
    pub tenant: TenantId,
    /// Its settings.
    pub settings: TenantSettings,
}

/// Raises the level of features that may be used. One that the cluster has reached changes nothing.
/// Not to be proposed before every member of the metastore supports the level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaiseFeatureLevel {
    /// The level.
    pub to: FeatureLevel,
}

/// Takes a node out of the catalog that is gone for good, unless it holds replicas. One that is not
/// gone comes back when its process starts the next time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgetNode {
    /// The node.
    pub node: NodeId,
}

/// A change of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented at its content")]
pub enum Command {
    CreateCluster(CreateCluster),
    RegisterNode(RegisterNode),
    IssueReplicaId(IssueReplicaId),
    OpenShardLog(OpenShardLog),
    CommitFlush(CommitFlush),
    QuarantineBlock(QuarantineBlock),
    NoteLead(NoteLead),
    PlaceShard(PlaceShard),
    SetNodeState(SetNodeState),
    AddGeneration(AddGeneration),
    BeginJob(BeginJob),
    RenewJob(RenewJob),
    CommitJob(CommitJob),
    AbandonJob(AbandonJob),
    DropBlocks(DropBlocks),
    ConfirmDeleted(ConfirmDeleted),
    DeleteTraces(DeleteTraces),
    RemoveTenant(RemoveTenant),
    SetTenant(SetTenant),
    RaiseFeatureLevel(RaiseFeatureLevel),
    ForgetNode(ForgetNode),
    ClaimLog(ClaimLog),
    AcceptGap(AcceptGap),
    ForgetGaps(ForgetGaps),
    Unpark(Unpark),
    LiftQuarantine(LiftQuarantine),
}

impl Command {
    /// Whether it may change nodes, shards or where they are.
    pub(crate) fn moves_topology(&self) -> bool {
        matches!(
            self,
            Command::CreateCluster(_)
                | Command::RegisterNode(_)
                | Command::IssueReplicaId(_)
                | Command::OpenShardLog(_)
                | Command::NoteLead(_)
                | Command::PlaceShard(_)
                | Command::SetNodeState(_)
                | Command::AddGeneration(_)
                | Command::RaiseFeatureLevel(_)
                | Command::ForgetNode(_)
                | Command::ClaimLog(_)
                | Command::AcceptGap(_)
        )
    }

    /// The level that the cluster has to have before the command does anything; below it, releases
    /// may be there that do not know it.
    pub fn feature_level(&self) -> FeatureLevel {
        match self {
            Command::ForgetNode(_) | Command::Unpark(_) => FeatureLevel::LEVELS_ARE_KEPT,
            Command::LiftQuarantine(_) => FeatureLevel::QUARANTINES_MOVE,
            // What raises the level cannot wait for it: its proposer has asked every member.
            _ => FeatureLevel::FIRST,
        }
    }

    /// The command as bytes for the log, with the proposer's time.
    pub fn encode(&self, at: UnixNanos) -> Vec<u8> {
        wire::command::encode(self, at)
    }

    /// The proposer's time and the command in `bytes`.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] for a later version or an unknown command, [`Refusal::Invalid`] for
    /// one that is too large or names something impossible, [`Refusal::Malformed`] for other bytes.
    pub fn decode(bytes: &[u8]) -> Result<(UnixNanos, Command), Refusal> {
        wire::command::decode(bytes)
    }
}

macro_rules! requests {
    ($($request:ident => $answer:ty, $pattern:pat => $value:expr;)*) => {$(
        impl Request for $request {
            type Answer = $answer;

            fn into_command(self) -> Command {
                Command::$request(self)
            }

            fn answer(outcome: Outcome) -> Result<$answer, Refusal> {
                match outcome {
                    $pattern => Ok($value),
                    Outcome::Refused(refusal) => Err(refusal),
                    _ => Err(Refusal::Mismatched),
                }
            }
        }
    )*};
}
requests! {
    CreateCluster => ClusterOutcome, Outcome::Cluster(outcome) => outcome;
    RegisterNode => (), Outcome::NodeRegistered => ();
    IssueReplicaId => ReplicaId, Outcome::Replica(replica) => replica;
    OpenShardLog => OpenOutcome, Outcome::Open(outcome) => outcome;
    CommitFlush => FlushOutcome, Outcome::Flush(outcome) => outcome;
    QuarantineBlock => QuarantineOutcome, Outcome::Quarantine(outcome) => outcome;
    NoteLead => LeadOutcome, Outcome::Lead(outcome) => outcome;
    PlaceShard => PlaceOutcome, Outcome::Place(outcome) => outcome;
    SetNodeState => (), Outcome::NodeStateSet => ();
    AddGeneration => GenerationOutcome, Outcome::Generation(outcome) => outcome;
    ClaimLog => ClaimOutcome, Outcome::Claim(outcome) => outcome;
    AcceptGap => GapOutcome, Outcome::Gap(outcome) => outcome;
    ForgetGaps => GapOutcome, Outcome::Gap(outcome) => outcome;
    BeginJob => JobOutcome, Outcome::Job(outcome) => outcome;
    RenewJob => JobOutcome, Outcome::Job(outcome) => outcome;
    CommitJob => JobOutcome, Outcome::Job(outcome) => outcome;
    AbandonJob => JobOutcome, Outcome::Job(outcome) => outcome;
    DropBlocks => (), Outcome::Dropped => ();
    ConfirmDeleted => (), Outcome::Dropped => ();
    DeleteTraces => DeletionOutcome, Outcome::Deletion(outcome) => outcome;
    RemoveTenant => DeletionOutcome, Outcome::Deletion(outcome) => outcome;
    SetTenant => (), Outcome::TenantSet => ();
    RaiseFeatureLevel => FeatureLevel, Outcome::FeatureLevel(level) => level;
    ForgetNode => ForgetOutcome, Outcome::Forget(outcome) => outcome;
    Unpark => u64, Outcome::Unparked(count) => count;
    LiftQuarantine => LiftOutcome, Outcome::Lift(outcome) => outcome;
}
