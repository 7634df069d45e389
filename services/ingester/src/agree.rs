//! Agreeing with the catalog on how far a shard's log is in objects, before the log is served.

use std::time::Duration;

use prometheus::IntGauge;

use crate::IngesterError;
use crate::shard::{Ended, Shard, log_id};

/// How often a shard that stands still looks whether the catalog is another one.
const AGREE_CHECK: Duration = Duration::from_secs(1);

/// Whether log and catalog fit together.
enum Agreed {
    /// Up to there everything is in objects.
    At(u64),
    /// The catalog is older than the log.
    NotYet,
    /// The catalog will never take this log.
    Never,
}

/// Counts a shard as one that stands still, as long as it lives.
struct Standing(IntGauge);

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Shard {
    /// Agrees with the catalog on the watermark. As long as the catalog is older than the log nothing is
    /// served: an operator has to decide, or to restore a newer catalog.
    pub(crate) async fn agree(&self) -> Result<Result<u64, Ended>, IngesterError> {
        let mut stands = None;
        loop {
            match self.agree_on_watermark().await? {
                Agreed::At(watermark) => return Ok(Ok(watermark)),
                Agreed::Never => return Ok(Err(Ended::Stopped)),
                Agreed::NotYet => {
                    stands.get_or_insert_with(|| {
                        self.alarm("the catalog is older than the shard's log");
                        Standing(self.metrics.shard.registering_stopped.clone())
                    });
                }
            }
            let mut leadership = self.group.leadership();
            let lost = leadership.wait_for(|state| !state.is_leader);
            match self.deps.clock.timeout(AGREE_CHECK, lost).await {
                None => {}
                Some(Ok(_)) => return Ok(Err(Ended::Again)),
                Some(Err(_)) => return Ok(Err(Ended::Stopped)),
            }
        }
    }

    /// Brings the log's own watermark up to the catalog's, which decides.
    ///
    /// A crash between registering a flush and telling the log leaves the log behind; a log that was
    /// purged beyond the catalog's watermark means that the catalog is an old backup.
    async fn agree_on_watermark(&self) -> Result<Agreed, IngesterError> {
        // Read before the catalog is: a flush in between must not look like a log that is ahead.
        let own = self.group.watermark().map_or(0, |id| id.index);
        let view = self.metastore.shards().await?;
        let known = match view.shards.get(&self.shard) {
            Some(known) if known.incarnation == self.incarnation => known,
            Some(later) if later.incarnation > self.incarnation => {
                self.alarm("the shard is open under a later incarnation");
                return Ok(Agreed::Never);
            }
            // It will be told of this log, if it was restored.
            Some(_) | None => return Ok(Agreed::NotYet),
        };
        let mut upto = log_id(known.watermark);
        if upto.index < own {
            return Ok(Agreed::NotYet);
        }
        if upto.index > own {
            // A catalog restored from the bucket knows the index alone.
            if upto.term == 0
                && let Some(entry) = self.group.committed_id(upto.index).await?
            {
                upto = entry;
            }
            self.group.flushed(upto, self.config.append_timeout.0).await?;
        }
        Ok(Agreed::At(upto.index))
    }
}
