//! The encoding of the commands about compactions, deletions and tenants.

use std::time::Duration;

use clew_model::UnixNanos;
use prost::Message;

use super::compaction::{
    SettingsMessage, ids, ids_bytes, key_messages, keys, settings, settings_message,
};
use super::{KeyMessage, ObjectMessage, id16, key, object, object_message, tenant};
use crate::command::{
    AbandonJob, BeginJob, CommitJob, ConfirmDeleted, DeleteTraces, DropBlocks, RemoveTenant,
    Removed, RenewJob, SetTenant, Striking, Unpark,
};
use crate::error::DecodeError;
use crate::ident::{DeletionId, JobId, RequestId};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BeginJobMessage {
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<KeyMessage>,
    #[prost(uint32, tag = "2")]
    level: u32,
    #[prost(string, tag = "3")]
    worker: String,
    #[prost(bytes = "vec", tag = "4")]
    request: Vec<u8>,
    #[prost(fixed64, tag = "5")]
    expires_at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RenewJobMessage {
    #[prost(uint64, tag = "1")]
    job: u64,
    #[prost(fixed64, tag = "2")]
    expires_at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CommitJobMessage {
    #[prost(uint64, tag = "1")]
    job: u64,
    #[prost(message, repeated, tag = "2")]
    outputs: Vec<ObjectMessage>,
    #[prost(message, repeated, tag = "3")]
    kept: Vec<KeyMessage>,
    #[prost(message, repeated, tag = "4")]
    removed: Vec<RemovedMessage>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct RemovedMessage {
    #[prost(uint64, tag = "1")]
    deletion: u64,
    #[prost(uint64, tag = "2")]
    traces: u64,
    #[prost(uint64, tag = "3")]
    spans: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AbandonJobMessage {
    #[prost(uint64, tag = "1")]
    job: u64,
    #[prost(message, repeated, tag = "2")]
    strikes: Vec<StrikingMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct StrikingMessage {
    #[prost(message, optional, tag = "1")]
    object: Option<KeyMessage>,
    #[prost(uint32, tag = "2")]
    count: u32,
    #[prost(string, tag = "3")]
    reason: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DropBlocksMessage {
    #[prost(message, repeated, tag = "1")]
    objects: Vec<KeyMessage>,
    #[prost(message, repeated, tag = "2")]
    blocks: Vec<DroppedMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct DroppedMessage {
    #[prost(message, optional, tag = "1")]
    object: Option<KeyMessage>,
    #[prost(string, tag = "2")]
    tenant: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ConfirmDeletedMessage {
    #[prost(message, repeated, tag = "1")]
    objects: Vec<KeyMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteTracesMessage {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(bytes = "vec", tag = "2")]
    ids: Vec<u8>,
    #[prost(string, tag = "3")]
    query: String,
    #[prost(bytes = "vec", tag = "4")]
    request: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RemoveTenantMessage {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(bytes = "vec", tag = "2")]
    request: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SetTenantMessage {
    #[prost(message, optional, tag = "1")]
    settings: Option<SettingsMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct UnparkMessage {
    #[prost(message, repeated, tag = "1")]
    objects: Vec<KeyMessage>,
}

/// A command and its message, both ways.
pub(crate) trait Wire: Sized {
    type Message;

    fn to_message(&self) -> Self::Message;

    fn of_message(message: Self::Message) -> Result<Self, DecodeError>;
}

impl Wire for BeginJob {
    type Message = BeginJobMessage;

    fn to_message(&self) -> BeginJobMessage {
        BeginJobMessage {
            inputs: key_messages(&self.inputs),
            level: self.level,
            worker: self.worker.clone(),
            request: self.request.0.to_vec(),
            expires_at: self.expires_at.0,
        }
    }

    fn of_message(message: BeginJobMessage) -> Result<BeginJob, DecodeError> {
        Ok(BeginJob {
            inputs: keys(&message.inputs)?,
            level: message.level,
            worker: message.worker,
            request: RequestId(id16(&message.request)?),
            expires_at: UnixNanos(message.expires_at),
        })
    }
}

impl Wire for RenewJob {
    type Message = RenewJobMessage;

    fn to_message(&self) -> RenewJobMessage {
        RenewJobMessage { job: self.job.0, expires_at: self.expires_at.0 }
    }

    fn of_message(message: RenewJobMessage) -> Result<RenewJob, DecodeError> {
        let expires_at = UnixNanos(message.expires_at);
        Ok(RenewJob { job: JobId(message.job), expires_at })
    }
}

impl Wire for CommitJob {
    type Message = CommitJobMessage;

    fn to_message(&self) -> CommitJobMessage {
        let removed = |removed: &Removed| RemovedMessage {
            deletion: removed.deletion.0,
            traces: removed.traces,
            spans: removed.spans,
        };
        CommitJobMessage {
            job: self.job.0,
            outputs: self.outputs.iter().map(|object| object_message(object, |_| 0)).collect(),
            kept: key_messages(&self.kept),
            removed: self.removed.iter().map(removed).collect(),
        }
    }

    fn of_message(message: CommitJobMessage) -> Result<CommitJob, DecodeError> {
        let outputs = message.outputs.iter().map(|output| object(output, &[]));
        let removed = |removed: &RemovedMessage| Removed {
            deletion: DeletionId(removed.deletion),
            traces: removed.traces,
            spans: removed.spans,
        };
        Ok(CommitJob {
            job: JobId(message.job),
            outputs: outputs.collect::<Result<_, _>>()?,
            kept: keys(&message.kept)?,
            removed: message.removed.iter().map(removed).collect(),
        })
    }
}

impl Wire for AbandonJob {
    type Message = AbandonJobMessage;

    fn to_message(&self) -> AbandonJobMessage {
        let strike = |strike: &Striking| StrikingMessage {
            object: Some(strike.object.into()),
            count: strike.count,
            reason: strike.reason.clone(),
        };
        AbandonJobMessage { job: self.job.0, strikes: self.strikes.iter().map(strike).collect() }
    }

    fn of_message(message: AbandonJobMessage) -> Result<AbandonJob, DecodeError> {
        let strike = |strike: StrikingMessage| {
            let StrikingMessage { object, count, reason } = strike;
            Ok(Striking { object: key(object)?, count, reason })
        };
        let strikes = message.strikes.into_iter().map(strike);
        let strikes = strikes.collect::<Result<_, DecodeError>>()?;
        Ok(AbandonJob { job: JobId(message.job), strikes })
    }
}

impl Wire for DropBlocks {
    type Message = DropBlocksMessage;

    fn to_message(&self) -> DropBlocksMessage {
        let blocks = self.blocks.iter().map(|(object, tenant)| DroppedMessage {
            object: Some((*object).into()),
            tenant: tenant.to_string(),
        });
        DropBlocksMessage { objects: key_messages(&self.objects), blocks: blocks.collect() }
    }

    fn of_message(message: DropBlocksMessage) -> Result<DropBlocks, DecodeError> {
        let blocks = message.blocks.iter();
        let blocks = blocks.map(|block| Ok((key(block.object)?, tenant(&block.tenant)?)));
        Ok(DropBlocks {
            objects: keys(&message.objects)?,
            blocks: blocks.collect::<Result<_, DecodeError>>()?,
        })
    }
}

impl Wire for ConfirmDeleted {
    type Message = ConfirmDeletedMessage;

    fn to_message(&self) -> ConfirmDeletedMessage {
        ConfirmDeletedMessage { objects: key_messages(&self.objects) }
    }

    fn of_message(message: ConfirmDeletedMessage) -> Result<ConfirmDeleted, DecodeError> {
        Ok(ConfirmDeleted { objects: keys(&message.objects)? })
    }
}

impl Wire for DeleteTraces {
    type Message = DeleteTracesMessage;

    fn to_message(&self) -> DeleteTracesMessage {
        DeleteTracesMessage {
            tenant: self.tenant.to_string(),
            ids: ids_bytes(&self.ids),
            query: self.query.clone(),
            request: self.request.0.to_vec(),
        }
    }

    fn of_message(message: DeleteTracesMessage) -> Result<DeleteTraces, DecodeError> {
        Ok(DeleteTraces {
            tenant: tenant(&message.tenant)?,
            ids: ids(&message.ids)?,
            query: message.query,
            request: RequestId(id16(&message.request)?),
        })
    }
}

impl Wire for RemoveTenant {
    type Message = RemoveTenantMessage;

    fn to_message(&self) -> RemoveTenantMessage {
        let request = self.request.0.to_vec();
        RemoveTenantMessage { tenant: self.tenant.to_string(), request }
    }

    fn of_message(message: RemoveTenantMessage) -> Result<RemoveTenant, DecodeError> {
        let request = RequestId(id16(&message.request)?);
        Ok(RemoveTenant { tenant: tenant(&message.tenant)?, request })
    }
}

impl Wire for SetTenant {
    type Message = SetTenantMessage;

    fn to_message(&self) -> SetTenantMessage {
        let settings = settings_message(self.tenant.as_str(), &self.settings);
        SetTenantMessage { settings: Some(settings) }
    }

    fn of_message(message: SetTenantMessage) -> Result<SetTenant, DecodeError> {
        let of = message.settings.ok_or(DecodeError::Inconsistent { what: "settings" })?;
        let settings = settings(&of);
        // What is longer than this cannot be told from for ever.
        let longest = Duration::from_secs(100 * 365 * 86_400);
        if settings.age.is_some_and(|age| age > longest) {
            return Err(DecodeError::Inconsistent { what: "retention" });
        }
        Ok(SetTenant { tenant: tenant(&of.tenant)?, settings })
    }
}

impl Wire for Unpark {
    type Message = UnparkMessage;

    fn to_message(&self) -> UnparkMessage {
        UnparkMessage { objects: key_messages(&self.objects) }
    }

    fn of_message(message: UnparkMessage) -> Result<Unpark, DecodeError> {
        Ok(Unpark { objects: keys(&message.objects)? })
    }
}
