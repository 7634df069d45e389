//! The answers of several leaves as one: the newest traces, names and values, each once.

use std::collections::BTreeMap;

use clew_model::{Trace, TraceId};
use clew_proto::query::v1::{Inspected, SearchResponse};

use crate::engine::add_inspected;
use crate::ids::{SplitSet, decode_ids, encode_ids};
use crate::plan::SearchPlan;
use crate::search::{Ranked, insert};

/// The newest traces of all answers, at most as many as the plan wants, newest start first and
/// then by id. Of a trace that two leaves found the newer entry stays: traces that lie in two
/// places are in F and are judged once, so this is only about traces of two tenants.
pub fn merge_search(
    responses: impl IntoIterator<Item = SearchResponse>,
    plan: &SearchPlan,
) -> SearchResponse {
    let mut newest: BTreeMap<TraceId, clew_proto::query::v1::FoundTrace> = BTreeMap::new();
    let mut split = Vec::new();
    let mut inspected = Inspected::default();
    for response in responses {
        for found in response.traces {
            let Some(id) = TraceId::from_wire(&found.trace_id) else { continue };
            let start = found.start_unix_nanos;
            let kept = newest.get(&id).map(|kept| kept.start_unix_nanos);
            if kept.is_none_or(|kept| kept < start) {
                newest.insert(id, found);
            }
        }
        // A leaf that sends half an id is one of another release; the whole ones still count.
        let whole = response.split_candidates.len() / 16 * 16;
        split.extend(decode_ids(&response.split_candidates[..whole]).unwrap_or_default());
        if let Some(part) = &response.inspected {
            add_inspected(&mut inspected, part);
        }
    }
    let mut ranked = Ranked::new();
    for (id, found) in newest {
        insert(&mut ranked, id, found, plan.limit());
    }
    let split: SplitSet = split.into_iter().collect();
    SearchResponse {
        traces: ranked.into_values().collect(),
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
