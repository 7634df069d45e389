//! The answers to requests for tag names and values.

use clew_proto::tempopb::{
    MetadataMetrics, SearchTagValuesResponse, SearchTagValuesV2Response, SearchTagsResponse,
    SearchTagsV2Response,
};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::PARTIAL;
use super::value::Text;

/// The names of the scope `intrinsic`, in the order Tempo lists them. `span:childCount` and the
/// nested set fields are left out there too.
pub(crate) const INTRINSIC_NAMES: [&str; 25] = [
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
];

macro_rules! tag_answers {
    ($($(#[$doc:meta])* $json:ident($response:ty) writes $field:literal as $write:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $json<'a> {
            pub(crate) response: &'a $response,
            pub(crate) missing: Option<&'a str>,
        }

        impl Serialize for $json<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                let write: fn(&$response) -> serde_json::Value = $write;
                map.serialize_entry($field, &write(self.response))?;
                map.serialize_entry("metrics", &MetricsJson(self.response.metrics.as_ref()))?;
                if let Some(message) = self.missing {
                    map.serialize_entry("status", PARTIAL)?;
                    map.serialize_entry("message", message)?;
                }
                map.end()
            }
        }
    )*};
}
tag_answers! {
    /// Names without their scopes.
    TagNamesJson(SearchTagsResponse) writes "tagNames" as |r| r.tag_names.clone().into();
    /// Names by scope.
    TagNamesV2Json(SearchTagsV2Response) writes "scopes" as |r| {
        let scope = |scope: &clew_proto::tempopb::SearchTagsV2Scope| {
            serde_json::json!({ "name": scope.name, "tags": scope.tags })
        };
        r.scopes.iter().map(scope).collect()
    };
    /// Values without their types.
    TagValuesJson(SearchTagValuesResponse) writes "tagValues" as |r| r.tag_values.clone().into();
    /// Values with their types.
    TagValuesV2Json(SearchTagValuesV2Response) writes "tagValues" as |r| {
        let value = |value: &clew_proto::tempopb::TagValue| {
            serde_json::json!({ "type": value.r#type, "value": value.value })
        };
        r.tag_values.iter().map(value).collect()
    };
}

struct MetricsJson<'a>(Option<&'a MetadataMetrics>);

impl Serialize for MetricsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(None)?;
        let Some(metrics) = self.0 else { return out.end() };
        let small = [
            ("totalJobs", metrics.total_jobs),
            ("completedJobs", metrics.completed_jobs),
            ("totalBlocks", metrics.total_blocks),
        ];
        for (name, number) in small.into_iter().filter(|(_, number)| *number != 0) {
            out.serialize_entry(name, &number)?;
        }
        let large = [
            ("inspectedBytes", metrics.inspected_bytes),
            ("totalBlockBytes", metrics.total_block_bytes),
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
    use clew_proto::tempopb::{SearchTagsV2Scope, TagValue};

    use super::*;

    #[test]
    fn tag_answers_have_their_shapes() {
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let metrics = Some(MetadataMetrics { inspected_bytes: 7, ..MetadataMetrics::default() });
        let response = SearchTagsResponse { tag_names: text(&["a", "b"]), metrics: None };
        assert_eq!(
            serde_json::to_string(&TagNamesJson { response: &response, missing: None }).unwrap(),
            r#"{"tagNames":["a","b"],"metrics":{}}"#
        );
        let scope = SearchTagsV2Scope { name: "span".to_owned(), tags: text(&["a"]) };
        let response = SearchTagsV2Response { scopes: vec![scope], metrics };
        assert_eq!(
            serde_json::to_string(&TagNamesV2Json { response: &response, missing: None }).unwrap(),
            r#"{"scopes":[{"name":"span","tags":["a"]}],"metrics":{"inspectedBytes":"7"}}"#
        );
        let response = SearchTagValuesResponse { tag_values: text(&["x"]), metrics: None };
        assert_eq!(
            serde_json::to_string(&TagValuesJson { response: &response, missing: Some("m") })
                .unwrap(),
            r#"{"tagValues":["x"],"metrics":{},"status":"PARTIAL","message":"m"}"#
        );
        let value = TagValue { r#type: "keyword".to_owned(), value: "error".to_owned() };
        let response = SearchTagValuesV2Response { tag_values: vec![value], metrics: None };
        assert_eq!(
            serde_json::to_string(&TagValuesV2Json { response: &response, missing: None }).unwrap(),
            r#"{"tagValues":[{"type":"keyword","value":"error"}],"metrics":{}}"#
        );
    }

    #[test]
    fn the_intrinsics_are_sorted_and_unique() {
        assert!(INTRINSIC_NAMES.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
