//! Whose data a request may see.

use clew_model::TenantId;
use http::HeaderMap;

use super::fault::Fault;
use crate::Config;

/// The header that names the tenant, or several as `a|b`.
pub(crate) const TENANT_HEADER: &str = "x-scope-orgid";

/// The tenants of a request, sorted and unique; never none.
pub(crate) fn tenants_of(headers: &HeaderMap, config: &Config) -> Result<Vec<TenantId>, Fault> {
    if !config.multitenancy_enabled {
        return Ok(vec![TenantId::single()]);
    }
    let given = match headers.get(TENANT_HEADER) {
        None => "",
        Some(value) => {
            value.to_str().map_err(|_| Fault::bad("tenant ID contains unsupported characters"))?
        }
    };
    if given.is_empty() || !config.multi_tenant_queries_enabled {
        return Ok(vec![TenantId::parse(given)?]);
    }
    if given.split('|').any(str::is_empty) {
        return Err(Fault::bad("tenant ID has an empty part between '|'"));
    }
    if given.split('|').count() > config.tenants_per_query_max {
        let max = config.tenants_per_query_max;
        return Err(Fault::bad(format!("too many tenant IDs: at most {max}")));
    }
    Ok(TenantId::parse_federated(given)?)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;

    fn ask(header: Option<&[u8]>, config: &Config) -> Result<Vec<String>, Fault> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(TENANT_HEADER, HeaderValue::from_bytes(header).unwrap());
        }
        tenants_of(&headers, config).map(|ids| ids.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_multitenancy_the_header_is_ignored() {
        let config = Config::default();
        assert_eq!(ask(Some(b"a/b"), &config), Ok(vec!["single-tenant".to_owned()]));
        assert_eq!(ask(None, &config), Ok(vec!["single-tenant".to_owned()]));
    }

    #[test]
    fn the_header_is_checked() {
        let config =
            Config { multitenancy_enabled: true, tenants_per_query_max: 3, ..Config::default() };
        assert_eq!(ask(Some(b"b|a|b"), &config), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(ask(Some(b"*"), &config), Ok(vec!["*".to_owned()]));
        let missing = ask(None, &config).unwrap_err();
        assert_eq!(
            (missing.status, missing.message.as_str()),
            (StatusCode::UNAUTHORIZED, "no org id")
        );
        assert_eq!(ask(Some(b""), &config).unwrap_err().status, StatusCode::UNAUTHORIZED);
        let long = "a".repeat(151);
        for bad in [&b"a|"[..], b"|", b"a||b", b"a/b", b"..", b"\xff", b"a|b|c|d", long.as_bytes()]
        {
            assert_eq!(ask(Some(bad), &config).unwrap_err().status, StatusCode::BAD_REQUEST);
        }
        let alone = Config { multi_tenant_queries_enabled: false, ..config };
        assert_eq!(ask(Some(b"a|b"), &alone).unwrap_err().status, StatusCode::BAD_REQUEST);
        assert_eq!(ask(Some(b"a"), &alone), Ok(vec!["a".to_owned()]));
    }
}
