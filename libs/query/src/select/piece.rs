//! Pieces of split traces, cut from the index of one source: what an index can tell of the spans of a
//! trace that has others elsewhere.

use clew_block::BlockError;
use clew_model::TraceId;
use clew_proto::query::v1::Piece;
use clew_proto::query::v1::piece::Passing;

use super::pipeline::exact_filters;
use super::{FilterRows, RowIndex, TraceRows, rows_of};
use crate::plan::{Matcher, SearchPlan};
use crate::structure::Parent;

/// So many spans of a piece are prepared to be shown where the first ones to match are not known, or
/// as many as are shown of a trace. A trace that shows others is gathered.
const SHOWN_MIN: usize = 16;

/// A piece, and what is still to be said of it.
pub(crate) struct CutPiece {
    /// The trace's number in the source.
    pub(crate) ordinal: u32,
    /// Everything but the root, the services and the spans to be shown.
    pub(crate) piece: Piece,
    /// The places of the spans that may be shown, with their rows, ascending.
    pub(crate) shown: Vec<(u32, u32)>,
}

/// What one source has of split traces.
#[derive(Default)]
pub(crate) struct CutPieces {
    pub(crate) pieces: Vec<CutPiece>,
    /// Traces that are here, and of which the index cannot tell enough.
    pub(crate) unjudged: Vec<TraceId>,
}

/// The pieces of the traces that the source has.
pub(crate) fn cut_pieces(
    index: &impl RowIndex,
    plan: &SearchPlan,
    ids: &[TraceId],
) -> Result<CutPieces, BlockError> {
    let mut cut = CutPieces::default();
    let found: Vec<(TraceId, u32)> =
        ids.iter().filter_map(|id| Some((*id, index.find(id)?))).collect();
    let filters = if found.is_empty() { None } else { filters_of(index, plan)? };
    let Some(filters) = filters else {
        cut.unjudged.extend(found.into_iter().map(|(id, _)| id));
        return Ok(cut);
    };
    for (id, ordinal) in found {
        let piece = index
            .trace_rows(ordinal)
            .and_then(|rows| cut_piece(index, rows.as_ref(), plan, &filters, id));
        match piece {
            Some((piece, shown)) => cut.pieces.push(CutPiece { ordinal, piece, shown }),
            None => cut.unjudged.push(id),
        }
    }
    Ok(cut)
}

/// The rows that pass each filter of the search, none for all, if the index looks all of them up
/// exactly.
fn filters_of(
    index: &impl RowIndex,
    plan: &SearchPlan,
) -> Result<Option<Vec<Option<FilterRows>>>, BlockError> {
    match (plan.matcher(), plan.selection().conditions.as_slice()) {
        (Matcher::Filter(_), [condition]) => {
            let found = rows_of(index, condition)?;
            Ok(found.exact.then(|| vec![found.set.into_filter(index)]))
        }
        (Matcher::Pipeline(pipeline), _) => exact_filters(index, pipeline),
        (Matcher::Filter(_) | Matcher::Tags(_), _) => Ok(None),
    }
}

/// The piece of one trace with the places and rows of the spans that may be shown; `None` if the
/// index cannot tell all of it.
fn cut_piece(
    index: &impl RowIndex,
    rows: &dyn TraceRows,
    plan: &SearchPlan,
    filters: &[Option<FilterRows>],
    id: TraceId,
) -> Option<(Piece, Vec<(u32, u32)>)> {
    let count = rows.count();
    let mut piece = Piece { trace_id: id.0.to_vec().into(), ..Piece::default() };
    let mut span_ids = Vec::with_capacity(count as usize * 8);
    let mut absent = Vec::new();
    for place in 0..count {
        let (start, end) = index.start_end(rows.row(place))?;
        span_ids.extend_from_slice(&rows.span_id(place)?);
        piece.starts.push(start);
        piece.durations.push(end.saturating_sub(start));
        if plan.relates() {
            piece.parents.push(match rows.parent(place) {
                Parent::Root => 0,
                Parent::Missing => {
                    absent.extend_from_slice(&rows.absent_parent(place)?);
                    1
                }
                Parent::Span(parent) => parent.checked_add(2)?,
            });
        }
    }
    piece.span_ids = span_ids.into();
    piece.absent_parents = absent.into();
    piece.passing = filters
        .iter()
        .map(|filter| match filter {
            None => Passing { all: true, spans: Vec::new() },
            Some(filter) => Passing { all: false, spans: rows.places(filter) },
        })
        .collect();
    let shown = shown_places(&piece, plan, count);
    Some((piece, shown.into_iter().map(|place| (place, rows.row(place))).collect()))
}

/// The places of the spans that an answer may show, ascending.
fn shown_places(piece: &Piece, plan: &SearchPlan, count: u32) -> Vec<u32> {
    let (filters, first) = plan.shown_filters();
    let mut places: Vec<u32> = Vec::new();
    for passing in filters.iter().filter_map(|filter| piece.passing.get(*filter)) {
        if passing.all {
            places = (0..count).collect();
            break;
        }
        places.extend_from_slice(&passing.spans);
    }
    places.sort_unstable();
    places.dedup();
    let most = plan.spans_per_spanset();
    let most = if first { most } else { most.max(SHOWN_MIN) };
    if places.len() > most {
        // The order in which the model keeps the spans of a trace.
        let ids = piece.span_ids.as_chunks::<8>().0;
        places.sort_unstable_by_key(|place| {
            let at = *place as usize;
            (piece.starts.get(at).copied(), ids.get(at).copied(), *place)
        });
        places.truncate(most);
        places.sort_unstable();
    }
    places
}
