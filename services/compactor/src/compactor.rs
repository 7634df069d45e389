//! The compactor as a component: built from settings and the world, looking for work until it is
//! told to stop.

use std::sync::Arc;

use clew_catalog::{JobSpec, SharedTopology};
use clew_model::ErrorKind;
use clew_node::rpc::Channel;
use clew_node::{Deps, Problem, Stop};
use clew_proto::metastore::v1::LeaseRequest;
use clew_ring::NodeId;
use clew_storage::Bucket;
use futures::future::join_all;
use tokio::sync::watch;

use crate::marks::LastRing;
use crate::metastore::Metastore;
use crate::metrics::CompactorMetrics;
use crate::throttle::Throttle;
use crate::{CompactorError, Config};

/// What a compactor is built from besides the world.
pub struct Parts {
    /// The metastore, whoever leads it.
    pub metastore: Channel,
    /// Where the blocks are.
    pub bucket: Bucket,
    /// This node's name.
    pub node: NodeId,
    /// The cluster as it is known here.
    pub topology: watch::Receiver<SharedTopology>,
}

/// Merges and deletes until it is told to stop.
pub struct Compactor {
    worker: Arc<Worker>,
}

/// What all jobs of a process share.
pub(crate) struct Worker {
    pub(crate) config: Config,
    pub(crate) deps: Deps,
    pub(crate) bucket: Bucket,
    pub(crate) metastore: Metastore,
    pub(crate) topology: watch::Receiver<SharedTopology>,
    pub(crate) throttle: Throttle,
    pub(crate) metrics: CompactorMetrics,
    pub(crate) rings: LastRing,
    node: NodeId,
}

impl Config {
    /// A compactor with these settings.
    ///
    /// # Errors
    /// [`CompactorError::Config`] naming a setting that cannot work.
    pub fn build(self, deps: Deps, parts: Parts) -> Result<Compactor, CompactorError> {
        if let Some(problem) = self.problem() {
            return Err(CompactorError::Config(problem));
        }
        let Parts { metastore, bucket, node, topology } = parts;
        let worker = Worker {
            metastore: Metastore::new(metastore, deps.clock.clone()),
            throttle: Throttle::new(deps.clock.clone(), self.cpu_share),
            metrics: CompactorMetrics::new(&deps.metrics),
            config: self,
            deps,
            bucket,
            topology,
            rings: LastRing::default(),
            node,
        };
        Ok(Compactor { worker: Arc::new(worker) })
    }
}

impl Compactor {
    /// Works until `stop`; a job under way is given back then.
    pub async fn run(self, stop: Stop) {
        let worker = &self.worker;
        let jobs = (0..worker.config.jobs_max).map(|_| worker.work(stop.clone()));
        futures::join!(join_all(jobs), worker.sweep(stop.clone()));
    }
}

impl std::fmt::Debug for Compactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compactor")
    }
}

impl Worker {
    /// Takes one job after the other.
    async fn work(&self, stop: Stop) {
        // Jobs that failed one after the other over something that passes.
        let mut failures = 0;
        while !stop.is_stopped() {
            let found = stop.or(self.lease()).await;
            match found {
                None => return,
                Some(Ok(Some(spec))) => {
                    let passes = self.do_job(spec, failures, &stop).await;
                    failures = if passes { failures + 1 } else { 0 };
                    continue;
                }
                Some(Ok(None)) => {}
                Some(Err(error)) => tracing::debug!(%error, "no job is to be had now"),
            }
            if stop.or(self.deps.clock.sleep(self.config.poll_interval.0)).await.is_none() {
                return;
            }
        }
    }

    /// The job that is most needed.
    async fn lease(&self) -> Result<Option<JobSpec>, CompactorError> {
        let mut request = [0u8; 16];
        request[..8].copy_from_slice(&self.deps.rng.next_u64().to_be_bytes());
        request[8..].copy_from_slice(&self.deps.rng.next_u64().to_be_bytes());
        let answer = self.metastore.lease(LeaseRequest {
            worker: self.node.to_string(),
            request: request.to_vec().into(),
            lease_millis: u64::try_from(self.config.lease.0.as_millis()).unwrap_or(u64::MAX),
            options: Some(self.config.options()),
        });
        let answer = answer.await?;
        let metrics = &self.metrics;
        metrics.dropped_blocks.inc_by(answer.dropped);
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.live_objects.set(gauge(answer.live));
        metrics.dead_objects.set(gauge(answer.dead));
        metrics.pending_deletions.set(gauge(answer.deletions));
        if gauge(answer.parked) > metrics.parked_objects.get() {
            tracing::error!(
                parked = answer.parked,
                "objects cannot be compacted and are left alone"
            );
        }
        metrics.parked_objects.set(gauge(answer.parked));
        if answer.job.is_empty() {
            return Ok(None);
        }
        let spec = JobSpec::decode(&answer.job).map_err(|error| {
            let message = format!("unreadable job: {error}");
            Problem::new(ErrorKind::Internal, "metastore_answer", message)
        })?;
        Ok(Some(spec))
    }
}
