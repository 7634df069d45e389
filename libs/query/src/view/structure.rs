//! Who is whose child in a trace: nested sets and numbers of children.

use std::collections::BTreeMap;

use clew_model::SpanId;
use clew_model::otlp::SpanView;
use clew_model::otlp::view::kind;

/// Nested set numbers of a span that no root leads to.
const CUT_OFF: i64 = 0;
/// The parent's left number, for a root.
const NO_PARENT: i64 = -1;

/// The forest of a trace's spans. Roots are spans without a parent; the first is numbered from 1.
/// Spans whose ancestors did not arrive, or whose parents run in a circle, are cut off.
pub(super) struct Structure {
    nodes: Vec<Node>,
}

#[derive(Clone, Copy)]
struct Node {
    children: u32,
    left: i64,
    right: i64,
    parent_left: i64,
}

impl Structure {
    /// Works the forest out. Children are visited in the order of `spans`.
    pub(super) fn of(spans: &[SpanView<'_>]) -> Structure {
        let parents = parents(spans);
        let children = Children::of(&parents);
        let mut nodes: Vec<Node> = (0..spans.len())
            .map(|at| Node {
                children: u32::try_from(children.of_span(at).len()).unwrap_or(u32::MAX),
                left: CUT_OFF,
                right: CUT_OFF,
                parent_left: CUT_OFF,
            })
            .collect();
        let mut number = 0;
        for root in (0..spans.len()).filter(|at| parents[*at] == Parent::Root) {
            nodes[root].parent_left = NO_PARENT;
            number_tree(root, &children, &mut nodes, &mut number);
        }
        Structure { nodes }
    }

    pub(super) fn child_count(&self, at: usize) -> i64 {
        i64::from(self.nodes[at].children)
    }

    pub(super) fn left(&self, at: usize) -> i64 {
        self.nodes[at].left
    }

    pub(super) fn right(&self, at: usize) -> i64 {
        self.nodes[at].right
    }

    pub(super) fn parent(&self, at: usize) -> i64 {
        self.nodes[at].parent_left
    }
}

/// Walks one tree without recursion: a hostile trace is a chain of a million spans.
fn number_tree(root: usize, children: &Children, nodes: &mut [Node], number: &mut i64) {
    let mut stack = vec![(root, 0)];
    *number += 1;
    nodes[root].left = *number;
    while let Some((at, next)) = stack.pop() {
        if let Some(child) = children.of_span(at).get(next) {
            stack.push((at, next + 1));
            *number += 1;
            nodes[*child].left = *number;
            nodes[*child].parent_left = nodes[at].left;
            stack.push((*child, 0));
        } else {
            *number += 1;
            nodes[at].right = *number;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parent {
    Root,
    Missing,
    Span(usize),
}

/// The spans that have one id: usually one. Zipkin reports both sides of a call under one id.
#[derive(Default, Clone, Copy)]
struct SameId {
    first: usize,
    client: Option<usize>,
    server: Option<usize>,
}

fn parents(spans: &[SpanView<'_>]) -> Vec<Parent> {
    let mut by_id: BTreeMap<SpanId, SameId> = BTreeMap::new();
    for (at, span) in spans.iter().enumerate() {
        let Some(id) = span.span() else { continue };
        let same = by_id.entry(id).or_insert(SameId { first: at, ..SameId::default() });
        match span.kind {
            kind::CLIENT => same.client.get_or_insert(at),
            kind::SERVER => same.server.get_or_insert(at),
            _ => continue,
        };
    }
    let of = |at: usize, span: &SpanView<'_>| {
        let shared = span.span().and_then(|id| by_id.get(&id));
        if let Some(SameId { client: Some(client), server: Some(server), .. }) = shared
            && *server == at
        {
            return Parent::Span(*client);
        }
        let Some(parent) = span.parent() else { return Parent::Root };
        match by_id.get(&parent) {
            // The server's side is where the work of the call was done.
            Some(SameId { client: Some(client), server: Some(server), .. }) if *client != at => {
                Parent::Span(*server)
            }
            Some(same) if same.first != at => Parent::Span(same.first),
            _ => Parent::Missing,
        }
    };
    spans.iter().enumerate().map(|(at, span)| of(at, span)).collect()
}

/// The children of every span, one list after the other.
struct Children {
    starts: Vec<usize>,
    children: Vec<usize>,
}

impl Children {
    fn of(parents: &[Parent]) -> Children {
        let mut starts = vec![0; parents.len() + 1];
        for parent in parents {
            if let Parent::Span(parent) = parent {
                starts[parent + 1] += 1;
            }
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut children = vec![0; starts.last().copied().unwrap_or(0)];
        for (at, parent) in parents.iter().enumerate() {
            if let Parent::Span(parent) = parent {
                children[next[*parent]] = at;
                next[*parent] += 1;
            }
        }
        Children { starts, children }
    }

    fn of_span(&self, at: usize) -> &[usize] {
        &self.children[self.starts[at]..self.starts[at + 1]]
    }
}

#[cfg(test)]
mod tests {
    use clew_model::wire::{put_bytes_field, put_varint_field};

    use super::*;

    fn span(id: u8, parent: u8, kind: i32) -> Vec<u8> {
        let mut raw = Vec::new();
        put_bytes_field(&mut raw, 2, &[id; 8]);
        put_bytes_field(&mut raw, 4, &[parent; 8]);
        put_varint_field(&mut raw, 6, u64::try_from(kind).unwrap());
        raw
    }

    /// (left, right, parent, children) of every span.
    fn numbers(spans: &[Vec<u8>]) -> Vec<(i64, i64, i64, i64)> {
        let views: Vec<_> = spans.iter().map(|raw| SpanView::parse(raw).unwrap()).collect();
        let s = Structure::of(&views);
        (0..views.len())
            .map(|at| (s.left(at), s.right(at), s.parent(at), s.child_count(at)))
            .collect()
    }

    #[test]
    fn a_tree_is_numbered_depth_first() {
        let tree = [span(1, 0, 1), span(2, 1, 1), span(3, 1, 1), span(4, 2, 1)];
        assert_eq!(numbers(&tree), [(1, 8, -1, 2), (2, 5, 1, 1), (6, 7, 1, 0), (3, 4, 2, 0)]);
    }

    #[test]
    fn spans_without_a_way_to_the_root_are_cut_off() {
        let orphans = [
            span(1, 0, 1),
            span(2, 9, 1),
            span(3, 2, 1),
            span(4, 5, 1),
            span(5, 4, 1),
            span(6, 6, 1),
        ];
        let cut = |children| (0, 0, 0, children);
        assert_eq!(numbers(&orphans), [(1, 2, -1, 0), cut(1), cut(0), cut(1), cut(1), cut(0)]);
    }

    #[test]
    fn two_sides_of_a_call_with_one_id_are_parent_and_child() {
        let spans = [span(1, 0, kind::CLIENT), span(1, 0, kind::SERVER), span(2, 1, 1)];
        assert_eq!(numbers(&spans), [(1, 6, -1, 1), (2, 5, 1, 1), (3, 4, 2, 0)]);
    }

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        let raws: Vec<Vec<u8>> = (0..100_000u64)
            .map(|at| {
                let mut raw = Vec::new();
                put_bytes_field(&mut raw, 2, &(at + 1).to_be_bytes());
                put_bytes_field(&mut raw, 4, &at.to_be_bytes());
                raw
            })
            .collect();
        assert_eq!(numbers(&raws)[99_999], (100_000, 100_001, 99_999, 0));
    }
}
