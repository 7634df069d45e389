//! One shard while this node hosts a replica of it: follows leadership, feeds the head from the
//! committed log, and decides when the head is sealed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clew_catalog::{Incarnation, LogPoint};
use clew_node::{Deps, Phase, Stop};
use clew_proto::shard::v1::Batch;
use clew_raft::{LogId, ReplicaId, ShardGroup};
use clew_ring::ShardId;
use clew_storage::Bucket;
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::append::{AheadOf, AppendQueue, crash_point};
use crate::head::{Budget, Head, Intake, Segment, Stretch};
use crate::metastore::MetastoreClient;
use crate::metrics::IngesterMetrics;
use crate::split::RecentFlushes;
use crate::{Config, FlushConfig, IngesterError};

/// Log bytes read at once on the way into the head.
const CONSUME_BYTES_MAX: usize = 8 << 20;

/// How often a quiet head looks at its age.
const AGE_CHECK: Duration = Duration::from_secs(1);

/// The pause before leading again, so that a failing step is not repeated in a tight loop.
const LEAD_PAUSE: Duration = Duration::from_millis(100);

/// How long somebody who asked for a flush waits for it. It goes on all the same.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// Sealed segments that may wait for the bucket before a segment's age does not end it any more:
/// while the bucket is away, segments grow rather than pile up.
const SEALED_MAX: usize = 4;

/// A segment with less than this part of `flush.bytes_max` may be a small one.
const SMALL_PART: usize = 5;

/// Tenants in a segment that end it, so that the list of an object's blocks stays well below what a
/// command of the catalog can hold.
const TENANTS_MAX: usize = 8_192;

/// What a shard is built from.
pub(crate) struct ShardParts {
    pub(crate) shard: ShardId,
    pub(crate) incarnation: Incarnation,
    pub(crate) group: ShardGroup,
    pub(crate) config: Arc<Config>,
    pub(crate) deps: Deps,
    pub(crate) bucket: Bucket,
    pub(crate) metastore: MetastoreClient,
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: IngesterMetrics,
}

/// One shard hosted here.
pub(crate) struct Shard {
    pub(crate) shard: ShardId,
    pub(crate) incarnation: Incarnation,
    pub(crate) group: ShardGroup,
    pub(crate) config: Arc<Config>,
    pub(crate) deps: Deps,
    pub(crate) bucket: Bucket,
    pub(crate) metastore: MetastoreClient,
    pub(crate) head: Arc<Head>,
    pub(crate) recent: Arc<RecentFlushes>,
    pub(crate) metrics: IngesterMetrics,
    budget: Arc<Budget>,
    queue: AppendQueue,
    /// Whether this node leads and the head stands at the catalog's watermark or beyond.
    leading: watch::Sender<bool>,
    /// Names the time since the head was last rebuilt; never 0 while it can be read.
    stretch: AtomicU64,
    pub(crate) sealed: Notify,
    rebuild: Notify,
    gauges: Gauges,
    waiting: Mutex<Waiting>,
}

struct Gauges {
    watermark: IntGauge,
    consumed: IntGauge,
    leading: IntGauge,
    unflushed_age: IntGauge,
}

/// Why a stretch of leading ended.
pub(crate) enum Ended {
    /// Another replica leads, or the catalog went on without us: begin again.
    Again,
    /// The replica or the process stops.
    Stopped,
}

impl Shard {
    pub(crate) fn new(parts: ShardParts) -> Arc<Shard> {
        let ShardParts { shard, incarnation, group, config, deps, bucket, .. } = parts;
        let (metastore, budget, metrics) = (parts.metastore, parts.budget, parts.metrics);
        let label = shard.0.to_string();
        let gauges = Gauges {
            watermark: metrics.watermark.with_label_values(&[&label]),
            consumed: metrics.consumed.with_label_values(&[&label]),
            leading: metrics.leading.with_label_values(&[&label]),
            unflushed_age: metrics.unflushed_age.with_label_values(&[&label]),
        };
        let queue = AppendQueue::new(
            config.append_queue_bytes_max.as_usize(),
            config.entry_bytes_max.as_usize(),
            config.retry_after.0,
        );
        Arc::new(Shard {
            head: Arc::new(Head::new(budget.clone(), deps.rng.next_u64())),
            recent: Arc::new(RecentFlushes::new(config.trace_horizon.0)),
            leading: watch::Sender::new(false),
            stretch: AtomicU64::new(0),
            sealed: Notify::new(),
            rebuild: Notify::new(),
            shard,
            incarnation,
            group,
            config,
            deps,
            bucket,
            metastore,
            metrics,
            budget,
            queue,
            gauges,
            waiting: Mutex::default(),
        })
    }

    /// Appends one batch to the shard's log; completes when it is committed.
    pub(crate) async fn append(&self, batch: Batch) -> Result<u64, IngesterError> {
        self.check_leads()?;
        if let Some((bytes, bytes_max)) = self.budget.exceeded() {
            let retry_after = self.config.retry_after.0;
            return Err(IngesterError::HeadFull { bytes, bytes_max, retry_after });
        }
        self.queue.append(batch).await
    }

    /// Completes once this node leads the shard with its head ready.
    pub(crate) async fn led(&self) -> Result<(), IngesterError> {
        let mut leading = self.leading.subscribe();
        let led = leading.wait_for(|leading| *leading).await;
        led.map(|_| ()).map_err(|_| IngesterError::Stopping)
    }

    /// Completes once this node leads with its head ready, or another one leads.
    pub(crate) async fn serves(&self) -> Result<(), IngesterError> {
        let mut leadership = self.group.leadership();
        let elsewhere = leadership.wait_for(|now| now.leader.is_some() && !now.is_leader);
        tokio::select! {
            biased;
            led = self.led() => led,
            other = elsewhere => other.map(|_| ()).map_err(|_| IngesterError::Stopping),
        }
    }

    /// As [`Shard::led`], for as long as a read may wait; at once if another node leads.
    pub(crate) async fn ready(&self) -> Result<(), IngesterError> {
        if self.is_leading() {
            return Ok(());
        }
        let mut leadership = self.group.leadership();
        let elsewhere = leadership.wait_for(|now| now.leader.is_some() && !now.is_leader);
        let led = async {
            tokio::select! {
                biased;
                led = self.led() => led,
                _ = elsewhere => Err(self.not_leading()),
            }
        };
        let led = self.deps.clock.timeout(self.config.read_timeout.0, led).await;
        led.unwrap_or(Err(IngesterError::TimedOut("the shard's leader")))
    }

    /// Refuses what only a leader can do, if another node is known to lead.
    fn check_leads(&self) -> Result<(), IngesterError> {
        let leadership = *self.group.leadership().borrow();
        match leadership.leader {
            Some(_) if !leadership.is_leader => Err(self.not_leading()),
            _ => Ok(()),
        }
    }

    fn not_leading(&self) -> IngesterError {
        let leader = self.group.leadership().borrow().leader;
        let members = self.group.members().voters;
        let leader = leader.and_then(|id| Some((id, members.get(&id)?.clone())));
        clew_raft::Error::NotLeader { group: self.group.id(), leader }.into()
    }

    /// Names the head that answers now; another one may have its borders elsewhere.
    pub(crate) fn stretch(&self) -> u64 {
        self.stretch.load(Ordering::Acquire)
    }

    /// Whether this node leads the shard with its head ready.
    pub(crate) fn is_leading(&self) -> bool {
        *self.leading.borrow()
    }

    /// Completes once the head has consumed the log up to `index`.
    pub(crate) async fn consumed(&self, index: u64) -> Result<(), IngesterError> {
        let mut consumed = self.head.consumed();
        let reached = consumed.wait_for(|at| *at >= index);
        match self.deps.clock.timeout(self.config.read_timeout.0, reached).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) => Err(IngesterError::Stopping),
            None => Err(IngesterError::TimedOut("the head to catch up")),
        }
    }

    /// Seals what the head holds and waits until it is registered, within reason.
    pub(crate) async fn flush_now(&self) -> Result<u64, IngesterError> {
        let flushed = self.deps.clock.timeout(FLUSH_TIMEOUT, self.flush_whole()).await;
        flushed.unwrap_or(Err(IngesterError::TimedOut("the bucket")))
    }

    async fn flush_whole(&self) -> Result<u64, IngesterError> {
        loop {
            self.ready().await?;
            let stretch = self.stretch.load(Ordering::Acquire);
            self.consumed(self.group.read_index().await?).await?;
            let head = self.head.clone();
            let through = match self.deps.tasks.compute(move || head.seal()).await? {
                Some(through) => through.index,
                // Nothing new: wait for what is on its way.
                None => self.head.active().from,
            };
            self.sealed.notify_one();
            let mut flushed = self.head.flushed();
            loop {
                if *flushed.borrow_and_update() >= through {
                    return Ok(through);
                }
                // A head that was built anew has not sealed what this one had.
                if self.stretch.load(Ordering::Acquire) != stretch {
                    break;
                }
                flushed.changed().await.map_err(|_| IngesterError::Stopping)?;
            }
        }
    }

    /// Refuses new batches; what waits is still appended.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Moves batches into the log until closed.
    pub(crate) async fn run_appends(self: Arc<Shard>) {
        let timeout = self.config.append_timeout.0;
        let leadership = self.group.leadership();
        let head = AheadOf::new(self.head.consumed(), self.budget.clone(), leadership);
        self.queue.run(&self.group, head, &self.deps, timeout, &self.metrics.shard).await;
    }

    /// Leads the shard whenever this replica is its leader, until `stop`.
    pub(crate) async fn run_head(self: Arc<Shard>, stop: Stop) {
        loop {
            let mut leadership = self.group.leadership();
            match stop.or(leadership.wait_for(|state| state.is_leader)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
            let ended = stop.or(self.lead()).await;
            self.leading.send_replace(false);
            self.gauges.leading.set(0);
            if !self.group.leadership().borrow().is_leader {
                // A follower keeps the log and nothing else.
                self.head.reset(self.group.watermark().map_or(0, |id| id.index));
                *self.waiting.lock() = Waiting::default();
                self.gauges.unflushed_age.set(0);
            }
            match ended {
                Some(Ok(Ended::Again)) => {}
                Some(Ok(Ended::Stopped)) => {
                    // What nobody will read must not be acknowledged, nor fill the disk.
                    self.close();
                    return;
                }
                None => return,
                Some(Err(IngesterError::Raft(error @ clew_raft::Error::NotLeader { .. }))) => {
                    tracing::debug!(shard = self.shard.0, %error, "leadership was lost again");
                }
                Some(Err(error)) => {
                    tracing::warn!(shard = self.shard.0, %error, "leading the shard failed");
                }
            }
            if stop.or(self.deps.clock.sleep(LEAD_PAUSE)).await.is_none() {
                return;
            }
        }
    }

    /// Asks for the head to be rebuilt from the catalog's watermark.
    pub(crate) fn rebuild(&self) {
        self.rebuild.notify_one();
    }

    /// One stretch of leading: catches up with the catalog, then feeds and flushes the head.
    async fn lead(&self) -> Result<Ended, IngesterError> {
        // What was committed before is applied here then: the entry at the watermark among it.
        self.group.read_index().await?;
        let watermark = match self.agree().await? {
            Ok(watermark) => watermark,
            Err(ended) => return Ok(ended),
        };
        self.recent.reset();
        self.stretch.store(self.deps.rng.next_u64().max(1), Ordering::Release);
        let stretch = self.head.reset(watermark);
        self.gauges.watermark.set(as_gauge(watermark));
        let end = self.group.read_index().await?;
        tracing::info!(
            shard = self.shard.0,
            incarnation = self.incarnation.0,
            watermark,
            end,
            "leading the shard"
        );
        let mut leadership = self.group.leadership();
        tokio::select! {
            biased;
            lost = leadership.wait_for(|state| !state.is_leader) => {
                Ok(if lost.is_ok() { Ended::Again } else { Ended::Stopped })
            }
            () = self.rebuild.notified() => Ok(Ended::Again),
            ended = self.feed_forever(stretch, end) => ended,
            ended = self.flush_forever(watermark) => ended,
        }
    }

    /// Feeds the head; announces it as ready once it has everything up to `end`.
    async fn feed_forever(&self, stretch: Stretch, end: u64) -> Result<Ended, IngesterError> {
        let mut committed = self.group.committed();
        loop {
            if let Some(ended) = self.feed(stretch).await? {
                return Ok(ended);
            }
            if *self.head.consumed().borrow() >= end && !self.is_leading() {
                self.leading.send_replace(true);
                self.gauges.leading.set(1);
            }
            self.seal_if_due();
            if let Some(Err(_)) = self.deps.clock.timeout(AGE_CHECK, committed.changed()).await {
                return Ok(Ended::Stopped);
            }
        }
    }

    /// Takes what is committed and not yet consumed into the head.
    async fn feed(&self, stretch: Stretch) -> Result<Option<Ended>, IngesterError> {
        loop {
            let from = *self.head.consumed().borrow();
            if *self.group.committed().borrow() <= from {
                return Ok(None);
            }
            self.wait_for_room().await;
            let entries = match self.group.read_committed(from, CONSUME_BYTES_MAX).await {
                Ok(entries) => entries,
                // The log is purged only behind a registered flush: start again from there.
                Err(clew_raft::Error::Purged { .. }) => return Ok(Some(Ended::Again)),
                Err(clew_raft::Error::Stopped { .. }) => return Ok(Some(Ended::Stopped)),
                Err(error) => return Err(error.into()),
            };
            if entries.is_empty() {
                return Ok(None);
            }
            let (head, config) = (self.head.clone(), self.config.clone());
            let intake = Intake {
                recent: self.recent.clone(),
                now: self.deps.clock.monotonic(),
                metrics: self.metrics.shard.clone(),
            };
            let is_full = move |active: &Segment| is_full(active, &config.flush);
            // It may run on when this future is dropped: the stretch keeps it from a later head.
            let cpu = self.deps.cpu.clone();
            let work = move || {
                crash_point("head::consume");
                let _cpu = cpu.measure(Phase::Index);
                head.consume(stretch, entries, &intake, is_full);
            };
            self.deps.tasks.compute(work).await?;
            self.gauges.consumed.set(as_gauge(*self.head.consumed().borrow()));
            self.metrics.head_bytes.set(i64::try_from(self.budget.used()).unwrap_or(i64::MAX));
            self.seal_if_due();
        }
    }

    /// A log that is longer than memory is consumed as fast as it can be flushed.
    async fn wait_for_room(&self) {
        let mut flushed = self.head.flushed();
        while self.head.sealed_count() > 0 && self.budget.exhausted() {
            self.note_age();
            // The sender lives as long as the head.
            if let Some(Err(_)) = self.deps.clock.timeout(AGE_CHECK, flushed.changed()).await {
                return;
            }
        }
    }

    /// Says how long spans have waited to be flushed.
    fn note_age(&self) {
        let (from, first_at) = self.head.oldest();
        let now = self.deps.clock.monotonic();
        let since = self.waiting.lock().since(from, first_at);
        let age = since.map_or(0, |since| now.saturating_sub(since).as_secs());
        self.gauges.unflushed_age.set(as_gauge(age));
    }

    fn seal_if_due(&self) {
        self.note_age();
        let active = self.head.active();
        let Some(first_at) = active.first_at() else { return };
        let age = self.deps.clock.monotonic().saturating_sub(first_at);
        let flush = &self.config.flush;
        let sealed = self.head.sealed_count();
        let size = || (active.spans(), active.memory_bytes());
        let aged = is_aged(age, size, flush) && sealed < SEALED_MAX;
        // Other shards may hold most of the memory; each gives back what it has.
        let crowded = sealed == 0 && self.budget.exceeded().is_some();
        if (aged || crowded || is_full(&active, flush)) && self.head.seal().is_some() {
            self.sealed.notify_one();
        }
    }

    /// Nothing is registered any more: an operator has to decide.
    pub(crate) fn alarm(&self, reason: &str) {
        self.metrics.shard.registering_stopped.inc();
        tracing::error!(
            shard = self.shard.0,
            incarnation = self.incarnation.0,
            reason,
            "the shard stops"
        );
    }

    pub(crate) fn note_watermark(&self, watermark: u64) {
        self.gauges.watermark.set(as_gauge(watermark));
        self.metrics.head_bytes.set(i64::try_from(self.budget.used()).unwrap_or(i64::MAX));
    }
}

/// Whether a segment has reached the size of a flush.
fn is_full(segment: &Segment, flush: &FlushConfig) -> bool {
    segment.spans() >= u64::from(flush.spans_max)
        || segment.memory_bytes() >= flush.bytes_max.as_usize()
        || segment.tenant_count() >= TENANTS_MAX
}

/// Whether a segment of this age is to be flushed; `size` gives its spans and bytes. A small one waits for
/// more: what it is flushed into would be merged twice, and until then be one more block that every search
/// looks into.
fn is_aged(age: Duration, size: impl FnOnce() -> (u64, usize), flush: &FlushConfig) -> bool {
    let is_large = |(spans, bytes): (u64, usize)| {
        spans >= u64::from(flush.spans_min) || bytes >= flush.bytes_max.as_usize() / SMALL_PART
    };
    age >= flush.age_max.0 || (age >= flush.age_target.0 && is_large(size()))
}

/// Since when spans wait to be flushed. A head that is built anew, because no block could be made of it,
/// say, makes them no younger.
#[derive(Debug, Default)]
struct Waiting(Option<(u64, Duration)>);

impl Waiting {
    /// The oldest segment begins behind log index `from` and took its first spans at `first_at`.
    fn since(&mut self, from: u64, first_at: Option<Duration>) -> Option<Duration> {
        if self.0.is_none_or(|(known, _)| known != from) {
            self.0 = first_at.map(|at| (from, at));
        }
        self.0.map(|(_, since)| since)
    }
}

fn as_gauge(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// A position of the catalog as one of the log.
pub(crate) fn log_id(point: LogPoint) -> LogId {
    LogId { term: point.term, replica: ReplicaId(point.leader), index: point.index }
}

/// A position of the log as one of the catalog.
pub(crate) fn log_point(id: LogId) -> LogPoint {
    LogPoint { term: id.term, leader: id.replica.0, index: id.index }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_segment_waits_longer() {
        let mut flush = FlushConfig::default();
        let (target, max) = (flush.age_target.0, flush.age_max.0);
        let (spans, bytes) = (u64::from(flush.spans_min), flush.bytes_max.as_usize() / SMALL_PART);
        let second = Duration::from_secs(1);
        assert!(!is_aged(target - second, || (spans, bytes), &flush), "large and young");
        assert!(is_aged(target, || (spans, 0), &flush), "many spans");
        assert!(is_aged(target, || (1, bytes), &flush), "large spans");
        assert!(!is_aged(max - second, || (spans - 1, bytes - 1), &flush), "small");
        assert!(is_aged(max, || (1, 1), &flush), "small and old");
        flush.age_max = flush.age_target;
        assert!(is_aged(target, || (1, 1), &flush), "the limit holds for all");
    }

    #[test]
    fn spans_wait_from_the_first_entry_until_their_flush() {
        let at = |seconds| Some(Duration::from_secs(seconds));
        let mut waiting = Waiting::default();
        assert_eq!(waiting.since(5, None), None, "a quiet log, whatever elections write to it");
        assert_eq!(waiting.since(5, at(10)), at(10));
        // The head was built anew from the same place.
        assert_eq!(waiting.since(5, None), at(10));
        assert_eq!(waiting.since(5, at(70)), at(10));
        // The oldest segment is flushed; the next took its first entry later.
        assert_eq!(waiting.since(9, at(60)), at(60));
        assert_eq!(waiting.since(12, None), None);
    }
}
