//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clew_node::config::ConfigError;

use crate::config::{Config, Role};

/// A horizontally scaled trace store and query cluster: OTLP in, the Tempo API out.
#[derive(Debug, Parser)]
#[command(name = "clew", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run Clew: every role in one process, or some of them
    Serve(Options),
    /// Print the effective settings as YAML, secrets hidden
    Config(Options),
    /// Print the version
    Version,
}

/// Where settings come from: the file, then CLEW_… variables, then these flags.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A role to run; repeat for several (default: all of them)
    #[arg(long = "role", value_name = "ROLE", value_enum)]
    roles: Vec<Role>,
    /// A YAML file with settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder for this node's state
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where the query API listens
    #[arg(long, value_name = "ADDR")]
    http_addr: Option<String>,
    /// Where OTLP over gRPC listens
    #[arg(long, value_name = "ADDR")]
    otlp_grpc_addr: Option<String>,
    /// Where OTLP over HTTP listens
    #[arg(long, value_name = "ADDR")]
    otlp_http_addr: Option<String>,
    /// Where the other nodes of the cluster connect
    #[arg(long, value_name = "ADDR")]
    rpc_addr: Option<String>,
    /// Any setting, such as ingester.flush.age_max=30s; repeat for several
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl Options {
    /// The effective settings.
    pub(crate) fn load(self) -> Result<Config, ConfigError> {
        #[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        let variables: Vec<_> = std::env::vars().collect();
        let mut config: Config =
            clew_node::config::load(self.config.as_deref(), variables, &self.settings)?;
        if !self.roles.is_empty() {
            config.roles = self.roles;
        }
        let flags = [
            (self.data_dir, &mut config.data_dir),
            (self.http_addr, &mut config.http_addr),
            (self.otlp_grpc_addr, &mut config.otlp_grpc_addr),
            (self.otlp_http_addr, &mut config.otlp_http_addr),
            (self.rpc_addr, &mut config.rpc_addr),
        ];
        for (flag, setting) in flags {
            if let Some(value) = flag {
                *setting = value;
            }
        }
        config.check()?;
        Ok(config)
    }
}
