//! Feature levels: how releases that differ in what they understand run in one cluster.
//!
//! A release supports a range of levels. The cluster has one, kept in the catalog, and it only rises:
//! to what every node supports, and not before the last of them does. What older releases would
//! misread or refuse (a command, a field that changes what a command does, a message between nodes)
//! belongs to a level, and is not used below it. So a rolling upgrade passes through a mixed cluster in
//! which all replicas of the catalog still agree, and goes back the same way until the level has risen.
//!
//! | level | since then |
//! |---|---|
//! | 1 | what there was before there were levels |
//! | 2 | nodes that do not support the cluster's level are refused; [`crate::ForgetNode`], [`crate::Unpark`] |
//! | 3 | [`crate::LiftQuarantine`], and damaged blocks in objects that compactions write anew |

use std::collections::{BTreeMap, BTreeSet};

use clew_ring::NodeId;

use crate::member::Roles;
use crate::topology::Topology;

/// A feature level; they are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureLevel(pub u32);

impl FeatureLevel {
    /// The level of every cluster at first.
    pub const FIRST: FeatureLevel = FeatureLevel(1);
    /// Nodes of other levels are refused, and nodes can be forgotten.
    pub const LEVELS_ARE_KEPT: FeatureLevel = FeatureLevel(2);
    /// Quarantines can be lifted, and compactions carry quarantined blocks over as they are.
    pub const QUARANTINES_MOVE: FeatureLevel = FeatureLevel(3);
}

impl Default for FeatureLevel {
    fn default() -> Self {
        FeatureLevel::FIRST
    }
}

impl std::fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The levels that a release supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FeatureRange {
    /// The lowest.
    pub oldest: FeatureLevel,
    /// The highest.
    pub newest: FeatureLevel,
}

impl FeatureRange {
    /// What this release supports.
    pub const OURS: FeatureRange =
        FeatureRange { oldest: FeatureLevel::FIRST, newest: FeatureLevel::QUARANTINES_MOVE };

    /// Whether a node with this range can be part of a cluster of that level.
    pub fn contains(&self, level: FeatureLevel) -> bool {
        self.oldest <= level && level <= self.newest
    }
}

impl Default for FeatureRange {
    /// Of a release that says nothing about it, because it is older than levels.
    fn default() -> Self {
        FeatureRange { oldest: FeatureLevel::FIRST, newest: FeatureLevel::FIRST }
    }
}

impl std::fmt::Display for FeatureRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let FeatureRange { oldest, newest } = self;
        if oldest == newest { oldest.fmt(f) } else { write!(f, "{oldest} to {newest}") }
    }
}

/// What is known of nodes beyond the topology, by the leader of the metastore.
#[derive(Debug, Clone, Copy)]
pub struct Signs<'a> {
    /// What nodes said in their last sign of life.
    pub stated: &'a BTreeMap<NodeId, FeatureRange>,
    /// The nodes that are there, or may be: those that could not be heard yet.
    pub alive: &'a BTreeSet<NodeId>,
    /// The addresses of the metastore's members.
    pub members: &'a [String],
}

/// To which level a cluster can rise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelPlan {
    /// The level; never below the one that it has.
    pub level: FeatureLevel,
    /// The nodes (or addresses of members nobody has heard of) that keep it from `most`.
    pub held_by: Vec<String>,
}

/// The highest level up to `most` that every node supports that still counts: one that is there, is a
/// member of the metastore, or holds a replica that a shard may need. Of a node that has not said what
/// it supports the least is assumed. Others that are away are refused should they return too old.
pub fn plan_feature_level(topology: &Topology, signs: Signs<'_>, most: FeatureLevel) -> LevelPlan {
    let mut level = most;
    let mut held_by = Vec::new();
    let mut consider = |name: &str, newest: FeatureLevel| {
        if newest < most {
            held_by.push(name.to_owned());
            level = level.min(newest);
        }
    };
    for info in &topology.nodes {
        let is_member = info.roles.contains(Roles::METASTORE) && signs.members.contains(&info.addr);
        let is_needed = info
            .replica
            .is_some_and(|replica| topology.shards.values().any(|place| place.has(replica)));
        if is_member || is_needed || signs.alive.contains(&info.node) {
            let stated = signs.stated.get(&info.node).copied().unwrap_or_default();
            consider(info.node.as_str(), stated.newest);
        }
    }
    let is_known = |addr: &&String| {
        let is_it =
            |info: &crate::NodeInfo| info.addr == **addr && info.roles.contains(Roles::METASTORE);
        topology.nodes.iter().any(is_it)
    };
    for addr in signs.members.iter().filter(|addr| !is_known(addr)) {
        consider(addr, FeatureLevel::FIRST);
    }
    LevelPlan { level: level.max(topology.feature_level), held_by }
}
