//! Nodes that show each other certificates: who talks to whom, who is refused and how that is said,
//! and certificates that are renewed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clew_model::UnixNanos;
use clew_node::clock::ManualTime;
use clew_node::config::ConfigError;
use clew_node::http_server::{Limits, Listener, serve};
use clew_node::rpc::Dialer;
use clew_node::tls::{Credentials, MutualConfig, ServerConfig, TlsMetrics};
use clew_node::{Metrics, Stop, Tasks};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tower::ServiceExt as _;

/// After this files are looked at again when somebody connects.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// After this they are looked at also if nobody does.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// 2026-01-01.
const NOW: u64 = 1_767_225_600;

/// An authority, and what it has signed (certificates/make.py).
struct Authority {
    pem: &'static str,
    pair: &'static str,
}

const OURS: Authority = Authority {
    pem: include_str!("certificates/ours-ca.pem"),
    pair: include_str!("certificates/ours-2030.pem"),
};
const OTHERS: Authority = Authority {
    pem: include_str!("certificates/others-ca.pem"),
    pair: include_str!("certificates/others-2040.pem"),
};

/// A certificate and its key.
fn split(pair: &str) -> (&str, &str) {
    pair.split_at(pair.find("-----BEGIN PRIVATE").unwrap())
}

struct Rig {
    dir: tempfile::TempDir,
    time: ManualTime,
    metrics: Metrics,
    tls: TlsMetrics,
    tasks: Tasks,
    stop: Stop,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

fn rig() -> Rig {
    let metrics = Metrics::new();
    Rig {
        dir: tempfile::tempdir().unwrap(),
        time: ManualTime::at(UnixNanos::from_seconds(NOW)),
        tls: TlsMetrics::new(&metrics),
        metrics,
        tasks: Tasks::new(1),
        stop: Stop::new(),
    }
}

impl Rig {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, node: &str) -> MutualConfig {
        let file = |kind: &str| self.path(&format!("{node}.{kind}")).display().to_string();
        MutualConfig {
            ca_file: file("ca"),
            cert_file: file("cert"),
            key_file: file("key"),
            ..MutualConfig::default()
        }
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).unwrap();
    }

    fn give(&self, node: &str, authority: &str, (certificate, key): (&str, &str)) {
        self.write(&format!("{node}.ca"), authority);
        self.write(&format!("{node}.cert"), certificate);
        self.write(&format!("{node}.key"), key);
    }

    fn load(&self, config: &MutualConfig) -> Result<Option<Credentials>, ConfigError> {
        config.load(&self.time.clock(), &self.tls)
    }

    fn credentials(&self, node: &str, authority: &Authority) -> Credentials {
        self.give(node, authority.pem, split(authority.pair));
        self.load(&self.config(node)).unwrap().unwrap()
    }

    /// A server that answers everything with success.
    async fn serve(&self, credentials: Option<Credentials>) -> String {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap().to_string();
        let router = Router::new().fallback(|| async { "hello" });
        let listener = Listener::new(socket, credentials);
        let (clock, tasks, stop) = (self.time.clock(), self.tasks.clone(), self.stop.clone());
        self.tasks.spawn(serve(listener, router, Limits::default(), clock, tasks, stop));
        addr
    }

    /// What becomes of a call: nothing, or why it failed.
    async fn call(&self, addr: &str, credentials: Option<Credentials>) -> Result<(), String> {
        let channel = Dialer::new(&self.time.clock(), credentials).connect(addr).unwrap();
        match channel.oneshot(http::Request::new(Body::empty())).await {
            Ok(answer) if answer.status() == http::StatusCode::OK => Ok(()),
            Ok(answer) => panic!("{answer:?}"),
            Err(error) => {
                let status = error.downcast_ref::<tonic::Status>();
                Err(status.map_or_else(|| error.to_string(), |s| s.message().to_owned()))
            }
        }
    }

    fn metric(&self, line: &str) -> String {
        let text = self.metrics.render().unwrap();
        let found = text.lines().find_map(|l| l.strip_prefix(line));
        found.unwrap_or_else(|| panic!("no {line} in {text}")).trim().to_owned()
    }
}

const EXPIRY: &str = "clew_tls_certificate_expiry_timestamp_seconds{port=\"rpc\"}";

#[tokio::test]
async fn nodes_with_certificates_of_one_authority_talk() {
    let rig = rig();
    let addr = rig.serve(Some(rig.credentials("server", &OURS))).await;
    rig.call(&addr, Some(rig.credentials("client", &OURS))).await.unwrap();
    // 2030-01-01.
    assert_eq!(rig.metric(EXPIRY), "1893456000");
}

#[tokio::test]
async fn who_has_no_certificate_of_the_authority_is_refused_and_told_why() {
    let rig = rig();
    let addr = rig.serve(Some(rig.credentials("server", &OURS))).await;
    let plain = rig.call(&addr, None).await.unwrap_err();
    assert!(plain.contains(&addr) && plain.contains("it speaks TLS"), "{plain}");
    let stranger = rig.call(&addr, Some(rig.credentials("stranger", &OTHERS))).await.unwrap_err();
    assert!(stranger.contains(&addr) && stranger.contains("none of the authorities"), "{stranger}");
    // One who trusts the server, and has a certificate that the server does not.
    rig.give("mixed", &format!("{}{}", OURS.pem, OTHERS.pem), split(OTHERS.pair));
    let mixed = rig.load(&rig.config("mixed")).unwrap();
    let mixed = rig.call(&addr, mixed).await.unwrap_err();
    assert!(mixed.contains("the certificate that it was shown"), "{mixed}");
    for reason in ["plain_text", "refused_by_peer", "certificate"] {
        let line = "clew_tls_handshake_failures_total{port=\"rpc\",reason=\"";
        let line = format!("{line}{reason}\"}} 1");
        // The client may hear of it first.
        while !rig.metrics.render().unwrap().contains(&line) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_server_in_plain_text_is_told_from_one_that_is_away() {
    let rig = rig();
    let addr = rig.serve(None).await;
    let credentials = rig.credentials("client", &OURS);
    let plain = rig.call(&addr, Some(credentials.clone())).await.unwrap_err();
    assert!(plain.contains("it does not speak TLS"), "{plain}");
    let away = rig.call("127.0.0.1:1", Some(credentials)).await.unwrap_err();
    assert!(!away.contains("TLS"), "{away}");
}

#[tokio::test]
async fn certificates_are_renewed_without_a_restart() {
    let rig = rig();
    let (server, client) = (rig.credentials("server", &OURS), rig.credentials("client", &OURS));
    let addr = rig.serve(Some(server)).await;
    rig.call(&addr, Some(client.clone())).await.unwrap();
    // The key alone is new: all goes on with what there was.
    rig.write("server.key", split(OTHERS.pair).1);
    rig.time.advance(LOOK_AFTER);
    rig.call(&addr, Some(client.clone())).await.unwrap();
    assert_eq!(rig.metric(EXPIRY), "1893456000");
    // Everything is new, and whoever still has the old is a stranger.
    rig.give("server", OTHERS.pem, split(OTHERS.pair));
    rig.time.advance(LOOK_AFTER);
    let stale = rig.call(&addr, Some(client.clone())).await.unwrap_err();
    assert!(stale.contains("none of the authorities"), "{stale}");
    // 2040-01-01.
    assert_eq!(rig.metric(EXPIRY), "2208988800");
    rig.give("client", OTHERS.pem, split(OTHERS.pair));
    rig.time.advance(LOOK_AFTER);
    rig.call(&addr, Some(client)).await.unwrap();
}

#[tokio::test]
async fn the_files_are_looked_at_while_nobody_connects() {
    let rig = rig();
    let credentials = rig.credentials("server", &OURS);
    let looking = credentials.keep_current(rig.stop.clone());
    tokio::pin!(looking);
    assert!(futures::poll!(&mut looking).is_pending());
    rig.give("server", OTHERS.pem, split(OTHERS.pair));
    rig.time.advance(LOOK_INTERVAL);
    assert!(futures::poll!(&mut looking).is_pending());
    assert_eq!(rig.metric(EXPIRY), "2208988800");
}

#[tokio::test]
async fn public_ports_take_clients_without_a_certificate_unless_told_otherwise() {
    let rig = rig();
    let client = rig.credentials("client", &OURS);
    let MutualConfig { ca_file, cert_file, key_file, .. } = rig.config("client");
    for client_ca_file in [String::new(), ca_file] {
        let is_open = client_ca_file.is_empty();
        let (cert_file, key_file) = (cert_file.clone(), key_file.clone());
        let config = ServerConfig { cert_file, key_file, client_ca_file };
        let addr = rig.serve(config.load(&rig.time.clock(), &rig.tls).unwrap()).await;
        rig.call(&addr, Some(client.clone())).await.unwrap();
        let bare = connect_without_certificate(&addr).await;
        assert_eq!(bare.is_ok(), is_open, "{bare:?}");
    }
}

/// One request over HTTP/1.1 by a client that shows no certificate.
async fn connect_without_certificate(addr: &str) -> io::Result<String> {
    use rustls::pki_types::pem::PemObject as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut roots = rustls::RootCertStore::empty();
    let root = rustls::pki_types::CertificateDer::from_pem_slice(OURS.pem.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(addr).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect("clew".try_into().unwrap(), socket).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert!(answer.ends_with("hello"), "{answer}");
    Ok(answer)
}

#[test]
fn files_that_cannot_work_are_named() {
    let rig = rig();
    let refused = |config: &MutualConfig, words: &[&str]| {
        let error = rig.load(config).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{word} is not in: {error}");
        }
    };
    let config = rig.config("node");
    assert!(rig.load(&MutualConfig::default()).unwrap().is_none());
    let half = MutualConfig { key_file: String::new(), ..config.clone() };
    refused(&half, &["rpc.tls.key_file", "belong together"]);
    refused(&config, &["rpc.tls.ca_file", "node.ca", "cannot be read"]);
    let (certificate, key) = split(OURS.pair);
    rig.give("node", OURS.pem, (certificate, key));
    assert!(rig.load(&config).unwrap().is_some());
    let nameless = MutualConfig { server_name: "no name".to_owned(), ..config.clone() };
    refused(&nameless, &["rpc.tls.server_name"]);
    let other_name = include_str!("certificates/ours-other-name.pem");
    let expired = include_str!("certificates/ours-expired.pem");
    let server_only = include_str!("certificates/ours-server-only.pem");
    for (pair, words) in [
        (
            (certificate, split(OTHERS.pair).1),
            ["rpc.tls.key_file", "not the key of the certificate"],
        ),
        ((key, certificate), ["rpc.tls.cert_file", "no certificate"]),
        ((certificate, ""), ["rpc.tls.key_file", "no private key"]),
        (split(OTHERS.pair), ["rpc.tls.cert_file", "none of the authorities"]),
        (split(other_name), ["rpc.tls.cert_file", "not for the name clew but for"]),
        (split(expired), ["rpc.tls.cert_file", "it has expired"]),
        (split(server_only), ["rpc.tls.cert_file", "extended key usage"]),
    ] {
        rig.give("node", OURS.pem, pair);
        refused(&config, &words);
    }
    rig.write("node.ca", "nonsense");
    refused(&config, &["rpc.tls.ca_file", "no certificate as PEM"]);
}
