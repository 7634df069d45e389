//! Where shards are led, for the distributor and the querier: worked out once for each topology.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clew_catalog::{NodeInfo, NodeState, Roles, SharedTopology};
use clew_model::UnixNanos;
use clew_node::rpc::{Channel, Pool};
use clew_proto::shard::v1::shard_service_server::ShardService;
use clew_querier::{Leader, Peer};
use clew_ring::{ShardId, ShardMap};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

/// How long writers may go on with a generation after the next one was made.
const SWITCH_MAX: Duration = Duration::from_secs(600);

/// The shards' leaders as this process knows them.
pub(crate) struct ClusterRouter {
    topology: watch::Receiver<SharedTopology>,
    pool: Pool,
    /// Where others reach this node.
    addr: String,
    /// The shards on this node.
    here: Option<Arc<dyn ShardService>>,
    /// How far apart pieces of a trace may arrive.
    horizon: Duration,
    routes: Mutex<Option<(u64, Arc<Routes>)>>,
}

struct Routes {
    map: Arc<ShardMap>,
    leaders: BTreeMap<ShardId, clew_distributor::Leader>,
    led_here: BTreeSet<ShardId>,
    /// The nodes that lead a shard, each once.
    nodes: Vec<Channel>,
    queriers: Arc<[Peer]>,
}

impl ClusterRouter {
    pub(crate) fn new(
        topology: watch::Receiver<SharedTopology>,
        pool: Pool,
        addr: &str,
        here: Option<Arc<dyn ShardService>>,
        horizon: Duration,
    ) -> ClusterRouter {
        let addr = addr.to_owned();
        ClusterRouter { topology, pool, addr, here, horizon, routes: Mutex::default() }
    }

    /// The nodes that lead a shard.
    pub(crate) fn leading_nodes(&self) -> Vec<Channel> {
        self.routes().nodes.clone()
    }

    fn routes(&self) -> Arc<Routes> {
        let topology = self.topology.borrow().clone();
        let mut routes = self.routes.lock();
        if let Some((revision, known)) = routes.as_ref()
            && *revision == topology.revision
        {
            return known.clone();
        }
        let (mut leaders, mut led_here) = (BTreeMap::new(), BTreeSet::new());
        let mut nodes = BTreeMap::new();
        for (shard, place) in &topology.shards {
            let Some(lead) = &place.lead else { continue };
            let Some(leader) = topology.node_of(lead.leader) else { continue };
            if let Ok(channel) = self.pool.get(&leader.addr) {
                nodes.insert(leader.node.clone(), channel.clone());
                let node = lead.leader.0;
                leaders.insert(*shard, clew_distributor::Leader { node, channel });
                if leader.addr == self.addr {
                    led_here.insert(*shard);
                }
            }
        }
        let writable = topology.writable().map(|generation| generation.map.generation());
        let generations = topology.shard_map().generations().to_vec();
        let used = generations.into_iter().filter(|g| Some(g.generation()) <= writable);
        // A part of an ascending list ascends, so that it is a map, too.
        let map = Arc::new(ShardMap::new(used.collect()).unwrap_or_default());
        let nodes = nodes.into_values().collect();
        let queriers = self.queriers_of(&topology);
        let now = Arc::new(Routes { map, leaders, led_here, nodes, queriers });
        *routes = Some((topology.revision, now.clone()));
        now
    }

    fn queriers_of(&self, topology: &SharedTopology) -> Arc<[Peer]> {
        let reads = |info: &&NodeInfo| {
            info.roles.contains(Roles::QUERIER) && info.state == NodeState::Active
        };
        let peer = |info: &NodeInfo| {
            let channel = match info.addr == self.addr {
                true => None,
                false => Some(self.pool.get(&info.addr).ok()?),
            };
            Some(Peer { node: info.node.clone(), channel })
        };
        topology.nodes.iter().filter(reads).filter_map(peer).collect()
    }
}

impl clew_distributor::Router for ClusterRouter {
    fn map(&self) -> Arc<ShardMap> {
        self.routes().map.clone()
    }

    fn leader(&self, shard: ShardId) -> Option<clew_distributor::Leader> {
        self.routes().leaders.get(&shard).cloned()
    }

    fn is_settling(&self, generation: u64, now: UnixNanos) -> bool {
        let topology = self.topology.borrow();
        let mut generations = topology.generations.iter().skip(1);
        let created = generations.find(|known| known.map.generation() == generation);
        created.is_some_and(|known| now.since(known.created_at) < self.horizon + SWITCH_MAX)
    }
}

impl clew_querier::Router for ClusterRouter {
    fn leader(&self, shard: ShardId) -> Option<Leader> {
        let routes = self.routes();
        match &self.here {
            Some(here) if routes.led_here.contains(&shard) => Some(Leader::Here(here.clone())),
            _ => routes.leaders.get(&shard).map(|leader| Leader::There(leader.channel.clone())),
        }
    }

    fn queriers(&self) -> Arc<[Peer]> {
        self.routes().queriers.clone()
    }

    fn moved(&self, shard: ShardId) -> BoxFuture<'static, ()> {
        let mut topology = self.topology.clone();
        let leader = move |topology: &SharedTopology| {
            let lead = topology.shards.get(&shard)?.lead.as_ref()?;
            Some((lead.term, lead.leader))
        };
        let before = leader(&topology.borrow_and_update());
        Box::pin(async move {
            let other = |now: &SharedTopology| leader(now).is_some_and(|now| Some(now) != before);
            if topology.wait_for(other).await.is_err() {
                // The process ends.
                std::future::pending().await
            }
        })
    }
}
