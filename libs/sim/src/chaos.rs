//! What goes wrong in the first phase of a run, and how all of it ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clew_node::rpc::Channel;
use clew_node::{Process, Rng};
use clew_storage::simulated::Weather as BucketWeather;
use parking_lot::Mutex;

use crate::actors::Haste;
use crate::cluster::Cluster;
use crate::journal::Journal;
use crate::network::{Name, Weather};
use crate::node::{Node, Role};

/// Faults of nodes at the same time.
const DOWN_MAX: usize = 3;

/// Disks of ingesters that are lost in a run at most, and of members of the metastore.
const WIPES_MAX: usize = 2;

/// How often it is looked whether a disk may be lost now.
const LOOKS_MAX: usize = 80;

/// The one who does harm. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Chaos {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) journal: Journal,
    pub(crate) rng: Rng,
    /// What its tasks belong to, so that they end with it.
    pub(crate) process: Process,
    pub(crate) wipes: Arc<Mutex<(usize, usize)>>,
    /// Held while a disk is lost: one at a time.
    pub(crate) losing: Arc<tokio::sync::Mutex<()>>,
    /// The way to the metastore, for orders.
    pub(crate) metastore: Channel,
    /// Whether there are more shards already.
    pub(crate) has_grown: Arc<Mutex<bool>>,
    pub(crate) haste: Haste,
    /// How many faults have begun, or were left out.
    pub(crate) begun: Arc<AtomicU64>,
}

impl Chaos {
    pub(crate) fn millis(&self, min: u64, max: u64) -> Duration {
        Duration::from_millis(min + self.rng.below(max - min + 1))
    }

    fn any_node(&self) -> Node {
        let nodes: Vec<&Node> = self.cluster.present().collect();
        let at = usize::try_from(self.rng.below(nodes.len() as u64)).unwrap_or(0);
        nodes[at].clone()
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        self.cluster.clock.sleep(duration).await;
    }

    /// Does harm for ever: every fault but those that are left out. Each has dice of its own, so that leaving
    /// one out changes nothing about when the others come and of what kind they are.
    pub(crate) async fn run(self, only: Option<BTreeSet<u64>>) {
        loop {
            self.sleep(self.millis(500, 6_000)).await;
            let lot = self.rng.below(100);
            let own = Chaos { rng: Rng::seeded(self.rng.next_u64()), ..self.clone() };
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            if only.as_ref().is_some_and(|only| !only.contains(&number)) {
                continue;
            }
            self.journal.note(format_args!("fault {number}"));
            self.process.spawn(async move { Box::pin(own.once(lot)).await });
        }
    }

    async fn once(self, lot: u64) {
        match lot {
            0..16 => self.crash().await,
            16..25 => self.pause().await,
            25..39 => self.cut().await,
            39..48 => self.network_weather().await,
            48..55 => self.bucket_weather().await,
            55..59 => self.skew(),
            59..64 => self.rolling().await,
            64..67 => self.failing_sync(),
            67..69 => self.slow_disk().await,
            69..73 => self.lose_a_disk().await,
            73..80 => Box::pin(self.change()).await,
            _ => Box::pin(self.aim()).await,
        }
    }

    pub(crate) fn down(&self) -> usize {
        self.cluster.present().filter(|node| !self.cluster.is_well(node)).count()
    }

    async fn crash(&self) {
        if self.down() >= DOWN_MAX {
            return;
        }
        let node = self.any_node();
        self.cluster.crash(&node).await;
        self.sleep(self.millis(0, 12_000)).await;
        self.cluster.start(&node);
    }

    /// Longer than every lease, mostly: what wakes up may believe that it still leads.
    async fn pause(&self) {
        let node = self.any_node();
        let Some(running) = self.cluster.running(&node) else { return };
        if self.down() >= DOWN_MAX || running.process.is_paused() {
            return;
        }
        self.journal.note(format_args!("pause {}", node.name));
        running.process.pause();
        self.sleep(self.millis(300, 15_000)).await;
        self.journal.note(format_args!("resume {}", node.name));
        running.process.resume();
    }

    /// Cuts a node off, or a part of the cluster from the other, in one direction or in both.
    async fn cut(&self) {
        let names: Vec<Name> = self.cluster.present().map(|node| node.name.clone()).collect();
        let alone = self.any_node().name;
        let is_split = self.rng.below(3) == 0;
        let here: Vec<bool> = names
            .iter()
            .map(|name| if is_split { self.rng.below(2) == 0 } else { *name == alone })
            .collect();
        let (there, back) = match self.rng.below(4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let shown: Vec<&str> =
            names.iter().zip(&here).filter(|(_, here)| **here).map(|(n, _)| &**n).collect();
        self.journal.note(format_args!("cut off {} ({there}, {back})", shown.join(",")));
        let set = |cut: bool| {
            for (a, a_here) in names.iter().zip(&here) {
                for (b, _) in names.iter().zip(&here).filter(|(_, b_here)| *b_here != a_here) {
                    let wanted = if *a_here { there } else { back };
                    if wanted {
                        self.cluster.outside.network.set_cut(a, b, cut);
                    }
                }
            }
        };
        set(true);
        self.sleep(self.millis(500, 15_000)).await;
        set(false);
        self.journal.note(format_args!("mended {}", shown.join(",")));
    }

    async fn network_weather(&self) {
        let weather = Weather {
            delay_min: Duration::from_millis(1),
            delay_max: self.millis(2, 60),
            slow: self.rng.below(100),
            slow_max: self.millis(50, 3_000),
            lost: self.rng.below(40),
            doubled: self.rng.below(100),
        };
        self.journal.note(format_args!("network: {weather:?}"));
        self.cluster.outside.network.set_weather(weather);
        self.sleep(self.millis(2_000, 20_000)).await;
        self.cluster.outside.network.set_weather(Weather::FINE);
        self.journal.note(format_args!("network: fine"));
    }

    async fn bucket_weather(&self) {
        let is_away = self.rng.below(4) == 0;
        let weather = BucketWeather {
            delay_min: Duration::from_millis(5),
            delay_max: self.millis(10, 800),
            fails_before: if is_away { 1_000 } else { self.rng.below(200) },
            fails_after: self.rng.below(200),
            stalls: self.rng.below(30),
            stall: self.millis(1_000, 20_000),
            truncates: self.rng.below(100),
        };
        self.journal.note(format_args!("bucket: {weather:?}"));
        self.cluster.outside.store.set_weather(weather);
        self.sleep(self.millis(2_000, 20_000)).await;
        self.cluster.outside.store.set_weather(BucketWeather::FINE);
        self.journal.note(format_args!("bucket: fine"));
    }

    /// A wall clock jumps by up to two seconds.
    fn skew(&self) {
        let node = self.any_node();
        let nanos = i64::try_from(self.rng.below(4_000)).unwrap_or(0) - 2_000;
        self.journal.note(format_args!("clock of {} off by {nanos} ms", node.name));
        node.skew.set(nanos * 1_000_000);
    }

    /// Restarts the nodes of a role in order, one after the other.
    async fn rolling(&self) {
        let role = self.any_node().role;
        self.journal.note(format_args!("rolling restart of {role:?}"));
        let nodes: Vec<Node> = self.cluster.of(role).cloned().collect();
        for node in nodes {
            self.cluster.stop(&node).await;
            self.sleep(self.millis(100, 2_000)).await;
            self.cluster.start(&node);
            self.sleep(self.millis(500, 5_000)).await;
        }
    }

    fn failing_sync(&self) {
        let node = self.any_node();
        self.journal.note(format_args!("the next sync of {} fails", node.name));
        node.disk.fail_next_sync();
    }

    async fn slow_disk(&self) {
        let node = self.any_node();
        let (min, max) = (self.millis(1, 50), self.millis(50, 1_500));
        self.journal.note(format_args!("disk of {}: up to {max:?}", node.name));
        node.disk.set_sync_time(min, max);
        self.sleep(self.millis(1_000, 15_000)).await;
        usual_disk(&node);
    }

    pub(crate) fn may_lose(&self, node: &Node) -> bool {
        let wipes = self.wipes.lock();
        match node.role {
            Role::Metastore => wipes.1 == 0,
            Role::Ingester => wipes.0 < WIPES_MAX,
            Role::Distributor | Role::Querier | Role::Compactor => false,
        }
    }

    async fn lose_a_disk(&self) {
        let node = self.any_node();
        let _one = self.losing.lock().await;
        // The moment may come when other harm is over.
        let mut looks = 0;
        while !self.may_lose(&node) || !self.cluster.can_lose_a_disk() {
            looks += 1;
            if looks > LOOKS_MAX {
                return;
            }
            self.sleep(Duration::from_millis(250)).await;
        }
        match node.role {
            Role::Metastore => self.wipes.lock().1 += 1,
            _ => self.wipes.lock().0 += 1,
        }
        self.cluster.crash(&node).await;
        self.cluster.wipe(&node);
        self.sleep(self.millis(100, 5_000)).await;
        self.cluster.start(&node);
    }

    /// Ends all of it: everything runs again as it should.
    pub(crate) async fn end(&self) {
        self.process.kill().await;
        self.journal.note(format_args!("everything heals"));
        self.haste.set(false);
        self.cluster.outside.network.mend();
        self.cluster.outside.network.set_weather(Weather::FINE);
        self.cluster.outside.store.set_weather(BucketWeather::FINE);
        let present: Vec<Node> = self.cluster.present().cloned().collect();
        for node in &present {
            usual_disk(node);
            node.skew.set(0);
            if let Some(running) = self.cluster.running(node) {
                running.process.resume();
                // One that was leaving is not waited for.
                if running.probe.lock().ended.is_some() {
                    self.cluster.crash(node).await;
                }
            }
            self.cluster.start(node);
        }
    }
}

fn usual_disk(node: &Node) {
    node.disk.set_sync_time(Duration::from_micros(200), Duration::from_millis(3));
}
