//! Which nodes hold the replicas of a shard.

use std::collections::BTreeSet;

use consistent_hash::{Node, StaticHashRing};

use crate::hash::hash;
use crate::map::ShardId;
use crate::node::NodeId;
use crate::table::{RingKey, RingPoints};

/// Points on the ring for each unit of a node's capacity, after capacities are brought to at most
/// [`CAPACITY_MAX`].
const POINTS: usize = 64;

/// Larger capacities are scaled down together, so that the ring stays small.
const CAPACITY_MAX: u64 = 64;

const NODE_SEED: u64 = 0x636c_6577_2d6e_6f64;
const SHARD_SEED: u64 = 0x636c_6577_2d73_6864;

/// A node that can hold replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub node: NodeId,
    /// Its failure zone; empty when unknown.
    pub zone: String,
    /// Its share compared with the other nodes; 0 counts as 1.
    pub capacity: u32,
}

/// The live nodes prepared for placing many shards.
#[derive(Debug)]
pub struct Placement<'a> {
    ring: StaticHashRing<'a, RingKey, &'a Candidate, RingPoints>,
}

impl<'a> Placement<'a> {
    /// Prepares these nodes; of several with one name the first counts.
    pub fn new(nodes: &'a [Candidate]) -> Placement<'a> {
        let largest = nodes.iter().map(|node| u64::from(node.capacity)).max().unwrap_or(1).max(1);
        let quantity = |node: &Candidate| {
            let capacity = u64::from(node.capacity.max(1));
            let units = if largest > CAPACITY_MAX {
                (capacity * CAPACITY_MAX).div_ceil(largest)
            } else {
                capacity
            };
            POINTS * usize::try_from(units).unwrap_or(1)
        };
        let mut names = BTreeSet::new();
        let unique = nodes.iter().filter(|node| names.insert(&node.node));
        let ring_node = |node: &'a Candidate| Node {
            key: RingKey(hash(NODE_SEED, node.node.as_str().as_bytes())),
            value: node,
            quantity: quantity(node),
        };
        let ring_nodes: Vec<_> = unique.map(ring_node).collect();
        Placement { ring: StaticHashRing::new(RingPoints, ring_nodes.into_iter()) }
    }

    /// The nodes that hold the `count` replicas of `shard`, the preferred leader first: different
    /// nodes, in different zones while there are any, fewer if there are fewer nodes.
    pub fn replicas(&self, shard: ShardId, count: usize) -> Vec<NodeId> {
        let item = RingKey(hash(SHARD_SEED, &shard.0.to_le_bytes()));
        let order: Vec<&Candidate> = self.ring.calc_candidates(&item).map(|n| n.value).collect();
        let mut zones = BTreeSet::new();
        let (first, second): (Vec<&Candidate>, Vec<&Candidate>) =
            order.into_iter().partition(|node| node.zone.is_empty() || zones.insert(&node.zone));
        first.into_iter().chain(second).take(count).map(|node| node.node.clone()).collect()
    }
}

/// The nodes that hold the replicas of one shard: see [`Placement::replicas`].
pub fn place_replicas(shard: ShardId, nodes: &[Candidate], count: usize) -> Vec<NodeId> {
    Placement::new(nodes).replicas(shard, count)
}
