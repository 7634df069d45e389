//! The public door of a cluster: OTLP over HTTP and the query API, as a client outside sees them.

use std::time::Duration;

use clew_node::Clock;
use reqwest::{Client, Response, Url};
use serde_json::Value;

/// The most of an answer that is read. Probes are small; what is larger is wrong.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// How long a process may take to say whether it is ready.
const READY_MAX: Duration = Duration::from_secs(5);

/// Where a cluster is reached, and as whom.
pub(super) struct Door {
    client: Client,
    otlp: Url,
    query: Url,
    tenant: Option<String>,
}

/// An answer: its status and body; not JSON is null.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
    /// The first of the text, for messages.
    pub(super) text: String,
}

impl Door {
    /// # Errors
    /// What is wrong with an address or the tenant.
    pub(super) fn new(otlp: &str, query: &str, tenant: Option<&str>) -> Result<Door, String> {
        if let Some(tenant) = tenant {
            clew_model::TenantId::parse(tenant).map_err(|error| format!("--tenant: {error}"))?;
        }
        Ok(Door {
            client: Client::builder().build().map_err(|error| error.to_string())?,
            otlp: url("--otlp-url", otlp)?,
            query: url("--query-url", query)?,
            tenant: tenant.map(str::to_owned),
        })
    }

    /// Posts an export request.
    pub(super) async fn export(&self, request: &Value) -> Result<Answer, String> {
        let body = request.to_string();
        let request = self.client.post(below(&self.otlp, "/v1/traces", &[]));
        self.send(request.header("content-type", "application/json").body(body)).await
    }

    /// Asks the query API.
    pub(super) async fn ask(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Answer, String> {
        let request = self.client.get(below(&self.query, path, parameters));
        self.send(request.header("accept", "application/json")).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, String> {
        let request = match &self.tenant {
            Some(tenant) => request.header("x-scope-orgid", tenant),
            None => request,
        };
        let response = request.send().await.map_err(|error| causes(&error))?;
        let status = response.status().as_u16();
        let bytes = read(response).await?;
        let text: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Answer { status, body, text: text.trim().to_owned() })
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| causes(&error))? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Whether the address answers 200.
pub(super) async fn get_ready(address: &str, clock: &Clock) -> Result<(), String> {
    let address = url("--url", address)?;
    let client = Client::builder().build().map_err(|error| error.to_string())?;
    let asked = clock.timeout(READY_MAX, client.get(address.clone()).send()).await;
    let answer = asked.ok_or_else(|| format!("{address} does not answer"))?;
    let answer = answer.map_err(|error| causes(&error))?;
    match answer.status().as_u16() {
        200 => Ok(()),
        status => Err(format!("{address} answers {status}")),
    }
}

fn url(flag: &str, text: &str) -> Result<Url, String> {
    let parsed = Url::parse(text).map_err(|error| format!("{flag}: {text:?}: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("{flag}: {text:?} is no http:// or https:// address"));
    }
    Ok(parsed)
}

fn below(base: &Url, path: &str, parameters: &[(&str, &str)]) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    if !parameters.is_empty() {
        url.query_pairs_mut().extend_pairs(parameters);
    }
    url
}

/// An error with what caused it; reqwest's own text leaves that out.
fn causes(error: &dyn std::error::Error) -> String {
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
            assert!(Door::new(wrong, "http://a", None).is_err(), "{wrong}");
        }
        assert!(Door::new("http://a", "http://b", Some("a/b")).is_err());
        assert!(Door::new("http://a", "https://b", Some("team-a")).is_ok());
    }
}
