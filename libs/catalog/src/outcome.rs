//! What became of a command: one typed answer for each kind, and the reasons why a command was not
//! even looked at.

use clew_model::ErrorKind;

use crate::error::DecodeError;
use crate::feature::FeatureLevel;
use crate::ident::{ClusterId, DeletionId, Incarnation, JobId, LogPoint, ReplicaId};

/// The answer to [`crate::CreateCluster`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterOutcome {
    /// The cluster exists from now on, with map generation 1.
    Created,
    /// This cluster existed already; its shard map is what it was.
    AlreadyCreated,
    /// The catalog belongs to another cluster.
    Different {
        /// The cluster it belongs to.
        cluster: ClusterId,
    },
}

/// The answer to [`crate::OpenShardLog`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenOutcome {
    /// The log is open under this incarnation; a previous one is closed.
    Opened {
        /// The incarnation issued.
        incarnation: Incarnation,
    },
    /// The same request opened it before.
    AlreadyOpened {
        /// The incarnation issued then.
        incarnation: Incarnation,
    },
    /// Another incarnation is open than the one the request wants to replace.
    Conflict {
        /// The open one, if any.
        current: Option<Incarnation>,
    },
    /// No map generation has this shard.
    UnknownShard,
}

/// The answer to [`crate::CommitFlush`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushOutcome {
    /// The object is registered and the watermark is at its end.
    Applied,
    /// This very object was registered before.
    AlreadyApplied,
    /// Other objects cover its range or a part of it: it is dead.
    Superseded {
        /// The shard's watermark.
        watermark: LogPoint,
    },
    /// An earlier flush is missing: register that first. If there is none, the catalog is an old
    /// backup.
    OutOfOrder {
        /// The shard's watermark, before the start of the object.
        watermark: LogPoint,
    },
    /// The catalog never opened such a log; if it was open, the catalog is an old backup.
    UnknownShard,
    /// The log was replaced by a later incarnation.
    IncarnationClosed {
        /// The open one.
        current: Incarnation,
    },
}

/// The answer to [`crate::QuarantineBlock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineOutcome {
    /// Queries leave the block out from now on and say so.
    Quarantined,
    /// It was quarantined before.
    AlreadyQuarantined,
    /// The catalog has no such block.
    UnknownBlock,
}

/// The answer to [`crate::LiftQuarantine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiftOutcome {
    /// Queries read the block again from now on.
    Lifted,
    /// The catalog has no such block, or queries read it anyway.
    NotQuarantined,
}

/// The answer to [`crate::NoteLead`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeadOutcome {
    /// The catalog knows it from now on, or did already.
    Noted,
    /// The catalog knows later news.
    Stale,
    /// No such log is open.
    Closed,
}

/// The answer to [`crate::PlaceShard`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceOutcome {
    /// The shard is placed there from now on, or was already.
    Placed,
    /// It is placed otherwise than the proposer thought.
    Conflict,
    /// No such log is open.
    Closed,
}

/// The answer to [`crate::ClaimLog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// It is the shard's open log from now on, or was already.
    Claimed,
    /// The shard goes on under another incarnation: the log is over.
    Closed {
        /// The open one.
        current: Incarnation,
    },
    /// No map generation has this shard, or it never had a log here.
    UnknownShard,
}

/// The answer to [`crate::AcceptGap`] and [`crate::ForgetGaps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapOutcome {
    /// The gap is in the record, or the gaps are out of it.
    Done,
    /// There is none.
    None,
}

/// The answer to commands about compactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobOutcome {
    /// Of [`crate::BeginJob`]: it runs.
    Begun {
        /// Its id.
        job: JobId,
    },
    /// Of [`crate::RenewJob`].
    Renewed,
    /// Of [`crate::CommitJob`]: queries read what it made, from now on or already.
    Committed,
    /// Of [`crate::AbandonJob`].
    Abandoned,
    /// Of all of them: an input is not live, another job holds it, or the job ended before. What
    /// was made is dead.
    Superseded,
}

/// The answer to [`crate::DeleteTraces`] and [`crate::RemoveTenant`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletionOutcome {
    /// No query that begins from now on sees what is deleted.
    Accepted {
        /// Names the deletion.
        deletion: DeletionId,
    },
}

/// The answer to [`crate::AddGeneration`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationOutcome {
    /// The generation exists from now on.
    Added {
        /// Its number.
        generation: u64,
    },
    /// Just this generation was added before.
    AlreadyAdded {
        /// Its number.
        generation: u64,
    },
    /// Another generation is the newest than the proposer thought.
    Conflict {
        /// The newest one.
        newest: u64,
    },
}

/// The answer to [`crate::ForgetNode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForgetOutcome {
    /// The catalog does not know it any more.
    Forgotten,
    /// A shard has a replica there, or may still need it.
    HoldsReplicas,
}

/// Why a command changed nothing, for every kind of command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A command of a later release, or of a later version.
    #[error("the catalog does not support this command: version {version}")]
    Unsupported {
        /// The version of its encoding.
        version: u32,
    },
    /// A command that the cluster may use only when no node is left that does not know it.
    #[error(
        "the cluster is at feature level {level} and this needs {needs}: it rises when every node \
         runs a release that supports it"
    )]
    NotYet {
        /// The level that the command needs.
        needs: FeatureLevel,
        /// The level that the cluster has.
        level: FeatureLevel,
    },
    /// Bytes that are no command.
    #[error("the command cannot be decoded")]
    Malformed,
    /// A command whose content can never be accepted.
    #[error("the command is invalid: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// A command before [`crate::CreateCluster`].
    #[error("the cluster is not created yet")]
    NoCluster,
    /// A node that never registered.
    #[error("the node is not registered")]
    UnknownNode,
    /// A replica id that was never issued.
    #[error("the replica was never issued: {replica}")]
    UnknownReplica {
        /// The replica.
        replica: ReplicaId,
    },
    /// A bound of the catalog is reached.
    #[error("the catalog is full: at most {limit} {what}")]
    Full {
        /// What there is too much of.
        what: String,
        /// The bound.
        limit: u64,
    },
    /// A log entry at or below the catalog's revision.
    #[error("the log entry was applied before: revision {revision}")]
    Replayed {
        /// The catalog's revision.
        revision: u64,
    },
    /// The answer to another kind of command.
    #[error("the outcome belongs to another command")]
    Mismatched,
}

impl Refusal {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Refusal::Unsupported { .. } | Refusal::NotYet { .. } | Refusal::NoCluster => {
                ErrorKind::Unavailable
            }
            Refusal::Malformed | Refusal::Invalid { .. } => ErrorKind::Invalid,
            Refusal::UnknownNode | Refusal::UnknownReplica { .. } => ErrorKind::NotFound,
            Refusal::Full { .. } => ErrorKind::Overloaded,
            Refusal::Replayed { .. } | Refusal::Mismatched => ErrorKind::Internal,
        }
    }
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Of [`crate::CreateCluster`].
    Cluster(ClusterOutcome),
    /// Of [`crate::RegisterNode`].
    NodeRegistered,
    /// Of [`crate::IssueReplicaId`]: the one replica id of the disk.
    Replica(ReplicaId),
    /// Of [`crate::OpenShardLog`].
    Open(OpenOutcome),
    /// Of [`crate::CommitFlush`].
    Flush(FlushOutcome),
    /// Of [`crate::QuarantineBlock`].
    Quarantine(QuarantineOutcome),
    /// Of [`crate::NoteLead`].
    Lead(LeadOutcome),
    /// Of [`crate::PlaceShard`].
    Place(PlaceOutcome),
    /// Of [`crate::SetNodeState`].
    NodeStateSet,
    /// Of [`crate::AddGeneration`].
    Generation(GenerationOutcome),
    /// Of the commands about compactions.
    Job(JobOutcome),
    /// Of [`crate::DropBlocks`] and [`crate::ConfirmDeleted`].
    Dropped,
    /// Of [`crate::DeleteTraces`] and [`crate::RemoveTenant`].
    Deletion(DeletionOutcome),
    /// Of [`crate::SetTenant`].
    TenantSet,
    /// Of [`crate::RaiseFeatureLevel`]: the level that the cluster has.
    FeatureLevel(FeatureLevel),
    /// Of [`crate::ForgetNode`].
    Forget(ForgetOutcome),
    /// Of [`crate::ClaimLog`].
    Claim(ClaimOutcome),
    /// Of [`crate::AcceptGap`] and [`crate::ForgetGaps`].
    Gap(GapOutcome),
    /// Of [`crate::Unpark`]: so many of the objects had strikes.
    Unparked(u64),
    /// Of [`crate::LiftQuarantine`].
    Lift(LiftOutcome),
    /// Of any command: nothing changed.
    Refused(Refusal),
}

impl Outcome {
    /// The outcome as bytes, to send it.
    pub fn encode(&self) -> Vec<u8> {
        crate::wire::outcome::encode(self)
    }

    /// The outcome in `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not the encoding of an outcome.
    pub fn decode(bytes: &[u8]) -> Result<Outcome, DecodeError> {
        crate::wire::outcome::decode(bytes)
    }
}
