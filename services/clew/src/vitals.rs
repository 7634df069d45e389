//! What a process tells about itself in metrics, whatever its roles: who it is, whether it is ready,
//! and the limits that its gauges are compared with. A process that leads the metastore also tells how
//! the cluster stands; nobody else does, so that nothing is counted twice.

use std::collections::BTreeSet;
use std::time::Duration;

use clew_catalog::{NodeState, Roles, SharedTopology, Topology};
use clew_node::rpc::Channel;
use clew_node::{Clock, Metrics, Stop};
use clew_proto::metastore::v1::StatusResponse;
use prometheus::{IntGauge, IntGaugeVec};
use tokio::sync::watch;

use crate::cluster;
use crate::config::{Config, Role};

/// Between two looks at the cluster.
const LOOK_DELAY: Duration = Duration::from_secs(2);

/// How long the metastore may take to answer one.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Who this process is, and whether it serves.
pub(crate) struct Vitals {
    ready: IntGauge,
}

impl Vitals {
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Vitals {
        let roles: Vec<&str> = config.roles.iter().map(|role| role.as_str()).collect();
        let info = metrics.gauges(
            "clew_build_info",
            "1, with the version and what this process is.",
            &["version", "node", "zone", "roles"],
        );
        let (node, zone) = (config.node_name(), config.node.zone.as_str());
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), node, zone, &roles.join(",")]).set(1);
        let limit = |name: &str, help: &str, value: u64| {
            metrics.gauge(name, help).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        if config.runs(Role::Distributor) {
            let most = config.distributor.bytes_in_flight_max.0;
            let help = "The most that clew_distributor_inflight_bytes may be.";
            limit("clew_distributor_inflight_limit_bytes", help, most);
        }
        if config.runs(Role::Ingester) {
            let help = "The most that clew_ingester_head_bytes may be.";
            limit("clew_ingester_head_limit_bytes", help, config.ingester.head_bytes_max.0);
        }
        if config.runs(Role::Querier) {
            let help = "The most that clew_querier_inflight_queries may be.";
            limit("clew_querier_query_limit", help, config.querier.concurrent_queries_max as u64);
        }
        Vitals { ready: metrics.gauge("clew_ready", "1 while requests are welcome.") }
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }
}

/// How the cluster stands, as its metastore's leader sees it.
pub(crate) struct ClusterGauges {
    leading: IntGauge,
    members: IntGaugeVec,
    nodes: IntGaugeVec,
    shards: IntGaugeVec,
}

impl ClusterGauges {
    pub(crate) fn new(metrics: &Metrics) -> ClusterGauges {
        ClusterGauges {
            leading: metrics.gauge(
                "clew_metastore_leading",
                "1 if this process leads the metastore and tells of the cluster.",
            ),
            members: metrics.gauges(
                "clew_cluster_metastore_members",
                "Members of the metastore, by whether they are heard of.",
                &["state"],
            ),
            nodes: metrics.gauges(
                "clew_cluster_ingesters",
                "Ingesters that hold or may hold replicas, by whether they are heard of.",
                &["state"],
            ),
            shards: metrics.gauges(
                "clew_cluster_shards",
                "Shards by health: ok, moving, at_risk (one replica less and it stops), lost (no \
                 majority).",
                &["health"],
            ),
        }
    }

    fn set(&self, standing: Option<&Standing>) {
        self.leading.set(i64::from(standing.is_some()));
        for gauges in [&self.members, &self.nodes, &self.shards] {
            gauges.reset();
        }
        let Some(standing) = standing else { return };
        let set = |gauges: &IntGaugeVec, label: &str, count: usize| {
            gauges.with_label_values(&[label]).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set(&self.members, "alive", standing.members_alive);
        set(&self.members, "silent", standing.members_silent);
        set(&self.nodes, "alive", standing.ingesters_alive);
        set(&self.nodes, "silent", standing.ingesters_silent);
        for (health, count) in Health::ALL.iter().zip(standing.shards) {
            set(&self.shards, health.as_str(), count);
        }
    }
}

/// Where the standing of the cluster is looked up.
pub(crate) struct ClusterView {
    own_addr: String,
    metastore: Channel,
    topology: watch::Receiver<SharedTopology>,
}

impl ClusterView {
    pub(crate) fn new(
        own_addr: &str,
        metastore: Channel,
        topology: watch::Receiver<SharedTopology>,
    ) -> ClusterView {
        ClusterView { own_addr: own_addr.to_owned(), metastore, topology }
    }

    /// Keeps the gauges up to date until `stop`.
    pub(crate) async fn publish(self, gauges: ClusterGauges, clock: Clock, stop: Stop) {
        loop {
            let asked = clock.timeout(ANSWER_MAX, cluster::ask(self.metastore.clone())).await;
            let account = asked.and_then(Result::ok).filter(|a| a.leader == self.own_addr);
            let topology = self.topology.borrow().clone();
            gauges.set(account.map(|account| Standing::of(&topology, &account)).as_ref());
            if stop.or(clock.sleep(LOOK_DELAY)).await.is_none() {
                return;
            }
        }
    }
}

/// How a shard stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Ok,
    Moving,
    AtRisk,
    Lost,
}

impl Health {
    const ALL: [Health; 4] = [Health::Ok, Health::Moving, Health::AtRisk, Health::Lost];

    const fn as_str(self) -> &'static str {
        match self {
            Health::Ok => "ok",
            Health::Moving => "moving",
            Health::AtRisk => "at_risk",
            Health::Lost => "lost",
        }
    }
}

/// What the gauges show.
#[derive(Debug, Default, PartialEq, Eq)]
struct Standing {
    members_alive: usize,
    members_silent: usize,
    ingesters_alive: usize,
    ingesters_silent: usize,
    /// In the order of [`Health::ALL`].
    shards: [usize; Health::ALL.len()],
}

impl Standing {
    fn of(topology: &Topology, account: &StatusResponse) -> Standing {
        let alive: BTreeSet<&str> =
            account.nodes.iter().filter(|node| node.alive).map(|node| node.node.as_str()).collect();
        let mut standing = Standing::default();
        for voter in &account.voters {
            let node = topology.nodes.iter().find(|info| info.addr == *voter);
            // The one that answers is alive, whatever else is known of it.
            let is_alive = *voter == account.leader
                || node.is_some_and(|info| alive.contains(info.node.as_str()));
            *(if is_alive { &mut standing.members_alive } else { &mut standing.members_silent }) +=
                1;
        }
        for info in topology.nodes.iter().filter(|info| info.roles.contains(Roles::INGESTER)) {
            if alive.contains(info.node.as_str()) {
                standing.ingesters_alive += 1;
            } else if info.state == NodeState::Active {
                // One that was drained has been taken away on purpose.
                standing.ingesters_silent += 1;
            }
        }
        for place in topology.shards.values() {
            let copies = cluster::copies(topology, account, place);
            let voters = || copies.iter().filter(|copy| copy.role != "joining");
            let (all, heard) =
                (voters().count(), voters().filter(|copy| copy.report.is_some()).count());
            let health = health(all, heard, place.is_settled());
            standing.shards[health as usize] += 1;
        }
        standing
    }
}

/// The health of a shard with `all` voters of which `heard` are heard of.
fn health(all: usize, heard: usize, is_settled: bool) -> Health {
    let majority = all / 2 + 1;
    if all == 0 || heard < majority {
        Health::Lost
    } else if all > 1 && heard - 1 < majority {
        // Two voters of two are a majority that bears no loss, but nothing is away.
        if heard == all && is_settled { Health::Ok } else { Health::AtRisk }
    } else if is_settled && heard == all {
        Health::Ok
    } else {
        Health::Moving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_health_of_a_shard_is_what_it_can_still_lose() {
        for (all, heard, settled, expected) in [
            (1, 1, true, Health::Ok),
            (1, 0, true, Health::Lost),
            (2, 2, true, Health::Ok),
            (2, 1, true, Health::Lost),
            (3, 3, true, Health::Ok),
            (3, 3, false, Health::Moving),
            (3, 2, true, Health::AtRisk),
            (3, 1, true, Health::Lost),
            (5, 4, true, Health::Moving),
            (5, 3, true, Health::AtRisk),
            (0, 0, false, Health::Lost),
        ] {
            assert_eq!(health(all, heard, settled), expected, "{heard} of {all}, {settled}");
        }
    }

    #[test]
    fn only_the_leader_tells_of_the_cluster() {
        let metrics = Metrics::new();
        let gauges = ClusterGauges::new(&metrics);
        let standing = Standing { members_alive: 3, shards: [4, 0, 1, 0], ..Standing::default() };
        gauges.set(Some(&standing));
        let text = metrics.render().unwrap();
        assert!(text.contains("clew_cluster_shards{health=\"at_risk\"} 1"), "{text}");
        assert!(text.contains("clew_metastore_leading 1"), "{text}");
        gauges.set(None);
        let text = metrics.render().unwrap();
        assert!(!text.contains("clew_cluster_shards{"), "{text}");
        assert!(text.contains("clew_metastore_leading 0"), "{text}");
    }
}
