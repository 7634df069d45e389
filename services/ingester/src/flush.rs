//! The flush protocol: a sealed prefix of the log becomes one registered object, then the log
//! forgets it.
//!
//! Sealed at N → built → uploaded under a new key → registered by compare-and-set from the shard's
//! watermark to N → the log is told → the head drops it. A crash between any two steps loses and
//! doubles nothing: an object that was not registered is never read, and a registered one is skipped
//! by the next leader because it starts at the catalog's watermark. A step with an unknown outcome
//! is repeated with the same object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_block::{Block, BlockMeta, BlockOptions, Heritage, Origin, TableRows, TraceFilter};
use clew_catalog::{CommitFlush, FlushOutcome, ObjectKey, ObjectMeta, TenantBlock};
use clew_model::{ErrorKind, TenantId, UnixNanos, planted};
use clew_node::Phase;
use clew_raft::LogId;

use crate::IngesterError;
use crate::append::crash_point;
use crate::head::Segment;
use crate::sections::SectionBytes;
use crate::shard::{Ended, Shard, log_point};
use crate::split::RecentFlush;

/// The first and the longest pause before a failed step is repeated.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A built object that is not in the bucket yet.
struct Built {
    bytes: Bytes,
    blocks: Vec<TenantBlock>,
    filters: BTreeMap<TenantId, TraceFilter>,
    sections: SectionBytes,
    spans: u64,
}

/// What registering came to.
enum Registered {
    /// The object is in the catalog.
    Yes,
    /// The catalog went on without us.
    Superseded,
    /// The catalog is older than the log.
    Behind,
    /// The catalog will never take it.
    Refused(&'static str),
}

impl Shard {
    /// Loads the filters of earlier flushes, then flushes what is sealed, oldest first.
    pub(crate) async fn flush_forever(&self, watermark: u64) -> Result<Ended, IngesterError> {
        let mut loaded = self.try_load_recent(watermark).await;
        loop {
            match self.head.oldest_sealed() {
                Some(segment) => {
                    if let Some(ended) = self.flush(&segment).await? {
                        return Ok(ended);
                    }
                    // The bucket is there again.
                    loaded = loaded || self.try_load_recent(watermark).await;
                }
                None => self.sealed.notified().await,
            }
        }
    }

    async fn flush(&self, segment: &Arc<Segment>) -> Result<Option<Ended>, IngesterError> {
        let Some(mut through) = segment.last_entry() else { return Ok(None) };
        crash_point("flush::sealed");
        let built = self.timed("build", self.build(segment.clone())).await?;
        crash_point("flush::built");
        if planted("bug::seal_too_far") {
            through.index = self.group.status().applied_index;
        }
        if planted("bug::purge_first") {
            self.tell_log(through).await?;
        }
        let random = self.deps.rng.next_u64();
        let key = ObjectKey::flush(self.shard, self.incarnation, through.index, random);
        let upload = self.deps.cpu.of(Phase::Upload, self.upload(&key, &built.bytes));
        self.timed("upload", upload).await;
        crash_point("flush::uploaded");
        let object = ObjectMeta {
            key,
            size: built.bytes.len() as u64,
            // A test has it come too late, as from a leader that others have overtaken.
            from: if planted("flush::late") { 0 } else { segment.from },
            through: log_point(through),
            level: 0,
            created_at: self.deps.clock.now_unix(),
            data_at: self.deps.clock.now_unix(),
            revision: 0,
            tenants: built.blocks,
        };
        match self.timed("register", self.register(&object)).await {
            Registered::Yes => {}
            Registered::Superseded => return Ok(Some(Ended::Again)),
            Registered::Behind => return Ok(Some(Ended::Again)),
            Registered::Refused(reason) => {
                self.alarm(reason);
                return Ok(Some(Ended::Stopped));
            }
        }
        crash_point("flush::registered");
        tracing::info!(
            shard = self.shard.0,
            object = %object.key,
            from = object.from,
            through = through.index,
            spans = built.spans,
            bytes = object.size,
            "flushed"
        );
        self.metrics.shard.flushes.inc();
        self.metrics.shard.flushed_spans.inc_by(built.spans);
        self.metrics.shard.flushed_bytes.inc_by(object.size);
        for (section, bytes) in built.sections.iter() {
            self.metrics.shard.section_bytes.with_label_values(&[section]).inc_by(bytes);
        }
        // The filter comes before the segment goes: a trace is always seen in one of them.
        self.recent.push(RecentFlush { object: Arc::new(object), filters: built.filters });
        self.tell_log(through).await?;
        crash_point("flush::log_told");
        self.head.drop_through(through.index);
        self.note_watermark(through.index);
        crash_point("flush::dropped");
        Ok(None)
    }

    async fn build(&self, segment: Arc<Segment>) -> Result<Built, IngesterError> {
        let options =
            BlockOptions { page_level: self.config.flush.zstd_level, ..BlockOptions::default() };
        let origin = Origin {
            shard: u64::from(self.shard.0),
            incarnation: self.incarnation.0,
            from: segment.from,
            through: segment.last_entry().map_or(0, |last| last.index),
        };
        let arrived = self.deps.clock.now_unix().0;
        let heritage = Heritage { arrived, ..Heritage::default() };
        let cpu = self.deps.cpu.clone();
        let work = move || {
            let _cpu = cpu.measure(Phase::Build);
            build_object(&segment, &options, origin, &heritage)
        };
        self.deps.tasks.compute(work).await?
    }

    /// Stores the object, however long the bucket is away: nothing is registered before.
    async fn upload(&self, key: &ObjectKey, bytes: &Bytes) {
        let mut pause = RETRY_FIRST;
        let name = key.to_string();
        while let Err(error) = self.bucket.put_new(&name, bytes.clone()).await {
            self.retry("upload", &error.to_string(), &mut pause).await;
        }
    }

    async fn register(&self, object: &ObjectMeta) -> Registered {
        let mut pause = RETRY_FIRST;
        loop {
            let request = CommitFlush { object: object.clone() };
            match self.metastore.apply(request).await {
                Ok(FlushOutcome::Applied | FlushOutcome::AlreadyApplied) => return Registered::Yes,
                Ok(FlushOutcome::Superseded { .. }) => return Registered::Superseded,
                Ok(FlushOutcome::IncarnationClosed { .. }) => {
                    return Registered::Refused("the shard is open under a later incarnation");
                }
                Ok(FlushOutcome::UnknownShard | FlushOutcome::OutOfOrder { .. }) => {
                    return Registered::Behind;
                }
                Err(error) if error.kind() == ErrorKind::Invalid => {
                    tracing::error!(shard = self.shard.0, %error, "a flush was refused");
                    return Registered::Refused("the catalog refuses the object");
                }
                Err(error) => self.retry("register", &error.to_string(), &mut pause).await,
            }
        }
    }

    async fn tell_log(&self, through: LogId) -> Result<(), IngesterError> {
        self.group.flushed(through, self.config.append_timeout.0).await?;
        Ok(())
    }

    async fn retry(&self, step: &'static str, error: &str, pause: &mut Duration) {
        self.metrics.shard.flush_failures.with_label_values(&[step]).inc();
        tracing::warn!(shard = self.shard.0, step, error, "a step of a flush failed, repeating");
        self.deps.clock.sleep(*pause).await;
        *pause = (*pause * 2).min(RETRY_MAX);
    }

    async fn timed<T>(&self, step: &str, work: impl Future<Output = T>) -> T {
        let started = self.deps.clock.monotonic();
        let output = work.await;
        let taken = self.deps.clock.monotonic().saturating_sub(started);
        let seconds = self.metrics.shard.flush_seconds.with_label_values(&[step]);
        seconds.observe(taken.as_secs_f64());
        output
    }

    /// Whether the filters of earlier flushes are here now. As long as they are not, every trace is
    /// marked as split: right, only dearer.
    async fn try_load_recent(&self, watermark: u64) -> bool {
        let loaded = self.load_recent(watermark).await;
        if let Err(error) = &loaded {
            tracing::warn!(shard = self.shard.0, %error, "filters of recent flushes not loaded");
        }
        loaded.is_ok()
    }

    /// Reads the filters of the flushes within the trace horizon from the bucket.
    async fn load_recent(&self, watermark: u64) -> Result<(), IngesterError> {
        let since = self.recent.since(self.deps.clock.now_unix());
        let objects = self.metastore.flushes(self.shard, self.incarnation, since).await?;
        let mut flushes = Vec::new();
        // What flushes were compacted into holds their traces, too.
        for object in objects.into_iter().filter(|object| object.through.index <= watermark) {
            let object = Arc::new(object);
            let filters = self.load_filters(&object).await?;
            flushes.push(RecentFlush { object, filters });
        }
        self.recent.load(flushes);
        Ok(())
    }

    async fn load_filters(
        &self,
        object: &ObjectMeta,
    ) -> Result<BTreeMap<TenantId, TraceFilter>, IngesterError> {
        let name = object.key.to_string();
        let mut filters = BTreeMap::new();
        for block in &object.tenants {
            let end = block.offset + block.length;
            let tail = end - u64::from(block.footer_length)..end;
            let opened = Block::open(&self.bucket.get_range(&name, tail).await?)?;
            filters.insert(block.tenant.clone(), TraceFilter::clone(opened.filter()));
        }
        Ok(filters)
    }
}

/// One object with a block for every tenant of the segment.
fn build_object(
    segment: &Segment,
    options: &BlockOptions,
    origin: Origin,
    heritage: &Heritage,
) -> Result<Built, IngesterError> {
    let mut blocks = Vec::new();
    let mut filters = BTreeMap::new();
    let mut sections = SectionBytes::default();
    for (tenant, table) in segment.tables() {
        let table = table.table.read();
        let rows = TableRows { table: &table, rows_max: table.row_count() };
        let (lineage, heritage) = (Vec::new(), heritage.clone());
        let meta = BlockMeta { tenant: tenant.clone(), origin, lineage, heritage };
        let block = Bytes::from(clew_block::write_block(&[rows], options, meta)?);
        let opened = Block::open(&block)?;
        filters.insert(tenant.clone(), TraceFilter::clone(opened.filter()));
        sections.add(opened.footer());
        blocks.push((tenant, Vec::from(block)));
    }
    let (bytes, entries) = clew_block::pack(blocks)?;
    let spans = entries.iter().map(|entry| entry.spans).sum();
    let blocks = entries.into_iter().map(tenant_block).collect();
    Ok(Built { bytes: Bytes::from(bytes), blocks, filters, sections, spans })
}

fn tenant_block(entry: clew_block::TenantEntry) -> TenantBlock {
    TenantBlock {
        tenant: entry.tenant,
        offset: entry.offset,
        length: entry.length,
        footer_length: entry.tail_length,
        min_time: UnixNanos(entry.min_start),
        max_time: UnixNanos(entry.max_end),
        spans: entry.spans,
        traces: entry.traces,
        splits: entry.split,
        ids: None,
    }
}
