//! The one log database of a process: every group's entries, votes and markers in one RocksDB with
//! one write-ahead log, so that what was written earlier is never newer than what was written later.
//!
//! All writes go through one thread (`writer`) that puts whatever is waiting, from all groups, into
//! one batch with one sync. The first failed write or sync fails the store for good: the kernel may
//! report the next sync as successful although the data is lost, so the process must end and
//! recover from what is on disk.

pub(crate) mod keys;
mod plant;
pub(crate) mod snapshots;
mod writer;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use clew_node::Deps;
use parking_lot::{Mutex, RwLock};
use rocksdb::{BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, Options};
use tokio::sync::{oneshot, watch};

use self::keys::Record;
use self::writer::{Job, Meters};
pub(crate) use self::writer::{Op, Sync};
use crate::error::Error;
use crate::ids::{GroupId, ReplicaId};
use crate::runtime;

/// The sizes of the log database. The defaults keep an idle process small.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// What is written before it leaves memory for a file, in bytes, per column family.
    pub write_buffer_bytes: usize,
    /// The write buffers of all column families together, in bytes.
    pub write_buffers_bytes_max: usize,
    /// The write-ahead log, in bytes, before the oldest unflushed data is written out.
    pub wal_bytes_max: u64,
    /// The cache of blocks read from files, in bytes.
    pub cache_bytes: usize,
    /// Open files.
    pub open_files_max: i32,
    /// Flushes and compactions at the same time.
    pub background_jobs_max: i32,
}

impl Default for LogOptions {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        LogOptions {
            write_buffer_bytes: 8 * MIB,
            write_buffers_bytes_max: 16 * MIB,
            wal_bytes_max: 64 << 20,
            cache_bytes: 4 * MIB,
            open_files_max: 128,
            background_jobs_max: 2,
        }
    }
}

/// The log database. One per process.
pub struct LogStore {
    inner: Arc<Inner>,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the handle and the writer share.
struct Inner {
    /// `None` once closed, so that the directory's lock is free when `close` returns.
    db: RwLock<Option<DB>>,
    failed: watch::Sender<Option<String>>,
    meters: Meters,
    #[cfg(test)]
    fail_next_write: std::sync::atomic::AtomicBool,
}

impl LogStore {
    /// Opens the database in `path`, or makes it, and starts its writer.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if synced data is damaged, [`Error::Database`] if it can not be opened
    /// (it may be open in another process).
    pub fn open(path: &Path, options: &LogOptions, deps: &Deps) -> Result<Arc<LogStore>, Error> {
        let cache = Cache::new_lru_cache(options.cache_bytes);
        let families = keys::FAMILIES
            .map(|family| ColumnFamilyDescriptor::new(family, family_options(options, &cache)));
        let db = DB::open_cf_descriptors(&database_options(options), path, families)?;
        let inner = Arc::new(Inner {
            db: RwLock::new(Some(db)),
            failed: watch::Sender::new(None),
            meters: Meters::new(deps),
            #[cfg(test)]
            fail_next_write: std::sync::atomic::AtomicBool::new(false),
        });
        // Not bounded: each group has a few writes on their way at most, and waits for them.
        let (queue, jobs) = mpsc::channel();
        let worker = Arc::clone(&inner);
        let thread = runtime::start_thread("clew-raft-log", move || worker.run(&jobs))?;
        Ok(Arc::new(LogStore {
            inner,
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(thread)),
        }))
    }

    /// The groups that have a replica on this disk.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Corrupt`], or [`Error::Closed`].
    pub fn groups_on_disk(&self) -> Result<Vec<(GroupId, ReplicaId)>, Error> {
        self.read(|db| {
            let mut found = Vec::new();
            let mut iter = db.raw_iterator_cf(family(db, keys::META)?);
            iter.seek_to_first();
            while let Some((key, value)) = iter.item() {
                if let Some(group) = keys::record_group(key, Record::Replica) {
                    found.push((group, replica_from_bytes(value)?));
                }
                iter.next();
            }
            iter.status()?;
            Ok(found)
        })
    }

    /// Why the store failed, once it has. The process should end then.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.inner.failed.subscribe()
    }

    /// Writes what is queued, stops the writer and closes the database. Groups should be shut down
    /// before; their calls fail from here on. Blocks for the last sync.
    pub fn close(&self) {
        drop(self.queue.lock().take());
        if let Some(writer) = self.writer.lock().take() {
            // A panic of the writer has failed the queued jobs; there is nothing else to do.
            let _ = writer.join();
        }
        drop(self.inner.db.write().take());
    }

    /// Reads from the database.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&DB) -> Result<T, Error>) -> Result<T, Error> {
        work(self.inner.db.read().as_ref().ok_or(Error::Closed)?)
    }

    /// Queues a write and waits until it is done (and on disk, if synced).
    pub(crate) async fn write(&self, ops: Vec<Op>, sync: Sync) -> Result<(), Error> {
        let (done, written) = oneshot::channel();
        self.submit(Job { ops, sync, done: Some(done) })?;
        written.await.map_err(|_| Error::Closed)?
    }

    /// Queues a write that nobody waits for and a crash may lose. It is ordered before every write
    /// queued later.
    pub(crate) fn write_later(&self, ops: Vec<Op>) -> Result<(), Error> {
        self.submit(Job { ops, sync: Sync::No, done: None })
    }

    fn submit(&self, job: Job) -> Result<(), Error> {
        if let Some(reason) = self.inner.failed.borrow().as_ref() {
            return Err(Error::StoreFailed(reason.clone()));
        }
        let queue = self.queue.lock();
        let queue = queue.as_ref().ok_or(Error::Closed)?;
        queue.send(job).map_err(|_| Error::Closed)
    }

    /// The value of one of a group's records.
    pub(crate) fn record(&self, group: GroupId, record: Record) -> Result<Option<Bytes>, Error> {
        self.read(|db| {
            let value = db.get_pinned_cf(family(db, keys::META)?, keys::record(group, record))?;
            Ok(value.map(|value| Bytes::copy_from_slice(&value)))
        })
    }

    /// Notes which replica of the group this disk holds.
    pub(crate) async fn claim(&self, group: GroupId, replica: ReplicaId) -> Result<(), Error> {
        if let Some(found) = self.record(group, Record::Replica)? {
            let found = replica_from_bytes(&found)?;
            if found != replica {
                return Err(Error::WrongReplica { group, wanted: replica, found });
            }
            return Ok(());
        }
        let value = replica.0.to_be_bytes().to_vec();
        self.write(vec![Op::put_record(group, Record::Replica, value)], Sync::Yes).await
    }

    /// Drops everything of a group whose replica is closed.
    pub(crate) async fn remove(&self, group: GroupId) -> Result<(), Error> {
        let (start, end) = keys::group_range(group);
        let ranges = keys::FAMILIES.map(|family| Op::DeleteRange {
            family,
            start: start.clone(),
            end: end.clone(),
        });
        self.write(ranges.into(), Sync::Yes).await?;
        self.drop_files(start, end)
    }

    /// Unlinks the files of the log that lie inside a deleted range, rather than let compactions
    /// read them once more. The deletion must be synced before: a file is gone at once. Unlike the
    /// end of a deletion, `last` belongs to the range: a file that ends with it goes.
    pub(crate) fn drop_files(&self, start: Vec<u8>, last: Vec<u8>) -> Result<(), Error> {
        let dropped =
            self.read(|db| Ok(db.delete_file_in_range_cf(family(db, keys::LOG)?, start, last)?));
        if let Err(error) = &dropped
            && *error != Error::Closed
        {
            self.inner.fail(error);
        }
        dropped
    }

    /// Makes the next write fail as a broken disk would.
    #[cfg(test)]
    pub(crate) fn fail_next_write(&self) {
        self.inner.fail_next_write.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogStore")
    }
}

fn replica_from_bytes(bytes: &[u8]) -> Result<ReplicaId, Error> {
    let bytes = bytes.try_into().map_err(|_| Error::corrupt("replica id", "not 8 bytes"))?;
    Ok(ReplicaId(u64::from_be_bytes(bytes)))
}

/// A column family's handle.
pub(crate) fn family<'db>(db: &'db DB, name: &'static str) -> Result<&'db ColumnFamily, Error> {
    db.cf_handle(name).ok_or_else(|| Error::Database(format!("no column family {name}")))
}

fn database_options(options: &LogOptions) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.create_missing_column_families(true);
    // The default may drop synced records that stand behind a damaged one without a word.
    database.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
    database.set_track_and_verify_wals_in_manifest(true);
    database.set_paranoid_checks(true);
    database.set_db_write_buffer_size(options.write_buffers_bytes_max);
    database.set_max_total_wal_size(options.wal_bytes_max);
    database.set_max_open_files(options.open_files_max);
    database.set_max_background_jobs(options.background_jobs_max);
    database.set_manifest_preallocation_size(64 << 10);
    database.set_keep_log_file_num(2);
    database.set_max_log_file_size(1 << 20);
    database.set_log_level(rocksdb::LogLevel::Warn);
    database.set_stats_dump_period_sec(0);
    database
}

fn family_options(options: &LogOptions, cache: &Cache) -> Options {
    let mut family = Options::default();
    family.set_write_buffer_size(options.write_buffer_bytes);
    family.set_max_write_buffer_number(3);
    family.set_arena_block_size(64 << 10);
    family.set_target_file_size_base(8 << 20);
    // Payloads arrive compressed.
    family.set_compression_type(rocksdb::DBCompressionType::None);
    // Values live beside the tree, so that a compaction moves keys only and purged payloads are
    // unlinked with their file instead of being rewritten.
    family.set_enable_blob_files(true);
    family.set_min_blob_size(1 << 10);
    family.set_blob_file_size(32 << 20);
    family.set_blob_compression_type(rocksdb::DBCompressionType::None);
    family.set_enable_blob_gc(true);
    family.set_blob_gc_age_cutoff(0.25);
    family.set_blob_gc_force_threshold(0.8);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    family.set_block_based_table_factory(&table);
    family
}

#[cfg(test)]
mod tests;
