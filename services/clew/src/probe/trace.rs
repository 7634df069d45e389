//! A trace that the prober knows: a root and two children, made from random ids.

use clew_model::UnixNanos;
use clew_node::Rng;
use serde_json::{Value, json};

/// The service that probes belong to.
pub(super) const SERVICE: &str = "clew-probe";

/// The attribute that no two probes share.
pub(super) const ID_ATTRIBUTE: &str = "clew.probe.id";

/// How long before it is written a probe ends; its spans lie in the past.
const AGE_NANOS: u64 = 1_000_000_000;

/// A trace as it is written.
pub(super) struct KnownTrace {
    /// 32 digits.
    pub(super) trace_id: String,
    /// 16 digits each, the root first.
    pub(super) span_ids: [String; 3],
    /// The value of [`ID_ATTRIBUTE`].
    pub(super) id: String,
    /// Unix nanoseconds.
    pub(super) start: u64,
}

impl KnownTrace {
    pub(super) fn new(rng: &Rng, now: UnixNanos) -> KnownTrace {
        // Zero is no id.
        let part = || rng.next_u64().max(1);
        KnownTrace {
            trace_id: format!("{:016x}{:016x}", part(), part()),
            span_ids: [(); 3].map(|()| format!("{:016x}", part())),
            id: format!("{:016x}", part()),
            start: now.as_seconds().saturating_mul(1_000_000_000).saturating_sub(AGE_NANOS),
        }
    }

    /// The export request as OTLP/JSON.
    pub(super) fn export(&self) -> Value {
        let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
        let spans = self.span_ids.iter().enumerate().map(|(n, span_id)| {
            let offset = n as u64 * 1_000_000;
            json!({
                "traceId": self.trace_id,
                "spanId": span_id,
                "parentSpanId": if n == 0 { "" } else { self.span_ids[0].as_str() },
                "name": if n == 0 { "probe" } else { "probe child" },
                "kind": if n == 0 { 2 } else { 1 },
                "startTimeUnixNano": (self.start + offset).to_string(),
                "endTimeUnixNano": (self.start + 10_000_000 + offset).to_string(),
                "attributes": [text(ID_ATTRIBUTE, &self.id)],
            })
        });
        json!({"resourceSpans": [{
            "resource": {"attributes": [text("service.name", SERVICE)]},
            "scopeSpans": [{"scope": {"name": "clew probe"}, "spans": spans.collect::<Vec<_>>()}],
        }]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_one_root_with_two_children() {
        let now = UnixNanos::from_seconds(1_700_000_000);
        let known = KnownTrace::new(&Rng::seeded(1), now);
        let export = known.export();
        let spans = export["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        assert_eq!(spans.len(), 3);
        let roots = spans.iter().filter(|span| span["parentSpanId"] == "");
        assert_eq!(roots.count(), 1);
        assert_eq!(known.trace_id.len(), 32);
        let other = KnownTrace::new(&Rng::seeded(2), now);
        assert_ne!(known.id, other.id);
    }
}
