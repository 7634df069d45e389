//! The querier as a component: built from settings and the world, serving routes, running its
//! background work.

use std::sync::Arc;

use clew_node::rpc::Channel;
use clew_node::{Deps, Stop};
use clew_proto::query::v1::block_service_server::BlockServiceServer;
use clew_proto::tempopb::streaming_querier_server::{
    SERVICE_NAME as STREAMING, StreamingQuerierServer,
};
use clew_query::{DiskCache, DiskCacheOptions};
use clew_storage::Bucket;
use parking_lot::Mutex;

use crate::config::{BuildError, Config, DiskCacheConfig};
use crate::http::{self, Api};
use crate::leaf::Leaf;
use crate::metrics::QuerierMetrics;
use crate::root::{Reporter, Root, Router};
use crate::stream::Streaming;

/// What this process is, for `/api/status/buildinfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionInfo {
    /// Clew's version.
    pub version: String,
    /// The commit it was built from.
    pub revision: String,
    /// When it was built.
    pub build_date: String,
}

/// What a querier is built from besides the world.
pub struct Parts {
    /// The metastore, whoever leads it.
    pub metastore: Channel,
    /// Finds the shards' leaders.
    pub shards: Arc<dyn Router>,
    /// Where the blocks are.
    pub bucket: Bucket,
    /// What this process is.
    pub version: VersionInfo,
}

/// Answers queries. Cheap to clone.
#[derive(Clone)]
pub struct Querier {
    api: Arc<Api>,
    background: Arc<Mutex<Option<Background>>>,
}

/// What works beside queries.
struct Background {
    reporter: Reporter,
    disk: Option<DiskCache>,
}

impl Config {
    /// A querier with these settings.
    ///
    /// # Errors
    /// [`BuildError`] naming a setting that cannot work.
    pub fn build(self, deps: Deps, parts: Parts) -> Result<Querier, BuildError> {
        self.validate()?;
        let metrics = Arc::new(QuerierMetrics::new(&deps.metrics));
        let Parts { metastore, shards, bucket, version } = parts;
        let disk = self.open_disk_cache(&deps)?;
        let cached = disk.clone();
        let (root, reporter) =
            Root::new(self.clone(), &deps, metastore, shards, bucket, cached, Arc::clone(&metrics));
        let gate = http::Gate::new(self.concurrent_queries_max, self.queued_queries_max);
        let api = Arc::new(Api { config: self, deps, root, metrics, version, gate });
        Ok(Querier { api, background: Arc::new(Mutex::new(Some(Background { reporter, disk }))) })
    }

    /// The cache on disk, if there is to be one.
    fn open_disk_cache(&self, deps: &Deps) -> Result<Option<DiskCache>, BuildError> {
        let DiskCacheConfig { path, bytes, age_max } = &self.disk_cache;
        if path.is_empty() {
            return Ok(None);
        }
        let options =
            DiskCacheOptions { folder: path.into(), bytes_max: bytes.0, age_max: age_max.0 };
        let opened = DiskCache::open(options, deps);
        opened.map(Some).map_err(|error| BuildError::DiskCache {
            path: path.clone(),
            message: error.to_string(),
        })
    }
}

impl Querier {
    /// The Tempo-compatible API, below the configured prefix.
    /// Beside it, at its own path, the same as a stream over HTTP/2.
    pub fn router(&self) -> axum::Router {
        let path = format!("/{STREAMING}/{{*method}}");
        http::router(Arc::clone(&self.api)).route_service(&path, self.server())
    }

    /// The streaming form of the API, for a gRPC port.
    pub fn server(&self) -> StreamingQuerierServer<Streaming> {
        Streaming::new(Arc::clone(&self.api)).server()
    }

    /// Reads blocks for other queriers; for the internal port.
    pub fn block_server(&self) -> BlockServiceServer<Leaf> {
        Leaf::new(Arc::clone(&self.api)).server()
    }

    /// Does the background work until `stop`: tells the metastore about damaged blocks, removes what is
    /// old from the cache on disk. Only the first call has something to do.
    pub async fn run(&self, stop: Stop) {
        let background = self.background.lock().take();
        let Some(Background { reporter, disk }) = background else {
            return stop.stopped().await;
        };
        let upkeep = async {
            if let Some(disk) = disk {
                disk.run(stop.clone()).await;
            }
        };
        futures::join!(reporter.run(stop.clone()), upkeep);
    }
}

impl std::fmt::Debug for Querier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Querier")
    }
}
