//! Structural operators on two lists of spans, by nested sets: the work grows with the lists, not
//! with the trace.
//!
//! Spans that are cut off from every root have no place in the tree and are related to nothing. A
//! negated operator keeps the spans on its right that are related to none on its left, so it keeps
//! those.

use std::collections::HashMap;

use clew_traceql::ast::{Form, Relation};

use super::{Related, Spans};
use crate::structure::{Parent, Structure};

/// Of so many spans one may be gone up from; where there are more, the whole structure is cheaper.
const CLIMBED_SHARE: usize = 3;

/// The spans that `left op right` answers, ascending.
pub(super) fn related(
    how: Related,
    left: &[u32],
    mut right: Vec<u32>,
    trace: &dyn Spans,
) -> Vec<u32> {
    let upwards = matches!(how.relation, Relation::Descendant | Relation::Child);
    let few = right.len() < trace.count() as usize / CLIMBED_SHARE;
    if upwards && few && how.form != Form::Union && climb(how, left, &mut right, trace) {
        return right;
    }
    let structure = trace.structure();
    match how.form {
        Form::Plain => {
            let among = Among::new(left, how.relation, structure);
            right.retain(|span| among.has_relative_of(*span));
            right
        }
        Form::Negated => {
            let among = Among::new(left, how.relation, structure);
            right.retain(|span| !among.has_relative_of(*span));
            right
        }
        Form::Union => {
            let of_left = Among::new(left, how.relation, structure);
            let of_right = Among::new(&right, inverse(how.relation), structure);
            let mut both: Vec<u32> =
                left.iter().copied().filter(|span| of_right.has_relative_of(*span)).collect();
            right.retain(|span| of_left.has_relative_of(*span));
            both.append(&mut right);
            both.sort_unstable();
            both.dedup();
            both
        }
    }
}

/// Keeps those of `right` that the operator answers, by going up from each; false if parents are not
/// to be had one by one.
fn climb(how: Related, left: &[u32], right: &mut Vec<u32>, trace: &dyn Spans) -> bool {
    let mut known: HashMap<u32, Above> = HashMap::new();
    let mut path = Vec::new();
    let is_left = |span: u32| left.binary_search(&span).is_ok();
    if right.first().is_some_and(|span| trace.parent(*span).is_none()) {
        return false;
    }
    let mut is_related = |span: u32| {
        let Some(Parent::Span(parent)) = trace.parent(span) else { return false };
        let mut at = parent;
        // Up to a root, a span that is known, or around a circle, which leads to no root.
        let mut above = loop {
            if let Some(above) = known.get(&at) {
                break *above;
            }
            known.insert(at, Above::default());
            path.push(at);
            match trace.parent(at) {
                Some(Parent::Span(next)) => at = next,
                Some(Parent::Root) => break Above { connected: true, left: false },
                Some(Parent::Missing) | None => break Above::default(),
            }
        };
        while let Some(span) = path.pop() {
            above.left |= is_left(span);
            known.insert(span, above);
        }
        above.connected
            && match how.relation {
                Relation::Child => is_left(parent),
                _ => above.left,
            }
    };
    let negated = how.form == Form::Negated;
    right.retain(|span| is_related(*span) != negated);
    true
}

/// What a span and its ancestors are.
#[derive(Clone, Copy, Default)]
struct Above {
    /// They lead to a root.
    connected: bool,
    /// One of them is on the left.
    left: bool,
}

/// What the left-side span is to the right-side one.
const fn inverse(relation: Relation) -> Relation {
    match relation {
        Relation::Descendant => Relation::Ancestor,
        Relation::Ancestor => Relation::Descendant,
        Relation::Child => Relation::Parent,
        Relation::Parent => Relation::Child,
        Relation::Sibling => Relation::Sibling,
    }
}

/// Spans in which relatives are looked up.
struct Among<'a> {
    structure: &'a Structure,
    relation: Relation,
    /// What is looked up, ascending: left numbers, or those of the parents.
    keys: Vec<i64>,
    /// For each left number the largest right number up to it.
    ends: Vec<i64>,
    /// The spans themselves, ascending.
    spans: &'a [u32],
}

impl<'a> Among<'a> {
    fn new(spans: &'a [u32], relation: Relation, structure: &'a Structure) -> Among<'a> {
        let connected =
            spans.iter().map(|span| *span as usize).filter(|at| structure.left(*at) > 0);
        let mut ends = Vec::new();
        let mut keys: Vec<i64> = match relation {
            Relation::Descendant => {
                let mut sets: Vec<(i64, i64)> =
                    connected.map(|at| (structure.left(at), structure.right(at))).collect();
                sets.sort_unstable();
                let mut largest = 0;
                for (_, right) in &sets {
                    largest = largest.max(*right);
                    ends.push(largest);
                }
                sets.into_iter().map(|(left, _)| left).collect()
            }
            Relation::Ancestor | Relation::Child => {
                connected.map(|at| structure.left(at)).collect()
            }
            Relation::Parent | Relation::Sibling => {
                connected.map(|at| structure.parent_left(at)).collect()
            }
        };
        keys.sort_unstable();
        Among { structure, relation, keys, ends, spans }
    }

    /// Whether `span` has the relation to one of the spans.
    fn has_relative_of(&self, span: u32) -> bool {
        let at = span as usize;
        let (left, right) = (self.structure.left(at), self.structure.right(at));
        if left <= 0 {
            return false;
        }
        let parent = self.structure.parent_left(at);
        match self.relation {
            // Sets are nested or apart: one that begins before and ends after is around it.
            Relation::Descendant => {
                let before = self.keys.partition_point(|key| *key < left);
                before
                    .checked_sub(1)
                    .and_then(|last| self.ends.get(last))
                    .is_some_and(|end| *end > right)
            }
            Relation::Ancestor => {
                let after = self.keys.partition_point(|key| *key <= left);
                self.keys.get(after).is_some_and(|key| *key < right)
            }
            Relation::Child => self.keys.binary_search(&parent).is_ok(),
            Relation::Parent => self.keys.binary_search(&left).is_ok(),
            Relation::Sibling => {
                let from = self.keys.partition_point(|key| *key < parent);
                let itself = usize::from(self.spans.binary_search(&span).is_ok());
                self.keys.get(from + itself).is_some_and(|key| *key == parent)
            }
        }
    }
}
