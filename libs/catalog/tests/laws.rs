//! The laws of the catalog under arbitrary command sequences.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};

use clew_catalog::*;
use clew_model::{TenantId, UnixNanos};
use proptest::prelude::*;

const TENANTS: [&str; 3] = ["anvil", "bellows", "crucible"];

fn tenant(at: usize) -> TenantId {
    TenantId::parse(TENANTS[at % TENANTS.len()]).unwrap()
}

fn block(tenant: TenantId, at: u64) -> TenantBlock {
    TenantBlock {
        tenant,
        offset: at * 100,
        length: 100,
        footer_length: 20,
        min_time: UnixNanos(1_000 + at),
        max_time: UnixNanos(2_000 + at),
        spans: 10,
        traces: 2,
        splits: 1,
        ids: None,
    }
}

fn object(key: ObjectKey, from: u64, term: u64, tenants: u8) -> ObjectMeta {
    let ObjectKey::Flush(flush) = key else { panic!("a flush") };
    let members = (0..TENANTS.len()).filter(|at| tenants & (1 << at) != 0);
    let blocks = members.zip(0..).map(|(at, place)| block(tenant(at), place)).collect();
    ObjectMeta {
        key,
        size: 1_000,
        from,
        through: LogPoint { term, leader: 1, index: flush.through },
        level: 0,
        created_at: UnixNanos(0),
        data_at: UnixNanos(0),
        revision: 0,
        tenants: blocks,
    }
}

fn any_command() -> impl Strategy<Value = Command> {
    let node = (0..3u8).prop_map(|n| NodeId::parse(&format!("node-{n}")).unwrap());
    let key = (0..3u32, 0..6u64, 1..12u64, 0..3u64)
        .prop_map(|(s, i, t, r)| ObjectKey::flush(ShardId(s), Incarnation(i), t, r));
    prop_oneof![
        1 => (0..2u8, 0..4u32).prop_map(|(c, shard_count)| {
            Command::CreateCluster(CreateCluster { cluster: ClusterId([c; 16]), shard_count })
        }),
        2 => (node.clone(), 0..3u32).prop_map(|(node, capacity)| {
            Command::RegisterNode(RegisterNode {
                node,
                addr: "127.0.0.1:9095".to_owned(),
                zone: String::new(),
                capacity,
                roles: Roles::ALL,
                features: FeatureRange::OURS,
            })
        }),
        2 => (0..4u8, node.clone()).prop_map(|(disk, node)| {
            Command::IssueReplicaId(IssueReplicaId { disk: DiskId([disk; 16]), node, holds: None })
        }),
        3 => (0..4u32, prop::collection::vec(1..4u64, 0..3), prop::option::of(1..6u64), 0..5u8)
            .prop_map(|(shard, replicas, replaces, request)| {
                Command::OpenShardLog(OpenShardLog {
                    shard: ShardId(shard),
                    replicas: replicas.into_iter().map(ReplicaId).collect(),
                    replaces: replaces.map(Incarnation),
                    request: RequestId([request; 16]),
                })
            }),
        20 => (key.clone(), 0..12u64, 0..3u64, 0..8u8).prop_map(|(key, from, term, tenants)| {
            Command::CommitFlush(CommitFlush { object: object(key, from, term, tenants) })
        }),
        3 => (0..3u32, 0..6u64, 0..4u64, 0..4u64, prop::collection::vec(1..5u64, 0..4)).prop_map(
            |(shard, incarnation, term, members_index, voters)| {
                Command::NoteLead(NoteLead {
                    shard: ShardId(shard),
                    incarnation: Incarnation(incarnation),
                    lead: ShardLead {
                        term,
                        leader: ReplicaId(1),
                        members_index,
                        voters: voters.into_iter().map(ReplicaId).collect(),
                        learners: vec![],
                    },
                    flushed: LogPoint { term, leader: 1, index: members_index * 4 },
                })
            }
        ),
        3 => (0..3u32, 0..6u64, prop::collection::vec(1..5u64, 0..4), prop::collection::vec(1..5u64, 0..4))
            .prop_map(|(shard, incarnation, from, to)| {
                Command::PlaceShard(PlaceShard {
                    shard: ShardId(shard),
                    incarnation: Incarnation(incarnation),
                    from: from.into_iter().map(ReplicaId).collect(),
                    to: to.into_iter().map(ReplicaId).collect(),
                })
            }),
        1 => (node, any::<bool>()).prop_map(|(node, drains)| {
            let state = if drains { NodeState::Draining } else { NodeState::Active };
            Command::SetNodeState(SetNodeState { node, state })
        }),
        1 => (0..4u64, 0..6u32).prop_map(|(after, shard_count)| {
            Command::AddGeneration(AddGeneration { after, shard_count })
        }),
        2 => (0..4u32, 0..6u64, 0..4u64).prop_map(|(shard, incarnation, replica)| {
            let (shard, incarnation) = (ShardId(shard), Incarnation(incarnation));
            match replica {
                0 => Command::AcceptGap(AcceptGap { shard, incarnation }),
                1 => Command::ForgetGaps(ForgetGaps { shard: Some(shard) }),
                _ => {
                    let replica = ReplicaId(replica);
                    Command::ClaimLog(ClaimLog { shard, incarnation, replica })
                }
            }
        }),
        2 => (key.clone(), 0..3usize).prop_map(|(object, whose)| {
            Command::LiftQuarantine(LiftQuarantine { object, tenant: tenant(whose) })
        }),
        3 => (key, 0..3usize).prop_map(|(object, whose)| {
            Command::QuarantineBlock(QuarantineBlock {
                object,
                tenant: tenant(whose),
                reason: "checksum".to_owned(),
            })
        }),
    ]
}

/// A catalog with three open shard logs, so that most generated commands mean something.
fn opened() -> State {
    let mut state = State::new();
    let node = NodeId::parse("node-0").unwrap();
    let mut commands = vec![
        Command::CreateCluster(CreateCluster { cluster: ClusterId([0; 16]), shard_count: 3 }),
        Command::RegisterNode(RegisterNode {
            node: node.clone(),
            addr: "127.0.0.1:9095".to_owned(),
            zone: "a".to_owned(),
            capacity: 1,
            roles: Roles::ALL,
            features: FeatureRange::OURS,
        }),
        Command::RaiseFeatureLevel(RaiseFeatureLevel { to: FeatureLevel::QUARANTINES_MOVE }),
        Command::IssueReplicaId(IssueReplicaId { disk: DiskId([0; 16]), node, holds: None }),
    ];
    commands.extend((0..3).map(|shard| {
        Command::OpenShardLog(OpenShardLog {
            shard: ShardId(shard),
            replicas: vec![ReplicaId(1)],
            replaces: None,
            request: RequestId([100 + u8::try_from(shard).unwrap(); 16]),
        })
    }));
    for (command, index) in commands.iter().zip(1..) {
        let outcome = state.apply(index, &command.encode(UnixNanos(index)));
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }
    state
}

/// Lets every other flush start at the watermark of the open log, so that sequences get somewhere.
fn steer(state: &State, command: &Command, at: u64) -> Command {
    let Command::CommitFlush(CommitFlush { object }) = command else { return command.clone() };
    let (ObjectKey::Flush(key), Some(log)) = (object.key, state.shard_log(object.shard())) else {
        return command.clone();
    };
    if at.is_multiple_of(2) {
        return command.clone();
    }
    let through = log.watermark.index + key.through;
    let term = log.watermark.term + at % 2;
    Command::CommitFlush(CommitFlush {
        object: ObjectMeta {
            key: ObjectKey::flush(key.shard, log.incarnation, through, key.random),
            from: log.watermark.index,
            through: LogPoint { term, leader: 1, index: through },
            ..object.clone()
        },
    })
}

fn apply(state: &mut State, command: &Command, at: u64) -> Outcome {
    let index = state.revision() + 1;
    state.apply(index, &command.encode(UnixNanos(at)))
}

fn all_tenants() -> Vec<TenantId> {
    (0..TENANTS.len()).map(tenant).collect()
}

fn commands(most: usize) -> impl Strategy<Value = Vec<(Command, u64)>> {
    prop::collection::vec((any_command(), 0..1_000u64), 0..most)
}

proptest! {
    #[test]
    fn flushes_cover_each_log_without_gap_or_overlap(commands in commands(150)) {
        let mut state = opened();
        let mut applied: BTreeMap<(ShardId, Incarnation), Vec<(u64, u64)>> = BTreeMap::new();
        let is_gap = |command: &Command| matches!(command, Command::AcceptGap(_));
        for (command, at) in commands.iter().filter(|(command, _)| !is_gap(command)) {
            let before: BTreeMap<_, _> = state
                .shard_logs()
                .map(|(shard, log)| ((shard, log.incarnation), log.watermark.index))
                .collect();
            let now = state.now();
            let command = steer(&state, command, *at);
            let outcome = apply(&mut state, &command, *at);
            prop_assert!(state.now() >= now);
            if let (Command::CommitFlush(c), Outcome::Flush(FlushOutcome::Applied)) =
                (&command, &outcome)
            {
                let log = (c.object.shard(), c.object.incarnation());
                applied.entry((log.0, log.1.unwrap())).or_default().push((c.object.from, c.object.through.index));
            }
            for (shard, log) in state.shard_logs() {
                let known = before.get(&(shard, log.incarnation));
                prop_assert!(log.watermark.index >= known.copied().unwrap_or(0));
            }
        }
        let mut open = BTreeSet::new();
        for (shard, log) in state.shard_logs() {
            prop_assert!(open.insert(log.incarnation), "an incarnation is issued once");
            let ranges = applied.get(&(shard, log.incarnation)).cloned().unwrap_or_default();
            let end = ranges.iter().try_fold(0, |border, (from, through)| {
(border == *from).then_some(*through)
});
            prop_assert_eq!(end, Some(log.watermark.index));
            let flushes = state.flushes(shard, log.incarnation, 0, log.watermark.index).unwrap();
            let listed: Vec<_> = flushes.iter().map(|o| (o.from, o.through.index)).collect();
            prop_assert_eq!(listed, ranges);
        }
    }

    #[test]
    fn a_repeated_command_changes_nothing(commands in commands(80)) {
        let mut once = opened();
        let mut twice = opened();
        for (index, (command, at)) in commands.iter().enumerate() {
            let index = 100 + 2 * index as u64;
            let bytes = steer(&once, command, *at).encode(UnixNanos(*at));
            let first = once.apply(index, &bytes);
            once.apply(index + 1, b"");
            prop_assert_eq!(twice.apply(index, &bytes), first.clone());
            let hash = twice.state_hash();
            let again = twice.apply(index, &bytes);
            prop_assert_eq!(again, Outcome::Refused(Refusal::Replayed { revision: index }));
            prop_assert_eq!(twice.state_hash(), hash);
            let second = twice.apply(index + 1, &bytes);
            match (&first, &second) {
                (Outcome::Flush(FlushOutcome::Applied), second) => {
                    prop_assert_eq!(second, &Outcome::Flush(FlushOutcome::AlreadyApplied));
                }
                (Outcome::Open(OpenOutcome::Opened { incarnation }), second) => {
                    let incarnation = *incarnation;
                    prop_assert_eq!(second, &Outcome::Open(OpenOutcome::AlreadyOpened { incarnation }));
                }
                (Outcome::Cluster(ClusterOutcome::Created), second) => {
                    prop_assert_eq!(second, &Outcome::Cluster(ClusterOutcome::AlreadyCreated));
                }
                (Outcome::Quarantine(QuarantineOutcome::Quarantined), second) => {
                    let again = QuarantineOutcome::AlreadyQuarantined;
                    prop_assert_eq!(second, &Outcome::Quarantine(again));
                }
                (Outcome::Lift(LiftOutcome::Lifted), second) => {
                    prop_assert_eq!(second, &Outcome::Lift(LiftOutcome::NotQuarantined));
                }
                (Outcome::Gap(GapOutcome::Done), second) => {
                    prop_assert_eq!(second, &Outcome::Gap(GapOutcome::None));
                }
                (Outcome::Generation(GenerationOutcome::Added { generation }), second) => {
                    let generation = *generation;
                    let again = GenerationOutcome::AlreadyAdded { generation };
                    prop_assert_eq!(second, &Outcome::Generation(again));
                }
                (first, second) => prop_assert_eq!(first, second),
            }
            prop_assert_eq!(&once, &twice);
        }
    }

    #[test]
    fn a_restored_snapshot_goes_on_alike(before in commands(60), after in commands(60)) {
        let mut state = opened();
        for (command, at) in &before {
            let command = steer(&state, command, *at);
            apply(&mut state, &command, *at);
        }
        let bytes = state.encode();
        let mut restored = State::decode(&bytes).unwrap();
        prop_assert_eq!(restored.encode(), bytes);
        prop_assert_eq!(restored.view(&[]), state.view(&[]));
        for (command, at) in &after {
            let command = steer(&state, command, *at);
            let outcome = apply(&mut state, &command, *at);
            prop_assert_eq!(apply(&mut restored, &command, *at), outcome);
        }
        prop_assert_eq!(restored.state_hash(), state.state_hash());
        prop_assert_eq!(restored.view(&[tenant(1)]), state.view(&[tenant(1)]));
    }

    #[test]
    fn a_view_that_follows_is_a_fresh_one(
        before in commands(60),
        after in commands(60),
        scope in 0..4usize,
    ) {
        let scope = &all_tenants()[..scope.min(2)];
        let mut state = opened();
        for (command, at) in &before {
            let command = steer(&state, command, *at);
            apply(&mut state, &command, *at);
        }
        let mut view = state.view(scope);
        for (command, at) in &after {
            let command = steer(&state, command, *at);
            apply(&mut state, &command, *at);
        }
        let changes = state.changes_since(view.revision).unwrap();
        let decoded = decode_changes(&encode_changes(&changes)).unwrap();
        prop_assert_eq!(&decoded, &changes);
        view.advance(state.revision(), &decoded);
        view.advance(state.revision(), &decoded);
        prop_assert_eq!(&view, &state.view(scope));
    }

    #[test]
    fn views_show_exactly_the_readable_blocks(commands in commands(120)) {
        let mut state = opened();
        for (command, at) in &commands {
            let command = steer(&state, command, *at);
            apply(&mut state, &command, *at);
        }
        for tenant in all_tenants() {
            let view = state.view(std::slice::from_ref(&tenant));
            let shown: BTreeSet<ObjectKey> = view.blocks(&tenant).map(|(o, _)| o.key).collect();
            let damaged: BTreeSet<ObjectKey> =
                view.quarantined(&tenant).map(|q| q.object).collect();
            prop_assert!(shown.is_disjoint(&damaged));
            let held: BTreeSet<ObjectKey> = state
                .objects()
                .filter(|object| object.block(&tenant).is_some())
                .map(|object| object.key)
                .collect();
            prop_assert_eq!(shown.union(&damaged).copied().collect::<BTreeSet<_>>(), held);
            let sent = View::decode(&view.encode()).unwrap();
            let received: BTreeSet<ObjectKey> = sent.blocks(&tenant).map(|(o, _)| o.key).collect();
            prop_assert_eq!(received, shown);
            prop_assert!(sent.tenants().all(|other| *other == tenant));
        }
        let whole = state.view(&[]);
        prop_assert_eq!(View::decode(&whole.encode()).unwrap(), whole);
        prop_assert_eq!(Members::decode(&state.members().encode()).unwrap(), state.members());
    }

    #[test]
    fn what_is_called_dead_is_never_registered(
        before in commands(80),
        after in commands(80),
    ) {
        let mut state = opened();
        for (command, at) in &before {
            let command = steer(&state, command, *at);
            apply(&mut state, &command, *at);
        }
        let dead: BTreeSet<ObjectKey> = after
            .iter()
            .filter_map(|(command, _)| match command {
                Command::CommitFlush(flush) => Some(flush.object.key),
                _ => None,
            })
            .filter(|key| state.liveness(key) == Liveness::Dead)
            .collect();
        for (command, at) in &after {
            let command = steer(&state, command, *at);
            apply(&mut state, &command, *at);
        }
        for key in dead {
            prop_assert_eq!(state.object(&key), None);
            prop_assert_eq!(state.liveness(&key), Liveness::Dead);
        }
        for object in state.objects() {
            prop_assert_eq!(state.liveness(&object.key), Liveness::Registered);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        flips in prop::collection::vec((0..1_000usize, any::<u8>()), 1..4),
        (command, at) in (any_command(), any::<u64>()),
    ) {
        let mut state = opened();
        apply(&mut state, &Command::CommitFlush(CommitFlush {
            object: object(ObjectKey::flush(ShardId(0), Incarnation(1), 5, 1), 0, 1, 7),
        }), 1);
        state.apply(1_000, &bytes);
        let mut damaged = command.encode(UnixNanos(at));
        let mut snapshot = state.encode();
        let mut view = state.view(&[]).encode();
        for encoded in [&mut damaged, &mut snapshot, &mut view] {
            for (place, value) in &flips {
                let length = encoded.len();
                encoded[place % length] = *value;
            }
        }
        state.apply(1_001, &damaged);
        prop_assert_eq!(state.revision(), 1_001);
        if let Ok(mut odd) = State::decode(&snapshot) {
            let next = odd.revision().saturating_add(1);
            odd.apply(next, &command.encode(UnixNanos(at)));
        }
        let _ = View::decode(&view);
        let _ = View::decode(&bytes);
        let _ = State::decode(&bytes);
        let _ = decode_changes(&bytes);
        let _ = Members::decode(&bytes);
        let _ = Outcome::decode(&bytes);
    }
}
