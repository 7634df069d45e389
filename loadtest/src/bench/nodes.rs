//! What replication costs: the workload of the benchmark against one node and against a cluster of
//! as many as wanted, the processor time of all processes added up. The log is written on every
//! replica, everything else is done once, so three nodes should cost far less than three times one.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_node::Deps;
use serde::Serialize;

use super::scrape::Scraped;
use super::{Bench, Options, data_set_of};
use crate::check::{Findings, Order};
use crate::error::Error;
use crate::measure::Stats;
use crate::own_cluster::OwnCluster;
use crate::report::put_findings;
use crate::send::Pace;
use crate::verify::{Depth, verify};

/// At most so many times the processor time of one node.
const RATIO_MUST: f64 = 1.9;

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
#[derive(Debug, Clone, Serialize)]
pub struct NodesCost {
    /// How many there were.
    pub nodes: usize,
    /// How many spans were acknowledged.
    pub spans: u64,
    /// Processor seconds of all processes per million spans, until all spans were in blocks.
    pub cpu_seconds_per_million: f64,
    /// The same by phase, as far as the servers tell.
    pub phases: BTreeMap<String, f64>,
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
            for (phase, seconds) in &cost.phases {
                writeln!(f, "  {phase:<10}{seconds:>8.2}")?;
            }
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
    progress(&format!("starting {nodes}"));
    let mut cluster = OwnCluster::start(&bench.options.setup, nodes, &bench.deps.clock).await?;
    progress("sending");
    let before = cluster.cpu()?;
    let stats = Arc::new(Stats::default());
    let outcome = bench.send(&cluster.first, Pace::FlatOut, 0.0, &stats).await?;
    progress("flushing");
    cluster.first.flush().await?;
    let used = cluster.cpu()?.saturating_sub(before);
    let spans = stats.totals().spans_acked;
    let per_million = |seconds: f64| seconds * 1e6 / (spans as f64).max(1.0);
    let mut phases = BTreeMap::new();
    for server in cluster.servers() {
        let scraped = Scraped::read(server).await?;
        let database = ("database".to_owned(), scraped.database_seconds);
        for (phase, seconds) in scraped.phases.into_iter().chain([database]) {
            *phases.entry(phase).or_default() += per_million(seconds);
        }
    }
    progress("checking");
    let truth = bench.truth(outcome.ledger).await?;
    let depth = Depth { traces: bench.options.by_id, order: Order::Newest };
    let asked = cluster.others.last().unwrap_or(&cluster.first);
    let verified = verify(&truth, &bench.tempo(asked)?, depth, |_| {}).await?;
    let peak_rss_bytes = cluster.peak_rss_bytes()?;
    cluster.kill().await;
    let cpu_seconds_per_million = per_million(used.as_secs_f64());
    let other = cpu_seconds_per_million - phases.values().sum::<f64>();
    phases.insert("other".to_owned(), other.max(0.0));
    let cost = NodesCost { nodes, spans, cpu_seconds_per_million, phases, peak_rss_bytes };
    Ok((cost, verified.findings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(nodes: usize, cpu_seconds_per_million: f64) -> NodesCost {
        let phases = BTreeMap::from([("log".to_owned(), 0.25)]);
        NodesCost { nodes, spans: 1, cpu_seconds_per_million, phases, peak_rss_bytes: 7_000_000 }
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
        assert!(report.to_string().contains("  log           0.25"), "{report}");
        report.many = cost(3, 20.0);
        assert!(report.to_string().contains("ratio 2.00, must 1.9: misses"), "{report}");
        assert!(report.is_clean());
    }
}
