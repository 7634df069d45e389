//! The store keeps what it has synced, in order, and stops for good at the first failure.

use openraft::{CommittedLeaderId, StoredMembership};
use proptest::prelude::*;

use super::*;
use crate::codec;
use crate::types::{RaftLogId, RaftVote, SnapshotMeta};

fn open(path: &Path) -> Arc<LogStore> {
    LogStore::open(path, &LogOptions::default(), &Deps::system(1)).unwrap()
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: Some(RaftLogId::new(CommittedLeaderId::new(1, 1), index)),
        last_membership: StoredMembership::default(),
        snapshot_id: format!("s{index}"),
    }
}

#[tokio::test]
async fn groups_are_found_again_and_keep_their_replica() {
    let dir = tempfile::tempdir().unwrap();
    let groups = [GroupId::metastore(), GroupId::shard(0, 7), GroupId::shard(3, 1)];
    let store = open(dir.path());
    for (group, replica) in groups.into_iter().zip(10..) {
        store.claim(group, ReplicaId(replica)).await.unwrap();
    }
    store.close();
    assert_eq!(store.groups_on_disk(), Err(Error::Closed));

    let store = open(dir.path());
    let found: Vec<_> = groups.into_iter().zip((10..).map(ReplicaId)).collect();
    assert_eq!(store.groups_on_disk().unwrap(), found);
    store.claim(groups[1], ReplicaId(11)).await.unwrap();
    let other = store.claim(groups[1], ReplicaId(99)).await;
    assert!(matches!(other, Err(Error::WrongReplica { found: ReplicaId(11), .. })), "{other:?}");

    store.remove(groups[1]).await.unwrap();
    assert_eq!(store.groups_on_disk().unwrap(), [found[0], found[2]]);
    store.claim(groups[1], ReplicaId(99)).await.unwrap();
}

#[tokio::test]
async fn a_removed_replica_keeps_its_vote_and_knows_how_far_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (group, mine) = (GroupId::shard(7, 1), ReplicaId(3));
    let last = RaftLogId::new(CommittedLeaderId::new(4, 2), 17);
    let ends = |term, index| {
        let id = RaftLogId::new(CommittedLeaderId::new(term, 2), index);
        let marker = codec::frame(&codec::log_id_to_msg(id));
        Op::put_record(group, Record::Purged, marker)
    };
    let vote = codec::frame(&codec::vote_to_msg(&RaftVote::new_committed(5, 3)));
    store.remove(group).await.unwrap();
    assert_eq!(store.removed(group).unwrap(), None, "there was none");

    store.claim(group, mine).await.unwrap();
    let wrote = vec![ends(4, 17), Op::put_record(group, Record::Vote, vote)];
    store.write(wrote, Sync::Yes).await.unwrap();
    let removed = Some(Removed { replica: mine, last: Some(last) });
    for _ in 0..2 {
        store.remove(group).await.unwrap();
        assert_eq!(store.groups_on_disk().unwrap(), []);
        assert_eq!(store.removed(group).unwrap(), removed);
        assert_eq!(store.vote(group).unwrap(), Some(RaftVote::new(5, 3)));
        assert_eq!(store.record(group, Record::Purged).unwrap(), None);
        // What comes late is not taken for its log when it is taken back.
        store.write(vec![ends(9, 99)], Sync::Yes).await.unwrap();
        store.claim(group, mine).await.unwrap();
        assert_eq!(store.record(group, Record::Purged).unwrap(), None);
        assert_eq!(store.vote(group).unwrap(), Some(RaftVote::new(5, 3)));
        // Removed again before it had its log.
        store.write(vec![ends(3, 90)], Sync::Yes).await.unwrap();
    }
    store.write(vec![ends(6, 2)], Sync::Yes).await.unwrap();
    store.remove(group).await.unwrap();
    let later = RaftLogId::new(CommittedLeaderId::new(6, 2), 2);
    assert_eq!(store.removed(group).unwrap(), Some(Removed { replica: mine, last: Some(later) }));

    // Another replica has promised nothing.
    store.claim(group, ReplicaId(4)).await.unwrap();
    assert_eq!(store.removed(group).unwrap(), None);
    assert_eq!(store.vote(group).unwrap(), None);
}

#[tokio::test]
async fn the_first_failure_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let group = GroupId::shard(1, 1);
    let op = |value: u8| vec![Op::put_record(group, Record::Vote, vec![value])];
    store.write(op(1), Sync::Yes).await.unwrap();
    assert_eq!(*store.failed().borrow(), None);

    store.fail_next_write();
    let failed = store.write(op(2), Sync::Yes).await;
    assert!(matches!(failed, Err(Error::StoreFailed(_))), "{failed:?}");
    assert!(store.failed().borrow().as_ref().unwrap().contains("injected failure"));
    for _ in 0..3 {
        let later = store.write(op(3), Sync::Yes).await;
        assert!(matches!(later, Err(Error::StoreFailed(_))), "{later:?}");
        assert!(matches!(store.write_later(op(4)), Err(Error::StoreFailed(_))));
    }
    assert_eq!(store.record(group, Record::Vote).unwrap().unwrap(), vec![1]);
}

#[tokio::test]
async fn waiting_writes_of_all_groups_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let deps = Deps::system(1);
    let store = LogStore::open(dir.path(), &LogOptions::default(), &deps).unwrap();
    // The writer can not begin while the database is locked, so everything waits for it.
    let held = store.inner.disk.write();
    let mut written = Vec::new();
    for shard in 0..20 {
        let (done, result) = oneshot::channel();
        let ops = vec![Op::put_record(GroupId::shard(shard, 1), Record::Vote, vec![1])];
        store.submit(Job { ops, sync: Sync::Yes, done: Some(done) }).unwrap();
        written.push(result);
    }
    drop(held);
    for result in written {
        result.await.unwrap().unwrap();
    }
    store.close();
    let text = deps.metrics.render().unwrap();
    assert!(text.contains("clew_raft_log_writes_total 20"), "{text}");
    // The first may have been taken alone before the others were queued.
    let syncs = ["clew_raft_log_sync_seconds_count 1\n", "clew_raft_log_sync_seconds_count 2\n"];
    assert!(syncs.iter().any(|syncs| text.contains(syncs)), "{text}");
}

#[tokio::test]
async fn a_damaged_snapshot_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let group = GroupId::metastore();
    store.save_snapshot(group, &meta(5), &[7; 3000]).await.unwrap();
    let key = keys::chunk(group, 1, 0);
    let put = |value: Vec<u8>| Op::Put { family: keys::SNAPSHOT, key: key.clone(), value };
    store.write(vec![put(vec![8; 3000])], Sync::Yes).await.unwrap();
    assert!(matches!(store.load_snapshot(group), Err(Error::Corrupt { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Whatever was saved before, the last snapshot is read, and only its own group's.
    #[test]
    fn the_last_snapshot_is_read(sizes in prop::collection::vec(0usize..5_000_000, 1..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = open(dir.path());
            let (group, other) = (GroupId::metastore(), GroupId::shard(0, 1));
            store.save_snapshot(other, &meta(77), b"other").await.unwrap();
            for (size, index) in sizes.into_iter().zip(1..) {
                let bytes: Vec<u8> = (0..size).map(|at| u8::try_from((at * 31 + size) % 251).unwrap()).collect();
                store.save_snapshot(group, &meta(index), &bytes).await.unwrap();
                assert_eq!(store.load_snapshot(group).unwrap(), Some((meta(index), bytes)));
            }
            assert_eq!(store.load_snapshot(other).unwrap().unwrap().1, b"other");
        });
    }
}
