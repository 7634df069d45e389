//! Traces that may lie in several places, gathered a few at a time.

use clew_model::{Trace, TraceId};
use clew_node::Problem;
use clew_query::decode_ids;

use super::Root;
use super::blocks::problem_of;
use super::gather::is_too_much;
use super::missing::Missing;
use super::run::Step;
use super::snapshot::Snapshot;
use crate::ask::TimeRange;

/// Traces that are gathered in one step; fewer where they are large.
const GATHER_IDS: usize = 256;

/// Traces that are still to be gathered.
pub(super) struct ToGather(Vec<Vec<TraceId>>);

impl ToGather {
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
        Ok(ToGather(ids.chunks(GATHER_IDS).map(<[TraceId]>::to_vec).collect()))
    }
}

impl Root {
    /// The next few whole traces; none when all were gathered. One that is too large for an answer is
    /// missing.
    pub(super) async fn next_whole(
        &self,
        snapshot: &Snapshot,
        waiting: &mut ToGather,
        range: TimeRange,
        last: bool,
        missing: &mut Missing,
    ) -> Result<Step<Option<Vec<Trace>>>, Problem> {
        while let Some(ids) = waiting.0.pop() {
            let mut lacks = Missing::default();
            match self.gather(snapshot, &ids, range, last, &mut lacks).await {
                Ok(Step::Done(traces)) => {
                    missing.merge(lacks);
                    return Ok(Step::Done(Some(traces)));
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
