//! What replication costs: the workload of the benchmark against one node and against a cluster of
//! as many as wanted, the processor time of all processes added up. The log is written on every
//! replica, everything else is done once, so three nodes should cost far less than three times one.

use std::time::Duration;

use clew_node::Deps;
use http::{Method, StatusCode};
use serde::Serialize;

use super::{Bench, Options, data_set_of};
use crate::check::{Findings, Order};
use crate::error::Error;
use crate::measure::Stats;
use crate::own_server::{Addresses, OwnServer};
use crate::report::put_findings;
use crate::send::Pace;
use crate::verify::{Depth, verify};

/// At most so many times the processor time of one node.
const RATIO_MUST: f64 = 1.9;
/// How long a cluster may take until every shard has all its replicas.
const HEALTHY_WITHIN: Duration = Duration::from_secs(120);
/// How often it is asked.
const HEALTHY_POLL: Duration = Duration::from_millis(500);

/// The cost of the same spans on one node and on several.
#[derive(Debug, Clone, Serialize)]
pub struct NodesReport {
    /// What the result is called in comparisons.
    pub label: String,
    /// What one node used.
    pub one: NodesCost,
    /// What the cluster used.
    pub many: NodesCost,
    /// Wrong answers.
    #[serde(skip)]
    pub findings: Findings,
}

/// What so many nodes used for the workload.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NodesCost {
    /// How many there were.
    pub nodes: usize,
    /// How many spans were acknowledged.
    pub spans: u64,
    /// Processor seconds of all processes per million spans, until all spans were in blocks.
    pub cpu_seconds_per_million: f64,
    /// Bytes of the largest process at its peak.
    pub peak_rss_bytes: u64,
}

impl NodesReport {
    /// How many times the processor time of one node the cluster took.
    pub fn ratio(&self) -> f64 {
        self.many.cpu_seconds_per_million / self.one.cpu_seconds_per_million.max(1e-9)
    }

    /// Whether every answer was right.
    pub fn is_clean(&self) -> bool {
        self.findings.total() == 0
    }
}

impl std::fmt::Display for NodesReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for cost in [&self.one, &self.many] {
            writeln!(
                f,
                "{} node{}: {:.2} CPU seconds per million spans ({} spans), at most {} MB each",
                cost.nodes,
                if cost.nodes == 1 { "" } else { "s" },
                cost.cpu_seconds_per_million,
                cost.spans,
                cost.peak_rss_bytes / 1_000_000,
            )?;
        }
        let verdict = if self.ratio() <= RATIO_MUST { "holds" } else { "misses" };
        writeln!(f, "ratio {:.2}, must {RATIO_MUST}: {verdict}", self.ratio())?;
        let mut text = String::new();
        put_findings(&mut text, &self.findings);
        f.write_str(&text)
    }
}

/// Runs the workload against one node, then against `nodes`.
///
/// # Errors
/// [`Error::Server`] when a server does not start, replicate or flush, and those of sending and
/// asking. Wrong answers are in the report.
pub async fn run_nodes(
    options: &Options,
    nodes: usize,
    deps: &Deps,
    mut progress: impl FnMut(&str),
) -> Result<NodesReport, Error> {
    let data_set = data_set_of(options);
    data_set.check()?;
    let bench = Bench { options, deps, data_set };
    let (one, mut findings) = cost(&bench, 1, &mut progress).await?;
    let (many, more) = cost(&bench, nodes, &mut progress).await?;
    findings.append(more);
    Ok(NodesReport { label: options.label.clone(), one, many, findings })
}

async fn cost(
    bench: &Bench<'_>,
    nodes: usize,
    progress: &mut impl FnMut(&str),
) -> Result<(NodesCost, Findings), Error> {
    progress(&format!("starting {nodes} of {nodes}"));
    let mut servers = start(bench, nodes).await?;
    let (Some(first), Some(last)) = (servers.first(), servers.last()) else {
        return Err(Error::Usage("a cluster has at least one node".to_owned()));
    };
    wait_until_healthy(bench, first, nodes).await?;
    progress("sending");
    let before = cpu(&servers)?;
    let stats = std::sync::Arc::new(Stats::default());
    let outcome = bench.send(first, Pace::FlatOut, 0.0, &stats).await?;
    progress("flushing");
    first.flush().await?;
    let used = cpu(&servers)?.saturating_sub(before);
    let spans = stats.totals().spans_acked;
    progress("checking");
    let truth = bench.truth(outcome.ledger).await?;
    let depth = Depth { traces: bench.options.by_id, order: Order::Newest };
    let verified = verify(&truth, &bench.tempo(last)?, depth, |_| {}).await?;
    let mut peak_rss_bytes = 0;
    for server in &mut servers {
        peak_rss_bytes = server.process().usage()?.peak_rss_bytes.max(peak_rss_bytes);
        server.kill().await;
    }
    let cpu_seconds_per_million = used.as_secs_f64() * 1e6 / (spans as f64).max(1.0);
    Ok((NodesCost { nodes, spans, cpu_seconds_per_million, peak_rss_bytes }, verified.findings))
}

/// Nodes with all roles that share a bucket, each in a zone of its own.
async fn start(bench: &Bench<'_>, nodes: usize) -> Result<Vec<OwnServer>, Error> {
    let addresses = Addresses::free(nodes)?;
    let members: Vec<&str> = addresses.iter().map(Addresses::rpc).collect();
    // More than three members make the metastore no safer.
    let members = members[..members.len().min(if nodes < 3 { 1 } else { 3 })].join(",");
    let mut bucket = None;
    let mut servers = Vec::new();
    for (at, addresses) in addresses.into_iter().enumerate() {
        let folder = tempfile::tempdir().map_err(|error| Error::Server(error.to_string()))?;
        let bucket = bucket.get_or_insert_with(|| folder.path().join("bucket"));
        let setup = bench.options.setup.with(&[
            &format!("metastore.members=[{members}]"),
            &format!("node.name=node-{at}"),
            &format!("node.zone=zone-{at}"),
            &format!("bucket.url={}", bucket.display()),
        ]);
        servers.push(OwnServer::spawn(setup, addresses, folder, &bench.deps.clock)?);
    }
    for server in &mut servers {
        server.wait_until_ready().await?;
    }
    Ok(servers)
}

/// Waits until every shard has a leader and a replica on as many nodes as it should.
async fn wait_until_healthy(
    bench: &Bench<'_>,
    server: &OwnServer,
    nodes: usize,
) -> Result<(), Error> {
    let clock = &bench.deps.clock;
    let until = clock.monotonic() + HEALTHY_WITHIN;
    let tempo = bench.tempo(server)?;
    while clock.monotonic() < until {
        let answer = tempo.admin(Method::GET, "/status/cluster").await?;
        if answer.status == StatusCode::OK && is_healthy(&answer.body, nodes.min(3)) {
            return Ok(());
        }
        clock.sleep(HEALTHY_POLL).await;
    }
    Err(Error::Server("not every shard had its replicas in time".to_owned()))
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

fn cpu(servers: &[OwnServer]) -> Result<Duration, Error> {
    servers.iter().map(|server| Ok(server.process().usage()?.cpu)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(nodes: usize, cpu_seconds_per_million: f64) -> NodesCost {
        NodesCost { nodes, spans: 1, cpu_seconds_per_million, peak_rss_bytes: 7_000_000 }
    }

    #[test]
    fn the_ratio_is_shown_with_its_goal() {
        let mut report = NodesReport {
            label: String::new(),
            one: cost(1, 10.0),
            many: cost(3, 15.0),
            findings: Findings::default(),
        };
        assert!(report.to_string().contains("ratio 1.50, must 1.9: holds"), "{report}");
        report.many = cost(3, 20.0);
        assert!(report.to_string().contains("ratio 2.00, must 1.9: misses"), "{report}");
        assert!(report.is_clean());
    }

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
