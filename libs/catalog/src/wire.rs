//! The encodings of catalog data on disk and between nodes. Field numbers are never reused; a new
//! field must mean what it always meant when it is missing.

pub(crate) mod command;
pub(crate) mod compaction;
pub(crate) mod job_commands;
pub(crate) mod outcome;
pub(crate) mod snapshot;
pub(crate) mod topology;
pub(crate) mod view;

use std::sync::Arc;

use clew_model::{TenantId, TraceId, UnixNanos};
use clew_ring::{MapGeneration, MapShard, NodeId, SHARDS_MAX, ShardId};

use crate::error::DecodeError;
use crate::feature::FeatureLevel;
use crate::gap::Gap;
use crate::ident::{Incarnation, JobId, LogPoint, ReplicaId};
use crate::key::{CompactedKey, FlushKey, ObjectKey};
use crate::member::{NodeInfo, NodeState, Roles};
use crate::object::{ObjectMeta, TenantBlock};
use crate::state::{Generation, ReplicaInfo};
use crate::view::{Quarantine, ShardView};

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct PointMessage {
    #[prost(uint64, tag = "1")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) leader: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) index: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct KeyMessage {
    /// 0: a flush, 1: made by a compaction.
    #[prost(uint32, tag = "1")]
    pub(crate) kind: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) shard: u32,
    #[prost(uint64, tag = "3")]
    pub(crate) incarnation: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) through: u64,
    #[prost(fixed64, tag = "5")]
    pub(crate) random: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) job: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlockMessage {
    /// The tenant's place in a table of the same message, from 1; 0 when it is spelled out.
    #[prost(uint32, tag = "1")]
    pub(crate) tenant_place: u32,
    #[prost(string, tag = "2")]
    pub(crate) tenant: String,
    #[prost(uint64, tag = "3")]
    pub(crate) offset: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) length: u64,
    #[prost(uint32, tag = "5")]
    pub(crate) footer_length: u32,
    #[prost(fixed64, tag = "6")]
    pub(crate) min_time: u64,
    #[prost(fixed64, tag = "7")]
    pub(crate) max_time: u64,
    #[prost(uint64, tag = "8")]
    pub(crate) spans: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) traces: u64,
    #[prost(uint64, tag = "10")]
    pub(crate) splits: u64,
    /// Lowest and highest trace id, 16 bytes each, or nothing.
    #[prost(bytes = "vec", tag = "11")]
    pub(crate) ids: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ObjectMessage {
    #[prost(message, optional, tag = "1")]
    pub(crate) key: Option<KeyMessage>,
    #[prost(uint64, tag = "2")]
    pub(crate) size: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) from: u64,
    #[prost(message, optional, tag = "4")]
    pub(crate) through: Option<PointMessage>,
    #[prost(uint32, tag = "5")]
    pub(crate) level: u32,
    #[prost(fixed64, tag = "6")]
    pub(crate) created_at: u64,
    #[prost(message, repeated, tag = "7")]
    pub(crate) blocks: Vec<BlockMessage>,
    /// Missing in an object that was written before there was compaction: as `created_at`.
    #[prost(fixed64, optional, tag = "8")]
    pub(crate) data_at: Option<u64>,
    #[prost(uint64, tag = "9")]
    pub(crate) revision: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct MapShardMessage {
    #[prost(uint32, tag = "1")]
    pub(crate) shard: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) group: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GenerationMessage {
    #[prost(uint64, tag = "1")]
    pub(crate) generation: u64,
    #[prost(message, repeated, tag = "2")]
    pub(crate) shards: Vec<MapShardMessage>,
    #[prost(fixed64, tag = "3")]
    pub(crate) created_at: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ShardMessage {
    #[prost(uint32, tag = "1")]
    pub(crate) shard: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    #[prost(message, optional, tag = "3")]
    pub(crate) watermark: Option<PointMessage>,
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) replicas: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct QuarantineMessage {
    #[prost(message, optional, tag = "1")]
    pub(crate) key: Option<KeyMessage>,
    #[prost(string, tag = "2")]
    pub(crate) tenant: String,
    #[prost(string, tag = "3")]
    pub(crate) reason: String,
    #[prost(fixed64, tag = "4")]
    pub(crate) at: u64,
    #[prost(fixed64, tag = "5")]
    pub(crate) min_time: u64,
    #[prost(fixed64, tag = "6")]
    pub(crate) max_time: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodeMessage {
    #[prost(string, tag = "1")]
    pub(crate) node: String,
    #[prost(string, tag = "2")]
    pub(crate) addr: String,
    #[prost(string, tag = "3")]
    pub(crate) zone: String,
    #[prost(uint32, tag = "4")]
    pub(crate) capacity: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) roles: u32,
    #[prost(fixed64, tag = "6")]
    pub(crate) first_seen: u64,
    #[prost(fixed64, tag = "7")]
    pub(crate) last_seen: u64,
    #[prost(uint32, tag = "8")]
    pub(crate) state: u32,
    #[prost(uint64, tag = "9")]
    pub(crate) replica: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReplicaMessage {
    #[prost(uint64, tag = "1")]
    pub(crate) replica: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) disk: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(crate) node: String,
}

/// A feature level as a number. The first is not written: releases before levels wrote none.
pub(crate) fn level_number(level: FeatureLevel) -> u32 {
    if level == FeatureLevel::FIRST { 0 } else { level.0 }
}

pub(crate) fn level(number: u32) -> FeatureLevel {
    FeatureLevel(number.max(FeatureLevel::FIRST.0))
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GapMessage {
    #[prost(uint32, tag = "1")]
    pub(crate) shard: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) from: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) through: u64,
    #[prost(message, optional, tag = "5")]
    pub(crate) object: Option<KeyMessage>,
    #[prost(fixed64, tag = "6")]
    pub(crate) min_time: u64,
    #[prost(fixed64, tag = "7")]
    pub(crate) max_time: u64,
    #[prost(fixed64, tag = "8")]
    pub(crate) at: u64,
}

/// The content of an id of 16 bytes.
pub(crate) fn id16(bytes: &[u8]) -> Result<[u8; 16], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::Inconsistent { what: "id" })
}

pub(crate) fn tenant(text: &str) -> Result<TenantId, DecodeError> {
    TenantId::parse(text).map_err(|_| DecodeError::Inconsistent { what: "tenant" })
}

pub(crate) fn node(text: &str) -> Result<NodeId, DecodeError> {
    NodeId::parse(text).map_err(|_| DecodeError::Inconsistent { what: "node" })
}

pub(crate) fn shard(number: u32) -> Result<ShardId, DecodeError> {
    if number >= SHARDS_MAX {
        return Err(DecodeError::Inconsistent { what: "shard" });
    }
    Ok(ShardId(number))
}

impl From<LogPoint> for PointMessage {
    fn from(point: LogPoint) -> PointMessage {
        let LogPoint { term, leader, index } = point;
        PointMessage { term, leader, index }
    }
}

impl From<PointMessage> for LogPoint {
    fn from(point: PointMessage) -> LogPoint {
        let PointMessage { term, leader, index } = point;
        LogPoint { term, leader, index }
    }
}

/// A missing point is the one before the first entry.
pub(crate) fn point(message: Option<PointMessage>) -> LogPoint {
    message.unwrap_or_default().into()
}

impl From<ObjectKey> for KeyMessage {
    fn from(key: ObjectKey) -> KeyMessage {
        match key {
            ObjectKey::Flush(FlushKey { shard, incarnation, through, random }) => KeyMessage {
                kind: 0,
                shard: shard.0,
                incarnation: incarnation.0,
                through,
                random,
                job: 0,
            },
            ObjectKey::Compacted(CompactedKey { shard, job, random }) => {
                let job = job.0;
                KeyMessage { kind: 1, shard: shard.0, incarnation: 0, through: 0, random, job }
            }
        }
    }
}

pub(crate) fn key(message: Option<KeyMessage>) -> Result<ObjectKey, DecodeError> {
    let inconsistent = DecodeError::Inconsistent { what: "object key" };
    let KeyMessage { kind, shard: number, incarnation, through, random, job } =
        message.ok_or(inconsistent.clone())?;
    match (kind, incarnation, through, job) {
        (0, _, _, 0) => {
            Ok(ObjectKey::flush(shard(number)?, Incarnation(incarnation), through, random))
        }
        (1, 0, 0, _) => Ok(ObjectKey::compacted(shard(number)?, JobId(job), random)),
        _ => Err(inconsistent),
    }
}

/// An object as a message; `place` gives a tenant's place in a table, or 0 to spell it out.
pub(crate) fn object_message(
    object: &ObjectMeta,
    place: impl Fn(&TenantId) -> u32,
) -> ObjectMessage {
    let block = |block: &TenantBlock| {
        let tenant_place = place(&block.tenant);
        BlockMessage {
            tenant_place,
            tenant: if tenant_place == 0 { block.tenant.to_string() } else { String::new() },
            offset: block.offset,
            length: block.length,
            footer_length: block.footer_length,
            min_time: block.min_time.0,
            max_time: block.max_time.0,
            spans: block.spans,
            traces: block.traces,
            splits: block.splits,
            ids: block.ids.map_or_else(Vec::new, |(low, high)| [low.0, high.0].concat()),
        }
    };
    ObjectMessage {
        key: Some(object.key.into()),
        size: object.size,
        from: object.from,
        through: Some(object.through.into()),
        level: object.level,
        created_at: object.created_at.0,
        blocks: object.tenants.iter().map(block).collect(),
        data_at: Some(object.data_at.0),
        revision: object.revision,
    }
}

/// The object in a message whose tenants are spelled out or in `table`. Not validated.
pub(crate) fn object(
    message: &ObjectMessage,
    table: &[TenantId],
) -> Result<ObjectMeta, DecodeError> {
    let block = |block: &BlockMessage| {
        let tenant = match block.tenant_place.checked_sub(1) {
            None => tenant(&block.tenant)?,
            Some(place) => usize::try_from(place)
                .ok()
                .and_then(|place| table.get(place))
                .ok_or(DecodeError::Inconsistent { what: "tenant place" })?
                .clone(),
        };
        Ok(TenantBlock {
            tenant,
            offset: block.offset,
            length: block.length,
            footer_length: block.footer_length,
            min_time: UnixNanos(block.min_time),
            max_time: UnixNanos(block.max_time),
            spans: block.spans,
            traces: block.traces,
            splits: block.splits,
            ids: trace_ids(&block.ids)?,
        })
    };
    Ok(ObjectMeta {
        key: key(message.key)?,
        size: message.size,
        from: message.from,
        through: point(message.through),
        level: message.level,
        created_at: UnixNanos(message.created_at),
        data_at: UnixNanos(message.data_at.unwrap_or(message.created_at)),
        revision: message.revision,
        tenants: message.blocks.iter().map(block).collect::<Result<_, DecodeError>>()?,
    })
}

fn trace_ids(bytes: &[u8]) -> Result<Option<(TraceId, TraceId)>, DecodeError> {
    match bytes.as_chunks::<16>() {
        ([], []) => Ok(None),
        ([low, high], []) => Ok(Some((TraceId(*low), TraceId(*high)))),
        _ => Err(DecodeError::Inconsistent { what: "trace ids" }),
    }
}

pub(crate) fn generation_message(generation: &Generation) -> GenerationMessage {
    let shard = |s: &MapShard| MapShardMessage { shard: s.shard.0, group: s.group };
    GenerationMessage {
        generation: generation.map.generation(),
        shards: generation.map.shards().iter().map(shard).collect(),
        created_at: generation.created_at.0,
    }
}

pub(crate) fn generation(message: &GenerationMessage) -> Result<Generation, DecodeError> {
    let shards = message.shards.iter();
    let shards = shards.map(|s| MapShard { shard: ShardId(s.shard), group: s.group }).collect();
    let map = MapGeneration::new(message.generation, shards)
        .map_err(|_| DecodeError::Inconsistent { what: "map generation" })?;
    Ok(Generation { map: Arc::new(map), created_at: UnixNanos(message.created_at) })
}

pub(crate) fn shard_message(view: &ShardView) -> ShardMessage {
    ShardMessage {
        shard: view.shard.0,
        incarnation: view.incarnation.0,
        watermark: Some(view.watermark.into()),
        replicas: view.replicas.iter().map(|replica| replica.0).collect(),
    }
}

pub(crate) fn shard_view(message: &ShardMessage) -> Result<ShardView, DecodeError> {
    Ok(ShardView {
        shard: shard(message.shard)?,
        incarnation: Incarnation(message.incarnation),
        watermark: point(message.watermark),
        replicas: message.replicas.iter().copied().map(ReplicaId).collect(),
    })
}

pub(crate) fn quarantine_message(quarantine: &Quarantine) -> QuarantineMessage {
    QuarantineMessage {
        key: Some(quarantine.object.into()),
        tenant: quarantine.tenant.to_string(),
        reason: quarantine.reason.clone(),
        at: quarantine.at.0,
        min_time: quarantine.min_time.0,
        max_time: quarantine.max_time.0,
    }
}

pub(crate) fn quarantine(message: &QuarantineMessage) -> Result<Quarantine, DecodeError> {
    Ok(Quarantine {
        object: key(message.key)?,
        tenant: tenant(&message.tenant)?,
        reason: message.reason.clone(),
        at: UnixNanos(message.at),
        min_time: UnixNanos(message.min_time),
        max_time: UnixNanos(message.max_time),
    })
}

pub(crate) fn gap_message(gap: &Gap) -> GapMessage {
    GapMessage {
        shard: gap.shard.0,
        incarnation: gap.incarnation.0,
        from: gap.from,
        through: gap.through,
        object: gap.object.map(KeyMessage::from),
        min_time: gap.min_time.0,
        max_time: gap.max_time.0,
        at: gap.at.0,
    }
}

pub(crate) fn gap(message: &GapMessage) -> Result<Gap, DecodeError> {
    Ok(Gap {
        shard: shard(message.shard)?,
        incarnation: Incarnation(message.incarnation),
        from: message.from,
        through: message.through,
        object: message.object.map(|object| key(Some(object))).transpose()?,
        min_time: UnixNanos(message.min_time),
        max_time: UnixNanos(message.max_time),
        at: UnixNanos(message.at),
    })
}

pub(crate) fn node_message(info: &NodeInfo) -> NodeMessage {
    NodeMessage {
        node: info.node.to_string(),
        addr: info.addr.clone(),
        zone: info.zone.clone(),
        capacity: info.capacity,
        roles: info.roles.0,
        first_seen: info.first_seen.0,
        last_seen: info.last_seen.0,
        state: node_state_number(info.state),
        replica: info.replica.map_or(0, |replica| replica.0),
    }
}

pub(crate) fn node_state_number(state: NodeState) -> u32 {
    match state {
        NodeState::Active => 0,
        NodeState::Draining => 1,
    }
}

pub(crate) fn node_state(number: u32) -> Result<NodeState, DecodeError> {
    match number {
        0 => Ok(NodeState::Active),
        1 => Ok(NodeState::Draining),
        _ => Err(DecodeError::Inconsistent { what: "node state" }),
    }
}

pub(crate) fn node_info(message: &NodeMessage) -> Result<NodeInfo, DecodeError> {
    Ok(NodeInfo {
        node: node(&message.node)?,
        addr: message.addr.clone(),
        zone: message.zone.clone(),
        capacity: message.capacity,
        roles: Roles(message.roles),
        first_seen: UnixNanos(message.first_seen),
        last_seen: UnixNanos(message.last_seen),
        state: node_state(message.state)?,
        replica: (message.replica > 0).then_some(ReplicaId(message.replica)),
    })
}

pub(crate) fn replica_message(info: &ReplicaInfo) -> ReplicaMessage {
    ReplicaMessage {
        replica: info.replica.0,
        disk: info.disk.0.to_vec(),
        node: info.node.to_string(),
    }
}

pub(crate) fn replica_info(message: &ReplicaMessage) -> Result<ReplicaInfo, DecodeError> {
    Ok(ReplicaInfo {
        replica: ReplicaId(message.replica),
        disk: crate::ident::DiskId(id16(&message.disk)?),
        node: node(&message.node)?,
    })
}
