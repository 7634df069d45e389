//! A trace by its id: every piece of it, from wherever it lies, however far apart in time.

use async_trait::async_trait;
use clew_model::{TenantId, Trace, TraceId};
use clew_node::Problem;
use clew_query::Prune;

use super::block_work::Fetch;
use super::blocks::problem_of;
use super::gather::{Fragments, is_too_much};
use super::missing::Missing;
use super::run::{Read, Step};
use super::snapshot::Snapshot;
use super::{Answer, Root};
use crate::ask::TimeRange;

/// What was found of a trace.
#[derive(Debug, Default)]
pub(crate) struct FoundTrace {
    /// Its spans; none if no place has any.
    pub(crate) trace: Option<Trace>,
    /// It is larger than allowed, and `trace` only has some of its spans.
    pub(crate) too_large: bool,
    /// Bytes of spans looked at.
    pub(crate) inspected_bytes: u64,
    /// How many spans a filter left out.
    pub(crate) left_out: usize,
}

/// A look-up by id.
struct Finding {
    id: TraceId,
    range: TimeRange,
}

#[async_trait]
impl Read for Finding {
    type Value = Fragments;

    fn trace(&self) -> Option<TraceId> {
        Some(self.id)
    }

    async fn read(
        &self,
        root: &Root,
        snapshot: &Snapshot,
        last: bool,
        missing: &mut Missing,
    ) -> Result<Step<Fragments>, Problem> {
        snapshot.miss_known(self.range, missing);
        let blocks = snapshot.blocks_in(self.range, 0, false);
        let wanted = Fetch { ids: &[self.id], judge: None };
        let mut of_heads = Missing::default();
        let (heads, of_blocks) = futures::join!(
            root.fragments_of_heads(snapshot, wanted, last, &mut of_heads),
            root.fragments_of_blocks(snapshot, &blocks, wanted, missing),
        );
        missing.merge(of_heads);
        let heads = match heads {
            Ok(Step::Moved) => return Ok(Step::Moved),
            Ok(Step::Done(heads)) => Ok(heads),
            Err(problem) => Err(problem),
        };
        let mut fragments = or_too_large(heads)?;
        fragments.add(or_too_large(of_blocks)?);
        Ok(Step::Done(fragments))
    }
}

impl Root {
    /// The trace of that id in `tenants`, or what `prune` keeps of it; `range` narrows the blocks
    /// that are asked.
    ///
    /// # Errors
    /// [`Problem`] when nothing at all can be read.
    pub(crate) async fn trace(
        &self,
        tenants: &[TenantId],
        id: TraceId,
        range: Option<TimeRange>,
        prune: Option<Prune>,
    ) -> Result<Answer<FoundTrace>, Problem> {
        let range = range.unwrap_or(TimeRange::ALL);
        let (found, missing) = self.run(tenants, &Finding { id, range }).await?;
        let mut fragments = Fragments::default();
        for found in found {
            fragments.add(found);
        }
        let limit = self.config.query.trace_bytes_max.0;
        let inspected_bytes = fragments.inspected.bytes;
        let finish = move || {
            let mut trace = Trace::merge(fragments.traces.into_iter().filter(|t| t.id == id))
                .filter(|trace| !trace.spans.is_empty());
            let (mut too_large, mut left_out) = (fragments.too_large, 0);
            if let Some(trace) = &mut trace {
                trace.unshare_span_ids();
                if let Some(prune) = prune {
                    left_out = prune.apply(trace)?;
                }
                too_large |= limit > 0 && cut_to(trace, limit);
            }
            Ok(FoundTrace { trace, too_large, inspected_bytes, left_out })
        };
        let value = self.blocks.compute(finish).await?.map_err(problem_of)?;
        Ok(Answer { value, missing })
    }
}

/// A trace that does not fit into an answer is no failure: it is told to the client as what it is.
fn or_too_large(fetched: Result<Fragments, Problem>) -> Result<Fragments, Problem> {
    match fetched {
        Err(problem) if is_too_much(&problem) => {
            Ok(Fragments { too_large: true, ..Fragments::default() })
        }
        other => other,
    }
}

/// Drops the last spans until at most `limit` bytes are left; whether there were any to drop.
fn cut_to(trace: &mut Trace, limit: u64) -> bool {
    let mut bytes = 0u64;
    let fitting = trace.spans.iter().take_while(|span| {
        bytes = bytes.saturating_add(span.bytes.len() as u64);
        bytes <= limit
    });
    let fitting = fitting.count();
    let too_large = fitting < trace.spans.len();
    trace.spans.truncate(fitting);
    too_large
}
