//! The public door of a cluster: OTLP over HTTP and the query API, as a client outside sees them.

use std::time::Duration;

use clew_node::Clock;
use reqwest::{Client, Url};
use serde_json::Value;

use crate::web::{self, below, causes, url};

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
            client: web::client()?,
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
        let request = web::with_tenant(request, self.tenant.as_deref());
        let answer = web::send(request, ANSWER_BYTES_MAX).await?;
        let text: String = answer.text().chars().take(200).collect();
        let body = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(Answer { status: answer.status, body, text })
    }
}

/// Whether the address answers 200.
pub(super) async fn get_ready(address: &str, clock: &Clock) -> Result<(), String> {
    let address = url("--url", address)?;
    let client = web::client()?;
    let asked = clock.timeout(READY_MAX, client.get(address.clone()).send()).await;
    let answer = asked.ok_or_else(|| format!("{address} does not answer"))?;
    let answer = answer.map_err(|error| causes(&error))?;
    match answer.status().as_u16() {
        200 => Ok(()),
        status => Err(format!("{address} answers {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in ["", "localhost:4318", "ftp://a", "/v1/traces"] {
            assert!(Door::new(wrong, "http://a", None).is_err(), "{wrong}");
        }
        assert!(Door::new("http://a", "http://b", Some("a/b")).is_err());
        assert!(Door::new("http://a", "https://b", Some("team-a")).is_ok());
    }
}
