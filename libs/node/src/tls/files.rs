//! From the files named in the settings to what rustls works with, and what is wrong with them in
//! words that name the setting.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::expiry;
use super::refusal::of_certificate;
use crate::Clock;
use crate::config::ConfigError;

/// The protocol of the internal port (RFC 9113 section 3.1).
const HTTP2: &[u8] = b"h2";

/// The other protocol of public ports (RFC 7301 section 6).
const HTTP1: &[u8] = b"http/1.1";

/// One file and the setting that names it.
#[derive(Debug, Clone)]
pub(super) struct Named {
    key: String,
    path: String,
}

impl Named {
    pub(super) fn new(section: &str, key: &str, path: &str) -> Named {
        Named { key: format!("{section}.{key}"), path: path.to_owned() }
    }

    fn is_given(&self) -> bool {
        !self.path.is_empty()
    }

    fn wrong(&self, message: impl std::fmt::Display) -> ConfigError {
        let message = format!("{}: {message}", self.path);
        ConfigError::Key { key: self.key.clone(), message }
    }

    fn read(&self) -> Result<Vec<u8>, ConfigError> {
        std::fs::read(&self.path).map_err(|error| self.wrong(format!("cannot be read: {error}")))
    }
}

/// The files of one port.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// What the port is called in metrics and logs.
    pub(super) port: &'static str,
    /// The authorities whose signature clients need; a missing one asks clients for nothing.
    pub(super) authorities: Named,
    pub(super) certificate: Named,
    pub(super) key: Named,
    /// The name of every server, and the setting that says it, where this process also calls others
    /// with the same certificate.
    pub(super) peers: Option<Named>,
}

/// What is in the files.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    authorities: Option<Vec<u8>>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// What connections are made from.
#[derive(Clone)]
pub(super) struct Sides {
    pub(super) server: Arc<ServerConfig>,
    /// For calls to others, and the name that they have to have.
    pub(super) client: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The end of the certificate's validity, in Unix seconds.
    pub(super) not_after: u64,
}

impl Files {
    /// Whether the settings name the files that they have to; `false` if they name none.
    pub(super) fn are_given(&self) -> Result<bool, ConfigError> {
        let needs_authorities = self.peers.is_some();
        let all = [&self.authorities, &self.certificate, &self.key];
        if !all.iter().any(|file| file.is_given()) {
            return Ok(false);
        }
        let mut needed = all.into_iter().skip(usize::from(!needs_authorities));
        if let Some(file) = needed.find(|file| !file.is_given()) {
            let given = all.iter().find(|file| file.is_given()).map_or("", |file| &file.key);
            let message = format!("it is empty, but {given} is given: they belong together");
            return Err(ConfigError::Key { key: file.key.clone(), message });
        }
        Ok(true)
    }

    pub(super) fn read(&self) -> Result<Contents, ConfigError> {
        let authorities = self.authorities.is_given().then(|| self.authorities.read());
        Ok(Contents {
            authorities: authorities.transpose()?,
            certificate: self.certificate.read()?,
            key: self.key.read()?,
        })
    }

    /// Both sides of connections, if the files belong together and other nodes with the same
    /// authorities would take them.
    pub(super) fn sides(&self, contents: &Contents, clock: &Clock) -> Result<Sides, ConfigError> {
        let chain = certificates(&self.certificate, &contents.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| self.key.wrong(format!("it holds no private key as PEM: {error}")))?;
        let ends = chain.iter().map(|certificate| expiry::not_after(certificate));
        let ends: Option<Vec<u64>> = ends.collect();
        let not_after = ends.and_then(|ends| ends.into_iter().min());
        let not_after = not_after.ok_or_else(|| self.certificate.wrong("it is no certificate"))?;
        let roots = match &contents.authorities {
            Some(bytes) => Some(Arc::new(self.roots(bytes)?)),
            None => None,
        };
        let client = match (&self.peers, &roots) {
            (Some(peers), Some(roots)) => Some(self.client(peers, roots, &chain, &key, clock)?),
            _ => None,
        };
        let server = Arc::new(self.server(roots.as_ref(), chain, key, clock)?);
        Ok(Sides { server, client, not_after })
    }

    fn roots(&self, bytes: &[u8]) -> Result<RootCertStore, ConfigError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authorities, bytes)? {
            roots.add(certificate).map_err(|error| self.authorities.wrong(error))?;
        }
        Ok(roots)
    }

    /// The calling side; checks that the other side of the same files would agree.
    fn client(
        &self,
        peers: &Named,
        roots: &Arc<RootCertStore>,
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
        clock: &Clock,
    ) -> Result<(Arc<ClientConfig>, ServerName<'static>), ConfigError> {
        let name = ServerName::try_from(peers.path.clone()).map_err(|error| ConfigError::Key {
            key: peers.key.clone(),
            message: error.to_string(),
        })?;
        let provider = provider();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
        let verifier = verifier.build().map_err(|error| self.authorities.wrong(error))?;
        if let Some((own, above)) = chain.split_first() {
            let now = ClockTime(clock.clone()).now();
            verifier
                .verify_server_cert(own, above, &name, &[], now)
                .map_err(|error| self.not_own("server", &error))?;
            self.client_verifier(roots)?
                .verify_client_cert(own, above, now)
                .map_err(|error| self.not_own("client", &error))?;
        }
        let time = Arc::new(ClockTime(clock.clone()));
        let mut config = ClientConfig::builder_with_details(provider, time)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| self.certificate.wrong(error))?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(chain.to_vec(), key.clone_key())
            .map_err(|error| self.not_a_pair(&error))?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        // A connection lasts, and one that is made anew shall be checked anew.
        config.resumption = Resumption::disabled();
        Ok((Arc::new(config), name))
    }

    /// The answering side.
    fn server(
        &self,
        roots: Option<&Arc<RootCertStore>>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        clock: &Clock,
    ) -> Result<ServerConfig, ConfigError> {
        let is_internal = self.peers.is_some();
        let versions: &[&SupportedProtocolVersion] =
            if is_internal { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let time = Arc::new(ClockTime(clock.clone()));
        let builder = ServerConfig::builder_with_details(provider(), time)
            .with_protocol_versions(versions)
            .map_err(|error| self.certificate.wrong(error))?;
        let builder = match roots {
            Some(roots) => builder.with_client_cert_verifier(self.client_verifier(roots)?),
            None => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|error| self.not_a_pair(&error))?;
        config.alpn_protocols = match is_internal {
            true => vec![HTTP2.to_vec()],
            false => vec![HTTP2.to_vec(), HTTP1.to_vec()],
        };
        if roots.is_some() {
            // A ticket would let a client in again without a look at its certificate.
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }

    fn client_verifier(
        &self,
        roots: &Arc<RootCertStore>,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, ConfigError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
        verifier.build().map_err(|error| self.authorities.wrong(error))
    }

    fn not_own(&self, side: &str, error: &rustls::Error) -> ConfigError {
        let why = match error {
            rustls::Error::InvalidCertificate(error) => of_certificate(error),
            other => other.to_string(),
        };
        self.certificate.wrong(format!(
            "other nodes would not take it as a {side}'s, by what {} holds: {why}",
            self.authorities.path
        ))
    }

    fn not_a_pair(&self, error: &rustls::Error) -> ConfigError {
        match error {
            rustls::Error::InconsistentKeys(_) => self.key.wrong(format!(
                "it is not the key of the certificate in {}",
                self.certificate.path
            )),
            other => self.key.wrong(other),
        }
    }
}

fn certificates(file: &Named, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| file.wrong(format!("it is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(file.wrong("it holds no certificate as PEM"));
    }
    Ok(found)
}

/// The cryptography that the bucket's client uses, too.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The process's clock for rustls.
#[derive(Debug)]
struct ClockTime(Clock);

impl ClockTime {
    fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_nanos(self.0.now_unix().0))
    }
}

impl rustls::time_provider::TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.now())
    }
}
