//! The encoding of a whole catalog, equal for equal states.

use std::collections::{BTreeMap, BTreeSet};

use clew_model::{TenantId, UnixNanos};
use prost::Message;

use super::compaction::{
    self, DeadMessage, DeletionMessage, JobMessage, SettingsMessage, StrikesMessage,
};
use super::topology::{LeadMessage, lead, lead_message};
use super::{
    GapMessage, GenerationMessage, NodeMessage, ObjectMessage, PointMessage, QuarantineMessage,
    ReplicaMessage, ShardMessage,
};
use crate::changes::ChangeLog;
use crate::error::DecodeError;
use crate::ident::{ClusterId, JobId, ReplicaId, RequestId};
use crate::state::{ShardLog, State};
use crate::view::ShardView;

/// The version of the snapshot encoding that this release writes.
pub(crate) const SNAPSHOT_VERSION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
struct SnapshotMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(fixed64, tag = "3")]
    now: u64,
    #[prost(bytes = "vec", optional, tag = "4")]
    cluster: Option<Vec<u8>>,
    #[prost(uint64, tag = "5")]
    incarnation: u64,
    #[prost(uint64, tag = "6")]
    last_incarnation: u64,
    #[prost(message, repeated, tag = "7")]
    generations: Vec<GenerationMessage>,
    #[prost(message, repeated, tag = "8")]
    nodes: Vec<NodeMessage>,
    #[prost(message, repeated, tag = "9")]
    replicas: Vec<ReplicaMessage>,
    #[prost(message, repeated, tag = "10")]
    shards: Vec<ShardLogMessage>,
    /// The tenants that objects name by place, sorted.
    #[prost(string, repeated, tag = "11")]
    tenants: Vec<String>,
    #[prost(message, repeated, tag = "12")]
    objects: Vec<ObjectMessage>,
    #[prost(message, repeated, tag = "13")]
    quarantined: Vec<QuarantineMessage>,
    #[prost(message, repeated, tag = "14")]
    jobs: Vec<JobMessage>,
    #[prost(uint64, repeated, tag = "15")]
    finished: Vec<u64>,
    #[prost(message, repeated, tag = "16")]
    dead: Vec<DeadMessage>,
    #[prost(message, repeated, tag = "17")]
    strikes: Vec<StrikesMessage>,
    #[prost(message, repeated, tag = "18")]
    settings: Vec<SettingsMessage>,
    #[prost(message, repeated, tag = "19")]
    deletions: Vec<DeletionMessage>,
    #[prost(uint64, tag = "20")]
    dropped_at: u64,
    #[prost(uint32, tag = "21")]
    feature_level: u32,
    #[prost(uint64, tag = "22")]
    replica_floor: u64,
    #[prost(message, repeated, tag = "23")]
    gaps: Vec<GapMessage>,
    #[prost(bool, tag = "24")]
    map_guessed: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ShardLogMessage {
    #[prost(message, optional, tag = "1")]
    shard: Option<ShardMessage>,
    #[prost(fixed64, tag = "2")]
    opened_at: u64,
    #[prost(bytes = "vec", tag = "3")]
    opened_by: Vec<u8>,
    /// Where it is placed, if that is not where it started.
    #[prost(uint64, repeated, tag = "4")]
    placed: Vec<u64>,
    #[prost(message, optional, tag = "5")]
    lead: Option<LeadMessage>,
    #[prost(bool, tag = "6")]
    awaits: bool,
    #[prost(message, optional, tag = "7")]
    ahead: Option<PointMessage>,
}

pub(crate) fn encode(state: &State) -> Vec<u8> {
    let names: BTreeSet<&TenantId> =
        state.objects.values().flat_map(|o| &o.tenants).map(|block| &block.tenant).collect();
    let tenants = names.iter().map(|name| name.to_string()).collect();
    let places: BTreeMap<&TenantId, u32> = names.into_iter().zip(1..).collect();
    let place = |tenant: &TenantId| places.get(tenant).copied().unwrap_or(0);
    let shard = |(shard, log): (&clew_ring::ShardId, &ShardLog)| ShardLogMessage {
        shard: Some(super::shard_message(&ShardView::new(*shard, log))),
        opened_at: log.opened_at.0,
        opened_by: log.opened_by.0.to_vec(),
        placed: match log.placed == log.replicas {
            true => Vec::new(),
            false => log.placed.iter().map(|replica| replica.0).collect(),
        },
        lead: log.lead.as_ref().map(lead_message),
        awaits: log.awaits,
        ahead: log.ahead.map(PointMessage::from),
    };
    SnapshotMessage {
        version: SNAPSHOT_VERSION,
        revision: state.revision,
        now: state.now.0,
        cluster: state.cluster.map(|cluster| cluster.0.to_vec()),
        incarnation: state.incarnation,
        last_incarnation: state.last_incarnation,
        generations: state.generations.iter().map(super::generation_message).collect(),
        nodes: state.nodes.values().map(super::node_message).collect(),
        replicas: state.replicas.values().map(super::replica_message).collect(),
        shards: state.shards.iter().map(shard).collect(),
        tenants,
        objects: state.objects.values().map(|o| super::object_message(o, place)).collect(),
        quarantined: state.quarantined.values().map(super::quarantine_message).collect(),
        jobs: state.jobs.values().map(compaction::job_message).collect(),
        finished: state.finished.iter().map(|job| job.0).collect(),
        dead: state.dead.values().map(compaction::dead_message).collect(),
        strikes: state.strikes.iter().map(compaction::strikes_message).collect(),
        settings: state
            .settings
            .iter()
            .map(|(tenant, settings)| compaction::settings_message(tenant.as_str(), settings))
            .collect(),
        deletions: state.deletions.values().map(|d| compaction::deletion_message(d)).collect(),
        dropped_at: state.dropped_at,
        feature_level: super::level_number(state.feature_level),
        replica_floor: state.replica_floor,
        gaps: state.gaps.iter().map(super::gap_message).collect(),
        map_guessed: state.map_guessed,
    }
    .encode_to_vec()
}

pub(crate) fn decode(bytes: &[u8]) -> Result<State, DecodeError> {
    let message = SnapshotMessage::decode(bytes)?;
    if message.version != SNAPSHOT_VERSION {
        return Err(DecodeError::Unsupported { version: message.version });
    }
    let mut state = State {
        revision: message.revision,
        now: UnixNanos(message.now),
        incarnation: message.incarnation,
        last_incarnation: message.last_incarnation,
        feature_level: super::level(message.feature_level),
        replica_floor: message.replica_floor,
        map_guessed: message.map_guessed,
        gaps: message.gaps.iter().map(super::gap).collect::<Result<_, _>>()?,
        changes: ChangeLog::starting_after(message.revision),
        topology_revision: message.revision,
        ..State::new()
    };
    if let Some(cluster) = &message.cluster {
        state.cluster = Some(ClusterId(super::id16(cluster)?));
    }
    for generation in &message.generations {
        state.generations.push(super::generation(generation)?);
    }
    ascending("map generations", state.generations.iter().map(|g| g.map.generation()))?;
    for node in &message.nodes {
        let info = super::node_info(node)?;
        state.nodes.insert(info.node.clone(), info);
    }
    for replica in &message.replicas {
        let info = super::replica_info(replica)?;
        state.replica_disks.insert(info.replica, info.disk);
        state.replicas.insert(info.disk, info);
    }
    if state.replica_disks.len() != state.replicas.len() {
        return Err(DecodeError::Inconsistent { what: "replicas" });
    }
    for shard in &message.shards {
        decode_shard(&mut state, shard)?;
    }
    decode_objects(&mut state, &message)?;
    decode_compaction(&mut state, &message)?;
    let same_counts = state.nodes.len() == message.nodes.len()
        && state.replicas.len() == message.replicas.len()
        && state.shards.len() == message.shards.len();
    if !same_counts {
        return Err(DecodeError::Inconsistent { what: "duplicates" });
    }
    Ok(state)
}

fn decode_shard(state: &mut State, message: &ShardLogMessage) -> Result<(), DecodeError> {
    let shard = message.shard.as_ref().ok_or(DecodeError::Inconsistent { what: "shard" })?;
    let view = super::shard_view(shard)?;
    if view.incarnation.0 > state.last_incarnation {
        return Err(DecodeError::Inconsistent { what: "incarnation" });
    }
    let placed = match message.placed.is_empty() {
        true => view.replicas.clone(),
        false => message.placed.iter().copied().map(ReplicaId).collect(),
    };
    let log = ShardLog {
        placed,
        lead: message.lead.as_ref().map(lead),
        awaits: message.awaits,
        ahead: message.ahead.map(Into::into),
        incarnation: view.incarnation,
        watermark: view.watermark,
        replicas: view.replicas,
        opened_at: UnixNanos(message.opened_at),
        opened_by: RequestId(super::id16(&message.opened_by)?),
    };
    state.shards.insert(view.shard, log);
    Ok(())
}

fn decode_objects(state: &mut State, message: &SnapshotMessage) -> Result<(), DecodeError> {
    // Quarantines come first, so that the index of readable blocks is built right at once.
    for quarantine in &message.quarantined {
        let quarantine = super::quarantine(quarantine)?;
        state.quarantined.insert((quarantine.tenant.clone(), quarantine.object), quarantine);
    }
    let table =
        message.tenants.iter().map(|name| super::tenant(name)).collect::<Result<Vec<_>, _>>()?;
    ascending("tenants", table.iter())?;
    for object in &message.objects {
        let object = super::object(object, &table)?;
        object.validate().map_err(|_| DecodeError::Inconsistent { what: "object" })?;
        state.insert_object(object);
    }
    let whole = |(tenant, key): &(TenantId, crate::ObjectKey)| {
        state.objects.get(key).is_some_and(|object| object.block(tenant).is_some())
    };
    if state.objects.len() != message.objects.len()
        || state.quarantined.len() != message.quarantined.len()
        || !state.quarantined.keys().all(whole)
    {
        return Err(DecodeError::Inconsistent { what: "objects" });
    }
    Ok(())
}

fn decode_compaction(state: &mut State, message: &SnapshotMessage) -> Result<(), DecodeError> {
    state.dropped_at = message.dropped_at;
    state.finished = message.finished.iter().copied().map(JobId).collect();
    for job in &message.jobs {
        let job = compaction::job(job)?;
        state.busy.extend(job.inputs.iter().map(|key| (*key, job.job)));
        state.jobs.insert(job.job, job);
    }
    for dead in &message.dead {
        let dead = compaction::dead(dead)?;
        if state.objects.contains_key(&dead.object.key) {
            return Err(DecodeError::Inconsistent { what: "dead object" });
        }
        state.dead.insert(dead.object.key, dead);
    }
    for strikes in &message.strikes {
        let (key, strikes) = compaction::strikes(strikes)?;
        state.strikes.insert(key, strikes);
    }
    for settings in &message.settings {
        let tenant = super::tenant(&settings.tenant)?;
        state.settings.insert(tenant, compaction::settings(settings));
    }
    for deletion in &message.deletions {
        let deletion = compaction::deletion(deletion)?;
        state.deletions.insert(deletion.id, std::sync::Arc::new(deletion));
    }
    let same_counts = state.jobs.len() == message.jobs.len()
        && state.dead.len() == message.dead.len()
        && state.strikes.len() == message.strikes.len()
        && state.settings.len() == message.settings.len()
        && state.deletions.len() == message.deletions.len();
    let held: usize = state.jobs.values().map(|job| job.inputs.len()).sum();
    if !same_counts || held != state.busy.len() {
        return Err(DecodeError::Inconsistent { what: "duplicates" });
    }
    Ok(())
}

fn ascending<T: PartialOrd>(
    what: &'static str,
    values: impl Iterator<Item = T>,
) -> Result<(), DecodeError> {
    if values.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(DecodeError::Inconsistent { what }) }
}
