//! The answers of several leaves as one: the newest traces, names and values, each once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use clew_model::{Trace, TraceId};
use clew_proto::query::v1::{FoundTrace, Inspected, SearchResponse};

use crate::engine::add_inspected;
use crate::ids::{SplitSet, decode_ids, encode_ids};
use crate::plan::SearchPlan;

/// The newest traces of all answers, at most as many as the plan wants, newest start first and
/// then by id. Of a trace that two leaves found the newer entry stays: traces that lie in two
/// places are in F and are judged once, so this is only about traces of two tenants.
pub fn merge_search(
    responses: impl IntoIterator<Item = SearchResponse>,
    plan: &SearchPlan,
) -> SearchResponse {
    let mut found: Vec<FoundTrace> = Vec::new();
    let mut split = Vec::new();
    let mut inspected = Inspected::default();
    for mut response in responses {
        found.append(&mut response.traces);
        // A leaf that sends half an id is one of another release; the whole ones still count.
        let whole = response.split_candidates.len() / 16 * 16;
        split.extend(decode_ids(&response.split_candidates[..whole]).unwrap_or_default());
        if let Some(part) = &response.inspected {
            add_inspected(&mut inspected, part);
        }
    }
    // Entries are large, so they are sorted by their places.
    let rank = |at: usize| {
        let id = TraceId::from_wire(&found[at].trace_id)?;
        Some(((Reverse(found[at].start_unix_nanos), id), at))
    };
    let mut ranks: Vec<_> = (0..found.len()).filter_map(rank).collect();
    ranks.sort_unstable();
    let mut known = HashSet::with_capacity(ranks.len());
    let newest: Vec<usize> = ranks
        .into_iter()
        .filter(|((_, id), _)| known.insert(*id))
        .map(|(_, at)| at)
        .take(plan.limit())
        .collect();
    let mut found: Vec<Option<FoundTrace>> = found.into_iter().map(Some).collect();
    let traces = newest.into_iter().filter_map(|at| found[at].take()).collect();
    let split: SplitSet = split.into_iter().collect();
    SearchResponse {
        traces,
        split_candidates: encode_ids(split.ids()).into(),
        inspected: Some(inspected),
    }
}

/// Fragments gathered from several places, joined to whole traces, ascending by id.
pub fn merge_traces(fragments: impl IntoIterator<Item = Trace>) -> Vec<Trace> {
    let mut by_id: BTreeMap<TraceId, Vec<Trace>> = BTreeMap::new();
    for fragment in fragments {
        by_id.entry(fragment.id).or_default().push(fragment);
    }
    by_id.into_values().filter_map(Trace::merge).collect()
}
