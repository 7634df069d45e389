//! The ingester's metrics: rate, errors, duration and saturation of appends, heads, flushes, reads.

use clew_node::Metrics;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// Metrics of all shards of a process.
#[derive(Debug, Clone)]
pub(crate) struct IngesterMetrics {
    pub(crate) requests: IntCounterVec,
    pub(crate) request_seconds: HistogramVec,
    pub(crate) shard: ShardMetrics,
    pub(crate) watermark: IntGaugeVec,
    pub(crate) consumed: IntGaugeVec,
    pub(crate) leading: IntGaugeVec,
    pub(crate) unflushed_age: IntGaugeVec,
    pub(crate) head_bytes: IntGauge,
    pub(crate) replicas_stopped: IntCounterVec,
}

/// Metrics that shards add up in.
#[derive(Debug, Clone)]
pub(crate) struct ShardMetrics {
    pub(crate) append_seconds: Histogram,
    pub(crate) entry_bytes: IntCounter,
    pub(crate) consumed_spans: IntCounter,
    pub(crate) damaged_batches: IntCounter,
    pub(crate) split_traces: IntCounter,
    pub(crate) flushes: IntCounter,
    pub(crate) flush_failures: IntCounterVec,
    pub(crate) flush_seconds: HistogramVec,
    pub(crate) flushed_spans: IntCounter,
    pub(crate) flushed_bytes: IntCounter,
    pub(crate) section_bytes: IntCounterVec,
    pub(crate) registering_stopped: IntGauge,
}

impl IngesterMetrics {
    pub(crate) fn new(metrics: &Metrics) -> IngesterMetrics {
        IngesterMetrics {
            requests: metrics.counters(
                "clew_ingester_requests_total",
                "Requests answered, by method and outcome.",
                &["method", "outcome"],
            ),
            request_seconds: metrics.seconds_by(
                "clew_ingester_request_duration_seconds",
                "Time to answer, by method.",
                &["method"],
            ),
            shard: ShardMetrics::new(metrics),
            watermark: metrics.gauges(
                "clew_ingester_watermark",
                "Log index through which everything is in registered blocks.",
                &["shard"],
            ),
            consumed: metrics.gauges(
                "clew_ingester_consumed_index",
                "Log index through which everything is in blocks or in the head.",
                &["shard"],
            ),
            replicas_stopped: metrics.counters(
                "clew_ingester_replicas_stopped_total",
                "Replicas that stopped without being asked to, to be opened again, by cause.",
                &["cause"],
            ),
            leading: metrics.gauges(
                "clew_ingester_leading",
                "1 if this node leads the shard and its head is ready.",
                &["shard"],
            ),
            unflushed_age: metrics.gauges(
                "clew_ingester_unflushed_age_seconds",
                "How long the oldest spans of a shard led here have waited for a registered block.",
                &["shard"],
            ),
            head_bytes: metrics
                .gauge("clew_ingester_head_bytes", "Memory held by the heads of all shards."),
        }
    }
}

/// Makes the series of these label values: one that is there before the first failure has a rate when
/// that comes.
fn zero(counters: IntCounterVec, values: &[&str]) -> IntCounterVec {
    for value in values {
        counters.with_label_values(&[value]).inc_by(0);
    }
    counters
}

impl ShardMetrics {
    fn new(metrics: &Metrics) -> ShardMetrics {
        ShardMetrics {
            append_seconds: metrics.seconds(
                "clew_ingester_append_duration_seconds",
                "Time from proposing a log entry to its commit, fsync included.",
            ),
            entry_bytes: metrics
                .counter("clew_ingester_log_bytes_total", "Bytes of log entries proposed."),
            consumed_spans: metrics
                .counter("clew_ingester_spans_total", "Spans consumed from the log into heads."),
            damaged_batches: metrics.counter(
                "clew_ingester_damaged_batches_total",
                "Committed batches that could not be read back. Each one is a bug or a bad disk.",
            ),
            split_traces: metrics.counter(
                "clew_ingester_split_traces_total",
                "Trace fragments marked as maybe having spans elsewhere.",
            ),
            flushes: metrics.counter("clew_ingester_flushes_total", "Objects registered."),
            flush_failures: zero(
                metrics.counters(
                    "clew_ingester_flush_failures_total",
                    "Failed attempts of a step of a flush; each is repeated.",
                    &["step"],
                ),
                &["upload", "register"],
            ),
            flush_seconds: metrics.seconds_by(
                "clew_ingester_flush_duration_seconds",
                "Time of a step of a flush.",
                &["step"],
            ),
            flushed_spans: metrics
                .counter("clew_ingester_flushed_spans_total", "Spans in registered objects."),
            flushed_bytes: metrics
                .counter("clew_ingester_flushed_bytes_total", "Bytes of registered objects."),
            section_bytes: metrics.counters(
                "clew_ingester_flushed_section_bytes_total",
                "Bytes of registered objects, by section of the block.",
                &["section"],
            ),
            registering_stopped: metrics.gauge(
                "clew_ingester_registering_stopped",
                "Shards that do not flush because the catalog is older than their log.",
            ),
        }
    }
}
