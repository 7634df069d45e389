//! What can go wrong while a query is planned or run, and what a caller should do about it.

use std::sync::Arc;

use clew_block::BlockError;
use clew_model::ErrorKind;
use clew_node::tasks::TaskError;
use clew_traceql::{EvalError, QueryError as ParseError};

/// Why a query, or one source of it, gave no answer. Cheap to clone: a failure that is shared by
/// everyone who waited for the same read is told to each of them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueryError {
    /// The text is no TraceQL.
    #[error("invalid TraceQL query: {0}")]
    Parse(#[from] ParseError),
    /// The text is TraceQL that this release cannot run.
    #[error("{what} are not supported yet")]
    NotSupported {
        /// The parts of the language, as the subject of a sentence.
        what: &'static str,
    },
    /// A field of the request is wrong.
    #[error("invalid {field}: {reason}")]
    BadRequest {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The query does not fit the data, such as a division by zero.
    #[error("the query failed: {0}")]
    Evaluate(#[from] EvalError),
    /// A bound on the work of one query was reached.
    #[error(
        "the query needs too much: more than {limit} {what}; narrow the time range or the filter"
    )]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// Stored bytes failed verification.
    #[error("{source_name}: {error}")]
    Block {
        /// The block or head.
        source_name: Arc<str>,
        /// What its reader says.
        error: Arc<BlockError>,
    },
    /// Stored spans do not parse although their checksum holds.
    #[error("{source_name}: stored spans are damaged: {reason}")]
    Damaged {
        /// The block or head.
        source_name: Arc<str>,
        /// What is wrong.
        reason: String,
    },
    /// The object store failed.
    #[error("{source_name}: {error}")]
    Storage {
        /// The block.
        source_name: Arc<str>,
        /// What the store says.
        error: Arc<clew_storage::Error>,
    },
    /// Work in the background failed.
    #[error("a part of the query did not finish: {0}")]
    Task(#[from] TaskError),
}

impl QueryError {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            QueryError::Parse(_)
            | QueryError::NotSupported { .. }
            | QueryError::BadRequest { .. }
            | QueryError::Evaluate(_)
            | QueryError::TooMuch { .. } => ErrorKind::Invalid,
            QueryError::Block { error, .. } => error.kind(),
            QueryError::Damaged { .. } => ErrorKind::Corrupt,
            QueryError::Storage { error, .. } => error.kind(),
            QueryError::Task(TaskError::Panicked(_)) => ErrorKind::Internal,
            QueryError::Task(TaskError::ShuttingDown) => ErrorKind::Unavailable,
        }
    }

    pub(crate) fn bad(field: &'static str, reason: impl Into<String>) -> QueryError {
        QueryError::BadRequest { field, reason: reason.into() }
    }

    pub(crate) fn block(name: &Arc<str>) -> impl Fn(BlockError) -> QueryError + '_ {
        |error| QueryError::Block { source_name: Arc::clone(name), error: Arc::new(error) }
    }
}
