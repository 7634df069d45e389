//! Search over the sources of one leaf: the newest traces that match, exactly, decoding as few as
//! possible.
//!
//! Sources are asked for candidates in the order of their latest time. A candidate is judged once
//! no unasked source can hold a newer one, newest first, until as many matched as are wanted. So
//! old blocks are not even opened when new ones have enough.
//!
//! Traces of F are named, not judged. A whole trace starts no later than any of its fragments, so
//! a fragment older than the last wanted match can be forgotten.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use clew_block::RowSet;
use clew_model::{Trace, TraceId, UnixNanos};
use clew_proto::common::v1::KeyValue;
use clew_proto::query::v1::{FoundTrace, SearchResponse};
use futures::stream::{self, StreamExt};

use crate::QueryError;
use crate::engine::{Engine, Meter, Outcome, SourceFailure};
use crate::found::{JudgeError, add_attributes, judge};
use crate::ids::{SplitSet, encode_ids};
use crate::plan::SearchPlan;
use crate::source::{Candidate, Selected, SpanSource};

/// Traces judged in the first step, at least.
const FIRST_BATCH: usize = 16;

/// The sources asked first have so many times more traces than are wanted.
const FIRST_ASK: u64 = 16;

/// Traces described in one step: they are not decoded.
const DESCRIBED_MAX: usize = 50_000;

/// The place of a trace in an answer: newest start first, then the smaller id.
pub(crate) type Rank = (Reverse<UnixNanos>, TraceId);

/// Found traces by rank. Entries are large, so the map holds them apart.
pub(crate) type Ranked = BTreeMap<Rank, Box<FoundTrace>>;

impl Engine {
    /// The newest traces outside F that match, at most as many as the plan wants, and the ids of
    /// traces of F of which a fragment that may match lies here.
    ///
    /// # Errors
    /// [`QueryError`] when the query fails as a whole: it does not fit the data, or needs too
    /// much. A source that cannot be read is reported in the outcome.
    pub async fn search(
        &self,
        sources: &[Arc<dyn SpanSource>],
        plan: &SearchPlan,
    ) -> Result<Outcome<SearchResponse>, QueryError> {
        if plan.is_empty() {
            return Ok(Outcome { response: SearchResponse::default(), failed: Vec::new() });
        }
        let mut leaf = Leaf::new(self, sources, plan);
        leaf.run().await?;
        if leaf.short {
            let plan = plan.without_cut();
            let mut leaf = Leaf::new(self, sources, &plan);
            leaf.run().await?;
            return Ok(leaf.finish());
        }
        Ok(leaf.finish())
    }

    /// Judges whole, merged traces: the last step of a search, for the traces of F that the root
    /// has gathered from all places.
    ///
    /// # Errors
    /// [`QueryError`] when the query does not fit the data or a trace is damaged.
    pub async fn search_traces(
        &self,
        traces: Vec<Trace>,
        plan: &SearchPlan,
    ) -> Result<SearchResponse, QueryError> {
        let plan = plan.clone();
        self.tasks.compute(move || search_traces(&traces, &plan)).await?
    }
}

/// Judges whole, merged traces and keeps the newest ones, as many as are wanted.
///
/// # Errors
/// [`QueryError`] when the query does not fit the data or a trace is damaged.
pub fn search_traces(traces: &[Trace], plan: &SearchPlan) -> Result<SearchResponse, QueryError> {
    let mut ranked = Ranked::new();
    let mut response = SearchResponse::default();
    let mut inspected = clew_proto::query::v1::Inspected::default();
    for trace in traces {
        inspected.traces += 1;
        inspected.spans += trace.spans.len() as u64;
        inspected.bytes += crate::engine::trace_bytes(trace);
        let found = judge(trace, plan).map_err(|error| of_judging(error, &gathered()))?;
        if let Some(found) = found {
            insert(&mut ranked, trace.id, found, plan.limit());
        }
    }
    response.traces = ranked.into_values().map(|found| *found).collect();
    response.inspected = Some(inspected);
    Ok(response)
}

/// The entries of the traces of one source that match.
pub(crate) fn judge_all(
    traces: &[Trace],
    plan: &SearchPlan,
    source: &Arc<str>,
) -> Result<Vec<FoundTrace>, QueryError> {
    let judged = traces.iter().map(|trace| judge(trace, plan).transpose());
    judged.flatten().collect::<Result<_, _>>().map_err(|error| of_judging(error, source))
}

/// Names the traces that no single source is to blame for.
fn gathered() -> Arc<str> {
    Arc::from("gathered traces")
}

fn of_judging(error: JudgeError, source: &Arc<str>) -> QueryError {
    match error {
        JudgeError::Evaluate(error) => QueryError::Evaluate(error),
        JudgeError::Damaged(error) => {
            QueryError::Damaged { source_name: Arc::clone(source), reason: error.to_string() }
        }
    }
}

/// Keeps the best `limit`.
pub(crate) fn insert(ranked: &mut Ranked, id: TraceId, found: FoundTrace, limit: usize) {
    ranked.insert((Reverse(UnixNanos(found.start_unix_nanos)), id), Box::new(found));
    while ranked.len() > limit {
        ranked.pop_last();
    }
}

/// A candidate that waits for its turn. The greatest is judged first.
struct Waiting {
    candidate: Candidate,
    source: usize,
}

impl Waiting {
    fn rank(&self) -> Rank {
        (Reverse(self.candidate.start), self.candidate.id)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        other.rank().cmp(&self.rank()).then_with(|| other.source.cmp(&self.source))
    }
}

/// What a source gave for a batch of candidates.
enum Taken {
    /// Traces to be judged.
    Fetched(Vec<Trace>),
    /// Entries of traces that match for certain, and how many were asked for.
    Described { found: Vec<FoundTrace>, asked: usize },
}

/// One search at work.
struct Leaf<'a> {
    engine: &'a Engine,
    sources: &'a [Arc<dyn SpanSource>],
    plan: &'a SearchPlan,
    meter: Meter<'a>,
    /// Sources not asked yet, the one with the latest time last.
    unasked: Vec<usize>,
    waiting: BinaryHeap<Waiting>,
    /// Traces of F with fragments here that may match: none of them starts later than this.
    split: BTreeMap<TraceId, UnixNanos>,
    /// The rows that match in each source whose index could tell.
    matches: BTreeMap<usize, Arc<RowSet>>,
    /// What those indexes say of the spansets of traces.
    attributes: BTreeMap<TraceId, Vec<KeyValue>>,
    /// Sources that named the newest traces only.
    cut: BTreeSet<usize>,
    /// One of those had fewer matches than it named.
    short: bool,
    ranked: Ranked,
    failed: BTreeMap<usize, QueryError>,
    batch: usize,
    /// So many traces should the sources have that are asked next.
    ask: u64,
}

impl<'a> Leaf<'a> {
    fn new(engine: &'a Engine, sources: &'a [Arc<dyn SpanSource>], plan: &'a SearchPlan) -> Self {
        let mut unasked: Vec<usize> = (0..sources.len()).collect();
        unasked.sort_by_key(|at| (sources[*at].info().max_time, Reverse(*at)));
        Leaf {
            engine,
            sources,
            plan,
            meter: Meter::new(&engine.limits, sources),
            unasked,
            waiting: BinaryHeap::new(),
            split: BTreeMap::new(),
            matches: BTreeMap::new(),
            attributes: BTreeMap::new(),
            cut: BTreeSet::new(),
            short: false,
            ranked: Ranked::new(),
            failed: BTreeMap::new(),
            batch: plan.limit().max(FIRST_BATCH).min(engine.limits.batch_traces_max.max(1)),
            ask: (plan.limit() as u64).saturating_mul(FIRST_ASK),
        }
    }

    async fn run(&mut self) -> Result<(), QueryError> {
        loop {
            let batch = self.next_batch();
            if !batch.is_empty() {
                self.judge(batch).await?;
                // Few matches so far: larger steps make better use of pages and threads.
                self.batch = (self.batch * 2).min(self.engine.limits.batch_traces_max.max(1));
            } else if self.wants_more_sources() {
                self.ask_sources().await;
            } else {
                return Ok(());
            }
        }
    }

    /// The rank that a trace must beat to be in the answer; `None` while everything is.
    fn bar(&self) -> Option<Rank> {
        if self.ranked.len() < self.plan.limit() {
            return None;
        }
        self.ranked.last_key_value().map(|(rank, _)| *rank)
    }

    /// The latest time of the sources not asked yet.
    fn horizon(&self) -> Option<UnixNanos> {
        self.unasked.last().map(|at| self.sources[*at].info().max_time)
    }

    fn wants_more_sources(&self) -> bool {
        match (self.horizon(), self.bar()) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(latest), Some((Reverse(start), _))) => latest >= start,
        }
    }

    /// The newest candidates that no unasked source can outdo.
    fn next_batch(&mut self) -> Vec<Waiting> {
        let (horizon, bar) = (self.horizon(), self.bar());
        let mut batch = Vec::new();
        let (mut decoded, mut spans) = (0, 0u64);
        while let Some(next) = self.waiting.peek() {
            if bar.is_some_and(|bar| next.rank() >= bar) {
                self.waiting.clear();
                break;
            }
            let full = decoded >= self.batch
                || spans >= self.engine.limits.batch_spans_max
                || batch.len() >= DESCRIBED_MAX.min(self.plan.limit().max(self.batch));
            if full || horizon.is_some_and(|latest| latest >= next.candidate.start) {
                break;
            }
            if let Some(next) = self.waiting.pop() {
                if !self.matches.contains_key(&next.source) {
                    decoded += 1;
                    spans += u64::from(next.candidate.spans);
                }
                if !self.failed.contains_key(&next.source) {
                    batch.push(next);
                }
            }
        }
        batch
    }

    /// Asks the sources with the latest times for their candidates.
    async fn ask_sources(&mut self) {
        let wave = self.engine.limits.sources_at_once.max(1);
        let asked = self.next_sources(wave);
        let (sources, plan) = (self.sources, self.plan);
        let answers: Vec<(usize, Result<Selected, QueryError>)> = stream::iter(asked)
            .map(|at| async move { (at, sources[at].select(plan.selection()).await) })
            .buffer_unordered(wave)
            .collect()
            .await;
        for (source, answer) in answers {
            match answer {
                Ok(selected) => self.take(source, selected),
                Err(error) => self.fail(source, error),
            }
        }
    }

    /// As many of the sources with the latest times as may have enough matches: mostly the newest
    /// does, and what is not asked costs nothing. Every step asks for twice as many traces.
    fn next_sources(&mut self, wave: usize) -> Vec<usize> {
        let mut traces = 0u64;
        let mut count = 0;
        for at in self.unasked.iter().rev().take(wave) {
            count += 1;
            traces = traces.saturating_add(self.sources[*at].info().traces);
            if traces >= self.ask {
                break;
            }
        }
        self.ask = self.ask.saturating_mul(2).max(traces.saturating_mul(2));
        self.unasked.split_off(self.unasked.len() - count)
    }

    fn take(&mut self, source: usize, selected: Selected) {
        self.meter.named(selected.whole.len() + selected.split.len());
        let waiting = selected.whole.into_iter().map(|candidate| Waiting { candidate, source });
        self.waiting.extend(waiting);
        if let Some(matches) = selected.matches {
            self.matches.insert(source, matches);
        }
        self.attributes.extend(selected.attributes);
        if selected.cut {
            self.cut.insert(source);
        }
        for fragment in selected.split {
            let start = self.split.entry(fragment.id).or_insert(fragment.start);
            *start = (*start).min(fragment.start);
        }
    }

    fn fail(&mut self, source: usize, error: QueryError) {
        self.failed.entry(source).or_insert(error);
    }

    async fn judge(&mut self, batch: Vec<Waiting>) -> Result<(), QueryError> {
        let mut by_source: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for waiting in batch {
            by_source.entry(waiting.source).or_default().push(waiting.candidate.ordinal);
        }
        let (sources, plan, matches) = (self.sources, self.plan, &self.matches);
        let read = |(at, ordinals): (usize, Vec<u32>)| async move {
            let read = match matches.get(&at) {
                Some(matches) => {
                    let found = sources[at].describe(plan, matches, &ordinals).await;
                    found.map(|found| Taken::Described { found, asked: ordinals.len() })
                }
                None => sources[at].fetch(&ordinals).await.map(Taken::Fetched),
            };
            (at, read)
        };
        let taken: Vec<(usize, Result<Taken, QueryError>)> = stream::iter(by_source)
            .map(read)
            .buffer_unordered(self.engine.limits.sources_at_once.max(1))
            .collect()
            .await;
        for (source, taken) in taken {
            match taken {
                Ok(Taken::Fetched(traces)) => self.judge_traces(source, traces).await?,
                Ok(Taken::Described { found, asked }) => {
                    self.short |= found.len() < asked && self.cut.contains(&source);
                    self.take_described(found);
                }
                Err(error) => self.fail(source, error),
            }
        }
        Ok(())
    }

    fn take_described(&mut self, found: Vec<FoundTrace>) {
        self.meter.described(found.len());
        for mut found in found {
            if let Some(id) = TraceId::from_wire(&found.trace_id) {
                add_attributes(&mut found, self.attributes.remove(&id));
                insert(&mut self.ranked, id, found, self.plan.limit());
            }
        }
    }

    async fn judge_traces(&mut self, source: usize, traces: Vec<Trace>) -> Result<(), QueryError> {
        self.meter.decoded(&traces)?;
        let plan = self.plan.clone();
        let judged: Vec<(TraceId, Result<Option<FoundTrace>, JudgeError>)> = self
            .engine
            .tasks
            .compute(move || traces.iter().map(|trace| (trace.id, judge(trace, &plan))).collect())
            .await?;
        let name = &self.sources[source].info().name;
        for (id, found) in judged {
            match found {
                Ok(None) => {}
                Ok(Some(found)) => insert(&mut self.ranked, id, found, self.plan.limit()),
                Err(JudgeError::Evaluate(error)) => return Err(QueryError::Evaluate(error)),
                Err(damage) => {
                    let error = of_judging(damage, name);
                    self.failed.entry(source).or_insert(error);
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Outcome<SearchResponse> {
        let bar = self.bar();
        let split: SplitSet = self
            .split
            .iter()
            .filter(|(id, start)| bar.is_none_or(|bar| (Reverse(**start), **id) < bar))
            .map(|(id, _)| *id)
            .collect();
        Outcome {
            response: SearchResponse {
                traces: self.ranked.into_values().map(|found| *found).collect(),
                split_candidates: encode_ids(split.ids()).into(),
                inspected: Some(self.meter.finish()),
            },
            failed: failures(self.sources, self.failed),
        }
    }
}

/// Names the sources that failed.
pub(crate) fn failures(
    sources: &[Arc<dyn SpanSource>],
    failed: BTreeMap<usize, QueryError>,
) -> Vec<SourceFailure> {
    failed
        .into_iter()
        .map(|(at, error)| SourceFailure { source: Arc::clone(&sources[at].info().name), error })
        .collect()
}
