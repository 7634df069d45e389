//! The tag in a path such as `/api/v2/search/tag/resource.service.name/values`.

use percent_encoding::percent_decode_str;

use super::fault::Fault;

/// The tag between `/search/tag/` and `/values` of a raw path, decoded.
///
/// Grafana encodes the name twice, since a proxy in between decodes it once. A name that is still
/// encoded after one round is therefore decoded again; a name that itself holds `%41` has to be
/// encoded twice by its client.
pub(crate) fn tag_of(path: &str) -> Result<String, Fault> {
    let (_, rest) = path.split_once("/search/tag/").unwrap_or(("", ""));
    let Some(name) = rest.strip_suffix("/values").filter(|name| !name.is_empty()) else {
        return Err(Fault::new(http::StatusCode::NOT_FOUND, "404 page not found"));
    };
    let once = decode(name)?;
    if is_encoded(&once) {
        // What is no text after a second round was meant as it stands: `span.per%cent`.
        return Ok(decode(&once).unwrap_or(once));
    }
    Ok(once)
}

fn decode(text: &str) -> Result<String, Fault> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Fault::bad("the tag name is not valid UTF-8"))
}

/// Whether every `%` begins an escape, and there is one.
fn is_encoded(text: &str) -> bool {
    let mut pieces = text.split('%');
    pieces.next();
    let mut found = false;
    for piece in pieces {
        found = true;
        let digits = piece.as_bytes();
        if digits.len() < 2 || !digits[..2].iter().all(u8::is_ascii_hexdigit) {
            return false;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_decoded() {
        for (path, tag) in [
            ("/api/v2/search/tag/resource.service.name/values", "resource.service.name"),
            ("/tempo/api/search/tag/a/values", "a"),
            ("/api/v2/search/tag/span.a%2Fb/values", "span.a/b"),
            ("/api/v2/search/tag/span.a/b/values", "span.a/b"),
            ("/api/v2/search/tag/span.a%252Fb/values", "span.a/b"),
            ("/api/v2/search/tag/span.%2522a%2520b%2522/values", "span.\"a b\""),
            ("/api/v2/search/tag/.100%25/values", ".100%"),
            ("/api/v2/search/tag/.a+b/values", ".a+b"),
            ("/api/v2/search/tag/.per%25cent/values", ".per%cent"),
            ("/api/v2/search/tag/.%25ff/values", ".%ff"),
            ("/api/v2/search/tag/values/values", "values"),
        ] {
            assert_eq!(tag_of(path).unwrap(), tag, "{path}");
        }
    }

    #[test]
    fn other_paths_are_refused() {
        for (path, status) in [
            ("/api/v2/search/tag/a", 404),
            ("/api/v2/search/tag//values", 404),
            ("/api/v2/search/tag/%ff/values", 400),
        ] {
            assert_eq!(tag_of(path).unwrap_err().status, status, "{path}");
        }
    }
}
