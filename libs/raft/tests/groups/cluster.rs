//! Groups with several voters: leaders come and go, acknowledged entries stay.

use std::collections::BTreeSet;
use std::time::Duration;

use clew_raft::{Error, Group, GroupId, GroupOptions, GroupSpec, ReplicaId, ShardGroup};

use crate::rig::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_entries_survive_the_loss_of_the_leader() {
    let cluster = Cluster::new(3);
    let shards = cluster.open_shards(&GroupOptions::default()).await;
    let mut acked = Vec::new();
    for n in 0..10 {
        acked.push(append(&shards, n).await);
    }
    for round in 0..2 {
        let old = leader(&shards).await;
        let addr = cluster.nodes.iter().find(|node| node.replica == old.replica()).unwrap();
        cluster.network.set_cut(&addr.addr, true);
        let others: Vec<_> =
            shards.iter().filter(|shard| shard.replica() != old.replica()).cloned().collect();
        let new = leader(&others).await;
        assert!(new.leadership().borrow().term > 0);

        // The old leader may not know yet, but it can not prove anything.
        let stale = old.read_index().await;
        let refused = matches!(stale, Err(Error::NoQuorum { .. } | Error::NotLeader { .. }));
        assert!(refused, "{stale:?}");

        let entries = committed_behind(&new, 0).await;
        let found: Vec<_> = entries.iter().map(|entry| entry.log_id).collect();
        assert!(acked.iter().all(|id| found.contains(id)), "{acked:?} in {found:?}");
        for n in 0..5 {
            acked.push(append(&others, 100 * round + n).await);
        }

        cluster.network.set_cut(&addr.addr, false);
        let last = acked.last().unwrap().index;
        until(&mut old.committed(), |index| *index >= last).await;
        let found = committed_behind(&old, 0).await;
        assert!(acked.iter().all(|id| found.iter().any(|entry| entry.log_id == *id)));
    }
    // Every replica has the same log.
    let last = append(&shards, 999).await.index;
    let mut logs = Vec::new();
    for shard in &shards {
        until(&mut shard.committed(), |index| *index >= last).await;
        let mut log = committed_behind(shard, 0).await;
        log.retain(|entry| entry.log_id.index <= last);
        logs.push(log);
    }
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_majority_confirms_nothing_and_refuses_more() {
    let cluster = Cluster::new(3);
    let options = GroupOptions { proposals_max: 2, ..GroupOptions::default() };
    let shards = cluster.open_shards(&options).await;
    let short = Duration::from_millis(50);
    let (old, node) = loop {
        let old = leader(&shards).await;
        let node = cluster.nodes.iter().find(|node| node.replica == old.replica()).unwrap();
        cluster.network.set_cut(&node.addr, true);
        let lost = old.append(payload(0), short).await;
        if lost == Err(Error::Unconfirmed { group: SHARD }) {
            break (old, node);
        }
        // The first election was not over yet.
        assert!(matches!(lost, Err(Error::NotLeader { .. })), "{lost:?}");
        cluster.network.set_cut(&node.addr, false);
    };
    let lost = old.append(payload(1), short).await;
    assert_eq!(lost, Err(Error::Unconfirmed { group: SHARD }));
    // Both places are still taken although the callers have gone.
    assert_eq!(old.append(payload(2), short).await, Err(Error::Overloaded { group: SHARD }));

    let others: Vec<_> =
        shards.iter().filter(|shard| shard.replica() != old.replica()).cloned().collect();
    let kept = append(&others, 7).await;
    cluster.network.set_cut(&node.addr, false);
    until(&mut old.committed(), |index| *index >= kept.index).await;
    let found = data(&committed_behind(&old, 0).await);
    assert_eq!(found, [payload(7)]);
    // The places are free again.
    eventually(async || {
        let again = old.append(payload(3), short).await;
        (again != Err(Error::Overloaded { group: SHARD })).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_learner_joins_after_a_purge_and_becomes_a_voter() {
    let mut cluster = Cluster::new(3);
    let options = GroupOptions::default();
    let mut shards = cluster.open_shards(&options).await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(append(&shards, n).await);
    }
    let watermark = ids[11];
    leader(&shards).await.flushed(watermark, PATIENCE).await.unwrap();
    for shard in &shards {
        assert_eq!(eventually(async || shard.purged()).await, watermark);
        assert_eq!(shard.watermark(), Some(watermark));
    }
    // The members change behind the watermark, so the snapshot's are not the current ones.
    let left = ReplicaId(leader(&shards).await.replica().0 % 3 + 1);
    let mut voters: BTreeSet<_> = (1..=3).map(ReplicaId).filter(|voter| *voter != left).collect();
    leader(&shards).await.set_voters(&voters).await.unwrap();
    shards.retain(|shard| shard.replica() != left);

    cluster.add_node();
    let (node, spec) = cluster.newcomer(SHARD, &options);
    let learner = node.host.open_shard(spec).await.unwrap();
    let lead = leader(&shards).await;
    lead.add_learner(node.replica, node.addr.clone()).await.unwrap();
    assert_eq!(lead.members().learners.keys().copied().collect::<Vec<_>>(), [node.replica]);
    voters.insert(node.replica);
    lead.set_voters(&voters).await.unwrap();
    shards.push(learner.clone());

    let last = append(&shards, 20).await;
    until(&mut learner.committed(), |index| *index >= last.index).await;
    assert_eq!(learner.watermark(), Some(watermark));
    let early = learner.read_committed(0, usize::MAX).await;
    assert_eq!(early, Err(Error::Purged { up_to: watermark }));
    let expected: Vec<_> = (12..=20).map(payload).collect();
    assert_eq!(data(&committed_behind(&learner, watermark.index).await), expected);
    // What a replica says of its members follows what it applies.
    eventually(async || {
        let members = learner.members();
        let now: BTreeSet<_> = members.voters.keys().copied().collect();
        (now == voters && members.learners.is_empty()).then_some(())
    })
    .await;

    // It counts: with one of the others gone, the two that are left are a majority.
    let old = leader(&shards[..2]).await;
    let gone = cluster.nodes.iter().find(|node| node.replica == old.replica()).unwrap();
    cluster.network.set_cut(&gone.addr, true);
    let rest: Vec<_> =
        shards.iter().filter(|shard| shard.replica() != old.replica()).cloned().collect();
    let last = append(&rest, 21).await;
    until(&mut learner.committed(), |index| *index >= last.index).await;
    let expected: Vec<_> = (12..=21).map(payload).collect();
    assert_eq!(data(&committed_behind(&learner, watermark.index).await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_receives_the_state_machine() {
    let mut cluster = Cluster::new(3);
    let group = GroupId::metastore();
    let options = GroupOptions { snapshot_entries: 10, kept_entries: 0, ..GroupOptions::default() };
    let mut groups: Vec<Group<Sum>> = Vec::new();
    for (node, spec) in cluster.nodes.iter().zip(cluster.specs(group, &options)) {
        groups.push(node.host.open(spec, Sum::default()).await.unwrap());
    }
    let mut last = 0;
    for _ in 0..35 {
        let propose = async || leader(&groups).await.propose(number(2), PATIENCE).await.ok();
        last = eventually(propose).await.response;
    }
    eventually(async || leader(&groups).await.purged()).await;

    cluster.add_node();
    let (node, spec) = cluster.newcomer(group, &options);
    let learner = node.host.open(spec, Sum::default()).await.unwrap();
    let add =
        async || leader(&groups).await.add_learner(node.replica, node.addr.clone()).await.ok();
    eventually(add).await;
    let index = eventually(async || leader(&groups).await.read_index().await.ok()).await;
    until(&mut learner.committed(), |applied| *applied >= index).await;
    assert_eq!(learner.with_state(|sum| sum.0), last);
    assert!(learner.purged().is_some());
    eventually(async || leader(&groups).await.remove_learner(node.replica).await.ok()).await;
    let members = leader(&groups).await.members();
    assert_eq!(members.voters.len(), 3);
    assert!(members.learners.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let cluster = Cluster::new(3);
    let shards = cluster.open_shards(&GroupOptions::default()).await;
    append(&shards, 0).await;
    let old = leader(&shards).await;
    let target = shards.iter().find(|shard| shard.replica() != old.replica()).unwrap();
    // Not to one that does not want it.
    target.set_elections(false);
    let refused = old.hand_over(target.replica(), PATIENCE).await;
    assert!(matches!(refused, Err(Error::Members(_))), "{refused:?}");
    target.set_elections(true);
    old.hand_over(target.replica(), PATIENCE).await.unwrap();
    until(&mut target.leadership(), |now| now.is_leader).await;
    let again = old.hand_over(target.replica(), PATIENCE).await;
    assert!(matches!(again, Err(Error::NotLeader { .. })), "{again:?}");
    append(&shards, 1).await;
    assert_eq!(data(&committed_behind(&leader(&shards).await, 0).await).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_takes_longer_than_a_heartbeat_arrives() {
    let cluster = Cluster::new(3);
    let options = GroupOptions::default();
    let shards = cluster.open_shards(&options).await;
    append(&shards, 0).await;
    // Longer than a leader may be silent, too: its followers hear from it meanwhile.
    cluster.network.set_slow(options.heartbeat * 5 + options.election_max);
    let large = bytes::Bytes::from(vec![7; 300_000]);
    eventually(async || leader(&shards).await.append(large.clone(), PATIENCE).await.ok()).await;
    cluster.network.set_slow(Duration::ZERO);
    append(&shards, 1).await;
    let mut log = data(&committed_behind(&leader(&shards).await, 0).await);
    // An attempt whose outcome was not known is repeated.
    log.dedup();
    assert_eq!(log, [payload(0), large, payload(1)]);
}

/// A group of three whose leader is cut off; of the other two one was removed and is back in another
/// process, empty. The other one, and that one.
async fn emptied() -> (Cluster, ShardGroup, ShardGroup) {
    let mut cluster = Cluster::new(3);
    let options = GroupOptions::default();
    let mut shards = cluster.open_shards(&options).await;
    append(&shards, 1).await;
    let old = leader(&shards).await.replica();
    let cut = cluster.nodes.iter().find(|node| node.replica == old).unwrap();
    cluster.network.set_cut(&cut.addr, true);
    shards.retain(|shard| shard.replica() != old);
    let (other, gone) = (shards.remove(0), shards.remove(0));
    gone.shutdown().await;
    let node = cluster.nodes.iter().find(|node| node.replica == gone.replica()).unwrap();
    node.host.remove(SHARD).await.unwrap();
    let spec = GroupSpec { group: SHARD, replica: gone.replica(), bootstrap: None, options };
    let empty = cluster.restart(gone.replica()).host.open_shard(spec).await.unwrap();
    (cluster, other, empty)
}

/// Who votes with an empty log could have acknowledged what the candidate lacks, before its log was removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_came_back_empty_does_not_vote() {
    let (_cluster, candidate, empty) = emptied().await;
    // It asks for votes again and again, and gets none but its own.
    let term = candidate.leadership().borrow().term;
    let seen = until(&mut candidate.leadership(), |now| now.is_leader || now.term > term + 2).await;
    assert!(!seen.is_leader);
    // The other one has not forgotten whom it voted for, and takes nobody at his word for that.
    let kept = *empty.leadership().borrow();
    assert!((1..=term).contains(&kept.term) && kept.leader.is_none(), "{kept:?}, {term}");
    assert!(empty.members().voters.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_taken_back_votes_and_leads() {
    let mut cluster = Cluster::new(3);
    let options = GroupOptions::default();
    let mut shards = cluster.open_shards(&options).await;
    append(&shards, 1).await;
    let all: BTreeSet<_> = (1..=3).map(ReplicaId).collect();
    let old = leader(&shards).await;
    let at = shards.iter().position(|shard| shard.replica() != old.replica()).unwrap();
    let gone = shards.remove(at);
    let without = all.iter().copied().filter(|voter| *voter != gone.replica()).collect();
    old.set_voters(&without).await.unwrap();
    gone.shutdown().await;
    let node = cluster.nodes.iter().find(|node| node.replica == gone.replica()).unwrap();
    node.host.remove(SHARD).await.unwrap();
    let spec = GroupSpec { group: SHARD, replica: gone.replica(), bootstrap: None, options };
    let node = cluster.restart(gone.replica());
    let back = node.host.open_shard(spec).await.unwrap();
    old.add_learner(node.replica, node.addr.clone()).await.unwrap();
    old.set_voters(&all).await.unwrap();

    // With it the one that is left is a majority; and it leads when it is told to.
    let cut = cluster.nodes.iter().find(|node| node.replica == old.replica()).unwrap();
    cluster.network.set_cut(&cut.addr, true);
    shards.retain(|shard| shard.replica() != old.replica());
    shards.push(back.clone());
    let last = append(&shards, 2).await;
    until(&mut back.committed(), |index| *index >= last.index).await;
    let lead = eventually(async || {
        let lead = leader(&shards).await;
        let handed = lead.replica() == back.replica()
            || lead.hand_over(back.replica(), PATIENCE).await.is_ok();
        handed.then_some(lead)
    })
    .await;
    let seen = until(&mut back.leadership(), |now| now.is_leader).await;
    assert!(seen.is_leader, "after {}", lead.replica());
    assert_eq!(data(&committed_behind(&back, 0).await), [payload(1), payload(2)]);
}
