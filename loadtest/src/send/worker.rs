//! One sender: takes requests as they become due and repeats each until its fate is known.

use std::sync::Arc;
use std::time::Duration;

use clew_node::{Clock, Rng};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::feed::Batch;
use super::probe::Probes;
use crate::ledger::Journal;
use crate::measure::Stats;
use crate::target::{Otlp, Sent};

/// The first pause before an attempt is repeated; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What senders share.
pub(super) struct Senders {
    pub(super) otlp: Arc<Otlp>,
    pub(super) journal: Arc<Mutex<Journal>>,
    pub(super) stats: Arc<Stats>,
    pub(super) probes: Arc<Probes>,
    pub(super) batches: AsyncMutex<mpsc::Receiver<Batch>>,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    /// When the schedule began, by the clock.
    pub(super) start: Duration,
    /// How long a request is repeated before its fate is left unknown.
    pub(super) retry_for: Duration,
}

impl Senders {
    /// Sends over connection `line` until there is nothing more to send.
    pub(super) async fn work(&self, line: usize) {
        loop {
            let batch = self.batches.lock().await.recv().await;
            let Some(batch) = batch else { return };
            let mut lag = Duration::ZERO;
            if let Some(due) = batch.due {
                let now = self.clock.monotonic().saturating_sub(self.start);
                match due.checked_sub(now) {
                    Some(wait) => self.clock.sleep(wait).await,
                    None => lag = now - due,
                }
            }
            let acked = self.deliver(line, &batch, lag).await;
            self.journal.lock().end(batch.wave, batch.request, acked);
        }
    }

    /// Whether every span of the request was acknowledged in the end.
    async fn deliver(&self, line: usize, batch: &Batch, lag: Duration) -> bool {
        let first = self.clock.monotonic();
        let mut pause = PAUSE_MIN;
        // Once an attempt failed without an answer, a later refusal does not undo it: the fate of
        // the request is unknown in every case but an ack.
        loop {
            let sent = self.clock.monotonic();
            let after = match self.otlp.send(line, batch.tenant, batch.body.clone()).await {
                Sent::Acked => {
                    let now = self.clock.monotonic();
                    self.stats.acked(batch.spans, batch.bytes, now.saturating_sub(sent), lag);
                    self.probes.offer(batch, now);
                    return true;
                }
                Sent::Rejected { spans, reason } => {
                    self.stats.rejected(spans, &reason);
                    return false;
                }
                Sent::Refused { reason } => {
                    self.stats.unknown(&reason);
                    return false;
                }
                Sent::Retry { after, reason } => {
                    self.stats.put_off(after.is_some(), &reason);
                    after
                }
                Sent::Unanswered { reason } => {
                    self.stats.unanswered(&reason);
                    None
                }
            };
            let spent = self.clock.monotonic().saturating_sub(first);
            if spent >= self.retry_for {
                self.stats.given_up();
                return false;
            }
            self.stats.retried();
            self.clock.sleep(after.unwrap_or_else(|| self.jittered(pause))).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Between half of `pause` and all of it, so that senders do not come back together.
    fn jittered(&self, pause: Duration) -> Duration {
        let half = pause / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.rng.below(nanos))
    }
}
