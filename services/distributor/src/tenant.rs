//! Which tenant a request writes for.

use clew_model::{TenantError, TenantId};
use http::HeaderMap;

/// The header, and the gRPC metadata key, that names the tenant.
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// The tenant of a write. Without multitenancy the header is ignored.
///
/// # Errors
/// [`TenantError`] when the header is missing, bad, sent several times, or names several tenants:
/// a span belongs to one tenant.
pub(crate) fn of_headers(
    headers: &HeaderMap,
    multitenancy_enabled: bool,
) -> Result<TenantId, TenantError> {
    if !multitenancy_enabled {
        return Ok(TenantId::single());
    }
    let mut values = headers.get_all(TENANT_HEADER).iter();
    let value = values.next().ok_or(TenantError::Missing)?;
    if values.next().is_some() {
        return Err(TenantError::Several);
    }
    let id = String::from_utf8_lossy(value.as_bytes());
    if id.contains('|') {
        return Err(TenantError::Several);
    }
    TenantId::parse(&id)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn tenant(values: &[&'static str]) -> Result<String, TenantError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("X-Scope-OrgID", HeaderValue::from_static(value));
        }
        of_headers(&headers, true).map(|tenant| tenant.to_string())
    }

    #[test]
    fn one_good_header_is_needed() {
        assert_eq!(tenant(&["shop"]), Ok("shop".to_owned()));
        assert_eq!(tenant(&[]), Err(TenantError::Missing));
        assert_eq!(tenant(&[""]), Err(TenantError::Missing));
        assert_eq!(tenant(&["a", "a"]), Err(TenantError::Several));
        assert_eq!(tenant(&["a|b"]), Err(TenantError::Several));
        assert_eq!(tenant(&[".."]), Err(TenantError::Unsafe));
        assert!(matches!(tenant(&["a/b"]), Err(TenantError::UnsupportedCharacter { .. })));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let mut headers = HeaderMap::new();
        headers.append(TENANT_HEADER, HeaderValue::from_bytes(b"a\xff").unwrap());
        let refused = of_headers(&headers, true);
        assert!(matches!(refused, Err(TenantError::UnsupportedCharacter { .. })));
    }

    #[test]
    fn without_multitenancy_the_header_is_ignored() {
        let mut headers = HeaderMap::new();
        headers.append(TENANT_HEADER, HeaderValue::from_static("a/b"));
        assert_eq!(of_headers(&headers, false), Ok(TenantId::single()));
    }
}
