//! The pieces of one trace, put together to the spans of a pipeline.

use std::cell::OnceCell;

use clew_proto::query::v1::Piece;
use clew_proto::query::v1::piece::Passing;
use clew_traceql::EvalError;
use clew_traceql::value::Static;

use crate::pipeline::Spans;
use crate::plan::SearchPlan;
use crate::structure::{Parent, Structure};

/// What stands for a parent that is not in the piece; greater codes are places.
const ABSENT: u32 = 1;

/// The spans of all pieces in the model's order.
pub(super) struct Joined {
    spans: Vec<JoinedSpan>,
    /// For each filter the spans that pass, ascending; `None` where all do.
    passing: Vec<Option<Vec<u32>>>,
    /// All missing if the search does not ask how spans are related.
    parents: Vec<Parent>,
    structure: OnceCell<Structure>,
}

#[derive(Debug, Clone, Copy)]
struct JoinedSpan {
    start: u64,
    id: [u8; 8],
    piece: usize,
    place: u32,
    duration: u64,
}

impl Joined {
    /// `None` if the pieces do not tell enough, or make no sense.
    pub(super) fn of(pieces: &[Piece], plan: &SearchPlan) -> Option<Joined> {
        let mut spans = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let (ids, rest) = piece.span_ids.as_chunks::<8>();
            let fits = rest.is_empty()
                && piece.starts.len() == ids.len()
                && piece.durations.len() == ids.len()
                && piece.passing.len() == plan.filter_count();
            if !fits || ids.is_empty() {
                return None;
            }
            let values = ids.iter().zip(&piece.starts).zip(&piece.durations);
            spans.extend((0..).zip(values).map(|(place, ((id, start), duration))| JoinedSpan {
                start: *start,
                id: *id,
                piece: at,
                place,
                duration: *duration,
            }));
        }
        // The sort keeps the order of two spans of one id, which are of one piece.
        spans.sort_by_key(|span| (span.start, span.id));
        let places = Places::of(&spans, pieces);
        let ids = Ids::of(&spans)?;
        let parents = if plan.relates() {
            parents(&spans, pieces, &places, &ids)?
        } else {
            vec![Parent::Missing; spans.len()]
        };
        let passing = (0..plan.filter_count()).map(|filter| passing(pieces, filter, &places));
        Some(Joined {
            passing: passing.collect::<Option<_>>()?,
            spans,
            parents,
            structure: OnceCell::new(),
        })
    }

    /// How many spans there are.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.spans.len()).unwrap_or(u32::MAX)
    }

    /// The earliest start and the latest end, nanoseconds since the epoch.
    pub(super) fn start_end(&self) -> (u64, u64) {
        let start = self.spans.first().map_or(0, |span| span.start);
        let ends = self.spans.iter().map(|span| span.start.saturating_add(span.duration));
        (start, ends.max().unwrap_or(start))
    }

    /// The piece and the place there that a span comes from.
    pub(super) fn origin(&self, span: u32) -> Option<(usize, u32)> {
        self.spans.get(span as usize).map(|span| (span.piece, span.place))
    }

    /// The spans that pass a filter, ascending.
    pub(super) fn passing_filter(&self, filter: usize) -> Vec<u32> {
        match self.passing.get(filter) {
            None => Vec::new(),
            Some(None) => (0..self.len()).collect(),
            Some(Some(spans)) => spans.clone(),
        }
    }
}

/// Where the spans of each piece came to be.
struct Places(Vec<Vec<u32>>);

impl Places {
    fn of(spans: &[JoinedSpan], pieces: &[Piece]) -> Places {
        let mut places: Vec<Vec<u32>> =
            pieces.iter().map(|piece| vec![0; piece.starts.len()]).collect();
        for (at, span) in (0..).zip(spans) {
            places[span.piece][span.place as usize] = at;
        }
        Places(places)
    }

    fn get(&self, piece: usize, place: u32) -> Option<u32> {
        self.0.get(piece)?.get(place as usize).copied()
    }
}

/// The spans by id.
struct Ids(Vec<([u8; 8], u32)>);

/// Which span has an id.
enum WithId {
    Nobody,
    One(u32),
    /// Two of one piece, the two sides of a call.
    Several,
}

impl Ids {
    /// `None` if an id is in two pieces: that is one span in two versions, or the two sides of a call
    /// apart.
    fn of(spans: &[JoinedSpan]) -> Option<Ids> {
        let mut ids: Vec<([u8; 8], u32)> =
            (0..).zip(spans).map(|(at, span): (u32, _)| (span.id, at)).collect();
        ids.sort_unstable();
        let piece = |(_, at): &([u8; 8], u32)| spans[*at as usize].piece;
        let apart =
            |pair: &[([u8; 8], u32)]| pair[0].0 == pair[1].0 && piece(&pair[0]) != piece(&pair[1]);
        (!ids.windows(2).any(apart)).then_some(Ids(ids))
    }

    fn find(&self, id: &[u8; 8]) -> WithId {
        let from = self.0.partition_point(|(other, _)| other < id);
        let mut found = self.0[from..].iter().take_while(|(other, _)| other == id);
        match (found.next(), found.next()) {
            (None, _) => WithId::Nobody,
            (Some((_, at)), None) => WithId::One(*at),
            (Some(_), Some(_)) => WithId::Several,
        }
    }
}

/// The parent of every span.
fn parents(
    spans: &[JoinedSpan],
    pieces: &[Piece],
    places: &Places,
    ids: &Ids,
) -> Option<Vec<Parent>> {
    let mut parents = vec![Parent::Missing; spans.len()];
    for (at, piece) in pieces.iter().enumerate() {
        if piece.parents.len() != piece.starts.len() {
            return None;
        }
        let mut absent = piece.absent_parents.as_chunks::<8>().0.iter();
        for (place, coded) in (0..).zip(&piece.parents) {
            let span = places.get(at, place)?;
            parents[span as usize] = match coded.checked_sub(ABSENT) {
                None => Parent::Root,
                Some(0) => {
                    let id = absent.next()?;
                    match ids.find(id) {
                        WithId::Nobody => Parent::Missing,
                        // Its own id leads nowhere.
                        _ if *id == spans[span as usize].id => Parent::Missing,
                        WithId::One(parent) => Parent::Span(parent),
                        // Which side of the call it is depends on who reported the child.
                        WithId::Several => return None,
                    }
                }
                Some(parent) => Parent::Span(places.get(at, parent - 1)?),
            };
        }
    }
    Some(parents)
}

/// The spans that pass a filter, ascending: some of those of each piece; all if all of each.
fn passing(pieces: &[Piece], filter: usize, places: &Places) -> Option<Option<Vec<u32>>> {
    let of_pieces = pieces.iter().map(|piece| piece.passing.get(filter));
    let of_pieces: Vec<&Passing> = of_pieces.collect::<Option<_>>()?;
    if of_pieces.iter().all(|passing| passing.all) {
        return Some(None);
    }
    let mut spans = Vec::new();
    for (at, passing) in of_pieces.iter().enumerate() {
        if passing.all {
            spans.extend(places.0.get(at)?);
            continue;
        }
        for place in &passing.spans {
            spans.push(places.get(at, *place)?);
        }
    }
    spans.sort_unstable();
    spans.dedup();
    Some(Some(spans))
}

impl Spans for Joined {
    fn count(&self) -> u32 {
        self.len()
    }

    fn passing(&self, filter: usize, spans: Option<&[u32]>) -> Result<Vec<u32>, EvalError> {
        let Some(spans) = spans else { return Ok(self.passing_filter(filter)) };
        Ok(match self.passing.get(filter) {
            None => Vec::new(),
            Some(None) => spans.to_vec(),
            Some(Some(passing)) => {
                let passes = |span: &u32| passing.binary_search(span).is_ok();
                spans.iter().copied().filter(passes).collect()
            }
        })
    }

    /// Durations are all that an indexed pipeline asks for.
    fn value(&self, _: usize, span: u32) -> Result<Static, EvalError> {
        let nanos = self.spans.get(span as usize).map_or(0, |span| span.duration);
        Ok(Static::Duration(i64::try_from(nanos).unwrap_or(i64::MAX)))
    }

    fn structure(&self) -> &Structure {
        self.structure.get_or_init(|| Structure::of(&self.parents))
    }

    fn parent(&self, span: u32) -> Option<Parent> {
        self.parents.get(span as usize).copied()
    }
}
