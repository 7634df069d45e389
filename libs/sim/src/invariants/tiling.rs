//! I3: the flushes of a log do not overlap, and none goes beyond its watermark: an entry is in one
//! flushed object, or in none yet.

use std::collections::BTreeMap;

use clew_catalog::{ObjectKey, State};

use super::Rule;
use crate::cluster::Cluster;
use crate::network::Name;

pub(super) struct FlushesTile;

impl Rule for FlushesTile {
    fn id(&self) -> &'static str {
        "I3"
    }

    fn sees_catalog_only(&self) -> bool {
        true
    }

    fn check(&mut self, _: &Name, state: &State, _: bool, _: &Cluster) -> Result<(), String> {
        let mut borders: BTreeMap<(u32, u64), u64> = BTreeMap::new();
        for object in state.objects() {
            let ObjectKey::Flush(key) = &object.key else { continue };
            let log = (key.shard.0, key.incarnation.0);
            let border = borders.entry(log).or_default();
            if object.from < *border {
                return Err(format!("{} begins at {} before {border}", object.key, object.from));
            }
            *border = object.through.index;
            let open =
                state.shard_log(key.shard).filter(|open| open.incarnation == key.incarnation);
            if let Some(open) = open
                && object.through.index > open.watermark.index
            {
                return Err(format!("{} is beyond the watermark", object.key));
            }
        }
        Ok(())
    }
}
