//! Which texts may name an object: a set that every provider and file system takes literally.

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No characters, or more than [`KEY_BYTES_MAX`].
    #[error("an object key must have 1 to {KEY_BYTES_MAX} bytes: {bytes}")]
    Length {
        /// Its length in bytes.
        bytes: usize,
    },
    /// A character outside letters, digits and `- _ . = /`.
    #[error("an object key has an unsupported character: '{}'", character.escape_debug())]
    UnsupportedCharacter {
        /// The first such character.
        character: char,
    },
    /// An empty part between slashes, or one that begins with a dot.
    #[error("an object key has an empty part or one that begins with a dot: '{key}'")]
    Part {
        /// The key.
        key: String,
    },
}

/// Checks that `key` can name an object.
pub(crate) fn check(key: &str) -> Result<(), KeyError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(KeyError::Length { bytes: key.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.=/".contains(c);
    if let Some(character) = key.chars().find(|c| !allowed(*c)) {
        return Err(KeyError::UnsupportedCharacter { character });
    }
    // Names that begin with a dot are ours on local disk, and `..` would leave the bucket.
    if key.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return Err(KeyError::Part { key: key.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked() {
        assert_eq!(check("flush/00001/7/00000000000000000012-00ff.clew"), Ok(()));
        assert_eq!(check(""), Err(KeyError::Length { bytes: 0 }));
        assert_eq!(check(&"k".repeat(513)), Err(KeyError::Length { bytes: 513 }));
        for key in ["/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".staging/x", "."] {
            assert!(matches!(check(key), Err(KeyError::Part { .. })), "{key}");
        }
        for key in ["a b", "a%2e", "a\\b", "a#1", "é", "a\0"] {
            assert!(matches!(check(key), Err(KeyError::UnsupportedCharacter { .. })), "{key}");
        }
    }
}
