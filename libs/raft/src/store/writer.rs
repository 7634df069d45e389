//! The writer thread: puts the waiting writes of all groups into one batch with one sync, so that
//! the cost of a sync is shared by every group of the process.

use clew_node::{Clock, CpuTime, Deps, Phase};
use prometheus::{Histogram, IntCounter};
use tokio::sync::{mpsc, oneshot};

use super::Inner;
use super::keys::{self, Record};
use crate::error::Error;
use crate::ids::GroupId;

/// Where a batch stops taking in more writes, in bytes; a bound on memory and on latency.
const BATCH_BYTES_MAX: usize = 32 << 20;

/// Whether a write must be on disk before it is reported as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Yes,
    No,
}

/// One change to the database.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Put {
        family: &'static str,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        family: &'static str,
        key: Vec<u8>,
    },
    /// Of keys that may exist: the database reads all such ranges that overlap, each time that it writes
    /// them into a file or is read.
    DeleteRange {
        family: &'static str,
        start: Vec<u8>,
        end: Vec<u8>,
    },
}

impl Op {
    pub(crate) fn put_record(group: GroupId, record: Record, value: Vec<u8>) -> Op {
        Op::Put { family: keys::META, key: keys::record(group, record), value }
    }

    fn bytes(&self) -> usize {
        match self {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key, .. } => key.len(),
            Op::DeleteRange { start, end, .. } => start.len() + end.len(),
        }
    }
}

/// Changes that belong together, and who waits for them.
pub(super) struct Job {
    pub(super) ops: Vec<Op>,
    pub(super) sync: Sync,
    pub(super) done: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Job {
    fn bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }
}

/// What waits, as one batch, and its size in bytes.
fn gather(first: Job, jobs: &mut mpsc::UnboundedReceiver<Job>) -> (Vec<Job>, usize) {
    let mut bytes = first.bytes();
    let mut batch = vec![first];
    while bytes < BATCH_BYTES_MAX
        && let Ok(next) = jobs.try_recv()
    {
        bytes += next.bytes();
        batch.push(next);
    }
    (batch, bytes)
}

/// What the writer counts.
pub(super) struct Meters {
    clock: Clock,
    cpu: CpuTime,
    syncs: Histogram,
    jobs: IntCounter,
    bytes: IntCounter,
}

impl Meters {
    pub(super) fn new(deps: &Deps) -> Meters {
        let metrics = &deps.metrics;
        Meters {
            clock: deps.clock.clone(),
            cpu: deps.cpu.clone(),
            syncs: metrics.seconds(
                "clew_raft_log_sync_seconds",
                "Time of one synced write of the log database, shared by all waiting groups.",
            ),
            jobs: metrics.counter(
                "clew_raft_log_writes_total",
                "Writes to the log database before they are put together into batches.",
            ),
            bytes: metrics.counter(
                "clew_raft_log_written_bytes_total",
                "Bytes of keys and values written to the log database.",
            ),
        }
    }
}

impl Inner {
    /// Works until the queue is closed and empty.
    #[cfg(feature = "rocksdb")]
    pub(super) fn run(&self, jobs: &mut mpsc::UnboundedReceiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let (batch, bytes) = gather(first, jobs);
            self.commit_and_tell(batch, bytes);
        }
    }

    /// The same as a task, on a disk whose syncs take their time: what is written meanwhile may be on
    /// it after a crash, or not.
    #[cfg(feature = "test-support")]
    pub(super) async fn run_simulated(
        &self,
        mut jobs: mpsc::UnboundedReceiver<Job>,
        disk: super::simulated::OpenDisk,
        clock: Clock,
    ) {
        use super::disk::Disk as _;
        while let Some(first) = jobs.recv().await {
            let (batch, bytes) = gather(first, &mut jobs);
            if batch.iter().any(|job| job.sync == Sync::Yes) {
                // Errors come again when the batch is committed.
                let _ = disk.write(&mut batch.iter().flat_map(|job| &job.ops), false);
                clock.sleep(disk.sync_time()).await;
            }
            self.commit_and_tell(batch, bytes);
        }
    }

    fn commit_and_tell(&self, batch: Vec<Job>, bytes: usize) {
        let result = self.commit(&batch, bytes);
        for done in batch.into_iter().filter_map(|job| job.done) {
            // Whoever went away meanwhile does not want to know.
            let _ = done.send(result.clone());
        }
    }

    fn commit(&self, jobs: &[Job], bytes: usize) -> Result<(), Error> {
        if let Some(reason) = self.failed.borrow().as_ref() {
            return Err(Error::StoreFailed(reason.clone()));
        }
        let _cpu = self.meters.cpu.measure(Phase::Log);
        let sync = jobs.iter().any(|job| job.sync == Sync::Yes);
        let started = self.meters.clock.monotonic();
        if let Err(error) = self.write(jobs, sync) {
            return Err(self.fail(&error));
        }
        if sync {
            let took = self.meters.clock.monotonic().saturating_sub(started);
            self.meters.syncs.observe(took.as_secs_f64());
        }
        self.meters.jobs.inc_by(jobs.len() as u64);
        self.meters.bytes.inc_by(bytes as u64);
        Ok(())
    }

    fn write(&self, jobs: &[Job], sync: bool) -> Result<(), Error> {
        #[cfg(test)]
        if self.fail_next_write.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Err(Error::Database("injected failure".to_owned()));
        }
        // A test makes the disk slow.
        fail::fail_point!("log::write");
        let disk = self.disk.read();
        let disk = disk.as_ref().ok_or(Error::Closed)?;
        disk.write(&mut jobs.iter().flat_map(|job| &job.ops), sync)
    }

    /// Latches the store as failed; the first reason stays.
    pub(super) fn fail(&self, error: &Error) -> Error {
        let reason = error.to_string();
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                tracing::error!(%reason, "the log store has failed; the process must end");
                *failed = Some(reason.clone());
            }
            first
        });
        Error::StoreFailed(reason)
    }
}
