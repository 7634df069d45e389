//! A small HTTP/1.1 client with a pool of connections and bounded answers.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::error::Error;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// A client for one server.
#[derive(Clone)]
pub(super) struct HttpClient {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
}

/// What came back.
pub(super) struct HttpAnswer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<String>,
    pub(super) body: Bytes,
}

impl HttpClient {
    /// A client for `http://host:port` with an optional path.
    pub(super) fn new(base: &str) -> Result<HttpClient, Error> {
        let base = base.trim_end_matches('/').to_owned();
        let wrong =
            |reason: &str| Err(Error::Address { address: base.clone(), reason: reason.to_owned() });
        match base.parse::<Uri>() {
            Ok(uri) if uri.scheme_str() == Some("http") && uri.authority().is_some() => {}
            Ok(_) => return wrong("not of the form http://host:port"),
            Err(error) => return wrong(&error.to_string()),
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(HttpClient { client, base })
    }

    /// The address of `path` on this server.
    pub(super) fn uri(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Sends a request and reads the whole answer. An error is text for people.
    pub(super) async fn send(
        &self,
        method: http::Method,
        path: &str,
        headers: impl Iterator<Item = (String, String)>,
        body: Bytes,
    ) -> Result<HttpAnswer, String> {
        let mut request = Request::builder().method(method).uri(self.uri(path));
        for (name, value) in headers {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            let value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| describe(&error))?;
        let status = response.status();
        let retry_after = response.headers().get(http::header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(HttpAnswer { status, retry_after, body })
    }
}

/// An error with its cause: hyper's own text alone says little.
fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", describe(cause)),
        None => error.to_string(),
    }
}
