//! What can go wrong in the compactor.

use clew_block::BlockError;
use clew_catalog::{ObjectKey, Refusal};
use clew_model::ErrorKind;
use clew_node::Problem;
use clew_node::tasks::TaskError;

/// An error of the compactor.
#[derive(Debug, thiserror::Error)]
pub enum CompactorError {
    /// A setting that cannot work.
    #[error("config key {0}")]
    Config(String),
    /// The metastore cannot be asked, or its answer is unreadable.
    #[error("the metastore: {0}")]
    Metastore(#[from] Problem),
    /// The catalog refused a command.
    #[error("the catalog refused: {0}")]
    Refused(#[from] Refusal),
    /// The bucket failed.
    #[error("the bucket: {0}")]
    Bucket(#[from] clew_storage::Error),
    /// An input cannot be read.
    #[error("{object}: {reason}")]
    Input {
        /// The object.
        object: ObjectKey,
        /// What is wrong with it.
        reason: String,
    },
    /// A block cannot be written.
    #[error("writing a block: {0}")]
    Block(#[from] BlockError),
    /// Work could not be done.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Another compactor has the job now, or an input is gone.
    #[error("the job was taken over, or has lost an input")]
    Superseded,
    /// The process ends.
    #[error("the process ends")]
    Stopping,
}

impl CompactorError {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CompactorError::Config(_) => ErrorKind::Invalid,
            CompactorError::Metastore(problem) => problem.kind,
            CompactorError::Refused(refusal) => refusal.kind(),
            CompactorError::Bucket(error) => error.kind(),
            CompactorError::Input { .. } => ErrorKind::Corrupt,
            CompactorError::Block(error) => error.kind(),
            CompactorError::Task(_) => ErrorKind::Internal,
            CompactorError::Superseded => ErrorKind::Fenced,
            CompactorError::Stopping => ErrorKind::Cancelled,
        }
    }
}
