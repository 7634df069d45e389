//! The report as text for a terminal.

use std::fmt::Write;

use super::{Report, Sending, read_name};
use crate::check::Findings;
use crate::measure::Summary;
use crate::overload::Overload;
use crate::queries::Cost;
use crate::soak::Crash;
use crate::verify::Verified;

/// The report as text.
pub fn to_text(report: &Report) -> String {
    let mut out = String::new();
    if let Some(sending) = &report.sending {
        put_sending(&mut out, sending);
        line(&mut out, &latency_head());
        line(&mut out, &latency_row("request to ack", &sending.ack));
        if sending.lag.max_ms > 0.0 {
            line(&mut out, &latency_row("behind schedule", &sending.lag));
        }
        for (kind, summary) in &report.reads {
            line(&mut out, &latency_row(read_name(*kind), summary));
        }
        line(&mut out, "");
        for (message, count) in &sending.messages {
            line(&mut out, &format!("{count:>8} x {message}"));
        }
    }
    for Crash { at_seconds, away_seconds, unanswered_seconds } in &report.crashes {
        line(
            &mut out,
            &format!(
                "killed after {at_seconds:.1} s, ready again {away_seconds:.2} s later, at most \
                 {unanswered_seconds:.2} s without an answer"
            ),
        );
    }
    if !report.crashes.is_empty() {
        line(&mut out, "");
    }
    if let Some(overload) = &report.overload {
        put_overload(&mut out, overload);
    }
    if let Some(verified) = &report.verified {
        put_verified(&mut out, verified);
    }
    if !report.queries.is_empty() {
        put_queries(&mut out, &report.queries);
        put_findings(&mut out, &report.findings);
    }
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn put_sending(out: &mut String, sending: &Sending) {
    let totals = &sending.totals;
    let mut row = |name: &str, value: String| line(out, &format!("{name:<34}{value:>18}"));
    row("seconds", format!("{:.1}", sending.seconds));
    row("spans acknowledged", totals.spans_acked.to_string());
    row("spans per second", format!("{:.0}", sending.spans_per_second));
    row("MB per second", format!("{:.1}", sending.bytes_per_second / 1e6));
    row("bytes per span", format!("{:.0}", sending.bytes_per_span));
    row("requests acknowledged", totals.requests_acked.to_string());
    row("attempts refused for now", totals.attempts_put_off.to_string());
    row("attempts without an answer", totals.attempts_unanswered.to_string());
    row("attempts repeated", totals.attempts_retried.to_string());
    row("requests of unknown fate", totals.requests_unknown.to_string());
    row("spans rejected", totals.spans_rejected.to_string());
    if totals.reads_failed + totals.found_late + totals.never_found + totals.reads_skipped > 0 {
        row("reads failed", totals.reads_failed.to_string());
        row("spans found late", totals.found_late.to_string());
        row("spans never found", totals.never_found.to_string());
        row("reads left out", totals.reads_skipped.to_string());
    }
    if let Some(server) = &sending.server {
        row("server CPU seconds", format!("{:.2}", server.cpu_seconds));
        let per_million = format!("{:.2}", server.cpu_seconds_per_million_spans);
        row("server CPU seconds per M spans", per_million);
        row("server peak memory, MB", format!("{:.0}", server.peak_rss_bytes as f64 / 1e6));
    }
    line(out, "");
}

fn put_overload(out: &mut String, overload: &Overload) {
    let mut row = |name: &str, value: String| line(out, &format!("{name:<34}{value:>18}"));
    let Overload { sustained, offered, taken, refused, hinted, unanswered, .. } = overload;
    row("spans per second sustained", format!("{sustained:.0}"));
    row("spans per second offered", format!("{offered:.0}"));
    let share = taken / sustained.max(1e-9) * 100.0;
    row("spans per second taken", format!("{taken:.0} ({share:.0} %)"));
    row("attempts refused for now", refused.to_string());
    row("of these with a pause to keep", hinted.to_string());
    row("attempts without an answer in time", unanswered.to_string());
    let (peak, most) = (overload.peak_rss_bytes as f64 / 1e6, overload.memory_max as f64 / 1e6);
    row("peak memory, MB", format!("{peak:.0} of {most:.0}"));
    line(out, if overload.is_clean() { "overload was borne" } else { "OVERLOAD WAS NOT BORNE" });
    line(out, "");
}

fn latency_head() -> String {
    format!(
        "{:<26}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "milliseconds", "count", "mean", "p50", "p90", "p99", "max"
    )
}

fn latency_row(name: &str, summary: &Summary) -> String {
    let Summary { count, mean_ms, p50_ms, p90_ms, p99_ms, max_ms, .. } = summary;
    format!(
        "{name:<26}{count:>9}{mean_ms:>10.2}{p50_ms:>10.2}{p90_ms:>10.2}{p99_ms:>10.2}\
         {max_ms:>10.2}"
    )
}

fn put_verified(out: &mut String, verified: &Verified) {
    let searches: u64 = verified.searches.values().sum();
    line(
        out,
        &format!(
            "verified: {} traces with {} spans sent; {} asked for by id, {searches} searches in \
             {} classes, {} lists of attribute names and values{}",
            verified.traces,
            verified.spans,
            verified.by_id,
            verified.searches.len(),
            verified.tags,
            if verified.closed { "" } else { "; some requests have an unknown fate" },
        ),
    );
    put_findings(out, &verified.findings);
}

pub(crate) fn put_findings(out: &mut String, findings: &Findings) {
    if findings.total() == 0 {
        line(out, "every answer was right");
    }
    for (subject, count) in &findings.counts {
        line(out, &format!("WRONG: {count} answers to {subject}"));
        for finding in findings.kept.iter().filter(|finding| finding.subject == *subject) {
            line(out, &format!("  {}", finding.asked));
            for detail in &finding.details {
                line(out, &format!("    {detail}"));
            }
        }
    }
    line(out, "");
}

fn put_queries(out: &mut String, queries: &[Cost]) {
    let mut head = String::new();
    // Writing to a string does not fail.
    let _ = write!(head, "{:<30}{:>9}{:>9}", "query class", "results", "queries");
    let _ = write!(
        head,
        "{:>10}{:>10}{:>10}{:>12}{:>7}",
        "p50 ms", "p99 ms", "max ms", "CPU ms", "wrong"
    );
    line(out, &head);
    for cost in queries {
        let latency = &cost.latency;
        let cpu = cost.cpu_ms.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}"));
        line(
            out,
            &format!(
                "{:<30}{:>9}{:>9}{:>10.2}{:>10.2}{:>10.2}{cpu:>12}{:>7}",
                cost.class,
                cost.results,
                latency.count,
                latency.p50_ms,
                latency.p99_ms,
                latency.max_ms,
                cost.wrong
            ),
        );
    }
    line(out, "");
}
