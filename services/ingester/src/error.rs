//! What can go wrong in the ingester.

use std::time::Duration;

use clew_catalog::Incarnation;
use clew_model::ErrorKind;
use clew_node::Problem;
use clew_ring::ShardId;

/// An error of the ingester.
#[derive(Debug, thiserror::Error)]
pub enum IngesterError {
    /// No replica of this shard lives here.
    #[error("no replica of the shard is here: {0}")]
    UnknownShard(ShardId),
    /// The caller's map is older or newer than ours.
    #[error("the shard is open under another incarnation: {0}")]
    OtherIncarnation(Incarnation),
    /// Memory for heads is used up until a flush frees some.
    #[error("the head is full: {bytes} of {bytes_max} bytes")]
    HeadFull {
        /// In use.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// Too many batches wait for the log.
    #[error("too many batches wait for the log: {bytes} bytes")]
    QueueFull {
        /// Waiting.
        bytes: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// The log or a read did not get through in time; the outcome of an append is unknown.
    #[error("timed out waiting for {0}")]
    TimedOut(&'static str),
    /// The shard's log.
    #[error("the shard's log: {0}")]
    Raft(#[from] clew_raft::Error),
    /// The bucket.
    #[error("the bucket: {0}")]
    Storage(#[from] clew_storage::Error),
    /// A table or block.
    #[error("a block: {0}")]
    Block(#[from] clew_block::BlockError),
    /// The engine.
    #[error(transparent)]
    Query(#[from] clew_query::QueryError),
    /// The metastore.
    #[error("the metastore: {0}")]
    Metastore(#[from] Problem),
    /// The catalog refused.
    #[error("the catalog refused: {0}")]
    Refused(#[from] clew_catalog::Refusal),
    /// A request, entry or answer that cannot be read.
    #[error("cannot decode {what}: {reason}")]
    Decode {
        /// What was read.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// Heavy work panicked or the process is ending.
    #[error(transparent)]
    Task(#[from] clew_node::tasks::TaskError),
    /// The process is stopping.
    #[error("the ingester is stopping")]
    Stopping,
    /// A file of the data directory.
    #[error("the data directory: {0}")]
    Disk(#[from] std::io::Error),
    /// A setting.
    #[error("config key {0}")]
    Config(String),
}

impl IngesterError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            IngesterError::UnknownShard(_) => ErrorKind::Unavailable,
            IngesterError::OtherIncarnation(_) => ErrorKind::Conflict,
            IngesterError::HeadFull { .. } | IngesterError::QueueFull { .. } => {
                ErrorKind::Overloaded
            }
            IngesterError::TimedOut(_) | IngesterError::Stopping => ErrorKind::Unavailable,
            IngesterError::Raft(error) => error.kind(),
            IngesterError::Storage(error) => error.kind(),
            IngesterError::Block(error) => error.kind(),
            IngesterError::Query(error) => error.kind(),
            IngesterError::Metastore(problem) => problem.kind,
            IngesterError::Refused(refusal) => refusal.kind(),
            IngesterError::Decode { .. } | IngesterError::Config(_) => ErrorKind::Invalid,
            IngesterError::Task(_) | IngesterError::Disk(_) => ErrorKind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            IngesterError::UnknownShard(_) => "unknown_shard",
            IngesterError::OtherIncarnation(_) => "other_incarnation",
            IngesterError::HeadFull { .. } => "head_full",
            IngesterError::QueueFull { .. } => "queue_full",
            IngesterError::TimedOut(_) => "timed_out",
            IngesterError::Raft(_) => "shard_log",
            IngesterError::Storage(_) => "bucket",
            IngesterError::Block(_) => "block",
            IngesterError::Query(_) => "query",
            IngesterError::Metastore(_) => "metastore",
            IngesterError::Refused(_) => "catalog",
            IngesterError::Decode { .. } => "decode",
            IngesterError::Task(_) => "task",
            IngesterError::Stopping => "stopping",
            IngesterError::Disk(_) => "disk",
            IngesterError::Config(_) => "config",
        }
    }
}

impl From<IngesterError> for Problem {
    fn from(error: IngesterError) -> Problem {
        let problem = Problem::new(error.kind(), error.reason(), error.to_string());
        match error {
            IngesterError::HeadFull { retry_after, .. }
            | IngesterError::QueueFull { retry_after, .. } => problem.retry_after(retry_after),
            _ => problem,
        }
    }
}
