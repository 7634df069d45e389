//! The querier's metrics.

use clew_node::Metrics;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge};

/// Handles of every metric of this role.
pub(crate) struct QuerierMetrics {
    /// By route and status code; 499 for a client that went away.
    pub(crate) requests: IntCounterVec,
    /// By route.
    pub(crate) seconds: HistogramVec,
    pub(crate) inflight: IntGauge,
    pub(crate) queued: IntGauge,
    /// By the word for what was missing.
    pub(crate) partial: IntCounterVec,
    pub(crate) restarts: IntCounter,
    pub(crate) blocks: IntCounter,
    /// By what came of it.
    pub(crate) block_calls: IntCounterVec,
    pub(crate) damaged_blocks: IntCounter,
    pub(crate) cache_bytes: IntGauge,
}

impl QuerierMetrics {
    pub(crate) fn new(metrics: &Metrics) -> QuerierMetrics {
        let partial = metrics.counters(
            "clew_querier_partial_total",
            "Answers that miss something, by what could not be read.",
            &["reason"],
        );
        // A series that is there before the first failure has a rate when that comes.
        for reason in ["shard", "block", "metastore"] {
            partial.with_label_values(&[reason]).inc_by(0);
        }
        let block_calls = metrics.counters(
            "clew_querier_block_calls_total",
            "Calls to other queriers that have blocks in their caches: answered, failed (this querier \
             read the blocks), or overtaken by this querier because they took long.",
            &["result"],
        );
        for result in ["answered", "failed", "overtaken"] {
            block_calls.with_label_values(&[result]).inc_by(0);
        }
        QuerierMetrics {
            requests: metrics.counters(
                "clew_querier_requests_total",
                "API requests answered, by route and status code.",
                &["route", "code"],
            ),
            seconds: metrics.seconds_by(
                "clew_querier_request_duration_seconds",
                "Time to answer an API request, by route.",
                &["route"],
            ),
            inflight: metrics.gauge("clew_querier_inflight_queries", "Queries that run now."),
            queued: metrics.gauge("clew_querier_queued_queries", "Queries that wait to run."),
            partial,
            restarts: metrics.counter(
                "clew_querier_restarts_total",
                "Queries started again because a shard flushed in the middle of them.",
            ),
            blocks: metrics.counter(
                "clew_querier_blocks_total",
                "Blocks that queries had to consider, each time they did.",
            ),
            block_calls,
            damaged_blocks: metrics
                .counter("clew_querier_damaged_blocks_total", "Blocks that failed verification."),
            cache_bytes: metrics
                .gauge("clew_querier_cache_bytes", "Bytes of block sections in the cache."),
        }
    }
}
