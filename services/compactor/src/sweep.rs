//! Deletes from the bucket what nobody reads: dead objects whose grace is over, and objects that no
//! command can ever register.

use std::collections::BTreeSet;

use clew_catalog::{ConfirmDeleted, ObjectKey};
use clew_model::planted;
use clew_node::Stop;
use futures::{StreamExt, TryStreamExt, stream};

use crate::compactor::Worker;
use crate::{CompactorError, crash_point};

/// Dead objects that are deleted before the catalog is told.
const BATCH: u32 = 256;

/// Objects that are deleted at the same time.
const DELETES_AT_ONCE: usize = 8;

/// Objects of the bucket that are asked about at once.
const ASKED_AT_ONCE: usize = 2_000;

impl Worker {
    /// Deletes until `stop`.
    pub(crate) async fn sweep(&self, stop: Stop) {
        let interval = self.config.orphan_interval.0;
        // Compactors that started together do not list the bucket together.
        let first = self.deps.rng.below(1_000);
        let share = interval.mul_f64(f64::from(u32::try_from(first).unwrap_or(0)) / 1_000.0);
        let mut next_orphans = self.deps.clock.monotonic().saturating_add(share);
        while !stop.is_stopped() {
            let swept = self.delete_dead().await;
            if let Err(error) = &swept {
                tracing::warn!(%error, "dead objects are not deleted now");
            }
            if self.deps.clock.monotonic() >= next_orphans {
                if let Err(error) = self.collect_orphans().await {
                    tracing::warn!(%error, "orphans are not collected now");
                }
                next_orphans = self.deps.clock.monotonic().saturating_add(interval);
            }
            if !matches!(swept, Ok(count) if count > 0) {
                let pause = self.config.poll_interval.0.min(interval);
                if stop.or(self.deps.clock.sleep(pause)).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Deletes some dead objects; how many.
    async fn delete_dead(&self) -> Result<usize, CompactorError> {
        let grace = match planted("bug::no_grace") {
            true => std::time::Duration::ZERO,
            false => self.config.grace.0,
        };
        let names = self.metastore.garbage(grace, BATCH).await?;
        let objects = self.delete(names, "dead").await;
        let count = objects.len();
        if count > 0 {
            crash_point("sweep::deleted");
            self.metastore.apply(ConfirmDeleted { objects }).await?;
            crash_point("sweep::confirmed");
            tracing::info!(count, "deleted dead objects");
        }
        Ok(count)
    }

    /// The objects of these names that are gone now.
    async fn delete(&self, names: Vec<String>, reason: &'static str) -> Vec<ObjectKey> {
        let keys: Vec<ObjectKey> =
            names.iter().filter_map(|name| ObjectKey::parse(name).ok()).collect();
        let mut deletes = Vec::new();
        for key in keys {
            deletes.push(async move {
                match self.bucket.delete(&key.to_string()).await {
                    Ok(()) => Some(key),
                    Err(error) => {
                        self.metrics.delete_failures.inc();
                        tracing::warn!(object = %key, %error, "an object is not deleted");
                        None
                    }
                }
            });
        }
        let done = stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE);
        let gone: Vec<ObjectKey> = done.filter_map(std::future::ready).collect().await;
        self.metrics.deleted_objects.with_label_values(&[reason]).inc_by(gone.len() as u64);
        gone
    }

    /// Deletes the objects of the bucket that can never be registered.
    async fn collect_orphans(&self) -> Result<(), CompactorError> {
        let mut names = BTreeSet::new();
        for prefix in [ObjectKey::FLUSH_PREFIX, ObjectKey::COMPACTED_PREFIX] {
            let listed = self.bucket.list(prefix).map_ok(|object| object.key);
            names.extend(listed.try_collect::<Vec<String>>().await?);
        }
        // Only now is the catalog asked: what it does not know by then was dead when it was listed.
        let mut dead = Vec::new();
        let names: Vec<String> = names.into_iter().collect();
        for chunk in names.chunks(ASKED_AT_ONCE) {
            let answer = self.metastore.check(chunk.to_vec()).await?;
            if !answer.ahead.is_empty() {
                if self.metrics.orphan_collection_stopped.get() == 0 {
                    tracing::error!(
                        object = answer.ahead,
                        "the catalog is older than the bucket, or not settled since a restore: \
                         orphans are not collected"
                    );
                }
                self.metrics.orphan_collection_stopped.set(1);
                return Ok(());
            }
            dead.extend(answer.dead);
        }
        self.metrics.orphan_collection_stopped.set(0);
        let found = dead.len();
        if found > 0 {
            crash_point("sweep::orphans_found");
        }
        let gone = self.delete(dead, "orphan").await.len();
        if found > 0 {
            tracing::info!(found, gone, "deleted objects that nobody knows");
        }
        Ok(())
    }
}
