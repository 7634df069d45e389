//! Tenant identifiers and the federated form `a|b` of the `X-Scope-OrgID` header.

use std::sync::Arc;

/// The tenant everything belongs to when multitenancy is off.
pub const SINGLE_TENANT: &str = "single-tenant";

/// The longest tenant id, in bytes.
pub const TENANT_ID_BYTES_MAX: usize = 150;

/// Why a tenant id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// The header was missing or empty.
    #[error("no org id")]
    Missing,
    /// A character outside letters, digits and `! - _ . * ' ( )`.
    #[error("tenant ID '{id}' contains unsupported character '{character}'")]
    UnsupportedCharacter {
        /// The refused id.
        id: String,
        /// Its first unsupported character.
        character: char,
    },
    /// More than [`TENANT_ID_BYTES_MAX`] bytes.
    #[error("tenant ID is too long: max 150 characters")]
    TooLong,
    /// `.` or `..`, which would name a folder's parent.
    #[error("tenant ID is '.' or '..'")]
    Unsafe,
    /// More than one tenant where only one makes sense.
    #[error("multiple org IDs present")]
    Several,
}

/// A checked tenant id, cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// Checks and wraps one tenant id.
    ///
    /// # Errors
    /// [`TenantError`] with the reason the Tempo API gives.
    pub fn parse(id: &str) -> Result<TenantId, TenantError> {
        if id.is_empty() {
            return Err(TenantError::Missing);
        }
        if let Some(character) = id.chars().find(|c| !is_allowed(*c)) {
            return Err(TenantError::UnsupportedCharacter { id: id.to_owned(), character });
        }
        if id.len() > TENANT_ID_BYTES_MAX {
            return Err(TenantError::TooLong);
        }
        if id == "." || id == ".." {
            return Err(TenantError::Unsafe);
        }
        Ok(TenantId(Arc::from(id)))
    }

    /// The tenants of a federated read: parts separated by `|`, sorted and unique.
    ///
    /// # Errors
    /// The first [`TenantError`] of any part; an empty part is [`TenantError::Missing`].
    pub fn parse_federated(ids: &str) -> Result<Vec<TenantId>, TenantError> {
        let mut tenants = ids.split('|').map(TenantId::parse).collect::<Result<Vec<_>, _>>()?;
        tenants.sort();
        tenants.dedup();
        Ok(tenants)
    }

    /// The tenant of a process without multitenancy.
    pub fn single() -> TenantId {
        TenantId(Arc::from(SINGLE_TENANT))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!-_.*'()".contains(character)
}

impl std::fmt::Display for TenantId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_ids_are_refused() {
        for id in ["a/b", "a\\b", "a\0b", "é", "a|b", "a b", "%2e%2e"] {
            assert!(
                matches!(TenantId::parse(id), Err(TenantError::UnsupportedCharacter { .. })),
                "{id}"
            );
        }
        assert_eq!(TenantId::parse("."), Err(TenantError::Unsafe));
        assert_eq!(TenantId::parse(".."), Err(TenantError::Unsafe));
        assert_eq!(TenantId::parse(""), Err(TenantError::Missing));
        assert_eq!(TenantId::parse(&"a".repeat(151)), Err(TenantError::TooLong));
        assert!(TenantId::parse(&"a".repeat(150)).is_ok());
    }

    #[test]
    fn federated_ids_are_sorted_and_unique() {
        let tenants = TenantId::parse_federated("b|a|b").unwrap();
        assert_eq!(tenants.iter().map(TenantId::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(TenantId::parse_federated("a||b"), Err(TenantError::Missing));
    }
}
