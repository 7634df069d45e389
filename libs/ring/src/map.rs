//! The shards of a cluster and the generations of its shard map.

use std::collections::BTreeSet;

/// The most shards a cluster can have; shard numbers are below it, and print in five digits.
pub const SHARDS_MAX: u32 = 16_384;

/// The number of a shard, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u32);

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One shard of a map generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MapShard {
    /// The shard.
    pub shard: ShardId,
    /// Shards with the same non-zero group are expected on the same nodes, so one of them is a poor
    /// fallback for another; 0 when unknown. Fixed with the generation, also when replicas move.
    pub group: u32,
}

/// Why a list of shards is no map generation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// No shards.
    #[error("a map generation needs at least one shard: generation {generation}")]
    Empty {
        /// The generation.
        generation: u64,
    },
    /// A shard number at or above [`SHARDS_MAX`].
    #[error("shard numbers must be below {SHARDS_MAX}: {shard}")]
    ShardTooLarge {
        /// The shard.
        shard: ShardId,
    },
    /// A shard listed twice.
    #[error("a shard is listed twice: {shard}")]
    Duplicate {
        /// The shard.
        shard: ShardId,
    },
    /// Generations that are not strictly ascending.
    #[error("map generations must ascend: {generation} after {previous}")]
    OutOfOrder {
        /// The later one in the list.
        generation: u64,
        /// The one before it.
        previous: u64,
    },
}

/// The shards that writers use from some point on. At least one, sorted and unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MapGeneration {
    generation: u64,
    shards: Vec<MapShard>,
}

impl MapGeneration {
    /// A generation of these shards, in any order.
    ///
    /// # Errors
    /// [`MapError`] when there are none, one is listed twice, or a number is too large.
    pub fn new(generation: u64, mut shards: Vec<MapShard>) -> Result<MapGeneration, MapError> {
        if shards.is_empty() {
            return Err(MapError::Empty { generation });
        }
        shards.sort();
        let mut seen = BTreeSet::new();
        for &MapShard { shard, .. } in &shards {
            if shard.0 >= SHARDS_MAX {
                return Err(MapError::ShardTooLarge { shard });
            }
            if !seen.insert(shard) {
                return Err(MapError::Duplicate { shard });
            }
        }
        Ok(MapGeneration { generation, shards })
    }

    /// A generation of the shards 0 to `count` - 1 without known groups.
    ///
    /// # Errors
    /// [`MapError`] when `count` is 0 or above [`SHARDS_MAX`].
    pub fn uniform(generation: u64, count: u32) -> Result<MapGeneration, MapError> {
        if count > SHARDS_MAX {
            return Err(MapError::ShardTooLarge { shard: ShardId(count - 1) });
        }
        let shards = (0..count).map(|n| MapShard { shard: ShardId(n), group: 0 }).collect();
        MapGeneration::new(generation, shards)
    }

    /// The number of the generation; later ones are larger.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Its shards, ascending.
    pub fn shards(&self) -> &[MapShard] {
        &self.shards
    }

    /// Whether `shard` is one of them.
    pub fn contains(&self, shard: ShardId) -> bool {
        self.shards.binary_search_by_key(&shard, |s| s.shard).is_ok()
    }
}

/// The live generations of a cluster's map, ascending. Writers use the newest, readers all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShardMap {
    generations: Vec<MapGeneration>,
}

impl ShardMap {
    /// A map of these generations.
    ///
    /// # Errors
    /// [`MapError::OutOfOrder`] when they do not ascend.
    pub fn new(generations: Vec<MapGeneration>) -> Result<ShardMap, MapError> {
        for pair in generations.windows(2) {
            let (previous, generation) = (pair[0].generation, pair[1].generation);
            if generation <= previous {
                return Err(MapError::OutOfOrder { generation, previous });
            }
        }
        Ok(ShardMap { generations })
    }

    /// The live generations, ascending.
    pub fn generations(&self) -> &[MapGeneration] {
        &self.generations
    }

    /// The generation that writers use; none before the cluster exists.
    pub fn newest(&self) -> Option<&MapGeneration> {
        self.generations.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_checked() {
        let shard = |n| MapShard { shard: ShardId(n), group: 0 };
        assert_eq!(MapGeneration::new(1, vec![]), Err(MapError::Empty { generation: 1 }));
        assert_eq!(
            MapGeneration::new(1, vec![shard(3), MapShard { shard: ShardId(3), group: 9 }]),
            Err(MapError::Duplicate { shard: ShardId(3) })
        );
        assert!(MapGeneration::uniform(1, SHARDS_MAX).is_ok());
        assert!(MapGeneration::uniform(1, SHARDS_MAX + 1).is_err());
        assert!(MapGeneration::uniform(1, 0).is_err());
        let map = MapGeneration::new(2, vec![shard(5), shard(1)]).unwrap();
        assert!(map.contains(ShardId(5)) && map.contains(ShardId(1)) && !map.contains(ShardId(2)));
    }

    #[test]
    fn maps_ascend() {
        let generation = |n| MapGeneration::uniform(n, 1).unwrap();
        let map = ShardMap::new(vec![generation(1), generation(4)]).unwrap();
        assert_eq!(map.newest().unwrap().generation(), 4);
        assert_eq!(
            ShardMap::new(vec![generation(4), generation(4)]),
            Err(MapError::OutOfOrder { generation: 4, previous: 4 })
        );
    }
}
