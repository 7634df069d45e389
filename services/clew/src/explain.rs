//! `clew explain`: has a server run a search and say how.

use reqwest::{Method, Url};
use serde_json::Value;

use crate::cli::Explain;
use crate::web;

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
    let url = url_of(&explain)?;
    let answer = web::ask(Method::GET, url, explain.tenant.as_deref(), ANSWER_BYTES_MAX).await;
    let answer = answer.map_err(|error| format!("cannot ask {}: {error}", explain.url))?;
    if answer.status != 200 {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    let answer: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    text_of(&answer).ok_or_else(|| "the server does not explain searches".to_owned())
}

fn url_of(explain: &Explain) -> Result<Url, String> {
    let limit = explain.limit.to_string();
    let mut parameters = vec![("explain", "true"), ("spss", "0"), ("limit", &*limit)];
    parameters.push(("q", &explain.query));
    parameters.extend(explain.since.as_deref().map(|since| ("since", since)));
    Ok(web::below(&web::url("--url", &explain.url)?, "/api/search", &parameters))
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
            url_of(&explain).unwrap().as_str(),
            "http://h:1/api/search?explain=true&spss=0&limit=5&q=%7B+.a+%3D+%22%C3%BC%22+%7D&since=1h"
        );
        let wrong = Explain { url: "ftp://h".to_owned(), ..explain };
        assert!(url_of(&wrong).is_err());
    }
}
