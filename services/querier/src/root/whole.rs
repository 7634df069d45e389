//! Traces that may lie in several places, gathered a few at a time.

use clew_model::{Trace, TraceId};
use clew_node::Problem;
use clew_query::{decode_ids, merge_traces};

use super::Root;
use super::block_work::Fetch;
use super::blocks::problem_of;
use super::gather::{Fragments, is_too_much};
use super::missing::Missing;
use super::run::Step;
use super::snapshot::Snapshot;
use crate::ask::TimeRange;

/// Traces that are gathered in one step; fewer where they are large.
const GATHER_IDS: usize = 256;

/// Traces that are still to be gathered.
pub(super) struct ToGather(Vec<Vec<TraceId>>);

impl ToGather {
    /// These, in their order from the last one.
    pub(super) fn new(ids: &[TraceId]) -> ToGather {
        ToGather(ids.chunks(GATHER_IDS).map(<[TraceId]>::to_vec).collect())
    }

    /// Those that leaves named, 16 bytes each.
    pub(super) fn named_by<'a>(
        lists: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<ToGather, Problem> {
        let mut ids: Vec<TraceId> = Vec::new();
        for list in lists {
            ids.extend(decode_ids(list).map_err(problem_of)?);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ToGather::new(&ids))
    }

    /// How many steps it takes, if no trace is large.
    pub(super) fn steps(&self) -> usize {
        self.0.len()
    }
}

impl Root {
    /// The next few whole traces; none when all were gathered.
    pub(super) async fn next_whole(
        &self,
        snapshot: &Snapshot,
        waiting: &mut ToGather,
        range: TimeRange,
        last: bool,
        missing: &mut Missing,
    ) -> Result<Step<Option<Vec<Trace>>>, Problem> {
        Ok(match self.next_fragments(snapshot, waiting, range, last, missing).await? {
            Step::Done(fragments) => Step::Done(fragments.map(|found| merge_traces(found.traces))),
            Step::Moved => Step::Moved,
        })
    }

    /// All fragments of the next few traces; none when all were gathered. A trace that is too large for an
    /// answer is missing.
    pub(super) async fn next_fragments(
        &self,
        snapshot: &Snapshot,
        waiting: &mut ToGather,
        range: TimeRange,
        last: bool,
        missing: &mut Missing,
    ) -> Result<Step<Option<Fragments>>, Problem> {
        while let Some(ids) = waiting.0.pop() {
            let mut lacks = Missing::default();
            let wanted = Fetch { ids: &ids, judge: None };
            match self.gather_fragments(snapshot, wanted, range, last, &mut lacks).await {
                Ok(Step::Done(fragments)) => {
                    missing.merge(lacks);
                    return Ok(Step::Done(Some(fragments)));
                }
                Ok(Step::Moved) => return Ok(Step::Moved),
                Err(problem) if is_too_much(&problem) => match ids.as_slice() {
                    [id] => {
                        missing.add("trace_too_large", format!("trace {id}"), problem.message);
                    }
                    _ => {
                        let (left, right) = ids.split_at(ids.len() / 2);
                        waiting.0.extend([left.to_vec(), right.to_vec()]);
                    }
                },
                Err(problem) => return Err(problem),
            }
        }
        Ok(Step::Done(None))
    }
}
