//! Harm at the right moment: faults that find a defect only together and in order, which chance alone
//! would bring about once in thousands of runs. Each stays within what the promises allow.

use std::collections::BTreeSet;
use std::time::Duration;

use clew_catalog::{ReplicaId, State};
use clew_ring::ShardId;

use crate::chaos::Chaos;
use crate::node::{Node, Role};

/// How often it is looked whether the moment has come.
const LOOK: Duration = Duration::from_millis(100);

/// How often at most.
const LOOKS_MAX: usize = 150;

/// Longer than an election and what the cluster needs to hear of it.
const ELECTED: (u64, u64) = (2_500, 5_000);

/// The nodes that hold a shard, the one that leads first.
struct Holders {
    shard: ShardId,
    leader: Node,
    others: Vec<Node>,
}

impl Chaos {
    /// One such fault.
    pub(crate) async fn aim(&self) {
        match self.rng.below(7) {
            0 => self.wake_an_old_leader().await,
            1 => self.lose_the_disk_of_a_majority().await,
            2 => self.lag_while_members_change().await,
            3 => self.stop_at_an_upload().await,
            4 => self.stop_a_compaction().await,
            5 => self.cut_a_leader_from_its_peers().await,
            _ => self.fill_the_heads().await,
        }
    }

    /// The holders of some shard, if all of them are well and it is known who leads.
    fn holders(&self) -> Option<Holders> {
        let shards: Vec<(ShardId, Vec<ReplicaId>)> = self.cluster.newest(|state: &State| {
            let led = |(shard, log): (ShardId, &clew_catalog::ShardLog)| {
                Some((shard, log.lead.as_ref()?.voters.clone()))
            };
            state.shard_logs().filter_map(led).collect()
        })?;
        let at = usize::try_from(self.rng.below(shards.len().max(1) as u64)).unwrap_or(0);
        let (shard, voters) = shards.get(at)?.clone();
        let names: BTreeSet<String> = self.cluster.newest(|state| {
            let voting = state.replicas().filter(|known| voters.contains(&known.replica));
            voting.map(|known| known.node.to_string()).collect()
        })?;
        let holds = |node: &&Node| names.contains(&*node.name) && self.cluster.is_well(node);
        let holders: Vec<Node> = self.cluster.of(Role::Ingester).filter(holds).cloned().collect();
        if holders.len() < 3 {
            return None;
        }
        let (leaders, others): (Vec<Node>, Vec<Node>) =
            holders.into_iter().partition(|node| self.leads(node, shard));
        match <[Node; 1]>::try_from(leaders) {
            Ok([leader]) => Some(Holders { shard, leader, others }),
            Err(_) => None,
        }
    }

    /// Whether a node believes that it leads a shard.
    fn leads(&self, node: &Node, shard: ShardId) -> bool {
        let Some(running) = self.cluster.running(node) else { return false };
        let Some(handle) = running.probe.lock().ingester.clone() else { return false };
        handle.reports().iter().any(|report| report.shard == shard.0 && report.leads)
    }

    fn all_well(&self) -> bool {
        self.down() == 0
    }

    /// Waits until `found` finds something, for a while.
    async fn moment<T>(&self, found: impl Fn() -> Option<T>) -> Option<T> {
        for _ in 0..LOOKS_MAX {
            if let Some(found) = found() {
                return Some(found);
            }
            self.sleep(LOOK).await;
        }
        None
    }

    fn pause_now(&self, node: &Node) {
        if let Some(running) = self.cluster.running(node) {
            self.journal.note(format_args!("pause {}", node.name));
            running.process.pause();
        }
    }

    fn resume_now(&self, node: &Node) {
        if let Some(running) = self.cluster.running(node) {
            self.journal.note(format_args!("resume {}", node.name));
            running.process.resume();
        }
    }

    fn set_cut(&self, here: &Node, there: &[&Node], cut: bool) {
        for other in there.iter().filter(|other| other.name != here.name) {
            self.cluster.outside.network.set_cut(&here.name, &other.name, cut);
            self.cluster.outside.network.set_cut(&other.name, &here.name, cut);
        }
    }

    /// A leader stands still until another one has taken over. Then one that voted for that crashes and
    /// starts again, and the old leader wakes up while the new one stands still: the vote that was
    /// given decides whom it follows. Some have not heard of the new leader and still write to the old.
    async fn wake_an_old_leader(&self) {
        let Some(holders) = self.moment(|| self.all_well().then(|| self.holders())?).await else {
            return;
        };
        self.journal.note(format_args!("an old leader of shard {}", holders.shard.0));
        self.set_deaf(Role::Distributor, true);
        self.pause_now(&holders.leader);
        self.sleep(self.millis(ELECTED.0, ELECTED.1)).await;
        let (new, voters): (Vec<&Node>, Vec<&Node>) =
            holders.others.iter().partition(|node| self.leads(node, holders.shard));
        if let (Some(new), Some(voter)) = (new.first(), voters.first()) {
            self.sleep(self.millis(1_000, 4_000)).await;
            self.pause_now(new);
            self.cluster.crash(voter).await;
            self.cluster.start(voter);
            self.sleep(self.millis(0, 300)).await;
            self.resume_now(&holders.leader);
            self.sleep(self.millis(2_000, 5_000)).await;
            self.resume_now(new);
        }
        self.resume_now(&holders.leader);
        self.set_deaf(Role::Distributor, false);
    }

    /// Lets the first node of a role not hear what is new, or hear it again.
    fn set_deaf(&self, role: Role, deaf: bool) {
        let Some(node) = self.cluster.of(role).next() else { return };
        for member in self.cluster.of(Role::Metastore) {
            self.cluster.outside.network.set_held(&member.name, &node.name, deaf);
        }
    }

    /// While one replica lags, one of the two that have everything loses its disk, and the other
    /// stands still: what is left must not pass for a majority.
    async fn lose_the_disk_of_a_majority(&self) {
        let _one = self.losing.lock().await;
        let Some(holders) = self.moment(|| self.may_lose_one()).await else { return };
        let [lags, loses] = &holders.others[..2] else { return };
        self.journal.note(format_args!(
            "shard {}: {} lags, {} loses its disk",
            holders.shard.0, lags.name, loses.name
        ));
        let ingesters: Vec<&Node> = self.cluster.of(Role::Ingester).collect();
        self.set_cut(lags, &ingesters, true);
        self.sleep(self.millis(2_000, 6_000)).await;
        // Much may have happened meanwhile.
        let can_lose = self.cluster.can_lose_a_disk();
        if can_lose {
            self.wipes.lock().0 += 1;
            self.pause_now(&holders.leader);
            self.cluster.crash(loses).await;
            self.cluster.wipe(loses);
        }
        self.set_cut(lags, &ingesters, false);
        if can_lose {
            self.cluster.start(loses);
            self.sleep(self.millis(3_000, 8_000)).await;
            self.resume_now(&holders.leader);
        }
    }

    /// Holders of a shard when one of them may lose its disk.
    fn may_lose_one(&self) -> Option<Holders> {
        let holders = self.holders()?;
        (self.cluster.can_lose_a_disk() && self.may_lose(&holders.leader)).then_some(holders)
    }

    /// A replica lags until its log was purged elsewhere, while another one loses its disk: it is
    /// brought up by a snapshot that was made while the members changed.
    async fn lag_while_members_change(&self) {
        let _one = self.losing.lock().await;
        let Some(holders) = self.moment(|| self.may_lose_one()).await else { return };
        let [lags, loses] = &holders.others[..2] else { return };
        self.journal.note(format_args!("shard {}: {} lags long", holders.shard.0, lags.name));
        let ingesters: Vec<&Node> = self.cluster.of(Role::Ingester).collect();
        self.set_cut(lags, &ingesters, true);
        self.sleep(self.millis(8_000, 16_000)).await;
        if self.cluster.can_lose_a_disk() {
            self.wipes.lock().0 += 1;
            self.cluster.crash(loses).await;
            self.cluster.wipe(loses);
            self.cluster.start(loses);
            self.sleep(self.millis(500, 8_000)).await;
        }
        self.set_cut(lags, &ingesters, false);
        self.sleep(self.millis(100, 3_000)).await;
        self.cluster.crash(lags).await;
        self.cluster.start(lags);
    }

    /// A leader stands still, or dies, when the bucket has its object and the catalog does not know.
    async fn stop_at_an_upload(&self) {
        let mut uploads = self.cluster.outside.store.created();
        uploads.mark_unchanged();
        let stopped = loop {
            let upload = self.cluster.clock.timeout(LOOK * 200, uploads.changed()).await;
            if !matches!(upload, Some(Ok(()))) || !self.all_well() {
                return;
            }
            let by = uploads.borrow().clone();
            let node = self.cluster.of(Role::Ingester).find(|node| *node.name == *by);
            if let Some(node) = node {
                break node.clone();
            }
        };
        self.journal.note(format_args!("{} has uploaded", stopped.name));
        if self.rng.below(3) == 0 {
            self.cluster.crash(&stopped).await;
            self.sleep(self.millis(0, 4_000)).await;
            self.cluster.start(&stopped);
            return;
        }
        self.pause_now(&stopped);
        self.sleep(self.millis(4_000, 25_000)).await;
        self.resume_now(&stopped);
    }

    /// A compactor stands still in the middle of a job for longer than its lease.
    async fn stop_a_compaction(&self) {
        let slow = clew_storage::simulated::Weather {
            delay_min: Duration::from_millis(200),
            delay_max: Duration::from_millis(1_500),
            ..clew_storage::simulated::Weather::FINE
        };
        self.cluster.outside.store.set_weather(slow);
        let worker = || {
            let worker = |state: &State| state.jobs().next().map(|job| job.worker.clone());
            let name = self.cluster.newest(worker).flatten()?;
            self.cluster.of(Role::Compactor).find(|node| *node.name == *name).cloned()
        };
        if let Some(node) = self.moment(worker).await {
            self.sleep(self.millis(0, 2_000)).await;
            self.pause_now(&node);
            self.cluster.outside.store.set_weather(clew_storage::simulated::Weather::FINE);
            self.sleep(self.millis(16_000, 30_000)).await;
            self.resume_now(&node);
        }
        self.cluster.outside.store.set_weather(clew_storage::simulated::Weather::FINE);
    }

    /// A leader is cut off from its followers and from nobody else: it does not know that it leads no
    /// more, and who asks it is told what it believes.
    async fn cut_a_leader_from_its_peers(&self) {
        let Some(holders) = self.moment(|| self.holders()).await else { return };
        self.journal.note(format_args!("{} is cut off from its peers", holders.leader.name));
        let ingesters: Vec<&Node> = self.cluster.of(Role::Ingester).collect();
        self.set_cut(&holders.leader, &ingesters, true);
        // One does not hear of the new leader at first.
        self.set_deaf(Role::Querier, true);
        self.haste.set(true);
        self.sleep(self.millis(3_000, 12_000)).await;
        self.haste.set(false);
        self.set_deaf(Role::Querier, false);
        self.set_cut(&holders.leader, &ingesters, false);
    }

    /// The bucket is away for so long that several segments of each head wait for it.
    async fn fill_the_heads(&self) {
        let away = clew_storage::simulated::Weather {
            fails_before: 1_000,
            ..clew_storage::simulated::Weather::FINE
        };
        self.journal.note(format_args!("the bucket is away for long"));
        self.cluster.outside.store.set_weather(away);
        self.sleep(self.millis(25_000, 45_000)).await;
        self.cluster.outside.store.set_weather(clew_storage::simulated::Weather::FINE);
        self.journal.note(format_args!("the bucket is back"));
    }
}
