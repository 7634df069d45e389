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
use clew_ring::{Ring, ShardId, TenantRing};
use clew_storage::Bucket;

use crate::pages::InputBlock;

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
        let ring = Ring::new(Arc::clone(&generation.map));
        let home = ring.tenant(tenant, generation.map.shards().len());
        Elsewhere { shard, known: Some(Known { home, filters }) }
    }

    /// Whether spans of the trace may lie in other places.
    pub(crate) fn may_hold(&self, id: &TraceId) -> bool {
        let Some(known) = &self.known else { return true };
        known.home.places(*id).home != self.shard
            || known.filters.iter().any(|filter| filter.contains(id))
    }
}
