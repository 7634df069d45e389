//! What a caller should do about an error: the one classification every crate's error maps to.

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
