//! The compactor's metrics: jobs, what they moved, what was deleted, what waits.

use clew_node::Metrics;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

/// Metrics of a compactor.
#[derive(Debug, Clone)]
pub(crate) struct CompactorMetrics {
    pub(crate) jobs: IntCounterVec,
    pub(crate) job_seconds: Histogram,
    pub(crate) running: IntGauge,
    pub(crate) input_objects: IntCounter,
    pub(crate) input_bytes: IntCounter,
    pub(crate) output_objects: IntCounter,
    pub(crate) output_bytes: IntCounter,
    pub(crate) spans: IntCounter,
    pub(crate) duplicate_spans: IntCounter,
    pub(crate) joined_traces: IntCounter,
    pub(crate) cleared_marks: IntCounter,
    pub(crate) dropped_traces: IntCounterVec,
    pub(crate) dropped_blocks: IntCounter,
    pub(crate) deleted_objects: IntCounterVec,
    pub(crate) delete_failures: IntCounter,
    pub(crate) live_objects: IntGauge,
    pub(crate) dead_objects: IntGauge,
    pub(crate) parked_objects: IntGauge,
    pub(crate) pending_deletions: IntGauge,
    pub(crate) orphan_collection_stopped: IntGauge,
}

impl CompactorMetrics {
    pub(crate) fn new(metrics: &Metrics) -> CompactorMetrics {
        CompactorMetrics {
            jobs: metrics.counters(
                "clew_compactor_jobs_total",
                "Compactions that ended, by outcome.",
                &["outcome"],
            ),
            job_seconds: metrics
                .seconds("clew_compactor_job_duration_seconds", "Time that a compaction took."),
            running: metrics.gauge("clew_compactor_jobs_running", "Compactions under way."),
            input_objects: metrics
                .counter("clew_compactor_input_objects_total", "Objects that were merged."),
            input_bytes: metrics
                .counter("clew_compactor_input_bytes_total", "Bytes of objects that were merged."),
            output_objects: metrics
                .counter("clew_compactor_output_objects_total", "Objects that merges made."),
            output_bytes: metrics
                .counter("clew_compactor_output_bytes_total", "Bytes of objects that merges made."),
            spans: metrics.counter("clew_compactor_spans_total", "Spans written by merges."),
            duplicate_spans: metrics.counter(
                "clew_compactor_duplicate_spans_total",
                "Spans that merges found more than once.",
            ),
            joined_traces: metrics.counter(
                "clew_compactor_joined_traces_total",
                "Traces that merges joined from several blocks.",
            ),
            cleared_marks: metrics.counter(
                "clew_compactor_cleared_marks_total",
                "Traces that are known to be whole after a merge and were not before.",
            ),
            dropped_traces: metrics.counters(
                "clew_compactor_dropped_traces_total",
                "Traces that merges left out, by reason.",
                &["reason"],
            ),
            dropped_blocks: metrics.counter(
                "clew_compactor_expired_blocks_total",
                "Objects and blocks that went because of their retention.",
            ),
            deleted_objects: metrics.counters(
                "clew_compactor_deleted_objects_total",
                "Objects deleted from the bucket, by reason.",
                &["reason"],
            ),
            delete_failures: metrics.counter(
                "clew_compactor_delete_failures_total",
                "Objects that could not be deleted, to be tried again.",
            ),
            live_objects: metrics
                .gauge("clew_compactor_live_objects", "Objects of the catalog that queries read."),
            dead_objects: metrics.gauge(
                "clew_compactor_dead_objects",
                "Objects of the catalog whose bytes still have to go.",
            ),
            parked_objects: metrics.gauge(
                "clew_compactor_parked_objects",
                "Objects that compactions leave alone because something is wrong with them.",
            ),
            pending_deletions: metrics.gauge(
                "clew_compactor_pending_deletions",
                "Deletions whose traces are not physically gone yet.",
            ),
            orphan_collection_stopped: metrics.gauge(
                "clew_compactor_orphan_collection_stopped",
                "1 while the bucket holds objects that the catalog is too old to know.",
            ),
        }
    }
}
