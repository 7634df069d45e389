//! What a caller should do about an error: the one classification every crate's error maps to,
//! and the errors of this crate.

use crate::wire::WireError;

/// The caller's next step. A kind exists only where callers act differently.
///
/// The mapping to HTTP and gRPC status codes lives in `clew_node::status`, nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The request can never succeed as it is: fix it.
    Invalid,
    /// What was asked for does not exist.
    NotFound,
    /// The state moved on: read it again, then decide.
    Conflict,
    /// Retry with backoff, possibly elsewhere. A failed mutation is unknown, not undone.
    Unavailable,
    /// Retry later, after the given delay.
    Overloaded,
    /// The caller was superseded: stop, do not retry.
    Fenced,
    /// Stored data failed verification: alarm, do not overwrite.
    Corrupt,
    /// The caller went away or its deadline passed.
    Cancelled,
    /// A bug or an unclassified failure.
    Internal,
}

impl ErrorKind {
    /// Every kind, in declaration order.
    pub const ALL: [ErrorKind; 9] = [
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::Unavailable,
        ErrorKind::Overloaded,
        ErrorKind::Fenced,
        ErrorKind::Corrupt,
        ErrorKind::Cancelled,
        ErrorKind::Internal,
    ];

    /// The stable lower-case name, used on the wire and as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Invalid => "invalid",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::Fenced => "fenced",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Internal => "internal",
        }
    }

    /// The kind of that name, if there is one.
    pub fn from_name(name: &str) -> Option<ErrorKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether the same request may succeed later without being changed.
    pub const fn is_retryable(self) -> bool {
        matches!(self, ErrorKind::Unavailable | ErrorKind::Overloaded)
    }
}

impl std::fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why bytes from outside, or from storage, could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The outer messages of a request do not parse, so that its spans cannot even be counted.
    #[error("the request is not an OTLP trace message: {0}")]
    Request(#[source] WireError),
    /// The request is not OTLP/JSON.
    #[error("the request is not OTLP JSON: {message} at line {line} column {column}")]
    Json {
        /// What was wrong, with the field's name where it is known.
        message: String,
        /// Line of the body, counted from 1; 0 when unknown.
        line: usize,
        /// Column in that line, counted from 1; 0 when unknown.
        column: usize,
    },
    /// The request has more bytes than allowed.
    #[error("the request is too large: {bytes} bytes, at most {bytes_max}")]
    TooLarge {
        /// Size of the request in bytes.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// Stored span bytes do not parse.
    #[error("stored spans are damaged: {0}")]
    Damaged(#[source] WireError),
    /// A stored span whose trace id or span id is none.
    #[error("stored spans are damaged: a span has no valid trace id or span id")]
    DamagedId,
}

impl ModelError {
    /// What the caller should do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            ModelError::Request(_) | ModelError::Json { .. } | ModelError::TooLarge { .. } => {
                ErrorKind::Invalid
            }
            ModelError::Damaged(_) | ModelError::DamagedId => ErrorKind::Corrupt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_name(kind.as_str()), Some(kind));
        }
        assert_eq!(ErrorKind::from_name("no such kind"), None);
    }
}
