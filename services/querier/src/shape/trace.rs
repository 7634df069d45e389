//! A trace as JSON, in the forms of both versions of the endpoint.

use clew_model::otlp::to_json::write_resource_spans_json;
use clew_model::{ModelError, Trace};

use super::PARTIAL;

/// Version 1: `{"batches":[…]}`.
pub(crate) fn trace_v1_json(trace: &Trace) -> Result<String, ModelError> {
    let mut out = String::from("{\"batches\":");
    write_resource_spans_json(trace, &mut out)?;
    out.push('}');
    Ok(out)
}

/// Version 2: the trace with what reading it took and what is missing of it. A trace that was not
/// found is an empty one.
pub(crate) fn trace_v2_json(
    trace: Option<&Trace>,
    inspected_bytes: u64,
    missing: Option<&str>,
) -> Result<String, ModelError> {
    let mut out = String::from("{\"trace\":{\"resourceSpans\":");
    match trace {
        Some(trace) => write_resource_spans_json(trace, &mut out)?,
        None => out.push_str("[]"),
    }
    out.push_str("},\"metrics\":{");
    if inspected_bytes != 0 {
        out.push_str("\"inspectedBytes\":\"");
        out.push_str(&inspected_bytes.to_string());
        out.push('"');
    }
    out.push('}');
    if let Some(message) = missing {
        let message = serde_json::Value::from(message);
        out.push_str(&format!(",\"status\":\"{PARTIAL}\",\"message\":{message}"));
    }
    out.push('}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_was_not_found_is_empty_in_version_2() {
        assert_eq!(
            trace_v2_json(None, 0, None).unwrap(),
            r#"{"trace":{"resourceSpans":[]},"metrics":{}}"#
        );
        assert_eq!(
            trace_v2_json(None, 9, Some("a \"b\"")).unwrap(),
            concat!(
                r#"{"trace":{"resourceSpans":[]},"metrics":{"inspectedBytes":"9"},"#,
                r#""status":"PARTIAL","message":"a \"b\""}"#
            )
        );
    }
}
