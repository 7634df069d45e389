//! Two results side by side, with the ratio of each number.

use std::fmt::Write;

use super::report::{BenchReport, QueryCost};
use super::table::number;
use crate::error::Error;

/// A table of the numbers of two results and their ratios: below 1, the second is cheaper.
///
/// # Errors
/// [`Error::Usage`] when they are not of the same data set.
pub fn compare(before: &BenchReport, after: &BenchReport) -> Result<String, Error> {
    if before.data_set != after.data_set {
        let message = "the two results are of different data sets, so they cannot be compared";
        return Err(Error::Usage(message.to_owned()));
    }
    let mut out = String::new();
    let mut row = |name: &str, before: Option<f64>, after: Option<f64>| {
        let text = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let ratio = match (before, after) {
            (Some(before), Some(after)) if before > 0.0 => format!("{:.2}", after / before),
            _ => String::new(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<50}{:>16}{:>16}{ratio:>8}", text(before), text(after));
    };
    for (name, before, after) in pairs(before, after) {
        row(&name, before, after);
    }
    let head = format!("{:<50}{:>16}{:>16}{:>8}\n", "", before.label, after.label, "ratio");
    Ok(head + &out)
}

type Pair = (String, Option<f64>, Option<f64>);
type Measure = fn(&QueryCost) -> f64;

/// The numbers of both by name, in the order of the second, then what only the first has.
fn pairs(before: &BenchReport, after: &BenchReport) -> Vec<Pair> {
    let (before, after) = (numbers(before), numbers(after));
    let mut pairs: Vec<Pair> = Vec::with_capacity(after.len());
    for (name, value) in &after {
        let other = before.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        pairs.push((name.clone(), other, Some(*value)));
    }
    for (name, value) in before {
        if !after.iter().any(|(known, _)| *known == name) {
            pairs.push((name, Some(value), None));
        }
    }
    pairs
}

fn numbers(report: &BenchReport) -> Vec<(String, f64)> {
    let mut group = "";
    let mut numbers = Vec::new();
    for figure in &report.figures {
        // Parts of different numbers may be called the same.
        if !figure.name.starts_with(' ') {
            group = figure.name.split(',').next().unwrap_or_default();
            numbers.push((figure.name.clone(), figure.measured));
        } else {
            let group = group.split(' ').next().unwrap_or_default();
            numbers.push((format!("  {group}: {}", figure.name.trim()), figure.measured));
        }
    }
    let measures: [(&str, Measure); 2] =
        [("CPU ms", |cost| cost.cpu_ms), ("p50 ms", |cost| cost.p50_ms)];
    for (what, pick) in measures {
        for query in &report.queries {
            numbers.push((format!("{}, fresh, {what}", query.class), pick(&query.fresh)));
            numbers.push((format!("{}, flushed, {what}", query.class), pick(&query.flushed)));
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::super::report::{Figure, QueryFigure};
    use super::*;
    use crate::workload::tests::data_set;

    fn report(label: &str, cpu: f64, query: f64) -> BenchReport {
        let cost = QueryCost { cpu_ms: query, p50_ms: 1.0, p99_ms: 1.0, asked: 1, wrong: 0 };
        let figure = |name: &str, measured| Figure {
            name: name.to_owned(),
            measured,
            must: None,
            aim: None,
        };
        BenchReport {
            label: label.to_owned(),
            data_set: data_set(10),
            spans: 200,
            figures: vec![figure("CPU seconds", cpu), figure("  log", cpu / 2.0)],
            queries: vec![QueryFigure {
                class: "trace by id".to_owned(),
                example: String::new(),
                results: 1,
                fresh: cost,
                flushed: cost,
                must: None,
                aim: None,
            }],
            wrong: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_of_the_second_to_the_first() {
        let table = compare(&report("old", 8.0, 2.0), &report("new", 4.0, 3.0)).unwrap();
        let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line("CPU seconds").ends_with("0.50"), "{table}");
        assert!(line("  CPU: log").ends_with("0.50"), "{table}");
        assert!(line("trace by id, fresh, CPU ms").ends_with("1.50"), "{table}");
    }

    #[test]
    fn other_data_cannot_be_compared() {
        let mut other = report("new", 1.0, 1.0);
        other.data_set = data_set(11);
        assert!(compare(&report("old", 1.0, 1.0), &other).is_err());
    }

    #[test]
    fn what_only_one_has_is_shown() {
        let mut old = report("old", 1.0, 1.0);
        old.figures.truncate(1);
        let table = compare(&old, &report("new", 1.0, 1.0)).unwrap();
        assert!(table.lines().any(|line| line.starts_with("  CPU: log") && line.contains(" - ")));
    }
}
