//! The root of a query: takes a cut through catalog and heads, asks every place, joins the answers.
//!
//! Nothing here decides by a clock where data is read from. A query reads the objects of one catalog
//! view and, of every shard's log, exactly the entries after the view's watermark up to the index
//! that the shard's leader named ([`snapshot`]). What could not be read is in [`Missing`], so an
//! answer is complete or says what it lacks.

mod block_set;
mod block_work;
mod blocks;
mod cost;
mod cut;
mod deletion;
mod filters;
mod gather;
mod heads;
mod homes;
mod leaf;
mod missing;
mod progress;
mod quarantine;
mod run;
mod search;
mod shards;
mod snapshot;
mod split;
mod spread;
mod tags;
mod trace;
mod view;
mod whole;

use std::sync::Arc;

use clew_node::rpc::Channel;
use clew_node::{Clock, Deps, Problem, Rng};
use clew_query::DiskCache;
use clew_storage::Bucket;

use self::blocks::Blocks;
pub(crate) use self::cost::StepCost;
use self::homes::Homes;
pub(crate) use self::missing::Missing;
pub(crate) use self::progress::Progress;
pub(crate) use self::quarantine::Reporter;
use self::quarantine::Reports;
pub(crate) use self::search::Explanation;
use self::shards::Shards;
pub use self::shards::{Leader, Router};
pub use self::spread::Peer;
use self::spread::Spread;
pub(crate) use self::tags::{TagNames, TagValues};
pub(crate) use self::trace::FoundTrace;
use self::view::Views;
use crate::Config;
use crate::metrics::QuerierMetrics;

/// An answer with what it misses.
#[derive(Debug, Clone)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) missing: Missing,
}

/// Everything that queries share.
pub(crate) struct Root {
    config: Config,
    views: Views,
    router: Arc<dyn Router>,
    shards: Shards,
    blocks: Blocks,
    spread: Spread,
    homes: Homes,
    reports: Reports,
    metastore: Channel,
    clock: Clock,
    rng: Rng,
    metrics: Arc<QuerierMetrics>,
}

impl Root {
    pub(crate) fn new(
        config: Config,
        deps: &Deps,
        metastore: Channel,
        router: Arc<dyn Router>,
        bucket: Bucket,
        disk: Option<DiskCache>,
        metrics: Arc<QuerierMetrics>,
    ) -> (Root, Reporter) {
        let (reports, reporter) = Reports::new(deps, metastore.clone(), Arc::clone(&metrics));
        let root = Root {
            views: Views::new(metastore.clone(), deps.clock.clone(), &config),
            shards: Shards::new(Arc::clone(&router), deps.clock.clone(), config.leader_wait.0),
            router,
            blocks: Blocks::new(bucket, disk, deps, &config),
            spread: Spread::new(deps.clock.clone(), config.hedge_after.0),
            homes: Homes::default(),
            reports,
            metastore,
            clock: deps.clock.clone(),
            rng: deps.rng.clone(),
            config,
            metrics,
        };
        (root, reporter)
    }

    /// Heavy work off the async threads, such as writing a large answer.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        self.blocks.compute(work).await
    }

    /// How far apart fragments of one trace may lie, in nanoseconds.
    fn horizon(&self) -> u64 {
        u64::try_from(self.config.trace_horizon.0.as_nanos()).unwrap_or(u64::MAX)
    }
}
