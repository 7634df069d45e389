//! What can go wrong in the load test itself. Answers of the server that are wrong are findings,
//! not errors; see [`crate::check`].

use clew_model::ErrorKind;

/// Why a command of the load test could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A number out of its range.
    #[error("{name} must be {allowed}, not {value}")]
    Setting {
        /// What the number is for.
        name: &'static str,
        /// The number.
        value: u64,
        /// What is allowed.
        allowed: String,
    },
    /// A setting that makes no sense, as text.
    #[error("{0}")]
    Usage(String),
    /// A data set that this program cannot make again.
    #[error("the data set is of generator version {found}, this program has version {known}")]
    Generator {
        /// The version of the data set.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// An address that is none.
    #[error("not an address: {address}: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A query could not be sent or its answer not be read.
    #[error("no answer from {uri}: {reason}")]
    NoAnswer {
        /// What was asked.
        uri: String,
        /// What happened.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("cannot use file {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What happened.
        reason: String,
    },
    /// A server of one's own did not do what it was started for.
    #[error("the server: {0}")]
    Server(String),
    /// Work in the background ended without a result.
    #[error("background work failed: {0}")]
    Task(#[from] clew_node::tasks::TaskError),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Setting { .. }
            | Error::Usage(_)
            | Error::Generator { .. }
            | Error::Address { .. } => ErrorKind::Invalid,
            Error::NoAnswer { .. } | Error::Server(_) => ErrorKind::Unavailable,
            Error::File { .. } => ErrorKind::Invalid,
            Error::Task(_) => ErrorKind::Internal,
        }
    }
}
