//! Three members over real sockets: the cluster begins once, any member answers, and one with an
//! empty disk is let in in place of the one it was.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_catalog::{
    Command, FeatureLevel, FeatureRange, NodeId, Outcome, RegisterNode, Roles, Topology, View,
};
use clew_metastore::{Config, Metastore, Parts};
use clew_model::UnixNanos;
use clew_node::http_server::{Limits, serve};
use clew_node::rpc::{Channel, Dialer, Pool};
use clew_node::{Clock, Deps, Stop};
use clew_proto::metastore::v1::cluster_service_client::ClusterServiceClient;
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::{
    ApplyRequest, HeartbeatRequest, StatusRequest, ViewRequest, WatchRequest,
};
use clew_raft::{Host, LogOptions, LogStore, PeerServer, Peers};
use clew_storage::Bucket;
use futures::future::join_all;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// A guard against tests that hang, not an expectation.
const PATIENCE: Duration = Duration::from_secs(60);

struct Member {
    metastore: Metastore,
    store: Arc<LogStore>,
    host: Host,
    deps: Deps,
    stop: Stop,
}

async fn open(dir: &Path, addr: &str, members: &[String]) -> Member {
    open_as(dir, addr, members, FeatureRange::OURS).await.unwrap()
}

/// Opens a member of a release that supports these feature levels.
async fn open_as(
    dir: &Path,
    addr: &str,
    members: &[String],
    features: FeatureRange,
) -> Result<Member, clew_metastore::MetastoreError> {
    let deps = Deps::system(2);
    let (pool, stop) = (Pool::new(Dialer::plain(&deps.clock)), Stop::new());
    let store = LogStore::open(dir, &LogOptions::default(), &deps).unwrap();
    let peers =
        Peers::new(pool.clone(), Arc::new(|_, target| Some(target.0.clone())), deps.clock.clone());
    let host = Host::new(store.clone(), Arc::new(peers), deps.clone());
    let parts = Parts {
        host: host.clone(),
        pool,
        addr: addr.to_owned(),
        members: members.to_vec(),
        cores: 1,
        features,
        stop: stop.clone(),
        bucket: Bucket::memory(&deps),
        data_dir: dir.to_path_buf(),
        restart: Stop::new(),
    };
    let metastore = match Config::default().build(deps.clone(), parts).await {
        Ok(metastore) => metastore,
        Err(error) => {
            host.shutdown().await;
            store.close();
            return Err(error);
        }
    };
    let mut routes = tonic::service::RoutesBuilder::default();
    routes.add_service(PeerServer::server(host.clone()));
    routes.add_service(metastore.server());
    routes.add_service(metastore.cluster_server());
    routes.add_service(metastore.member_server());
    let listener = TcpListener::bind(addr).await.unwrap();
    let (clock, tasks) = (deps.clock.clone(), deps.tasks.clone());
    let router = routes.routes().into_axum_router();
    deps.tasks.spawn(serve(listener, router, Limits::default(), clock, tasks, stop.clone()));
    Ok(Member { metastore, store, host, deps, stop })
}

impl Member {
    async fn end(self) {
        self.host.shutdown().await;
        self.stop.stop();
        self.deps.tasks.finish().await;
        self.store.close();
    }

    fn catalog(&self) -> MetastoreServiceClient<Channel> {
        MetastoreServiceClient::new(Channel::local(self.metastore.server()))
    }

    fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(Channel::local(self.metastore.cluster_server()))
    }

    async fn register(&self, name: &str) -> Outcome {
        let command = Command::RegisterNode(RegisterNode {
            node: NodeId::parse(name).unwrap(),
            addr: "localhost:1".to_owned(),
            zone: String::new(),
            capacity: 1,
            roles: Roles::ALL,
            features: FeatureRange::default(),
        });
        let command = Bytes::from(command.encode(UnixNanos(5)));
        let answer = self.catalog().apply(ApplyRequest { command }).await.unwrap().into_inner();
        Outcome::decode(&answer.outcome).unwrap()
    }

    async fn view(&self) -> View {
        let answer = self.catalog().view(ViewRequest::default()).await.unwrap().into_inner();
        View::decode(&answer.view).unwrap()
    }

    /// The names of the nodes, as told to one who watches.
    async fn watched_nodes(&self, wanted: usize) -> Vec<String> {
        let mut news = self.cluster().watch(WatchRequest::default()).await.unwrap().into_inner();
        loop {
            let next = news.message().await.unwrap().unwrap();
            let topology = Topology::decode(&next.topology).unwrap();
            if topology.nodes.len() == wanted {
                return topology.nodes.iter().map(|info| info.node.to_string()).collect();
            }
        }
    }
}

async fn patiently<T>(work: impl Future<Output = T>) -> T {
    Clock::system().timeout(PATIENCE, work).await.unwrap()
}

fn addresses() -> Vec<String> {
    // Held until all are known, so that no two are the same.
    let held: Vec<_> =
        (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_begins_once_and_outlives_the_disk_of_a_member() {
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let addrs = addresses();
    let mut members = Vec::new();
    for (dir, addr) in dirs.iter().zip(&addrs) {
        members.push(open(dir.path(), addr, &addrs).await);
    }
    let formed = join_all(members.iter().map(|member| member.metastore.form()));
    patiently(formed).await.into_iter().for_each(|formed| formed.unwrap());
    let cluster = members[0].view().await.cluster.unwrap();
    for (at, member) in members.iter().enumerate() {
        assert_eq!(member.register(&format!("n{at}")).await, Outcome::NodeRegistered);
        // What one member has acknowledged, every member knows.
        for other in &members {
            assert_eq!(other.view().await.cluster, Some(cluster));
        }
    }
    for member in &members {
        assert_eq!(patiently(member.watched_nodes(3)).await, ["n0", "n1", "n2"]);
    }
    let (node, addr) = ("n1".to_owned(), "localhost:1".to_owned());
    let beat = HeartbeatRequest { node, addr, ..HeartbeatRequest::default() };
    members[2].cluster().heartbeat(beat.clone()).await.unwrap();
    let unknown = HeartbeatRequest { node: "nobody".to_owned(), ..beat };
    assert!(members[2].cluster().heartbeat(unknown).await.is_err());
    let status = members[0].cluster().status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.voters.len(), 3);
    let alive: Vec<&str> =
        status.nodes.iter().filter(|n| n.alive).map(|n| n.node.as_str()).collect();
    assert_eq!(alive, ["n1"]);

    // One comes back with nothing. Were it to begin again, there would be two clusters.
    members.remove(0).end().await;
    let empty = tempfile::tempdir().unwrap();
    let back = open(empty.path(), &addrs[0], &addrs).await;
    patiently(back.metastore.form()).await.unwrap();
    assert_eq!(back.view().await.cluster, Some(cluster));
    let status = back.cluster().status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.voters.len(), 3, "the vote of the one it was is gone");

    // It counts: with another one gone there is still a majority.
    members.remove(0).end().await;
    assert_eq!(patiently(back.register("n9")).await, Outcome::NodeRegistered);
    assert_eq!(patiently(members[0].watched_nodes(4)).await.len(), 4);
    members.remove(0).end().await;
    back.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_alone_does_not_begin() {
    let dir = tempfile::tempdir().unwrap();
    let addrs = addresses();
    let member = open(dir.path(), &addrs[0], &addrs).await;
    let formed = Clock::system().timeout(Duration::from_secs(2), member.metastore.form()).await;
    assert!(formed.is_none(), "the others may belong to a cluster already");
    member.end().await;
}

/// A release that supports these levels.
fn release(oldest: u32, newest: u32) -> FeatureRange {
    FeatureRange { oldest: FeatureLevel(oldest), newest: FeatureLevel(newest) }
}

impl Member {
    /// Tells as a process of that release does at its start.
    async fn start_as(&self, name: &str, addr: &str, features: FeatureRange) -> Outcome {
        let command = Command::RegisterNode(RegisterNode {
            node: NodeId::parse(name).unwrap(),
            addr: addr.to_owned(),
            zone: String::new(),
            capacity: 1,
            roles: Roles::METASTORE,
            features,
        });
        let command = Bytes::from(command.encode(UnixNanos(5)));
        let answer = self.catalog().apply(ApplyRequest { command }).await.unwrap().into_inner();
        Outcome::decode(&answer.outcome).unwrap()
    }

    fn control(&self) {
        let (metastore, stop) = (self.metastore.clone(), self.stop.clone());
        self.deps.tasks.spawn(async move { metastore.run(stop).await });
    }

    /// The sign of life of that node, then the level and who holds it.
    async fn beat(&self, at: usize, addr: &str, features: FeatureRange) -> (u32, Vec<String>) {
        let FeatureRange { oldest, newest } = features;
        let features =
            clew_proto::metastore::v1::FeatureRange { oldest: oldest.0, newest: newest.0 };
        let beat = HeartbeatRequest {
            node: format!("n{at}"),
            addr: addr.to_owned(),
            features: Some(features),
            ..HeartbeatRequest::default()
        };
        // It may be between two leaders.
        let _ = self.cluster().heartbeat(beat).await;
        match self.cluster().status(StatusRequest {}).await {
            Ok(status) => {
                let status = status.into_inner();
                (status.feature_level, status.held_by)
            }
            Err(_) => (0, Vec::new()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_rises_with_the_last_member_and_keeps_older_releases_out() {
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let addrs = addresses();
    let mut releases = [release(1, 2), release(1, 2), release(1, 1)];
    let mut members = Vec::new();
    for ((dir, addr), release) in dirs.iter().zip(&addrs).zip(releases) {
        members.push(open_as(dir.path(), addr, &addrs, release).await.unwrap());
    }
    let formed = join_all(members.iter().map(|member| member.metastore.form()));
    patiently(formed).await.into_iter().for_each(|formed| formed.unwrap());
    for (at, member) in members.iter().enumerate() {
        member.control();
        let started = member.start_as(&format!("n{at}"), &addrs[at], releases[at]).await;
        assert_eq!(started, Outcome::NodeRegistered);
    }
    // As long as a member of the older release is there, several ticks of the controller long.
    let clock = Clock::system();
    for _ in 0..15 {
        let mut heard = (0, Vec::new());
        for (at, release) in releases.iter().enumerate() {
            heard = members[at].beat(at, &addrs[at], *release).await;
        }
        assert!(heard.0 <= 1 && heard.1.iter().all(|name| name == "n2"), "{heard:?}");
        clock.sleep(Duration::from_millis(200)).await;
    }

    members.remove(2).end().await;
    releases[2] = release(1, 2);
    let back = open_as(dirs[2].path(), &addrs[2], &addrs, releases[2]).await.unwrap();
    patiently(back.metastore.form()).await.unwrap();
    back.control();
    back.start_as("n2", &addrs[2], releases[2]).await;
    members.push(back);
    patiently(async {
        loop {
            let mut levels = Vec::new();
            for (at, release) in releases.iter().enumerate() {
                levels.push(members[at].beat(at, &addrs[at], *release).await);
            }
            if levels.iter().all(|heard| *heard == (2, Vec::new())) {
                return;
            }
            clock.sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let mut news = members[2].cluster().watch(WatchRequest::default()).await.unwrap().into_inner();
    let told = Topology::decode(&news.message().await.unwrap().unwrap().topology).unwrap();
    assert_eq!(told.feature_level, FeatureLevel(2));
    drop(news);

    // Nobody of the release before is let in again: no other node,
    let refused = members[0].start_as("n7", "10.0.0.7:9095", release(1, 1)).await;
    let Outcome::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert!(refusal.to_string().contains("is at feature level 2"), "{refusal}");
    // no member with an empty disk,
    members.remove(2).end().await;
    let empty = tempfile::tempdir().unwrap();
    let old = open_as(empty.path(), &addrs[2], &addrs, release(1, 1)).await.unwrap();
    let error = patiently(old.metastore.form()).await.unwrap_err().to_string();
    assert!(error.contains("feature level 2") && error.contains("supports 1"), "{error}");
    old.end().await;
    // and not the member that there was.
    let error = match open_as(dirs[2].path(), &addrs[2], &addrs, release(1, 1)).await {
        Ok(old) => {
            let error = patiently(old.metastore.form()).await.unwrap_err().to_string();
            old.end().await;
            error
        }
        Err(error) => error.to_string(),
    };
    assert!(error.contains("feature level 2") && error.contains("supports 1"), "{error}");
    // What it had is still good.
    let back = open_as(dirs[2].path(), &addrs[2], &addrs, releases[2]).await.unwrap();
    patiently(back.metastore.form()).await.unwrap();
    back.end().await;
    for member in members {
        member.end().await;
    }
}
