//! Three members over real sockets: the cluster begins once, any member answers, and one with an
//! empty disk is let in in place of the one it was.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_catalog::{Command, NodeId, Outcome, RegisterNode, Roles, Topology, View};
use clew_metastore::{Config, Metastore, Parts};
use clew_model::UnixNanos;
use clew_node::http_server::{Limits, serve};
use clew_node::rpc::{Channel, Pool};
use clew_node::{Clock, Deps, Stop};
use clew_proto::metastore::v1::cluster_service_client::ClusterServiceClient;
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::{
    ApplyRequest, HeartbeatRequest, StatusRequest, ViewRequest, WatchRequest,
};
use clew_raft::{Host, LogOptions, LogStore, PeerServer, Peers};
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
    let deps = Deps::system(2);
    let (pool, stop) = (Pool::new(), Stop::new());
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
        stop: stop.clone(),
    };
    let metastore = Config::default().build(deps.clone(), parts).await.unwrap();
    let mut routes = tonic::service::RoutesBuilder::default();
    routes.add_service(PeerServer::server(host.clone()));
    routes.add_service(metastore.server());
    routes.add_service(metastore.cluster_server());
    routes.add_service(metastore.member_server());
    let listener = TcpListener::bind(addr).await.unwrap();
    let (clock, tasks) = (deps.clock.clone(), deps.tasks.clone());
    let router = routes.routes().into_axum_router();
    deps.tasks.spawn(serve(listener, router, Limits::default(), clock, tasks, stop.clone()));
    Member { metastore, store, host, deps, stop }
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
