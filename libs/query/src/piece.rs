//! Split traces judged by their pieces: what the indexes of all places tell of a trace is put together
//! and judged like one place's rows, so that no span of it need be read.
//!
//! Only what is certain is judged. Where an index cannot tell, or pieces do not fit together as those
//! of one trace plainly do (a span in two of them, two roots), the trace is left to whoever gathers
//! its spans, merges them and judges those.

mod joined;

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_model::trace::ServiceStats;
use clew_model::{TraceId, TraceSummary, UnixNanos};
use clew_proto::query::v1::piece::{Root, Service};
use clew_proto::query::v1::{FoundTrace, Inspected, Piece, SearchResponse};
use clew_proto::tempopb::SpanSet;
use futures::stream::{self, StreamExt};
use prost::Message;

use self::joined::Joined;
use crate::QueryError;
use crate::engine::{Engine, Meter, Outcome};
use crate::fetch::Fetched;
use crate::found::{found_trace, spanset_attributes};
use crate::ids::SplitSet;
use crate::pipeline::Spanset;
use crate::plan::{Matcher, SearchPlan};
use crate::search::{Ranked, failures, insert};
use crate::source::SpanSource;

/// What one place tells of split traces.
#[derive(Debug, Clone, Default)]
pub struct Pieces {
    /// What its index tells, a piece for each trace.
    pub pieces: Vec<Piece>,
    /// Traces that are there, and of which the index cannot tell enough.
    pub unjudged: Vec<TraceId>,
}

impl Engine {
    /// What the indexes of the sources tell of the traces with these ids, for a search that can be
    /// [judged by pieces](SearchPlan::takes_pieces).
    ///
    /// # Errors
    /// [`QueryError::TooMuch`] past the bound on fetched bytes. A source that cannot be read is
    /// reported in the outcome.
    pub async fn pieces(
        &self,
        sources: &[Arc<dyn SpanSource>],
        plan: &SearchPlan,
        ids: &[TraceId],
    ) -> Result<Outcome<Fetched>, QueryError> {
        let ids: SplitSet = ids.iter().copied().collect();
        let mut meter = Meter::new(&self.limits, sources);
        let mut failed = BTreeMap::new();
        let mut fetched = Fetched::default();
        let mut bytes = 0usize;
        let limit = self.limits.fetched_bytes_max;
        {
            let wanted = ids.ids();
            let mut told = stream::iter(0..sources.len())
                .map(|at| async move { (at, sources[at].pieces(plan, wanted).await) })
                .buffer_unordered(self.limits.sources_at_once.max(1));
            while let Some((at, told)) = told.next().await {
                match told {
                    Ok(Pieces { pieces, unjudged }) => {
                        bytes += pieces.iter().map(Message::encoded_len).sum::<usize>();
                        fetched.pieces.extend(pieces);
                        fetched.unjudged.extend(unjudged);
                    }
                    Err(error) => {
                        failed.insert(at, error);
                    }
                }
                if bytes as u64 > limit {
                    return Err(QueryError::TooMuch { what: "bytes of pieces of traces", limit });
                }
            }
        }
        meter.described(fetched.pieces.len());
        fetched.inspected = meter.finish();
        Ok(Outcome { response: fetched, failed: failures(sources, failed) })
    }
}

/// Judges the traces that `pieces` are all there is of. Gives the newest that match, as many as are
/// wanted, and the traces of which their pieces do not tell enough.
pub fn judge_pieces(mut pieces: Vec<Piece>, plan: &SearchPlan) -> (SearchResponse, Vec<TraceId>) {
    pieces.sort_by(|a, b| a.trace_id.cmp(&b.trace_id));
    let mut ranked = Ranked::new();
    let mut unjudged = Vec::new();
    let mut traces = 0;
    for of_trace in pieces.chunk_by(|a, b| a.trace_id == b.trace_id) {
        let Some(id) = of_trace.first().and_then(|piece| TraceId::from_wire(&piece.trace_id))
        else {
            continue;
        };
        traces += 1;
        match judge(id, of_trace, plan) {
            None => unjudged.push(id),
            Some(None) => {}
            Some(Some(found)) => insert(&mut ranked, id, found, plan.limit()),
        }
    }
    let response = SearchResponse {
        traces: ranked.into_values().map(|found| *found).collect(),
        inspected: Some(Inspected { traces, ..Inspected::default() }),
        ..SearchResponse::default()
    };
    (response, unjudged)
}

/// The entry of a trace, if it matches; `None` if its pieces do not tell.
fn judge(id: TraceId, pieces: &[Piece], plan: &SearchPlan) -> Option<Option<FoundTrace>> {
    let joined = Joined::of(pieces, plan)?;
    let summary = summary_of(id, pieces, &joined)?;
    if !plan.range().overlaps(summary.start, summary.end)
        || !plan.admits_duration(summary.duration_nanos())
    {
        return Some(None);
    }
    let sets = match plan.matcher() {
        Matcher::Filter(_) => {
            let spans = joined.passing_filter(0);
            if spans.is_empty() {
                return Some(None);
            }
            vec![Spanset { spans, attributes: Vec::new() }]
        }
        // Whoever judges the spans meets an error again and reports it.
        Matcher::Pipeline(pipeline) => pipeline.run(&joined).ok()?,
        Matcher::Tags(_) => return None,
    };
    if sets.is_empty() {
        return Some(None);
    }
    let shown = sets.iter().map(|set| shown_spanset(set, &joined, pieces, plan));
    let shown = shown.collect::<Option<Vec<_>>>()?;
    Some(Some(found_trace(&summary, shown)))
}

/// A spanset as an answer shows it; `None` if a span to be shown is not among those prepared.
fn shown_spanset(
    set: &Spanset,
    joined: &Joined,
    pieces: &[Piece],
    plan: &SearchPlan,
) -> Option<SpanSet> {
    let mut spans = Vec::new();
    for span in set.spans.iter().take(plan.spans_per_spanset()) {
        let (piece, place) = joined.origin(*span)?;
        let shown = pieces.get(piece)?.shown.iter().find(|shown| shown.place == place)?;
        // A span may be shown in several spansets.
        spans.push(shown.span.clone()?);
    }
    Some(SpanSet {
        spans,
        matched: u32::try_from(set.spans.len()).unwrap_or(u32::MAX),
        attributes: spanset_attributes(&set.attributes),
    })
}

/// Says in a piece what its place says of the trace there.
pub(crate) fn say_summary(piece: &mut Piece, summary: &TraceSummary) {
    let text = |text: &str| text.to_owned();
    piece.root = summary
        .root_name
        .as_deref()
        .zip(summary.root_service.as_deref())
        .map(|(name, service)| Root { service: text(service), name: text(name) });
    let service = |stats: &ServiceStats| Service {
        name: text(&stats.name),
        spans: stats.spans,
        errors: stats.errors,
    };
    piece.services = summary.services.iter().map(service).collect();
}

/// What is said of the whole trace; `None` if several pieces have a root, between which their spans
/// decide.
fn summary_of(id: TraceId, pieces: &[Piece], joined: &Joined) -> Option<TraceSummary> {
    let mut roots = pieces.iter().filter_map(|piece| piece.root.as_ref());
    let root = roots.next();
    if roots.next().is_some() {
        return None;
    }
    let mut services: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for service in pieces.iter().flat_map(|piece| &piece.services) {
        let (spans, errors) = services.entry(&service.name).or_default();
        *spans = spans.saturating_add(service.spans);
        *errors = errors.saturating_add(service.errors);
    }
    let stats = |(name, (spans, errors)): (&str, (u32, u32))| ServiceStats {
        name: name.into(),
        spans,
        errors,
    };
    let services: Vec<ServiceStats> = services.into_iter().map(stats).collect();
    let (start, end) = joined.start_end();
    Some(TraceSummary {
        id,
        start: UnixNanos(start),
        end: UnixNanos(end),
        root_service: root.map(|root| root.service.as_str().into()),
        root_name: root.map(|root| root.name.as_str().into()),
        span_count: joined.len(),
        error_count: services.iter().map(|service| service.errors).fold(0, u32::saturating_add),
        services,
    })
}
