//! What placement promises: the same answers for ever, balance, and little movement.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clew_model::{TenantId, TraceId};
use clew_ring::*;
use proptest::prelude::*;

fn ring(shards: u32) -> Ring {
    Ring::new(Arc::new(MapGeneration::uniform(1, shards).unwrap()))
}

fn grouped(shards: u32, group_size: u32) -> Ring {
    let shard = |n| MapShard { shard: ShardId(n), group: 1 + n / group_size };
    Ring::new(Arc::new(MapGeneration::new(1, (0..shards).map(shard).collect()).unwrap()))
}

fn trace(number: u64) -> TraceId {
    let mut id = [0u8; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    TraceId(id)
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn numbers(places: Places) -> Vec<u32> {
    places.all().iter().map(|shard| shard.0).collect()
}

#[test]
fn places_are_the_same_in_every_release() {
    let answers = |ring: &Ring, name: &str, count| {
        let tenant = ring.tenant(&tenant(name), count);
        (1..=4).map(|n| numbers(tenant.places(trace(n)))).collect::<Vec<_>>()
    };
    let [all, few, grouped] = [
        answers(&ring(12), "single-tenant", 0),
        answers(&ring(12), "acme", 2),
        answers(&grouped(12, 4), "single-tenant", 0),
    ];
    assert_eq!(all, [[9, 11, 0], [2, 10, 11], [7, 8, 3], [5, 10, 8]]);
    assert_eq!(few, [[8, 11, 9], [8, 11, 9], [11, 8, 9], [8, 11, 9]]);
    assert_eq!(grouped, [[9, 0, 7], [2, 10, 4], [7, 8, 3], [5, 10, 0]]);
}

#[test]
fn replicas_are_the_same_in_every_release() {
    let nodes = nodes(&[(0, 1), (1, 1), (2, 1), (0, 1), (1, 2)]);
    let replicas: Vec<Vec<String>> = (0..3)
        .map(|shard| place_replicas(ShardId(shard), &nodes, 3))
        .map(|nodes| nodes.iter().map(NodeId::to_string).collect())
        .collect();
    assert_eq!(
        replicas,
        [
            ["ingester-0", "ingester-4", "ingester-2"],
            ["ingester-4", "ingester-3", "ingester-0"],
            ["ingester-2", "ingester-4", "ingester-0"]
        ]
    );
}

fn nodes(zones_and_capacities: &[(u32, u32)]) -> Vec<Candidate> {
    zones_and_capacities
        .iter()
        .zip(0..)
        .map(|(&(zone, capacity), number)| node(number, zone, capacity))
        .collect()
}

fn node(number: u32, zone: u32, capacity: u32) -> Candidate {
    let node = NodeId::parse(&format!("ingester-{number}")).unwrap();
    let zone = if zone == 0 { String::new() } else { format!("zone-{zone}") };
    Candidate { node, zone, capacity }
}

#[test]
fn one_shard_is_everyones_home() {
    let places = ring(1).places(&tenant("a"), trace(9), 3);
    assert_eq!(places.home, ShardId(0));
    assert_eq!(places.fallbacks(), []);
    assert_eq!(place_replicas(ShardId(0), &[], 3), []);
}

#[test]
fn shards_get_like_shares_of_the_traces() {
    for shards in [2, 4, 16, 100] {
        let tenant = ring(shards).tenant(&TenantId::single(), 0);
        let mut counts = vec![0u32; shards as usize];
        let each = 2_000;
        for n in 0..u64::from(shards * each) {
            counts[tenant.places(trace(n)).home.0 as usize] += 1;
        }
        let (least, most) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
        assert!(least > each * 7 / 10 && most < each * 13 / 10, "{shards}: {least}..{most}");
    }
}

#[test]
fn a_new_shard_takes_only_its_share() {
    let (before, after) = (ring(8), ring(9));
    let single = TenantId::single();
    let (before, after) = (before.tenant(&single, 0), after.tenant(&single, 0));
    let moved: Vec<_> = (0..20_000)
        .map(|n| (before.places(trace(n)).home, after.places(trace(n)).home))
        .filter(|(old, new)| old != new)
        .collect();
    assert!(moved.iter().all(|(_, new)| *new == ShardId(8)));
    assert!((1_500..3_000).contains(&moved.len()), "{}", moved.len());
}

#[test]
fn fallbacks_leave_the_homes_group() {
    let ring = grouped(12, 4);
    let tenant = ring.tenant(&TenantId::single(), 0);
    for n in 0..2_000 {
        let groups: BTreeSet<u32> = tenant.places(trace(n)).all().iter().map(|s| s.0 / 4).collect();
        assert_eq!(groups.len(), 3);
    }
    // With two groups the second fallback shares one, and is still another shard.
    let tenant = grouped(4, 2).tenant(&TenantId::single(), 0);
    for n in 0..200 {
        let places = tenant.places(trace(n));
        assert_ne!(places.fallbacks()[0].0 / 2, places.home.0 / 2);
        assert_eq!(places.all().len(), 3);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn places_are_different_shards_of_the_tenant(
        shards in 1..60u32,
        count in 0..70usize,
        name in "[a-z]{1,8}",
        ids: [u64; 8],
    ) {
        let ring = ring(shards);
        let owner = tenant(&name);
        let tenant = ring.tenant(&owner, count);
        let owned: BTreeSet<ShardId> = tenant.shards().iter().copied().collect();
        let all = shards as usize;
        let wanted = if count == 0 { all } else { count.max(3).min(all) };
        prop_assert_eq!(owned.len(), wanted);
        let mut homes = BTreeSet::new();
        for id in ids {
            let places = tenant.places(trace(id));
            let different: BTreeSet<ShardId> = places.all().iter().copied().collect();
            prop_assert_eq!(different.len(), all.min(3));
            prop_assert!(different.is_subset(&owned));
            prop_assert_eq!(places.all()[0], places.home);
            prop_assert_eq!(ring.places(&owner, trace(id), count), places);
            homes.insert(places.home);
        }
        prop_assert!(count == 0 || homes.len() <= count);
    }

    #[test]
    fn growing_keeps_most_of_a_tenants_shards(
        shards in 4..40u32,
        count in 1..8usize,
        name in "[a-z]{1,8}",
    ) {
        let shards_of = |total| -> BTreeSet<ShardId> {
            let ring = ring(total);
            ring.tenant(&tenant(&name), count).shards().iter().copied().collect()
        };
        let (before, after) = (shards_of(shards), shards_of(shards + 1));
        prop_assert!(before.difference(&after).count() <= 1);
    }

    #[test]
    fn the_order_of_the_shards_does_not_matter(mut order in Just((0..9u32).collect::<Vec<_>>()).prop_shuffle(), id: u64) {
        let given = order.iter().map(|n| MapShard { shard: ShardId(*n), group: 0 }).collect();
        let shuffled = Ring::new(Arc::new(MapGeneration::new(1, given).unwrap()));
        order.sort_unstable();
        let single = TenantId::single();
        prop_assert_eq!(
            shuffled.places(&single, trace(id), 0),
            ring(9).places(&single, trace(id), 0)
        );
    }

    #[test]
    fn replicas_are_on_different_nodes_and_zones(
        given in prop::collection::vec((1..4u32, 0..5u32), 0..12),
        shard in 0..100u32,
        count in 0..5usize,
    ) {
        let nodes = nodes(&given);
        let zone_of: BTreeMap<&NodeId, &str> =
            nodes.iter().map(|node| (&node.node, node.zone.as_str())).collect();
        let placed = place_replicas(ShardId(shard), &nodes, count);
        let different: BTreeSet<&NodeId> = placed.iter().collect();
        prop_assert_eq!(placed.len(), count.min(nodes.len()));
        prop_assert_eq!(different.len(), placed.len());
        let zones: BTreeSet<&str> = placed.iter().map(|node| zone_of[node]).collect();
        let known: BTreeSet<&str> = zone_of.values().copied().collect();
        prop_assert_eq!(zones.len(), known.len().min(placed.len()));
    }

    #[test]
    fn a_joining_node_moves_few_replicas(count in 3..20u32, zoned: bool) {
        let zone = |n: u32| if zoned { 1 + n % 3 } else { 0 };
        let before: Vec<Candidate> = (0..count).map(|n| node(n, zone(n), 1)).collect();
        let mut after = before.clone();
        after.push(node(count, zone(count), 1));
        let (before, after) = (Placement::new(&before), Placement::new(&after));
        let joined = NodeId::parse(&format!("ingester-{count}")).unwrap();
        for shard in 0..100 {
            let old: BTreeSet<NodeId> = before.replicas(ShardId(shard), 3).into_iter().collect();
            let new: BTreeSet<NodeId> = after.replicas(ShardId(shard), 3).into_iter().collect();
            let gained: Vec<&NodeId> = new.difference(&old).collect();
            prop_assert!(gained.len() <= 1, "{old:?} {new:?}");
            prop_assert!(gained.is_empty() || gained[0] == &joined);
        }
    }
}

#[test]
fn capacity_weighs() {
    let nodes: Vec<Candidate> =
        (0..8).map(|n| node(n, 0, if n == 0 { 4_000 } else { 1_000 })).collect();
    let placement = Placement::new(&nodes);
    let mut leads = BTreeMap::new();
    for shard in 0..4_000 {
        *leads.entry(placement.replicas(ShardId(shard), 1)[0].clone()).or_insert(0u32) += 1;
    }
    let large = leads[&nodes[0].node];
    let others = (4_000 - large) / 7;
    assert!((3 * others..5 * others).contains(&large), "{large} against {others}");
}
