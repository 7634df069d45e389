//! Why encoded catalog data was refused.

use clew_model::ErrorKind;

/// Bytes that are no snapshot, view, change list or outcome of a catalog.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the encoding of such a message.
    #[error("the catalog data cannot be decoded")]
    Malformed,
    /// Written by a later release in a way this one would misread.
    #[error("the catalog data has an unsupported version: {version}")]
    Unsupported {
        /// The version.
        version: u32,
    },
    /// A value that the catalog never writes.
    #[error("the catalog data is inconsistent: {what}")]
    Inconsistent {
        /// Which value.
        what: &'static str,
    },
}

impl DecodeError {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DecodeError::Unsupported { .. } => ErrorKind::Internal,
            DecodeError::Malformed | DecodeError::Inconsistent { .. } => ErrorKind::Corrupt,
        }
    }
}

impl From<prost::DecodeError> for DecodeError {
    fn from(_: prost::DecodeError) -> DecodeError {
        DecodeError::Malformed
    }
}
