//! The name of a cluster node, checked once where it enters.

use std::sync::Arc;

/// The longest node id, in bytes.
pub const NODE_ID_BYTES_MAX: usize = 128;

/// Why a text is no node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeIdError {
    /// No characters.
    #[error("the node id is empty")]
    Empty,
    /// More than [`NODE_ID_BYTES_MAX`] bytes.
    #[error("the node id is longer than {NODE_ID_BYTES_MAX} bytes: {bytes}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// A character outside letters, digits and `- _ . :`.
    #[error("the node id contains an unsupported character: '{character}'")]
    UnsupportedCharacter {
        /// The first such character.
        character: char,
    },
}

/// The name of a node, unique in its cluster and kept over restarts. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Checks and wraps a node id.
    ///
    /// # Errors
    /// [`NodeIdError`] when it is empty, too long or has other characters than letters, digits and
    /// `- _ . :`.
    pub fn parse(id: &str) -> Result<NodeId, NodeIdError> {
        if id.is_empty() {
            return Err(NodeIdError::Empty);
        }
        if id.len() > NODE_ID_BYTES_MAX {
            return Err(NodeIdError::TooLong { bytes: id.len() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        match id.chars().find(|c| !allowed(*c)) {
            Some(character) => Err(NodeIdError::UnsupportedCharacter { character }),
            None => Ok(NodeId(Arc::from(id))),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_are_checked() {
        assert!(NodeId::parse("ingester-0.clew_7:9095").is_ok());
        assert_eq!(NodeId::parse(""), Err(NodeIdError::Empty));
        assert_eq!(NodeId::parse(&"n".repeat(129)), Err(NodeIdError::TooLong { bytes: 129 }));
        assert_eq!(NodeId::parse("a/b"), Err(NodeIdError::UnsupportedCharacter { character: '/' }));
    }
}
