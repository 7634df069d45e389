//! Encodings that other releases have written: they must be read for ever, and written alike.
//!
//! `CLEW_UPDATE_GOLDEN=1` writes the files anew. A file of a released version must not change.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::path::PathBuf;
use std::time::Duration;

use clew_catalog::*;
use clew_model::{TenantId, TraceId, UnixNanos};

fn history() -> Vec<(UnixNanos, Command)> {
    let node = NodeId::parse("ingester-0").unwrap();
    let (node2, node3) = (node.clone(), node.clone());
    let block = |tenant: &str, offset, length| TenantBlock {
        tenant: TenantId::parse(tenant).unwrap(),
        offset,
        length,
        footer_length: 64,
        min_time: UnixNanos(1_700_000_000_000_000_001),
        max_time: UnixNanos(1_700_000_060_000_000_002),
        spans: 300,
        traces: 20,
        splits: 3,
        ids: None,
    };
    let object = |from, through, random| ObjectMeta {
        key: ObjectKey::flush(ShardId(1), Incarnation(1), through, random),
        size: 5_000,
        from,
        through: LogPoint { term: 2, leader: 1, index: through },
        level: 0,
        created_at: UnixNanos(0),
        data_at: UnixNanos(0),
        revision: 0,
        tenants: vec![block("anvil", 0, 2_000), block("bellows", 2_000, 3_000)],
    };
    let commands = vec![
        Command::CreateCluster(CreateCluster { cluster: ClusterId([0xc1; 16]), shard_count: 2 }),
        Command::RegisterNode(RegisterNode {
            node: node.clone(),
            addr: "10.0.0.7:9095".to_owned(),
            zone: "eu-1a".to_owned(),
            capacity: 4,
            roles: Roles::ALL,
            features: FeatureRange::default(),
        }),
        Command::IssueReplicaId(IssueReplicaId { disk: DiskId([0xd1; 16]), node, holds: None }),
        Command::OpenShardLog(OpenShardLog {
            shard: ShardId(1),
            replicas: vec![ReplicaId(1)],
            replaces: None,
            request: RequestId([0xe1; 16]),
        }),
        Command::CommitFlush(CommitFlush { object: object(0, 900, 0xfeed) }),
        Command::CommitFlush(CommitFlush { object: object(900, 1_800, 0xbeef) }),
        Command::QuarantineBlock(QuarantineBlock {
            object: ObjectKey::flush(ShardId(1), Incarnation(1), 900, 0xfeed),
            tenant: TenantId::parse("bellows").unwrap(),
            reason: "footer checksum differs".to_owned(),
        }),
        Command::NoteLead(NoteLead {
            shard: ShardId(1),
            incarnation: Incarnation(1),
            lead: ShardLead {
                term: 3,
                leader: ReplicaId(1),
                members_index: 7,
                voters: vec![ReplicaId(1)],
                learners: vec![ReplicaId(2)],
            },
            flushed: LogPoint::default(),
        }),
        Command::IssueReplicaId(IssueReplicaId {
            disk: DiskId([0xd2; 16]),
            node: node2,
            holds: None,
        }),
        Command::PlaceShard(PlaceShard {
            shard: ShardId(1),
            incarnation: Incarnation(1),
            from: vec![ReplicaId(1)],
            to: vec![ReplicaId(2), ReplicaId(1)],
        }),
        Command::SetNodeState(SetNodeState { node: node3, state: NodeState::Draining }),
        Command::AddGeneration(AddGeneration { after: 1, shard_count: 3 }),
    ];
    let commands: Vec<Command> = commands.into_iter().chain(life(&object)).collect();
    let start = 1_700_000_100_000_000_000;
    commands.into_iter().zip(0..).map(|(c, at)| (UnixNanos(start + at), c)).collect()
}

/// What becomes of objects. The jobs are named by the revisions at which they begin.
fn life(object: &dyn Fn(u64, u64, u64) -> ObjectMeta) -> Vec<Command> {
    let (anvil, bellows) = (TenantId::parse("anvil").unwrap(), TenantId::parse("bellows").unwrap());
    let second = ObjectKey::flush(ShardId(1), Incarnation(1), 1_800, 0xbeef);
    let expires_at = UnixNanos(1_700_000_200_000_000_000);
    let begin = |inputs: Vec<ObjectKey>, request: u8| {
        Command::BeginJob(BeginJob {
            inputs,
            level: 1,
            worker: "compactor-0".to_owned(),
            request: RequestId([request; 16]),
            expires_at,
        })
    };
    let made = |job: u64, random: u64| {
        let blocks = object(1_800, 2_700, 1).tenants;
        let ids = Some((TraceId([0x10; 16]), TraceId([0x1f; 16])));
        ObjectMeta {
            key: ObjectKey::compacted(ShardId(1), JobId(job), random),
            from: 0,
            through: LogPoint::default(),
            level: 1,
            tenants: blocks.into_iter().map(|block| TenantBlock { ids, ..block }).collect(),
            ..object(1_800, 2_700, 1)
        }
    };
    let third = ObjectKey::flush(ShardId(1), Incarnation(1), 2_700, 0xcafe);
    vec![
        begin(vec![second], 0xf1),
        Command::RenewJob(RenewJob { job: JobId(13), expires_at }),
        Command::DeleteTraces(DeleteTraces {
            tenant: anvil.clone(),
            ids: vec![TraceId([0x11; 16]), TraceId([0x12; 16])],
            query: "{ span.secret != nil }".to_owned(),
            request: RequestId([0xf2; 16]),
        }),
        Command::CommitJob(CommitJob {
            job: JobId(13),
            outputs: vec![made(13, 0xabba)],
            kept: vec![],
            removed: vec![Removed { deletion: DeletionId(15), traces: 1, spans: 4 }],
        }),
        Command::ConfirmDeleted(ConfirmDeleted { objects: vec![second] }),
        Command::CommitFlush(CommitFlush { object: object(1_800, 2_700, 0xcafe) }),
        begin(vec![third], 0xf3),
        Command::AbandonJob(AbandonJob {
            job: JobId(19),
            strikes: vec![Striking {
                object: third,
                count: STRIKES_OF_FAILURE,
                reason: "checksum mismatch".to_owned(),
            }],
        }),
        begin(vec![third], 0xf4),
        Command::SetTenant(SetTenant {
            tenant: anvil.clone(),
            settings: TenantSettings { age: Some(Duration::from_secs(72 * 3_600)), bytes: Some(9) },
        }),
        Command::DropBlocks(DropBlocks {
            objects: vec![ObjectKey::flush(ShardId(1), Incarnation(1), 900, 0xfeed)],
            blocks: vec![(made(13, 0xabba).key, anvil)],
        }),
        Command::RemoveTenant(RemoveTenant { tenant: bellows, request: RequestId([0xf5; 16]) }),
        Command::IssueReplicaId(IssueReplicaId {
            disk: DiskId([0xd3; 16]),
            node: NodeId::parse("ingester-0").unwrap(),
            holds: Some(ReplicaId(77)),
        }),
        Command::NoteLead(NoteLead {
            shard: ShardId(1),
            incarnation: Incarnation(1),
            lead: ShardLead {
                term: 4,
                leader: ReplicaId(1),
                members_index: 8,
                voters: vec![ReplicaId(1)],
                learners: vec![],
            },
            flushed: LogPoint { term: 3, leader: 1, index: 3_600 },
        }),
        Command::AcceptGap(AcceptGap { shard: ShardId(1), incarnation: Incarnation(1) }),
        Command::ForgetGaps(ForgetGaps { shard: Some(ShardId(0)) }),
        Command::ClaimLog(ClaimLog {
            shard: ShardId(1),
            incarnation: Incarnation(1),
            replica: ReplicaId(77),
        }),
    ]
}

/// What there is since feature level 2.
fn since_level_2() -> Vec<(UnixNanos, Command)> {
    let (kept, gone) = ("ingester-0", "querier-9");
    let register = |name: &str, roles| {
        Command::RegisterNode(RegisterNode {
            node: NodeId::parse(name).unwrap(),
            addr: "10.0.0.7:9095".to_owned(),
            zone: "eu-1a".to_owned(),
            capacity: 4,
            roles,
            features: FeatureRange {
                oldest: FeatureLevel::FIRST,
                newest: FeatureLevel::LEVELS_ARE_KEPT,
            },
        })
    };
    let commands = vec![
        register(kept, Roles::ALL),
        Command::RaiseFeatureLevel(RaiseFeatureLevel { to: FeatureLevel::LEVELS_ARE_KEPT }),
        register(gone, Roles::QUERIER),
        Command::ForgetNode(ForgetNode { node: NodeId::parse(gone).unwrap() }),
        Command::Unpark(Unpark {
            objects: vec![ObjectKey::flush(ShardId(1), Incarnation(1), 1_800, 0xbeef)],
        }),
    ];
    let start = 1_700_000_200_000_000_000;
    commands.into_iter().zip(0..).map(|(c, at)| (UnixNanos(start + at), c)).collect()
}

/// What there is since feature level 3.
fn since_level_3() -> Vec<(UnixNanos, Command)> {
    let damaged = ObjectKey::flush(ShardId(1), Incarnation(1), 1_800, 0xbeef);
    let tenant = TenantId::parse("anvil").unwrap();
    let commands = vec![
        Command::RaiseFeatureLevel(RaiseFeatureLevel { to: FeatureLevel::QUARANTINES_MOVE }),
        Command::QuarantineBlock(QuarantineBlock {
            object: damaged,
            tenant: tenant.clone(),
            reason: "checksum mismatch".to_owned(),
        }),
        Command::LiftQuarantine(LiftQuarantine { object: damaged, tenant }),
    ];
    let start = 1_700_000_300_000_000_000;
    commands.into_iter().zip(0..).map(|(c, at)| (UnixNanos(start + at), c)).collect()
}

/// What history adds up to.
fn state_after(history: &[(UnixNanos, Command)]) -> State {
    let mut state = State::new();
    for ((at, command), index) in history.iter().zip(1..) {
        let outcome = state.apply(index, &command.encode(*at));
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }
    state
}

fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let hex = |bytes: &[u8]| {
        let lines = bytes.chunks(32).map(clew_model::id::to_hex).collect::<Vec<_>>();
        lines.join("\n") + "\n"
    };
    if std::env::var_os("CLEW_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, hex(written)).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    clew_model::id::from_hex(&text.replace('\n', "")).unwrap()
}

#[test]
fn commands_are_written_as_ever() {
    for (name, history) in [
        ("commands-v1.hex", history()),
        ("commands-level-2.hex", since_level_2()),
        ("commands-level-3.hex", since_level_3()),
    ] {
        written_as_ever(name, history);
    }
}

fn written_as_ever(name: &str, history: Vec<(UnixNanos, Command)>) {
    let mut log = Vec::new();
    for (at, command) in history {
        let bytes = command.encode(at);
        assert_eq!(Command::decode(&bytes), Ok((at, command)));
        log.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        log.extend(bytes);
    }
    assert_eq!(golden(name, &log), log);
}

#[test]
fn snapshots_of_each_level_open() {
    let level_2 = [history(), since_level_2()].concat();
    let level_3 = [level_2.clone(), since_level_3()].concat();
    for (name, history) in [
        ("snapshot-v1.hex", history()),
        ("snapshot-level-2.hex", level_2),
        ("snapshot-level-3.hex", level_3),
    ] {
        opens(name, &state_after(&history));
    }
}

fn opens(name: &str, state: &State) {
    let stored = golden(name, &state.encode());
    let opened = State::decode(&stored).unwrap();
    assert_eq!(opened, *state);
    assert_eq!(opened.encode(), stored);
    assert_eq!(opened.view(&[]), state.view(&[]));
}

/// The message with fields that no release knows yet, in itself and in the messages in it that the
/// paths lead to (`10.1` is field 1 of field 10).
fn grown(message: &[u8], paths: &[&str]) -> Vec<u8> {
    use clew_model::wire::{
        Reader, Value, put_bytes_field, put_fixed32_field, put_fixed64_field, put_varint_field,
    };
    let mut out = Vec::new();
    for field in Reader::new(message) {
        let field = field.unwrap();
        let number = field.number.to_string();
        match field.value {
            Value::Varint(value) => put_varint_field(&mut out, field.number, value),
            Value::Fixed64(value) => put_fixed64_field(&mut out, field.number, value),
            Value::Fixed32(value) => put_fixed32_field(&mut out, field.number, value),
            Value::Bytes(bytes) if paths.contains(&&*number) => {
                let within: Vec<&str> = paths
                    .iter()
                    .filter_map(|path| path.strip_prefix(&*number)?.strip_prefix('.'))
                    .collect();
                put_bytes_field(&mut out, field.number, &grown(bytes, &within));
            }
            Value::Bytes(bytes) => put_bytes_field(&mut out, field.number, bytes),
        }
    }
    put_varint_field(&mut out, 1_000, 7);
    put_bytes_field(&mut out, 1_001, b"of a later release");
    put_fixed64_field(&mut out, 1_002, u64::MAX);
    put_fixed32_field(&mut out, 1_003, 1);
    out
}

#[test]
fn what_a_later_release_adds_is_passed_over() {
    let all = [history(), since_level_2(), since_level_3()].concat();
    let state = state_after(&all);
    let snapshot = grown(
        &state.encode(),
        &[
            "7", "7.2", "8", "9", "10", "10.1", "10.1.3", "10.5", "12", "12.1", "12.4", "12.7",
            "13", "13.1", "14", "14.6", "16", "16.1", "16.1.1", "16.1.4", "16.1.7", "17", "17.1",
            "18", "19",
        ],
    );
    assert!(snapshot.len() > state.encode().len() + 1_000, "little was added");
    assert_eq!(State::decode(&snapshot).unwrap().encode(), state.encode());
    let topology = state.topology();
    let more = ["4", "5", "6", "6.2", "7", "7.5"];
    assert_eq!(Topology::decode(&grown(&topology.encode(), &more)).unwrap(), topology);
    let view = state.view(&[]);
    let more = ["5", "5.2", "6", "6.3", "9", "10", "11", "11.1"];
    assert_eq!(View::decode(&grown(&view.encode(), &more)).unwrap(), view);
    let mut replayed = State::new();
    for ((at, command), index) in all.iter().zip(1..) {
        let more = [
            "10", "11", "11.6", "12", "13", "14", "14.1", "14.1.1", "14.1.4", "14.1.7", "15",
            "15.1", "16", "16.3", "17", "18", "19", "20", "20.1", "21", "22", "22.2", "22.2.1",
            "22.2.7", "22.3", "22.4", "23", "23.2", "23.2.1", "24", "24.1", "24.2", "24.2.1", "25",
            "25.1", "26", "27", "28", "28.1", "29", "30", "35", "35.1",
        ];
        let bytes = grown(&command.encode(*at), &more);
        assert_eq!(Command::decode(&bytes), Ok((*at, command.clone())));
        let outcome = replayed.apply(index, &bytes);
        assert_eq!(Outcome::decode(&grown(&outcome.encode(), &["3"])), Ok(outcome));
    }
    assert_eq!(replayed.state_hash(), state.state_hash());
}
