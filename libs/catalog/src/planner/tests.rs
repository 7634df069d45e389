//! The planner against a small cluster whose leaders do at once what they are told.

use std::collections::{BTreeMap, BTreeSet};

use clew_model::UnixNanos;
use clew_ring::{NodeId, ShardId};

use super::*;
use crate::command::*;
use crate::feature::FeatureRange;
use crate::ident::{ClusterId, DiskId, LogPoint};
use crate::state::State;
use crate::topology::ShardLead;

struct World {
    state: State,
    alive: BTreeSet<NodeId>,
    /// How many shards moved in the round with the most moves.
    most_moves: usize,
}

fn node(name: u8) -> NodeId {
    NodeId::parse(&format!("node-{name}")).unwrap()
}

impl World {
    fn new(shards: u32) -> World {
        let mut world = World { state: State::new(), alive: BTreeSet::new(), most_moves: 0 };
        world.apply(Command::CreateCluster(CreateCluster {
            cluster: ClusterId([1; 16]),
            shard_count: shards,
        }));
        world
    }

    fn apply(&mut self, command: Command) {
        let index = self.state.revision() + 1;
        let outcome = self.state.apply(index, &command.encode(UnixNanos(1)));
        assert!(!matches!(outcome, crate::Outcome::Refused(_)), "{outcome:?}");
    }

    fn join(&mut self, name: u8, disk: u8, zone: &str) {
        self.apply(Command::RegisterNode(RegisterNode {
            node: node(name),
            addr: format!("10.0.0.{name}:9095"),
            zone: zone.to_owned(),
            capacity: 1,
            roles: Roles::ALL,
            features: FeatureRange::default(),
        }));
        self.apply(Command::IssueReplicaId(IssueReplicaId {
            disk: DiskId([disk; 16]),
            node: node(name),
            holds: None,
        }));
        self.alive.insert(node(name));
    }

    /// Plans until nothing is left to do; after each round leaders make the members those wanted.
    fn settle(&mut self) {
        for _ in 0..100 {
            let commands = plan_places(&self.state.topology(), &self.alive);
            let topology = self.state.topology();
            let moves = commands.iter().filter(|command| match command {
                Command::PlaceShard(place) => {
                    let (from, to): (BTreeSet<_>, BTreeSet<_>) =
                        (place.from.iter().collect(), place.to.iter().collect());
                    from != to
                }
                _ => false,
            });
            self.most_moves = self.most_moves.max(moves.count());
            let settled = topology.shards.values().all(ShardPlace::is_settled);
            if commands.is_empty() && settled {
                return;
            }
            commands.into_iter().for_each(|command| self.apply(command));
            self.lead();
        }
        panic!("it never settles");
    }

    fn lead(&mut self) {
        for place in self.state.topology().shards.into_values() {
            let term = place.lead.as_ref().map_or(0, |lead| lead.term) + 1;
            let lead = ShardLead {
                term,
                leader: place.placed[0],
                members_index: term,
                voters: place.placed.clone(),
                learners: Vec::new(),
            };
            let (shard, incarnation) = (place.shard, place.incarnation);
            self.apply(Command::NoteLead(NoteLead {
                shard,
                incarnation,
                lead,
                flushed: LogPoint::default(),
            }));
        }
    }

    fn nodes_of(&self, shard: ShardId) -> BTreeSet<NodeId> {
        let topology = self.state.topology();
        let placed = &topology.shards[&shard].placed;
        placed.iter().map(|replica| topology.node_of(*replica).unwrap().node.clone()).collect()
    }

    fn shards(&self) -> Vec<ShardId> {
        self.state.topology().shards.keys().copied().collect()
    }

    fn leads(&self) -> BTreeMap<ReplicaId, usize> {
        let mut leads = BTreeMap::new();
        for place in self.state.topology().shards.values() {
            *leads.entry(place.placed[0]).or_default() += 1;
        }
        leads
    }
}

#[test]
fn one_node_holds_everything_and_nobody_waits() {
    let mut world = World::new(4);
    assert!(plan_places(&world.state.topology(), &world.alive).is_empty());
    world.join(1, 1, "");
    world.settle();
    assert_eq!(world.shards().len(), 4);
    assert!(world.shards().iter().all(|shard| world.nodes_of(*shard).len() == 1));
}

#[test]
fn replicas_lie_in_different_zones_and_leaders_are_spread() {
    let mut world = World::new(12);
    for (name, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "c"), (6, "c")] {
        world.join(name, name, zone);
    }
    world.settle();
    let topology = world.state.topology();
    for place in topology.shards.values() {
        let zones: BTreeSet<_> =
            place.placed.iter().map(|r| topology.node_of(*r).unwrap().zone.clone()).collect();
        assert_eq!((place.placed.len(), zones.len()), (3, 3));
    }
    assert!(world.leads().values().all(|leads| *leads <= 3), "{:?}", world.leads());
}

#[test]
fn a_few_shards_move_at_a_time_when_nodes_join_and_drain() {
    let mut world = World::new(24);
    (1..=3).for_each(|name| world.join(name, name, ""));
    world.settle();
    (4..=5).for_each(|name| world.join(name, name, ""));
    world.most_moves = 0;
    world.settle();
    assert!((1..=MOVES_MAX).contains(&world.most_moves), "{}", world.most_moves);
    assert!(world.leads().values().all(|leads| *leads <= 8), "{:?}", world.leads());
    for name in [4, 5] {
        let state = NodeState::Draining;
        world.apply(Command::SetNodeState(SetNodeState { node: node(name), state }));
    }
    world.settle();
    for shard in world.shards() {
        let left: BTreeSet<NodeId> = [1, 2, 3].map(node).into();
        assert_eq!(world.nodes_of(shard), left);
    }
}

#[test]
fn a_dead_node_is_replaced_only_by_another() {
    let mut world = World::new(6);
    (1..=3).for_each(|name| world.join(name, name, ""));
    world.settle();
    world.alive.remove(&node(3));
    world.settle();
    for shard in world.shards() {
        assert_eq!(world.nodes_of(shard).len(), 3, "nothing is gained by giving it up");
        let leader = world.state.topology().shards[&shard].placed[0];
        assert_ne!(world.state.topology().node_of(leader).unwrap().node, node(3));
    }
    world.join(4, 4, "");
    world.settle();
    let expected: BTreeSet<NodeId> = [1, 2, 4].map(node).into();
    assert!(world.shards().iter().all(|shard| world.nodes_of(*shard) == expected));
}

#[test]
fn a_node_that_returns_empty_gets_its_shards_under_its_new_replica() {
    let mut world = World::new(3);
    (1..=3).for_each(|name| world.join(name, name, ""));
    world.settle();
    world.join(3, 33, "");
    world.settle();
    let topology = world.state.topology();
    let replica = topology.node(&node(3)).unwrap().replica.unwrap();
    assert_eq!(replica, ReplicaId(4));
    assert!(topology.shards.values().all(|place| place.placed.contains(&replica)));
    assert!(topology.shards.values().all(|place| !place.placed.contains(&ReplicaId(3))));
}

#[test]
fn a_move_to_a_node_that_dies_is_planned_anew() {
    let mut world = World::new(1);
    (1..=3).for_each(|name| world.join(name, name, ""));
    world.settle();
    (4..=9).for_each(|name| world.join(name, name, ""));
    let commands = plan_places(&world.state.topology(), &world.alive);
    let [Command::PlaceShard(first)] = &commands[..] else { return };
    let target = *first.to.iter().find(|r| !first.from.contains(r)).unwrap();
    world.apply(commands[0].clone());
    let again = plan_places(&world.state.topology(), &world.alive);
    assert!(again.is_empty(), "it is left alone while it moves: {again:?}");
    let name = world.state.topology().node_of(target).unwrap().node.clone();
    world.alive.remove(&name);
    let again = plan_places(&world.state.topology(), &world.alive);
    let [Command::PlaceShard(second)] = &again[..] else { panic!("{again:?}") };
    assert!(!second.to.contains(&target));
}
