//! Which web pages may send spans from a browser.

use http::header::RETRY_AFTER;
use http::{HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// How long a browser may remember a preflight; Chrome caps it here.
const MAX_AGE: std::time::Duration = std::time::Duration::from_secs(7_200);

/// A layer that answers preflights and marks answers for the allowed origins.
pub(crate) fn layer(origins: &[String]) -> CorsLayer {
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let patterns = origins.to_vec();
        AllowOrigin::predicate(move |origin, _| is_allowed(&patterns, origin))
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::POST])
        // SDKs send headers of their users' choice. A wildcard would not cover `Authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([RETRY_AFTER])
        .max_age(MAX_AGE)
}

fn is_allowed(patterns: &[String], origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    patterns.iter().any(|pattern| matches(pattern, origin))
}

/// Whether `origin` is `pattern`, in which one `*` stands for any text.
fn matches(pattern: &str, origin: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern.eq_ignore_ascii_case(origin);
    };
    let (pattern, origin) =
        ((before.to_ascii_lowercase(), after.to_ascii_lowercase()), origin.to_ascii_lowercase());
    origin.strip_prefix(&pattern.0).is_some_and(|rest| rest.ends_with(&pattern.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("https://*.example.com", "https://Shop.example.com"));
        assert!(!matches("https://*.example.com", "https://example.com"));
        assert!(!matches("https://*.example.com", "https://shop.example.com.evil.org"));
        assert!(!matches("https://ab*ba.org", "https://aba.org"));
        assert!(matches("https://a.org", "https://A.org"));
        assert!(!matches("https://a.org", "https://a.org:8443"));
    }
}
