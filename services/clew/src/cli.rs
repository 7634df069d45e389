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
    /// Look at a cluster, or change it
    Cluster(Cluster),
    /// Run a search and print how it was run: the plan, and what each step read and took
    Explain(Explain),
    /// Print the version
    Version,
}

/// A search to be explained.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The TraceQL query
    pub(crate) query: String,
    /// The query API of a server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3200")]
    pub(crate) url: String,
    /// The tenant, where there are several
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// How many traces are looked for
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: u32,
    /// Only traces of the last while, such as 1h
    #[arg(long, value_name = "DURATION")]
    pub(crate) since: Option<String>,
}

/// What can be asked of a cluster.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    /// The internal address of a node that runs the metastore
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9095", global = true)]
    pub(crate) addr: String,
    #[command(subcommand)]
    pub(crate) command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Print nodes, shards, leaders and how far they are
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Move every replica away from a node, and wait until none is left
    Drain {
        /// The node's name
        node: String,
        /// Return at once
        #[arg(long)]
        no_wait: bool,
    },
    /// Let a drained node take replicas again
    Undrain {
        /// The node's name
        node: String,
    },
    /// Give up the log of a shard that lost its majority for good, and begin a new one
    Recover {
        /// The shard's number
        shard: u32,
        /// Also if a node says that it leads the shard
        #[arg(long)]
        force: bool,
    },
    /// Grow the number of shards while traffic flows
    Shards {
        /// How many there shall be
        count: u32,
    },
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
