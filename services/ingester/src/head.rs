//! The head of a shard: its recent spans in memory, ordered by log index, cut at any index.
//!
//! The head is a consumer of the committed log, from the watermark on. It is a row of segments: at
//! most one is active and takes new entries, the older ones are sealed and on their way into the
//! bucket. Inside a segment every tenant has one indexed table, and borders that say how many of its
//! rows belong to the log up to an index.

mod segment;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clew_model::{TenantId, TraceId};
use clew_proto::shard::v1::{Batch, LogEntry};
use clew_raft::{CommittedEntry, LogId};
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use tokio::sync::watch;
use zstd::bulk::Decompressor;

pub(crate) use self::segment::{Segment, TenantTable};
use crate::IngesterError;
use crate::metrics::ShardMetrics;
use crate::split::RecentFlushes;

/// The largest batch after decompression; the distributor sends far smaller ones.
const BATCH_BYTES_MAX: u64 = 256 << 20;

/// Memory of all heads of a process.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Budget {
        Budget { used: AtomicUsize::new(0), max }
    }

    /// Bytes in use and the bound, if the bound is reached.
    pub(crate) fn exceeded(&self) -> Option<(usize, usize)> {
        let used = self.used.load(Ordering::Relaxed);
        (used >= self.max).then_some((used, self.max))
    }

    /// Whether the reserve above the bound is used up as well. It is for entries that were on their
    /// way into the log when the bound was reached: reads wait for them, so they have to be taken.
    pub(crate) fn exhausted(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.max.saturating_add(self.max / 4)
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Head {
    segments: RwLock<Segments>,
    /// Held while an entry is taken, so that a segment ends between two entries. Locked before
    /// `segments`.
    turn: Mutex<Stretch>,
    /// Locked before `turn`.
    unpack: Mutex<Unpack>,
    consumed: watch::Sender<u64>,
    flushed: watch::Sender<u64>,
    budget: Arc<Budget>,
    /// What this head has taken from the budget.
    charged: AtomicUsize,
    /// Goes into hash tables, so that senders cannot aim at their buckets.
    hash_seed: u64,
}

/// Names what lies between two resets of a head. Work that was begun before a reset may still run
/// behind it, and must not touch what came after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stretch(u64);

#[derive(Debug)]
struct Segments {
    /// Everything up to here was in registered blocks when the oldest segment began.
    from: u64,
    sealed: VecDeque<Arc<Segment>>,
    active: Arc<Segment>,
}

/// What entries are taken with.
#[derive(Debug, Clone)]
pub(crate) struct Intake {
    /// Tells which traces may have spans in earlier flushes.
    pub(crate) recent: Arc<RecentFlushes>,
    /// The time on the monotonic clock.
    pub(crate) now: Duration,
    /// Where spans are counted.
    pub(crate) metrics: ShardMetrics,
}

/// The head's answer to "what of the log do you hold beyond W".
#[derive(Debug)]
pub(crate) enum Slice {
    /// One tenant's tables with the rows that count.
    Tables(Vec<(Arc<TenantTable>, u32)>),
    /// W is before what the head holds: it has been flushed up to here.
    FlushedThrough(u64),
    /// W lies inside a segment: the catalog went on without this head, which has to be rebuilt.
    Misaligned,
    /// The head has not consumed the log up to U, or was rebuilt and has not done so again.
    Behind,
}

impl Head {
    pub(crate) fn new(budget: Arc<Budget>, hash_seed: u64) -> Head {
        Head {
            segments: RwLock::new(Segments {
                from: 0,
                sealed: VecDeque::new(),
                active: Arc::new(Segment::new(0)),
            }),
            consumed: watch::Sender::new(0),
            flushed: watch::Sender::new(0),
            turn: Mutex::default(),
            unpack: Mutex::default(),
            budget,
            charged: AtomicUsize::new(0),
            hash_seed,
        }
    }

    /// Drops everything and starts again behind `watermark`. May wait until an entry is taken.
    pub(crate) fn reset(&self, watermark: u64) -> Stretch {
        let mut turn = self.turn.lock();
        turn.0 += 1;
        let mut segments = self.segments.write();
        segments.from = watermark;
        segments.sealed.clear();
        segments.active = Arc::new(Segment::new(watermark));
        self.charge(&segments);
        // Told under the lock: a reader that finds the new segments must not find the old index.
        self.consumed.send_replace(watermark);
        self.flushed.send_replace(watermark);
        *turn
    }

    /// The log index up to which everything is in blocks or here.
    pub(crate) fn consumed(&self) -> watch::Receiver<u64> {
        self.consumed.subscribe()
    }

    /// The log index up to which everything has left the head for registered blocks.
    pub(crate) fn flushed(&self) -> watch::Receiver<u64> {
        self.flushed.subscribe()
    }

    /// Takes committed entries in order, until `is_full` says so of the active segment or the head
    /// was reset since `stretch` began. Entries that hold no data only move the index.
    pub(crate) fn consume(
        &self,
        stretch: Stretch,
        entries: Vec<CommittedEntry>,
        intake: &Intake,
        is_full: impl Fn(&Segment) -> bool,
    ) {
        // Who consumes an earlier stretch ends at its next entry.
        let mut unpack = self.unpack.lock();
        for entry in entries {
            let turn = self.turn.lock();
            if *turn != stretch {
                return;
            }
            let active = self.take_entry(entry, intake, &mut unpack);
            drop(turn);
            if is_full(&active) {
                break;
            }
        }
        self.charge(&self.segments.read());
    }

    fn take_entry(
        &self,
        entry: CommittedEntry,
        intake: &Intake,
        unpack: &mut Unpack,
    ) -> Arc<Segment> {
        let (active, older) = {
            let segments = self.segments.read();
            (segments.active.clone(), segments.sealed.iter().cloned().collect::<Vec<_>>())
        };
        let log_id = entry.log_id;
        if let Some(data) = entry.data {
            match LogEntry::decode(data) {
                Ok(decoded) => {
                    for batch in decoded.batches {
                        let into = Destination {
                            hash_seed: self.hash_seed,
                            active: &active,
                            older: &older,
                            recent: &intake.recent,
                        };
                        let taken = take_batch(&into, &batch, unpack);
                        note(taken, log_id, &intake.metrics);
                    }
                }
                Err(error) => damaged(log_id, &error.to_string(), &intake.metrics),
            }
            active.close_entry(log_id, intake.now);
        }
        self.consumed.send_replace(log_id.index);
        active
    }

    /// Ends the active segment at its last entry and begins a new one; nothing if it is empty. May
    /// wait until an entry is taken.
    pub(crate) fn seal(&self) -> Option<LogId> {
        let _turn = self.turn.lock();
        let mut segments = self.segments.write();
        let through = segments.active.last_entry()?;
        let sealed = std::mem::replace(&mut segments.active, Arc::new(Segment::new(through.index)));
        segments.sealed.push_back(sealed);
        Some(through)
    }

    /// The oldest sealed segment: the next to be flushed.
    pub(crate) fn oldest_sealed(&self) -> Option<Arc<Segment>> {
        self.segments.read().sealed.front().cloned()
    }

    /// Where the oldest segment begins in the log, and when it took its first entry.
    pub(crate) fn oldest(&self) -> (u64, Option<Duration>) {
        let segments = self.segments.read();
        let oldest = segments.sealed.front().unwrap_or(&segments.active);
        (oldest.from, oldest.first_at())
    }

    pub(crate) fn sealed_count(&self) -> usize {
        self.segments.read().sealed.len()
    }

    pub(crate) fn active(&self) -> Arc<Segment> {
        self.segments.read().active.clone()
    }

    /// Drops the sealed segments that end at or below `through`: they are in registered blocks.
    pub(crate) fn drop_through(&self, through: u64) {
        let mut segments = self.segments.write();
        while let Some(oldest) = segments.sealed.front() {
            match oldest.last_entry() {
                Some(last) if last.index <= through => {
                    segments.from = last.index;
                    segments.sealed.pop_front();
                }
                _ => break,
            }
        }
        let from = segments.from;
        self.charge(&segments);
        drop(segments);
        self.flushed.send_replace(from);
    }

    /// What the head holds of a tenant in (watermark, upto].
    pub(crate) fn slice(&self, tenant: &TenantId, watermark: u64, upto: u64) -> Slice {
        let segments = self.segments.read();
        if *self.consumed.borrow() < upto {
            return Slice::Behind;
        }
        if watermark < segments.from {
            return Slice::FlushedThrough(segments.from);
        }
        let mut tables = Vec::new();
        for segment in segments.sealed.iter().chain([&segments.active]) {
            if segment.last_entry().is_none_or(|last| last.index <= watermark) {
                continue;
            }
            if segment.from < watermark {
                return Slice::Misaligned;
            }
            if let Some(table) = segment.tenant(tenant) {
                let rows = table.rows_through(upto);
                if rows > 0 {
                    tables.push((table, rows));
                }
            }
        }
        Slice::Tables(tables)
    }

    /// Settles the account with the budget.
    fn charge(&self, segments: &Segments) {
        let all = segments.sealed.iter().chain([&segments.active]);
        let bytes: usize = all.map(|segment| segment.memory_bytes()).sum();
        let before = self.charged.swap(bytes, Ordering::Relaxed);
        if bytes >= before {
            self.budget.used.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            self.budget.used.fetch_sub(before - bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.charged.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Reads the bytes of a log entry as a head would, into tables of its own, and gives how many spans
/// and how many damaged batches are in it. Never fails: whatever is wrong with an entry that was
/// committed, the log behind it has to be read.
pub fn read_entry(data: &Bytes) -> (u64, u64) {
    let metrics = crate::metrics::IngesterMetrics::new(&clew_node::Metrics::new()).shard;
    let head = Head::new(Arc::new(Budget::new(usize::MAX)), 0);
    let recent = Arc::new(RecentFlushes::new(Duration::ZERO));
    let log_id = LogId { term: 1, replica: clew_raft::ReplicaId(1), index: 1 };
    let entry = CommittedEntry { log_id, data: Some(data.clone()) };
    let intake = Intake { recent, now: Duration::ZERO, metrics: metrics.clone() };
    head.consume(head.reset(0), vec![entry], &intake, |_| false);
    (metrics.consumed_spans.get(), metrics.damaged_batches.get())
}

/// What decompresses batches, once it was needed. One context for all: in a cluster batches are small, and
/// making it costs as much as using it.
#[derive(Default)]
struct Unpack(Option<Decompressor<'static>>);

impl std::fmt::Debug for Unpack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Unpack").field(&self.0.is_some()).finish()
    }
}

/// Where a batch goes, and what else its traces may be in.
struct Destination<'a> {
    hash_seed: u64,
    active: &'a Segment,
    older: &'a [Arc<Segment>],
    recent: &'a RecentFlushes,
}

/// What became of one batch.
struct Taken {
    spans: u64,
    split: u64,
    rejected: u32,
}

fn take_batch(
    into: &Destination<'_>,
    batch: &Batch,
    unpack: &mut Unpack,
) -> Result<Taken, IngesterError> {
    let decode = |reason: String| IngesterError::Decode { what: "a batch of the log", reason };
    let tenant = TenantId::parse(&batch.tenant).map_err(|error| decode(error.to_string()))?;
    if batch.raw_bytes > BATCH_BYTES_MAX {
        return Err(decode(format!("{} bytes decompressed", batch.raw_bytes)));
    }
    let capacity = usize::try_from(batch.raw_bytes).unwrap_or(usize::MAX);
    let unpack = match &mut unpack.0 {
        Some(unpack) => unpack,
        unmade => unmade.insert(Decompressor::new().map_err(|error| decode(error.to_string()))?),
    };
    let raw =
        unpack.decompress(&batch.traces, capacity).map_err(|error| decode(error.to_string()))?;
    let table = into.active.tenant_or_new(&tenant, into.hash_seed);
    let mut spans = table.table.write();
    let pushed = spans.push(&Bytes::from(raw))?;
    let mut split = 0;
    for trace in pushed.new_traces {
        let Some(id) = spans.trace_id(trace) else { continue };
        if batch.fallback || lies_elsewhere(&tenant, &id, into.older, into.recent) {
            spans.mark_split(trace);
            split += 1;
        }
    }
    Ok(Taken {
        spans: u64::from(pushed.rows.end - pushed.rows.start),
        split,
        rejected: pushed.rejected,
    })
}

/// Whether the trace may have spans in a sealed segment or an earlier flush.
///
/// Sealed segments are looked at first: a flush adds its filter before its segment is dropped, so a
/// trace that moves from one to the other in between is seen in at least one of them.
fn lies_elsewhere(
    tenant: &TenantId,
    id: &TraceId,
    older: &[Arc<Segment>],
    recent: &RecentFlushes,
) -> bool {
    older.iter().any(|segment| segment.holds(tenant, id)) || recent.may_hold(tenant, id)
}

fn note(taken: Result<Taken, IngesterError>, log_id: LogId, metrics: &ShardMetrics) {
    match taken {
        Ok(taken) => {
            metrics.consumed_spans.inc_by(taken.spans);
            metrics.split_traces.inc_by(taken.split);
            if taken.rejected > 0 {
                damaged(log_id, &format!("{} damaged spans", taken.rejected), metrics);
            }
        }
        Err(error) => damaged(log_id, &error.to_string(), metrics),
    }
}

/// A committed entry was checked before it was proposed, so this is a bug or a bad disk.
fn damaged(log_id: LogId, reason: &str, metrics: &ShardMetrics) {
    metrics.damaged_batches.inc();
    tracing::error!(index = log_id.index, reason, "a committed batch cannot be read");
}

#[cfg(test)]
mod tests;
