//! The encoding of topologies, and of who leads a shard.

use clew_ring::ShardId;
use prost::Message;

use super::{GenerationMessage, NodeMessage, ReplicaMessage};
use crate::error::DecodeError;
use crate::ident::{ClusterId, Incarnation, ReplicaId};
use crate::topology::{ShardLead, ShardPlace, Topology};

/// The version of this encoding that this release writes.
const TOPOLOGY_VERSION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeadMessage {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    leader: u64,
    #[prost(uint64, tag = "3")]
    members_index: u64,
    #[prost(uint64, repeated, tag = "4")]
    voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "5")]
    learners: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct PlaceMessage {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(uint64, repeated, tag = "3")]
    first: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    placed: Vec<u64>,
    #[prost(message, optional, tag = "5")]
    lead: Option<LeadMessage>,
    #[prost(bool, tag = "6")]
    awaits: bool,
}

#[derive(Clone, PartialEq, Message)]
struct TopologyMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(bytes = "vec", optional, tag = "3")]
    cluster: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "4")]
    nodes: Vec<NodeMessage>,
    #[prost(message, repeated, tag = "5")]
    replicas: Vec<ReplicaMessage>,
    #[prost(message, repeated, tag = "6")]
    generations: Vec<GenerationMessage>,
    #[prost(message, repeated, tag = "7")]
    shards: Vec<PlaceMessage>,
    #[prost(uint32, tag = "8")]
    feature_level: u32,
}

fn numbers(replicas: &[ReplicaId]) -> Vec<u64> {
    replicas.iter().map(|replica| replica.0).collect()
}

fn replicas(numbers: &[u64]) -> Vec<ReplicaId> {
    numbers.iter().copied().map(ReplicaId).collect()
}

pub(crate) fn lead_message(lead: &ShardLead) -> LeadMessage {
    LeadMessage {
        term: lead.term,
        leader: lead.leader.0,
        members_index: lead.members_index,
        voters: numbers(&lead.voters),
        learners: numbers(&lead.learners),
    }
}

pub(crate) fn lead(message: &LeadMessage) -> ShardLead {
    ShardLead {
        term: message.term,
        leader: ReplicaId(message.leader),
        members_index: message.members_index,
        voters: replicas(&message.voters),
        learners: replicas(&message.learners),
    }
}

pub(crate) fn encode(topology: &Topology) -> Vec<u8> {
    let place = |place: &ShardPlace| PlaceMessage {
        shard: place.shard.0,
        incarnation: place.incarnation.0,
        first: numbers(&place.first),
        placed: numbers(&place.placed),
        lead: place.lead.as_ref().map(lead_message),
        awaits: place.awaits,
    };
    TopologyMessage {
        version: TOPOLOGY_VERSION,
        revision: topology.revision,
        cluster: topology.cluster.map(|cluster| cluster.0.to_vec()),
        nodes: topology.nodes.iter().map(super::node_message).collect(),
        replicas: topology.replicas.iter().map(super::replica_message).collect(),
        generations: topology.generations.iter().map(super::generation_message).collect(),
        shards: topology.shards.values().map(place).collect(),
        feature_level: super::level_number(topology.feature_level),
    }
    .encode_to_vec()
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Topology, DecodeError> {
    let message = TopologyMessage::decode(bytes)?;
    match message.version {
        TOPOLOGY_VERSION => {}
        0 => return Err(DecodeError::Malformed),
        version => return Err(DecodeError::Unsupported { version }),
    }
    let place = |place: &PlaceMessage| -> Result<(ShardId, ShardPlace), DecodeError> {
        let shard = super::shard(place.shard)?;
        let place = ShardPlace {
            shard,
            incarnation: Incarnation(place.incarnation),
            first: replicas(&place.first),
            placed: replicas(&place.placed),
            lead: place.lead.as_ref().map(lead),
            awaits: place.awaits,
        };
        Ok((shard, place))
    };
    let cluster = match &message.cluster {
        Some(cluster) => Some(ClusterId(super::id16(cluster)?)),
        None => None,
    };
    Ok(Topology {
        revision: message.revision,
        cluster,
        feature_level: super::level(message.feature_level),
        nodes: message.nodes.iter().map(super::node_info).collect::<Result<_, _>>()?,
        replicas: message.replicas.iter().map(super::replica_info).collect::<Result<_, _>>()?,
        generations: message.generations.iter().map(super::generation).collect::<Result<_, _>>()?,
        shards: message.shards.iter().map(place).collect::<Result<_, _>>()?,
    })
}
