//! The numbers of ingest. Tenants come from outside, so only so many get a label of their own.

use std::collections::HashMap;
use std::sync::Arc;

use clew_model::TenantId;
use parking_lot::RwLock;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge};

/// Tenants with a label of their own; later ones are counted together.
const TENANTS_MAX: usize = 1_000;

/// The label of the tenants past [`TENANTS_MAX`], and of requests whose tenant is not known. It is
/// no tenant id, since those have no spaces.
const OTHER_TENANTS: &str = "other tenants";

/// All metrics of the distributor.
pub(crate) struct IngestMetrics {
    spans_received: IntCounterVec,
    bytes_received: IntCounterVec,
    spans_rejected: IntCounterVec,
    requests_refused: IntCounterVec,
    tenants: RwLock<HashMap<TenantId, Arc<TenantMetrics>>>,
    others: Arc<TenantMetrics>,
    /// Requests answered, by protocol and by HTTP status or gRPC code.
    pub(crate) requests: IntCounterVec,
    /// Seconds from a request's head to its answer, by protocol.
    pub(crate) request_seconds: HistogramVec,
    /// Bytes of memory held by requests.
    pub(crate) inflight_bytes: IntGauge,
    /// Batches that a shard did not acknowledge, by reason.
    pub(crate) append_failures: IntCounterVec,
    /// Batches sent to a shard that is not the home of their traces.
    pub(crate) fallback_batches: IntCounter,
}

/// The counters of one tenant.
pub(crate) struct TenantMetrics {
    /// The value of the label `tenant`.
    label: String,
    /// Spans of requests that could be read, also the rejected ones.
    pub(crate) spans_received: IntCounter,
    /// OTLP bytes after decompression.
    pub(crate) bytes_received: IntCounter,
}

impl IngestMetrics {
    /// Registers all of them.
    pub(crate) fn new(metrics: &clew_node::Metrics) -> IngestMetrics {
        let spans_received = metrics.counters(
            "clew_distributor_spans_received_total",
            "Spans in requests that could be read, accepted or rejected.",
            &["tenant"],
        );
        let bytes_received = metrics.counters(
            "clew_distributor_bytes_received_total",
            "Bytes of OTLP received, after decompression.",
            &["tenant"],
        );
        let append_failures = metrics.counters(
            "clew_distributor_append_failures_total",
            "Batches that a shard did not acknowledge.",
            &["reason"],
        );
        // A series that is there before the first failure has a rate when that comes.
        for reason in ["no_leader", "timeout", "unavailable"] {
            append_failures.with_label_values(&[reason]).inc_by(0);
        }
        let others = TenantMetrics::new(OTHER_TENANTS, &spans_received, &bytes_received);
        IngestMetrics {
            spans_rejected: metrics.counters(
                "clew_distributor_spans_rejected_total",
                "Spans rejected for good and reported in a partial success.",
                &["tenant", "reason"],
            ),
            requests_refused: metrics.counters(
                "clew_distributor_requests_refused_total",
                "Requests refused as a whole.",
                &["tenant", "reason"],
            ),
            requests: metrics.counters(
                "clew_distributor_requests_total",
                "Requests answered, by HTTP status or gRPC code.",
                &["protocol", "code"],
            ),
            request_seconds: metrics.seconds_by(
                "clew_distributor_request_duration_seconds",
                "Seconds from the head of a request to its answer.",
                &["protocol"],
            ),
            inflight_bytes: metrics.gauge(
                "clew_distributor_inflight_bytes",
                "Bytes of memory held by requests being worked on.",
            ),
            append_failures,
            fallback_batches: metrics.counter(
                "clew_distributor_fallback_batches_total",
                "Batches sent to a shard that is not the home of their traces.",
            ),
            spans_received,
            bytes_received,
            tenants: RwLock::default(),
            others: Arc::new(others),
        }
    }

    /// The counters of `tenant`, or of all others together.
    pub(crate) fn tenant(&self, tenant: &TenantId) -> Arc<TenantMetrics> {
        let known = self.tenants.read();
        if let Some(found) = known.get(tenant) {
            return found.clone();
        }
        if known.len() >= TENANTS_MAX {
            return self.others.clone();
        }
        drop(known);
        let mut known = self.tenants.write();
        if known.len() >= TENANTS_MAX && !known.contains_key(tenant) {
            return self.others.clone();
        }
        let new =
            || TenantMetrics::new(tenant.as_str(), &self.spans_received, &self.bytes_received);
        known.entry(tenant.clone()).or_insert_with(|| Arc::new(new())).clone()
    }

    /// Counts spans that were rejected.
    pub(crate) fn rejected(&self, tenant: &TenantMetrics, reason: &str, spans: u64) {
        self.spans_rejected.with_label_values(&[&tenant.label, reason]).inc_by(spans);
    }

    /// Counts a request that was refused; `tenant` if it is known.
    pub(crate) fn refused(&self, tenant: Option<&TenantId>, reason: &str) {
        let tenant = tenant.map_or_else(|| self.others.clone(), |tenant| self.tenant(tenant));
        self.requests_refused.with_label_values(&[&tenant.label, reason]).inc();
    }
}

impl TenantMetrics {
    fn new(label: &str, spans: &IntCounterVec, bytes: &IntCounterVec) -> TenantMetrics {
        TenantMetrics {
            label: label.to_owned(),
            spans_received: spans.with_label_values(&[label]),
            bytes_received: bytes.with_label_values(&[label]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_past_the_limit_are_counted_together() {
        let registry = clew_node::Metrics::new();
        let metrics = IngestMetrics::new(&registry);
        for n in 0..TENANTS_MAX + 5 {
            let tenant = TenantId::parse(&format!("t{n}")).unwrap();
            metrics.tenant(&tenant).spans_received.inc();
            metrics.refused(Some(&tenant), "busy");
        }
        let text = registry.render().unwrap();
        let name = "clew_distributor_spans_received_total";
        assert!(text.contains(&format!("{name}{{tenant=\"{OTHER_TENANTS}\"}} 5")), "{text}");
        assert!(text.contains(&format!("{name}{{tenant=\"t999\"}} 1")));
        assert!(!text.contains("tenant=\"t1000\""));
    }
}
