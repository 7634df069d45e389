//! A cluster that changes on purpose: nodes that join and leave for good, more shards.

use std::collections::BTreeSet;
use std::time::Duration;

use clew_catalog::{
    AddGeneration, ForgetNode, ForgetOutcome, NodeState, ReplicaId, Request, SetNodeState, State,
};
use clew_model::ErrorKind;
use clew_node::Problem;
use clew_ring::NodeId;

use crate::chaos::Chaos;
use crate::node::{Node, Role, apply_at};

/// Ingesters that stay: a shard needs three.
const INGESTERS_MIN: usize = 3;

/// Shards that come with a new map.
const MORE_SHARDS: u32 = 2;

/// How often an order is given again.
const ATTEMPTS: usize = 40;

/// Between two attempts, and two looks.
const LOOK: Duration = Duration::from_millis(500);

/// How often it is looked whether a node that is drained is empty.
const LOOKS_MAX: usize = 120;

impl Chaos {
    /// One change.
    pub(crate) async fn change(&self) {
        match self.rng.below(5) {
            0 | 1 => self.join().await,
            2 | 3 => self.leave().await,
            _ => self.grow().await,
        }
    }

    /// A node joins that was not there, with an empty disk.
    async fn join(&self) {
        let Some(node) = self.any_of(self.cluster.absent()) else { return };
        self.journal.note(format_args!("{} joins", node.name));
        self.cluster.set_absent(&node, false);
        self.cluster.start(&node);
    }

    fn any_of(&self, nodes: Vec<Node>) -> Option<Node> {
        let at = self.rng.below(u64::try_from(nodes.len()).ok().filter(|count| *count > 0)?);
        nodes.into_iter().nth(usize::try_from(at).ok()?)
    }

    /// A node is drained, leaves and is forgotten.
    async fn leave(&self) {
        let may_leave = |role: Role, min: usize| {
            let there: Vec<Node> = self.cluster.of(role).cloned().collect();
            if there.len() > min { there } else { Vec::new() }
        };
        let mut able = may_leave(Role::Ingester, INGESTERS_MIN);
        able.extend(may_leave(Role::Compactor, 1));
        let Some(node) = self.any_of(able) else { return };
        // One at a time, and never when others are in trouble: a drain needs all that stay.
        if self.down() > 0 || self.is_any_draining() {
            return;
        }
        let Ok(id) = NodeId::parse(&node.name) else { return };
        self.journal.note(format_args!("{} is drained", node.name));
        let drain = || SetNodeState { node: id.clone(), state: NodeState::Draining };
        if self.order(drain).await.is_none() {
            return;
        }
        for _ in 0..LOOKS_MAX {
            self.sleep(LOOK).await;
            if self.is_empty(&node) {
                break;
            }
        }
        let stays = || SetNodeState { node: id.clone(), state: NodeState::Active };
        if !self.is_empty(&node) {
            self.journal.note(format_args!("{} stays", node.name));
            self.order(stays).await;
            return;
        }
        self.cluster.stop(&node).await;
        match self.order(|| ForgetNode { node: id.clone() }).await {
            Some(ForgetOutcome::Forgotten) => {
                // Its supervisor may have seen it end, and started it again.
                self.cluster.crash(&node).await;
                self.cluster.wipe(&node);
                self.cluster.set_absent(&node, true);
                self.journal.note(format_args!("{} has left", node.name));
            }
            Some(ForgetOutcome::HoldsReplicas) | None => {
                self.cluster.start(&node);
                self.order(stays).await;
            }
        }
    }

    fn is_any_draining(&self) -> bool {
        let draining = |state: &State| state.nodes().any(|n| n.state == NodeState::Draining);
        self.cluster.newest(draining).unwrap_or(true)
    }

    /// Whether nothing is on a node, nor shall be.
    fn is_empty(&self, node: &Node) -> bool {
        let looked = self.cluster.newest(|state| {
            let own: BTreeSet<ReplicaId> = state
                .replicas()
                .filter(|known| *known.node.as_str() == *node.name)
                .map(|known| known.replica)
                .collect();
            state.shard_logs().all(|(_, log)| {
                let lead = log.lead.iter();
                let members = lead.flat_map(|lead| lead.voters.iter().chain(&lead.learners));
                log.placed.iter().chain(members).all(|replica| !own.contains(replica))
            })
        });
        looked.unwrap_or(false)
    }

    /// The shards become more, once in a run.
    async fn grow(&self) {
        if std::mem::replace(&mut *self.has_grown.lock(), true) {
            return;
        }
        let newest = |state: &State| state.generations().last().map(|last| last.map.clone());
        let Some(map) = self.cluster.newest(newest).flatten() else { return };
        let count = u32::try_from(map.shards().len()).unwrap_or(u32::MAX);
        let (after, shard_count) = (map.generation(), count.saturating_add(MORE_SHARDS));
        self.journal.note(format_args!("{shard_count} shards"));
        self.order(|| AddGeneration { after, shard_count }).await;
    }

    /// Has the metastore do something, however often it must be asked.
    async fn order<R: Request>(&self, request: impl Fn() -> R) -> Option<R::Answer> {
        for _ in 0..ATTEMPTS {
            let now = self.cluster.clock.now_unix();
            let asked = apply_at(&self.metastore, request(), now);
            match self.cluster.clock.timeout(LOOK * 10, asked).await {
                Some(Ok(answer)) => return Some(answer),
                Some(Err(Problem { kind: ErrorKind::Unavailable, .. })) | None => {}
                Some(Err(problem)) => {
                    self.journal.note(format_args!("an order was refused: {problem}"));
                }
            }
            self.sleep(LOOK).await;
        }
        None
    }

    /// Who is being drained stays.
    pub(crate) async fn end_drains(&self) {
        let draining = |state: &State| {
            let draining = state.nodes().filter(|node| node.state == NodeState::Draining);
            draining.map(|node| node.node.clone()).collect::<Vec<NodeId>>()
        };
        for node in self.cluster.newest(draining).unwrap_or_default() {
            self.order(|| SetNodeState { node: node.clone(), state: NodeState::Active }).await;
        }
    }
}
