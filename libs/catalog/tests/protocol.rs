//! The flush protocol and the commands of a cluster's first minutes, step by step.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use clew_catalog::*;
use clew_model::{ErrorKind, TenantId, UnixNanos};

const AT: UnixNanos = UnixNanos(1_700_000_000_000_000_000);

fn create(catalog: &MemoryCatalog) {
    let request = CreateCluster { cluster: ClusterId([1; 16]), shard_count: 4 };
    let answer = catalog.propose(request, AT).unwrap().answer;
    assert_eq!(answer, ClusterOutcome::Created);
}

fn register(catalog: &MemoryCatalog, node: &str) -> NodeId {
    let node = NodeId::parse(node).unwrap();
    let request = RegisterNode {
        node: node.clone(),
        addr: "10.0.0.1:9095".to_owned(),
        zone: "eu-1a".to_owned(),
        capacity: 4,
        roles: Roles::INGESTER.with(Roles::QUERIER),
        features: FeatureRange::default(),
    };
    catalog.propose(request, AT).unwrap();
    node
}

#[test]
fn pods_that_come_and_go_under_new_names_do_not_fill_the_catalog() {
    let catalog = MemoryCatalog::new();
    create(&catalog);
    register(&catalog, "ingester-0");
    for n in 0..5_000 {
        let node = NodeId::parse(&format!("querier-{n}")).unwrap();
        let request = RegisterNode {
            node,
            addr: "10.0.0.2:9095".to_owned(),
            zone: String::new(),
            capacity: 1,
            roles: Roles::QUERIER.with(Roles::DISTRIBUTOR),
            features: FeatureRange::default(),
        };
        catalog.propose(request, UnixNanos(AT.0 + n)).unwrap();
    }
    let names: Vec<String> = catalog
        .read(|state| state.topology().nodes.iter().map(|info| info.node.to_string()).collect());
    assert!(names.len() < 1_100, "{} nodes", names.len());
    assert!(names.contains(&"ingester-0".to_owned()), "what keeps data is never forgotten");
    assert!(names.contains(&"querier-4999".to_owned()) && !names.contains(&"querier-0".to_owned()));
}

fn open(catalog: &MemoryCatalog, replaces: Option<u64>, request: u8) -> OpenOutcome {
    let request = OpenShardLog {
        shard: ShardId(2),
        replicas: vec![ReplicaId(1)],
        replaces: replaces.map(Incarnation),
        request: RequestId([request; 16]),
    };
    catalog.propose(request, AT).unwrap().answer
}

/// A catalog with one node, one replica and shard 2 open as incarnation 1.
fn ready() -> MemoryCatalog {
    let catalog = MemoryCatalog::new();
    create(&catalog);
    let node = register(&catalog, "ingester-0");
    let disk = DiskId([5; 16]);
    let replica = catalog.propose(IssueReplicaId { disk, node, holds: None }, AT).unwrap().answer;
    assert_eq!(replica, ReplicaId(1));
    assert_eq!(open(&catalog, None, 1), OpenOutcome::Opened { incarnation: Incarnation(1) });
    catalog
}

fn flush(incarnation: u64, from: u64, through: u64, random: u64) -> CommitFlush {
    let block = TenantBlock {
        tenant: TenantId::single(),
        offset: 0,
        length: 900,
        footer_length: 100,
        min_time: AT,
        max_time: UnixNanos(AT.0 - 1),
        spans: 3,
        traces: 1,
        splits: 0,
        ids: None,
    };
    CommitFlush {
        object: ObjectMeta {
            key: ObjectKey::flush(ShardId(2), Incarnation(incarnation), through, random),
            size: 1_000,
            from,
            through: point(through),
            level: 0,
            created_at: UnixNanos(1),
            data_at: UnixNanos(0),
            revision: 0,
            tenants: vec![block],
        },
    }
}

fn point(index: u64) -> LogPoint {
    LogPoint { term: 3, leader: 1, index }
}

fn commit(catalog: &MemoryCatalog, flush: CommitFlush) -> FlushOutcome {
    catalog.propose(flush, AT).unwrap().answer
}

#[test]
fn nothing_works_before_the_cluster_exists() {
    let catalog = MemoryCatalog::new();
    let refusal = catalog.propose(flush(1, 0, 5, 1), AT).unwrap_err();
    assert_eq!(refusal, Refusal::NoCluster);
    assert_eq!(refusal.kind(), ErrorKind::Unavailable);
    create(&catalog);
    assert_eq!(catalog.read(|s| s.shard_map().newest().unwrap().shards().len()), 4);
    let other = CreateCluster { cluster: ClusterId([2; 16]), shard_count: 9 };
    let answer = catalog.propose(other, AT).unwrap().answer;
    assert_eq!(answer, ClusterOutcome::Different { cluster: ClusterId([1; 16]) });
    assert_eq!(catalog.read(|s| s.shard_map().newest().unwrap().shards().len()), 4);
}

#[test]
fn a_cluster_needs_shards() {
    let catalog = MemoryCatalog::new();
    let request = CreateCluster { cluster: ClusterId([1; 16]), shard_count: 0 };
    let refusal = catalog.propose(request, AT).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Invalid);
    assert_eq!(catalog.read(State::cluster), None);
}

#[test]
fn a_flush_moves_the_watermark_to_its_end() {
    let catalog = ready();
    assert_eq!(commit(&catalog, flush(1, 0, 10, 1)), FlushOutcome::Applied);
    assert_eq!(commit(&catalog, flush(1, 0, 10, 1)), FlushOutcome::AlreadyApplied);
    let watermark = point(10);
    assert_eq!(commit(&catalog, flush(1, 0, 10, 2)), FlushOutcome::Superseded { watermark });
    assert_eq!(commit(&catalog, flush(1, 5, 20, 3)), FlushOutcome::Superseded { watermark });
    assert_eq!(commit(&catalog, flush(1, 11, 20, 3)), FlushOutcome::OutOfOrder { watermark });
    assert_eq!(commit(&catalog, flush(1, 10, 20, 3)), FlushOutcome::Applied);
    catalog.read(|state| {
        assert_eq!(state.shard_log(ShardId(2)).unwrap().watermark, point(20));
        let first = state.objects().next().unwrap();
        assert_eq!(first.created_at, AT, "the catalog's time counts");
        assert_eq!(first.tenants[0].max_time, AT, "a range never ends before it begins");
    });
}

#[test]
fn a_new_incarnation_fences_the_old_one() {
    let catalog = ready();
    assert_eq!(commit(&catalog, flush(1, 0, 10, 1)), FlushOutcome::Applied);
    assert_eq!(open(&catalog, None, 2), OpenOutcome::Conflict { current: Some(Incarnation(1)) });
    assert_eq!(open(&catalog, Some(1), 2), OpenOutcome::Opened { incarnation: Incarnation(2) });
    let again = open(&catalog, Some(1), 2);
    assert_eq!(again, OpenOutcome::AlreadyOpened { incarnation: Incarnation(2) });
    let closed = FlushOutcome::IncarnationClosed { current: Incarnation(2) };
    assert_eq!(commit(&catalog, flush(1, 10, 20, 1)), closed);
    assert_eq!(commit(&catalog, flush(1, 0, 10, 1)), FlushOutcome::AlreadyApplied);
    assert_eq!(commit(&catalog, flush(2, 0, 7, 1)), FlushOutcome::Applied);
    assert_eq!(commit(&catalog, flush(3, 0, 7, 1)), FlushOutcome::UnknownShard);
    let view = catalog.read(|state| state.view(&[TenantId::single()]));
    assert_eq!(view.blocks(&TenantId::single()).count(), 2);
    assert_eq!(view.shards[&ShardId(2)].watermark, point(7));
}

#[test]
fn logs_open_only_on_issued_replicas_of_known_shards() {
    let catalog = ready();
    let request = |shard, replicas: &[u64]| OpenShardLog {
        shard: ShardId(shard),
        replicas: replicas.iter().copied().map(ReplicaId).collect(),
        replaces: None,
        request: RequestId([9; 16]),
    };
    let answer = catalog.propose(request(4, &[1]), AT).unwrap().answer;
    assert_eq!(answer, OpenOutcome::UnknownShard);
    let refused = |replicas| catalog.propose(request(0, replicas), AT).unwrap_err();
    assert_eq!(refused(&[1, 2]), Refusal::UnknownReplica { replica: ReplicaId(2) });
    assert_eq!(refused(&[]).kind(), ErrorKind::Invalid);
    assert_eq!(refused(&[1, 1]).kind(), ErrorKind::Invalid);
}

#[test]
fn a_replica_id_stays_with_its_disk() {
    let catalog = ready();
    let other = register(&catalog, "ingester-1");
    let issue = |disk, node| {
        catalog.propose(IssueReplicaId { disk, node, holds: None }, AT).unwrap().answer
    };
    assert_eq!(issue(DiskId([5; 16]), other.clone()), ReplicaId(1));
    assert_eq!(issue(DiskId([6; 16]), other.clone()), ReplicaId(2));
    let members = catalog.read(State::members);
    assert_eq!(members.node_of(ReplicaId(1)).unwrap().node, other);
    let node = NodeId::parse("nobody").unwrap();
    let refusal = catalog
        .propose(IssueReplicaId { disk: DiskId([7; 16]), node, holds: None }, AT)
        .unwrap_err();
    assert_eq!(refusal, Refusal::UnknownNode);
}

#[test]
fn a_damaged_block_is_listed_and_left_out() {
    let catalog = ready();
    commit(&catalog, flush(1, 0, 10, 1));
    let tenant = TenantId::single();
    let object = ObjectKey::flush(ShardId(2), Incarnation(1), 10, 1);
    let request =
        |object| QuarantineBlock { object, tenant: TenantId::single(), reason: "é".repeat(600) };
    let answer = catalog.propose(request(object), AT).unwrap().answer;
    assert_eq!(answer, QuarantineOutcome::Quarantined);
    let answer = catalog.propose(request(object), AT).unwrap().answer;
    assert_eq!(answer, QuarantineOutcome::AlreadyQuarantined);
    let unknown = ObjectKey::flush(ShardId(2), Incarnation(1), 11, 1);
    let answer = catalog.propose(request(unknown), AT).unwrap().answer;
    assert_eq!(answer, QuarantineOutcome::UnknownBlock);
    let view = catalog.read(|state| state.view(std::slice::from_ref(&tenant)));
    assert_eq!(view.blocks(&tenant).count(), 0);
    let damaged: Vec<_> = view.quarantined(&tenant).collect();
    assert_eq!(damaged.len(), 1);
    assert_eq!(damaged[0].reason, "é".repeat(256));
    assert_eq!(view.shards[&ShardId(2)].watermark, point(10));
}

#[test]
fn a_lifted_quarantine_is_forgotten_by_the_catalog_and_its_readers() {
    let catalog = ready();
    commit(&catalog, flush(1, 0, 10, 1));
    let tenant = TenantId::single();
    let object = ObjectKey::flush(ShardId(2), Incarnation(1), 10, 1);
    let quarantine =
        || QuarantineBlock { object, tenant: TenantId::single(), reason: "checksum".to_owned() };
    let lift = || LiftQuarantine { object, tenant: TenantId::single() };
    catalog.propose(quarantine(), AT).unwrap();
    let mut reader = catalog.read(|state| state.view(&[]));
    let refused = catalog.propose(lift(), AT).unwrap_err();
    assert!(matches!(refused, Refusal::NotYet { .. }), "older releases would misread it");
    catalog.propose(RaiseFeatureLevel { to: FeatureLevel::QUARANTINES_MOVE }, AT).unwrap();
    let listed: Vec<_> = catalog.read(|state| {
        let listed = state.quarantined();
        listed.map(|(q, object)| (q.reason.clone(), object.key)).collect()
    });
    assert_eq!(listed, [("checksum".to_owned(), object)]);
    assert_eq!(catalog.propose(lift(), AT).unwrap().answer, LiftOutcome::Lifted);
    assert_eq!(catalog.propose(lift(), AT).unwrap().answer, LiftOutcome::NotQuarantined);
    assert_eq!(catalog.read(|state| state.quarantined().count()), 0);
    let (revision, changes) =
        catalog.read(|state| (state.revision(), state.changes_since(reader.revision).unwrap()));
    let sent = decode_changes(&encode_changes(&changes)).unwrap();
    assert_eq!(sent, changes);
    reader.advance(revision, &sent);
    assert_eq!(reader, catalog.read(|state| state.view(&[])));
    assert_eq!(reader.blocks(&tenant).map(|(object, _)| object.key).collect::<Vec<_>>(), [object]);
    // Damaged again, it is quarantined again.
    let answer = catalog.propose(quarantine(), AT).unwrap().answer;
    assert_eq!(answer, QuarantineOutcome::Quarantined);
}

#[test]
fn flushes_list_exactly_what_covers_a_difference() {
    let catalog = ready();
    for (from, through) in [(0, 10), (10, 15), (15, 40)] {
        commit(&catalog, flush(1, from, through, 7));
    }
    let flushes = |after, through| {
        catalog.read(|state| {
            let objects = state.flushes(ShardId(2), Incarnation(1), after, through)?;
            Some(objects.iter().map(|object| object.through.index).collect::<Vec<_>>())
        })
    };
    assert_eq!(flushes(10, 40), Some(vec![15, 40]));
    assert_eq!(flushes(0, 15), Some(vec![10, 15]));
    assert_eq!(flushes(15, 15), Some(vec![]));
    assert_eq!(flushes(12, 40), None);
    assert_eq!(flushes(10, 39), None);
    assert_eq!(flushes(40, 50), None);
    assert_eq!(flushes(40, 10), None);
    assert_eq!(flushes(u64::MAX, 0), None);
}

#[test]
fn an_orphan_is_dead_only_when_it_can_never_be_registered() {
    let catalog = ready();
    commit(&catalog, flush(1, 0, 10, 1));
    let liveness = |shard, incarnation, through, random| {
        let key = ObjectKey::flush(ShardId(shard), Incarnation(incarnation), through, random);
        catalog.read(|state| state.liveness(&key))
    };
    assert_eq!(liveness(2, 1, 10, 1), Liveness::Registered);
    assert_eq!(liveness(2, 1, 10, 2), Liveness::Dead);
    assert_eq!(liveness(2, 1, 11, 2), Liveness::MayRegister);
    assert_eq!(liveness(2, 2, 1, 2), Liveness::MayRegister, "issued after this state");
    assert_eq!(liveness(3, 1, 11, 2), Liveness::Dead, "issued to another shard");
    open(&catalog, Some(1), 2);
    assert_eq!(liveness(2, 1, 11, 2), Liveness::Dead);
    assert_eq!(liveness(2, 1, 10, 1), Liveness::Registered);
}

#[test]
fn readers_that_fell_too_far_behind_are_told_to_look_again() {
    let catalog = ready();
    let revision = catalog.read(State::revision);
    assert_eq!(catalog.read(|state| state.changes_since(revision)), Some(vec![]));
    assert_eq!(catalog.read(|state| state.changes_since(revision + 1)), None);
    assert_eq!(catalog.read(|state| state.changes_since(0)), None, "the cluster was created");
    let restored = State::decode(&catalog.read(State::encode)).unwrap();
    assert_eq!(restored.changes_since(revision), Some(vec![]));
    assert_eq!(restored.changes_since(revision - 1), None);
}

#[test]
fn an_object_takes_little_room() {
    let catalog = ready();
    let empty = catalog.read(State::encode).len();
    let count = 1_000;
    for at in 0..count {
        let mut flush = flush(1, at * 500, (at + 1) * 500, u64::MAX - at);
        flush.object.size = 60 << 20;
        flush.object.tenants[0].length = 50 << 20;
        flush.object.tenants[0].spans = 250_000;
        flush.object.tenants[0].traces = 12_500;
        assert_eq!(commit(&catalog, flush), FlushOutcome::Applied);
    }
    let each = (catalog.read(State::encode).len() - empty) / usize::try_from(count).unwrap();
    assert!(each <= 256, "{each} bytes an object");
}
