//! Processes with log stores in temporary directories, and a network between them in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clew_node::{Clock, Deps};
use clew_raft::{
    CommittedEntry, Error, Group, GroupId, GroupOptions, GroupSpec, Host, LogId, LogOptions,
    LogStore, NoPeers, NodeAddr, ReplicaId, ShardGroup, StateMachine, Transport,
};
use tempfile::TempDir;
use tokio::sync::watch;

pub(crate) const SHARD: GroupId = GroupId::shard(1, 1);
/// A guard against tests that hang, not an expectation.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until what is watched is as wanted.
pub(crate) async fn until<T>(watched: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) -> T
where
    T: Clone + std::fmt::Debug,
{
    let seen = {
        let waiting = watched.wait_for(wanted);
        let found = Clock::system().timeout(PATIENCE, waiting).await;
        found.map(|found| found.expect("the replica runs").clone())
    };
    seen.unwrap_or_else(|| panic!("still {:?}", *watched.borrow()))
}

/// Repeats a check of something that can not be watched until it holds.
pub(crate) async fn eventually<T>(mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let repeated = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    Clock::system().timeout(PATIENCE, repeated).await.expect("it happens at last")
}

/// A state machine that adds numbers up and answers with the sum.
#[derive(Debug, Default)]
pub(crate) struct Sum(pub u64);

impl StateMachine for Sum {
    type Response = u64;

    fn apply(&mut self, _: LogId, command: Bytes) -> u64 {
        self.0 += u64::from_be_bytes(command.as_ref().try_into().unwrap());
        self.0
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Error> {
        let bytes = snapshot.try_into();
        let bytes =
            bytes.map_err(|_| Error::Corrupt { what: "sum", reason: "not 8 bytes".to_owned() })?;
        self.0 = u64::from_be_bytes(bytes);
        Ok(())
    }
}

pub(crate) fn number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

pub(crate) fn payload(number: u64) -> Bytes {
    Bytes::from(format!("payload {number} ").repeat(200))
}

pub(crate) fn open_store(path: &Path) -> Arc<LogStore> {
    LogStore::open(path, &LogOptions::default(), &Deps::system(1)).unwrap()
}

/// A process without peers.
pub(crate) fn lone_host(path: &Path) -> Host {
    Host::new(open_store(path), Arc::new(NoPeers), Deps::system(1))
}

pub(crate) fn lone_spec(group: GroupId) -> GroupSpec {
    let replica = ReplicaId(1);
    let bootstrap = Some(BTreeMap::from([(replica, NodeAddr::default())]));
    GroupSpec { group, replica, bootstrap, options: GroupOptions::default() }
}

/// Copies the database of a running process as a crash would leave it.
pub(crate) fn crash_image(from: &Path) -> TempDir {
    loop {
        let to = tempfile::tempdir().unwrap();
        let before = files(from);
        let copy = |name: &std::ffi::OsString| std::fs::copy(from.join(name), to.path().join(name));
        // Not a moment in time if files came and went meanwhile.
        if before.keys().all(|name| copy(name).is_ok()) && files(from) == before {
            return to;
        }
    }
}

/// The files of a database and their sizes.
fn files(path: &Path) -> BTreeMap<std::ffi::OsString, Option<u64>> {
    let files = std::fs::read_dir(path).unwrap().map(|file| file.unwrap());
    let size = |file: &std::fs::DirEntry| file.metadata().ok().map(|metadata| metadata.len());
    files.map(|file| (file.file_name(), size(&file))).collect()
}

/// Everything committed behind an index, read in small pieces.
pub(crate) async fn committed_behind<S>(group: &Group<S>, index: u64) -> Vec<CommittedEntry> {
    let mut all: Vec<CommittedEntry> = Vec::new();
    loop {
        let from = all.last().map_or(index, |entry| entry.log_id.index);
        let some = group.read_committed(from, 6_000).await.unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

pub(crate) fn data(entries: &[CommittedEntry]) -> Vec<Bytes> {
    entries.iter().filter_map(|entry| entry.data.clone()).collect()
}

/// Which hosts exist and which links are cut.
#[derive(Default)]
pub(crate) struct Network {
    hosts: Mutex<BTreeMap<NodeAddr, Host>>,
    cut: Mutex<BTreeSet<NodeAddr>>,
    /// How long large messages take.
    slow: Mutex<Duration>,
}

/// Larger messages are slow where links are.
const LARGE_BYTES: usize = 100_000;

impl Network {
    /// Makes large messages take a while.
    pub(crate) fn set_slow(&self, delay: Duration) {
        *self.slow.lock().unwrap() = delay;
    }

    /// Cuts a node off from all others, or joins it again.
    pub(crate) fn set_cut(&self, addr: &NodeAddr, cut: bool) {
        let mut all = self.cut.lock().unwrap();
        match cut {
            true => all.insert(addr.clone()),
            false => all.remove(addr),
        };
    }
}

struct Link {
    network: Arc<Network>,
    from: NodeAddr,
}

#[async_trait]
impl Transport for Link {
    async fn send(&self, to: &NodeAddr, group: GroupId, request: Bytes) -> Result<Bytes, Error> {
        let unreachable =
            || Error::Unreachable { target: to.clone(), reason: "the link is cut".to_owned() };
        let cut = || {
            let cut = self.network.cut.lock().unwrap();
            cut.contains(&self.from) || cut.contains(to)
        };
        let host = self.network.hosts.lock().unwrap().get(to).cloned();
        let host = host.filter(|_| !cut()).ok_or_else(unreachable)?;
        let delay = *self.network.slow.lock().unwrap();
        if request.len() > LARGE_BYTES && !delay.is_zero() {
            Clock::system().sleep(delay).await;
        }
        let answer = host.handle(group, request).await?;
        if cut() { Err(unreachable()) } else { Ok(answer) }
    }
}

/// One process of a cluster, with one replica of each of its groups.
pub(crate) struct Node {
    pub(crate) replica: ReplicaId,
    pub(crate) addr: NodeAddr,
    pub(crate) host: Host,
    dir: TempDir,
}

/// Several processes on one network.
pub(crate) struct Cluster {
    pub(crate) network: Arc<Network>,
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    pub(crate) fn new(nodes: u64) -> Cluster {
        let mut cluster = Cluster { network: Arc::default(), nodes: Vec::new() };
        (0..nodes).for_each(|_| cluster.add_node());
        cluster
    }

    pub(crate) fn add_node(&mut self) {
        let replica = ReplicaId(self.nodes.len() as u64 + 1);
        let addr = NodeAddr(format!("node-{}", replica.0));
        let dir = tempfile::tempdir().unwrap();
        let link = Link { network: Arc::clone(&self.network), from: addr.clone() };
        let host = Host::new(open_store(dir.path()), Arc::new(link), Deps::system(1));
        self.network.hosts.lock().unwrap().insert(addr.clone(), host.clone());
        self.nodes.push(Node { replica, addr, host, dir });
    }

    /// Ends a process, whose groups the caller has shut down, and starts it again on its disk.
    pub(crate) fn restart(&mut self, replica: ReplicaId) -> &Node {
        let node = self.nodes.iter_mut().find(|node| node.replica == replica).unwrap();
        node.host.store().close();
        let link = Link { network: Arc::clone(&self.network), from: node.addr.clone() };
        node.host = Host::new(open_store(node.dir.path()), Arc::new(link), Deps::system(1));
        self.network.hosts.lock().unwrap().insert(node.addr.clone(), node.host.clone());
        node
    }

    /// The specs of a new group on all nodes.
    pub(crate) fn specs(&self, group: GroupId, options: &GroupOptions) -> Vec<GroupSpec> {
        let voters: BTreeMap<_, _> =
            self.nodes.iter().map(|node| (node.replica, node.addr.clone())).collect();
        let spec = |node: &Node| GroupSpec {
            group,
            replica: node.replica,
            bootstrap: Some(voters.clone()),
            options: options.clone(),
        };
        self.nodes.iter().map(spec).collect()
    }

    pub(crate) async fn open_shards(&self, options: &GroupOptions) -> Vec<ShardGroup> {
        let mut shards = Vec::new();
        for (node, spec) in self.nodes.iter().zip(self.specs(SHARD, options)) {
            shards.push(node.host.open_shard(spec).await.unwrap());
        }
        shards
    }

    /// Opens a replica on the newest node that waits to be added.
    pub(crate) fn newcomer(&self, group: GroupId, options: &GroupOptions) -> (&Node, GroupSpec) {
        let node = self.nodes.last().unwrap();
        let (replica, options) = (node.replica, options.clone());
        (node, GroupSpec { group, replica, bootstrap: None, options })
    }
}

/// The replica among these that leads and can prove it.
pub(crate) async fn leader<S>(groups: &[Group<S>]) -> Group<S> {
    eventually(async || {
        for group in groups {
            if group.leadership().borrow().is_leader && group.read_index().await.is_ok() {
                return Some(group.clone());
            }
        }
        // Something must change before it is worth looking again.
        let mut first = groups.first()?.leadership();
        let _ = Clock::system().timeout(Duration::from_millis(20), first.changed()).await;
        None
    })
    .await
}

/// Appends through whoever leads, until it is acknowledged.
pub(crate) async fn append(groups: &[ShardGroup], number: u64) -> LogId {
    eventually(async || leader(groups).await.append(payload(number), PATIENCE).await.ok()).await
}
