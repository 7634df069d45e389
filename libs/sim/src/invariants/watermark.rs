//! I2: the watermark of a shard's log only grows, and a log that was opened anew starts over.

use std::collections::BTreeMap;

use clew_catalog::State;

use super::Rule;
use crate::cluster::Cluster;
use crate::network::Name;

/// By shard and incarnation: the watermarks seen, by revision.
#[derive(Default)]
pub(super) struct OnlyGrows {
    seen: BTreeMap<(u32, u64), BTreeMap<u64, u64>>,
}

impl Rule for OnlyGrows {
    fn id(&self) -> &'static str {
        "I2"
    }

    fn sees_catalog_only(&self) -> bool {
        true
    }

    fn check(&mut self, _: &Name, state: &State, _: bool, _: &Cluster) -> Result<(), String> {
        let revision = state.revision();
        for (shard, log) in state.shard_logs() {
            let seen = self.seen.entry((shard.0, log.incarnation.0)).or_default();
            let now = log.watermark.index;
            let before = seen.range(..=revision).next_back().map_or(0, |(_, known)| *known);
            let after = seen.range(revision..).next().map_or(u64::MAX, |(_, known)| *known);
            if now < before || now > after {
                return Err(format!(
                    "shard {} is at {now} in revision {revision}, between {before} and {after}",
                    shard.0
                ));
            }
            if now > before {
                seen.insert(revision, now);
            }
        }
        Ok(())
    }
}
