//! openraft instantiated for Clew: one non-generic set of types for all groups, so that a host can
//! keep shards and the metastore side by side. Nothing here leaves the crate.

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use openraft::CommittedLeaderId;

use crate::ids::{LogId, NodeAddr, ReplicaId};
use crate::runtime::Runtime;

openraft::declare_raft_types!(
    /// openraft's type configuration.
    pub(crate) Types:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = NodeAddr,
        Entry = openraft::Entry<Types>,
        SnapshotData = std::io::Cursor<Vec<u8>>,
        AsyncRuntime = Runtime,
);

pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type RaftEntry = openraft::Entry<Types>;
pub(crate) type RaftLogId = openraft::LogId<u64>;
pub(crate) type RaftVote = openraft::Vote<u64>;
pub(crate) type RaftMembership = openraft::Membership<u64, NodeAddr>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, NodeAddr>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, NodeAddr>;
pub(crate) type Snapshot = openraft::Snapshot<Types>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type StorageIOError = openraft::StorageIOError<u64>;

/// What an entry asks the state machine to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Opaque bytes of the group's owner.
    Data(Bytes),
    /// Everything up to this entry is in flushed objects.
    Flushed(LogId),
}

/// The state machine's answer, its type erased on the way through openraft.
pub(crate) struct Reply(Option<Box<dyn Any + Send + Sync>>);

impl Reply {
    pub(crate) fn none() -> Reply {
        Reply(None)
    }

    pub(crate) fn new<T: Send + Sync + 'static>(value: T) -> Reply {
        Reply(Some(Box::new(value)))
    }

    pub(crate) fn downcast<T: 'static>(self) -> Option<T> {
        self.0?.downcast::<T>().ok().map(|value| *value)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Reply(some)" } else { "Reply(none)" })
    }
}

impl From<RaftLogId> for LogId {
    fn from(id: RaftLogId) -> LogId {
        LogId { term: id.leader_id.term, replica: ReplicaId(id.leader_id.node_id), index: id.index }
    }
}

impl From<LogId> for RaftLogId {
    fn from(id: LogId) -> RaftLogId {
        RaftLogId::new(CommittedLeaderId::new(id.term, id.replica.0), id.index)
    }
}
