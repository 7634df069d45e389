//! What only the inside can provoke or count: a failing disk, shared confirmations.

use super::*;
use crate::codec;
use crate::store::keys;
use crate::store::{Op, Sync};
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

#[tokio::test]
async fn a_replica_that_is_back_does_not_lead_alone_before_it_has_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    let shard = host.open_shard(spec(GROUP)).await.unwrap();
    shard.append(Bytes::from_static(b"kept"), PATIENCE).await.unwrap();
    let entries = shard.member().log.entries(0, u64::MAX, None).await.unwrap();
    shard.shutdown().await;
    host.remove(GROUP).await.unwrap();
    let empty = host.open_shard(spec(GROUP)).await.unwrap();
    assert!(empty.members().voters.is_empty(), "a group is not begun again");
    empty.shutdown().await;

    // As a leader sends it: first the members of long ago, then the rest.
    let ops: Vec<Op> = entries
        .iter()
        .map(|entry| Op::Put {
            family: keys::LOG,
            key: keys::entry(GROUP, entry.log_id.index),
            value: codec::frame(&codec::entry_to_msg(entry)),
        })
        .collect();
    host.store().write(ops[..1].to_vec(), Sync::Yes).await.unwrap();
    let partial = host.open_shard(spec(GROUP)).await.unwrap();
    assert_eq!(partial.members().voters.len(), 1);
    assert_eq!(partial.elect().await, Err(Error::LogMissing(GROUP)));
    let read = partial.read_index().await;
    assert!(matches!(read, Err(Error::NotLeader { .. })), "{read:?}");
    partial.shutdown().await;

    host.store().write(ops[1..].to_vec(), Sync::Yes).await.unwrap();
    let whole = host.open_shard(spec(GROUP)).await.unwrap();
    whole.leadership().wait_for(|now| now.is_leader).await.unwrap();
    whole.read_index().await.unwrap();
    let found = whole.read_committed(0, usize::MAX).await.unwrap();
    assert_eq!(
        found.iter().filter_map(|entry| entry.data.as_deref()).collect::<Vec<_>>(),
        [b"kept"]
    );
}

/// A state machine that is the bytes of its commands.
#[derive(Default)]
struct Text(Vec<u8>);

impl StateMachine for Text {
    type Response = ();

    fn apply(&mut self, _: crate::LogId, command: Bytes) {
        self.0.extend_from_slice(&command);
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Error> {
        self.0 = snapshot.to_vec();
        Ok(())
    }
}

fn planted(replica: ReplicaId) -> GroupSpec {
    let options = GroupOptions::default();
    GroupSpec { group: GroupId::metastore(), replica, bootstrap: None, options }
}

#[tokio::test]
async fn a_planted_group_goes_on_behind_its_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let host_of_old = host(dir.path());
    let old = spec(GroupId::metastore());
    let group = host_of_old.open(old, Text::default()).await.unwrap();
    group.propose(Bytes::from_static(b"old"), PATIENCE).await.unwrap();
    host_of_old.shutdown().await;

    let (index, addr) = (1 << 33, NodeAddr("here".to_owned()));
    let replica = ReplicaId(7);
    let store = host_of_old.store();
    store.plant(GroupId::metastore(), replica, addr.clone(), index, b"known, ").await.unwrap();
    assert_eq!(store.groups_on_disk().unwrap(), [(GroupId::metastore(), replica)]);
    let held = host_of_old.open(planted(ReplicaId(1)), Text::default()).await;
    assert!(matches!(held, Err(Error::WrongReplica { .. })));

    let group = host_of_old.open(planted(replica), Text::default()).await.unwrap();
    assert_eq!(group.members().voters, BTreeMap::from([(replica, addr)]));
    group.leadership().wait_for(|state| state.is_leader).await.unwrap();
    let proposed = group.propose(Bytes::from_static(b"new"), PATIENCE).await.unwrap();
    assert!(proposed.log_id.index > index);
    assert!(group.read_index().await.unwrap() >= proposed.log_id.index);
    assert_eq!(group.with_state(|text| text.0.clone()), b"known, new");
    assert_eq!(group.unapplied().await.unwrap(), []);
    host_of_old.shutdown().await;
    drop(group);
    host_of_old.store().close();

    let host = host(dir.path());
    let group = host.open(planted(replica), Text::default()).await.unwrap();
    group.leadership().wait_for(|state| state.is_leader).await.unwrap();
    group.read_index().await.unwrap();
    assert_eq!(group.with_state(|text| text.0.clone()), b"known, new");
    let beyond = host.store();
    host.shutdown().await;
    let refused = beyond.plant(GROUP, replica, NodeAddr::default(), u64::MAX, b"").await;
    assert!(matches!(refused, Err(Error::Invalid(_))));
}
