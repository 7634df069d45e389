//! Which nodes have shown a sign of life, in the memory of the member that leads. A new leader starts
//! without any and gives every node it knows the time to be heard.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clew_catalog::{FeatureRange, NodeId, Topology};
use clew_proto::metastore::v1::ReplicaReport;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How long a node may be silent and still count as there, for leadership and status. Its replicas
/// stay where they are for longer.
pub(crate) const SILENT_MAX: Duration = Duration::from_secs(5);

/// The signs of life that a leader has seen.
#[derive(Debug, Default)]
pub(crate) struct Beats {
    seen: Mutex<BTreeMap<NodeId, Seen>>,
    /// Told when a node shows up.
    pub(crate) news: Notify,
}

/// The last sign of life of a node.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Duration,
    pub(crate) leaving: bool,
    pub(crate) replicas: Vec<ReplicaReport>,
    pub(crate) features: FeatureRange,
}

impl Beats {
    pub(crate) fn note(&self, node: NodeId, seen: Seen) {
        let is_new = self.seen.lock().insert(node, seen).is_none();
        if is_new {
            self.news.notify_one();
        }
    }

    /// Forgets everything: another member may have led meanwhile.
    pub(crate) fn clear(&self) {
        self.seen.lock().clear();
    }

    pub(crate) fn all(&self) -> BTreeMap<NodeId, Seen> {
        self.seen.lock().clone()
    }

    /// The nodes that were heard within `silence`, and those that could not be heard yet since
    /// `began`.
    pub(crate) fn alive(
        &self,
        topology: &Topology,
        now: Duration,
        began: Duration,
        silence: Duration,
    ) -> BTreeSet<NodeId> {
        let seen = self.seen.lock();
        let is_alive = |node: &NodeId| {
            let last = seen.get(node).map_or(began, |seen| seen.at);
            now.saturating_sub(last) <= silence
        };
        topology.nodes.iter().map(|info| info.node.clone()).filter(is_alive).collect()
    }
}
