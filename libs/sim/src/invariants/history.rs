//! I1: one history of commands gives one state. Members that have applied the same revision have the
//! same catalog.

use std::collections::BTreeMap;

use clew_catalog::State;

use super::Rule;
use crate::cluster::Cluster;
use crate::network::Name;

#[derive(Default)]
pub(super) struct OneHistory {
    hashes: BTreeMap<u64, u64>,
}

impl Rule for OneHistory {
    fn id(&self) -> &'static str {
        "I1"
    }

    fn sees_catalog_only(&self) -> bool {
        true
    }

    fn check(&mut self, _: &Name, state: &State, _: bool, _: &Cluster) -> Result<(), String> {
        let revision = state.revision();
        let hash = state.state_hash();
        match *self.hashes.entry(revision).or_insert(hash) {
            known if known == hash => Ok(()),
            known => Err(format!("revision {revision} is {hash:x}, elsewhere it was {known:x}")),
        }
    }
}
