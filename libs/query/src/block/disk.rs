//! Sections of blocks on local disk, below the cache in memory: a process that starts again finds there
//! what it had read of the bucket, and what does not fit memory is read from there.
//!
//! - Only bytes that a block's own checksums have verified are written, so the bucket's damage does not
//!   live on here. The cache's checksum then tells damage of the disk, which is a miss.
//! - Which sections stay is the law of `moka` (TinyLFU): a search over everything does not drive out what
//!   is read again and again. A section counts with the space its file takes.
//! - Nothing depends on it. A full, slow or broken disk costs reads of the bucket.
//! - Sections are removed when they are old, because what was deleted from the bucket must not be found
//!   here for ever.
//! - The disk is touched by tasks with limits of their own, never by async threads.

mod files;

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clew_model::UnixNanos;
use clew_node::{Clock, Deps, Metrics, Stop, Tasks};
use moka::notification::RemovalCause;
use moka::sync::Cache;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge};

use self::files::{Files, Found, Unread, file_bytes, name_of};

/// Reads of the disk at the same time.
const READS_AT_ONCE: usize = 8;

/// Writes at the same time.
const WRITES_AT_ONCE: usize = 2;

/// A disk that takes longer is slower than the bucket.
const READ_TIME_MAX: Duration = Duration::from_secs(1);

/// Bytes that wait to be written; what does not fit is not kept.
const WAITING_BYTES_MAX: u64 = 32 << 20;

/// How long the disk is left alone after it failed or took too long.
const PAUSE: Duration = Duration::from_secs(60);

/// How often old sections are looked for.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(300);

/// Files take whole blocks of the file system, in bytes.
const DISK_BLOCK_BYTES: u64 = 4_096;

/// About the most files. A small one counts with the bytes that make it so, which bounds the memory that
/// the list of them takes.
const FILES_MAX: u64 = 500_000;

/// How often the index is asked at a time to let go of what is too much.
const PASSES_MAX: usize = 1_000;

/// A section may take this part of the whole.
const SECTION_SHARE: u64 = 8;

/// Where the cache is and what it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskCacheOptions {
    /// The folder, used by this process alone.
    pub folder: PathBuf,
    /// The most bytes of files.
    pub bytes_max: u64,
    /// How long a section stays after it was read from the bucket.
    pub age_max: Duration,
}

/// The cache on disk of a process. Cheap to clone.
#[derive(Clone)]
pub struct DiskCache(Arc<Inner>);

struct Inner {
    options: DiskCacheOptions,
    files: Files,
    /// What is kept, by name of the file. A file is written only after its name is in here, and removed
    /// after it is gone from here.
    index: Cache<Arc<str>, Kept>,
    /// Names that the index has let go, with files to be removed.
    doomed: Arc<Mutex<Vec<Arc<str>>>>,
    reads: Tasks,
    writes: Tasks,
    clock: Clock,
    waiting: AtomicU64,
    paused_until: Mutex<Duration>,
    metrics: DiskMetrics,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    weight: u32,
    written_at: UnixNanos,
}

struct DiskMetrics {
    reads: IntCounterVec,
    read_bytes: IntCounter,
    written_bytes: IntCounter,
    unwritten: IntCounterVec,
    bytes: IntGauge,
    files: IntGauge,
}

impl DiskMetrics {
    fn new(metrics: &Metrics) -> DiskMetrics {
        DiskMetrics {
            reads: metrics.counters(
                "clew_querier_disk_cache_reads_total",
                "Sections of blocks looked for on disk, by outcome.",
                &["outcome"],
            ),
            read_bytes: metrics.counter(
                "clew_querier_disk_cache_read_bytes_total",
                "Bytes of block sections read from disk instead of the bucket.",
            ),
            written_bytes: metrics.counter(
                "clew_querier_disk_cache_written_bytes_total",
                "Bytes of block sections written to disk.",
            ),
            unwritten: metrics.counters(
                "clew_querier_disk_cache_unwritten_total",
                "Sections of blocks that were not written to disk, by reason.",
                &["reason"],
            ),
            bytes: metrics
                .gauge("clew_querier_disk_cache_bytes", "Bytes that sections take on disk."),
            files: metrics.gauge("clew_querier_disk_cache_files", "Sections on disk."),
        }
    }

    fn read(&self, outcome: &'static str) {
        self.reads.with_label_values(&[outcome]).inc();
    }

    fn unwritten(&self, reason: &'static str) {
        self.unwritten.with_label_values(&[reason]).inc();
    }
}

impl DiskCache {
    /// Takes the folder with what is in it. Touches the disk, so call it at start-up.
    ///
    /// # Errors
    /// The file system's, also when another process uses the folder.
    pub fn open(options: DiskCacheOptions, deps: &Deps) -> io::Result<DiskCache> {
        let files = Files::open(&options.folder)?;
        let doomed = Arc::<Mutex<Vec<Arc<str>>>>::default();
        let let_go = {
            let doomed = Arc::clone(&doomed);
            move |name: Arc<Arc<str>>, _: Kept, cause: RemovalCause| {
                // A section that is written again keeps its name.
                if cause != RemovalCause::Replaced {
                    doomed.lock().push((*name).clone());
                }
            }
        };
        let index = Cache::builder()
            .max_capacity(options.bytes_max)
            .weigher(|_: &Arc<str>, kept: &Kept| kept.weight)
            .eviction_listener(let_go)
            .build();
        let inner = Inner {
            files,
            index,
            doomed,
            reads: deps.tasks.limited(READS_AT_ONCE),
            writes: deps.tasks.limited(WRITES_AT_ONCE),
            clock: deps.clock.clone(),
            waiting: AtomicU64::new(0),
            paused_until: Mutex::new(Duration::ZERO),
            metrics: DiskMetrics::new(&deps.metrics),
            options,
        };
        inner.load()?;
        Ok(DiskCache(Arc::new(inner)))
    }

    /// Removes old sections until `stop`.
    pub async fn run(&self, stop: Stop) {
        while stop.or(self.0.clock.sleep(UPKEEP_INTERVAL)).await.is_some() {
            let inner = Arc::clone(&self.0);
            if let Err(error) = self.0.writes.compute(move || inner.remove_old()).await {
                tracing::error!(%error, "old sections were not removed from disk");
            }
        }
    }

    /// The bytes of an object in `range`, if they are here and whole.
    pub(super) async fn get(&self, object: &str, range: &Range<u64>) -> Option<Bytes> {
        let inner = &self.0;
        let name = name_of(object, range)?;
        if inner.is_paused() {
            inner.metrics.read("paused");
            return None;
        }
        let kept = inner.index.get(&name).filter(|kept| !inner.is_old(kept));
        if kept.is_none() {
            inner.metrics.read("miss");
            return None;
        }
        let read = {
            let inner = Arc::clone(inner);
            self.0.reads.compute(move || inner.read(&name))
        };
        let (bytes, outcome) = match inner.clock.timeout(READ_TIME_MAX, read).await {
            Some(Ok(Ok(bytes))) => (Some(bytes), "hit"),
            Some(Ok(Err(outcome))) => (None, outcome),
            Some(Err(_)) => (None, "failed"),
            None => {
                tracing::warn!(section = ?range, object, "a section is read too slowly from disk");
                (None, "slow")
            }
        };
        if matches!(outcome, "failed" | "slow") {
            inner.pause();
        }
        inner.metrics.read(outcome);
        inner.metrics.read_bytes.inc_by(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64));
        bytes
    }

    /// Keeps verified bytes of an object. They are written in the background, or not at all.
    pub(super) fn put(&self, object: &str, range: &Range<u64>, bytes: Bytes) {
        let inner = &self.0;
        let Some(name) = name_of(object, range) else { return };
        let length = bytes.len() as u64;
        if inner.weight_of(&name) > inner.options.bytes_max / SECTION_SHARE {
            return inner.metrics.unwritten("large");
        }
        if inner.is_paused() {
            return inner.metrics.unwritten("paused");
        }
        if inner.waiting.fetch_add(length, Ordering::Relaxed) > WAITING_BYTES_MAX {
            inner.waiting.fetch_sub(length, Ordering::Relaxed);
            return inner.metrics.unwritten("busy");
        }
        let cache = self.clone();
        self.0.writes.spawn(async move {
            let inner = Arc::clone(&cache.0);
            let written = cache.0.writes.compute(move || inner.write(&name, &bytes)).await;
            cache.0.waiting.fetch_sub(length, Ordering::Relaxed);
            if let Err(error) = written {
                tracing::error!(%error, "a section was not written to disk");
            }
        });
    }
}

/// What runs on threads for blocking work.
impl Inner {
    fn load(&self) -> io::Result<()> {
        self.files.scan(&mut |Found { name, written_at }| {
            let weight = u32::try_from(self.weight_of(&name)).unwrap_or(u32::MAX);
            self.index.insert(name, Kept { weight, written_at });
        })?;
        self.remove_old();
        Ok(())
    }

    fn read(&self, name: &Arc<str>) -> Result<Bytes, &'static str> {
        let unread = match self.files.read(name) {
            Ok(bytes) => return Ok(bytes),
            Err(unread) => unread,
        };
        self.index.invalidate(name);
        self.tidy();
        Err(match unread {
            Unread::Gone => "miss",
            Unread::Damaged => {
                tracing::warn!(section = %name, "a section is damaged on disk");
                "damaged"
            }
            Unread::Failed(error) => {
                tracing::warn!(section = %name, %error, "a section could not be read from disk");
                "failed"
            }
        })
    }

    fn write(&self, name: &Arc<str>, bytes: &Bytes) {
        let weight = u32::try_from(self.weight_of(name)).unwrap_or(u32::MAX);
        let written_at = self.clock.now_unix();
        self.index.insert(Arc::clone(name), Kept { weight, written_at });
        // Room is made before it is taken, and who is not let in takes none.
        self.tidy();
        if !self.index.contains_key(name) {
            return self.metrics.unwritten("rejected");
        }
        match self.files.write(name, bytes) {
            Ok(()) => self.metrics.written_bytes.inc_by(bytes.len() as u64),
            Err(error) => {
                self.index.invalidate(name);
                self.pause();
                self.metrics.unwritten("failed");
                tracing::warn!(%error, "a section could not be written to disk, pausing");
            }
        }
        // It may have been let go meanwhile, and its file removed before there was one.
        if !self.index.contains_key(name) {
            self.doomed.lock().push(Arc::clone(name));
        }
        self.tidy();
    }

    fn remove_old(&self) {
        let old = self.index.iter().filter(|(_, kept)| self.is_old(kept));
        let old: Vec<Arc<str>> = old.map(|(name, _)| (*name).clone()).collect();
        old.iter().for_each(|name| self.index.invalidate(name));
        self.tidy();
    }

    /// Lets go of what is too much, and removes the files of what was let go.
    fn tidy(&self) {
        self.index.run_pending_tasks();
        // It lets go of a bounded number of entries each time.
        for _ in 0..PASSES_MAX {
            if self.index.weighted_size() <= self.options.bytes_max {
                break;
            }
            self.index.run_pending_tasks();
        }
        let doomed = std::mem::take(&mut *self.doomed.lock());
        // What was let in again meanwhile owns the file.
        for name in doomed.iter().filter(|name| !self.index.contains_key(*name)) {
            if let Err(error) = self.files.remove(name) {
                tracing::warn!(section = %name, %error, "a section could not be removed from disk");
            }
        }
        let (bytes, files) = (self.index.weighted_size(), self.index.entry_count());
        self.metrics.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.metrics.files.set(i64::try_from(files).unwrap_or(i64::MAX));
    }

    fn pause(&self) {
        *self.paused_until.lock() = self.clock.monotonic().saturating_add(PAUSE);
    }

    fn is_paused(&self) -> bool {
        self.clock.monotonic() < *self.paused_until.lock()
    }

    fn weight_of(&self, name: &str) -> u64 {
        let blocks = file_bytes(name).div_ceil(DISK_BLOCK_BYTES).saturating_mul(DISK_BLOCK_BYTES);
        blocks.max(self.options.bytes_max / FILES_MAX)
    }

    fn is_old(&self, kept: &Kept) -> bool {
        let age = self.clock.now_unix().0.saturating_sub(kept.written_at.0);
        Duration::from_nanos(age) > self.options.age_max
    }
}

impl std::fmt::Debug for DiskCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskCache").field("options", &self.0.options).finish()
    }
}

#[cfg(test)]
mod tests;
