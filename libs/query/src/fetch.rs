//! Fragments by trace id, from every source that may hold one.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_model::{ModelError, Trace, TraceId};
use clew_proto::query::v1::{FetchRequest, FetchResponse, Inspected, Piece};
use futures::stream::{self, StreamExt};

use crate::QueryError;
use crate::engine::{Engine, Meter, Outcome, trace_bytes};
use crate::ids::{SplitSet, decode_ids, encode_ids};
use crate::merge::merge_traces;
use crate::plan::SearchPlan;
use crate::search::failures;
use crate::source::SpanSource;

/// Traces by id with what was looked at.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// The traces found, merged from the sources, ascending by id.
    pub traces: Vec<Trace>,
    /// Pieces of traces, if those were asked for.
    pub pieces: Vec<Piece>,
    /// Traces of which a source has spans and could not tell a piece.
    pub unjudged: Vec<TraceId>,
    /// What was looked at.
    pub inspected: Inspected,
}

impl Fetched {
    /// As it travels.
    pub fn encode(self) -> FetchResponse {
        let mut traces = Vec::new();
        self.traces.iter().for_each(|trace| trace.encode_into(&mut traces));
        FetchResponse {
            traces: traces.into(),
            inspected: Some(self.inspected),
            pieces: self.pieces,
            unjudged: encode_ids(&self.unjudged).into(),
        }
    }

    /// What an answer says.
    ///
    /// # Errors
    /// [`QueryError`] when it is unreadable.
    pub fn decode(response: FetchResponse) -> Result<Fetched, QueryError> {
        let unreadable =
            |error: ModelError| QueryError::bad("the answer of a leaf", error.to_string());
        Ok(Fetched {
            traces: Trace::decode(&response.traces).map_err(unreadable)?,
            pieces: response.pieces,
            unjudged: decode_ids(&response.unjudged)?,
            inspected: response.inspected.unwrap_or_default(),
        })
    }
}

impl Engine {
    /// What the sources have of the traces with these ids.
    ///
    /// # Errors
    /// [`QueryError::TooMuch`] past the bound on fetched bytes. A source that cannot be read is
    /// reported in the outcome.
    pub async fn fetch_traces(
        &self,
        sources: &[Arc<dyn SpanSource>],
        ids: &[TraceId],
    ) -> Result<Outcome<Fetched>, QueryError> {
        let ids: SplitSet = ids.iter().copied().collect();
        let meter = Meter::new(&self.limits, sources);
        let mut failed = BTreeMap::new();
        let mut fragments = Vec::new();
        let mut bytes = 0u64;
        {
            let wanted = ids.ids();
            let mut fetched = stream::iter(0..sources.len())
                .map(|at| async move { (at, of_source(sources[at].as_ref(), wanted).await) })
                .buffer_unordered(self.limits.sources_at_once.max(1));
            while let Some((at, traces)) = fetched.next().await {
                match traces {
                    Ok(traces) => {
                        bytes += traces.iter().map(trace_bytes).sum::<u64>();
                        fragments.extend(traces);
                    }
                    Err(error) => {
                        failed.insert(at, error);
                    }
                }
                let limit = self.limits.fetched_bytes_max;
                if bytes > limit {
                    return Err(QueryError::TooMuch { what: "bytes of traces by id", limit });
                }
            }
        }
        let mut meter = meter;
        meter.decoded(&fragments)?;
        let traces = self.tasks.compute(move || merge_traces(fragments)).await?;
        Ok(Outcome {
            response: Fetched { traces, inspected: meter.finish(), ..Fetched::default() },
            failed: failures(sources, failed),
        })
    }

    /// The same for a request from another process.
    ///
    /// # Errors
    /// As [`Engine::fetch_traces`], and for a request that is not well-formed.
    pub async fn fetch(
        &self,
        sources: &[Arc<dyn SpanSource>],
        request: &FetchRequest,
    ) -> Result<Outcome<FetchResponse>, QueryError> {
        let ids = decode_ids(&request.trace_ids)?;
        let Outcome { response, failed } = match &request.judge {
            Some(search) => self.pieces(sources, &SearchPlan::from_request(search)?, &ids).await?,
            None => self.fetch_traces(sources, &ids).await?,
        };
        let response = self.tasks.compute(move || response.encode()).await?;
        Ok(Outcome { response, failed })
    }
}

async fn of_source(source: &dyn SpanSource, ids: &[TraceId]) -> Result<Vec<Trace>, QueryError> {
    let ordinals: Vec<u32> = source.find(ids).await?.into_iter().flatten().collect();
    if ordinals.is_empty() { Ok(Vec::new()) } else { source.fetch(&ordinals).await }
}
