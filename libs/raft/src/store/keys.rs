//! The layout of the log database: which keys exist in which column family.
//!
//! Every key starts with the 13 bytes of the group, so that a group is one contiguous range.
//! - `log`: group, index (8, big endian) → entry. Values lie in blob files.
//! - `meta`: group, record (1) → vote, purge marker, committed id, replica id, shard state, snapshot,
//!   the replica that was removed.
//! - `snapshot`: group, generation (8), chunk (4) → a piece of the state machine's snapshot.

use crate::ids::GroupId;

pub(crate) const LOG: &str = "log";
pub(crate) const META: &str = "meta";
pub(crate) const SNAPSHOT: &str = "snapshot";
pub(crate) const FAMILIES: [&str; 3] = [LOG, META, SNAPSHOT];

/// The single records of a group in the `meta` family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    Replica = 1,
    Vote = 2,
    Purged = 3,
    Committed = 4,
    Shard = 5,
    Snapshot = 6,
    Removed = 7,
}

pub(crate) fn entry(group: GroupId, index: u64) -> Vec<u8> {
    [group.to_bytes().as_slice(), &index.to_be_bytes()].concat()
}

/// The index in a key made by [`entry`].
pub(crate) fn entry_index(key: &[u8]) -> Option<u64> {
    let index = key.get(GroupId::ENCODED_BYTES..)?;
    Some(u64::from_be_bytes(index.try_into().ok()?))
}

pub(crate) fn record(group: GroupId, record: Record) -> Vec<u8> {
    [group.to_bytes().as_slice(), &[record as u8]].concat()
}

/// The group of a key made by [`record`], if it is of this record.
pub(crate) fn record_group(key: &[u8], wanted: Record) -> Option<GroupId> {
    match key.split_last() {
        Some((record, group)) if *record == wanted as u8 => GroupId::from_bytes(group),
        _ => None,
    }
}

pub(crate) fn chunk(group: GroupId, generation: u64, chunk: u32) -> Vec<u8> {
    [group.to_bytes().as_slice(), &generation.to_be_bytes(), &chunk.to_be_bytes()].concat()
}

/// The range of all keys of a group, end exclusive, in any family.
pub(crate) fn group_range(group: GroupId) -> (Vec<u8>, Vec<u8>) {
    let start = group.to_bytes().to_vec();
    // No key continues with 16 bytes of 0xff: indexes, generations and records stay below.
    let end = [group.to_bytes().as_slice(), &[0xff; 16]].concat();
    (start, end)
}

/// The range of all keys of all groups.
pub(crate) fn everything() -> (Vec<u8>, Vec<u8>) {
    // A group begins with its kind, which is small.
    (Vec::new(), vec![0xff; GroupId::ENCODED_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_one_range_and_neighbours_are_outside() {
        let groups = [GroupId::metastore(), GroupId::shard(0, 1), GroupId::shard(0, 2)];
        for group in groups {
            let (start, end) = group_range(group);
            for key in [entry(group, 0), entry(group, 1 << 62), record(group, Record::Snapshot)] {
                assert!((&start..&end).contains(&&key));
            }
            for other in groups.into_iter().filter(|other| *other != group) {
                assert!(!(&start..&end).contains(&&entry(other, 5)));
            }
        }
        assert_eq!(entry_index(&entry(groups[1], 77)), Some(77));
        let key = record(groups[2], Record::Replica);
        assert_eq!(record_group(&key, Record::Replica), Some(groups[2]));
        assert_eq!(record_group(&key, Record::Vote), None);
    }
}
