//! Who is there, which shards there are, where their replicas live and who leads them: what every
//! process of a cluster follows, small enough to be sent whole after each change.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_ring::{NodeId, ShardId, ShardMap};

use crate::error::DecodeError;
use crate::feature::FeatureLevel;
use crate::ident::{ClusterId, Incarnation, ReplicaId};
use crate::member::NodeInfo;
use crate::state::{Generation, ReplicaInfo, map_of};
use crate::wire;

/// Who leads a shard's log, and its members, as the leader told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardLead {
    /// The term in which it leads.
    pub term: u64,
    /// The leader.
    pub leader: ReplicaId,
    /// Where in the log the members were decided.
    pub members_index: u64,
    /// The replicas that vote.
    pub voters: Vec<ReplicaId>,
    /// Those that receive the log without a vote.
    pub learners: Vec<ReplicaId>,
}

impl ShardLead {
    /// What makes one piece of news later than another.
    pub(crate) fn order(&self) -> (u64, u64) {
        (self.term, self.members_index)
    }
}

/// A shard with an open log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlace {
    /// The shard.
    pub shard: ShardId,
    /// The incarnation of its log.
    pub incarnation: Incarnation,
    /// The replicas the log starts with.
    pub first: Vec<ReplicaId>,
    /// The replicas that shall hold it, the one that shall lead first.
    pub placed: Vec<ReplicaId>,
    /// Who leads it; nothing before it began.
    pub lead: Option<ShardLead>,
    /// The catalog was restored and nobody has led the log since: whoever has a replica of it opens
    /// it, nobody begins it, and nobody removes one.
    pub awaits: bool,
}

impl ShardPlace {
    /// Whether the replica belongs to the log, or shall, or may still be needed by it.
    pub fn has(&self, replica: ReplicaId) -> bool {
        let member = match &self.lead {
            Some(lead) => lead.voters.contains(&replica) || lead.learners.contains(&replica),
            None => self.first.contains(&replica),
        };
        member || self.placed.contains(&replica)
    }

    /// Whether the members are those that are wanted.
    pub fn is_settled(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| {
            lead.learners.is_empty()
                && lead.voters.len() == self.placed.len()
                && lead.voters.iter().all(|voter| self.placed.contains(voter))
        })
    }
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// The last revision that may have changed it.
    pub revision: u64,
    /// The cluster, once created.
    pub cluster: Option<ClusterId>,
    /// The level of features that may be used.
    pub feature_level: FeatureLevel,
    /// The nodes that ever registered, by name.
    pub nodes: Vec<NodeInfo>,
    /// The replicas ever issued.
    pub replicas: Vec<ReplicaInfo>,
    /// The live map generations, ascending.
    pub generations: Vec<Generation>,
    /// The shards with an open log.
    pub shards: BTreeMap<ShardId, ShardPlace>,
}

impl Topology {
    /// The live map generations as a shard map.
    pub fn shard_map(&self) -> ShardMap {
        map_of(&self.generations)
    }

    /// The node of that name.
    pub fn node(&self, node: &NodeId) -> Option<&NodeInfo> {
        self.nodes.iter().find(|info| info.node == *node)
    }

    /// The node that the replica's disk is attached to.
    pub fn node_of(&self, replica: ReplicaId) -> Option<&NodeInfo> {
        let node = &self.replicas.iter().find(|info| info.replica == replica)?.node;
        self.node(node)
    }

    /// The newest generation whose shards have all been led, which writers use: its readers know it.
    pub fn writable(&self) -> Option<&Generation> {
        let led = |shard: &ShardId| self.shards.get(shard).is_some_and(|s| s.lead.is_some());
        let ready =
            |generation: &&Generation| generation.map.shards().iter().all(|s| led(&s.shard));
        self.generations.iter().rev().find(ready).or(self.generations.first())
    }

    /// The topology as bytes, to send it.
    pub fn encode(&self) -> Vec<u8> {
        wire::topology::encode(self)
    }

    /// The topology in `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not the encoding of a topology.
    pub fn decode(bytes: &[u8]) -> Result<Topology, DecodeError> {
        wire::topology::decode(bytes)
    }
}

/// A topology that is shared and replaced as a whole.
pub type SharedTopology = Arc<Topology>;
