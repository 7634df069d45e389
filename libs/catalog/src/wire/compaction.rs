//! The encoding of compactions, dead objects, deletions and tenants' settings.

use std::sync::Arc;
use std::time::Duration;

use clew_model::{TraceId, UnixNanos};
use prost::Message;

use super::{KeyMessage, ObjectMessage, id16, key, object, object_message, shard, tenant};
use crate::compaction::{DeadObject, Job, JobSpec, Strikes, TenantSettings, TenantTerms};
use crate::deletion::{Deletion, DeletionScope};
use crate::error::DecodeError;
use crate::ident::{DeletionId, JobId, RequestId};
use crate::key::ObjectKey;
use crate::object::ObjectMeta;

/// The version of a job's description that this release writes.
const SPEC_VERSION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct JobMessage {
    #[prost(uint64, tag = "1")]
    job: u64,
    #[prost(string, tag = "2")]
    worker: String,
    #[prost(bytes = "vec", tag = "3")]
    request: Vec<u8>,
    #[prost(uint32, tag = "4")]
    shard: u32,
    #[prost(uint32, tag = "5")]
    level: u32,
    #[prost(message, repeated, tag = "6")]
    inputs: Vec<KeyMessage>,
    #[prost(fixed64, tag = "7")]
    expires_at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeadMessage {
    #[prost(message, optional, tag = "1")]
    object: Option<ObjectMessage>,
    #[prost(fixed64, tag = "2")]
    at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StrikesMessage {
    #[prost(message, optional, tag = "1")]
    key: Option<KeyMessage>,
    #[prost(uint32, tag = "2")]
    count: u32,
    #[prost(string, tag = "3")]
    reason: String,
    #[prost(fixed64, tag = "4")]
    at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SettingsMessage {
    #[prost(string, tag = "1")]
    pub(crate) tenant: String,
    /// Nanoseconds; zero keeps for ever, missing is as for all.
    #[prost(uint64, optional, tag = "2")]
    age: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    bytes: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeletionMessage {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(bytes = "vec", tag = "2")]
    request: Vec<u8>,
    #[prost(string, tag = "3")]
    tenant: String,
    /// Everything the tenant has, not single traces.
    #[prost(bool, tag = "4")]
    whole_tenant: bool,
    /// 16 bytes each, ascending.
    #[prost(bytes = "vec", tag = "5")]
    ids: Vec<u8>,
    #[prost(string, tag = "6")]
    query: String,
    #[prost(uint64, tag = "7")]
    named: u64,
    #[prost(fixed64, tag = "8")]
    at: u64,
    #[prost(fixed64, optional, tag = "9")]
    done_at: Option<u64>,
    #[prost(uint64, tag = "10")]
    traces: u64,
    #[prost(uint64, tag = "11")]
    spans: u64,
}

#[derive(Clone, PartialEq, Message)]
struct SpecMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    job: u64,
    #[prost(uint32, tag = "3")]
    shard: u32,
    #[prost(uint32, tag = "4")]
    level: u32,
    #[prost(fixed64, tag = "5")]
    expires_at: u64,
    #[prost(message, repeated, tag = "6")]
    inputs: Vec<ObjectMessage>,
    #[prost(message, repeated, tag = "7")]
    deletions: Vec<DeletionMessage>,
    #[prost(message, repeated, tag = "8")]
    tenants: Vec<TermsMessage>,
    #[prost(bool, tag = "9")]
    neighbours_known: bool,
    #[prost(message, repeated, tag = "10")]
    neighbours: Vec<ObjectMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct TermsMessage {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(fixed64, tag = "2")]
    expire_before: u64,
    #[prost(uint64, tag = "3")]
    class: u64,
}

pub(crate) fn keys(messages: &[KeyMessage]) -> Result<Vec<ObjectKey>, DecodeError> {
    messages.iter().map(|message| key(Some(*message))).collect()
}

pub(crate) fn key_messages(keys: &[ObjectKey]) -> Vec<KeyMessage> {
    keys.iter().map(|key| (*key).into()).collect()
}

pub(crate) fn ids_bytes(ids: &[TraceId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0).collect()
}

pub(crate) fn ids(bytes: &[u8]) -> Result<Vec<TraceId>, DecodeError> {
    let (ids, rest) = bytes.as_chunks::<16>();
    match rest {
        [] => Ok(ids.iter().copied().map(TraceId).collect()),
        _ => Err(DecodeError::Inconsistent { what: "trace ids" }),
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn job_message(job: &Job) -> JobMessage {
    JobMessage {
        job: job.job.0,
        worker: job.worker.clone(),
        request: job.request.0.to_vec(),
        shard: job.shard.0,
        level: job.level,
        inputs: key_messages(&job.inputs),
        expires_at: job.expires_at.0,
    }
}

pub(crate) fn job(message: &JobMessage) -> Result<Job, DecodeError> {
    Ok(Job {
        job: JobId(message.job),
        worker: message.worker.clone(),
        request: RequestId(id16(&message.request)?),
        shard: shard(message.shard)?,
        level: message.level,
        inputs: keys(&message.inputs)?,
        expires_at: UnixNanos(message.expires_at),
    })
}

pub(crate) fn dead_message(dead: &DeadObject) -> DeadMessage {
    DeadMessage { object: Some(object_message(&dead.object, |_| 0)), at: dead.at.0 }
}

pub(crate) fn dead(message: &DeadMessage) -> Result<DeadObject, DecodeError> {
    let known = message.object.as_ref().ok_or(DecodeError::Malformed)?;
    let known = object(known, &[])?;
    known.validate().map_err(|_| DecodeError::Inconsistent { what: "dead object" })?;
    Ok(DeadObject { object: Arc::new(known), at: UnixNanos(message.at) })
}

pub(crate) fn strikes_message((key, strikes): (&ObjectKey, &Strikes)) -> StrikesMessage {
    StrikesMessage {
        key: Some((*key).into()),
        count: strikes.count,
        reason: strikes.reason.clone(),
        at: strikes.at.0,
    }
}

pub(crate) fn strikes(message: &StrikesMessage) -> Result<(ObjectKey, Strikes), DecodeError> {
    let strikes =
        Strikes { count: message.count, reason: message.reason.clone(), at: UnixNanos(message.at) };
    Ok((key(message.key)?, strikes))
}

pub(crate) fn settings_message(tenant: &str, settings: &TenantSettings) -> SettingsMessage {
    SettingsMessage {
        tenant: tenant.to_owned(),
        age: settings.age.map(nanos),
        bytes: settings.bytes,
    }
}

pub(crate) fn settings(message: &SettingsMessage) -> TenantSettings {
    TenantSettings { age: message.age.map(Duration::from_nanos), bytes: message.bytes }
}

pub(crate) fn deletion_message(deletion: &Deletion) -> DeletionMessage {
    DeletionMessage {
        id: deletion.id.0,
        request: deletion.request.0.to_vec(),
        tenant: deletion.tenant.to_string(),
        whole_tenant: deletion.scope == DeletionScope::Tenant,
        ids: ids_bytes(deletion.ids()),
        query: deletion.query.clone(),
        named: deletion.named,
        at: deletion.at.0,
        done_at: deletion.done_at.map(|at| at.0),
        traces: deletion.traces,
        spans: deletion.spans,
    }
}

pub(crate) fn deletion(message: &DeletionMessage) -> Result<Deletion, DecodeError> {
    let named = ids(&message.ids)?;
    if !named.is_sorted_by(|a, b| a < b) {
        return Err(DecodeError::Inconsistent { what: "deleted traces" });
    }
    let scope = match message.whole_tenant {
        true if named.is_empty() => DeletionScope::Tenant,
        true => return Err(DecodeError::Inconsistent { what: "deletion" }),
        false => DeletionScope::Traces(named.into()),
    };
    Ok(Deletion {
        id: DeletionId(message.id),
        request: RequestId(id16(&message.request)?),
        tenant: tenant(&message.tenant)?,
        scope,
        query: message.query.clone(),
        named: message.named,
        at: UnixNanos(message.at),
        done_at: message.done_at.map(UnixNanos),
        traces: message.traces,
        spans: message.spans,
    })
}

pub(crate) fn encode_spec(spec: &JobSpec) -> Vec<u8> {
    let objects = |objects: &[Arc<ObjectMeta>]| {
        objects.iter().map(|object| object_message(object, |_| 0)).collect()
    };
    let terms = |terms: &TenantTerms| TermsMessage {
        tenant: terms.tenant.to_string(),
        expire_before: terms.expire_before.0,
        class: nanos(terms.class),
    };
    SpecMessage {
        version: SPEC_VERSION,
        job: spec.job.0,
        shard: spec.shard.0,
        level: spec.level,
        expires_at: spec.expires_at.0,
        inputs: objects(&spec.inputs),
        deletions: spec.deletions.iter().map(|known| deletion_message(known)).collect(),
        tenants: spec.tenants.iter().map(terms).collect(),
        neighbours_known: spec.neighbours.is_some(),
        neighbours: objects(spec.neighbours.as_deref().unwrap_or_default()),
    }
    .encode_to_vec()
}

pub(crate) fn decode_spec(bytes: &[u8]) -> Result<JobSpec, DecodeError> {
    let message = SpecMessage::decode(bytes)?;
    match message.version {
        SPEC_VERSION => {}
        0 => return Err(DecodeError::Malformed),
        version => return Err(DecodeError::Unsupported { version }),
    }
    let objects = |messages: &[ObjectMessage]| {
        let known = messages.iter().map(|message| object(message, &[]).map(Arc::new));
        known.collect::<Result<Vec<_>, _>>()
    };
    let terms = |message: &TermsMessage| {
        Ok(TenantTerms {
            tenant: tenant(&message.tenant)?,
            expire_before: UnixNanos(message.expire_before),
            class: Duration::from_nanos(message.class),
        })
    };
    let neighbours = objects(&message.neighbours)?;
    Ok(JobSpec {
        job: JobId(message.job),
        shard: shard(message.shard)?,
        level: message.level,
        expires_at: UnixNanos(message.expires_at),
        inputs: objects(&message.inputs)?,
        deletions: message
            .deletions
            .iter()
            .map(|known| deletion(known).map(Arc::new))
            .collect::<Result<_, _>>()?,
        tenants: message.tenants.iter().map(terms).collect::<Result<_, DecodeError>>()?,
        neighbours: message.neighbours_known.then_some(neighbours),
    })
}
