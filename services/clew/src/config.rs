//! All settings of a process in one tree; the same file serves one node and a cluster.

use clap::ValueEnum;
use clew_node::config::ConfigError;
use serde::{Deserialize, Serialize};

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Takes OTLP in.
    Distributor,
    /// Keeps shard logs and recent spans, writes blocks.
    Ingester,
    /// Remembers what the cluster consists of.
    Metastore,
    /// Answers queries.
    Querier,
}

impl Role {
    pub(crate) const ALL: [Role; 4] =
        [Role::Distributor, Role::Ingester, Role::Metastore, Role::Querier];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Role::Distributor => "distributor",
            Role::Ingester => "ingester",
            Role::Metastore => "metastore",
            Role::Querier => "querier",
        }
    }
}

/// All settings of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The roles of this process.
    pub(crate) roles: Vec<Role>,
    /// The folder for this node's state.
    pub(crate) data_dir: String,
    /// Where the query API listens.
    pub(crate) http_addr: String,
    /// Where OTLP over gRPC listens.
    pub(crate) otlp_grpc_addr: String,
    /// Where OTLP over HTTP listens.
    pub(crate) otlp_http_addr: String,
    /// Where the other nodes of the cluster connect.
    pub(crate) rpc_addr: String,
    /// Whether the header X-Scope-OrgID names the tenant; otherwise there is one.
    pub(crate) multitenancy_enabled: bool,
    pub(crate) node: NodeConfig,
    pub(crate) peers: PeersConfig,
    pub(crate) bucket: clew_storage::BucketConfig,
    pub(crate) telemetry: clew_node::telemetry::Config,
    pub(crate) distributor: clew_distributor::Config,
    pub(crate) ingester: clew_ingester::Config,
    pub(crate) metastore: clew_metastore::Config,
    pub(crate) querier: clew_querier::Config,
}

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeConfig {
    /// The node's name, unique in the cluster and the same after a restart.
    pub(crate) name: String,
    /// The node's failure zone; empty when unknown.
    pub(crate) zone: String,
    /// The address other nodes reach the RPC port at, as `host:port`; empty = `rpc_addr`.
    pub(crate) advertise_addr: String,
}

/// Where roles that do not run in this process are found, as `http://host:9095`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PeersConfig {
    pub(crate) metastore: String,
    pub(crate) ingester: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            roles: Role::ALL.to_vec(),
            data_dir: ".clew".to_owned(),
            http_addr: "0.0.0.0:3200".to_owned(),
            otlp_grpc_addr: "0.0.0.0:4317".to_owned(),
            otlp_http_addr: "0.0.0.0:4318".to_owned(),
            rpc_addr: "127.0.0.1:9095".to_owned(),
            multitenancy_enabled: false,
            node: NodeConfig {
                name: "clew-0".to_owned(),
                zone: String::new(),
                advertise_addr: String::new(),
            },
            peers: PeersConfig::default(),
            bucket: clew_storage::BucketConfig::at(""),
            telemetry: clew_node::telemetry::Config::default(),
            distributor: clew_distributor::Config::default(),
            ingester: clew_ingester::Config::default(),
            metastore: clew_metastore::Config::default(),
            querier: clew_querier::Config::default(),
        }
    }
}

impl Config {
    /// Whether this process runs the role.
    pub(crate) fn runs(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The address other nodes reach this one at.
    pub(crate) fn advertised(&self) -> &str {
        let given = &self.node.advertise_addr;
        if given.is_empty() { &self.rpc_addr } else { given }
    }

    /// The bucket; a folder in `data_dir` unless a place is given.
    pub(crate) fn bucket(&self) -> clew_storage::BucketConfig {
        let mut bucket = self.bucket.clone();
        if bucket.url.is_empty() {
            bucket.url = format!("{}/bucket", self.data_dir);
        }
        bucket
    }

    /// The bucket's place as it may be shown.
    pub(crate) fn bucket_shown(&self) -> String {
        clew_node::config::hide_password(&self.bucket().url)
    }

    /// What no single setting shows.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.roles.is_empty() {
            return Err(wrong(
                "roles",
                "none given, allowed are distributor, ingester, metastore, querier",
            ));
        }
        if self.node.name.is_empty() {
            return Err(wrong("node.name", "it is empty"));
        }
        let needs_metastore =
            self.runs(Role::Ingester) || self.runs(Role::Querier) || self.runs(Role::Distributor);
        if needs_metastore && !self.runs(Role::Metastore) && self.peers.metastore.is_empty() {
            let message = "it is empty, but this process does not run the metastore: \
                           give its address as http://host:9095";
            return Err(wrong("peers.metastore", message));
        }
        let needs_ingester = self.runs(Role::Distributor) || self.runs(Role::Querier);
        if needs_ingester && !self.runs(Role::Ingester) && self.peers.ingester.is_empty() {
            let message = "it is empty, but this process does not run the ingester: \
                           give its address as http://host:9095";
            return Err(wrong("peers.ingester", message));
        }
        Ok(())
    }

    /// The settings as YAML, secrets hidden.
    pub(crate) fn to_yaml(&self) -> Result<String, ConfigError> {
        let shown = clew_node::config::shown(self)?;
        serde_yaml_ng::to_string(&shown).map_err(|error| wrong("config", &error.to_string()))
    }
}

fn wrong(key: &str, message: &str) -> ConfigError {
    ConfigError::Key { key: key.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(yaml: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clew.yaml");
        std::fs::write(&path, yaml).unwrap();
        let config: Config = clew_node::config::load(Some(&path), Vec::new(), &[])?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        let config = Config::default();
        assert_eq!(load(&config.to_yaml().unwrap()).unwrap(), config);
    }

    #[test]
    fn a_missing_peer_is_named() {
        let error = load("roles: [querier]\n").unwrap_err().to_string();
        assert!(error.contains("peers.metastore"), "{error}");
        let error = load("roles: [distributor, metastore]\n").unwrap_err().to_string();
        assert!(error.contains("peers.ingester"), "{error}");
    }

    #[test]
    fn an_unknown_role_lists_the_known_ones() {
        let error = load("roles: [gardener]\n").unwrap_err().to_string();
        assert!(error.contains("gardener") && error.contains("ingester"), "{error}");
    }

    #[test]
    fn bucket_keys_are_secrets() {
        let config = load("bucket:\n  secret_access_key: canary\n").unwrap();
        let text = config.to_yaml().unwrap();
        assert!(text.contains("secret_access_key") && !text.contains("canary"), "{text}");
    }
}
