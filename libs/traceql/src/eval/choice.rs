//! Which event and which link of a span a filter is about.

use super::{Node, SpanValues, all_hold};
use crate::error::EvalError;
use crate::plan::Field;

/// The most pairs of an event and a link that are tried on one span.
pub const EVENT_LINK_PAIRS_MAX: usize = 1 << 20;

/// The event and link under consideration, by their places on the span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// None if no event is meant, or the span has none.
    pub event: Option<usize>,
    /// None if no link is meant, or the span has none.
    pub link: Option<usize>,
}

/// How to look for the event and link of a filter.
#[derive(Debug, Clone)]
pub(super) enum Choice {
    /// Neither is mentioned: the whole filter decides.
    Neither,
    /// An event for these terms and, independently, a link for those.
    Apart(Vec<Node>, Vec<Node>),
    /// One of each for these terms together.
    Together { terms: Vec<Node>, events: bool, links: bool },
}

impl Choice {
    /// The first event and link for which the filter `root` holds, if the rest of it does.
    pub(super) fn first(
        &self,
        root: &Node,
        span: &dyn SpanValues,
    ) -> Result<Option<Cursor>, EvalError> {
        match self {
            Choice::Neither => {
                let none = Cursor::default();
                Ok(root.holds(span, none)?.then_some(none))
            }
            Choice::Apart(on_event, on_link) => {
                let events = events_of(span, !on_event.is_empty());
                let events = events.map(|event| Cursor { event, link: None });
                let Some(Cursor { event, .. }) = first(events, on_event, span)? else {
                    return Ok(None);
                };
                let links = links_of(span, !on_link.is_empty());
                let links = links.map(|link| Cursor { event: None, link });
                let found = first(links, on_link, span)?;
                Ok(found.map(|Cursor { link, .. }| Cursor { event, link }))
            }
            Choice::Together { terms, events, links } => {
                if *events && *links {
                    bound_pairs(span)?;
                }
                let pairs = events_of(span, *events).flat_map(|event| {
                    links_of(span, *links).map(move |link| Cursor { event, link })
                });
                first(pairs, terms, span)
            }
        }
    }
}

/// The first of the places at which all terms hold.
fn first(
    places: impl Iterator<Item = Cursor>,
    terms: &[Node],
    span: &dyn SpanValues,
) -> Result<Option<Cursor>, EvalError> {
    for place in places {
        if all_hold(terms, span, place)? {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

fn events_of(span: &dyn SpanValues, needed: bool) -> impl Iterator<Item = Option<usize>> + use<> {
    each_or_none(if needed { span.event_count() } else { 0 })
}

fn links_of(span: &dyn SpanValues, needed: bool) -> impl Iterator<Item = Option<usize>> + use<> {
    each_or_none(if needed { span.link_count() } else { 0 })
}

/// Each index; with none, once none.
fn each_or_none(count: usize) -> impl Iterator<Item = Option<usize>> {
    (count == 0).then_some(None).into_iter().chain((0..count).map(Some))
}

fn bound_pairs(span: &dyn SpanValues) -> Result<(), EvalError> {
    let (events, links) = (span.event_count(), span.link_count());
    if events.saturating_mul(links) > EVENT_LINK_PAIRS_MAX {
        return Err(EvalError::TooManyPairs { events, links });
    }
    Ok(())
}

/// Terms that cannot fail may run in any order without an error appearing or vanishing; only those
/// are moved.
pub(super) fn plan_choice(root: &Node) -> (Vec<Node>, Choice) {
    let (events, links) = (root.needs(Field::is_event), root.needs(Field::is_link));
    if !events && !links {
        return (Vec::new(), Choice::Neither);
    }
    let terms = match root {
        Node::All(terms) => terms.as_slice(),
        other => std::slice::from_ref(other),
    };
    let free = |term: &&Node| {
        !term.can_fail() && !term.needs(Field::is_event) && !term.needs(Field::is_link)
    };
    let before = terms.iter().filter(free).cloned().collect();
    let bound: Vec<Node> = terms.iter().filter(|term| !free(term)).cloned().collect();
    let apart = bound.iter().all(|term| {
        !(term.can_fail() || term.needs(Field::is_event) && term.needs(Field::is_link))
    });
    if apart {
        let (events, links) = bound.into_iter().partition(|term| term.needs(Field::is_event));
        return (before, Choice::Apart(events, links));
    }
    (before, Choice::Together { terms: bound, events, links })
}
