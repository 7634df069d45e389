//! The report as one page that needs nothing else.

use std::fmt::Write;

use super::plot::{Line, figure};
use super::{Report, read_name, to_text};
use crate::measure::{Point, Summary};

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .7rem; text-align: right;
border-bottom: 1px solid var(--line) } td:first-child, th:first-child { text-align: left }
pre { overflow-x: auto; padding: .7rem; border: 1px solid var(--line) } figure { margin: 1.5rem 0 }
svg { width: 100%; font: 11px system-ui, sans-serif } svg text { fill: currentColor; opacity: .7 }
.g { stroke: var(--line) } polyline { fill: none; stroke-width: 1.5 }
.l0 { stroke: #2f7ed8 } .l1 { stroke: #d8602f } .l2 { stroke: #3a9d4a } .l3 { stroke: #8f5bc0 }
.c0 { color: #2f7ed8 } .c1 { color: #d8602f } .c2 { color: #3a9d4a } .c3 { color: #8f5bc0 }
.bad { color: #c22 }";

/// The report as a page.
pub fn to_html(report: &Report) -> String {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Clew load test</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style>\
         <h1>Load test of {}</h1>",
        escaped(&report.server)
    );
    // Writing to a string does not fail.
    let data_set = &report.data_set;
    let _ = write!(
        out,
        "<p>{} traces of {} services for {} tenants, seed {}. {}</p>",
        data_set.traces,
        data_set.services,
        data_set.tenants,
        data_set.seed,
        if report.is_clean() {
            "Every answer was right and nothing was lost."
        } else {
            "<b class=\"bad\">Something was wrong; see below.</b>"
        }
    );
    put_latencies(&mut out, report);
    put_plots(&mut out, &report.points);
    put_queries(&mut out, report);
    let _ = write!(out, "<h2>In full</h2><pre>{}</pre></html>", escaped(&to_text(report)));
    out
}

fn put_latencies(out: &mut String, report: &Report) {
    let mut rows: Vec<(&str, Summary)> = Vec::new();
    if let Some(sending) = &report.sending {
        rows.push(("request to ack", sending.ack));
    }
    rows.extend(report.reads.iter().map(|(kind, summary)| (read_name(*kind), *summary)));
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Latency</h2><table><tr><th>milliseconds<th>count<th>p50<th>p90<th>p99<th>p99.9\
         <th>max</tr>",
    );
    for (name, summary) in rows {
        let Summary { count, p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = summary;
        let _ = write!(
            out,
            "<tr><td>{name}<td>{count}<td>{p50_ms:.2}<td>{p90_ms:.2}<td>{p99_ms:.2}\
             <td>{p999_ms:.2}<td>{max_ms:.2}</tr>"
        );
    }
    out.push_str("</table>");
}

fn put_plots(out: &mut String, points: &[Point]) {
    if points.len() < 2 {
        return;
    }
    let line = |name, value: fn(&Point) -> Option<f64>| Line {
        name,
        points: points.iter().filter_map(|p| Some((p.at_seconds, value(p)?))).collect(),
    };
    out.push_str("<h2>Over time</h2>");
    let spans = [line("acknowledged", |p| Some(p.spans_per_second))];
    out.push_str(&figure("Spans", "seconds", "per second", &spans));
    let ack = [
        line("p50", |p| (p.ack.count > 0).then_some(p.ack.p50_ms)),
        line("p99", |p| (p.ack.count > 0).then_some(p.ack.p99_ms)),
        line("max", |p| (p.ack.count > 0).then_some(p.ack.max_ms)),
    ];
    out.push_str(&figure("Request to ack", "seconds", "milliseconds", &ack));
    if points.iter().any(|point| point.read.count > 0) {
        let read = [
            line("p50", |p| (p.read.count > 0).then_some(p.read.p50_ms)),
            line("p99", |p| (p.read.count > 0).then_some(p.read.p99_ms)),
        ];
        out.push_str(&figure("Reads", "seconds", "milliseconds", &read));
    }
    if points.iter().any(|point| point.found.count > 0) {
        let found = [
            line("p50", |p| (p.found.count > 0).then_some(p.found.p50_ms)),
            line("max", |p| (p.found.count > 0).then_some(p.found.max_ms)),
        ];
        out.push_str(&figure("Ack to found", "seconds", "milliseconds", &found));
    }
    if points.iter().any(|point| point.retried > 0) {
        let retried = [line("repeated", |p| Some(p.retried as f64))];
        out.push_str(&figure("Attempts repeated", "seconds", "per interval", &retried));
    }
    if points.iter().any(|point| point.rss_bytes.is_some()) {
        let cpu = [line("server", |p| p.cpu_cores)];
        out.push_str(&figure("Processor use", "seconds", "cores", &cpu));
        let memory = [line("server", |p| p.rss_bytes.map(|bytes| bytes as f64))];
        out.push_str(&figure("Memory", "seconds", "bytes", &memory));
    }
}

fn put_queries(out: &mut String, report: &Report) {
    if report.queries.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Queries</h2><table><tr><th>class<th>results<th>queries<th>p50 ms<th>p99 ms\
         <th>CPU ms<th>wrong</tr>",
    );
    for cost in &report.queries {
        let cpu = cost.cpu_ms.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}"));
        let latency = &cost.latency;
        let _ = write!(
            out,
            "<tr title=\"{}\"><td>{}<td>{}<td>{}<td>{:.2}<td>{:.2}<td>{cpu}<td>{}</tr>",
            escaped(&cost.example),
            escaped(&cost.class),
            cost.results,
            latency.count,
            latency.p50_ms,
            latency.p99_ms,
            cost.wrong
        );
    }
    out.push_str("</table>");
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::check::Findings;
    use crate::workload::tests::data_set;

    fn point(at_seconds: f64) -> Point {
        Point {
            at_seconds,
            spans_per_second: 10.0,
            retried: 1,
            ack: Summary { count: 1, p50_ms: 2.0, ..Summary::default() },
            read: Summary { count: 1, p50_ms: 3.0, ..Summary::default() },
            found: Summary { count: 1, p50_ms: 4.0, ..Summary::default() },
            cpu_cores: Some(1.0),
            rss_bytes: Some(1 << 20),
        }
    }

    #[test]
    fn the_page_escapes_and_stands_alone() {
        let mut findings = Findings::default();
        findings.note("search", "{ a < 1 && b }", vec!["<script>".to_owned()]);
        let report = Report {
            queries: vec![crate::queries::Cost {
                class: "x".to_owned(),
                example: "{ a < 1 }".to_owned(),
                results: 1,
                latency: Summary::default(),
                cpu_ms: None,
                wrong: 1,
            }],
            findings,
            points: vec![point(1.0), point(2.0)],
            ..Report::about("http://a\"<b>", &data_set(10))
        };
        let page = to_html(&report);
        assert!(!page.contains("<script>") && !page.contains("http://a\"<b>"));
        assert!(!page.contains("src=") && !page.contains("href="));
        assert_eq!(page.matches("<figure>").count(), page.matches("</svg></figure>").count());
        assert!(page.matches("<figure>").count() >= 7);
        assert!(page.contains("Something was wrong"));
    }
}
