//! What is counted about the object store, by operation.

use std::time::Duration;

use clew_model::ErrorKind;
use clew_node::Metrics;
use prometheus::{HistogramVec, IntCounterVec};

use crate::error::{Error, Operation};

/// Attempts by operation and outcome: `ok`, or the kind of the error.
pub(crate) const REQUESTS: &str = "clew_storage_requests_total";
/// Bytes written or read, by operation.
pub(crate) const BYTES: &str = "clew_storage_bytes_total";
/// How long attempts took, by operation.
pub(crate) const SECONDS: &str = "clew_storage_request_duration_seconds";
/// Reads that took long, by what became of the second request: it was `won` or `lost`, or `refused`
/// by the budget.
pub(crate) const HEDGES: &str = "clew_storage_hedges_total";

/// The counters of a bucket.
#[derive(Debug, Clone)]
pub(crate) struct StorageMetrics {
    requests: IntCounterVec,
    bytes: IntCounterVec,
    seconds: HistogramVec,
    hedges: IntCounterVec,
}

impl StorageMetrics {
    pub(crate) fn new(metrics: &Metrics) -> StorageMetrics {
        StorageMetrics {
            requests: metrics.counters(
                REQUESTS,
                "Attempts of object store requests.",
                &["operation", "outcome"],
            ),
            bytes: metrics.counters(
                BYTES,
                "Bytes sent to and received from the object store.",
                &["operation"],
            ),
            seconds: metrics.seconds_by(
                SECONDS,
                "Duration of object store attempts.",
                &["operation"],
            ),
            hedges: metrics.counters(
                HEDGES,
                "Reads that took long, by what became of asking a second time.",
                &["outcome"],
            ),
        }
    }

    /// Counts one attempt that took `duration`.
    pub(crate) fn attempt<T>(
        &self,
        operation: Operation,
        duration: Duration,
        result: &Result<T, Error>,
        measure: impl Fn(&T) -> u64,
    ) {
        self.seconds.with_label_values(&[operation.as_str()]).observe(duration.as_secs_f64());
        if let Ok(value) = result {
            self.bytes.with_label_values(&[operation.as_str()]).inc_by(measure(value));
        }
        self.outcome(operation, result.as_ref().map(|_| ()));
    }

    /// Counts an attempt without a duration.
    pub(crate) fn outcome(&self, operation: Operation, result: Result<(), &Error>) {
        let outcome = result.map_or_else(|error| error.kind().as_str(), |()| "ok");
        self.requests.with_label_values(&[operation.as_str(), outcome]).inc();
    }

    /// Counts a read that took long.
    pub(crate) fn hedge(&self, outcome: &'static str) {
        self.hedges.with_label_values(&[outcome]).inc();
    }
}

/// Of two requests for the same bytes the one whose answer is not used; it is counted when this is
/// dropped, as `cancelled` unless it failed before.
pub(crate) struct ExtraRead<'a> {
    metrics: &'a StorageMetrics,
    outcome: &'static str,
}

impl ExtraRead<'_> {
    /// One that was just begun.
    pub(crate) fn of(metrics: &StorageMetrics) -> ExtraRead<'_> {
        ExtraRead { metrics, outcome: ErrorKind::Cancelled.as_str() }
    }

    /// One of the two failed, and the other goes on.
    pub(crate) fn failed(&mut self, error: &Error) {
        self.outcome = error.kind().as_str();
    }
}

impl Drop for ExtraRead<'_> {
    fn drop(&mut self) {
        let labels = [Operation::Get.as_str(), self.outcome];
        self.metrics.requests.with_label_values(&labels).inc();
    }
}
