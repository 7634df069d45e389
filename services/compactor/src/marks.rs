//! When a joined trace may lose its split mark: once no other place can hold spans of it.
//!
//! A fragment is marked when it is written because of what was written before it, elsewhere or
//! earlier. Later fragments carry marks of their own. So a joined trace is whole if this shard is
//! its home (else fragments may lie at the home), and no other block of the shard near it in time
//! may have it. Whatever cannot be known keeps the mark.

use std::sync::Arc;

use clew_block::TraceFilter;
use clew_catalog::{JobSpec, SharedTopology};
use clew_model::{TenantId, TraceId};
use clew_ring::{MapGeneration, Ring, ShardId, TenantRing};
use clew_storage::Bucket;
use parking_lot::Mutex;

use crate::pages::InputBlock;

/// The ring of the map that was looked at last: it takes a while to make, and jobs are many.
#[derive(Default)]
pub(crate) struct LastRing(Mutex<Option<Ring>>);

impl LastRing {
    fn of(&self, map: &Arc<MapGeneration>) -> Ring {
        let mut last = self.0.lock();
        match last.as_ref().filter(|ring| ring.map() == &**map) {
            Some(ring) => ring.clone(),
            None => last.insert(Ring::new(Arc::clone(map))).clone(),
        }
    }
}

/// What is known about the other places of one tenant's traces.
pub(crate) struct Elsewhere {
    shard: ShardId,
    /// Nothing if it cannot be known.
    known: Option<Known>,
}

struct Known {
    home: TenantRing,
    filters: Vec<Arc<TraceFilter>>,
}

impl Elsewhere {
    /// Reads the filters of the blocks around those of a job, if the job has marked traces.
    pub(crate) async fn look(
        bucket: &Bucket,
        rings: &LastRing,
        spec: &JobSpec,
        topology: &SharedTopology,
        tenant: &TenantId,
    ) -> Elsewhere {
        let shard = spec.shard;
        let unknown = Elsewhere { shard, known: None };
        let has_marks =
            |block: Option<&clew_catalog::TenantBlock>| block.is_some_and(|block| block.splits > 0);
        if !spec.inputs.iter().any(|input| has_marks(input.block(tenant))) {
            return unknown;
        }
        let (Some(neighbours), [generation]) =
            (spec.neighbours.as_ref(), topology.generations.as_slice())
        else {
            return unknown;
        };
        let mut filters = Vec::new();
        for object in neighbours {
            let Some(place) = object.block(tenant) else { continue };
            match InputBlock::open(bucket, object.key, place.clone()).await {
                Ok(opened) => filters.push(Arc::clone(opened.block.filter())),
                Err(error) => {
                    tracing::info!(object = %object.key, %error, "a neighbour is not readable");
                    return unknown;
                }
            }
        }
        let count = generation.map.shards().len();
        let home = rings.of(&generation.map).tenant(tenant, count);
        Elsewhere { shard, known: Some(Known { home, filters }) }
    }

    /// Whether spans of the trace may lie in other places.
    pub(crate) fn may_hold(&self, id: &TraceId) -> bool {
        let Some(known) = &self.known else { return true };
        known.home.places(*id).home != self.shard
            || known.filters.iter().any(|filter| filter.contains(id))
    }
}
