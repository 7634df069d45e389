//! Structural operators on two lists of spans, by nested sets: the work grows with the lists, not
//! with the trace.
//!
//! Spans that are cut off from every root have no place in the tree and are related to nothing. A
//! negated operator keeps the spans on its right that are related to none on its left, so it keeps
//! those.

use clew_traceql::ast::{Form, Relation};

use super::Related;
use crate::structure::Structure;

/// The spans that `left op right` answers, ascending.
pub(super) fn related(
    how: Related,
    left: &[u32],
    mut right: Vec<u32>,
    structure: &Structure,
) -> Vec<u32> {
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
