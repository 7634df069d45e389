//! A consistent-hash ring flattened for look-ups without allocation: for each arc of the ring, which
//! shards an item on it goes to, in order.
//!
//! The ring itself is [`consistent_hash::StaticHashRing`]; its candidates are asked for once per arc
//! when the table is built.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use consistent_hash::{Node, RingHash, StaticHashRing};

use crate::hash::{hash, mix};
use crate::map::{MapShard, ShardId};

/// Points of each shard on the ring. More points balance better: the shares of shards differ by
/// about 1/sqrt(points), here 6 %. Part of the placement function: never changed.
const POINTS: usize = 256;

/// How many shards after the first are looked at for fallbacks of another group.
const LOOK_AHEAD: usize = 16;

/// Keeps the words of ring keys apart from those of other hashes.
const POINT_SEED: u64 = 0x636c_6577_2d72_6e67;

/// The shards of an arc, the first one its owner. At most 3, unused ones repeat the owner.
pub(crate) type Arc3 = [ShardId; 3];

/// A key of a ring: the hash of what it stands for. Items are placed at exactly this hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RingKey(pub(crate) u64);

impl Hash for RingKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Places keys by their own hash, and points by the mixed hash of key and sequence number.
#[derive(Debug)]
pub(crate) struct RingPoints;

impl RingHash for RingPoints {
    fn hash_item<T: Hash>(&self, item: &T) -> u64 {
        let mut last = LastWord(0);
        item.hash(&mut last);
        last.finish()
    }

    fn hash_vnode<K: Hash>(&self, node_key: &K, vnode_seq: usize) -> u64 {
        point(self.hash_item(node_key), vnode_seq as u64)
    }
}

fn point(key: u64, sequence: u64) -> u64 {
    mix(key ^ mix(sequence.wrapping_add(POINT_SEED)))
}

/// A hasher that returns the last word written to it: [`RingKey`] is hashed already.
struct LastWord(u64);

impl Hasher for LastWord {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(self.0, bytes);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

/// The ring key of a shard.
fn shard_key(shard: ShardId) -> RingKey {
    RingKey(hash(POINT_SEED, &shard.0.to_le_bytes()))
}

type ShardRing<'a> = StaticHashRing<'a, RingKey, MapShard, RingPoints>;

/// The ring of these shards.
fn shard_ring<'a>(shards: &[MapShard]) -> ShardRing<'a> {
    let node =
        |shard: &MapShard| Node { key: shard_key(shard.shard), value: *shard, quantity: POINTS };
    StaticHashRing::new(RingPoints, shards.iter().map(node))
}

/// A flattened ring.
#[derive(Debug)]
pub(crate) struct Table {
    /// Where each arc ends, ascending; an item belongs to the first arc that ends at or after it.
    ends: Vec<u64>,
    arcs: Vec<Arc3>,
    /// For each value of the top bits of a hash, the first arc that may hold it.
    starts: Vec<u32>,
    shift: u32,
}

impl Table {
    /// Flattens the ring of `shards`, which are not empty; fallbacks of an arc come from the ring,
    /// then from `extra` when there are too few.
    pub(crate) fn new(shards: &[MapShard], extra: &[MapShard]) -> Table {
        let ring = shard_ring(shards);
        let points = |shard: &MapShard| {
            let key = shard_key(shard.shard).0;
            (0..POINTS as u64).map(move |sequence| point(key, sequence))
        };
        let mut ends: Vec<u64> = shards.iter().flat_map(points).collect();
        ends.sort_unstable();
        ends.dedup();
        let arcs = ends.iter().map(|end| arc(&ring, *end, extra)).collect();
        let bits = ends.len().next_power_of_two().trailing_zeros().max(1);
        let shift = 64 - bits;
        let first = |top: u64| {
            let arc = ends.partition_point(|end| end >> shift < top);
            u32::try_from(arc).unwrap_or(u32::MAX)
        };
        let starts = (0..1u64 << bits).map(first).collect();
        Table { starts, ends, arcs, shift }
    }

    /// The shards of the item with this hash, in order; nothing for a table without shards.
    pub(crate) fn get(&self, item: u64) -> Option<Arc3> {
        // Past the last point the ring starts again.
        self.arcs.get(self.arc_of(item)?).or_else(|| self.arcs.first()).copied()
    }

    /// The first `count` different shards clockwise from the item with this hash.
    pub(crate) fn walk(&self, item: u64, count: usize) -> Vec<ShardId> {
        let (before, after) = self.arcs.split_at(self.arc_of(item).unwrap_or(0));
        let mut seen = BTreeSet::new();
        let owners = after.iter().chain(before).map(|arc| arc[0]);
        owners.filter(|owner| seen.insert(*owner)).take(count).collect()
    }

    /// The number of the arc that the hash lies on; one too many past the last point.
    fn arc_of(&self, item: u64) -> Option<usize> {
        let top = usize::try_from(item >> self.shift).ok()?;
        let mut arc = usize::try_from(*self.starts.get(top)?).ok()?;
        while self.ends.get(arc).is_some_and(|end| *end < item) {
            arc += 1;
        }
        Some(arc)
    }
}

fn arc(ring: &ShardRing<'_>, end: u64, extra: &[MapShard]) -> Arc3 {
    let candidates = ring.calc_candidates(&RingKey(end)).map(|node| node.value).take(LOOK_AHEAD);
    // Each candidate costs the ring time, so no more are asked for than are needed.
    let mut candidates = candidates.chain(extra.iter().copied());
    let Some(home) = candidates.next() else { return [ShardId(0); 3] };
    let mut chosen = vec![home];
    let mut passed_over = Vec::new();
    for shard in candidates.filter(|shard| shard.shard != home.shard) {
        if shard.group == 0 || chosen.iter().all(|chosen| chosen.group != shard.group) {
            chosen.push(shard);
        } else {
            passed_over.push(shard);
        }
        if chosen.len() == 3 {
            break;
        }
    }
    for shard in passed_over {
        if chosen.len() < 3 && !chosen.contains(&shard) {
            chosen.push(shard);
        }
    }
    std::array::from_fn(|at| chosen.get(at).unwrap_or(&home).shard)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shards(count: u32) -> Vec<MapShard> {
        (0..count).map(|n| MapShard { shard: ShardId(n), group: 0 }).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_table_says_what_the_ring_says(count in 1..40u32, items: [u64; 16]) {
            let shards = shards(count);
            let (table, ring) = (Table::new(&shards, &[]), shard_ring(&shards));
            let edges = [0, 1, u64::MAX, table.ends[0], table.ends[0] + 1];
            for item in items.into_iter().chain(edges) {
                let from_ring: Vec<ShardId> = ring
                    .calc_candidates(&RingKey(item))
                    .map(|node| node.value.shard)
                    .collect();
                let first = from_ring.len().min(3);
                prop_assert_eq!(&table.get(item).unwrap()[..first], &from_ring[..first]);
                prop_assert_eq!(table.walk(item, from_ring.len()), from_ring);
            }
        }
    }
}
