//! What the log store needs of a disk: ordered keys in families, batches that are whole or absent
//! after a crash, and a sync that covers everything written before it.

use bytes::Bytes;

use super::Op;
use crate::error::Error;

/// Takes a key and a value; gives whether to go on.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, Error> + 'a;

/// An ordered store of keys and values. After a crash it holds what its first few writes left, all
/// those at least that were synced.
pub(crate) trait Disk: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, family: &'static str, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Visits what lies in `start..end`, in order.
    fn scan(
        &self,
        family: &'static str,
        start: &[u8],
        end: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), Error>;

    /// The last key in `start..end`, with its value.
    fn last(
        &self,
        family: &'static str,
        start: &[u8],
        end: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, Error>;

    /// Writes one batch. With `sync` it is durable when this returns, and all before it.
    fn write(&self, ops: &mut dyn Iterator<Item = &Op>, sync: bool) -> Result<(), Error>;

    /// Gives the space of a deleted range back, `last` included.
    fn drop_files(&self, family: &'static str, start: &[u8], last: &[u8]) -> Result<(), Error>;
}

#[cfg(test)]
pub(crate) mod conformance {
    //! What every disk must do, as one suite.

    use super::*;
    use crate::ids::GroupId;
    use crate::store::keys;

    const GROUP: GroupId = GroupId::shard(3, 1);

    fn put(index: u64, value: &str) -> Op {
        let key = keys::entry(GROUP, index);
        Op::Put { family: keys::LOG, key, value: value.as_bytes().to_vec() }
    }

    fn delete(from: u64, until: u64) -> Op {
        let (start, end) = (keys::entry(GROUP, from), keys::entry(GROUP, until));
        Op::DeleteRange { family: keys::LOG, start, end }
    }

    fn write(disk: &dyn Disk, ops: &[Op]) {
        disk.write(&mut ops.iter(), true).unwrap();
    }

    fn entries(disk: &dyn Disk, from: u64, until: u64) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        let (start, end) = (keys::entry(GROUP, from), keys::entry(GROUP, until));
        disk.scan(keys::LOG, &start, &end, &mut |key, value| {
            let value = String::from_utf8(value.to_vec()).unwrap();
            found.push((keys::entry_index(key).unwrap(), value));
            Ok(true)
        })
        .unwrap();
        found
    }

    fn owned(entries: &[(u64, &str)]) -> Vec<(u64, String)> {
        entries.iter().map(|(index, value)| (*index, (*value).to_owned())).collect()
    }

    /// Runs the suite on an empty disk.
    pub(crate) fn check(disk: &dyn Disk) {
        assert_eq!(entries(disk, 0, 100), []);
        write(disk, &[put(3, "c"), put(1, "a"), put(300, "z"), put(2, "b")]);
        assert_eq!(entries(disk, 1, 300), owned(&[(1, "a"), (2, "b"), (3, "c")]));
        assert_eq!(entries(disk, 2, 3), owned(&[(2, "b")]), "the end is not part of a range");
        assert_eq!(entries(disk, 3, 2), [], "a range that ends before it begins is empty");

        let get = |family, index| disk.get(family, &keys::entry(GROUP, index)).unwrap();
        assert_eq!(get(keys::LOG, 2).unwrap().as_ref(), b"b");
        assert_eq!(get(keys::LOG, 4), None);
        assert_eq!(get(keys::META, 2), None, "families are apart");

        let (start, end) = keys::group_range(GROUP);
        let last = |start: &[u8], end: &[u8]| {
            let found = disk.last(keys::LOG, start, end).unwrap();
            found.map(|(key, value)| (keys::entry_index(&key).unwrap(), value))
        };
        assert_eq!(last(&start, &end), Some((300, Bytes::from_static(b"z"))));
        let (before, _) = keys::group_range(GroupId::shard(3, 0));
        assert_eq!(last(&before, &start), None, "the group before has nothing");
        assert_eq!(last(&start, &keys::entry(GROUP, 3)), Some((2, Bytes::from_static(b"b"))));

        // Within a batch the order counts.
        write(disk, &[put(5, "old"), delete(0, 3), put(5, "new"), put(2, "again"), delete(4, 4)]);
        assert_eq!(entries(disk, 0, 10), owned(&[(2, "again"), (3, "c"), (5, "new")]));
        let remove = Op::Delete { family: keys::LOG, key: keys::entry(GROUP, 3) };
        write(disk, &[put(3, "d"), remove.clone()]);
        assert_eq!(entries(disk, 0, 10), owned(&[(2, "again"), (5, "new")]));
        write(disk, &[remove, put(3, "c"), delete(0, 4)]);
        disk.drop_files(keys::LOG, &keys::entry(GROUP, 0), &keys::entry(GROUP, 3)).unwrap();
        assert_eq!(entries(disk, 0, 10), owned(&[(5, "new")]));

        let mut seen = 0;
        let all = &mut |_: &[u8], _: &[u8]| {
            seen += 1;
            Ok(false)
        };
        disk.scan(keys::LOG, &start, &end, all).unwrap();
        assert_eq!(seen, 1, "a visitor may stop");
        let failed = disk.scan(keys::LOG, &start, &end, &mut |_, _| Err(Error::Closed));
        assert_eq!(failed, Err(Error::Closed));
    }
}
