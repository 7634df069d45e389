//! All settings of a process in one tree; the same file serves one node and a cluster.

use clap::ValueEnum;
use clew_node::config::{ConfigError, Span};
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
    /// Merges blocks, and deletes what is over.
    Compactor,
    /// Answers queries.
    Querier,
}

impl Role {
    pub(crate) const ALL: [Role; 5] =
        [Role::Distributor, Role::Ingester, Role::Metastore, Role::Compactor, Role::Querier];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Role::Distributor => "distributor",
            Role::Ingester => "ingester",
            Role::Metastore => "metastore",
            Role::Compactor => "compactor",
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
    /// How long a process goes on serving after SIGTERM while it already says that it is not ready, so
    /// that load balancers learn of it.
    pub(crate) shutdown_delay: Span,
    /// Whether the header X-Scope-OrgID names the tenant; otherwise there is one.
    pub(crate) multitenancy_enabled: bool,
    pub(crate) node: NodeConfig,
    pub(crate) rpc: RpcConfig,
    pub(crate) server: ServerConfig,
    pub(crate) bucket: clew_storage::BucketConfig,
    pub(crate) telemetry: clew_node::telemetry::Config,
    pub(crate) distributor: clew_distributor::Config,
    pub(crate) ingester: clew_ingester::Config,
    pub(crate) metastore: clew_metastore::Config,
    pub(crate) compactor: clew_compactor::Config,
    pub(crate) querier: clew_querier::Config,
}

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeConfig {
    /// The node's name, unique in the cluster and the same after a restart; empty = its address.
    pub(crate) name: String,
    /// The node's failure zone; empty when unknown.
    pub(crate) zone: String,
    /// The address other nodes reach the RPC port at, as `host:port`; empty = `rpc_addr`.
    pub(crate) advertise_addr: String,
}

/// The internal port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RpcConfig {
    pub(crate) tls: clew_node::tls::MutualConfig,
}

/// The public ports: the query API, and OTLP over gRPC and HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerConfig {
    pub(crate) tls: clew_node::tls::ServerConfig,
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
            shutdown_delay: Span::seconds(0),
            multitenancy_enabled: false,
            node: NodeConfig {
                name: String::new(),
                zone: String::new(),
                advertise_addr: String::new(),
            },
            rpc: RpcConfig::default(),
            server: ServerConfig::default(),
            bucket: clew_storage::BucketConfig::at(""),
            telemetry: clew_node::telemetry::Config::default(),
            distributor: clew_distributor::Config::default(),
            ingester: clew_ingester::Config::default(),
            metastore: clew_metastore::Config::default(),
            compactor: clew_compactor::Config::default(),
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

    /// The addresses of the metastore's members, names looked up; this node's own if it is alone.
    pub(crate) async fn metastore_members(&self) -> Result<Vec<String>, ConfigError> {
        let mut members = Vec::new();
        for member in &self.metastore.members {
            let Some(name) = member.strip_prefix(DNS) else {
                members.push(member.clone());
                continue;
            };
            let found = tokio::net::lookup_host(name).await;
            let found = found.map_err(|error| {
                wrong("metastore.members", &format!("{name} cannot be looked up: {error}"))
            })?;
            members.extend(found.map(|addr| addr.to_string()));
        }
        if members.is_empty() {
            members.push(self.advertised().to_owned());
        }
        members.sort();
        members.dedup();
        if self.runs(Role::Metastore) && !members.iter().any(|m| m == self.advertised()) {
            let message = format!("{} is not among {}", self.advertised(), members.join(", "));
            return Err(wrong("metastore.members", &message));
        }
        Ok(members)
    }

    /// The name of this node.
    pub(crate) fn node_name(&self) -> &str {
        let given = &self.node.name;
        if given.is_empty() { self.advertised() } else { given }
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
                "none given, allowed are distributor, ingester, metastore, compactor, querier",
            ));
        }
        self.rpc.tls.is_on()?;
        self.server.tls.is_on()?;
        let problems =
            [self.metastore.problem(), self.ingester.problem(), self.compactor.problem()];
        if let Some(problem) = problems.into_iter().flatten().next() {
            let (key, message) = problem.split_once(": ").unwrap_or(("config", &problem));
            return Err(wrong(key, message));
        }
        // A query may go on with a view of this age, and reads what its view lists.
        let longest = self.querier.view_age_max.0.saturating_add(self.querier.query_timeout.0);
        if self.compactor.grace.0 < longest {
            let message = format!(
                "{} is shorter than querier.view_age_max and querier.query_timeout together: \
                 queries could miss blocks that were replaced meanwhile",
                self.compactor.grace
            );
            return Err(wrong("compactor.grace", &message));
        }
        let members = &self.metastore.members;
        if !self.runs(Role::Metastore) && members.is_empty() {
            let message = "it is empty, but this process does not run the metastore: \
                           give the internal addresses of those that do, as host:9095";
            return Err(wrong("metastore.members", message));
        }
        if let Some(member) = members.iter().find(|member| !is_address(member)) {
            return Err(wrong("metastore.members", &format!("{member:?} is not host:port")));
        }
        let has_names = members.iter().any(|member| member.starts_with(DNS));
        let own = self.advertised().to_owned();
        if !self.node.advertise_addr.is_empty() && !is_address(&own) {
            return Err(wrong("node.advertise_addr", &format!("{own:?} is not host:port")));
        }
        let is_member = members.contains(&own) || members.is_empty() || has_names;
        if self.runs(Role::Metastore) && !is_member {
            let message = format!(
                "this node runs the metastore, but {own} (node.advertise_addr, or rpc_addr) is not \
                 in the list"
            );
            return Err(wrong("metastore.members", &message));
        }
        if !members.is_empty() && (own.starts_with("0.0.0.0:") || own.starts_with("[::]:")) {
            let message = format!("other nodes cannot reach {own}: give an address that they can");
            return Err(wrong("node.advertise_addr", &message));
        }
        Ok(())
    }

    /// The settings as YAML, secrets hidden.
    pub(crate) fn to_yaml(&self) -> Result<String, ConfigError> {
        let shown = clew_node::config::shown(self)?;
        serde_yaml_ng::to_string(&shown).map_err(|error| wrong("config", &error.to_string()))
    }
}

/// Stands before a name whose addresses are all meant.
const DNS: &str = "dns:";

fn is_address(member: &str) -> bool {
    let address = member.strip_prefix(DNS).unwrap_or(member);
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let is_bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    let is_host = !host.is_empty() && !host.contains('/') && !is_bare_v6;
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
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

    /// What a merge of the smallest usual flushes makes is finished, so their spans are merged once.
    #[test]
    fn flushes_that_are_not_small_are_merged_once() {
        const SPAN_BYTES: u64 = 50;
        let Config { ingester, compactor, .. } = Config::default();
        let fan_in = u64::from(compactor.fan_in);
        let merged = fan_in * u64::from(ingester.flush.spans_min) * SPAN_BYTES;
        assert!(merged > compactor.input_bytes_max.0 / fan_in);
    }

    #[test]
    fn members_that_cannot_work_are_named() {
        for (yaml, word) in [
            ("roles: [querier]\n", "metastore.members"),
            ("metastore: {members: [\"http://a:9095\"]}\n", "is not host:port"),
            ("metastore: {members: [\"fd00::1:9095\"]}\n", "is not host:port"),
            ("metastore: {members: [\"a:9095\"]}\n", "not in the list"),
            ("node: {advertise_addr: \"fd00::1:9095\"}\n", "is not host:port"),
            (
                "rpc_addr: 0.0.0.0:9095\nmetastore: {members: [\"0.0.0.0:9095\"]}\n",
                "node.advertise_addr",
            ),
        ] {
            let error = load(yaml).unwrap_err().to_string();
            assert!(error.contains(word), "{yaml}: {error}");
        }
        load("metastore: {members: [\"127.0.0.1:9095\", \"b:9095\"]}\n").unwrap();
        load("roles: [querier]\nmetastore: {members: [\"dns:meta:9095\"]}\n").unwrap();
    }

    #[test]
    fn half_of_a_certificate_is_named() {
        for (yaml, key) in [
            ("rpc: {tls: {ca_file: a, cert_file: b}}\n", "rpc.tls.key_file"),
            ("rpc: {tls: {cert_file: b, key_file: c}}\n", "rpc.tls.ca_file"),
            ("server: {tls: {client_ca_file: a}}\n", "server.tls.cert_file"),
        ] {
            let error = load(yaml).unwrap_err().to_string();
            assert!(error.contains(key), "{yaml}: {error}");
        }
        load("server: {tls: {cert_file: b, key_file: c}}\n").unwrap();
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
