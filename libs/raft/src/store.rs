//! The one log database of a process: every group's entries, votes and markers on one [`Disk`] with
//! one write-ahead log, so that what was written earlier is never newer than what was written later.
//! The disk is RocksDB's (`rocks`), or one in memory that a simulation can crash (`simulated`).
//!
//! All writes go through one thread (`writer`) that puts whatever is waiting, from all groups, into
//! one batch with one sync. The first failed write or sync fails the store for good: the kernel may
//! report the next sync as successful although the data is lost, so the process must end and
//! recover from what is on disk.

mod disk;
pub(crate) mod keys;
mod plant;
mod removed;
#[cfg(feature = "rocksdb")]
mod rocks;
#[cfg(feature = "test-support")]
mod simulated;
pub(crate) mod snapshots;
mod writer;

#[cfg(feature = "rocksdb")]
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use clew_node::Deps;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::disk::Disk;
use self::keys::Record;
pub(crate) use self::removed::Removed;
#[cfg(feature = "test-support")]
pub use self::simulated::SimulatedDisk;
use self::writer::{Job, Meters};
pub(crate) use self::writer::{Op, Sync};
use crate::error::Error;
use crate::ids::{GroupId, ReplicaId};
#[cfg(feature = "rocksdb")]
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
    queue: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the handle and the writer share.
struct Inner {
    /// `None` once closed, so that the directory's lock is free when `close` returns.
    disk: RwLock<Option<Box<dyn Disk>>>,
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
    #[cfg(feature = "rocksdb")]
    pub fn open(path: &Path, options: &LogOptions, deps: &Deps) -> Result<Arc<LogStore>, Error> {
        let (store, mut jobs) = LogStore::over(Box::new(rocks::Rocks::open(path, options)?), deps);
        let worker = Arc::clone(&store.inner);
        let thread = runtime::start_thread("clew-raft-log", move || worker.run(&mut jobs))?;
        *store.writer.lock() = Some(thread);
        Ok(store)
    }

    /// Opens a disk of a simulation. Its writer is a task of the simulated process.
    #[cfg(feature = "test-support")]
    pub fn simulated(disk: &SimulatedDisk, deps: &Deps) -> Arc<LogStore> {
        let opened = disk.open();
        let (store, jobs) = LogStore::over(Box::new(opened.clone()), deps);
        let (worker, clock) = (Arc::clone(&store.inner), deps.clock.clone());
        deps.tasks.spawn(async move { worker.run_simulated(jobs, opened, clock).await });
        store
    }

    fn over(disk: Box<dyn Disk>, deps: &Deps) -> (Arc<LogStore>, mpsc::UnboundedReceiver<Job>) {
        let inner = Arc::new(Inner {
            disk: RwLock::new(Some(disk)),
            failed: watch::Sender::new(None),
            meters: Meters::new(deps),
            #[cfg(test)]
            fail_next_write: std::sync::atomic::AtomicBool::new(false),
        });
        // Not bounded: each group has a few writes on their way at most, and waits for them.
        let (queue, jobs) = mpsc::unbounded_channel();
        let queue = Mutex::new(Some(queue));
        (Arc::new(LogStore { inner, queue, writer: Mutex::new(None) }), jobs)
    }

    /// The groups that have a replica on this disk.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Corrupt`], or [`Error::Closed`].
    pub fn groups_on_disk(&self) -> Result<Vec<(GroupId, ReplicaId)>, Error> {
        self.read(|disk| {
            let mut found = Vec::new();
            let (start, end) = keys::everything();
            disk.scan(keys::META, &start, &end, &mut |key, value| {
                if let Some(group) = keys::record_group(key, Record::Replica) {
                    found.push((group, replica_from_bytes(value)?));
                }
                Ok(true)
            })?;
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
        drop(self.inner.disk.write().take());
    }

    /// Reads from the database.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&dyn Disk) -> Result<T, Error>,
    ) -> Result<T, Error> {
        work(self.inner.disk.read().as_deref().ok_or(Error::Closed)?)
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
        self.read(|disk| disk.get(keys::META, &keys::record(group, record)))
    }

    /// Drops everything of a group that is not open but what is `kept`, in one write.
    async fn drop_group(&self, group: GroupId, kept: Vec<Op>) -> Result<(), Error> {
        let (start, end) = keys::group_range(group);
        let ranges = keys::FAMILIES.map(|family| Op::DeleteRange {
            family,
            start: start.clone(),
            end: end.clone(),
        });
        self.write(ranges.into_iter().chain(kept).collect(), Sync::Yes).await?;
        self.drop_files(start, end)
    }

    /// Unlinks the files of the log that lie inside a deleted range, rather than let compactions
    /// read them once more. The deletion must be synced before: a file is gone at once. Unlike the
    /// end of a deletion, `last` belongs to the range: a file that ends with it goes.
    pub(crate) fn drop_files(&self, start: Vec<u8>, last: Vec<u8>) -> Result<(), Error> {
        let dropped = self.read(|disk| disk.drop_files(keys::LOG, &start, &last));
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

#[cfg(test)]
mod tests;
