//! Where a trace's spans may be: its home shard and two fallbacks.

use std::sync::Arc;

use clew_model::{TenantId, TraceId};

use crate::hash::hash;
use crate::map::{MapGeneration, MapShard, ShardId};
use crate::table::Table;

/// How many places a trace has, shards permitting: its home and two fallbacks.
const PLACES: usize = 3;

const TENANT_SEED: u64 = 0x636c_6577_2d74_6e74;

/// The shards a trace may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Places {
    /// Where its spans go.
    pub home: ShardId,
    shards: [ShardId; PLACES],
    count: usize,
}

impl Places {
    fn new(shards: [ShardId; PLACES]) -> Places {
        // Unused fallbacks repeat the home.
        let count = 1 + shards[1..].iter().take_while(|shard| **shard != shards[0]).count();
        Places { home: shards[0], shards, count }
    }

    /// Where they go when the home has no leader, in order; fewer than two in a small cluster.
    pub fn fallbacks(&self) -> &[ShardId] {
        &self.shards[1..self.count]
    }

    /// The home and the fallbacks, in order.
    pub fn all(&self) -> &[ShardId] {
        &self.shards[..self.count]
    }
}

/// A map generation prepared for look-ups. Cheap to clone; build it once per generation.
#[derive(Debug, Clone)]
pub struct Ring {
    map: Arc<MapGeneration>,
    all: Arc<Table>,
}

/// The part of a generation that a tenant uses, prepared for look-ups. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TenantRing {
    seed: u64,
    table: Arc<Table>,
    shards: Arc<[ShardId]>,
}

impl Ring {
    /// Prepares a generation: up to a microsecond for each of 256 points per shard.
    pub fn new(map: Arc<MapGeneration>) -> Ring {
        let all = Arc::new(Table::new(map.shards(), &[]));
        Ring { map, all }
    }

    /// The generation it was made of.
    pub fn map(&self) -> &MapGeneration {
        &self.map
    }

    /// The places of a tenant that owns `shard_count` shards; 0 or at least as many as there are
    /// means all.
    ///
    /// With all shards this is cheap; else it builds a table for the tenant's shards, so keep it.
    pub fn tenant(&self, tenant: &TenantId, shard_count: usize) -> TenantRing {
        let seed = hash(TENANT_SEED, tenant.as_str().as_bytes());
        let shards = self.map.shards();
        if shard_count == 0 || shard_count >= shards.len() {
            let shards = shards.iter().map(|shard| shard.shard).collect();
            return TenantRing { seed, table: Arc::clone(&self.all), shards };
        }
        let in_map = |id: &ShardId| shards.iter().find(|shard| shard.shard == *id).copied();
        let walk = self.all.walk(seed, shard_count.max(PLACES));
        let owned: Vec<MapShard> = walk.iter().filter_map(in_map).collect();
        let (homes, extra) = owned.split_at(shard_count.min(owned.len()));
        let mut shards: Vec<ShardId> = owned.iter().map(|shard| shard.shard).collect();
        shards.sort();
        let table = Arc::new(Table::new(homes, extra));
        TenantRing { seed, table, shards: shards.into() }
    }

    /// The places of one trace, for a caller that looks up one: see [`Ring::tenant`] for many.
    pub fn places(&self, tenant: &TenantId, trace: TraceId, shard_count: usize) -> Places {
        self.tenant(tenant, shard_count).places(trace)
    }
}

impl TenantRing {
    /// The places of a trace. Does not allocate; a few tens of nanoseconds.
    pub fn places(&self, trace: TraceId) -> Places {
        let item = hash(self.seed, &trace.0);
        Places::new(self.table.get(item).unwrap_or([ShardId(0); PLACES]))
    }

    /// Every shard that a trace of the tenant may be in, ascending: a search asks these.
    pub fn shards(&self) -> &[ShardId] {
        &self.shards
    }
}
