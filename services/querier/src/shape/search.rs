//! The answer of a search.

use clew_proto::tempopb::{
    SearchMetrics, SearchResponse, ServiceStats, Span, SpanSet, TraceSearchMetadata,
};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::PARTIAL;
use super::value::{Attributes, Text};

/// A search's answer as JSON; what it misses goes into fields that a Tempo client ignores.
pub(crate) struct SearchJson<'a> {
    pub(crate) response: &'a SearchResponse,
    pub(crate) missing: Option<&'a str>,
    /// How the search was run, if that was asked for.
    pub(crate) explained: Option<&'a serde_json::Value>,
}

impl Serialize for SearchJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let traces: Vec<TraceJson<'_>> = self.response.traces.iter().map(TraceJson).collect();
        map.serialize_entry("traces", &traces)?;
        let none = SearchMetrics::default();
        let metrics = self.response.metrics.as_ref().unwrap_or(&none);
        map.serialize_entry("metrics", &MetricsJson(metrics))?;
        if let Some(message) = self.missing {
            map.serialize_entry("status", PARTIAL)?;
            map.serialize_entry("message", message)?;
        }
        if let Some(explained) = self.explained {
            map.serialize_entry("explain", explained)?;
        }
        map.end()
    }
}

struct TraceJson<'a>(&'a TraceSearchMetadata);

impl Serialize for TraceJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let trace = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("traceID", &trace.trace_id)?;
        if !trace.root_service_name.is_empty() {
            map.serialize_entry("rootServiceName", &trace.root_service_name)?;
        }
        if !trace.root_trace_name.is_empty() {
            map.serialize_entry("rootTraceName", &trace.root_trace_name)?;
        }
        map.serialize_entry("startTimeUnixNano", &Text(trace.start_time_unix_nano))?;
        if trace.duration_ms != 0 {
            map.serialize_entry("durationMs", &trace.duration_ms)?;
        }
        if let Some(set) = trace.span_set.as_ref().or_else(|| trace.span_sets.first()) {
            map.serialize_entry("spanSet", &SpanSetJson(set))?;
        }
        if !trace.span_sets.is_empty() {
            let sets: Vec<SpanSetJson<'_>> = trace.span_sets.iter().map(SpanSetJson).collect();
            map.serialize_entry("spanSets", &sets)?;
        }
        if !trace.service_stats.is_empty() {
            let stats = trace.service_stats.iter().map(|(name, stats)| (name, StatsJson(stats)));
            map.serialize_entry("serviceStats", &Stats(stats.collect()))?;
        }
        map.end()
    }
}

struct Stats<'a>(Vec<(&'a String, StatsJson<'a>)>);

impl Serialize for Stats<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, stats)| (name, stats)))
    }
}

struct StatsJson<'a>(&'a ServiceStats);

impl Serialize for StatsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("spanCount", &self.0.span_count)?;
        if self.0.error_count != 0 {
            map.serialize_entry("errorCount", &self.0.error_count)?;
        }
        map.end()
    }
}

struct SpanSetJson<'a>(&'a SpanSet);

impl Serialize for SpanSetJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        // Kiali reads the first span without looking, Grafana the number: both are always there.
        let spans: Vec<SpanJson<'_>> = self.0.spans.iter().map(SpanJson).collect();
        map.serialize_entry("spans", &spans)?;
        map.serialize_entry("matched", &self.0.matched)?;
        if !self.0.attributes.is_empty() {
            map.serialize_entry("attributes", &Attributes(&self.0.attributes))?;
        }
        map.end()
    }
}

struct SpanJson<'a>(&'a Span);

impl Serialize for SpanJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let span = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("spanID", &span.span_id)?;
        if !span.name.is_empty() {
            map.serialize_entry("name", &span.name)?;
        }
        map.serialize_entry("startTimeUnixNano", &Text(span.start_time_unix_nano))?;
        map.serialize_entry("durationNanos", &Text(span.duration_nanos))?;
        if !span.attributes.is_empty() {
            map.serialize_entry("attributes", &Attributes(&span.attributes))?;
        }
        map.end()
    }
}

struct MetricsJson<'a>(&'a SearchMetrics);

impl Serialize for MetricsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let metrics = self.0;
        let mut out = serializer.serialize_map(None)?;
        let small = [
            ("inspectedTraces", metrics.inspected_traces),
            ("totalBlocks", metrics.total_blocks),
            ("completedJobs", metrics.completed_jobs),
            ("totalJobs", metrics.total_jobs),
        ];
        for (name, number) in small.into_iter().filter(|(_, number)| *number != 0) {
            out.serialize_entry(name, &number)?;
        }
        let large = [
            ("inspectedBytes", metrics.inspected_bytes),
            ("totalBlockBytes", metrics.total_block_bytes),
            ("inspectedSpans", metrics.inspected_spans),
            ("backendReads", metrics.backend_reads),
            ("backendBytes", metrics.backend_bytes),
        ];
        for (name, number) in large.into_iter().filter(|(_, number)| *number != 0) {
            out.serialize_entry(name, &Text(number))?;
        }
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use clew_proto::common::v1::any_value::Value;
    use clew_proto::common::v1::{AnyValue, KeyValue};

    use super::*;

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
    }

    fn response() -> SearchResponse {
        let set = SpanSet {
            spans: vec![Span {
                span_id: "00000000000000a1".to_owned(),
                name: "GET /".to_owned(),
                start_time_unix_nano: 1_700_000_000_000_000_001,
                duration_nanos: 0,
                attributes: vec![
                    attribute("http.status_code", Value::IntValue(500)),
                    attribute("ratio", Value::DoubleValue(0.5)),
                ],
            }],
            matched: 2,
            attributes: vec![attribute("by(status)", Value::StringValue("error".to_owned()))],
        };
        let trace = TraceSearchMetadata {
            trace_id: "abc".to_owned(),
            root_service_name: "shop".to_owned(),
            root_trace_name: "GET /".to_owned(),
            start_time_unix_nano: 1_700_000_000_000_000_000,
            duration_ms: 12,
            span_set: Some(set.clone()),
            span_sets: vec![set],
            service_stats: [("shop".to_owned(), ServiceStats { span_count: 3, error_count: 1 })]
                .into(),
        };
        let metrics = SearchMetrics {
            inspected_traces: 4,
            inspected_bytes: 1 << 40,
            total_jobs: 1,
            completed_jobs: 1,
            ..SearchMetrics::default()
        };
        SearchResponse { traces: vec![trace], metrics: Some(metrics), ..SearchResponse::default() }
    }

    #[test]
    fn a_search_answer_is_what_grafana_decodes() {
        let set = concat!(
            r#"{"spans":[{"spanID":"00000000000000a1","name":"GET /","#,
            r#""startTimeUnixNano":"1700000000000000001","durationNanos":"0","attributes":["#,
            r#"{"key":"http.status_code","value":{"intValue":"500"}},"#,
            r#"{"key":"ratio","value":{"doubleValue":0.5}}]}],"matched":2,"#,
            r#""attributes":[{"key":"by(status)","value":{"stringValue":"error"}}]}"#,
        );
        let golden = [
            r#"{"traces":[{"traceID":"abc","rootServiceName":"shop","rootTraceName":"GET /","#,
            r#""startTimeUnixNano":"1700000000000000000","durationMs":12,"spanSet":"#,
            set,
            r#","spanSets":["#,
            set,
            r#"],"serviceStats":{"shop":{"spanCount":3,"errorCount":1}}}],"#,
            r#""metrics":{"inspectedTraces":4,"completedJobs":1,"totalJobs":1,"#,
            r#""inspectedBytes":"1099511627776"}}"#,
        ]
        .concat();
        let response = response();
        let json = SearchJson { response: &response, missing: None, explained: None };
        assert_eq!(serde_json::to_string(&json).unwrap(), golden);
    }

    #[test]
    fn nothing_found_and_something_missing_are_told_apart() {
        let empty = SearchResponse::default();
        let whole = SearchJson { response: &empty, missing: None, explained: None };
        assert_eq!(serde_json::to_string(&whole).unwrap(), r#"{"traces":[],"metrics":{}}"#);
        let part = SearchJson { response: &empty, missing: Some("shard 1: gone"), explained: None };
        assert_eq!(
            serde_json::to_string(&part).unwrap(),
            r#"{"traces":[],"metrics":{},"status":"PARTIAL","message":"shard 1: gone"}"#
        );
    }
}
