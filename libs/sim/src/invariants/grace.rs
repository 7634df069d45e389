//! I5: nothing is deleted that a query may still read.

use clew_catalog::State;

use super::Rule;
use crate::cluster::Cluster;
use crate::network::Name;
use crate::node::Role;

pub(super) struct ReadIsThere;

impl Rule for ReadIsThere {
    fn id(&self) -> &'static str {
        "I5"
    }

    fn sees_catalog_only(&self) -> bool {
        false
    }

    fn check(&mut self, _: &Name, _: &State, _: bool, cluster: &Cluster) -> Result<(), String> {
        let missed = cluster.outside.store.take_missed();
        // Compactors whose job was given to another may look for what that one has replaced.
        let queriers = |name: &str| cluster.of(Role::Querier).any(|node| *node.name == *name);
        match missed.iter().find(|(name, _)| queriers(name)) {
            Some((name, key)) => Err(format!("{name} reads {key}, which was deleted")),
            None => Ok(()),
        }
    }
}
