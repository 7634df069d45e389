//! The benchmark's result as text for a terminal.

use std::fmt::Write;

use super::REFERENCE_TRACES;
use super::report::BenchReport;

/// The result as a table; what misses its goal is marked.
pub fn to_table(report: &BenchReport) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = put_figures(&mut out, report);
    let _ = put_queries(&mut out, report);
    let _ = put_end(&mut out, report);
    out
}

fn put_figures(out: &mut String, report: &BenchReport) -> std::fmt::Result {
    writeln!(out, "{} spans in {} traces", report.spans, report.data_set.traces)?;
    writeln!(out)?;
    writeln!(out, "{:<50}{:>12}{:>9}{:>9}", "", "measured", "must", "aim")?;
    for figure in &report.figures {
        let (must, aim) = (optional(figure.must), optional(figure.aim));
        let mark = mark(figure.measured, figure.must, figure.aim);
        let measured = number(figure.measured);
        writeln!(out, "{:<50}{measured:>12}{must:>9}{aim:>9}{mark}", figure.name)?;
    }
    writeln!(out)
}

fn put_queries(out: &mut String, report: &BenchReport) -> std::fmt::Result {
    writeln!(
        out,
        "{:<30}{:>8}{:>10}{:>10}{:>8}{:>8}{:>21}{:>21}",
        "", "", "CPU ms", "CPU ms", "", "", "fresh ms", "flushed ms"
    )?;
    writeln!(
        out,
        "{:<30}{:>8}{:>10}{:>10}{:>8}{:>8}{:>21}{:>21}",
        "query", "results", "fresh", "flushed", "must", "aim", "p50 / p99", "p50 / p99"
    )?;
    for query in &report.queries {
        let (fresh, flushed) = (&query.fresh, &query.flushed);
        let worse = fresh.cpu_ms.max(flushed.cpu_ms);
        writeln!(
            out,
            "{:<30}{:>8}{:>10}{:>10}{:>8}{:>8}{:>21}{:>21}{}{}",
            query.class,
            query.results,
            number(fresh.cpu_ms),
            number(flushed.cpu_ms),
            optional(query.must),
            optional(query.aim),
            format!("{} / {}", number(fresh.p50_ms), number(fresh.p99_ms)),
            format!("{} / {}", number(flushed.p50_ms), number(flushed.p99_ms)),
            mark(worse, query.must, query.aim),
            if fresh.wrong + flushed.wrong > 0 { "  WRONG" } else { "" },
        )?;
    }
    writeln!(out)
}

fn put_end(out: &mut String, report: &BenchReport) -> std::fmt::Result {
    if report.data_set.traces != REFERENCE_TRACES {
        writeln!(out, "the goals are stated for {REFERENCE_TRACES} traces, these were others")?;
    }
    match report.wrong.as_slice() {
        [] => writeln!(out, "every answer was right"),
        wrong => wrong.iter().try_for_each(|line| writeln!(out, "WRONG: {line}")),
    }
}

/// Whether a number keeps its goals: nothing if it is as aimed for.
fn mark(measured: f64, must: Option<f64>, aim: Option<f64>) -> &'static str {
    match (must, aim) {
        (Some(must), _) if measured > must => "  misses",
        (_, Some(aim)) if measured > aim => "  holds",
        (_, Some(_)) => "  as aimed",
        _ => "",
    }
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// A number with as many digits as say something.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_judged() {
        assert_eq!(mark(14.0, Some(13.0), Some(8.0)), "  misses");
        assert_eq!(mark(13.0, Some(13.0), Some(8.0)), "  holds");
        assert_eq!(mark(8.0, Some(13.0), Some(8.0)), "  as aimed");
        assert_eq!(mark(8.0, None, None), "");
    }

    #[test]
    fn numbers_have_the_digits_that_matter() {
        assert_eq!([0.1234, 12.34, 12345.6].map(number), ["0.12", "12.3", "12346"]);
    }
}
