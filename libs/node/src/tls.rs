//! Encrypted connections: certificates and keys from files, for the internal port (where both sides
//! show a certificate of the cluster's authority) and for public ones.
//!
//! Files are looked at again every few seconds while connections are made, so that certificates are
//! renewed without a restart. Invariants: what was read is used only if it fits together (key and
//! certificate, and for the internal port certificate, name and authority), otherwise what was read
//! before goes on; connections that are open stay as they are.

mod complaints;
mod expiry;
mod files;
mod refusal;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub(crate) use self::complaints::Complaints;
use self::files::{Contents, Files, Named, Sides};
pub(crate) use self::refusal::Refusal;
use crate::config::ConfigError;
use crate::{Clock, Stop};

/// How long what the files hold counts as known.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// How often files are looked at while nobody connects, for the sake of the metric.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The files of the internal port. All three, or none: then it speaks plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MutualConfig {
    /// The file with the authorities that sign the certificates of the cluster's nodes, and of nobody
    /// else, as PEM. Empty = plain text.
    pub ca_file: String,
    /// The file with the certificate of this node, as PEM, with what is between it and the authority.
    pub cert_file: String,
    /// The file with its private key, as PEM.
    pub key_file: String,
    /// The name that the certificates of all nodes are for, whatever their addresses.
    pub server_name: String,
}

impl Default for MutualConfig {
    fn default() -> Self {
        MutualConfig {
            ca_file: String::new(),
            cert_file: String::new(),
            key_file: String::new(),
            server_name: "clew".to_owned(),
        }
    }
}

impl MutualConfig {
    fn files(&self) -> Files {
        const SECTION: &str = "rpc.tls";
        Files {
            port: "rpc",
            authorities: Named::new(SECTION, "ca_file", &self.ca_file),
            certificate: Named::new(SECTION, "cert_file", &self.cert_file),
            key: Named::new(SECTION, "key_file", &self.key_file),
            peers: Some(Named::new(SECTION, "server_name", &self.server_name)),
        }
    }

    /// Whether the internal port is encrypted.
    ///
    /// # Errors
    /// [`ConfigError`] when some files are named and others are not.
    pub fn is_on(&self) -> Result<bool, ConfigError> {
        self.files().are_given()
    }

    /// What the files hold; nothing when none is named.
    ///
    /// # Errors
    /// [`ConfigError`] naming the setting whose file is missing, unreadable or does not fit.
    pub fn load(
        &self,
        clock: &Clock,
        metrics: &TlsMetrics,
    ) -> Result<Option<Credentials>, ConfigError> {
        Credentials::load(self.files(), clock, metrics)
    }
}

/// The files of the public ports. Certificate and key, or none: then they speak plain text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// The file with the certificate of the query API and the OTLP ports, as PEM. Empty = plain text.
    pub cert_file: String,
    /// The file with its private key, as PEM.
    pub key_file: String,
    /// The file with the authorities that sign the certificates of clients, as PEM. Empty = clients
    /// need none.
    pub client_ca_file: String,
}

impl ServerConfig {
    fn files(&self) -> Files {
        const SECTION: &str = "server.tls";
        Files {
            port: "public",
            authorities: Named::new(SECTION, "client_ca_file", &self.client_ca_file),
            certificate: Named::new(SECTION, "cert_file", &self.cert_file),
            key: Named::new(SECTION, "key_file", &self.key_file),
            peers: None,
        }
    }

    /// Whether the public ports are encrypted.
    ///
    /// # Errors
    /// [`ConfigError`] when some files are named and others are not.
    pub fn is_on(&self) -> Result<bool, ConfigError> {
        self.files().are_given()
    }

    /// What the files hold; nothing when none is named.
    ///
    /// # Errors
    /// [`ConfigError`] naming the setting whose file is missing, unreadable or does not fit.
    pub fn load(
        &self,
        clock: &Clock,
        metrics: &TlsMetrics,
    ) -> Result<Option<Credentials>, ConfigError> {
        Credentials::load(self.files(), clock, metrics)
    }
}

/// What is measured of encrypted ports.
#[derive(Debug, Clone)]
pub struct TlsMetrics {
    expiry: IntGaugeVec,
    failures: IntCounterVec,
}

impl TlsMetrics {
    /// Registers them.
    pub fn new(metrics: &crate::Metrics) -> TlsMetrics {
        TlsMetrics {
            expiry: metrics.gauges(
                "clew_tls_certificate_expiry_timestamp_seconds",
                "When the certificate of a port ends to be valid, in Unix seconds.",
                &["port"],
            ),
            failures: metrics.counters(
                "clew_tls_handshake_failures_total",
                "Connections to a port that were refused, by reason.",
                &["port", "reason"],
            ),
        }
    }
}

/// Certificate, key and authorities of one port, always as the files have them. Cheap to clone.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    files: Files,
    clock: Clock,
    metrics: TlsMetrics,
    complaints: Complaints,
    held: Mutex<Held>,
}

/// What was read last and fits together.
struct Held {
    contents: Contents,
    sides: Sides,
    looked_at: Duration,
    /// What is wrong with what the files hold since.
    problem: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    fn load(
        files: Files,
        clock: &Clock,
        metrics: &TlsMetrics,
    ) -> Result<Option<Credentials>, ConfigError> {
        if !files.are_given()? {
            return Ok(None);
        }
        let contents = files.read()?;
        let sides = files.sides(&contents, clock)?;
        let inner = Inner {
            held: Mutex::new(Held { contents, sides, looked_at: clock.monotonic(), problem: None }),
            complaints: Complaints::new(clock),
            clock: clock.clone(),
            metrics: metrics.clone(),
            files,
        };
        inner.measure(&inner.held.lock().sides);
        Ok(Some(Credentials(Arc::new(inner))))
    }

    /// Looks at the files now and then until `stop`.
    pub async fn keep_current(self, stop: Stop) {
        while stop.or(self.0.clock.sleep(LOOK_INTERVAL)).await.is_some() {
            self.current();
        }
    }

    /// What new connections are made from.
    fn current(&self) -> Sides {
        let now = self.0.clock.monotonic();
        let mut held = self.0.held.lock();
        if now.saturating_sub(held.looked_at) >= LOOK_AFTER {
            held.looked_at = now;
            self.0.look(&mut held);
        }
        held.sides.clone()
    }

    /// The encrypted stream with a client that has just connected; nothing if it is refused, which is
    /// counted and logged.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        within: Duration,
    ) -> Option<server::TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.current().server);
        let Some(accepted) = self.0.clock.timeout(within, acceptor.accept(stream)).await else {
            self.0.refused("timeout");
            return None;
        };
        let error = match accepted {
            Ok(stream) => return Some(stream),
            Err(error) => error,
        };
        let port = self.0.files.port;
        match Refusal::of(&error) {
            Some(Refusal { reason, text }) => {
                self.0.refused(reason);
                if self.0.complaints.is_news(&format!("{reason} {}", peer.ip())) {
                    tracing::warn!(port, %peer, reason, "a client was refused: {text}");
                }
            }
            None => {
                self.0.refused("closed");
                tracing::debug!(port, %peer, %error, "a client went away before it could be heard");
            }
        }
        None
    }

    /// The encrypted stream to another node.
    ///
    /// # Errors
    /// Of the connection, or rustls's in it.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let Some((config, name)) = self.current().client else {
            return Err(io::Error::other("these certificates are not for calls"));
        };
        TlsConnector::from(config).connect(name, stream).await
    }
}

impl Inner {
    fn refused(&self, reason: &str) {
        self.metrics.failures.with_label_values(&[self.files.port, reason]).inc();
    }

    fn measure(&self, sides: &Sides) {
        let seconds = i64::try_from(sides.not_after).unwrap_or(i64::MAX);
        self.metrics.expiry.with_label_values(&[self.files.port]).set(seconds);
    }

    /// Takes over what the files hold by now, if it is new and fits together.
    fn look(&self, held: &mut Held) {
        let found = self.files.read().and_then(|contents| {
            if contents == held.contents {
                return Ok(None);
            }
            self.files.sides(&contents, &self.clock).map(|sides| Some((contents, sides)))
        });
        let port = self.files.port;
        match found {
            Ok(None) => held.problem = None,
            Ok(Some((contents, sides))) => {
                tracing::info!(port, not_after = sides.not_after, "new certificates are in use");
                self.measure(&sides);
                *held = Held { contents, sides, looked_at: held.looked_at, problem: None };
            }
            // Also while one of the files is replaced and another is not yet.
            Err(error) => {
                let text = error.to_string();
                if held.problem.as_ref() != Some(&text) {
                    tracing::warn!(port, %error, "the old certificates stay in use");
                    held.problem = Some(text);
                }
            }
        }
    }
}
