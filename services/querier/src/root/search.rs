//! Search: leaves judge the traces that lie in one place, the root the others, and the newest of
//! all are the answer.

use async_trait::async_trait;
use clew_model::TenantId;
use clew_node::Problem;
use clew_proto::query::v1::{self as query, Inspected, SearchRequest};
use clew_proto::tempopb;
use clew_query::{SearchPlan, SplitSet, decode_ids, encode_ids, merge_search};

use super::block_work::{Search, SplitIds};
use super::blocks::problem_of;
use super::heads::sift;
use super::missing::Missing;
use super::run::{Read, Step, bounds};
use super::snapshot::{BlockRef, Snapshot};
use super::split::SplitSearch;
use super::{Answer, Progress, Root, StepCost};
use crate::ask::{SearchAsk, TimeRange};

/// What a search of one tenant came to.
struct Searched {
    response: query::SearchResponse,
    reach: Reach,
    costs: Vec<StepCost>,
}

/// A search, compiled.
struct Searching<'a> {
    plan: &'a SearchPlan,
    ask: &'a SearchAsk,
    progress: &'a Progress,
}

#[async_trait]
impl Read for Searching<'_> {
    type Value = Searched;

    async fn read(
        &self,
        root: &Root,
        snapshot: &Snapshot,
        last: bool,
        missing: &mut Missing,
    ) -> Result<Step<Self::Value>, Problem> {
        let Searching { plan, ask, progress } = self;
        let range = ask.range.unwrap_or(TimeRange::ALL);
        snapshot.miss_known(range, missing);
        let mut costs = Vec::new();
        let (split, nanos) = root.timed(root.split_set(snapshot, range, missing)).await;
        let split = split?;
        let named = split.ids().len() as u64;
        costs.push(StepCost { kept: named, nanos, ..StepCost::new("list split traces", 0) });
        let plan = plan.with_split(split.ids().iter().copied());
        let blocks = snapshot.blocks_in(range, root.horizon(), !split.is_empty());
        let request = SearchRequest {
            tenant: snapshot.tenant.to_string(),
            split_ids: encode_ids(split.ids()).into(),
            ..request_of(ask)
        };
        let leaves = blocks.len() + snapshot.cuts.len();
        progress.expect(leaves);
        let work = Search { request: &request, plan: &plan };
        let ((of_blocks, blocks_nanos), (heads, heads_nanos)) = futures::join!(
            root.timed(root.on_blocks(snapshot, &blocks, &work, missing)),
            root.timed(root.search_heads(snapshot, &request))
        );
        let mut responses = of_blocks?;
        let mut cost = StepCost::new("search blocks", blocks.len());
        cost.nanos = blocks_nanos;
        responses.iter().for_each(|part| cost.add(part.traces.len(), part.inspected.as_ref()));
        root.check_cost(&cost.inspected)?;
        costs.push(cost);
        let Step::Done(heads) = sift(heads, last, missing)? else { return Ok(Step::Moved) };
        let heads: Vec<_> = heads.into_iter().map(|(_, response)| response).collect();
        let mut cost = StepCost::new("search heads", heads.len());
        cost.nanos = heads_nanos;
        heads.iter().for_each(|part| cost.add(part.traces.len(), part.inspected.as_ref()));
        costs.push(cost);
        responses.extend(heads);
        let mut merged = merge_search(responses, &plan);
        let candidates = std::mem::take(&mut merged.split_candidates);
        let candidates = decode_ids(&candidates).map_err(problem_of)?;
        progress.report(leaves, &merged);
        let mut split = SplitSearch { root, snapshot, range, last, plan: &plan, progress, merged };
        let rest = match split.judge_pieces(candidates, ask, missing, &mut costs).await? {
            Step::Done(rest) => rest,
            Step::Moved => return Ok(Step::Moved),
        };
        match split.judge_gathered(&rest, missing, &mut costs).await? {
            Step::Done(()) => {}
            Step::Moved => return Ok(Step::Moved),
        }
        let merged = split.merged;
        Ok(Step::Done(Searched { response: merged, reach: Reach::of(&blocks), costs }))
    }
}

impl Root {
    /// The newest traces of `tenants` that match.
    ///
    /// # Errors
    /// [`Problem`] when the query is wrong or nothing at all can be read.
    pub(crate) async fn search(
        &self,
        tenants: &[TenantId],
        ask: &SearchAsk,
        progress: &Progress,
    ) -> Result<Answer<(tempopb::SearchResponse, Explanation)>, Problem> {
        let plan = &SearchPlan::from_request(&request_of(ask)).map_err(problem_of)?;
        if plan.is_empty() {
            let value = tempopb::SearchResponse {
                metrics: Some(tempopb::SearchMetrics::default()),
                ..tempopb::SearchResponse::default()
            };
            let explanation = Explanation { plan: plan.explain(), steps: Vec::new() };
            return Ok(Answer { value: (value, explanation), missing: Missing::default() });
        }
        let (found, missing) = self.run(tenants, &Searching { plan, ask, progress }).await?;
        let mut blocks = Reach::default();
        let mut explanation = Explanation { plan: plan.explain(), steps: Vec::new() };
        let mut responses = Vec::new();
        for Searched { response, reach, costs } in found {
            blocks.add(reach);
            responses.push(response);
            explanation.steps.extend(costs);
        }
        let value = answer_of(merge_search(responses, plan), blocks);
        Ok(Answer { value: (value, explanation), missing })
    }

    /// F: traces that may lie in several places, as far as `range` can meet them.
    pub(super) async fn split_set(
        &self,
        snapshot: &Snapshot,
        range: TimeRange,
        missing: &mut Missing,
    ) -> Result<SplitSet, Problem> {
        let blocks: Vec<_> = snapshot
            .blocks_in(range, self.horizon(), true)
            .into_iter()
            .filter(|block| block.block.splits > 0)
            .collect();
        let lists = self.on_blocks(snapshot, &blocks, &SplitIds, missing).await?;
        let ids = lists.into_iter().flatten().chain(snapshot.head_split_ids.iter().copied());
        Ok(ids.collect())
    }
}

pub(super) fn request_of(ask: &SearchAsk) -> SearchRequest {
    let (start_unix_nanos, end_unix_nanos) = bounds(ask.range);
    SearchRequest {
        tenant: String::new(),
        query: ask.query.clone(),
        tags: ask.tags.clone(),
        min_duration_nanos: ask.min_duration_nanos,
        max_duration_nanos: ask.max_duration_nanos,
        start_unix_nanos,
        end_unix_nanos,
        limit: ask.limit,
        spans_per_spanset: ask.spans_per_spanset,
        split_ids: bytes::Bytes::new(),
    }
}

/// How a search was run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Explanation {
    /// The plan, a line each.
    pub(crate) plan: Vec<String>,
    /// What its steps took, tenant by tenant.
    pub(crate) steps: Vec<StepCost>,
}

/// How much a search could have read, for the metrics in its answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reach {
    blocks: u64,
    bytes: u64,
}

impl Reach {
    fn of(blocks: &[BlockRef]) -> Reach {
        let bytes = blocks.iter().map(|block| block.block.length).sum();
        Reach { blocks: blocks.len() as u64, bytes }
    }

    fn add(&mut self, other: Reach) {
        self.blocks += other.blocks;
        self.bytes += other.bytes;
    }
}

fn answer_of(response: query::SearchResponse, reach: Reach) -> tempopb::SearchResponse {
    let Inspected { traces, spans, bytes, reads, read_bytes, .. } =
        response.inspected.unwrap_or_default();
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let metrics = tempopb::SearchMetrics {
        inspected_traces: small(traces),
        inspected_bytes: bytes,
        inspected_spans: spans,
        total_blocks: small(reach.blocks),
        total_block_bytes: reach.bytes,
        backend_reads: reads,
        backend_bytes: read_bytes,
        // Grafana shows the share of jobs done; one that is whole has done its one job.
        completed_jobs: 1,
        total_jobs: 1,
        ..tempopb::SearchMetrics::default()
    };
    let traces = response.traces.into_iter().filter_map(|found| found.metadata).collect();
    tempopb::SearchResponse { traces, metrics: Some(metrics), ..Default::default() }
}
