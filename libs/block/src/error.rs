//! What can go wrong when a block is built or read, and what a caller should do about it.

use clew_model::ErrorKind;
use clew_model::wire::WireError;

/// Why a block, an object or a span table refused its input.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Stored bytes failed verification or make no sense.
    #[error("block section {section} is corrupt: {reason}")]
    Corrupt {
        /// The section or part of the block.
        section: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The tail given to open a block does not reach back to the start of its footer.
    #[error("the tail of the block is too short, bytes needed: {needed}")]
    TailTooShort {
        /// How many bytes from the end of the block are needed.
        needed: u64,
    },
    /// A section that is needed lies before the tail that was read.
    #[error("block section {section} is not loaded")]
    NotLoaded {
        /// The missing section.
        section: &'static str,
    },
    /// Written by a newer release.
    #[error("block format version is not supported: {version}")]
    UnsupportedVersion {
        /// The version found.
        version: u16,
    },
    /// The input is no OTLP `TracesData`.
    #[error("the spans are not valid OTLP: {0}")]
    NotOtlp(#[from] WireError),
    /// A bound of the format or of a table was reached; nothing was changed.
    #[error("too many {what}, at most {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// Traces were handed to a writer in the wrong order.
    #[error("traces must come in ascending order of their ids")]
    OutOfOrder,
    /// The index engine or the compressor failed.
    #[error("{operation} failed: {source}")]
    Engine {
        /// What was attempted.
        operation: &'static str,
        /// The engine's error.
        source: std::io::Error,
    },
}

impl BlockError {
    /// What the caller should do.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            BlockError::Corrupt { .. } => ErrorKind::Corrupt,
            BlockError::NotOtlp(_) => ErrorKind::Invalid,
            BlockError::Limit { .. } => ErrorKind::Overloaded,
            BlockError::TailTooShort { .. }
            | BlockError::NotLoaded { .. }
            | BlockError::UnsupportedVersion { .. }
            | BlockError::OutOfOrder
            | BlockError::Engine { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) const fn corrupt(section: &'static str, reason: &'static str) -> BlockError {
        BlockError::Corrupt { section, reason }
    }

    pub(crate) fn engine(operation: &'static str) -> impl Fn(std::io::Error) -> BlockError {
        move |source| BlockError::Engine { operation, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_apart_from_bad_input() {
        let damage = BlockError::corrupt("pages", "checksum mismatch");
        assert_eq!(damage.kind(), ErrorKind::Corrupt);
        assert_eq!(damage.to_string(), "block section pages is corrupt: checksum mismatch");
        assert_eq!(BlockError::from(WireError::BadTag).kind(), ErrorKind::Invalid);
    }
}
