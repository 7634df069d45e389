//! What can go wrong with an object store, and what a caller should do about it.

use clew_model::ErrorKind;

use crate::config::ConfigError;
use crate::key::KeyError;

/// An operation on the bucket, also the label of its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Writing a new object.
    Put,
    /// Reading a range.
    Get,
    /// Asking for the size.
    Head,
    /// Listing keys.
    List,
    /// Deleting an object.
    Delete,
}

impl Operation {
    /// The lower-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::Head => "head",
            Operation::List => "list",
            Operation::Delete => "delete",
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an operation on a bucket failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such object.
    #[error("the object does not exist: {key}")]
    NotFound {
        /// Its key.
        key: String,
    },
    /// The key exists with other bytes; keys are written once.
    #[error("the object exists with other content: {key}")]
    Conflict {
        /// Its key.
        key: String,
    },
    /// The object ends before the range that its reader expects.
    #[error(
        "the object is shorter than expected: {key}, {size} bytes where {wanted} were expected"
    )]
    TooShort {
        /// Its key.
        key: String,
        /// Its size in bytes.
        size: u64,
        /// The end of the range asked for.
        wanted: u64,
    },
    /// The store keeps sending fewer bytes than it promises.
    #[error("the object is cut off in transfer: {key}, {got} of {wanted} bytes")]
    Truncated {
        /// Its key.
        key: String,
        /// How many bytes came.
        got: u64,
        /// How many were asked for and exist.
        wanted: u64,
    },
    /// The store refuses the credentials or the permission.
    #[error("the object store denies access: {operation} {key}: {message}")]
    Denied {
        /// What was tried.
        operation: Operation,
        /// On which key or prefix.
        key: String,
        /// The store's words.
        message: String,
    },
    /// The store failed or did not answer in time, also after retries.
    #[error("the object store is unavailable: {operation} {key}: {message}")]
    Unavailable {
        /// What was tried.
        operation: Operation,
        /// On which key or prefix.
        key: String,
        /// The store's words.
        message: String,
    },
    /// A text that cannot name an object.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A request that can never succeed.
    #[error("the storage request is invalid: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// A setting that does not describe a usable bucket.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The runtime is shutting down, or a storage task panicked.
    #[error("the storage task did not finish: {message}")]
    Task {
        /// Why.
        message: String,
    },
}

impl Error {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound { .. } => ErrorKind::NotFound,
            Error::Conflict { .. } => ErrorKind::Conflict,
            Error::TooShort { .. } => ErrorKind::Corrupt,
            // The store says that the object has the bytes: what is damaged is the transfer.
            Error::Truncated { .. } | Error::Denied { .. } | Error::Unavailable { .. } => {
                ErrorKind::Unavailable
            }
            Error::Key(_) | Error::Invalid { .. } | Error::Config(_) => ErrorKind::Invalid,
            Error::Task { .. } => ErrorKind::Internal,
        }
    }

    /// Whether the same request may succeed at once, as opposed to when somebody did something.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Error::Unavailable { .. } | Error::Truncated { .. })
    }

    pub(crate) fn unavailable(
        operation: Operation,
        key: &str,
        message: impl std::fmt::Display,
    ) -> Error {
        Error::Unavailable { operation, key: key.to_owned(), message: message.to_string() }
    }
}
