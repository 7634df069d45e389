//! Reaching the metastore from the command line: where it is, and with which certificate.

use clap::Args;
use clew_node::rpc::{Channel, Dialer};
use clew_node::tls::{MutualConfig, TlsMetrics};
use clew_node::{Clock, Metrics};

/// How the metastore is reached.
#[derive(Debug, Args)]
pub(crate) struct Member {
    /// The internal address of a node that runs the metastore
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9095", global = true)]
    pub(crate) addr: String,
    /// Where the internal port is encrypted (rpc.tls): the file with the authorities of its nodes
    #[arg(long = "tls-ca", value_name = "FILE", env = "CLEW_RPC_TLS_CA_FILE", global = true)]
    ca_file: Option<String>,
    /// The file with a certificate that they have signed
    #[arg(long = "tls-cert", value_name = "FILE", env = "CLEW_RPC_TLS_CERT_FILE", global = true)]
    cert_file: Option<String>,
    /// The file with its private key
    #[arg(long = "tls-key", value_name = "FILE", env = "CLEW_RPC_TLS_KEY_FILE", global = true)]
    key_file: Option<String>,
    /// The name that the certificates of nodes are for
    #[arg(
        long = "tls-server-name",
        value_name = "NAME",
        env = "CLEW_RPC_TLS_SERVER_NAME",
        global = true
    )]
    server_name: Option<String>,
}

/// A member of the metastore that a command talks to.
pub(crate) struct Reached {
    /// What errors begin with.
    pub(crate) addr: String,
    pub(crate) channel: Channel,
}

impl Member {
    /// A connection to it; `settings` say what the command line does not.
    ///
    /// # Errors
    /// Text for people.
    pub(crate) fn reach(self, settings: MutualConfig) -> Result<Reached, String> {
        let Member { addr, ca_file, cert_file, key_file, server_name } = self;
        let tls = MutualConfig {
            ca_file: ca_file.unwrap_or(settings.ca_file),
            cert_file: cert_file.unwrap_or(settings.cert_file),
            key_file: key_file.unwrap_or(settings.key_file),
            server_name: server_name.unwrap_or(settings.server_name),
        };
        let clock = Clock::system();
        let credentials = tls.load(&clock, &TlsMetrics::new(&Metrics::new()));
        let credentials = credentials.map_err(|error| error.to_string())?;
        let channel = Dialer::new(&clock, credentials).connect(&addr);
        let channel = channel.map_err(|problem| problem.to_string())?;
        Ok(Reached { addr, channel })
    }
}
