//! What queries cost: each class asked again and again, one query at a time, with the latency, the
//! server's processor time, and the answers checked.

use std::time::Duration;

use clew_node::Clock;
use serde::Serialize;

use crate::check::{
    Findings, Index, compare_names, compare_search, compare_trace, compare_values, is_absent,
};
use crate::error::Error;
use crate::expect::VALUE_TAGS;
use crate::measure::{Histogram, Process, Summary};
use crate::target::{Answer, Tempo};
use crate::verify::{Depth, Truth};
use crate::workload::Wave;

/// How often each class is asked.
#[derive(Debug, Clone, Copy)]
pub struct Repeats {
    /// At least so many queries.
    pub queries: u64,
    /// At least for so long, since processor time is only known in steps of 10 ms.
    pub time: Duration,
}

/// What the queries of one class cost.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// The class.
    pub class: String,
    /// One of its queries.
    pub example: String,
    /// How many traces its first query returns, or what else it returns.
    pub results: u64,
    /// How long answers took.
    pub latency: Summary,
    /// Processor time of the server per query, in milliseconds, if it was watched.
    pub cpu_ms: Option<f64>,
    /// How many answers were wrong.
    pub wrong: u64,
}

/// Measures every class that is compared between servers.
///
/// # Errors
/// [`Error::NoAnswer`] when the server cannot be asked, [`Error::File`] when the process cannot be
/// watched.
pub async fn measure(
    truth: &Truth,
    tempo: &Tempo,
    process: Option<&Process>,
    repeats: Repeats,
    depth: Depth,
    clock: &Clock,
    mut progress: impl FnMut(&str),
) -> Result<(Vec<Cost>, Findings), Error> {
    let mut bench =
        Bench { process, repeats, clock, costs: Vec::new(), findings: Findings::default() };
    progress("by id");
    known_ids(&mut bench, truth, tempo, depth.traces).await?;
    let ids: Vec<_> = truth.unknown_ids().collect();
    bench
        .class("trace by id, unknown", 0, ids.len(), |at| {
            let id = ids[at];
            async move {
                let answer = tempo.trace(0, id).await?;
                let absent = is_absent(answer.status, &answer.body);
                let wrong = if absent { Vec::new() } else { vec!["not absent".to_owned()] };
                Ok((answer, String::new(), wrong))
            }
        })
        .await?;
    let index = Index::new(&truth.answers.traces);
    for (class, hits) in truth.classes.iter().zip(&truth.answers.hits) {
        if !class.timed || class.queries.is_empty() {
            continue;
        }
        progress(class.name);
        let results = hits[0].len().min(class.queries[0].limit) as u64;
        bench
            .class(class.name, results, class.queries.len(), |at| {
                let (query, hits, index) = (&class.queries[at], &hits[at], &index);
                async move {
                    let text = query.look.to_traceql();
                    let found = tempo.search(query.tenant, &text, query.limit, truth.range);
                    let answer = found.await?;
                    let (status, body) = (answer.status, &answer.body);
                    let order = depth.order;
                    let wrong = compare_search(hits, index, query.limit, order, status, body);
                    Ok((answer, text, wrong))
                }
            })
            .await?;
    }
    progress("attribute names and values");
    tags(&mut bench, truth, tempo).await?;
    Ok((bench.costs, bench.findings))
}

async fn known_ids(
    bench: &mut Bench<'_>,
    truth: &Truth,
    tempo: &Tempo,
    count: usize,
) -> Result<(), Error> {
    let data_set = &truth.ledger.data_set;
    let mut expected = Vec::new();
    for trace in truth.spread(count) {
        let (number, place) = truth.place_of(trace);
        let wave = Wave::new(&truth.world, data_set, number);
        let (tenant, id) = (data_set.tenant_of(number), wave.traces[place].id);
        expected.push((tenant, id, truth.expected(&wave, place)?));
    }
    bench
        .class("trace by id", 1, expected.len(), |at| {
            let (tenant, id, expected) = &expected[at];
            async move {
                let answer = tempo.trace(*tenant, *id).await?;
                let wrong = compare_trace(expected, answer.status, &answer.body);
                Ok((answer, String::new(), wrong))
            }
        })
        .await
}

async fn tags(bench: &mut Bench<'_>, truth: &Truth, tempo: &Tempo) -> Result<(), Error> {
    let Some((&tenant, tags)) = truth.answers.tags.iter().next() else { return Ok(()) };
    let closed = truth.answers.closed;
    let names = tags.names.values().map(|names| names.len() as u64).sum();
    bench
        .class("attribute names", names, 1, |_| async move {
            let answer = tempo.tag_names(tenant, truth.range).await?;
            let wrong = compare_names(tags, closed, answer.status, &answer.body);
            Ok((answer, String::new(), wrong))
        })
        .await?;
    let (_, _, tag) = VALUE_TAGS[0];
    let Some(values) = tags.values.get(tag) else { return Ok(()) };
    bench
        .class("attribute values", values.len() as u64, 1, |_| async move {
            let answer = tempo.tag_values(tenant, tag, truth.range).await?;
            let wrong = compare_values(values, closed, answer.status, &answer.body);
            Ok((answer, tag.to_owned(), wrong))
        })
        .await
}

struct Bench<'a> {
    process: Option<&'a Process>,
    repeats: Repeats,
    clock: &'a Clock,
    costs: Vec<Cost>,
    findings: Findings,
}

impl Bench<'_> {
    /// Asks the `count` queries of a class in turn. `ask` gives the answer, the query's text if the
    /// address does not say it, and what is wrong.
    async fn class<F>(
        &mut self,
        name: &str,
        results: u64,
        count: usize,
        ask: impl Fn(usize) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<(Answer, String, Vec<String>), Error>>,
    {
        if count == 0 {
            return Ok(());
        }
        let before = self.process.map(Process::usage).transpose()?;
        let start = self.clock.monotonic();
        let (mut latency, mut wrong_count, mut example) = (Histogram::default(), 0, String::new());
        let mut asked: u64 = 0;
        // The time of comparing is not the server's, so only answers count towards it.
        let mut answering = Duration::ZERO;
        while asked < self.repeats.queries || answering < self.repeats.time {
            let at = usize::try_from(asked).unwrap_or(0) % count;
            let (answer, text, wrong) = ask(at).await?;
            latency.record(answer.latency);
            answering += answer.latency;
            asked += 1;
            if asked == 1 {
                example = if text.is_empty() { answer.uri.clone() } else { text };
            }
            if !self.findings.note(name, &answer.uri, wrong) {
                wrong_count += 1;
            }
            // A server that answers in no time must not make this endless.
            if self.clock.monotonic().saturating_sub(start) > self.repeats.time * 20
                && asked >= self.repeats.queries
            {
                break;
            }
        }
        let after = self.process.map(Process::usage).transpose()?;
        let cpu_ms = before.zip(after).map(|(before, after)| {
            after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e3 / asked as f64
        });
        self.costs.push(Cost {
            class: name.to_owned(),
            example,
            results,
            latency: latency.summary(),
            cpu_ms,
            wrong: wrong_count,
        });
        Ok(())
    }
}
