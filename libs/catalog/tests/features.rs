//! The laws of feature levels: they only rise, what needs a higher one changes nothing, and replicas
//! of releases before and after a level agree as long as it is not reached.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};

use clew_catalog::*;
use clew_model::{ErrorKind, UnixNanos};
use proptest::prelude::*;

fn node(number: u8) -> NodeId {
    NodeId::parse(&format!("node-{number}")).unwrap()
}

fn addr(number: u8) -> String {
    format!("10.0.0.{number}:9095")
}

fn register(number: u8, features: FeatureRange) -> Command {
    Command::RegisterNode(RegisterNode {
        node: node(number),
        addr: addr(number),
        zone: String::new(),
        capacity: 1,
        roles: if number == 0 { Roles::ALL } else { Roles::INGESTER },
        features,
    })
}

fn raise(to: u32) -> Command {
    Command::RaiseFeatureLevel(RaiseFeatureLevel { to: FeatureLevel(to) })
}

fn forget(number: u8) -> Command {
    Command::ForgetNode(ForgetNode { node: node(number) })
}

fn range(oldest: u32, newest: u32) -> FeatureRange {
    FeatureRange { oldest: FeatureLevel(oldest), newest: FeatureLevel(newest) }
}

/// A cluster with node 0, which holds the one shard.
fn created() -> State {
    let mut state = State::new();
    let disk = DiskId([0; 16]);
    for command in [
        Command::CreateCluster(CreateCluster { cluster: ClusterId([1; 16]), shard_count: 1 }),
        register(0, range(1, 9)),
        Command::IssueReplicaId(IssueReplicaId { disk, node: node(0), holds: None }),
        Command::OpenShardLog(OpenShardLog {
            shard: ShardId(0),
            replicas: vec![ReplicaId(1)],
            replaces: None,
            request: RequestId([1; 16]),
        }),
    ] {
        let outcome = apply(&mut state, &command);
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }
    state
}

fn apply(state: &mut State, command: &Command) -> Outcome {
    let index = state.revision() + 1;
    state.apply(index, &command.encode(UnixNanos(index)))
}

/// A command as a release sees it that does not know it.
fn apply_unknown(state: &mut State) -> Outcome {
    let mut bytes = vec![8, 1, 17];
    bytes.extend(u64::MAX.to_le_bytes());
    // Field 500, a message without content.
    bytes.extend([0xa2, 0x1f, 0]);
    state.apply(state.revision() + 1, &bytes)
}

fn any_range() -> impl Strategy<Value = FeatureRange> {
    (1..5u32, 0..5u32).prop_map(|(oldest, more)| range(oldest, oldest + more))
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (0..4u8, any_range()).prop_map(|(number, features)| register(number, features)),
        1 => (0..4u32).prop_map(raise),
        2 => (0..5u8).prop_map(forget),
    ]
}

proptest! {
    #[test]
    fn the_level_is_the_highest_ever_and_nothing_above_it_does_anything(
        commands in prop::collection::vec(any_command(), 0..40)
    ) {
        let mut state = created();
        let mut highest = FeatureLevel::FIRST;
        for command in commands {
            let (before, needs) = (state.clone(), command.feature_level());
            let outcome = apply(&mut state, &command);
            if let Command::RaiseFeatureLevel(RaiseFeatureLevel { to }) = &command {
                highest = highest.max(*to);
                prop_assert_eq!(&outcome, &Outcome::FeatureLevel(highest));
            }
            prop_assert_eq!(state.feature_level(), highest);
            let level = before.feature_level();
            if needs > level {
                prop_assert_eq!(outcome, Outcome::Refused(Refusal::NotYet { needs, level }));
                let mut unaware = before;
                apply_unknown(&mut unaware);
                prop_assert_eq!(unaware.encode(), state.encode());
            }
            let reopened = State::decode(&state.encode()).unwrap();
            prop_assert_eq!(reopened.feature_level(), highest);
            prop_assert_eq!(reopened.topology(), Topology {
                revision: reopened.topology_revision(),
                ..state.topology()
            });
        }
    }

    #[test]
    fn replicas_that_ignore_what_nodes_support_agree_below_level_2(
        nodes in prop::collection::vec((0..4u8, any_range()), 0..20)
    ) {
        let (mut aware, mut unaware) = (created(), created());
        for (number, features) in nodes {
            let outcome = apply(&mut aware, &register(number, features));
            let old = register(number, FeatureRange::default());
            prop_assert_eq!(outcome, apply(&mut unaware, &old));
            prop_assert_eq!(aware.encode(), unaware.encode());
        }
    }

    #[test]
    fn from_level_2_on_only_nodes_that_support_the_level_are_let_in(
        level in 2..5u32, features in any_range()
    ) {
        let mut state = created();
        apply(&mut state, &raise(level));
        let outcome = apply(&mut state, &register(1, features));
        let is_in = state.nodes().any(|info| info.node == node(1));
        prop_assert_eq!(is_in, features.contains(FeatureLevel(level)));
        if let Outcome::Refused(refusal) = outcome {
            prop_assert_eq!(refusal.kind(), ErrorKind::Invalid);
            let text = refusal.to_string();
            prop_assert!(text.contains(&format!("feature level {level}")), "{}", text);
            prop_assert!(text.contains(&format!("supports {features}")), "{}", text);
        }
    }

    #[test]
    fn a_level_is_planned_that_every_node_supports(
        level in 1..4u32,
        most in 1..7u32,
        ranges in prop::collection::vec(prop::option::of(any_range()), 4),
        alive in prop::collection::btree_set(0..4u8, 0..4),
    ) {
        let mut state = created();
        for number in 1..4 {
            apply(&mut state, &register(number, FeatureRange::default()));
        }
        apply(&mut state, &raise(level));
        let topology = state.topology();
        let stated: BTreeMap<NodeId, FeatureRange> =
            (0..4).zip(&ranges).filter_map(|(n, range)| Some((node(n), (*range)?))).collect();
        let alive: BTreeSet<NodeId> = alive.into_iter().map(node).collect();
        let members = [addr(0)];
        let signs = Signs { stated: &stated, alive: &alive, members: &members };
        let plan = plan_feature_level(&topology, signs, FeatureLevel(most));
        prop_assert!(plan.level >= topology.feature_level);
        prop_assert!(plan.level <= topology.feature_level.max(FeatureLevel(most)));
        let newest = |node: &NodeId| stated.get(node).copied().unwrap_or_default().newest;
        // Node 0 counts always: a shard needs it, and it is a member.
        let counted: BTreeSet<NodeId> = alive.iter().cloned().chain([node(0)]).collect();
        if plan.level > topology.feature_level {
            prop_assert!(counted.iter().all(|node| newest(node) >= plan.level));
        }
        let holding: BTreeSet<String> = counted
            .iter()
            .filter(|node| newest(node) < FeatureLevel(most))
            .map(ToString::to_string)
            .collect();
        prop_assert_eq!(&plan.held_by.into_iter().collect::<BTreeSet<_>>(), &holding);
        prop_assert!(!holding.is_empty() || plan.level >= FeatureLevel(most));
    }
}

#[test]
fn a_member_that_nobody_has_heard_of_holds_the_level() {
    let topology = created().topology();
    let stated = BTreeMap::from([(node(0), range(1, 5))]);
    let alive = BTreeSet::from([node(0)]);
    let mut members = vec![addr(0)];
    let most = FeatureLevel(3);
    let plan = |members: &[String]| {
        plan_feature_level(&topology, Signs { stated: &stated, alive: &alive, members }, most)
    };
    assert_eq!(plan(&members), LevelPlan { level: most, held_by: vec![] });
    members.push(addr(9));
    assert_eq!(plan(&members), LevelPlan { level: FeatureLevel::FIRST, held_by: vec![addr(9)] });
}

#[test]
fn a_node_is_forgotten_unless_a_shard_needs_it() {
    let mut state = created();
    apply(&mut state, &register(1, range(1, 2)));
    let refused = apply(&mut state, &forget(1));
    let Outcome::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.kind(), ErrorKind::Unavailable);
    assert!(refusal.to_string().contains("feature level 1 and this needs 2"), "{refusal}");
    apply(&mut state, &raise(2));
    assert_eq!(apply(&mut state, &forget(0)), Outcome::Forget(ForgetOutcome::HoldsReplicas));
    assert_eq!(apply(&mut state, &forget(1)), Outcome::Forget(ForgetOutcome::Forgotten));
    assert_eq!(apply(&mut state, &forget(1)), Outcome::Refused(Refusal::UnknownNode));
    let left: Vec<_> = state.nodes().map(|info| info.node.clone()).collect();
    assert_eq!(left, [node(0)]);
}
