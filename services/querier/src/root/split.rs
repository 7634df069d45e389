//! The traces of F in a search: judged by what the indexes of all places tell of them, and where that
//! is not enough, by their spans.

use std::collections::BTreeSet;

use clew_model::{ErrorKind, Trace, TraceId};
use clew_node::Problem;
use clew_proto::query::v1::{self as query, Inspected, Piece};
use clew_query::{QueryError, SearchPlan, merge_search, merge_traces};

use super::block_work::{Fetch, Judge};
use super::blocks::problem_of;
use super::gather::{Fragments, is_too_much};
use super::missing::Missing;
use super::run::Step;
use super::search::request_of;
use super::snapshot::Snapshot;
use super::whole::ToGather;
use super::{Progress, Root, StepCost};
use crate::ask::{SearchAsk, TimeRange};

/// Traces whose pieces are asked for in one step. Every step looks the filters up anew in every place,
/// so they are many.
const PIECES_IDS: usize = 8192;

/// A search that has come to its split traces.
pub(super) struct SplitSearch<'a> {
    pub(super) root: &'a Root,
    pub(super) snapshot: &'a Snapshot,
    pub(super) range: TimeRange,
    pub(super) last: bool,
    pub(super) plan: &'a SearchPlan,
    pub(super) progress: &'a Progress,
    /// What was found so far.
    pub(super) merged: query::SearchResponse,
}

impl SplitSearch<'_> {
    /// Judges traces by their pieces; gives those of which they do not tell enough.
    pub(super) async fn judge_pieces(
        &mut self,
        ids: Vec<TraceId>,
        ask: &SearchAsk,
        missing: &mut Missing,
        costs: &mut Vec<StepCost>,
    ) -> Result<Step<Vec<TraceId>>, Problem> {
        if !self.plan.takes_pieces() || ids.is_empty() {
            return Ok(Step::Done(ids));
        }
        let tenant = self.snapshot.tenant.to_string();
        let request = query::SearchRequest { tenant, ..request_of(ask) };
        let mut cost = StepCost::new("judge split traces by index", ids.len());
        let mut rest = Vec::new();
        for ids in ids.chunks(PIECES_IDS) {
            let wanted = Fetch { ids, judge: Some(Judge { request: &request, plan: self.plan }) };
            let mut lacks = Missing::default();
            let told = self.root.gather_fragments(
                self.snapshot,
                wanted,
                self.range,
                self.last,
                &mut lacks,
            );
            let (told, nanos) = self.root.timed(told).await;
            cost.nanos = cost.nanos.saturating_add(nanos);
            match told {
                Ok(Step::Done(told)) => {
                    missing.merge(lacks);
                    let (judged, unjudged) = self.root.judge_told(told, self.plan).await?;
                    cost.add(judged.traces.len(), judged.inspected.as_ref());
                    rest.extend(unjudged);
                    self.add(judged);
                }
                Ok(Step::Moved) => return Ok(Step::Moved),
                // Gathering goes on in smaller steps.
                Err(problem) if is_too_much(&problem) => rest.extend_from_slice(ids),
                Err(problem) => return Err(problem),
            }
        }
        costs.push(cost);
        Ok(Step::Done(rest))
    }

    /// Judges traces by their spans.
    pub(super) async fn judge_gathered(
        &mut self,
        ids: &[TraceId],
        missing: &mut Missing,
        costs: &mut Vec<StepCost>,
    ) -> Result<Step<()>, Problem> {
        let (root, plan) = (self.root, self.plan);
        let mut waiting = ToGather::new(ids);
        self.progress.expect(waiting.steps());
        let mut cost = StepCost::new("gather split traces", ids.len());
        loop {
            let next =
                root.next_fragments(self.snapshot, &mut waiting, self.range, self.last, missing);
            let (next, nanos) = root.timed(next).await;
            cost.nanos = cost.nanos.saturating_add(nanos);
            let Fragments { traces, inspected, .. } = match next? {
                Step::Done(Some(fragments)) => fragments,
                Step::Done(None) => break,
                Step::Moved => return Ok(Step::Moved),
            };
            let judged = root.judge(merge_traces(traces), plan, missing).await?;
            let Inspected { reads, read_bytes, .. } = inspected;
            let inspected = Some(Inspected { reads, read_bytes, ..Inspected::default() });
            self.add(query::SearchResponse { inspected, ..Default::default() });
            judged.iter().for_each(|part| cost.add(part.traces.len(), part.inspected.as_ref()));
            root.check_cost(&cost.inspected)?;
            judged.into_iter().for_each(|part| self.add(part));
            self.progress.report(1, &self.merged);
        }
        costs.push(cost);
        Ok(Step::Done(()))
    }

    fn add(&mut self, more: query::SearchResponse) {
        self.merged = merge_search([more, std::mem::take(&mut self.merged)], self.plan);
    }
}

impl Root {
    /// Judges traces by what places told of them; gives those of which that is not enough.
    async fn judge_told(
        &self,
        told: Fragments,
        plan: &SearchPlan,
    ) -> Result<(query::SearchResponse, Vec<TraceId>), Problem> {
        let Fragments { traces, mut pieces, unjudged, inspected, .. } = told;
        // A place of a release before answers with spans.
        let mut rest: BTreeSet<TraceId> = unjudged.into_iter().collect();
        rest.extend(traces.iter().map(|trace| trace.id));
        if !rest.is_empty() {
            let is_told = |piece: &Piece| {
                TraceId::from_wire(&piece.trace_id).is_some_and(|id| !rest.contains(&id))
            };
            pieces.retain(is_told);
        }
        let plan = plan.clone();
        let judge = move || clew_query::judge_pieces(pieces, &plan);
        let (mut judged, untold) = self.blocks.compute(judge).await?;
        judged.inspected = Some(inspected);
        rest.extend(untold);
        Ok((judged, rest.into_iter().collect()))
    }

    /// Traces that are gathered count against the limits of the whole query.
    pub(super) fn check_cost(&self, inspected: &Inspected) -> Result<(), Problem> {
        let limits = &self.config.query;
        let too_much = |what, limit| Err(problem_of(QueryError::TooMuch { what, limit }));
        if inspected.bytes > limits.inspected_bytes_max.0 {
            return too_much("bytes of spans", limits.inspected_bytes_max.0);
        }
        if inspected.spans > limits.inspected_spans_max {
            return too_much("spans", limits.inspected_spans_max);
        }
        Ok(())
    }

    /// Judges whole traces. One that is damaged is missing, and the others are judged all the same.
    async fn judge(
        &self,
        traces: Vec<Trace>,
        plan: &SearchPlan,
        missing: &mut Missing,
    ) -> Result<Vec<query::SearchResponse>, Problem> {
        let engine = self.blocks.engine();
        match engine.search_traces(traces.clone(), plan).await {
            Ok(response) => return Ok(vec![response]),
            Err(error) if error.kind() != ErrorKind::Corrupt => return Err(problem_of(error)),
            Err(_) => {}
        }
        let mut responses = Vec::new();
        for trace in traces {
            let id = trace.id;
            match engine.search_traces(vec![trace], plan).await {
                Ok(response) => responses.push(response),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    missing.add("trace", format!("trace {id}"), error.to_string());
                }
                Err(error) => return Err(problem_of(error)),
            }
        }
        Ok(responses)
    }
}
