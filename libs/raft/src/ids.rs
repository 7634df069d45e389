//! The names this crate gives to groups, replicas, nodes and log entries, free of openraft's types,
//! so that nothing above it depends on the consensus library.

use std::fmt;

/// One raft group. The order and the encoding are those of the keys on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupId {
    /// The group that holds the catalog.
    Metastore,
    /// The log of one shard in one of its incarnations.
    Shard {
        /// The shard's number in the shard map.
        shard: u32,
        /// Issued by the metastore; a shard that lost its quorum starts again under a new one.
        incarnation: u64,
    },
}

impl GroupId {
    /// How many bytes [`GroupId::to_bytes`] gives.
    pub const ENCODED_BYTES: usize = 13;

    /// The group that holds the catalog.
    pub const fn metastore() -> GroupId {
        GroupId::Metastore
    }

    /// The log of one shard in one of its incarnations.
    pub const fn shard(shard: u32, incarnation: u64) -> GroupId {
        GroupId::Shard { shard, incarnation }
    }

    /// The fixed encoding used in keys and on the wire; its byte order is the order of ids.
    pub fn to_bytes(self) -> [u8; GroupId::ENCODED_BYTES] {
        let (kind, shard, incarnation) = match self {
            GroupId::Metastore => (1, 0, 0),
            GroupId::Shard { shard, incarnation } => (2, shard, incarnation),
        };
        let mut bytes = [0; GroupId::ENCODED_BYTES];
        bytes[0] = kind;
        bytes[1..5].copy_from_slice(&shard.to_be_bytes());
        bytes[5..].copy_from_slice(&incarnation.to_be_bytes());
        bytes
    }

    /// The id encoded by [`GroupId::to_bytes`], or `None` if the bytes are not one.
    pub fn from_bytes(bytes: &[u8]) -> Option<GroupId> {
        let bytes: [u8; GroupId::ENCODED_BYTES] = bytes.try_into().ok()?;
        let [kind, s0, s1, s2, s3, incarnation @ ..] = bytes;
        let shard = u32::from_be_bytes([s0, s1, s2, s3]);
        let incarnation = u64::from_be_bytes(incarnation);
        match (kind, shard, incarnation) {
            (1, 0, 0) => Some(GroupId::Metastore),
            (2, shard, incarnation) => Some(GroupId::Shard { shard, incarnation }),
            _ => None,
        }
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupId::Metastore => f.write_str("metastore"),
            GroupId::Shard { shard, incarnation } => write!(f, "shard-{shard}.{incarnation}"),
        }
    }
}

/// One replica of one group. Issued by the metastore and bound to one disk: a node with an empty
/// disk gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// Where the node of a replica is reached; opaque here, read by the [`crate::Transport`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAddr(pub String);

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The full name of a log entry: which leader proposed it, in which term, and where it stands.
///
/// Two committed entries of one group at the same index have the same id. The order is the order
/// of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// The term of the leader that proposed the entry.
    pub term: u64,
    /// The replica that led.
    pub replica: ReplicaId,
    /// The position in the log; the first entry is 0 and always a membership.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}.{}", self.index, self.term, self.replica)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group() -> impl Strategy<Value = GroupId> {
        prop_oneof![
            Just(GroupId::metastore()),
            (any::<u32>(), any::<u64>()).prop_map(|(s, i)| GroupId::shard(s, i)),
        ]
    }

    proptest! {
        #[test]
        fn bytes_round_trip_and_keep_the_order(a in group(), b in group()) {
            prop_assert_eq!(GroupId::from_bytes(&a.to_bytes()), Some(a));
            prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
        }

        #[test]
        fn any_bytes_are_an_id_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Some(id) = GroupId::from_bytes(&bytes) {
                prop_assert_eq!(&id.to_bytes()[..], &bytes[..]);
            }
        }
    }
}
