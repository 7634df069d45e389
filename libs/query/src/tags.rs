//! Names and values of attributes: what fills the drop-downs of a query editor.
//!
//! Without a filter the indexes answer, and a time range selects sources, not spans. With a filter
//! the spans that match it are found, decoded and looked at, newest first.

mod bounded;
mod field;
mod names;
mod values;
mod within;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use clew_model::{Trace, TraceId};
use clew_proto::query::v1::{
    Inspected, TagNamesRequest, TagNamesResponse, TagValuesRequest, TagValuesResponse,
};
use clew_traceql::plan::Scope;
use futures::stream::{self, StreamExt};

pub use self::field::TagField;
pub(crate) use self::field::{long_value, values_of};
use self::names::NameSet;
pub use self::names::merge_tag_names;
use self::values::ValueSet;
pub use self::values::merge_tag_values;
pub use self::within::tag_query_needs_traces;
use self::within::{Judge, Restriction, TagFilter};
use crate::QueryError;
use crate::engine::{Engine, Meter, Outcome};
use crate::found::JudgeError;
use crate::ids::{SplitSet, decode_ids, encode_ids};
use crate::search::failures;
use crate::source::{Candidate, Selection, SpanSource};
use crate::view::{SpanRef, TraceView, span_values};

/// A set that is filled for each source and then united.
#[async_trait]
trait Collect: Send + Sync + Sized + 'static {
    /// Takes what an index says, of the rows of a selection if one is given. False: the index
    /// cannot tell, and nothing was taken.
    async fn by_index(
        &mut self,
        source: &dyn SpanSource,
        within: Option<&Arc<Selection>>,
    ) -> Result<bool, QueryError>;
    /// Takes what one span that counts has.
    fn span(&mut self, span: &SpanRef<'_, '_>);
    /// An empty set with the same bounds.
    fn fresh(&self) -> Self;
    /// Takes what another set has.
    fn absorb(&mut self, other: Self);
}

impl Engine {
    /// The names of the attributes that the sources' spans have.
    ///
    /// # Errors
    /// [`QueryError`] for a scope that is none or a filter that does not fit the data.
    pub async fn tag_names(
        &self,
        sources: &[Arc<dyn SpanSource>],
        request: &TagNamesRequest,
    ) -> Result<Outcome<TagNamesResponse>, QueryError> {
        let names = self.names(request)?;
        let split = split_of(&request.split_ids)?;
        let restriction = restriction_of_names(request, split);
        let collected = self.collect(sources, &restriction, names).await?;
        Ok(collected.map(|Collected { set, split, inspected }| TagNamesResponse {
            split_candidates: encode_ids(split.ids()).into(),
            ..set.into_response(inspected)
        }))
    }

    /// The names that whole, merged traces have where the query of the request finds spans.
    ///
    /// # Errors
    /// [`QueryError`] as above, and when a trace is damaged.
    pub async fn tag_names_of(
        &self,
        traces: Vec<Trace>,
        request: &TagNamesRequest,
    ) -> Result<TagNamesResponse, QueryError> {
        let names = self.names(request)?;
        let restriction = restriction_of_names(request, SplitSet::default());
        let (names, inspected) = self.collect_from(traces, &restriction, names).await?;
        Ok(names.into_response(inspected))
    }

    fn names(&self, request: &TagNamesRequest) -> Result<NameSet, QueryError> {
        let scope = match request.scope.as_str() {
            "" => None,
            word => Some(Scope::from_word(word).ok_or_else(|| {
                QueryError::bad("scope", format!("no scope has attributes of that name: {word}"))
            })?),
        };
        Ok(NameSet::new(scope, request.limit, &self.limits))
    }

    /// The values that a field has on the sources' spans.
    ///
    /// # Errors
    /// [`QueryError`] for a field that is none or a filter that does not fit the data.
    pub async fn tag_values(
        &self,
        sources: &[Arc<dyn SpanSource>],
        request: &TagValuesRequest,
    ) -> Result<Outcome<TagValuesResponse>, QueryError> {
        let field = TagField::parse(&request.tag)?;
        let restriction = restriction_of_values(request, &field, split_of(&request.split_ids)?);
        let values =
            ValueSet::new(Some(field.clone()), request.limit, request.bytes_max, &self.limits);
        if !field.has_values() {
            let response = values.into_response(Inspected::default());
            return Ok(Outcome { response, failed: Vec::new() });
        }
        let collected = self.collect(sources, &restriction, values).await?;
        Ok(collected.map(|Collected { set, split, inspected }| TagValuesResponse {
            split_candidates: encode_ids(split.ids()).into(),
            ..set.into_response(inspected)
        }))
    }

    /// The values that a field has in whole, merged traces where the query of the request finds
    /// spans.
    ///
    /// # Errors
    /// [`QueryError`] as above, and when a trace is damaged.
    pub async fn tag_values_of(
        &self,
        traces: Vec<Trace>,
        request: &TagValuesRequest,
    ) -> Result<TagValuesResponse, QueryError> {
        let field = TagField::parse(&request.tag)?;
        let restriction = restriction_of_values(request, &field, SplitSet::default());
        let values = ValueSet::new(Some(field), request.limit, request.bytes_max, &self.limits);
        let (values, inspected) = self.collect_from(traces, &restriction, values).await?;
        Ok(values.into_response(inspected))
    }

    /// Collects from whole traces.
    async fn collect_from<C: Collect>(
        &self,
        traces: Vec<Trace>,
        restriction: &Restriction,
        mut set: C,
    ) -> Result<(C, Inspected), QueryError> {
        let mut meter = Meter::new(&self.limits, &[]);
        meter.decoded(&traces)?;
        let Some(filter) = &restriction.filter else { return Ok((set, meter.finish())) };
        let (judge, range) = (filter.judge.clone(), restriction.range);
        let set = self.tasks.compute(move || {
            for trace in traces {
                let summary = trace.summary();
                if range.overlaps(summary.start, summary.end) {
                    collect_matching(&[trace], &judge, &mut set)?;
                }
            }
            Ok::<C, JudgeError>(set)
        });
        match set.await? {
            Ok(set) => Ok((set, meter.finish())),
            Err(JudgeError::Evaluate(error)) => Err(QueryError::Evaluate(error)),
            Err(JudgeError::Damaged(error)) => Err(QueryError::Damaged {
                source_name: Arc::from("gathered traces"),
                reason: error.to_string(),
            }),
        }
    }

    /// Collects from every source in the range: by its index where that can tell, else from
    /// decoded spans.
    async fn collect<C: Collect>(
        &self,
        sources: &[Arc<dyn SpanSource>],
        restriction: &Restriction,
        mut set: C,
    ) -> Result<Outcome<Collected<C>>, QueryError> {
        let mut meter = Meter::new(&self.limits, sources);
        let mut failed = BTreeMap::new();
        let mut split: Vec<TraceId> = Vec::new();
        let filter = restriction.filter.as_ref();
        // A whole trace can reach over a range that none of its pieces meets.
        let has_pieces = filter.is_some_and(|filter| !filter.selection.split.is_empty());
        let inside = (0..sources.len()).filter(|at| {
            let info = sources[*at].info();
            has_pieces || restriction.range.overlaps(info.min_time, info.max_time)
        });
        let parts: Vec<_> = inside.map(|at| (at, set.fresh())).collect();
        let mut answers = stream::iter(parts)
            .map(|(at, part)| async move { (at, ask_index(part, &sources[at], filter).await) })
            .buffered(self.limits.sources_at_once.max(1));
        while let Some((at, answer)) = answers.next().await {
            let part = match (answer, filter) {
                (Ok(None), Some(filter)) => {
                    let spans = Spans { engine: self, source: sources[at].as_ref(), filter };
                    let collected = spans.collect(set.fresh(), &mut meter, &mut split).await?;
                    collected.map(Some)
                }
                (answer, _) => answer,
            };
            match part {
                Ok(part) => part.into_iter().for_each(|part| set.absorb(part)),
                Err(error) => {
                    failed.insert(at, error);
                }
            }
        }
        drop(answers);
        let split = split.into_iter().collect();
        let response = Collected { set, split, inspected: meter.finish() };
        Ok(Outcome { response, failed: failures(sources, failed) })
    }
}

/// What was collected, and the traces that the root has to gather.
struct Collected<C> {
    set: C,
    split: SplitSet,
    inspected: Inspected,
}

fn split_of(ids: &[u8]) -> Result<SplitSet, QueryError> {
    Ok(decode_ids(ids)?.into_iter().collect())
}

fn restriction_of_names(request: &TagNamesRequest, split: SplitSet) -> Restriction {
    let (start, end) = (request.start_unix_nanos, request.end_unix_nanos);
    Restriction::new(&request.query, None, (start, end), split)
}

fn restriction_of_values(
    request: &TagValuesRequest,
    field: &TagField,
    split: SplitSet,
) -> Restriction {
    let (start, end) = (request.start_unix_nanos, request.end_unix_nanos);
    Restriction::new(&request.query, Some(field), (start, end), split)
}

/// What the index of a source has; `None` if spans must be decoded to tell.
async fn ask_index<C: Collect>(
    mut part: C,
    source: &Arc<dyn SpanSource>,
    filter: Option<&TagFilter>,
) -> Result<Option<C>, QueryError> {
    let within = match filter {
        Some(TagFilter { indexed: false, .. }) => return Ok(None),
        filter => filter.map(|filter| &filter.selection),
    };
    let told = part.by_index(source.as_ref(), within).await?;
    Ok(told.then_some(part))
}

/// The spans of one source that match a filter.
struct Spans<'a> {
    engine: &'a Engine,
    source: &'a dyn SpanSource,
    filter: &'a TagFilter,
}

impl Spans<'_> {
    /// The outer result is the query's, the inner one the source's.
    async fn collect<C: Collect>(
        &self,
        mut set: C,
        meter: &mut Meter<'_>,
        split: &mut Vec<TraceId>,
    ) -> Result<Result<C, QueryError>, QueryError> {
        let mut candidates = match self.source.select(&self.filter.selection).await {
            Ok(selected) => {
                split.extend(selected.split.iter().map(|fragment| fragment.id));
                selected.whole
            }
            Err(error) => return Ok(Err(error)),
        };
        candidates.sort_unstable_by_key(|c| (std::cmp::Reverse(c.start), c.id));
        let mut rest = candidates.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(self.batch_of(rest));
            rest = after;
            let ordinals: Vec<u32> = batch.iter().map(|candidate| candidate.ordinal).collect();
            let traces = match self.source.fetch(&ordinals).await {
                Ok(traces) => traces,
                Err(error) => return Ok(Err(error)),
            };
            meter.decoded(&traces)?;
            let judge = self.filter.judge.clone();
            let collected = self.engine.tasks.compute(move || {
                let done = collect_matching(&traces, &judge, &mut set);
                (set, done)
            });
            let (back, done) = collected.await?;
            set = back;
            match done {
                Ok(()) => {}
                Err(JudgeError::Evaluate(error)) => return Err(QueryError::Evaluate(error)),
                Err(JudgeError::Damaged(error)) => {
                    let source_name = Arc::clone(&self.source.info().name);
                    return Ok(Err(QueryError::Damaged { source_name, reason: error.to_string() }));
                }
            }
        }
        Ok(Ok(set))
    }

    fn batch_of(&self, candidates: &[Candidate]) -> usize {
        let limits = &self.engine.limits;
        let mut spans = 0u64;
        let fitting = candidates.iter().take(limits.batch_traces_max).take_while(|candidate| {
            let fits = spans < limits.batch_spans_max;
            spans += u64::from(candidate.spans);
            fits
        });
        fitting.count().max(1)
    }
}

fn collect_matching(
    traces: &[Trace],
    judge: &Judge,
    set: &mut impl Collect,
) -> Result<(), JudgeError> {
    for trace in traces {
        let view = TraceView::new(trace)?;
        for at in judge.spans(&view)? {
            if let Some(span) = span_values(&view, at) {
                set.span(&span);
            }
        }
        view.check()?;
    }
    Ok(())
}
