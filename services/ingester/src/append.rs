//! The group commit: batches that wait become one log entry, one proposal in flight per shard.
//!
//! openraft appends one write at a time per group, so what arrives during an fsync becomes the next
//! entry. The queue is bounded by bytes; a caller that does not fit is told to retry.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_node::Clock;
use clew_proto::shard::v1::{Batch, LogEntry};
use clew_raft::ShardGroup;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{Notify, oneshot};

use crate::IngesterError;
use crate::metrics::ShardMetrics;

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
type Outcome = Result<u64, Arc<clew_raft::Error>>;

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
            let bytes = waiting.bytes + batch.traces.len();
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
            Ok(Err(error)) => Err(IngesterError::Raft((*error).clone())),
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
        clock: &Clock,
        timeout: Duration,
        metrics: &ShardMetrics,
    ) {
        loop {
            let taken = self.take();
            if taken.is_empty() {
                if self.waiting.lock().closed {
                    return;
                }
                self.arrived.notified().await;
                continue;
            }
            let (batches, callers): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
            let entry = Bytes::from(LogEntry { batches }.encode_to_vec());
            metrics.entry_bytes.inc_by(entry.len() as u64);
            crash_point("append::before_log");
            let started = clock.monotonic();
            let outcome = group.append(entry, timeout).await.map_err(Arc::new);
            metrics.append_seconds.observe((clock.monotonic() - started).as_secs_f64());
            crash_point("append::after_log");
            for caller in callers {
                let outcome = match &outcome {
                    Ok(log_id) => Ok(log_id.index),
                    Err(error) => Err(Arc::clone(error)),
                };
                // A caller that went away needs no answer; its batch is in the log all the same.
                let _ = caller.send(outcome);
            }
        }
    }

    /// What goes into the next entry: at least one batch, at most the size of an entry.
    fn take(&self) -> Vec<(Batch, oneshot::Sender<Outcome>)> {
        let mut waiting = self.waiting.lock();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some((batch, _)) = waiting.batches.front() {
            bytes += batch.traces.len();
            if bytes > self.entry_bytes_max && !taken.is_empty() {
                break;
            }
            waiting.bytes -= batch.traces.len();
            taken.extend(waiting.batches.pop_front());
        }
        taken
    }
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
        waiting.bytes += bytes;
        waiting.batches.push_back((batch(bytes), oneshot::channel().0));
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
