//! The benchmark's result as data: named numbers, so that two results can be compared.

use serde::{Deserialize, Serialize};

use super::goals::{self, Goal};
use super::{Flushed, Fresh, Options};
use crate::measure::Summary;
use crate::queries::Cost;
use crate::workload::DataSet;

/// What a benchmark found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BenchReport {
    /// What the caller calls it, such as a commit.
    pub label: String,
    /// What was sent; results are comparable only for the same.
    pub data_set: DataSet,
    /// Spans that were sent.
    pub spans: u64,
    /// Costs of ingest and storage.
    pub figures: Vec<Figure>,
    /// Costs of queries.
    pub queries: Vec<QueryFigure>,
    /// Answers that were wrong, in words.
    pub wrong: Vec<String>,
}

/// One number; less is better unless its name says otherwise.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// What it is, with its unit. Parts of the number before begin with a space.
    pub name: String,
    /// The number.
    pub measured: f64,
    /// What it must not exceed, if anything.
    pub must: Option<f64>,
    /// What is aimed for.
    pub aim: Option<f64>,
}

/// What one class of queries costs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueryFigure {
    /// The class.
    pub class: String,
    /// One of its queries.
    pub example: String,
    /// How many results its first query has.
    pub results: u64,
    /// While everything is in the head.
    pub fresh: QueryCost,
    /// While everything is in blocks.
    pub flushed: QueryCost,
    /// What the processor milliseconds must not exceed, if anything.
    pub must: Option<f64>,
    /// What is aimed for.
    pub aim: Option<f64>,
}

/// Milliseconds per query.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct QueryCost {
    /// Processor time of the server.
    pub cpu_ms: f64,
    /// Median of the time to the whole answer.
    pub p50_ms: f64,
    /// 99 of 100 answers take less.
    pub p99_ms: f64,
    /// How many were asked.
    pub asked: u64,
    /// How many answers were wrong.
    pub wrong: u64,
}

impl BenchReport {
    /// Whether every answer was right.
    pub fn is_clean(&self) -> bool {
        self.wrong.is_empty()
    }
}

pub(super) fn assemble(
    options: &Options,
    data_set: &DataSet,
    flushed: Flushed,
    fresh: Fresh,
) -> BenchReport {
    let mut wrong = Vec::new();
    for (place, findings) in [("blocks", &flushed.findings), ("head", &fresh.findings)] {
        for finding in &findings.kept {
            let details = finding.details.join("; ");
            wrong.push(format!("{place}: {}: {}: {details}", finding.subject, finding.asked));
        }
    }
    if fresh.never_found > 0 {
        wrong.push(format!("{} acknowledged spans were never found", fresh.never_found));
    }
    let queries = flushed.costs.iter().zip(&fresh.costs).map(|(flushed, fresh)| {
        let goal = goals::query(&flushed.class);
        QueryFigure {
            class: flushed.class.clone(),
            example: flushed.example.clone(),
            results: flushed.results,
            fresh: cost(fresh),
            flushed: cost(flushed),
            must: goal.map(|goal| goal.must),
            aim: goal.map(|goal| goal.aim),
        }
    });
    BenchReport {
        label: options.label.clone(),
        data_set: data_set.clone(),
        spans: flushed.spans,
        figures: figures(&flushed, &fresh.found_by_search, &fresh.found_by_id),
        queries: queries.collect(),
        wrong,
    }
}

fn cost(cost: &Cost) -> QueryCost {
    QueryCost {
        cpu_ms: cost.cpu_ms.unwrap_or(0.0),
        p50_ms: cost.latency.p50_ms,
        p99_ms: cost.latency.p99_ms,
        asked: cost.latency.count,
        wrong: cost.wrong,
    }
}

fn figures(flushed: &Flushed, by_search: &Summary, by_id: &Summary) -> Vec<Figure> {
    let spans = (flushed.spans as f64).max(1.0);
    let per_million = |seconds: f64| seconds / spans * 1e6;
    let mut figures = Figures::default();
    let used = flushed.used.cpu.as_secs_f64();
    figures.goal("CPU seconds per million spans", per_million(used), goals::CPU_SECONDS);
    let mut told = 0.0;
    // In the order of a span's way; a server that does not tell has none of them.
    for phase in ["receive", "log", "index", "build", "upload"] {
        let seconds = flushed.scraped.phases.get(phase).copied().unwrap_or(0.0);
        told += seconds;
        figures.part(phase, per_million(seconds));
        if phase == "log" {
            told += flushed.scraped.database_seconds;
            let seconds = per_million(flushed.scraped.database_seconds);
            figures.part("log: flushes and compactions of its database", seconds);
        }
    }
    figures.part("other (network, runtime, consensus)", per_million((used - told).max(0.0)));
    let stored = flushed.scraped.object_bytes;
    figures.goal("bytes per span in the bucket", stored / spans, goals::BYTES);
    let mut sections: Vec<_> = flushed.scraped.sections.iter().collect();
    sections.sort_by(|a, b| b.1.total_cmp(a.1));
    for (section, bytes) in sections {
        figures.part(section, bytes / spans);
    }
    let megabytes = flushed.used.peak_rss_bytes as f64 / 1e6;
    figures.goal("peak memory, MB", megabytes, goals::PEAK_MEGABYTES);
    figures.goal("ack to found by search, p99 ms", by_search.p99_ms, goals::FOUND_MILLIS);
    figures.part("p50", by_search.p50_ms);
    figures.part("by id, p99", by_id.p99_ms);
    figures.goal("spans per second (more is better)", flushed.spans_per_second, None);
    figures.goal("objects in the bucket", flushed.scraped.objects, None);
    figures.goal("CPU of an idle server, % of a core", flushed.idle_cores * 100.0, None);
    figures.0
}

#[derive(Default)]
struct Figures(Vec<Figure>);

impl Figures {
    fn goal(&mut self, name: &str, measured: f64, goal: Option<Goal>) {
        let (must, aim) = (goal.map(|goal| goal.must), goal.map(|goal| goal.aim));
        self.0.push(Figure { name: name.to_owned(), measured, must, aim });
    }

    /// A part of the number before.
    fn part(&mut self, name: &str, measured: f64) {
        self.goal(&format!("  {name}"), measured, None);
    }
}
