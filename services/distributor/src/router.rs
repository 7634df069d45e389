//! Where batches go: the shard map and the shards' leaders, seen by the distributor.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_model::{TenantId, UnixNanos};
use clew_node::rpc::Channel;
use clew_ring::{ShardId, ShardMap};

/// A node that leads shards.
#[derive(Debug, Clone)]
pub struct Leader {
    /// The same for all shards that it leads, and for no other node.
    pub node: u64,
    /// The way to it.
    pub channel: Channel,
}

/// What the distributor asks about the cluster, for every request. Answers come from memory.
pub trait Router: Send + Sync + 'static {
    /// The live generations of the shard map. The same generation number means the same shards.
    fn map(&self) -> Arc<ShardMap>;

    /// The leader of `shard`, or `None` while it has none.
    fn leader(&self, shard: ShardId) -> Option<Leader>;

    /// Whether a trace whose spans go where `generation` says may have earlier ones where a generation
    /// before put them.
    fn is_settling(&self, generation: u64, now: UnixNanos) -> bool {
        let _ = (generation, now);
        false
    }

    /// How many shards `tenant` uses; `None` for all. Readers must go by the same number.
    fn tenant_shards(&self, tenant: &TenantId) -> Option<u32> {
        let _ = tenant;
        None
    }
}

/// A map and leaders that do not change: one process that leads every shard itself.
#[derive(Debug, Clone)]
pub struct StaticRouter {
    map: Arc<ShardMap>,
    leaders: BTreeMap<ShardId, Leader>,
}

impl StaticRouter {
    /// The given leaders; other shards have none.
    pub fn new(map: ShardMap, leaders: BTreeMap<ShardId, Leader>) -> StaticRouter {
        StaticRouter { map: Arc::new(map), leaders }
    }

    /// One leader for every shard of the map.
    pub fn single(map: ShardMap, leader: &Channel) -> StaticRouter {
        let leaders = map
            .generations()
            .iter()
            .flat_map(|generation| generation.shards())
            .map(|shard| (shard.shard, Leader { node: 0, channel: leader.clone() }))
            .collect();
        StaticRouter::new(map, leaders)
    }
}

impl Router for StaticRouter {
    fn map(&self) -> Arc<ShardMap> {
        self.map.clone()
    }

    fn leader(&self, shard: ShardId) -> Option<Leader> {
        self.leaders.get(&shard).cloned()
    }
}
