//! What a client of the cluster does: HTTP requests over the simulated network, with a limit.

use std::time::Duration;

use bytes::Bytes;
use clew_node::Clock;
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::network::{Name, Network};

const TENANT_HEADER: &str = "x-scope-orgid";

/// What the tenant of a number is called.
fn tenant_name(tenant: usize) -> String {
    format!("tenant-{tenant}")
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// What it says it lacks.
    pub(crate) partial: Option<String>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body as JSON; null if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The beginning of the body, for people.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(160).collect()
    }
}

/// A client of the cluster. Cheap to clone.
#[derive(Clone)]
pub(crate) struct HttpClient {
    pub(crate) name: Name,
    pub(crate) network: Network,
    pub(crate) clock: Clock,
}

impl HttpClient {
    /// Asks as a tenant.
    pub(crate) async fn get(
        &self,
        addr: &str,
        path: &str,
        tenant: usize,
        limit: Duration,
    ) -> Option<Reply> {
        let request = http::Request::get(path).header(TENANT_HEADER, tenant_name(tenant));
        self.send(addr, request.body(Bytes::new()).ok()?, limit).await
    }

    /// Sends JSON as a tenant.
    pub(crate) async fn post_json(
        &self,
        addr: &str,
        path: &str,
        tenant: usize,
        body: Bytes,
        limit: Duration,
    ) -> Option<Reply> {
        let request = http::Request::post(path)
            .header(TENANT_HEADER, tenant_name(tenant))
            .header("content-type", "application/json");
        self.send(addr, request.body(body).ok()?, limit).await
    }

    /// Nothing if no answer came.
    async fn send(
        &self,
        addr: &str,
        request: http::Request<Bytes>,
        limit: Duration,
    ) -> Option<Reply> {
        let call = async {
            let answer = self.network.call(&self.name, addr, request).await.ok()?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            let partial = head.headers.get("x-clew-partial");
            let partial =
                partial.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            Some(Reply { status: head.status.as_u16(), partial, body })
        };
        self.clock.timeout(limit, call).await.flatten()
    }
}

/// A value in a query string.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
