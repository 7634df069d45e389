//! `clew explain`: has a server run a search and say how.

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::cli::Explain;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The columns of the table of steps: what they are called, and in the answer.
const COLUMNS: [(&str, &str); 9] = [
    ("places", "places"),
    ("candidates", "candidates"),
    ("kept", "kept"),
    ("traces", "inspectedTraces"),
    ("spans", "inspectedSpans"),
    ("bytes", "inspectedBytes"),
    ("reads", "reads"),
    ("read bytes", "readBytes"),
    ("micros", "micros"),
];

/// The plan and the steps as text, or why there are none.
pub(crate) async fn run(explain: Explain) -> Result<String, String> {
    let uri = uri_of(&explain)?;
    let mut request = Request::get(&uri);
    if let Some(tenant) = &explain.tenant {
        request = request.header("x-scope-orgid", tenant);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let response = client.request(request).await;
    let response = response.map_err(|error| format!("cannot ask {}: {error}", explain.url))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    if !status.is_success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
    }
    let answer: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    text_of(&answer).ok_or_else(|| "the server does not explain searches".to_owned())
}

fn uri_of(explain: &Explain) -> Result<Uri, String> {
    let base = explain.url.trim_end_matches('/');
    let mut target = format!(
        "{base}/api/search?explain=true&spss=0&limit={}&q={}",
        explain.limit,
        escaped(&explain.query)
    );
    if let Some(since) = &explain.since {
        target.push_str(&format!("&since={}", escaped(since)));
    }
    let uri: Uri = target.parse().map_err(|error| format!("{base}: {error}"))?;
    if uri.scheme_str() != Some("http") || uri.authority().is_none() {
        return Err(format!("{base} is not of the form http://host:port"));
    }
    Ok(uri)
}

/// The text as a value in a query string.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The explanation in an answer, if there is one.
fn text_of(answer: &Value) -> Option<String> {
    let explanation = answer.get("explain")?;
    let mut out = format!("{}\n\n", explanation.get("query")?.as_str()?);
    for line in explanation.get("plan")?.as_array()? {
        out.push_str(&format!("- {}\n", line.as_str()?));
    }
    let traces = answer.get("traces").and_then(Value::as_array).map_or(0, Vec::len);
    out.push_str(&format!("\n{:<22}", "step"));
    for (title, _) in COLUMNS {
        out.push_str(&format!(" {title:>11}"));
    }
    for step in explanation.get("steps")?.as_array()? {
        out.push_str(&format!("\n{:<22}", step.get("step")?.as_str()?));
        for (_, key) in COLUMNS {
            out.push_str(&format!(" {:>11}", step.get(key)?.as_u64()?));
        }
    }
    out.push_str(&format!("\n\n{traces} traces\n"));
    if let Some(message) = answer.get("message").and_then(Value::as_str) {
        out.push_str(&format!("PARTIAL: {message}\n"));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_becomes_a_table() {
        let mut step = json!({ "step": "search blocks" });
        for (number, (_, key)) in COLUMNS.iter().enumerate() {
            step[*key] = json!(number);
        }
        let answer = json!({
            "traces": [{}],
            "explain": { "query": "{ }", "plan": ["look"], "steps": [step] }
        });
        let text = text_of(&answer).unwrap();
        assert!(text.starts_with("{ }\n\n- look\n\nstep"), "{text}");
        assert!(text.contains("search blocks                    0           1"), "{text}");
        assert!(text.ends_with("\n\n1 traces\n"), "{text}");
        assert_eq!(text_of(&json!({ "traces": [] })), None);
    }

    #[test]
    fn queries_are_escaped() {
        let explain = Explain {
            query: "{ .a = \"ü\" }".to_owned(),
            url: "http://h:1/".to_owned(),
            tenant: None,
            limit: 5,
            since: Some("1h".to_owned()),
        };
        assert_eq!(
            uri_of(&explain).unwrap().to_string(),
            "http://h:1/api/search?explain=true&spss=0&limit=5&q=%7B%20.a%20%3D%20%22%C3%BC%22%20%7D&since=1h"
        );
        let wrong = Explain { url: "ftp://h".to_owned(), ..explain };
        assert!(uri_of(&wrong).is_err());
    }
}
