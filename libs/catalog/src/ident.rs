//! The identifiers the catalog hands out or keeps, and positions in a shard's log.

use clew_model::id::{from_hex, to_hex};

/// A cluster, chosen at random when it is created.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub [u8; 16]);

/// A data directory, chosen at random when it is first used and stored in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiskId(pub [u8; 16]);

/// An attempt to do something once, chosen at random and kept over its retries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub [u8; 16]);

macro_rules! id_text {
    ($($id:ident),*) => {$(
        impl $id {
            /// Parses 32 hexadecimal digits.
            pub fn parse(text: &str) -> Option<$id> {
                from_hex(text)?.try_into().ok().map($id)
            }
        }
        impl std::fmt::Display for $id {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }
        impl std::fmt::Debug for $id {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($id), to_hex(&self.0))
            }
        }
    )*};
}
id_text!(ClusterId, DiskId, RequestId);

/// One life of a shard's log, issued by the catalog and never issued again; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

/// A raft replica, bound to one disk; the first is 1. An emptied disk gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ReplicaId(pub u64);

/// One attempt at a compaction; a later attempt at the same objects is another job.
///
/// It is the revision at which the attempt began, so it is never issued again, and whatever was in
/// the catalog then has a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// A deletion, by the revision at which it was asked for: it covers what was registered before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeletionId(pub u64);

macro_rules! number_text {
    ($($id:ident),*) => {$(
        impl std::fmt::Display for $id {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}
number_text!(Incarnation, ReplicaId, JobId, DeletionId);

/// A position in a shard's log as a full raft log id; all zero is before the first entry.
///
/// Within one incarnation the index alone names a committed entry; the term and the leader are kept
/// because a log can only be purged up to a full log id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LogPoint {
    /// The term of the leader that wrote the entry.
    pub term: u64,
    /// The replica that was leader in that term.
    pub leader: u64,
    /// The index of the entry.
    pub index: u64,
}

impl std::fmt::Display for LogPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}/{}", self.index, self.term, self.leader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse() {
        let id = ClusterId(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0e0f");
        assert_eq!(ClusterId::parse(&id.to_string()), Some(id));
        assert_eq!(ClusterId::parse("00"), None);
        assert_eq!(ClusterId::parse("zz0102030405060708090a0b0c0d0e0f"), None);
    }
}
