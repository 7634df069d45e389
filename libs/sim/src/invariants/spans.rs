//! I6: a span is in one live object of its shard. What a shard's live objects hold together is at most
//! what was ever flushed: a compaction that is committed twice shows up as more.

use std::collections::BTreeMap;

use clew_catalog::{ObjectKey, State};

use super::Rule;
use crate::cluster::Cluster;
use crate::network::Name;

/// The spans of every flush that was seen.
#[derive(Default)]
pub(super) struct NotMoreThanFlushed {
    flushed: BTreeMap<ObjectKey, u64>,
}

impl Rule for NotMoreThanFlushed {
    fn id(&self) -> &'static str {
        "I6"
    }

    fn sees_catalog_only(&self) -> bool {
        true
    }

    fn check(
        &mut self,
        _: &Name,
        state: &State,
        is_newest: bool,
        _: &Cluster,
    ) -> Result<(), String> {
        let dead = state.dead().map(|dead| &dead.object);
        for object in state.objects().chain(dead) {
            if matches!(object.key, ObjectKey::Flush(_)) {
                self.flushed.insert(object.key, object.spans());
            }
        }
        if !is_newest {
            return Ok(());
        }
        let mut left: BTreeMap<u32, u64> = BTreeMap::new();
        for (key, spans) in &self.flushed {
            *left.entry(key.shard().0).or_default() += spans;
        }
        for object in state.objects() {
            let left = left.entry(object.shard().0).or_default();
            *left = left.checked_sub(object.spans()).ok_or_else(|| {
                format!("shard {} holds more than was flushed to it", object.shard().0)
            })?;
        }
        Ok(())
    }
}
