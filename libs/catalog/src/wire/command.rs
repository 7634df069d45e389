//! The encoding of commands in the metastore's log.

use clew_model::UnixNanos;
use prost::Message;

use super::job_commands::{self, Wire as _};
use super::topology::{LeadMessage, lead, lead_message};
use super::{KeyMessage, ObjectMessage, PointMessage};
use crate::command::{
    AcceptGap, AddGeneration, COMMAND_BYTES_MAX, COMMAND_VERSION, ClaimLog, Command, CommitFlush,
    CreateCluster, ForgetGaps, ForgetNode, IssueReplicaId, LiftQuarantine, NoteLead, OpenShardLog,
    PlaceShard, QuarantineBlock, RaiseFeatureLevel, RegisterNode, SetNodeState,
};
use crate::error::DecodeError;
use crate::feature::FeatureRange;
use crate::ident::{ClusterId, DiskId, Incarnation, LogPoint, ReplicaId, RequestId};
use crate::member::Roles;
use crate::outcome::Refusal;

#[derive(Clone, PartialEq, Message)]
struct CommandMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(fixed64, tag = "2")]
    at: u64,
    #[prost(
        oneof = "Body",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35"
    )]
    body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Body {
    #[prost(message, tag = "10")]
    CreateCluster(CreateClusterMessage),
    #[prost(message, tag = "11")]
    RegisterNode(RegisterNodeMessage),
    #[prost(message, tag = "12")]
    IssueReplicaId(IssueReplicaIdMessage),
    #[prost(message, tag = "13")]
    OpenShardLog(OpenShardLogMessage),
    #[prost(message, tag = "14")]
    CommitFlush(CommitFlushMessage),
    #[prost(message, tag = "15")]
    QuarantineBlock(QuarantineBlockMessage),
    #[prost(message, tag = "16")]
    NoteLead(NoteLeadMessage),
    #[prost(message, tag = "17")]
    PlaceShard(PlaceShardMessage),
    #[prost(message, tag = "18")]
    SetNodeState(SetNodeStateMessage),
    #[prost(message, tag = "19")]
    AddGeneration(AddGenerationMessage),
    #[prost(message, tag = "20")]
    BeginJob(job_commands::BeginJobMessage),
    #[prost(message, tag = "21")]
    RenewJob(job_commands::RenewJobMessage),
    #[prost(message, tag = "22")]
    CommitJob(job_commands::CommitJobMessage),
    #[prost(message, tag = "23")]
    AbandonJob(job_commands::AbandonJobMessage),
    #[prost(message, tag = "24")]
    DropBlocks(job_commands::DropBlocksMessage),
    #[prost(message, tag = "25")]
    ConfirmDeleted(job_commands::ConfirmDeletedMessage),
    #[prost(message, tag = "26")]
    DeleteTraces(job_commands::DeleteTracesMessage),
    #[prost(message, tag = "27")]
    RemoveTenant(job_commands::RemoveTenantMessage),
    #[prost(message, tag = "28")]
    SetTenant(job_commands::SetTenantMessage),
    #[prost(message, tag = "29")]
    RaiseFeatureLevel(RaiseFeatureLevelMessage),
    #[prost(message, tag = "30")]
    ForgetNode(ForgetNodeMessage),
    #[prost(message, tag = "31")]
    ClaimLog(ClaimLogMessage),
    #[prost(message, tag = "32")]
    AcceptGap(AcceptGapMessage),
    #[prost(message, tag = "33")]
    ForgetGaps(ForgetGapsMessage),
    #[prost(message, tag = "34")]
    Unpark(job_commands::UnparkMessage),
    #[prost(message, tag = "35")]
    LiftQuarantine(LiftQuarantineMessage),
}

#[derive(Clone, Copy, PartialEq, Message)]
struct RaiseFeatureLevelMessage {
    #[prost(uint32, tag = "1")]
    to: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ForgetNodeMessage {
    #[prost(string, tag = "1")]
    node: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct FeaturesMessage {
    #[prost(uint32, tag = "1")]
    oldest: u32,
    #[prost(uint32, tag = "2")]
    newest: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ClaimLogMessage {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(uint64, tag = "3")]
    replica: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct AcceptGapMessage {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ForgetGapsMessage {
    #[prost(uint32, optional, tag = "1")]
    shard: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct NoteLeadMessage {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(message, optional, tag = "3")]
    lead: Option<LeadMessage>,
    #[prost(message, optional, tag = "4")]
    flushed: Option<PointMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct PlaceShardMessage {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(uint64, repeated, tag = "3")]
    from: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    to: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct SetNodeStateMessage {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(uint32, tag = "2")]
    state: u32,
}

#[derive(Clone, PartialEq, Message)]
struct AddGenerationMessage {
    #[prost(uint64, tag = "1")]
    after: u64,
    #[prost(uint32, tag = "2")]
    shard_count: u32,
}

#[derive(Clone, PartialEq, Message)]
struct CreateClusterMessage {
    #[prost(bytes = "vec", tag = "1")]
    cluster: Vec<u8>,
    #[prost(uint32, tag = "2")]
    shard_count: u32,
}

#[derive(Clone, PartialEq, Message)]
struct RegisterNodeMessage {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(string, tag = "2")]
    addr: String,
    #[prost(string, tag = "3")]
    zone: String,
    #[prost(uint32, tag = "4")]
    capacity: u32,
    #[prost(uint32, tag = "5")]
    roles: u32,
    /// Missing from a release that is older than levels.
    #[prost(message, optional, tag = "6")]
    features: Option<FeaturesMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct IssueReplicaIdMessage {
    #[prost(bytes = "vec", tag = "1")]
    disk: Vec<u8>,
    #[prost(string, tag = "2")]
    node: String,
    #[prost(uint64, optional, tag = "3")]
    holds: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct OpenShardLogMessage {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint64, repeated, tag = "2")]
    replicas: Vec<u64>,
    #[prost(uint64, optional, tag = "3")]
    replaces: Option<u64>,
    #[prost(bytes = "vec", tag = "4")]
    request: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct CommitFlushMessage {
    #[prost(message, optional, tag = "1")]
    object: Option<ObjectMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct QuarantineBlockMessage {
    #[prost(message, optional, tag = "1")]
    key: Option<KeyMessage>,
    #[prost(string, tag = "2")]
    tenant: String,
    #[prost(string, tag = "3")]
    reason: String,
}

#[derive(Clone, PartialEq, Message)]
struct LiftQuarantineMessage {
    #[prost(message, optional, tag = "1")]
    key: Option<KeyMessage>,
    #[prost(string, tag = "2")]
    tenant: String,
}

pub(crate) fn encode(command: &Command, at: UnixNanos) -> Vec<u8> {
    let body = match command {
        Command::CreateCluster(c) => Body::CreateCluster(CreateClusterMessage {
            cluster: c.cluster.0.to_vec(),
            shard_count: c.shard_count,
        }),
        Command::RegisterNode(c) => Body::RegisterNode(RegisterNodeMessage {
            node: c.node.to_string(),
            addr: c.addr.clone(),
            zone: c.zone.clone(),
            capacity: c.capacity,
            roles: c.roles.0,
            features: (c.features != FeatureRange::default()).then_some(FeaturesMessage {
                oldest: c.features.oldest.0,
                newest: c.features.newest.0,
            }),
        }),
        Command::IssueReplicaId(c) => Body::IssueReplicaId(IssueReplicaIdMessage {
            disk: c.disk.0.to_vec(),
            node: c.node.to_string(),
            holds: c.holds.map(|replica| replica.0),
        }),
        Command::OpenShardLog(c) => Body::OpenShardLog(OpenShardLogMessage {
            shard: c.shard.0,
            replicas: c.replicas.iter().map(|replica| replica.0).collect(),
            replaces: c.replaces.map(|incarnation| incarnation.0),
            request: c.request.0.to_vec(),
        }),
        Command::CommitFlush(c) => Body::CommitFlush(CommitFlushMessage {
            object: Some(super::object_message(&c.object, |_| 0)),
        }),
        Command::QuarantineBlock(c) => Body::QuarantineBlock(QuarantineBlockMessage {
            key: Some(c.object.into()),
            tenant: c.tenant.to_string(),
            reason: c.reason.clone(),
        }),
        Command::NoteLead(c) => Body::NoteLead(NoteLeadMessage {
            shard: c.shard.0,
            incarnation: c.incarnation.0,
            lead: Some(lead_message(&c.lead)),
            flushed: (c.flushed != LogPoint::default()).then(|| c.flushed.into()),
        }),
        Command::PlaceShard(c) => Body::PlaceShard(PlaceShardMessage {
            shard: c.shard.0,
            incarnation: c.incarnation.0,
            from: c.from.iter().map(|replica| replica.0).collect(),
            to: c.to.iter().map(|replica| replica.0).collect(),
        }),
        Command::SetNodeState(c) => Body::SetNodeState(SetNodeStateMessage {
            node: c.node.to_string(),
            state: super::node_state_number(c.state),
        }),
        Command::AddGeneration(c) => {
            Body::AddGeneration(AddGenerationMessage { after: c.after, shard_count: c.shard_count })
        }
        Command::BeginJob(c) => Body::BeginJob(c.to_message()),
        Command::RenewJob(c) => Body::RenewJob(c.to_message()),
        Command::CommitJob(c) => Body::CommitJob(c.to_message()),
        Command::AbandonJob(c) => Body::AbandonJob(c.to_message()),
        Command::DropBlocks(c) => Body::DropBlocks(c.to_message()),
        Command::ConfirmDeleted(c) => Body::ConfirmDeleted(c.to_message()),
        Command::DeleteTraces(c) => Body::DeleteTraces(c.to_message()),
        Command::RemoveTenant(c) => Body::RemoveTenant(c.to_message()),
        Command::SetTenant(c) => Body::SetTenant(c.to_message()),
        Command::RaiseFeatureLevel(c) => {
            Body::RaiseFeatureLevel(RaiseFeatureLevelMessage { to: c.to.0 })
        }
        Command::ForgetNode(c) => Body::ForgetNode(ForgetNodeMessage { node: c.node.to_string() }),
        Command::ClaimLog(c) => Body::ClaimLog(ClaimLogMessage {
            shard: c.shard.0,
            incarnation: c.incarnation.0,
            replica: c.replica.0,
        }),
        Command::AcceptGap(c) => {
            Body::AcceptGap(AcceptGapMessage { shard: c.shard.0, incarnation: c.incarnation.0 })
        }
        Command::ForgetGaps(c) => {
            Body::ForgetGaps(ForgetGapsMessage { shard: c.shard.map(|shard| shard.0) })
        }
        Command::Unpark(c) => Body::Unpark(c.to_message()),
        Command::LiftQuarantine(c) => Body::LiftQuarantine(LiftQuarantineMessage {
            key: Some(c.object.into()),
            tenant: c.tenant.to_string(),
        }),
    };
    CommandMessage { version: COMMAND_VERSION, at: at.0, body: Some(body) }.encode_to_vec()
}

pub(crate) fn decode(bytes: &[u8]) -> Result<(UnixNanos, Command), Refusal> {
    if bytes.len() > COMMAND_BYTES_MAX {
        let reason = format!("larger than {COMMAND_BYTES_MAX} bytes: {}", bytes.len());
        return Err(Refusal::Invalid { reason });
    }
    let message = CommandMessage::decode(bytes).map_err(|_| Refusal::Malformed)?;
    let CommandMessage { version, at, body } = message;
    match (version, body) {
        (0, _) => Err(Refusal::Malformed),
        (COMMAND_VERSION, Some(body)) => match command(body) {
            Ok(command) => Ok((UnixNanos(at), command)),
            Err(error) => Err(Refusal::Invalid { reason: error.to_string() }),
        },
        (version, _) => Err(Refusal::Unsupported { version }),
    }
}

fn command(body: Body) -> Result<Command, DecodeError> {
    Ok(match body {
        Body::CreateCluster(m) => Command::CreateCluster(CreateCluster {
            cluster: ClusterId(super::id16(&m.cluster)?),
            shard_count: m.shard_count,
        }),
        Body::RegisterNode(m) => Command::RegisterNode(RegisterNode {
            node: super::node(&m.node)?,
            addr: m.addr,
            zone: m.zone,
            capacity: m.capacity,
            roles: Roles(m.roles),
            features: m.features.map_or_else(FeatureRange::default, |m| FeatureRange {
                oldest: super::level(m.oldest),
                newest: super::level(m.newest),
            }),
        }),
        Body::IssueReplicaId(m) => Command::IssueReplicaId(IssueReplicaId {
            disk: DiskId(super::id16(&m.disk)?),
            node: super::node(&m.node)?,
            holds: m.holds.map(ReplicaId),
        }),
        Body::OpenShardLog(m) => Command::OpenShardLog(OpenShardLog {
            shard: super::shard(m.shard)?,
            replicas: m.replicas.into_iter().map(ReplicaId).collect(),
            replaces: m.replaces.map(Incarnation),
            request: RequestId(super::id16(&m.request)?),
        }),
        Body::CommitFlush(m) => {
            let object = m.object.ok_or(DecodeError::Inconsistent { what: "object" })?;
            Command::CommitFlush(CommitFlush { object: super::object(&object, &[])? })
        }
        Body::QuarantineBlock(m) => Command::QuarantineBlock(QuarantineBlock {
            object: super::key(m.key)?,
            tenant: super::tenant(&m.tenant)?,
            reason: m.reason,
        }),
        Body::NoteLead(m) => Command::NoteLead(NoteLead {
            shard: super::shard(m.shard)?,
            incarnation: Incarnation(m.incarnation),
            lead: lead(&m.lead.ok_or(DecodeError::Inconsistent { what: "lead" })?),
            flushed: super::point(m.flushed),
        }),
        Body::PlaceShard(m) => Command::PlaceShard(PlaceShard {
            shard: super::shard(m.shard)?,
            incarnation: Incarnation(m.incarnation),
            from: m.from.into_iter().map(ReplicaId).collect(),
            to: m.to.into_iter().map(ReplicaId).collect(),
        }),
        Body::SetNodeState(m) => Command::SetNodeState(SetNodeState {
            node: super::node(&m.node)?,
            state: super::node_state(m.state)?,
        }),
        Body::AddGeneration(m) => {
            Command::AddGeneration(AddGeneration { after: m.after, shard_count: m.shard_count })
        }
        Body::BeginJob(m) => Command::BeginJob(job_commands::Wire::of_message(m)?),
        Body::RenewJob(m) => Command::RenewJob(job_commands::Wire::of_message(m)?),
        Body::CommitJob(m) => Command::CommitJob(job_commands::Wire::of_message(m)?),
        Body::AbandonJob(m) => Command::AbandonJob(job_commands::Wire::of_message(m)?),
        Body::DropBlocks(m) => Command::DropBlocks(job_commands::Wire::of_message(m)?),
        Body::ConfirmDeleted(m) => Command::ConfirmDeleted(job_commands::Wire::of_message(m)?),
        Body::DeleteTraces(m) => Command::DeleteTraces(job_commands::Wire::of_message(m)?),
        Body::RemoveTenant(m) => Command::RemoveTenant(job_commands::Wire::of_message(m)?),
        Body::SetTenant(m) => Command::SetTenant(job_commands::Wire::of_message(m)?),
        Body::RaiseFeatureLevel(m) => {
            Command::RaiseFeatureLevel(RaiseFeatureLevel { to: super::level(m.to) })
        }
        Body::ForgetNode(m) => Command::ForgetNode(ForgetNode { node: super::node(&m.node)? }),
        Body::ClaimLog(m) => Command::ClaimLog(ClaimLog {
            shard: super::shard(m.shard)?,
            incarnation: Incarnation(m.incarnation),
            replica: ReplicaId(m.replica),
        }),
        Body::AcceptGap(m) => Command::AcceptGap(AcceptGap {
            shard: super::shard(m.shard)?,
            incarnation: Incarnation(m.incarnation),
        }),
        Body::ForgetGaps(m) => {
            let shard = m.shard.map(super::shard).transpose()?;
            Command::ForgetGaps(ForgetGaps { shard })
        }
        Body::Unpark(m) => Command::Unpark(job_commands::Wire::of_message(m)?),
        Body::LiftQuarantine(m) => Command::LiftQuarantine(LiftQuarantine {
            object: super::key(m.key)?,
            tenant: super::tenant(&m.tenant)?,
        }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn later_commands_are_unsupported() {
        let later = CommandMessage { version: 2, at: 5, body: None }.encode_to_vec();
        assert_eq!(decode(&later), Err(Refusal::Unsupported { version: 2 }));
        let unknown_body = [8, 1, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0xaa, 0x06, 0];
        assert_eq!(decode(&unknown_body), Err(Refusal::Unsupported { version: 1 }));
        assert_eq!(decode(&[]), Err(Refusal::Malformed));
        assert!(matches!(decode(&vec![0; COMMAND_BYTES_MAX + 1]), Err(Refusal::Invalid { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((at, command)) = decode(&bytes) {
                prop_assert_eq!(decode(&encode(&command, at)), Ok((at, command)));
            }
        }
    }
}
