//! What only the inside can provoke or count: a failing disk, shared confirmations.

use super::*;
use crate::{LogOptions, NoPeers};

const GROUP: GroupId = GroupId::shard(1, 1);
const PATIENCE: Duration = Duration::from_secs(60);

fn spec(group: GroupId) -> GroupSpec {
    let replica = ReplicaId(1);
    let bootstrap = Some(BTreeMap::from([(replica, NodeAddr::default())]));
    GroupSpec { group, replica, bootstrap, options: GroupOptions::default() }
}

fn host(path: &std::path::Path) -> Host {
    let deps = Deps::system(1);
    let store = LogStore::open(path, &LogOptions::default(), &deps).unwrap();
    Host::new(store, Arc::new(NoPeers), deps)
}

#[tokio::test]
async fn a_failed_write_stops_every_group() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    let shard = host.open_shard(spec(GROUP)).await.unwrap();
    let other = host.open_shard(spec(GroupId::shard(2, 1))).await.unwrap();
    let acked = shard.append(Bytes::from_static(b"kept"), PATIENCE).await.unwrap();
    other.append(Bytes::from_static(b"kept"), PATIENCE).await.unwrap();

    let mut failed = host.store().failed();
    host.store().fail_next_write();
    let lost = shard.append(Bytes::from_static(b"lost"), PATIENCE).await;
    assert!(lost.as_ref().is_err_and(|error| error.kind().is_retryable()), "{lost:?}");
    assert!(failed.wait_for(Option::is_some).await.is_ok());
    shard.leadership().wait_for(|now| now.leader.is_none()).await.unwrap();

    for shard in [&shard, &other] {
        let lost = shard.append(Bytes::from_static(b"later"), PATIENCE).await;
        assert!(matches!(lost, Err(Error::Stopped { .. })), "{lost:?}");
    }
    // What is committed can still be read, and nothing else is.
    let entries = shard.read_committed(0, usize::MAX).await.unwrap();
    let data: Vec<_> = entries.iter().filter(|entry| entry.data.is_some()).collect();
    assert_eq!(data.iter().map(|entry| entry.log_id).collect::<Vec<_>>(), [acked]);
}

#[tokio::test]
async fn concurrent_reads_share_a_confirmation() {
    let dir = tempfile::tempdir().unwrap();
    let shard = host(dir.path()).open_shard(spec(GROUP)).await.unwrap();
    let acked = shard.append(Bytes::from_static(b"kept"), PATIENCE).await.unwrap();
    let before = shard.member().rounds_begun();
    let reads = futures::future::join_all((0..100).map(|_| shard.read_index())).await;
    assert!(reads.into_iter().all(|read| read.unwrap() >= acked.index));
    // The first began at once; it began before the others arrived, who share the next.
    assert_eq!(shard.member().rounds_begun() - before, 2);
    shard.read_index().await.unwrap();
    assert_eq!(shard.member().rounds_begun() - before, 3);
}
