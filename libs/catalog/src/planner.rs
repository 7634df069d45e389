//! Where shards should be: the next commands that bring the cluster nearer to that.
//!
//! A pure function of the topology and of which nodes are alive, so that it is tested without a
//! cluster, and any member that comes to lead the metastore goes on where the last one stopped.
//!
//! - A shard has as many replicas as there are ingesters, at most [`REPLICAS`], on different nodes and
//!   in different zones where there are any, by consistent hashing.
//! - A dead replica is replaced when there is a node to take its place; never just given up, since
//!   that would not make the group any safer.
//! - A few shards move at a time; one that moves is left alone until it has arrived, unless the
//!   replica it waits for has died.
//! - Leaders are spread evenly, and stay where they are as long as that is even.

mod compaction;

pub use self::compaction::{CompactionOptions, PlannedJob};

use std::collections::{BTreeMap, BTreeSet};

use clew_ring::{Candidate, NodeId, Placement, ShardId};

use crate::command::{Command, OpenShardLog, PlaceShard};
use crate::ident::{ReplicaId, RequestId};
use crate::member::{NodeInfo, NodeState, Roles};
use crate::topology::{ShardPlace, Topology};

/// Replicas of a shard, if there are nodes for them.
pub(crate) const REPLICAS: usize = 3;

/// Shards that move at the same time.
const MOVES_MAX: usize = 4;

/// The commands to propose now; none if everything is where it should be. `alive` are the nodes that
/// have shown a sign of life lately.
pub fn plan_places(topology: &Topology, alive: &BTreeSet<NodeId>) -> Vec<Command> {
    let plan = Plan::new(topology, alive);
    if plan.candidates.is_empty() {
        return Vec::new();
    }
    let placement = Placement::new(&plan.candidates);
    let mut wanted = BTreeMap::new();
    for generation in &topology.generations {
        for shard in generation.map.shards() {
            let replicas = plan.wanted(&placement, shard.shard, topology.shards.get(&shard.shard));
            wanted.insert(shard.shard, replicas);
        }
    }
    plan.spread_leaders(&mut wanted);
    let mut moving = topology.shards.values().filter(|place| !place.is_settled()).count();
    let mut commands = Vec::new();
    for (shard, replicas) in wanted {
        match topology.shards.get(&shard) {
            None => commands.push(plan.open(shard, replicas)),
            Some(place) => {
                if let Some(command) = plan.place(place, replicas, &mut moving) {
                    commands.push(command);
                }
            }
        }
    }
    commands
}

/// What the plan goes by.
struct Plan<'a> {
    topology: &'a Topology,
    /// The nodes that can take replicas.
    candidates: Vec<Candidate>,
    /// Their replicas.
    replica_of: BTreeMap<NodeId, ReplicaId>,
    /// The replicas on disks that are attached to a node that takes part, alive or not.
    kept: BTreeSet<ReplicaId>,
    alive: BTreeSet<ReplicaId>,
}

impl<'a> Plan<'a> {
    fn new(topology: &'a Topology, alive: &BTreeSet<NodeId>) -> Plan<'a> {
        let takes_part = |node: &&NodeInfo| {
            node.roles.contains(Roles::INGESTER) && node.state == NodeState::Active
        };
        let mut plan = Plan {
            topology,
            candidates: Vec::new(),
            replica_of: BTreeMap::new(),
            kept: BTreeSet::new(),
            alive: BTreeSet::new(),
        };
        for node in topology.nodes.iter().filter(takes_part) {
            let Some(replica) = node.replica else { continue };
            plan.kept.insert(replica);
            if alive.contains(&node.node) {
                plan.alive.insert(replica);
                plan.replica_of.insert(node.node.clone(), replica);
                plan.candidates.push(Candidate {
                    node: node.node.clone(),
                    zone: node.zone.clone(),
                    capacity: node.capacity,
                });
            }
        }
        plan
    }

    /// Where a shard should be.
    fn wanted(
        &self,
        placement: &Placement<'_>,
        shard: ShardId,
        place: Option<&ShardPlace>,
    ) -> Vec<ReplicaId> {
        let nodes = placement.replicas(shard, REPLICAS);
        let mut replicas: Vec<ReplicaId> =
            nodes.iter().filter_map(|node| self.replica_of.get(node).copied()).collect();
        for dead in place.into_iter().flat_map(|place| &place.placed) {
            let missing = replicas.len() < REPLICAS;
            if missing && self.kept.contains(dead) && !replicas.contains(dead) {
                replicas.push(*dead);
            }
        }
        replicas
    }

    /// Puts the replica that should lead first, in every shard.
    fn spread_leaders(&self, wanted: &mut BTreeMap<ShardId, Vec<ReplicaId>>) {
        let fair = wanted.len().div_ceil(self.candidates.len().max(1));
        let mut leads: BTreeMap<ReplicaId, usize> = BTreeMap::new();
        let mut open = Vec::new();
        for (shard, replicas) in wanted.iter_mut() {
            let before = self.topology.shards.get(shard).and_then(|place| place.placed.first());
            let stays = before.and_then(|before| replicas.iter().position(|r| r == before));
            match stays.filter(|at| self.may_lead(replicas[*at], &leads, fair)) {
                Some(at) => {
                    replicas[..=at].rotate_right(1);
                    *leads.entry(replicas[0]).or_default() += 1;
                }
                None => open.push(*shard),
            }
        }
        for shard in open {
            let Some(replicas) = wanted.get_mut(&shard) else { continue };
            let load = |replica: &ReplicaId| leads.get(replica).copied().unwrap_or(0);
            let able = replicas.iter().enumerate().filter(|(_, r)| self.alive.contains(r));
            let Some(at) = able.min_by_key(|(at, r)| (load(r), *at)).map(|(at, _)| at) else {
                continue;
            };
            replicas[..=at].rotate_right(1);
            *leads.entry(replicas[0]).or_default() += 1;
        }
    }

    fn may_lead(
        &self,
        replica: ReplicaId,
        leads: &BTreeMap<ReplicaId, usize>,
        fair: usize,
    ) -> bool {
        self.alive.contains(&replica) && leads.get(&replica).copied().unwrap_or(0) < fair
    }

    fn open(&self, shard: ShardId, replicas: Vec<ReplicaId>) -> Command {
        // Names the attempt: the same state gives the same, and two states never do.
        let mut request = [0; 16];
        request[..4].copy_from_slice(&shard.0.to_be_bytes());
        request[8..].copy_from_slice(&self.topology.revision.to_be_bytes());
        let request = RequestId(request);
        Command::OpenShardLog(OpenShardLog { shard, replicas, replaces: None, request })
    }

    fn place(&self, place: &ShardPlace, to: Vec<ReplicaId>, moving: &mut usize) -> Option<Command> {
        let lead = place.lead.as_ref()?;
        if place.placed == to {
            return None;
        }
        let same = |a: &[ReplicaId], b: &[ReplicaId]| {
            a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
        };
        if !same(&place.placed, &to) {
            let waits_for_dead = |replica: &ReplicaId| {
                !lead.voters.contains(replica) && !self.alive.contains(replica)
            };
            if place.is_settled() {
                if *moving >= MOVES_MAX {
                    return None;
                }
                *moving += 1;
            } else if !place.placed.iter().any(waits_for_dead) {
                return None;
            }
        }
        let (shard, incarnation) = (place.shard, place.incarnation);
        Some(Command::PlaceShard(PlaceShard { shard, incarnation, from: place.placed.clone(), to }))
    }
}

#[cfg(test)]
mod tests;
