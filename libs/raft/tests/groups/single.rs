//! A group with one voter: what it acknowledged is there after a crash, and nothing else changes.

use std::time::Duration;

use clew_raft::{Error, GroupId, GroupOptions, GroupSpec, LogId, ReplicaId};

use crate::rig::*;

#[tokio::test]
async fn a_state_machine_is_back_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = lone_spec(GroupId::metastore());
    // Both a snapshot and a log behind it.
    spec.options = GroupOptions { snapshot_entries: 20, kept_entries: 5, ..spec.options };
    let host = lone_host(dir.path());
    let group = host.open(spec.clone(), Sum::default()).await.unwrap();
    let mut sum = 0;
    for n in 1..=70 {
        sum += n;
        let proposed = group.propose(number(n), PATIENCE).await.unwrap();
        assert_eq!(proposed.response, sum);
        if n % 14 == 0 {
            let image = crash_image(dir.path());
            let host = lone_host(image.path());
            let group = host.open(spec.clone(), Sum::default()).await.unwrap();
            until(&mut group.leadership(), |now| now.is_leader).await;
            assert!(group.read_index().await.unwrap() >= proposed.log_id.index);
            assert_eq!(group.with_state(|state| state.0), sum, "after {n}");
            let next = group.propose(number(1000), PATIENCE).await.unwrap();
            assert_eq!(next.response, sum + 1000);
            assert!(next.log_id > proposed.log_id);
            host.shutdown().await;
        }
    }
    // The log was purged behind snapshots meanwhile.
    let purged = eventually(async || group.purged()).await;
    assert!(purged.index >= 14, "{purged}");
}

#[tokio::test]
async fn a_shard_is_back_after_a_crash_and_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let host = lone_host(dir.path());
    let shard = host.open_shard(lone_spec(SHARD)).await.unwrap();
    let mut acked = Vec::new();
    for n in 0..20 {
        acked.push((shard.append(payload(n), PATIENCE).await.unwrap(), payload(n)));
    }
    let image = crash_image(dir.path());
    host.shutdown().await;
    host.store().close();

    for path in [image.path(), dir.path()] {
        let host = lone_host(path);
        let shard = host.open_shard(lone_spec(SHARD)).await.unwrap();
        let index = shard.read_index().await.unwrap();
        assert!(index >= acked.last().unwrap().0.index);
        let entries = committed_behind(&shard, 0).await;
        let found: Vec<_> =
            entries.into_iter().filter_map(|entry| Some((entry.log_id, entry.data?))).collect();
        assert_eq!(found, acked);
    }
}

#[tokio::test]
async fn flushed_purges_exactly_to_the_watermark() {
    let dir = tempfile::tempdir().unwrap();
    let host = lone_host(dir.path());
    let shard = host.open_shard(lone_spec(SHARD)).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(shard.append(payload(n), PATIENCE).await.unwrap());
    }
    assert_eq!((shard.watermark(), shard.purged()), (None, None));
    for upto in [4, 5, 17] {
        let watermark = shard.flushed(ids[upto], PATIENCE).await.unwrap();
        assert_eq!(watermark, ids[upto]);
        assert_eq!(shard.watermark(), Some(ids[upto]));
        let purged =
            eventually(async || shard.purged().filter(|purged| *purged >= ids[upto])).await;
        assert_eq!(purged, ids[upto]);
        check_purged(&shard, &ids, upto).await;
    }
    // At or below the watermark it is a no-op.
    assert_eq!(shard.flushed(ids[3], PATIENCE).await.unwrap(), ids[17]);

    let image = crash_image(dir.path());
    let host = lone_host(image.path());
    let shard = host.open_shard(lone_spec(SHARD)).await.unwrap();
    shard.read_index().await.unwrap();
    assert_eq!(shard.watermark(), Some(ids[17]));
    assert_eq!(shard.purged(), Some(ids[17]));
    check_purged(&shard, &ids, 17).await;
    ids.push(shard.append(payload(30), PATIENCE).await.unwrap());
    check_purged(&shard, &ids, 17).await;
}

async fn check_purged(shard: &clew_raft::ShardGroup, ids: &[LogId], upto: usize) {
    let behind = shard.read_committed(ids[upto].index - 1, usize::MAX).await;
    assert_eq!(behind, Err(Error::Purged { up_to: ids[upto] }));
    let start = shard.read_committed(0, usize::MAX).await;
    assert_eq!(start, Err(Error::Purged { up_to: ids[upto] }));
    let rest = data(&committed_behind(shard, ids[upto].index).await);
    let expected: Vec<_> = (upto as u64 + 1..ids.len() as u64).map(payload).collect();
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn a_purge_that_a_crash_has_cut_short_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let host = lone_host(dir.path());
    let shard = host.open_shard(lone_spec(SHARD)).await.unwrap();
    for n in 0..10 {
        shard.append(payload(n), PATIENCE).await.unwrap();
    }
    let upto = shard.append(payload(10), PATIENCE).await.unwrap();
    // Copies taken around the flush: with the command, with the watermark, with the purge.
    let mut images = vec![crash_image(dir.path())];
    shard.flushed(upto, PATIENCE).await.unwrap();
    images.push(crash_image(dir.path()));
    eventually(async || shard.purged()).await;
    images.push(crash_image(dir.path()));
    for (image, flushed) in images.iter().zip([false, true, true]) {
        let host = lone_host(image.path());
        let shard = host.open_shard(lone_spec(SHARD)).await.unwrap();
        shard.read_index().await.unwrap();
        assert_eq!(shard.watermark(), flushed.then_some(upto));
        if flushed {
            assert_eq!(eventually(async || shard.purged()).await, upto);
        } else {
            assert_eq!(data(&committed_behind(&shard, 0).await).len(), 11);
        }
    }
}

#[tokio::test]
async fn a_flush_of_what_is_not_in_the_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let shard = lone_host(dir.path()).open_shard(lone_spec(SHARD)).await.unwrap();
    let id = shard.append(payload(0), PATIENCE).await.unwrap();
    let wrong = [
        LogId { index: id.index + 50, ..id },
        LogId { term: id.term + 1, ..id },
        LogId { replica: ReplicaId(9), ..id },
    ];
    for wrong in wrong {
        let refused = shard.flushed(wrong, PATIENCE).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert_eq!(shard.watermark(), None);
    assert_eq!(data(&committed_behind(&shard, 0).await).len(), 1);
}

#[tokio::test]
async fn groups_of_a_process_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let host = lone_host(dir.path());
    let groups = [SHARD, GroupId::shard(1, 2), GroupId::shard(2, 1)];
    let mut shards = Vec::new();
    for group in groups {
        shards.push(host.open_shard(lone_spec(group)).await.unwrap());
    }
    let metastore = host.open(lone_spec(GroupId::metastore()), Sum::default()).await.unwrap();
    let appends = (0..60u64)
        .zip(shards.iter().cycle())
        .map(|(n, shard)| async move { shard.append(payload(n), PATIENCE).await.unwrap() });
    let (ids, sum) =
        futures::join!(futures::future::join_all(appends), metastore.propose(number(5), PATIENCE));
    assert_eq!(sum.unwrap().response, 5);
    for (at, shard) in shards.iter().enumerate() {
        let mut expected: Vec<_> =
            (0..60u64).zip(&ids).filter(|(n, _)| n % 3 == at as u64).collect();
        expected.sort_by_key(|(_, id)| *id);
        let expected: Vec<_> = expected.into_iter().map(|(n, _)| payload(n)).collect();
        assert_eq!(data(&committed_behind(shard, 0).await), expected);
    }

    let on_disk: Vec<_> = host.store().groups_on_disk().unwrap();
    assert_eq!(on_disk.len(), 4);
    let open = host.remove(SHARD).await;
    assert_eq!(open, Err(Error::AlreadyOpen(SHARD)));
    shards[0].shutdown().await;
    host.remove(SHARD).await.unwrap();
    assert_eq!(host.store().groups_on_disk().unwrap().len(), 3);
    assert_eq!(data(&committed_behind(&shards[1], 0).await).len(), 20);
    // It waits to be taken back; a group that was begun is not begun again by one of its members.
    let again = host.open_shard(lone_spec(SHARD)).await.unwrap();
    assert!(matches!(again.read_index().await, Err(Error::NotLeader { .. })));
    assert!(again.members().voters.is_empty());
}

#[tokio::test]
async fn a_replica_is_opened_once_and_on_its_own_disk() {
    let dir = tempfile::tempdir().unwrap();
    let host = lone_host(dir.path());
    let spec = lone_spec(SHARD);
    let not_me = GroupSpec { replica: ReplicaId(2), ..spec.clone() };
    assert!(matches!(host.open_shard(not_me).await, Err(Error::Invalid(_))));
    let shard = host.open_shard(spec.clone()).await.unwrap();
    assert_eq!(host.open_shard(spec.clone()).await.err(), Some(Error::AlreadyOpen(SHARD)));
    shard.shutdown().await;
    let stopped = shard.append(payload(1), PATIENCE).await;
    assert!(matches!(stopped, Err(Error::Stopped { .. })), "{stopped:?}");
    until(&mut shard.leadership(), |now| now.leader.is_none()).await;

    let other = GroupSpec { replica: ReplicaId(2), bootstrap: None, ..spec.clone() };
    let other = host.open_shard(other).await.err();
    assert!(matches!(other, Some(Error::WrongReplica { found: ReplicaId(1), .. })), "{other:?}");
    host.open_shard(spec).await.unwrap().read_index().await.unwrap();
    let unknown = host.handle(GroupId::metastore(), payload(0)).await;
    assert_eq!(unknown, Err(Error::NotOpen(GroupId::metastore())));
    let noise = host.handle(SHARD, payload(0)).await;
    assert!(matches!(noise, Err(Error::Corrupt { .. })), "{noise:?}");
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = lone_spec(SHARD);
    spec.options.payload_bytes_max = 1000;
    let shard = lone_host(dir.path()).open_shard(spec).await.unwrap();
    shard.append(vec![0; 1000].into(), PATIENCE).await.unwrap();
    let large = shard.append(vec![0; 1001].into(), PATIENCE).await;
    assert_eq!(large, Err(Error::TooLarge { bytes: 1001, bytes_max: 1000 }));
}

#[tokio::test]
async fn a_replica_that_nobody_added_has_no_leader() {
    let dir = tempfile::tempdir().unwrap();
    let spec = GroupSpec { bootstrap: None, ..lone_spec(SHARD) };
    let shard = lone_host(dir.path()).open_shard(spec).await.unwrap();
    let failed = shard.append(payload(0), Duration::from_secs(1)).await;
    assert_eq!(failed, Err(Error::NotLeader { group: SHARD, leader: None }));
    assert!(matches!(shard.read_index().await, Err(Error::NotLeader { .. })));
}

#[tokio::test]
async fn purged_payloads_leave_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let shard = lone_host(dir.path()).open_shard(lone_spec(SHARD)).await.unwrap();
    let mut random = 1u64;
    for n in 0..192 {
        let noise = std::iter::repeat_with(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()
        });
        let mebibyte: Vec<u8> = noise.take(1 << 17).flatten().collect();
        let id = shard.append(mebibyte.into(), PATIENCE).await.unwrap();
        if n % 8 == 7 {
            shard.flushed(id, PATIENCE).await.unwrap();
        }
    }
    let on_disk = || {
        let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap());
        files.filter_map(|file| Some(file.metadata().ok()?.len())).sum::<u64>() >> 20
    };
    // What is left is the write-ahead log and what compactions have not come to yet.
    eventually(async || (on_disk() < 128).then_some(())).await;
}
