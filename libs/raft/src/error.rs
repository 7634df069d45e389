//! What can go wrong in a replicated group, and what its caller should do about it.

use clew_model::ErrorKind;

use crate::ids::{GroupId, LogId, NodeAddr, ReplicaId};

/// Why a call to a group, its log store or its host failed.
///
/// A failed proposal is *unknown*, not undone, unless it was [`Error::Overloaded`],
/// [`Error::TooLarge`] or [`Error::Invalid`]: it may still be committed later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another replica leads, or none is known to.
    #[error("not the leader of {group}: the leader is {}", leader_text(.leader))]
    NotLeader {
        /// The group.
        group: GroupId,
        /// Who leads, as far as this replica knows.
        leader: Option<(ReplicaId, NodeAddr)>,
    },
    /// A majority did not confirm this leader in time.
    #[error("no majority confirmed the leader of {group}")]
    NoQuorum {
        /// The group.
        group: GroupId,
    },
    /// The time allowed ran out after the proposal was handed over.
    #[error("the outcome of a proposal to {group} is not known yet")]
    Unconfirmed {
        /// The group.
        group: GroupId,
    },
    /// The time allowed ran out before there was room for the proposal: it was not made.
    #[error("too many proposals are waiting in {group}")]
    Overloaded {
        /// The group.
        group: GroupId,
    },
    /// The payload is above the limit of one entry.
    #[error("a payload is too large: {bytes} bytes, at most {bytes_max}")]
    TooLarge {
        /// The size of the payload.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The arguments contradict the group's state or each other.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The entries asked for were purged; replay from `up_to`.
    #[error("the log is purged up to {up_to}")]
    Purged {
        /// The last purged entry.
        up_to: LogId,
    },
    /// A change of members is under way, or contradicts the members there are.
    #[error("the members can not be changed now: {0}")]
    Members(String),
    /// This process has no open replica of the group.
    #[error("the group is not open here: {0}")]
    NotOpen(GroupId),
    /// A replica that was removed and came back was asked for its vote, or to lead, before it had its log
    /// again.
    #[error("the replica of {0} here has not got its log back yet, so it neither votes nor leads")]
    LogMissing(GroupId),
    /// This process has an open replica of the group already.
    #[error("the group is open here already: {0}")]
    AlreadyOpen(GroupId),
    /// The disk, or the node that answered, belongs to another replica.
    #[error("another replica of {group} lives here: wanted {wanted}, found {found}")]
    WrongReplica {
        /// The group.
        group: GroupId,
        /// The replica that was asked for.
        wanted: ReplicaId,
        /// The replica that is here.
        found: ReplicaId,
    },
    /// A peer did not answer.
    #[error("the peer {target} can not be reached: {reason}")]
    Unreachable {
        /// The peer.
        target: NodeAddr,
        /// The transport's words.
        reason: String,
    },
    /// The replica has stopped, on request or by a failure.
    #[error("the replica of {group} has stopped: {reason}")]
    Stopped {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// A write or sync failed; nothing is written any more. The process has to end, since a
    /// repeated sync may report success for data that is lost.
    #[error("the log store has failed: {0}")]
    StoreFailed(String),
    /// The log store was closed.
    #[error("the log store is closed")]
    Closed,
    /// Stored or received bytes do not verify.
    #[error("corrupt {what}: {reason}")]
    Corrupt {
        /// Which record.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The state is one that this process must not go on from.
    #[error("{0}")]
    Unable(String),
    /// Reading the database, or opening it, failed.
    #[error("the log database failed: {0}")]
    Database(String),
}

fn leader_text(leader: &Option<(ReplicaId, NodeAddr)>) -> String {
    match leader {
        Some((replica, addr)) => format!("{replica} at {addr}"),
        None => "unknown".to_owned(),
    }
}

impl Error {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NotLeader { .. }
            | Error::NoQuorum { .. }
            | Error::Unconfirmed { .. }
            | Error::Unreachable { .. }
            | Error::Stopped { .. }
            | Error::StoreFailed(_)
            | Error::LogMissing(_)
            | Error::Closed => ErrorKind::Unavailable,
            Error::Overloaded { .. } => ErrorKind::Overloaded,
            Error::TooLarge { .. } | Error::Invalid(_) | Error::Unable(_) => ErrorKind::Invalid,
            Error::Purged { .. } | Error::NotOpen(_) => ErrorKind::NotFound,
            Error::Members(_) | Error::AlreadyOpen(_) => ErrorKind::Conflict,
            Error::WrongReplica { .. } => ErrorKind::Fenced,
            Error::Corrupt { .. } => ErrorKind::Corrupt,
            Error::Database(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn corrupt(what: &'static str, reason: impl ToString) -> Error {
        Error::Corrupt { what, reason: reason.to_string() }
    }
}

#[cfg(feature = "rocksdb")]
impl From<rocksdb::Error> for Error {
    fn from(error: rocksdb::Error) -> Error {
        match error.kind() {
            rocksdb::ErrorKind::Corruption => Error::corrupt("log database", error.into_string()),
            _ => Error::Database(error.into_string()),
        }
    }
}
