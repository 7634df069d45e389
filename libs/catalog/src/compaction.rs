//! What the catalog remembers of compactions, and of objects that nobody reads any more.
//!
//! An object is *live* until a job replaces it or its time is over. Then it is *dead*: no new query
//! sees it, its bytes stay for a grace so that queries which began before can end, and the catalog
//! forgets it only when its bytes are known to be gone.

use std::sync::Arc;
use std::time::Duration;

use clew_model::{TenantId, UnixNanos};
use clew_ring::ShardId;

use crate::deletion::Deletion;
use crate::error::DecodeError;
use crate::ident::{JobId, RequestId};
use crate::key::ObjectKey;
use crate::object::ObjectMeta;
use crate::wire;

/// The most objects that one job merges.
pub const JOB_INPUTS_MAX: usize = 256;

/// The highest level.
pub const LEVEL_MAX: u32 = 8;

/// An object with so many strikes is left alone: whatever is wrong with it, trying again does not
/// help.
pub const STRIKES_MAX: u32 = 12;

/// The strikes of a merge that failed at this object for a reason of its own.
pub const STRIKES_OF_FAILURE: u32 = 4;

/// The strikes of a merge that ended without a word: every input is a suspect.
pub const STRIKES_OF_SILENCE: u32 = 1;

/// A compaction under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Names it, and fences off earlier attempts.
    pub job: JobId,
    /// Who does it, for people.
    pub worker: String,
    /// The request that began it.
    pub request: RequestId,
    /// The shard of all its inputs.
    pub shard: ShardId,
    /// The level of what it makes.
    pub level: u32,
    /// What it merges, ascending.
    pub inputs: Vec<ObjectKey>,
    /// Past this time another job may take its inputs.
    pub expires_at: UnixNanos,
}

/// An object that is no longer read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadObject {
    /// What it was when it died.
    pub object: Arc<ObjectMeta>,
    /// When it died.
    pub at: UnixNanos,
}

/// What went wrong with an object so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strikes {
    /// How much; [`STRIKES_MAX`] parks it.
    pub count: u32,
    /// What the last worker said.
    pub reason: String,
    /// When.
    pub at: UnixNanos,
}

impl Strikes {
    /// Whether compactions leave the object alone.
    pub fn is_parked(&self) -> bool {
        self.count >= STRIKES_MAX
    }
}

/// How long spans are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Spans that ended longer ago are dropped; nothing keeps them for ever.
    pub age: Option<Duration>,
    /// Of more bytes in the bucket the oldest are dropped; nothing for no bound.
    pub bytes: Option<u64>,
}

/// What a tenant has of its own; what is missing is as for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantSettings {
    /// As [`Retention::age`]; zero keeps spans for ever.
    pub age: Option<Duration>,
    /// As [`Retention::bytes`]; zero is no bound.
    pub bytes: Option<u64>,
}

impl TenantSettings {
    /// The tenant's retention, where `default` is that of all.
    pub fn retention(&self, default: Retention) -> Retention {
        let age = match self.age {
            None => default.age,
            Some(age) => (!age.is_zero()).then_some(age),
        };
        let bytes = match self.bytes {
            None => default.bytes,
            Some(bytes) => (bytes > 0).then_some(bytes),
        };
        Retention { age, bytes }
    }
}

/// Everything that whoever merges the objects of a job has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    /// The job.
    pub job: JobId,
    /// The shard of its inputs.
    pub shard: ShardId,
    /// The level of what it makes.
    pub level: u32,
    /// When the lease ends, unless it is renewed.
    pub expires_at: UnixNanos,
    /// What it merges, ascending by key.
    pub inputs: Vec<Arc<ObjectMeta>>,
    /// Deletions that concern one of the inputs or more.
    pub deletions: Vec<Arc<Deletion>>,
    /// For each tenant of the inputs, in their order: when its spans are too old, and how long they
    /// are kept.
    pub tenants: Vec<TenantTerms>,
    /// Other objects that may hold spans of the inputs' traces; nothing if they are too many, and
    /// then every trace that is marked as split stays so.
    pub neighbours: Option<Vec<Arc<ObjectMeta>>>,
}

/// A tenant's retention, as a job applies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantTerms {
    /// The tenant.
    pub tenant: TenantId,
    /// Traces that ended before are dropped.
    pub expire_before: UnixNanos,
    /// How long the tenant's spans are kept, zero for ever: those of one class are packed together,
    /// so that they also go together.
    pub class: Duration,
}

impl JobSpec {
    /// The job as bytes, to send it.
    pub fn encode(&self) -> Vec<u8> {
        wire::compaction::encode_spec(self)
    }

    /// The job in `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not the encoding of a job.
    pub fn decode(bytes: &[u8]) -> Result<JobSpec, DecodeError> {
        wire::compaction::decode_spec(bytes)
    }
}
