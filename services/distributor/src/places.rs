//! The places of traces, prepared once for each map generation and tenant.

use std::collections::HashMap;
use std::sync::Arc;

use clew_model::{TenantId, TraceId};
use clew_ring::{MapGeneration, Places, Ring, TenantRing};
use parking_lot::Mutex;

/// Tenants whose places are kept ready; past it all are prepared again when next needed.
const TENANTS_MAX: usize = 1_000;

/// The places of the newest generation's traces.
#[derive(Default)]
pub(crate) struct PlaceTables {
    current: Mutex<Option<Current>>,
}

struct Current {
    generation: u64,
    ring: Ring,
    /// By tenant and number of shards.
    tenants: HashMap<(TenantId, usize), Arc<TenantPlaces>>,
}

/// Where the traces of one tenant belong, in one generation.
pub(crate) struct TenantPlaces {
    generation: u64,
    ring: TenantRing,
}

impl TenantPlaces {
    /// The map generation this is of.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The places of a trace.
    pub(crate) fn of(&self, trace_id: TraceId) -> Places {
        self.ring.places(trace_id)
    }
}

impl PlaceTables {
    /// Whether the table of this generation is ready. Preparing it takes up to a quarter of a
    /// millisecond per shard.
    pub(crate) fn is_ready(&self, generation: u64) -> bool {
        self.current.lock().as_ref().is_some_and(|current| current.generation == generation)
    }

    /// The places of a tenant that uses `shard_count` shards, 0 for all.
    pub(crate) fn tenant(
        &self,
        map: &MapGeneration,
        tenant: &TenantId,
        shard_count: usize,
    ) -> Arc<TenantPlaces> {
        let generation = map.generation();
        let mut current = self.current.lock();
        // A request may still come with the map from before a change; it must not throw out the
        // newer table, only go without.
        if current.as_ref().is_some_and(|current| current.generation > generation) {
            let ring = Ring::new(Arc::new(map.clone())).tenant(tenant, shard_count);
            return Arc::new(TenantPlaces { generation, ring });
        }
        let current = match current.as_mut() {
            Some(current) if current.generation == generation => current,
            _ => current.insert(Current {
                generation,
                ring: Ring::new(Arc::new(map.clone())),
                tenants: HashMap::new(),
            }),
        };
        let key = (tenant.clone(), shard_count);
        if let Some(known) = current.tenants.get(&key) {
            return known.clone();
        }
        if current.tenants.len() >= TENANTS_MAX {
            current.tenants.clear();
        }
        let ring = current.ring.tenant(tenant, shard_count);
        let places = Arc::new(TenantPlaces { generation, ring });
        current.tenants.insert(key, places.clone());
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_generation_replaces_the_table_and_an_older_one_does_not() {
        let tables = PlaceTables::default();
        let tenant = TenantId::single();
        let generation = |n| MapGeneration::uniform(n, 4).unwrap();
        assert!(!tables.is_ready(1));
        assert_eq!(tables.tenant(&generation(1), &tenant, 0).generation(), 1);
        let newer = tables.tenant(&generation(2), &tenant, 0);
        assert_eq!(tables.tenant(&generation(1), &tenant, 0).generation(), 1);
        assert!(tables.is_ready(2) && !tables.is_ready(1));
        assert!(Arc::ptr_eq(&newer, &tables.tenant(&generation(2), &tenant, 0)));
    }

    #[test]
    fn tables_of_many_tenants_are_bounded() {
        let tables = PlaceTables::default();
        let map = MapGeneration::uniform(1, 1).unwrap();
        for n in 0..TENANTS_MAX + 10 {
            tables.tenant(&map, &TenantId::parse(&format!("t{n}")).unwrap(), 0);
        }
        assert_eq!(tables.current.lock().as_ref().unwrap().tenants.len(), 10);
    }
}
