//! A cluster of one querier or several, a metastore and shards, all in this process.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use clew_catalog::{
    ClusterId, Command, CreateCluster, DiskId, FeatureRange, IssueReplicaId, NodeId, OpenShardLog,
    RegisterNode, ReplicaId, RequestId, Roles, ShardId,
};
use clew_model::{TenantId, UnixNanos};
use clew_node::clock::ManualTime;
use clew_node::rpc::Channel;
use clew_node::{Deps, Metrics, Rng, Stop, Tasks};
use clew_proto::metastore::v1::metastore_service_server::MetastoreServiceServer;
use clew_proto::shard::v1::shard_service_server::ShardServiceServer;
use clew_querier::{Config, Leader, Parts, Peer, Querier, Router, VersionInfo};
use clew_storage::Bucket;
use http::{HeaderMap, Request, StatusCode};
use parking_lot::Mutex;
use tower::ServiceExt;

use crate::metastore::FakeMetastore;
use crate::shard::FakeShard;
use crate::spans::Span;

/// The moment at which the tests' clock stands.
pub(crate) const NOW: UnixNanos = UnixNanos::from_seconds(2_000_000);

/// See the module.
pub(crate) struct Cluster {
    pub(crate) metastore: FakeMetastore,
    pub(crate) shards: Vec<FakeShard>,
    pub(crate) bucket: Bucket,
    config: Config,
    pub(crate) querier: Querier,
    queriers: Arc<Mutex<Arc<[Peer]>>>,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: Tasks,
    pub(crate) time: ManualTime,
    pub(crate) stop: Stop,
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.headers[http::header::CONTENT_TYPE], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The ids of a search's traces, in order.
    pub(crate) fn ids(&self) -> Vec<String> {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        let json = self.json();
        let traces = json["traces"].as_array().unwrap();
        traces.iter().map(|trace| trace["traceID"].as_str().unwrap().to_owned()).collect()
    }

    /// What the answer says that it misses.
    pub(crate) fn partial(&self) -> Option<&str> {
        self.headers.get("x-clew-partial").map(|value| value.to_str().unwrap())
    }
}

/// What a querier knows of the others: shards and their leaders, and who else reads blocks.
struct Known {
    shards: Vec<FakeShard>,
    queriers: Arc<Mutex<Arc<[Peer]>>>,
}

impl Router for Known {
    fn queriers(&self) -> Arc<[Peer]> {
        self.queriers.lock().clone()
    }

    fn leader(&self, shard: ShardId) -> Option<Leader> {
        let leader = self.shards.iter().find(|leader| leader.shard == shard)?.clone();
        // Both ways to reach a leader are in use.
        Some(match shard.0 % 2 {
            0 => Leader::Here(Arc::new(leader)),
            _ => Leader::There(Channel::local(ShardServiceServer::new(leader))),
        })
    }
}

impl Cluster {
    /// A cluster of that many shards, whose querier does not wait for leaders.
    pub(crate) fn new(shards: u32) -> Cluster {
        Cluster::with(shards, Config::default())
    }

    /// The same with other settings.
    pub(crate) fn with(shards: u32, config: Config) -> Cluster {
        Cluster::waiting(shards, config, Duration::ZERO)
    }

    /// The same, waiting that long for leaders.
    pub(crate) fn waiting(shards: u32, config: Config, wait: Duration) -> Cluster {
        let config = Config { leader_wait: clew_node::config::Span(wait), ..config };
        let metastore = FakeMetastore::default();
        create(&metastore, shards);
        let time = ManualTime::at(NOW);
        let deps = Deps { clock: time.clock(), rng: Rng::seeded(1), ..Deps::system(2) };
        let bucket = Bucket::memory(&deps);
        let shard =
            |n| FakeShard::new(ShardId(n), metastore.clone(), bucket.clone(), deps.tasks.clone());
        let shards: Vec<FakeShard> = (0..shards).map(shard).collect();
        let (tasks, metrics) = (deps.tasks.clone(), deps.metrics.clone());
        let queriers = Arc::default();
        let known = Known { shards: shards.clone(), queriers: Arc::clone(&queriers) };
        let parts = parts(&metastore, &bucket, known);
        let querier = config.clone().build(deps, parts).unwrap();
        let stop = Stop::new();
        Cluster { metastore, shards, bucket, config, querier, queriers, metrics, tasks, time, stop }
    }

    /// The same cluster seen through one more querier, with a cache of its own.
    pub(crate) fn another_querier(&self) -> Cluster {
        let clock = self.time.clock();
        let deps = Deps { clock, rng: Rng::seeded(2), ..Deps::system(2) };
        let (tasks, metrics) = (deps.tasks.clone(), deps.metrics.clone());
        let queriers = Arc::default();
        let known = Known { shards: self.shards.clone(), queriers: Arc::clone(&queriers) };
        let parts = parts(&self.metastore, &self.bucket, known);
        Cluster {
            metastore: self.metastore.clone(),
            shards: self.shards.clone(),
            bucket: self.bucket.clone(),
            config: self.config.clone(),
            querier: self.config.clone().build(deps, parts).unwrap(),
            queriers,
            metrics,
            tasks,
            time: self.time.clone(),
            stop: Stop::new(),
        }
    }

    /// Has this querier share the blocks with others, each with a name and a way to reach it.
    pub(crate) fn share_blocks(&self, own: &str, others: &[(&str, Channel)]) {
        let peer = |name: &str, channel| Peer { node: NodeId::parse(name).unwrap(), channel };
        let mut peers = vec![peer(own, None)];
        peers.extend(others.iter().map(|(name, channel)| peer(name, Some(channel.clone()))));
        *self.queriers.lock() = peers.into();
    }

    /// How others reach the blocks of this querier.
    pub(crate) fn blocks(&self) -> Channel {
        Channel::local(self.querier.block_server())
    }

    /// Starts the querier's background work.
    pub(crate) fn start(&self) {
        let (querier, stop) = (self.querier.clone(), self.stop.clone());
        self.tasks.spawn(async move { querier.run(stop).await });
    }

    /// How many blocks of the only tenant the catalog has in quarantine.
    pub(crate) fn quarantined(&self) -> usize {
        let tenant = TenantId::single();
        self.metastore.read(|state| state.view(&[]).quarantined(&tenant).count())
    }

    /// Appends spans of the only tenant to a shard.
    pub(crate) fn append(&self, shard: usize, spans: &[Span]) {
        self.shards[shard].append(&TenantId::single(), spans, false);
    }

    /// Asks for a path as the only tenant.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.get_with(path, &[]).await
    }

    /// Asks for a path with headers.
    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.querier.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
        Reply { status: parts.status, headers: parts.headers, body: body.to_vec() }
    }

    /// A search's answer; `query` is TraceQL.
    pub(crate) async fn search(&self, query: &str, more: &str) -> Reply {
        let query =
            percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
        self.get(&format!("/api/search?q={query}{more}")).await
    }
}

fn parts(metastore: &FakeMetastore, bucket: &Bucket, known: Known) -> Parts {
    Parts {
        metastore: Channel::local(MetastoreServiceServer::new(metastore.clone())),
        shards: Arc::new(known),
        bucket: bucket.clone(),
        version: VersionInfo { version: "0.1.0".to_owned(), ..VersionInfo::default() },
    }
}

fn create(metastore: &FakeMetastore, shards: u32) {
    let node = NodeId::parse("node-1").unwrap();
    let mut commands = vec![
        Command::CreateCluster(CreateCluster { cluster: ClusterId([1; 16]), shard_count: shards }),
        Command::RegisterNode(RegisterNode {
            node: node.clone(),
            addr: "127.0.0.1:9095".to_owned(),
            zone: String::new(),
            capacity: 1,
            roles: Roles::ALL,
            features: FeatureRange::default(),
        }),
        Command::IssueReplicaId(IssueReplicaId { disk: DiskId([1; 16]), node, holds: None }),
    ];
    commands.extend((0..shards).map(|shard| {
        Command::OpenShardLog(OpenShardLog {
            shard: ShardId(shard),
            replicas: vec![ReplicaId(1)],
            replaces: None,
            request: RequestId([u8::try_from(shard).unwrap(); 16]),
        })
    }));
    for command in commands {
        metastore.apply_bytes(&command.encode(UnixNanos(1)));
    }
}
