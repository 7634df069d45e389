//! A disk in memory for simulations. What was not synced may vanish in a crash, from some write on;
//! a sync takes time and can fail.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_node::Rng;
use parking_lot::Mutex;

use super::Op;
use super::disk::{Disk, Visit};
use super::keys;
use crate::error::Error;

type Content = BTreeMap<(&'static str, Vec<u8>), Bytes>;

/// A disk that outlives the processes that open it. Cheap to clone; clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<Platter>>);

struct Platter {
    rng: Rng,
    /// What reads find.
    cached: Content,
    /// What a crash leaves at least.
    durable: Content,
    /// The writes in between, oldest first.
    unsynced: Vec<Vec<Op>>,
    /// The process that may use it: those before are gone.
    opened: u64,
    sync_min: Duration,
    sync_max: Duration,
    fail_next_sync: bool,
    lies: bool,
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new(rng: Rng) -> SimulatedDisk {
        SimulatedDisk(Arc::new(Mutex::new(Platter {
            rng,
            cached: Content::new(),
            durable: Content::new(),
            unsynced: Vec::new(),
            opened: 0,
            sync_min: Duration::from_micros(200),
            sync_max: Duration::from_millis(3),
            fail_next_sync: false,
            lies: false,
        })))
    }

    /// How long a sync takes, at least and at most.
    pub fn set_sync_time(&self, min: Duration, max: Duration) {
        let mut platter = self.0.lock();
        (platter.sync_min, platter.sync_max) = (min, max.max(min));
    }

    /// The next sync fails, once.
    pub fn fail_next_sync(&self) {
        self.0.lock().fail_next_sync = true;
    }

    /// From now on a sync says that it has done its work and does nothing.
    pub fn set_lies(&self, lies: bool) {
        self.0.lock().lies = lies;
    }

    /// The power fails: of the writes that were not synced the first few are there, how many is up to
    /// chance. Whoever has it open can not use it any more.
    pub fn crash(&self) {
        let mut platter = self.0.lock();
        let unsynced = std::mem::take(&mut platter.unsynced);
        let most = u64::try_from(unsynced.len()).unwrap_or(u64::MAX);
        let kept = usize::try_from(platter.rng.below(most.saturating_add(1))).unwrap_or(0);
        for op in unsynced.iter().take(kept).flatten() {
            change(&mut platter.durable, op);
        }
        platter.cached = platter.durable.clone();
        platter.opened += 1;
        platter.fail_next_sync = false;
    }

    /// Another disk is put in its place, an empty one.
    pub fn wipe(&self) {
        let mut platter = self.0.lock();
        platter.cached.clear();
        platter.durable.clear();
        platter.unsynced.clear();
        platter.opened += 1;
    }

    /// Whether nothing was ever written to it.
    pub fn is_empty(&self) -> bool {
        self.0.lock().cached.is_empty()
    }

    /// How many log entries of all groups it holds.
    pub fn log_entries(&self) -> usize {
        let platter = self.0.lock();
        platter.cached.keys().filter(|(family, _)| *family == keys::LOG).count()
    }

    pub(super) fn open(&self) -> OpenDisk {
        let mut platter = self.0.lock();
        platter.opened += 1;
        OpenDisk { disk: self.clone(), opened: platter.opened }
    }
}

impl std::fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimulatedDisk")
    }
}

/// A disk in the hands of one process.
#[derive(Clone)]
pub(super) struct OpenDisk {
    disk: SimulatedDisk,
    opened: u64,
}

impl OpenDisk {
    fn with<T>(&self, work: impl FnOnce(&mut Platter) -> Result<T, Error>) -> Result<T, Error> {
        let mut platter = self.disk.0.lock();
        if platter.opened != self.opened {
            return Err(Error::Closed);
        }
        work(&mut platter)
    }

    /// How long the next sync takes.
    pub(super) fn sync_time(&self) -> Duration {
        let platter = self.disk.0.lock();
        let more = platter.sync_max.saturating_sub(platter.sync_min);
        let more = u64::try_from(more.as_nanos()).unwrap_or(u64::MAX);
        platter.sync_min + Duration::from_nanos(platter.rng.below(more.saturating_add(1)))
    }
}

impl Disk for OpenDisk {
    fn get(&self, family: &'static str, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.with(|platter| Ok(platter.cached.get(&(family, key.to_vec())).cloned()))
    }

    fn scan(
        &self,
        family: &'static str,
        start: &[u8],
        end: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        self.with(|platter| {
            for ((_, key), value) in range(&platter.cached, family, start, end) {
                if !visit(key, value)? {
                    break;
                }
            }
            Ok(())
        })
    }

    fn last(
        &self,
        family: &'static str,
        start: &[u8],
        end: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, Error> {
        self.with(|platter| {
            let last = range(&platter.cached, family, start, end).next_back();
            Ok(last.map(|((_, key), value)| (Bytes::copy_from_slice(key), value.clone())))
        })
    }

    fn write(&self, ops: &mut dyn Iterator<Item = &Op>, sync: bool) -> Result<(), Error> {
        self.with(|platter| {
            let ops: Vec<Op> = ops.cloned().collect();
            for op in &ops {
                change(&mut platter.cached, op);
            }
            if !ops.is_empty() {
                platter.unsynced.push(ops);
            }
            if !sync || platter.lies {
                return Ok(());
            }
            if std::mem::take(&mut platter.fail_next_sync) {
                return Err(Error::Database("the sync failed".to_owned()));
            }
            for op in std::mem::take(&mut platter.unsynced).iter().flatten() {
                change(&mut platter.durable, op);
            }
            Ok(())
        })
    }

    fn drop_files(&self, _: &'static str, _: &[u8], _: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

fn change(content: &mut Content, op: &Op) {
    match op {
        Op::Put { family, key, value } => {
            content.insert((family, key.clone()), Bytes::copy_from_slice(value));
        }
        Op::Delete { family, key } => {
            content.remove(&(*family, key.clone()));
        }
        Op::DeleteRange { family, start, end } => {
            let gone: Vec<_> =
                range(content, family, start, end).map(|(key, _)| key.clone()).collect();
            for key in gone {
                content.remove(&key);
            }
        }
    }
}

fn range<'a>(
    content: &'a Content,
    family: &'static str,
    start: &[u8],
    end: &[u8],
) -> impl DoubleEndedIterator<Item = (&'a (&'static str, Vec<u8>), &'a Bytes)> {
    // A range that ends before it begins is empty, not a panic.
    let start = start.min(end);
    let start = Bound::Included((family, start.to_vec()));
    content.range((start, Bound::Excluded((family, end.to_vec()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::GroupId;

    fn op(value: u8) -> Op {
        Op::put_record(GroupId::metastore(), keys::Record::Vote, vec![value])
    }

    fn value(disk: &OpenDisk) -> Option<u8> {
        let key = keys::record(GroupId::metastore(), keys::Record::Vote);
        disk.get(keys::META, &key).unwrap().map(|value| value[0])
    }

    #[test]
    fn memory_is_a_disk() {
        crate::store::disk::conformance::check(&SimulatedDisk::new(Rng::seeded(1)).open());
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_some_of_what_came_after() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let disk = SimulatedDisk::new(Rng::seeded(seed));
            let open = disk.open();
            open.write(&mut [op(1)].iter(), true).unwrap();
            open.write(&mut [op(2)].iter(), false).unwrap();
            open.write(&mut [op(3)].iter(), false).unwrap();
            assert_eq!(value(&open), Some(3));
            disk.crash();
            assert_eq!(open.write(&mut [op(4)].iter(), true), Err(Error::Closed));
            seen.extend(value(&disk.open()));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_failed_sync_promises_nothing() {
        let disk = SimulatedDisk::new(Rng::seeded(3));
        let open = disk.open();
        disk.fail_next_sync();
        assert!(open.write(&mut [op(1)].iter(), true).is_err());
        assert!(open.write(&mut [op(2)].iter(), true).is_ok());
        disk.crash();
        assert_eq!(value(&disk.open()), Some(2));
        disk.wipe();
        assert!(disk.is_empty());
    }
}
