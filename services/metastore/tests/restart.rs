//! The catalog survives its process, in-process and socket clients get the same answers, and a
//! command may be repeated.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clew_catalog::{Command, FeatureRange, NodeId, Outcome, RegisterNode, Roles, View};
use clew_metastore::{Config, Metastore, Parts};
use clew_node::http_server::{Limits, serve};
use clew_node::rpc::{Channel, Dialer, Pool};
use clew_node::{Deps, Problem, Stop};
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::{ApplyRequest, ViewRequest, ViewResponse};
use clew_raft::{Host, LogOptions, LogStore, NoPeers};
use clew_storage::Bucket;

struct Running {
    metastore: Metastore,
    store: Arc<LogStore>,
    host: Host,
}

async fn start(dir: &Path, config: Config) -> Running {
    let deps = Deps::system(2);
    let store = LogStore::open(dir, &LogOptions::default(), &deps).unwrap();
    let host = Host::new(store.clone(), Arc::new(NoPeers), deps.clone());
    let parts = Parts {
        host: host.clone(),
        pool: Pool::new(Dialer::plain(&deps.clock)),
        addr: "localhost:1".to_owned(),
        members: vec!["localhost:1".to_owned()],
        cores: 9,
        features: FeatureRange::OURS,
        stop: Stop::new(),
        bucket: Bucket::memory(&deps),
        data_dir: dir.to_path_buf(),
        restart: Stop::new(),
    };
    let metastore = config.build(deps, parts).await.unwrap();
    metastore.form().await.unwrap();
    Running { metastore, store, host }
}

impl Running {
    async fn end(self) {
        self.host.shutdown().await;
        self.store.close();
    }
}

type Client = MetastoreServiceClient<Channel>;

fn local(metastore: &Metastore) -> Client {
    MetastoreServiceClient::new(Channel::local(metastore.server()))
}

async fn view(client: &mut Client, known_revision: u64) -> ViewResponse {
    let request = ViewRequest { known_revision, ..ViewRequest::default() };
    client.view(request).await.unwrap().into_inner()
}

async fn register(client: &mut Client, name: &str) -> Outcome {
    let command = Command::RegisterNode(RegisterNode {
        node: NodeId::parse(name).unwrap(),
        addr: "localhost:1".to_owned(),
        zone: String::new(),
        capacity: 1,
        roles: Roles::ALL,
        features: FeatureRange::default(),
    });
    let command = Bytes::from(command.encode(clew_model::UnixNanos(5)));
    let answer = client.apply(ApplyRequest { command }).await.unwrap().into_inner();
    Outcome::decode(&answer.outcome).unwrap()
}

#[tokio::test]
async fn a_cluster_is_created_once_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path(), Config::default()).await;
    let before = View::decode(&view(&mut local(&first.metastore), 0).await.view).unwrap();
    assert_eq!(before.shard_map().newest().unwrap().shards().len(), 3, "9 cores, one per 4");
    first.end().await;
    let again = start(dir.path(), Config { shards: 7, ..Config::default() }).await;
    let after = View::decode(&view(&mut local(&again.metastore), 0).await.view).unwrap();
    assert_eq!(after.cluster, before.cluster);
    assert_eq!(after.shard_map().newest().unwrap().shards().len(), 3, "the first start decides");
    again.end().await;
}

#[tokio::test]
async fn a_snapshot_replaces_the_log_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { snapshot_commands: 10, ..Config::default() };
    let first = start(dir.path(), config.clone()).await;
    let mut client = local(&first.metastore);
    for number in 0..60 {
        assert_eq!(register(&mut client, &format!("n{number}")).await, Outcome::NodeRegistered);
    }
    let before = view(&mut client, 0).await;
    first.end().await;
    let again = start(dir.path(), config).await;
    let after = view(&mut local(&again.metastore), 0).await;
    assert_eq!(
        View::decode(&after.view).unwrap().cluster,
        View::decode(&before.view).unwrap().cluster
    );
    assert!(after.revision >= before.revision);
    again.end().await;
}

#[tokio::test]
async fn a_known_revision_is_answered_with_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    let mut client = local(&running.metastore);
    let first = view(&mut client, 0).await;
    assert!(!first.unchanged);
    let second = view(&mut client, first.revision).await;
    assert!(second.unchanged && second.view.is_empty());
    running.end().await;
}

#[tokio::test]
async fn a_socket_gives_the_same_answers_as_a_channel_of_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), Config::default()).await;
    let deps = Deps::system(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut routes = tonic::service::RoutesBuilder::default();
    routes.add_service(running.metastore.server());
    let stop = Stop::new();
    deps.tasks.spawn(serve(
        listener,
        routes.routes().into_axum_router(),
        Limits::default(),
        deps.clock.clone(),
        deps.tasks.clone(),
        stop.clone(),
    ));
    let channel = Dialer::plain(&deps.clock).connect(&address.to_string()).unwrap();
    let mut remote = MetastoreServiceClient::new(channel);
    let mut local = local(&running.metastore);
    assert_eq!(view(&mut remote, 0).await, view(&mut local, 0).await);
    assert_eq!(register(&mut remote, "a").await, register(&mut local, "a").await);
    let bad = ViewRequest { tenants: vec!["a/b".to_owned()], ..ViewRequest::default() };
    let over_socket = Problem::from(remote.view(bad.clone()).await.unwrap_err());
    let in_process = Problem::from(local.view(bad).await.unwrap_err());
    assert_eq!(over_socket, in_process);
    assert_eq!(over_socket.kind, clew_model::ErrorKind::Invalid);
    stop.stop();
    running.end().await;
}
