//! The shards that may hold a trace: its home and the places it falls over to, in every live generation
//! of the shard map. A look-up by id asks these and no others, however many shards there are.
//!
//! Writers place spans by the same rings ([`clew_ring::Ring`]) and go nowhere else.

use std::collections::BTreeSet;
use std::sync::Arc;

use clew_catalog::{Generation, ShardId};
use clew_model::{TenantId, TraceId};
use clew_ring::Ring;
use parking_lot::Mutex;

/// The rings of the generations that were seen last; preparing one takes up to a quarter of a millisecond per
/// shard.
#[derive(Default)]
pub(super) struct Homes(Mutex<Arc<[Ring]>>);

impl Homes {
    /// The shards that may hold the trace; nothing if no generation is known, which is: any.
    pub(super) fn of(
        &self,
        generations: &[Generation],
        tenant: &TenantId,
        trace: TraceId,
    ) -> Option<BTreeSet<ShardId>> {
        if generations.is_empty() {
            return None;
        }
        let rings = self.rings(generations);
        let places = rings.iter().map(|ring| ring.places(tenant, trace, 0));
        Some(places.flat_map(|places| places.all().to_vec()).collect())
    }

    fn rings(&self, generations: &[Generation]) -> Arc<[Ring]> {
        let known = self.0.lock().clone();
        let same = |(ring, generation): (&Ring, &Generation)| *ring.map() == *generation.map;
        if known.len() == generations.len() && known.iter().zip(generations).all(same) {
            return known;
        }
        let ring = |generation: &Generation| {
            let prepared = known.iter().find(|ring| *ring.map() == *generation.map);
            prepared.cloned().unwrap_or_else(|| Ring::new(Arc::clone(&generation.map)))
        };
        let rings: Arc<[Ring]> = generations.iter().map(ring).collect();
        *self.0.lock() = Arc::clone(&rings);
        rings
    }
}

#[cfg(test)]
mod tests {
    use clew_catalog::{AddGeneration, ClusterId, Command, CreateCluster, State};
    use clew_model::UnixNanos;

    use super::*;

    #[test]
    fn the_places_of_every_generation_are_asked_and_no_others() {
        let mut state = State::new();
        let create = CreateCluster { cluster: ClusterId([1; 16]), shard_count: 16 };
        state.apply(1, &Command::CreateCluster(create).encode(UnixNanos(1)));
        let generations = |state: &State| state.view(&[]).generations;
        let first = generations(&state);
        let add = AddGeneration { after: first[0].map.generation(), shard_count: 24 };
        state.apply(2, &Command::AddGeneration(add).encode(UnixNanos(2)));
        let both = generations(&state);
        assert_eq!((first.len(), both.len()), (1, 2));
        let (homes, tenant) = (Homes::default(), TenantId::single());
        assert_eq!(homes.of(&[], &tenant, TraceId([1; 16])), None);
        for n in 0..100 {
            let trace = TraceId([n; 16]);
            let places = |generation: &Generation| {
                Ring::new(generation.map.clone()).tenant(&tenant, 0).places(trace).all().to_vec()
            };
            let one = homes.of(&first, &tenant, trace).unwrap();
            assert_eq!(one, places(&both[0]).into_iter().collect());
            let two = homes.of(&both, &tenant, trace).unwrap();
            assert_eq!(two, both.iter().flat_map(places).collect());
            assert!(one.len() == 3 && two.len() <= 6);
        }
    }
}
