//! The Tempo HTTP API of the server under test.

use std::time::Duration;

use bytes::Bytes;
use clew_model::TraceId;
use clew_node::Clock;
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Manners;
use super::http::HttpClient;
use crate::error::Error;

/// How many spans per trace a search asks for.
pub(crate) const SPANS_PER_SET: usize = 3;

/// A client of a server's queries.
#[derive(Clone)]
pub struct Tempo {
    client: HttpClient,
    manners: Manners,
    clock: Clock,
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
    /// From sending to the last byte of the answer.
    pub latency: Duration,
    /// What was asked.
    pub uri: String,
}

/// The time range of queries, in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds {
    /// The first second.
    pub start: u64,
    /// The second after the last.
    pub end: u64,
}

impl Seconds {
    /// The whole seconds that hold `nanos`, with a second to spare at both ends.
    pub fn around(nanos: &std::ops::Range<u64>) -> Seconds {
        let second = 1_000_000_000;
        Seconds { start: (nanos.start / second).saturating_sub(1), end: nanos.end / second + 2 }
    }
}

impl Tempo {
    /// The API at `address`, `http://host:port`.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn new(address: &str, manners: Manners, clock: Clock) -> Result<Tempo, Error> {
        Ok(Tempo { client: HttpClient::new(address)?, manners, clock })
    }

    /// A trace by its id, as protobuf.
    ///
    /// # Errors
    /// [`Error::NoAnswer`].
    pub async fn trace(&self, tenant: u64, id: TraceId) -> Result<Answer, Error> {
        self.get(tenant, &format!("/api/v2/traces/{id}"), "application/protobuf").await
    }

    /// A TraceQL search.
    ///
    /// # Errors
    /// [`Error::NoAnswer`].
    pub async fn search(
        &self,
        tenant: u64,
        query: &str,
        limit: usize,
        range: Seconds,
    ) -> Result<Answer, Error> {
        let Seconds { start, end } = range;
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let path = format!(
            "/api/search?q={query}&limit={limit}&spss={SPANS_PER_SET}&start={start}&end={end}"
        );
        self.get(tenant, &path, "application/json").await
    }

    /// The names of attributes.
    ///
    /// # Errors
    /// [`Error::NoAnswer`].
    pub async fn tag_names(&self, tenant: u64, range: Seconds) -> Result<Answer, Error> {
        let Seconds { start, end } = range;
        let path = format!("/api/v2/search/tags?start={start}&end={end}");
        self.get(tenant, &path, "application/json").await
    }

    /// The values of an attribute, named as in TraceQL.
    ///
    /// # Errors
    /// [`Error::NoAnswer`].
    pub async fn tag_values(
        &self,
        tenant: u64,
        tag: &str,
        range: Seconds,
    ) -> Result<Answer, Error> {
        let Seconds { start, end } = range;
        let path = format!("/api/v2/search/tag/{tag}/values?start={start}&end={end}");
        self.get(tenant, &path, "application/json").await
    }

    /// A request that is about the server, not its data, such as `/ready` or `/metrics`.
    ///
    /// # Errors
    /// [`Error::NoAnswer`].
    pub async fn admin(&self, method: Method, path: &str) -> Result<Answer, Error> {
        self.ask(method, 0, path, "*/*").await
    }

    async fn get(&self, tenant: u64, path: &str, accept: &str) -> Result<Answer, Error> {
        self.ask(Method::GET, tenant, path, accept).await
    }

    async fn ask(
        &self,
        method: Method,
        tenant: u64,
        path: &str,
        accept: &str,
    ) -> Result<Answer, Error> {
        let uri = self.client.uri(path);
        let accept = ("accept".to_owned(), accept.to_owned());
        let headers = self.manners.headers(tenant).chain([accept]);
        let sent = self.clock.monotonic();
        let answer = self.client.send(method, path, headers, Bytes::new());
        let timeout = self.manners.timeout;
        let answer = match self.clock.timeout(timeout, answer).await {
            None => Err(format!("nothing within {timeout:?}")),
            Some(answer) => answer,
        };
        let answer = answer.map_err(|reason| Error::NoAnswer { uri: uri.clone(), reason })?;
        let latency = self.clock.monotonic().saturating_sub(sent);
        Ok(Answer { status: answer.status, body: answer.body, latency, uri })
    }
}
