//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clew_node::config::ConfigError;

use crate::config::{Config, Role};
use crate::member::Member;

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
    /// Back the catalog up; restore it after all disks of the metastore, or most, were lost
    Catalog(Catalog),
    /// Delete traces by id or by a TraceQL query
    Delete(Delete),
    /// Give a tenant settings of its own, or remove everything it has
    Tenant(Tenant),
    /// Look into the blocks in the bucket
    Block(Blocks),
    /// Tell what the bytes in the bucket are spent on
    Analyse(Analyse),
    /// Compare the catalog with the bucket
    Fsck(Fsck),
    /// Write known traces to a cluster through the public door, read them back, export how that went
    Probe(Probe),
    /// Ask a process whether it is ready; exits with 0 if it is
    Health(Health),
    /// Turn a configuration of Grafana Tempo 2 or 3 into one of Clew; a report goes to standard error
    MigrateConfig(MigrateConfig),
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

/// How the query API is reached.
#[derive(Debug, Args)]
pub(crate) struct Api {
    /// Where the query API is
    #[arg(long = "api", value_name = "URL", default_value = "http://127.0.0.1:3200")]
    pub(crate) url: String,
    /// The tenant, if there are several
    #[arg(long, value_name = "TENANT")]
    pub(crate) tenant: Option<String>,
}

/// What shall be deleted.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) api: Api,
    /// A trace by its id; repeat for several
    #[arg(long = "trace-id", value_name = "ID", conflicts_with = "query")]
    pub(crate) trace_ids: Vec<String>,
    /// All traces that this TraceQL query finds
    #[arg(long, value_name = "QUERY")]
    pub(crate) query: Option<String>,
    /// With --query: only traces that end at this Unix time in seconds or later
    #[arg(long, value_name = "SECONDS", requires = "query")]
    pub(crate) start: Option<u64>,
    /// With --query: only traces that begin at this Unix time in seconds or before
    #[arg(long, value_name = "SECONDS", requires = "query")]
    pub(crate) end: Option<u64>,
    /// Only tell what would be deleted
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// List deletions and what became of them
    #[arg(long, conflicts_with_all = ["trace_ids", "query", "dry_run"])]
    pub(crate) list: bool,
}

/// A tenant's settings, or its end.
#[derive(Debug, Args)]
pub(crate) struct Tenant {
    #[command(subcommand)]
    pub(crate) command: TenantCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Delete everything that a tenant has, and its settings
    Remove {
        /// The tenant
        name: String,
        /// Where the query API is
        #[arg(long = "api", value_name = "URL", default_value = "http://127.0.0.1:3200")]
        url: String,
    },
    /// Keep a tenant's spans longer or shorter than those of others; without options as all
    Set {
        /// The tenant
        name: String,
        /// How long spans are kept, such as 72h; 0s for ever
        #[arg(long, value_name = "DURATION")]
        retention: Option<String>,
        /// Bytes in the bucket past which the oldest spans go; 0 for no bound
        #[arg(long, value_name = "BYTES")]
        retention_bytes: Option<u64>,
        #[command(flatten)]
        member: Member,
    },
}

/// A look into blocks.
#[derive(Debug, Args)]
pub(crate) struct Blocks {
    #[command(flatten)]
    pub(crate) member: Member,
    #[command(subcommand)]
    pub(crate) command: BlockCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BlockCommand {
    /// List the blocks that queries read
    List {
        /// Of this tenant only
        #[arg(long)]
        tenant: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what a block says of itself
    Show {
        /// The object, as listed
        object: String,
        #[command(flatten)]
        options: Options,
    },
    /// Read blocks whole and check every byte against its checksums
    Verify {
        /// Objects, as listed; all if none is given
        objects: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// List the objects that compactions leave alone because they could not read them
    Parked {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Let compactions try parked objects again, once whatever was wrong with them is repaired
    Unpark {
        /// Objects, as listed
        #[arg(required_unless_present = "all")]
        objects: Vec<String>,
        /// All that are parked
        #[arg(long, conflicts_with = "objects")]
        all: bool,
    },
    /// List the damaged blocks that queries leave out
    Quarantined {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Let queries read quarantined blocks again, once they are restored. `clew fsck --verify --repair`
    /// does so for those that are whole
    Lift {
        /// Objects, as listed
        #[arg(required_unless_present = "all")]
        objects: Vec<String>,
        /// Of this tenant only
        #[arg(long)]
        tenant: Option<String>,
        /// All that are quarantined
        #[arg(long, conflicts_with = "objects")]
        all: bool,
    },
    /// Write the traces of a block to standard output
    Export {
        /// The object, as listed
        object: String,
        /// Of this tenant only
        #[arg(long)]
        tenant: Option<String>,
        /// As what
        #[arg(long, value_enum, default_value_t = ExportFormat::OtlpJson)]
        format: ExportFormat,
        #[command(flatten)]
        options: Options,
    },
}

/// What a block is exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// OTLP JSON, a trace per line
    OtlpJson,
    /// A Parquet file, a row per span
    Parquet,
}

/// What the bytes are spent on.
#[derive(Debug, Args)]
pub(crate) struct Analyse {
    #[command(flatten)]
    pub(crate) member: Member,
    /// Of this tenant only
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// So many attributes, the dearest first
    #[arg(long, default_value_t = 20)]
    pub(crate) top: usize,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// The catalog and its backups.
#[derive(Debug, Args)]
pub(crate) struct Catalog {
    #[command(flatten)]
    pub(crate) member: Member,
    #[command(subcommand)]
    pub(crate) command: CatalogCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// Write a backup into the bucket now
    Backup,
    /// List the backups in the bucket, newest first
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Copy a backup from the bucket to a file
    Export {
        /// The backup, as listed
        backup: String,
        /// The file
        file: PathBuf,
        #[command(flatten)]
        options: Options,
    },
    /// Give a metastore whose members have all lost their disks the catalog of a backup, and what was
    /// flushed and compacted since from the bucket. Started empty, it waits for this
    Restore {
        /// The backup, as listed; the newest if none is named
        #[arg(long, value_name = "BACKUP", conflicts_with = "file")]
        from: Option<String>,
        /// A file with a backup
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        restoring: Restoring,
    },
    /// The same without any backup: from the objects in the bucket alone
    Rebuild {
        /// How many shards the cluster has had from its first day on, if that never changed
        #[arg(long, value_name = "COUNT")]
        shards: Option<u32>,
        #[command(flatten)]
        restoring: Restoring,
    },
    /// Begin the metastore anew with what one member has, after the majority was lost for good; its
    /// process ends and has to be started again
    Recover {
        #[command(flatten)]
        restoring: Restoring,
    },
    /// List what is gone, and shards that stand still because their log was purged beyond the catalog
    Gaps {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a shard that stands still go on; queries name what is gone from then on
    Accept {
        /// The shard's number
        shard: u32,
    },
    /// Forget gaps, so that queries do not name them any more
    Forget {
        /// Those of this shard only
        #[arg(long)]
        shard: Option<u32>,
    },
}

/// How far a restore may go.
#[derive(Debug, Args)]
pub(crate) struct Restoring {
    /// Only tell what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also if something is missing: queries name it from then on
    #[arg(long)]
    pub(crate) accept_gaps: bool,
}

/// A comparison of catalog and bucket.
#[derive(Debug, Args)]
pub(crate) struct Fsck {
    #[command(flatten)]
    pub(crate) member: Member,
    /// Also read every block and check its checksums
    #[arg(long)]
    pub(crate) verify: bool,
    /// Delete orphans, take damaged blocks out of queries; with --verify also let queries read
    /// quarantined blocks again that are whole
    #[arg(long)]
    pub(crate) repair: bool,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What is probed, and how.
#[derive(Debug, Args)]
pub(crate) struct Probe {
    /// Where spans go: OTLP over HTTP, without /v1/traces
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4318")]
    pub(crate) otlp_url: String,
    /// Where they are read
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3200")]
    pub(crate) query_url: String,
    /// The tenant to write and read as
    #[arg(long, value_name = "TENANT")]
    pub(crate) tenant: Option<String>,
    /// How long a trace may take to be acknowledged, and then to be found each way
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// One round, then exit: with 0 if everything was found
    #[arg(long)]
    pub(crate) once: bool,
    /// With --once: try again for so long as something does not answer
    #[arg(long, value_name = "DURATION", requires = "once", value_parser = duration)]
    pub(crate) within: Option<Duration>,
    /// From one round to the next
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// Where /metrics and /ready are served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3201")]
    pub(crate) listen: SocketAddr,
}

/// Which process is asked.
#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Its API port
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3200")]
    pub(crate) url: String,
}

/// What is migrated.
#[derive(Debug, Args)]
pub(crate) struct MigrateConfig {
    /// Tempo's YAML file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

fn duration(text: &str) -> Result<Duration, String> {
    match clew_node::config::parse_duration(text) {
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("use a form like 15s or 1m30s, more than 0s".to_owned()),
    }
}

/// What can be asked of a cluster.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    #[command(flatten)]
    pub(crate) member: Member,
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
    /// Before the number of nodes of a StatefulSet changes: drain those that go, let those that stay
    /// take replicas
    Scale {
        /// The name of the set and how many nodes it will have; its nodes are NAME-0, NAME-1 and so on
        #[arg(value_name = "NAME=COUNT", required = true, value_parser = crate::scale::target)]
        targets: Vec<crate::scale::Target>,
    },
    /// Take a node out of the catalog that is gone for good and holds nothing
    Forget {
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
