//! Several servers of one's own that form a cluster: all roles on each, one bucket, a zone each.

use std::time::Duration;

use clew_node::Clock;
use http::{Method, StatusCode};

use crate::error::Error;
use crate::own_server::{Addresses, OwnServer, Setup};
use crate::target::{Manners, Tempo};

/// How long a cluster may take until every shard has all its replicas.
const HEALTHY_WITHIN: Duration = Duration::from_secs(120);
/// How often it is asked.
const HEALTHY_POLL: Duration = Duration::from_millis(500);
/// The replicas of a shard, where there are so many nodes.
const REPLICAS: usize = 3;

/// A cluster that runs. There is always a first node.
pub(crate) struct OwnCluster {
    pub(crate) first: OwnServer,
    pub(crate) others: Vec<OwnServer>,
    clock: Clock,
}

impl OwnCluster {
    /// Starts so many nodes, at least one, and waits until every shard has its replicas.
    pub(crate) async fn start(
        setup: &Setup,
        nodes: usize,
        clock: &Clock,
    ) -> Result<OwnCluster, Error> {
        let addresses = Addresses::free(nodes.max(1))?;
        let members: Vec<&str> = addresses.iter().map(Addresses::rpc).collect();
        // More than three members make the metastore no safer.
        let members = members[..members.len().min(if nodes < 3 { 1 } else { 3 })].join(",");
        let mut bucket = None;
        let mut servers = Vec::new();
        for (at, addresses) in addresses.into_iter().enumerate() {
            let folder = tempfile::tempdir().map_err(|error| Error::Server(error.to_string()))?;
            let bucket = bucket.get_or_insert_with(|| folder.path().join("bucket"));
            let setup = setup.with(&[
                &format!("metastore.members=[{members}]"),
                &format!("node.name=node-{at}"),
                &format!("node.zone=zone-{at}"),
                &format!("bucket.url={}", bucket.display()),
            ]);
            servers.push(OwnServer::spawn(setup, addresses, folder, clock)?);
        }
        for server in &mut servers {
            server.wait_until_ready().await?;
        }
        let mut servers = servers.into_iter();
        let first = servers.next().ok_or_else(|| Error::Server("no node".to_owned()))?;
        let cluster = OwnCluster { first, others: servers.collect(), clock: clock.clone() };
        cluster.wait_until_healthy().await?;
        Ok(cluster)
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = &OwnServer> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Waits until every shard has a leader and a replica on as many nodes as it should.
    pub(crate) async fn wait_until_healthy(&self) -> Result<(), Error> {
        let until = self.clock.monotonic() + HEALTHY_WITHIN;
        let manners =
            Manners { headers: Vec::new(), timeout: HEALTHY_WITHIN, tenant_header: false };
        let tempo = Tempo::new(&self.first.query_url(), manners, self.clock.clone())?;
        let replicas = (1 + self.others.len()).min(REPLICAS);
        while self.clock.monotonic() < until {
            let answer = tempo.admin(Method::GET, "/status/cluster").await?;
            if answer.status == StatusCode::OK && is_healthy(&answer.body, replicas) {
                return Ok(());
            }
            self.clock.sleep(HEALTHY_POLL).await;
        }
        Err(Error::Server("not every shard had its replicas in time".to_owned()))
    }

    /// Processor time of all nodes so far.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        self.servers().map(|server| Ok(server.process().usage()?.cpu)).sum()
    }

    /// The most memory that any node ever used, in bytes.
    pub(crate) fn peak_rss_bytes(&self) -> Result<u64, Error> {
        let peaks = self.servers().map(|server| Ok(server.process().usage()?.peak_rss_bytes));
        peaks.collect::<Result<Vec<u64>, Error>>().map(|peaks| peaks.into_iter().max().unwrap_or(0))
    }

    /// Fails if a node has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<(), Error> {
        self.first.check_alive()?;
        self.others.iter_mut().try_for_each(OwnServer::check_alive)
    }

    /// Ends all nodes at once.
    pub(crate) async fn kill(&mut self) {
        self.first.kill().await;
        for server in &mut self.others {
            server.kill().await;
        }
    }
}

fn is_healthy(status: &[u8], replicas: usize) -> bool {
    let status: serde_json::Value = serde_json::from_slice(status).unwrap_or_default();
    let Some(shards) = status["shards"].as_array() else { return false };
    let has_all = |shard: &serde_json::Value| {
        let found = shard["replicas"].as_array().map_or(0, Vec::len);
        shard["healthy"] == true && shard["settled"] == true && found >= replicas
    };
    !shards.is_empty() && shards.iter().all(has_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_healthy_once_every_shard_has_its_replicas() {
        let status = |healthy: bool, replicas: usize| {
            let shard = serde_json::json!({
                "healthy": healthy, "settled": true, "replicas": vec![0; replicas],
            });
            serde_json::json!({ "shards": [shard] }).to_string()
        };
        assert!(is_healthy(status(true, 3).as_bytes(), 3));
        assert!(!is_healthy(status(true, 2).as_bytes(), 3));
        assert!(!is_healthy(status(false, 3).as_bytes(), 3));
        assert!(!is_healthy(b"{\"shards\":[]}", 3));
        assert!(!is_healthy(b"not yet", 3));
    }
}
