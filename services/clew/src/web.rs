//! Requests over HTTP, also encrypted, that the command line makes of a cluster's public ports. Who
//! signed a server's certificate is asked of the operating system, or of the file in `SSL_CERT_FILE`.

use reqwest::{Client, Method, Url};

/// An answer: its status and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as text for people.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// A client whose connections are kept.
///
/// # Errors
/// Text for people.
pub(crate) fn client() -> Result<Client, String> {
    Client::builder().build().map_err(|error| causes(&error))
}

/// The address in `text`; `flag` is where it was given.
///
/// # Errors
/// Text for people.
pub(crate) fn url(flag: &str, text: &str) -> Result<Url, String> {
    let parsed = Url::parse(text).map_err(|error| format!("{flag}: {text:?}: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("{flag}: {text:?} is no http:// or https:// address"));
    }
    Ok(parsed)
}

/// A path below an address, which may have a prefix.
pub(crate) fn below(base: &Url, path: &str, parameters: &[(&str, &str)]) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    if !parameters.is_empty() {
        url.query_pairs_mut().extend_pairs(parameters);
    }
    url
}

/// One request without a body, as a tenant if there are several.
///
/// # Errors
/// Text for people: there is no answer, or it is larger than `bytes_max`.
pub(crate) async fn ask(
    method: Method,
    url: Url,
    tenant: Option<&str>,
    bytes_max: usize,
) -> Result<Answer, String> {
    let request = client()?.request(method, url);
    send(with_tenant(request, tenant), bytes_max).await
}

/// The request as a tenant's.
pub(crate) fn with_tenant(
    request: reqwest::RequestBuilder,
    tenant: Option<&str>,
) -> reqwest::RequestBuilder {
    match tenant {
        Some(tenant) => request.header("x-scope-orgid", tenant),
        None => request,
    }
}

/// Sends a request and reads the answer.
///
/// # Errors
/// Text for people: there is no answer, or it is larger than `bytes_max`.
pub(crate) async fn send(
    request: reqwest::RequestBuilder,
    bytes_max: usize,
) -> Result<Answer, String> {
    let mut response = request.send().await.map_err(|error| causes(&error))?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| causes(&error))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(format!("the answer is larger than {bytes_max} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, body })
}

/// An error with what caused it; reqwest's own text leaves that out.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_put_behind_a_prefix() {
        let base = Url::parse("https://traces.example/tempo/").unwrap();
        let url = below(&base, "/api/search", &[("q", "{ a = \"b\" }")]);
        assert_eq!(url.as_str(), "https://traces.example/tempo/api/search?q=%7B+a+%3D+%22b%22+%7D");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in ["", "localhost:4318", "ftp://a", "/v1/traces"] {
            assert!(url("--url", wrong).unwrap_err().starts_with("--url"), "{wrong}");
        }
        assert!(url("--url", "https://a/b").is_ok());
    }
}
