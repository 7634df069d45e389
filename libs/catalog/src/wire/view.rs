//! The encoding of what readers fetch: views, changes and members.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_model::{TenantId, UnixNanos};
use prost::Message;

use super::compaction::{self, DeletionMessage};
use super::{
    GapMessage, GenerationMessage, KeyMessage, NodeMessage, ObjectMessage, QuarantineMessage,
    ReplicaMessage, ShardMessage,
};
use crate::changes::{Change, ChangeKind};
use crate::error::DecodeError;
use crate::ident::ClusterId;
use crate::key::ObjectKey;
use crate::object::ObjectMeta;
use crate::view::{Members, View};

/// The version of these encodings that this release writes.
const VIEW_VERSION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
struct ViewMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(bytes = "vec", optional, tag = "3")]
    cluster: Option<Vec<u8>>,
    #[prost(uint64, tag = "4")]
    incarnation: u64,
    #[prost(message, repeated, tag = "5")]
    generations: Vec<GenerationMessage>,
    #[prost(message, repeated, tag = "6")]
    shards: Vec<ShardMessage>,
    /// Whether the view covers all tenants; else those of `scope`.
    #[prost(bool, tag = "7")]
    all_tenants: bool,
    #[prost(string, repeated, tag = "8")]
    scope: Vec<String>,
    #[prost(message, repeated, tag = "9")]
    objects: Vec<ObjectMessage>,
    #[prost(message, repeated, tag = "10")]
    quarantined: Vec<QuarantineMessage>,
    #[prost(message, repeated, tag = "11")]
    deletions: Vec<DeletionMessage>,
    #[prost(message, repeated, tag = "12")]
    gaps: Vec<GapMessage>,
    #[prost(bool, tag = "13")]
    map_guessed: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ChangesMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<ChangeMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ChangeMessage {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(oneof = "ChangeBody", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    body: Option<ChangeBody>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum ChangeBody {
    #[prost(message, tag = "2")]
    ObjectAdded(ObjectMessage),
    #[prost(message, tag = "3")]
    BlockQuarantined(QuarantineMessage),
    #[prost(message, tag = "4")]
    ShardOpened(ShardMessage),
    #[prost(message, tag = "5")]
    GenerationAdded(GenerationMessage),
    #[prost(message, tag = "6")]
    ObjectsReplaced(ReplacedMessage),
    #[prost(message, tag = "7")]
    DeletionChanged(DeletionMessage),
    #[prost(message, tag = "8")]
    GapsChanged(GapsMessage),
    #[prost(message, tag = "9")]
    QuarantineLifted(LiftedMessage),
}

#[derive(Clone, PartialEq, Message)]
struct LiftedMessage {
    #[prost(message, optional, tag = "1")]
    object: Option<ObjectMessage>,
    #[prost(string, tag = "2")]
    tenant: String,
}

#[derive(Clone, PartialEq, Message)]
struct GapsMessage {
    #[prost(message, repeated, tag = "1")]
    gaps: Vec<GapMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ReplacedMessage {
    #[prost(message, repeated, tag = "1")]
    gone: Vec<KeyMessage>,
    #[prost(message, repeated, tag = "2")]
    added: Vec<ObjectMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct MembersMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(fixed64, tag = "3")]
    now: u64,
    #[prost(message, repeated, tag = "4")]
    nodes: Vec<NodeMessage>,
    #[prost(message, repeated, tag = "5")]
    replicas: Vec<ReplicaMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ObjectOnlyMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, optional, tag = "2")]
    object: Option<ObjectMessage>,
}

fn check(version: u32) -> Result<(), DecodeError> {
    match version {
        VIEW_VERSION => Ok(()),
        0 => Err(DecodeError::Malformed),
        version => Err(DecodeError::Unsupported { version }),
    }
}

fn decode_object(message: &ObjectMessage) -> Result<Arc<ObjectMeta>, DecodeError> {
    let object = super::object(message, &[])?;
    object.validate().map_err(|_| DecodeError::Inconsistent { what: "object" })?;
    Ok(Arc::new(object))
}

/// An object alone, as a shard leader sends it to a reader that is behind.
pub(crate) fn encode_object(object: &ObjectMeta) -> Vec<u8> {
    ObjectOnlyMessage { version: VIEW_VERSION, object: Some(super::object_message(object, |_| 0)) }
        .encode_to_vec()
}

pub(crate) fn decode_object_alone(bytes: &[u8]) -> Result<ObjectMeta, DecodeError> {
    let message = ObjectOnlyMessage::decode(bytes)?;
    check(message.version)?;
    let object = decode_object(message.object.as_ref().ok_or(DecodeError::Malformed)?)?;
    Ok(Arc::unwrap_or_clone(object))
}

pub(crate) fn encode_view(view: &View) -> Vec<u8> {
    let objects: BTreeMap<ObjectKey, &Arc<ObjectMeta>> =
        view.objects.values().flatten().map(|(key, object)| (*key, object)).collect();
    // Other tenants' blocks of a packed object are none of the reader's business.
    let object = |object: &Arc<ObjectMeta>| {
        let mut message = super::object_message(object, |_| 0);
        if let Some(scope) = &view.scope {
            message.blocks.retain(|block| scope.iter().any(|t| t.as_str() == block.tenant));
        }
        message
    };
    ViewMessage {
        version: VIEW_VERSION,
        revision: view.revision,
        cluster: view.cluster.map(|cluster| cluster.0.to_vec()),
        incarnation: view.incarnation,
        generations: view.generations.iter().map(super::generation_message).collect(),
        shards: view.shards.values().map(super::shard_message).collect(),
        all_tenants: view.scope.is_none(),
        scope: view.scope.iter().flatten().map(TenantId::to_string).collect(),
        objects: objects.into_values().map(object).collect(),
        quarantined: view.quarantined.values().map(super::quarantine_message).collect(),
        deletions: view.deletions.values().map(|d| compaction::deletion_message(d)).collect(),
        gaps: view.gaps.iter().map(super::gap_message).collect(),
        map_guessed: view.map_guessed,
    }
    .encode_to_vec()
}

pub(crate) fn decode_view(bytes: &[u8]) -> Result<View, DecodeError> {
    let message = ViewMessage::decode(bytes)?;
    check(message.version)?;
    let scope = message.scope.iter().map(|name| super::tenant(name)).collect::<Result<_, _>>()?;
    let mut view = View {
        revision: message.revision,
        cluster: None,
        incarnation: message.incarnation,
        generations: Vec::new(),
        shards: BTreeMap::new(),
        scope: (!message.all_tenants).then_some(scope),
        objects: BTreeMap::new(),
        quarantined: BTreeMap::new(),
        deletions: BTreeMap::new(),
        gaps: message.gaps.iter().map(super::gap).collect::<Result<_, _>>()?,
        map_guessed: message.map_guessed,
    };
    if let Some(cluster) = &message.cluster {
        view.cluster = Some(ClusterId(super::id16(cluster)?));
    }
    for generation in &message.generations {
        view.generations.push(super::generation(generation)?);
    }
    for shard in &message.shards {
        let shard = super::shard_view(shard)?;
        view.shards.insert(shard.shard, shard);
    }
    for quarantine in &message.quarantined {
        let quarantine = super::quarantine(quarantine)?;
        view.quarantined.insert((quarantine.tenant.clone(), quarantine.object), quarantine);
    }
    for deletion in &message.deletions {
        let deletion = compaction::deletion(deletion)?;
        view.deletions.insert(deletion.id, Arc::new(deletion));
    }
    for object in &message.objects {
        view.list_object(&decode_object(object)?);
    }
    Ok(view)
}

pub(crate) fn encode_changes(changes: &[Change]) -> Vec<u8> {
    let body = |kind: &ChangeKind| match kind {
        ChangeKind::ObjectAdded(object) => {
            ChangeBody::ObjectAdded(super::object_message(object, |_| 0))
        }
        ChangeKind::BlockQuarantined(quarantine) => {
            ChangeBody::BlockQuarantined(super::quarantine_message(quarantine))
        }
        ChangeKind::QuarantineLifted { object, tenant } => {
            let object = Some(super::object_message(object, |_| 0));
            ChangeBody::QuarantineLifted(LiftedMessage { object, tenant: tenant.to_string() })
        }
        ChangeKind::ShardOpened(shard) => ChangeBody::ShardOpened(super::shard_message(shard)),
        ChangeKind::GenerationAdded(generation) => {
            ChangeBody::GenerationAdded(super::generation_message(generation))
        }
        ChangeKind::ObjectsReplaced { gone, added } => {
            let added = added.iter().map(|object| super::object_message(object, |_| 0)).collect();
            ChangeBody::ObjectsReplaced(ReplacedMessage {
                gone: compaction::key_messages(gone),
                added,
            })
        }
        ChangeKind::DeletionChanged(deletion) => {
            ChangeBody::DeletionChanged(compaction::deletion_message(deletion))
        }
        ChangeKind::GapsChanged(gaps) => ChangeBody::GapsChanged(GapsMessage {
            gaps: gaps.iter().map(super::gap_message).collect(),
        }),
    };
    let change = |c: &Change| ChangeMessage { revision: c.revision, body: Some(body(&c.kind)) };
    let changes = changes.iter().map(change).collect();
    ChangesMessage { version: VIEW_VERSION, changes }.encode_to_vec()
}

pub(crate) fn decode_changes(bytes: &[u8]) -> Result<Vec<Change>, DecodeError> {
    let message = ChangesMessage::decode(bytes)?;
    check(message.version)?;
    let change = |message: &ChangeMessage| {
        // A reader that skipped a change it does not know would show less without saying so.
        let body =
            message.body.as_ref().ok_or(DecodeError::Unsupported { version: VIEW_VERSION })?;
        let kind = match body {
            ChangeBody::ObjectAdded(object) => ChangeKind::ObjectAdded(decode_object(object)?),
            ChangeBody::BlockQuarantined(quarantine) => {
                ChangeKind::BlockQuarantined(super::quarantine(quarantine)?)
            }
            ChangeBody::QuarantineLifted(lifted) => ChangeKind::QuarantineLifted {
                object: decode_object(lifted.object.as_ref().ok_or(DecodeError::Malformed)?)?,
                tenant: super::tenant(&lifted.tenant)?,
            },
            ChangeBody::ShardOpened(shard) => ChangeKind::ShardOpened(super::shard_view(shard)?),
            ChangeBody::GenerationAdded(generation) => {
                ChangeKind::GenerationAdded(super::generation(generation)?)
            }
            ChangeBody::ObjectsReplaced(replaced) => ChangeKind::ObjectsReplaced {
                gone: compaction::keys(&replaced.gone)?,
                added: replaced.added.iter().map(decode_object).collect::<Result<_, _>>()?,
            },
            ChangeBody::DeletionChanged(deletion) => {
                ChangeKind::DeletionChanged(Arc::new(compaction::deletion(deletion)?))
            }
            ChangeBody::GapsChanged(message) => ChangeKind::GapsChanged(
                message.gaps.iter().map(super::gap).collect::<Result<_, _>>()?,
            ),
        };
        Ok(Change { revision: message.revision, kind })
    };
    message.changes.iter().map(change).collect()
}

pub(crate) fn encode_members(members: &Members) -> Vec<u8> {
    MembersMessage {
        version: VIEW_VERSION,
        revision: members.revision,
        now: members.now.0,
        nodes: members.nodes.iter().map(super::node_message).collect(),
        replicas: members.replicas.iter().map(super::replica_message).collect(),
    }
    .encode_to_vec()
}

pub(crate) fn decode_members(bytes: &[u8]) -> Result<Members, DecodeError> {
    let message = MembersMessage::decode(bytes)?;
    check(message.version)?;
    Ok(Members {
        revision: message.revision,
        now: UnixNanos(message.now),
        nodes: message.nodes.iter().map(super::node_info).collect::<Result<_, _>>()?,
        replicas: message.replicas.iter().map(super::replica_info).collect::<Result<_, _>>()?,
    })
}
