//! A member whose disk is gone begins no cluster over what another one left in the bucket, and has the
//! catalog again once it is restored.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clew_catalog::{BackupKey, Command, FeatureRange, NodeId, Outcome, RegisterNode, Roles, View};
use clew_metastore::{Config, Metastore, Parts};
use clew_node::rpc::{Channel, Dialer, Pool};
use clew_node::{Deps, Stop};
use clew_proto::metastore::v1::catalog_service_client::CatalogServiceClient;
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::restore_request::Source;
use clew_proto::metastore::v1::{
    ApplyRequest, BackupRequest, Rebuild, RestoreRequest, ViewRequest,
};
use clew_raft::{Host, LogOptions, LogStore, NoPeers};
use clew_storage::Bucket;
use futures::TryStreamExt;

const ADDR: &str = "localhost:1";

struct Disk {
    deps: Deps,
    store: Arc<LogStore>,
    host: Host,
    parts: Parts,
}

fn open(dir: &Path, bucket: &Bucket) -> Disk {
    let deps = Deps::system(2);
    let store = LogStore::open(&dir.join("raft"), &LogOptions::default(), &deps).unwrap();
    let host = Host::new(store.clone(), Arc::new(NoPeers), deps.clone());
    let parts = Parts {
        host: host.clone(),
        pool: Pool::new(Dialer::plain(&deps.clock)),
        addr: ADDR.to_owned(),
        members: vec![ADDR.to_owned()],
        cores: 9,
        features: FeatureRange::OURS,
        stop: Stop::new(),
        bucket: bucket.clone(),
        data_dir: dir.to_path_buf(),
        restart: Stop::new(),
    };
    Disk { deps, store, host, parts }
}

impl Disk {
    async fn start(&self) -> Metastore {
        let metastore = Config::default().build(self.deps.clone(), self.parts.clone()).await;
        let metastore = metastore.unwrap();
        metastore.form().await.unwrap();
        metastore
    }

    async fn end(self) {
        self.host.shutdown().await;
        self.store.close();
    }
}

async fn register(metastore: &Metastore, name: &str) {
    let command = Command::RegisterNode(RegisterNode {
        node: NodeId::parse(name).unwrap(),
        addr: ADDR.to_owned(),
        zone: String::new(),
        capacity: 1,
        roles: Roles::ALL,
        features: FeatureRange::OURS,
    });
    let command = Bytes::from(command.encode(clew_model::UnixNanos(5)));
    let mut client = MetastoreServiceClient::new(Channel::local(metastore.server()));
    let answer = client.apply(ApplyRequest { command }).await.unwrap().into_inner();
    assert_eq!(Outcome::decode(&answer.outcome).unwrap(), Outcome::NodeRegistered);
}

async fn view(metastore: &Metastore) -> View {
    let mut client = MetastoreServiceClient::new(Channel::local(metastore.server()));
    let answer = client.view(ViewRequest::default()).await.unwrap().into_inner();
    View::decode(&answer.view).unwrap()
}

fn restore(source: Source) -> RestoreRequest {
    RestoreRequest { source: Some(source), dry_run: false, accept_gaps: false }
}

#[tokio::test]
async fn a_lost_disk_is_made_up_for_by_a_backup() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bucket = Bucket::memory(&Deps::system(1));
    let disk = open(first.path(), &bucket);
    let config = Config::default();
    assert!(config.look(&disk.deps, &disk.parts).await.unwrap().is_none(), "the bucket is empty");
    let metastore = disk.start().await;
    register(&metastore, "node-0").await;
    let before = view(&metastore).await;
    let mut catalog = CatalogServiceClient::new(Channel::local(metastore.catalog_server()));
    let made = catalog.backup(BackupRequest {}).await.unwrap().into_inner();
    assert_eq!(BackupKey::parse(&made.key).unwrap().revision, made.revision);
    let refused = catalog.restore(restore(Source::Backup(String::new()))).await.unwrap_err();
    assert!(refused.message().contains("has a catalog"), "{refused}");
    let refused = catalog.restore(restore(Source::OwnDisk(true))).await.unwrap_err();
    assert!(refused.message().contains("majority"), "{refused}");
    disk.end().await;

    let disk = open(second.path(), &bucket);
    let vacant = config.look(&disk.deps, &disk.parts).await.unwrap().unwrap();
    let mut catalog = CatalogServiceClient::new(Channel::local(vacant.server()));
    assert!(catalog.backup(BackupRequest {}).await.is_err());
    let unknown = restore(Source::Backup("catalog/none".to_owned()));
    assert!(catalog.restore(unknown).await.unwrap_err().message().contains("no such backup"));
    let nothing = restore(Source::Rebuild(Rebuild { shards: 0 }));
    assert!(catalog.restore(nothing).await.unwrap_err().message().contains("shards"));
    let newest = restore(Source::Backup(String::new()));
    let dry = RestoreRequest { dry_run: true, ..newest.clone() };
    let shown = catalog.restore(dry).await.unwrap().into_inner();
    assert!(!shown.done && !shown.report.is_empty());
    let done = catalog.restore(newest.clone()).await.unwrap().into_inner();
    assert!(done.done && !done.restarts && done.revision > made.revision, "{}", done.report);
    assert!(catalog.restore(newest).await.is_err(), "once is enough");
    vacant.wait().await;
    let metastore = disk.start().await;
    let after = view(&metastore).await;
    assert_eq!(after.cluster, before.cluster);
    assert_eq!(after.incarnation, before.incarnation + 1);
    assert!(after.revision >= done.revision);
    register(&metastore, "node-1").await;
    // It is backed up in turn, above what it was restored from.
    let mut catalog = CatalogServiceClient::new(Channel::local(metastore.catalog_server()));
    let later = catalog.backup(BackupRequest {}).await.unwrap().into_inner();
    assert!(later.revision > done.revision);
    disk.end().await;

    let disk = open(second.path(), &bucket);
    assert!(config.look(&disk.deps, &disk.parts).await.unwrap().is_none(), "it has its catalog");
    assert_eq!(view(&disk.start().await).await.incarnation, after.incarnation);
    disk.end().await;
    let listed: Vec<_> = bucket.list(BackupKey::PREFIX).try_collect().await.unwrap();
    assert_eq!(listed.len(), 2);
}

#[tokio::test]
async fn a_catalog_older_than_its_backups_does_not_pass_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::memory(&Deps::system(1));
    let disk = open(dir.path(), &bucket);
    let metastore = disk.start().await;
    let later = BackupKey { revision: 1 << 40, random: 1 };
    bucket.put_new(&later.to_string(), Bytes::from_static(b"later")).await.unwrap();
    let mut catalog = CatalogServiceClient::new(Channel::local(metastore.catalog_server()));
    let refused = catalog.backup(BackupRequest {}).await.unwrap_err();
    assert!(refused.message().contains("it is older"), "{refused}");
    disk.end().await;
    // And a damaged one is not restored.
    let empty = tempfile::tempdir().unwrap();
    let disk = open(empty.path(), &bucket);
    let vacant = Config::default().look(&disk.deps, &disk.parts).await.unwrap().unwrap();
    let mut catalog = CatalogServiceClient::new(Channel::local(vacant.server()));
    let refused = catalog.restore(restore(Source::Backup(String::new()))).await.unwrap_err();
    assert!(refused.message().contains(&later.to_string()), "{refused}");
    disk.end().await;
}
