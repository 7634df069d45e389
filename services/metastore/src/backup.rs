//! Backups of the catalog in the bucket: the member that leads writes one every so often if something
//! has changed, at once after a deletion (which must not come undone) or when a shard's log was opened, and
//! when an operator asks.
//!
//! A backup has a name of its own and is never overwritten, so a leader that was passed over cannot
//! harm a newer one: what it writes lies below it. Old ones are deleted by the leader, and only those
//! that are older than its own catalog.

use std::time::Duration;

use bytes::Bytes;
use clew_catalog::{Backup, BackupKey, Incarnation};
use clew_proto::metastore::v1::BackupResponse;
use clew_storage::Bucket;
use futures::TryStreamExt;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};

use crate::MetastoreError;
use crate::service::Metastore;

/// How often the leader looks whether a backup is due.
const LOOK: Duration = Duration::from_secs(2);

/// The pause after a failure, unless backups are made more often.
const RETRY_DELAY: Duration = Duration::from_secs(30);

/// When backups are made, and what became of them.
#[derive(Debug)]
pub(crate) struct Backups {
    interval: Duration,
    kept: usize,
    /// The last one known.
    last: Mutex<Option<Last>>,
    timestamp: IntGauge,
    failures: IntCounter,
    bytes: IntGauge,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    revision: u64,
    /// The last incarnation issued then; nothing if another leader made it.
    incarnation: Option<Incarnation>,
    /// On the monotonic clock; nothing if another leader made it.
    at: Option<Duration>,
}

impl Backups {
    pub(crate) fn new(interval: Duration, kept: u32, metrics: &clew_node::Metrics) -> Backups {
        Backups {
            interval,
            kept: usize::try_from(kept.max(1)).unwrap_or(usize::MAX),
            last: Mutex::default(),
            timestamp: metrics.gauge(
                "clew_metastore_backup_timestamp_seconds",
                "When the newest backup of the catalog was last known to hold all of it, in seconds \
                 since the epoch; 0 on members that have not led.",
            ),
            failures: metrics.counter(
                "clew_metastore_backup_failures_total",
                "Backups of the catalog that failed.",
            ),
            bytes: metrics.gauge(
                "clew_metastore_backup_bytes",
                "Size of the last backup of the catalog that this member made.",
            ),
        }
    }
}

/// The backups in the bucket, oldest first, with their sizes.
pub(crate) async fn list(bucket: &Bucket) -> Result<Vec<(BackupKey, u64)>, MetastoreError> {
    let listed = bucket.list(BackupKey::PREFIX).try_collect::<Vec<_>>().await?;
    let backup = |object: clew_storage::Listed| Some((BackupKey::parse(&object.key)?, object.size));
    let mut backups: Vec<_> = listed.into_iter().filter_map(backup).collect();
    backups.sort_unstable();
    Ok(backups)
}

impl Metastore {
    /// Keeps the newest backup new, as long as this member leads.
    pub(crate) async fn back_up_forever(&self) {
        let inner = &self.0;
        let clock = &inner.deps.clock;
        if inner.backups.interval.is_zero() {
            return std::future::pending().await;
        }
        // Another member may have led meanwhile.
        *inner.backups.last.lock() = None;
        loop {
            let pause = match self.back_up_if_due().await {
                Ok(()) => LOOK.min(inner.backups.interval),
                Err(error) => {
                    inner.backups.failures.inc();
                    tracing::warn!(%error, "the catalog is not backed up");
                    RETRY_DELAY.min(inner.backups.interval)
                }
            };
            clock.sleep(pause).await;
        }
    }

    async fn back_up_if_due(&self) -> Result<(), MetastoreError> {
        let inner = &self.0;
        let known = *inner.backups.last.lock();
        let last = match known {
            Some(last) => last,
            None => {
                let newest = list(&inner.bucket).await?.last().map_or(0, |(key, _)| key.revision);
                let found = Last { revision: newest, incarnation: None, at: None };
                *inner.backups.last.lock() = Some(found);
                found
            }
        };
        let (revision, deletion, incarnation) = inner.group.with_state(|machine| {
            let state = &machine.state;
            let deletion = state.deletions().next_back().map_or(0, |deletion| deletion.id.0);
            (state.revision(), deletion, state.last_incarnation())
        });
        if revision <= last.revision {
            self.note_backed_up(last.revision, revision);
            return Ok(());
        }
        let now = inner.deps.clock.monotonic();
        let is_old = last.at.is_none_or(|at| now.saturating_sub(at) >= inner.backups.interval);
        // A restore would undo a deletion, and could bring back a log that was given up.
        let is_urgent = deletion > last.revision || last.incarnation != Some(incarnation);
        if is_old || is_urgent {
            self.back_up().await?;
        }
        Ok(())
    }

    fn note_backed_up(&self, backup: u64, own: u64) {
        if backup == own {
            let now = self.0.deps.clock.now_unix().as_seconds();
            self.0.backups.timestamp.set(i64::try_from(now).unwrap_or(i64::MAX));
        }
    }

    /// Makes a backup, on the leader.
    pub(crate) async fn back_up(&self) -> Result<BackupResponse, MetastoreError> {
        let inner = &self.0;
        // A leader that was passed over must not think that it backs up the cluster's catalog.
        inner.group.read_index().await?;
        // A copy shares the objects: applying must not wait until everything is encoded.
        let state = inner.group.with_state(|machine| machine.state.clone());
        let (revision, at) = (state.revision(), inner.deps.clock.now_unix());
        let incarnation = Some(state.last_incarnation());
        let newest = list(&inner.bucket).await?.last().map_or(0, |(key, _)| key.revision);
        if newest > revision {
            return Err(MetastoreError::HasCatalog(format!(
                "the bucket has a backup of revision {newest}, and this catalog is at {revision}: it \
                 is older, or of another cluster"
            )));
        }
        let encoded = inner.deps.tasks.compute(move || Backup::encode(&state, at)).await?;
        let encoded = encoded.ok_or(clew_catalog::Refusal::NoCluster)?;
        let key = BackupKey { revision, random: inner.deps.rng.next_u64() };
        let bytes = encoded.len() as u64;
        inner.bucket.put_new(&key.to_string(), Bytes::from(encoded)).await?;
        let last = Last { revision, incarnation, at: Some(inner.deps.clock.monotonic()) };
        *inner.backups.last.lock() = Some(last);
        inner.backups.timestamp.set(i64::try_from(at.as_seconds()).unwrap_or(i64::MAX));
        inner.backups.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        tracing::info!(%key, bytes, "the catalog is backed up");
        self.prune_backups(revision).await;
        Ok(BackupResponse { key: key.to_string(), revision, bytes })
    }

    /// Deletes all but the newest backups up to `revision`.
    async fn prune_backups(&self, revision: u64) {
        let pruned = async {
            let mut backups = list(&self.0.bucket).await?;
            backups.retain(|(key, _)| key.revision <= revision);
            let old = backups.len().saturating_sub(self.0.backups.kept);
            for (key, _) in backups.iter().take(old) {
                self.0.bucket.delete(&key.to_string()).await?;
            }
            Ok::<(), MetastoreError>(())
        };
        if let Err(error) = pruned.await {
            tracing::warn!(%error, "old backups of the catalog are not deleted");
        }
    }
}
