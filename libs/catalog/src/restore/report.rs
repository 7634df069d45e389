//! What a restore did, for the operator.

use std::fmt;

use clew_model::UnixNanos;
use clew_ring::ShardId;

use crate::gap::Gap;
use crate::ident::{Incarnation, JobId};
use crate::key::ObjectKey;

/// Gaps, objects and jobs that are named one by one.
const NAMED_MAX: usize = 100;

/// A shard after a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardReport {
    /// The shard.
    pub shard: ShardId,
    /// The incarnation of its log; 0 if none is known.
    pub incarnation: Incarnation,
    /// The watermark in the backup, 0 if that has another log.
    pub before: u64,
    /// The watermark now.
    pub watermark: u64,
}

/// See the [module](self).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Revision and time of the backup; nothing if there was none.
    pub from: Option<(u64, UnixNanos)>,
    /// The revision of the restored catalog.
    pub revision: u64,
    /// Objects that the backup lacks and that are read now.
    pub adopted: u64,
    /// How many spans they hold.
    pub adopted_spans: u64,
    /// Objects of the backup that others have replaced.
    pub replaced: u64,
    /// Objects that were looked into and are not read: what was merged, or never registered.
    pub left: u64,
    /// Shards that the map of the backup lacks.
    pub shards_added: u32,
    /// Every shard of the map.
    pub shards: Vec<ShardReport>,
    /// What is gone.
    pub gaps: Vec<Gap>,
    /// Objects that cannot be read; each is a gap, too.
    pub unreadable: Vec<(ObjectKey, String)>,
    /// Compactions of which both inputs and outputs are read: spans may show twice.
    pub doubtful: Vec<JobId>,
}

impl Report {
    /// Whether an operator has to agree to it first.
    pub fn needs_consent(&self) -> bool {
        !self.gaps.is_empty() || !self.doubtful.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Some((revision, at)) => {
                writeln!(f, "backup of revision {revision}, last changed at {}", at.as_seconds())?;
            }
            None => writeln!(f, "no backup: from the objects alone")?,
        }
        writeln!(
            f,
            "{} objects with {} spans added, {} replaced, {} looked into and left",
            self.adopted, self.adopted_spans, self.replaced, self.left
        )?;
        if self.shards_added > 0 {
            writeln!(f, "{} shards added to the map", self.shards_added)?;
        }
        for ShardReport { shard, incarnation, before, watermark } in &self.shards {
            if before != watermark {
                writeln!(
                    f,
                    "shard {shard}, incarnation {incarnation}: watermark {before} -> {watermark}"
                )?;
            }
        }
        for (key, why) in self.unreadable.iter().take(NAMED_MAX) {
            writeln!(f, "unreadable: {key}: {why}")?;
        }
        for job in self.doubtful.iter().take(NAMED_MAX) {
            writeln!(f, "compaction {job} may have ended or not: its spans may show twice")?;
        }
        for gap in self.gaps.iter().take(NAMED_MAX) {
            writeln!(f, "gap: {gap}")?;
        }
        let hidden = self.gaps.len().saturating_sub(NAMED_MAX);
        if hidden > 0 {
            writeln!(f, "and {hidden} more gaps")?;
        }
        Ok(())
    }
}
