//! The group commit: batches that wait become one log entry, one proposal in flight per shard.
//!
//! openraft appends one write at a time per group, so what arrives during an fsync becomes the next
//! entry. The queue is bounded by bytes; a caller that does not fit is told to retry. The log stays
//! close to the head: what the head cannot take soon waits here, where it is not acknowledged yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_model::planted;
use clew_node::{Deps, Phase};
use clew_proto::shard::v1::{Batch, LogEntry};
use clew_raft::{Leadership, ShardGroup};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{Notify, oneshot, watch};

use crate::IngesterError;
use crate::head::Budget;
use crate::metrics::ShardMetrics;

/// Log bytes that may be committed and not yet in the head. A read waits for them.
const AHEAD_BYTES_MAX: usize = 2 << 20;

/// Bytes after decompression in one entry, unless a single batch has more: the head takes an entry
/// as a whole.
const ENTRY_RAW_BYTES_MAX: u64 = 64 << 20;

/// What a batch takes in an entry beside its spans and its tenant's name.
const BATCH_OVERHEAD_BYTES: usize = 32;

/// Batches on their way into one shard's log.
pub(crate) struct AppendQueue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    bytes_max: usize,
    entry_bytes_max: usize,
    retry_after: Duration,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<(Batch, oneshot::Sender<Outcome>)>,
    bytes: usize,
    closed: bool,
}

/// The log index of an acknowledged batch; errors are shared by all batches of an entry.
type Outcome = Result<u64, Failure>;

#[derive(Clone)]
enum Failure {
    Log(Arc<clew_raft::Error>),
    HeadFull { bytes: usize, bytes_max: usize },
}

/// How far the log is ahead of the head.
pub(crate) struct AheadOf {
    consumed: watch::Receiver<u64>,
    budget: Arc<Budget>,
    leadership: watch::Receiver<Leadership>,
    /// Entries not seen in the head yet: (log index, bytes).
    entries: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl AheadOf {
    /// The log is where the head is, whose progress is `consumed` and whose memory is `budget`.
    pub(crate) fn new(
        consumed: watch::Receiver<u64>,
        budget: Arc<Budget>,
        leadership: watch::Receiver<Leadership>,
    ) -> AheadOf {
        AheadOf { consumed, budget, leadership, entries: VecDeque::new(), bytes: 0 }
    }

    /// Without leadership there is no head here to wait for.
    fn follow_leadership(&mut self) {
        if !self.leadership.borrow_and_update().is_leader {
            self.entries.clear();
            self.bytes = 0;
        }
    }

    fn push(&mut self, index: u64, bytes: usize) {
        self.entries.push_back((index, bytes));
        self.bytes += bytes;
    }

    /// Forgets what the head has taken; gives whether the log is too far ahead.
    fn is_too_far(&mut self) -> bool {
        let consumed = *self.consumed.borrow_and_update();
        while let Some(&(index, bytes)) = self.entries.front()
            && index <= consumed
        {
            self.entries.pop_front();
            self.bytes -= bytes;
        }
        self.bytes >= AHEAD_BYTES_MAX
    }
}

impl AppendQueue {
    pub(crate) fn new(
        bytes_max: usize,
        entry_bytes_max: usize,
        retry_after: Duration,
    ) -> AppendQueue {
        AppendQueue {
            waiting: Mutex::default(),
            arrived: Notify::new(),
            bytes_max,
            entry_bytes_max,
            retry_after,
        }
    }

    /// Appends one batch; completes when it is committed.
    ///
    /// Dropping the future does not take the batch back.
    pub(crate) async fn append(&self, batch: Batch) -> Result<u64, IngesterError> {
        let committed = {
            let mut waiting = self.waiting.lock();
            if waiting.closed {
                return Err(IngesterError::Stopping);
            }
            let bytes = waiting.bytes + size_of_batch(&batch);
            // A single batch above the bound still gets through an empty queue.
            if bytes > self.bytes_max && !waiting.batches.is_empty() {
                let (bytes, retry_after) = (waiting.bytes, self.retry_after);
                return Err(IngesterError::QueueFull { bytes, retry_after });
            }
            waiting.bytes = bytes;
            let (done, committed) = oneshot::channel();
            waiting.batches.push_back((batch, done));
            committed
        };
        self.arrived.notify_one();
        match committed.await {
            Ok(Ok(index)) => Ok(index),
            Ok(Err(Failure::Log(error))) => Err(IngesterError::Raft((*error).clone())),
            Ok(Err(Failure::HeadFull { bytes, bytes_max })) => {
                let retry_after = self.retry_after;
                Err(IngesterError::HeadFull { bytes, bytes_max, retry_after })
            }
            Err(_) => Err(IngesterError::Stopping),
        }
    }

    /// Refuses everything from now on; what waits is still appended.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Moves batches from the queue into the log until the queue is closed and empty.
    pub(crate) async fn run(
        &self,
        group: &ShardGroup,
        mut head: AheadOf,
        deps: &Deps,
        timeout: Duration,
        metrics: &ShardMetrics,
    ) {
        loop {
            self.wait_for_head(&mut head).await;
            let taken = self.take();
            if taken.is_empty() {
                if self.waiting.lock().closed {
                    return;
                }
                self.arrived.notified().await;
                continue;
            }
            let (batches, mut callers): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
            if planted("bug::ack_before_commit") {
                for caller in callers.drain(..) {
                    let _ = caller.send(Ok(0));
                }
                // The answers go out before the test ends the process.
                deps.clock.sleep(Duration::from_millis(500)).await;
            }
            let outcome = match head.budget.exceeded() {
                Some((bytes, bytes_max)) => Err(Failure::HeadFull { bytes, bytes_max }),
                None => {
                    let entry = {
                        let _cpu = deps.cpu.measure(Phase::Log);
                        Bytes::from(LogEntry { batches }.encode_to_vec())
                    };
                    let bytes = entry.len();
                    metrics.entry_bytes.inc_by(bytes as u64);
                    crash_point("append::before_log");
                    let started = deps.clock.monotonic();
                    let outcome = deps.cpu.of(Phase::Log, group.append(entry, timeout)).await;
                    let taken = deps.clock.monotonic().saturating_sub(started);
                    metrics.append_seconds.observe(taken.as_secs_f64());
                    crash_point("append::after_log");
                    if let Ok(log_id) = &outcome {
                        head.push(log_id.index, bytes);
                    }
                    outcome.map(|id| id.index).map_err(|error| Failure::Log(Arc::new(error)))
                }
            };
            for caller in callers {
                // A caller that went away needs no answer; its batch is in the log all the same.
                let _ = caller.send(outcome.clone());
            }
        }
    }

    /// Completes when the log is close enough to the head, or the queue is closed: what waits then
    /// still goes into the log, to be read back at the next start.
    async fn wait_for_head(&self, head: &mut AheadOf) {
        head.follow_leadership();
        while head.is_too_far() && !self.waiting.lock().closed {
            tokio::select! {
                lost = head.leadership.wait_for(|now| !now.is_leader) => {
                    if lost.is_err() {
                        return;
                    }
                    head.entries.clear();
                    head.bytes = 0;
                }
                changed = head.consumed.changed() => {
                    // The sender lives as long as the head.
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.arrived.notified() => {}
            }
        }
    }

    /// What goes into the next entry: at least one batch, at most the size of an entry.
    fn take(&self) -> Vec<(Batch, oneshot::Sender<Outcome>)> {
        let mut waiting = self.waiting.lock();
        let mut taken = Vec::new();
        let (mut bytes, mut raw_bytes) = (0, 0u64);
        while let Some((batch, _)) = waiting.batches.front() {
            let size = size_of_batch(batch);
            bytes += size;
            raw_bytes = raw_bytes.saturating_add(batch.raw_bytes);
            let is_full = bytes > self.entry_bytes_max || raw_bytes > ENTRY_RAW_BYTES_MAX;
            if is_full && !taken.is_empty() {
                break;
            }
            waiting.bytes -= size;
            taken.extend(waiting.batches.pop_front());
        }
        taken
    }
}

/// What a batch counts for, in the queue and in an entry.
fn size_of_batch(batch: &Batch) -> usize {
    batch.traces.len() + batch.tenant.len() + BATCH_OVERHEAD_BYTES
}

/// A place where a test ends the process as a crash would. Nothing unless built for it.
pub(crate) fn crash_point(name: &str) {
    fail::fail_point!(name, |_| std::process::abort());
    let _ = name;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(bytes: usize) -> Batch {
        Batch { traces: Bytes::from(vec![0; bytes]), ..Batch::default() }
    }

    fn push(queue: &AppendQueue, bytes: usize) {
        let mut waiting = queue.waiting.lock();
        let batch = batch(bytes - BATCH_OVERHEAD_BYTES);
        waiting.bytes += bytes;
        waiting.batches.push_back((batch, oneshot::channel().0));
    }

    #[test]
    fn an_entry_takes_what_waits_up_to_its_size() {
        let queue = AppendQueue::new(1000, 100, Duration::from_secs(1));
        for bytes in [40, 50, 60, 500] {
            push(&queue, bytes);
        }
        assert_eq!(queue.take().len(), 2);
        assert_eq!(queue.take().len(), 1);
        assert_eq!(queue.take().len(), 1, "a batch above the size goes alone");
        assert!(queue.take().is_empty());
        assert_eq!(queue.waiting.lock().bytes, 0);
    }

    #[test]
    fn an_entry_is_bounded_by_what_it_decompresses_to() {
        let queue = AppendQueue::new(1000, 1000, Duration::from_secs(1));
        for raw_bytes in [ENTRY_RAW_BYTES_MAX - 1, 1, 1, u64::MAX] {
            push(&queue, 40);
            queue.waiting.lock().batches.back_mut().unwrap().0.raw_bytes = raw_bytes;
        }
        assert_eq!([queue.take().len(), queue.take().len(), queue.take().len()], [2, 1, 1]);
    }

    #[test]
    fn the_log_is_ahead_by_what_the_head_has_not_taken() {
        let consumed = watch::Sender::new(4);
        let leads = watch::Sender::new(Leadership { is_leader: true, ..Leadership::default() });
        let budget = Arc::new(Budget::new(1));
        let mut head = AheadOf::new(consumed.subscribe(), budget, leads.subscribe());
        head.push(5, AHEAD_BYTES_MAX - 1);
        assert!(!head.is_too_far());
        head.push(7, 1);
        assert!(head.is_too_far());
        consumed.send_replace(6);
        assert!(!head.is_too_far());
        // A head that is rebuilt goes back.
        consumed.send_replace(4);
        assert!(!head.is_too_far());
        consumed.send_replace(7);
        assert!(!head.is_too_far());
        assert_eq!(head.bytes, 0);
        head.push(9, AHEAD_BYTES_MAX);
        assert!(head.is_too_far());
        leads.send_replace(Leadership::default());
        head.follow_leadership();
        assert!(!head.is_too_far(), "a follower has no head to wait for");
    }

    #[tokio::test]
    async fn a_full_queue_answers_with_a_hint() {
        let queue = AppendQueue::new(100, 100, Duration::from_secs(3));
        push(&queue, 90);
        match queue.append(batch(20)).await {
            Err(IngesterError::QueueFull { retry_after, .. }) => {
                assert_eq!(retry_after, Duration::from_secs(3));
            }
            other => panic!("{other:?}"),
        }
        queue.close();
        assert!(matches!(queue.append(batch(1)).await, Err(IngesterError::Stopping)));
    }
}
