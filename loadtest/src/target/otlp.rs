//! Where spans go in, over either OTLP protocol.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use clew_node::Clock;
use flate2::write::GzEncoder;

use super::Manners;
use super::grpc::Grpc;
use super::http::HttpClient;
use super::outcome::Sent;
use crate::error::Error;

/// How spans are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, protobuf bodies.
    Http,
}

/// How requests are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// Not at all: the client costs least.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// A server's OTLP entrance, with a fixed number of connections.
pub struct Otlp {
    lines: Lines,
    compression: Compression,
    manners: Manners,
    clock: Clock,
}

enum Lines {
    Grpc(Vec<Grpc>),
    Http(Vec<HttpClient>),
}

impl Otlp {
    /// The entrance at `address`, `http://host:port`; nothing is opened yet.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn new(
        address: &str,
        protocol: Protocol,
        compression: Compression,
        connections: usize,
        manners: Manners,
        clock: Clock,
    ) -> Result<Otlp, Error> {
        let lines = match protocol {
            Protocol::Grpc => Lines::Grpc(
                (0..connections)
                    .map(|_| Grpc::new(address, compression))
                    .collect::<Result<_, _>>()?,
            ),
            Protocol::Http => Lines::Http(
                (0..connections).map(|_| HttpClient::new(address)).collect::<Result<_, _>>()?,
            ),
        };
        Ok(Otlp { lines, compression, manners, clock })
    }

    /// A request's body as [`Self::send`] wants it. Compressing is work, so it is done where
    /// requests are made and not where they are sent.
    pub fn prepare(&self, body: Vec<u8>) -> Bytes {
        match (&self.lines, self.compression) {
            (Lines::Grpc(_), _) | (_, Compression::None) => Bytes::from(body),
            (_, Compression::Gzip) => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                let written = encoder.write_all(&body).and_then(|()| encoder.finish());
                // Writing to memory does not fail.
                Bytes::from(written.unwrap_or_default())
            }
            (_, Compression::Zstd) => {
                Bytes::from(zstd::bulk::compress(&body, 1).unwrap_or_default())
            }
        }
    }

    /// Makes one attempt over connection `line` (any number).
    pub async fn send(&self, line: usize, tenant: u64, body: Bytes) -> Sent {
        let headers = self.manners.headers(tenant);
        let timeout = self.manners.timeout;
        let answer = match &self.lines {
            Lines::Grpc(lines) => {
                let send = lines[line % lines.len()].send(headers, body);
                self.clock.timeout(timeout, send).await
            }
            Lines::Http(lines) => {
                let send = self.post(&lines[line % lines.len()], headers, body);
                self.clock.timeout(timeout, send).await
            }
        };
        answer.unwrap_or_else(|| slow(timeout))
    }

    async fn post(
        &self,
        line: &HttpClient,
        headers: impl Iterator<Item = (String, String)>,
        body: Bytes,
    ) -> Sent {
        let own = [
            Some(("content-type".to_owned(), "application/x-protobuf".to_owned())),
            match self.compression {
                Compression::None => None,
                Compression::Gzip => Some(("content-encoding".to_owned(), "gzip".to_owned())),
                Compression::Zstd => Some(("content-encoding".to_owned(), "zstd".to_owned())),
            },
        ];
        let headers = headers.chain(own.into_iter().flatten());
        match line.send(http::Method::POST, "/v1/traces", headers, body).await {
            Ok(answer) => {
                let retry_after = answer.retry_after.as_deref();
                Sent::from_http(answer.status.as_u16(), retry_after, &answer.body)
            }
            Err(reason) => Sent::Unanswered { reason },
        }
    }
}

fn slow(timeout: Duration) -> Sent {
    Sent::Unanswered { reason: format!("no answer within {timeout:?}") }
}
