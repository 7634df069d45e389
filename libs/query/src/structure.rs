//! Who is whose child in a trace: parents, nested sets and numbers of children.

use clew_model::SpanId;
use clew_model::otlp::view::kind;

/// Nested set numbers of a span that no root leads to.
const CUT_OFF: i64 = 0;
/// The parent's left number, for a root.
const NO_PARENT: i64 = -1;

/// Where a span's parent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    /// The span has none.
    Root,
    /// Not among the spans.
    Missing,
    /// At this place.
    Span(u32),
}

/// What of a span tells where its parent is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) id: [u8; 8],
    /// All zero for a root.
    pub(crate) parent: [u8; 8],
    pub(crate) kind: i32,
}

/// The forest of a trace's spans. Roots are spans without a parent; the first is numbered from 1.
/// Spans whose ancestors did not arrive, or whose parents run in a circle, are cut off.
#[derive(Debug)]
pub(crate) struct Structure {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    parent: Parent,
    children: u32,
    left: i64,
    right: i64,
    parent_left: i64,
}

impl Structure {
    /// Works the forest out from the parents. Children are visited in the order of the spans.
    pub(crate) fn of(parents: &[Parent]) -> Structure {
        let children = Children::of(parents);
        let node = |(at, parent): (usize, &Parent)| Node {
            parent: *parent,
            children: u32::try_from(children.of_span(at).len()).unwrap_or(u32::MAX),
            left: CUT_OFF,
            right: CUT_OFF,
            parent_left: CUT_OFF,
        };
        let mut nodes: Vec<Node> = parents.iter().enumerate().map(node).collect();
        let mut number = 0;
        for root in (0..parents.len()).filter(|at| parents[*at] == Parent::Root) {
            nodes[root].parent_left = NO_PARENT;
            number_tree(root, &children, &mut nodes, &mut number);
        }
        Structure { nodes }
    }

    pub(crate) fn child_count(&self, at: usize) -> i64 {
        i64::from(self.nodes[at].children)
    }

    /// 0 for a span that is cut off.
    pub(crate) fn left(&self, at: usize) -> i64 {
        self.nodes[at].left
    }

    /// 0 for a span that is cut off.
    pub(crate) fn right(&self, at: usize) -> i64 {
        self.nodes[at].right
    }

    /// The parent's left number: -1 for a root, 0 for a span that is cut off.
    pub(crate) fn parent_left(&self, at: usize) -> i64 {
        self.nodes[at].parent_left
    }

    /// The parent, if it is among the spans; also that of a span that is cut off.
    pub(crate) fn parent(&self, at: usize) -> Option<usize> {
        match self.nodes.get(at)?.parent {
            Parent::Span(parent) => Some(parent as usize),
            Parent::Root | Parent::Missing => None,
        }
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
            let child = *child as usize;
            *number += 1;
            nodes[child].left = *number;
            nodes[child].parent_left = nodes[at].left;
            stack.push((child, 0));
        } else {
            *number += 1;
            nodes[at].right = *number;
        }
    }
}

/// Finds the parents of spans, by the rule the model uses when it shows a trace and blocks use when
/// they are written.
///
/// Two spans can have one id: Zipkin reports both sides of a call under it. The server span is then
/// the client span's child, and children of the shared id are the server span's, where the work is
/// done, unless only the client's resource reported them.
pub(crate) fn parents(links: &[Link], same_resource: impl Fn(usize, usize) -> bool) -> Vec<Parent> {
    let mut by_id: Vec<(SpanId, u32)> =
        (0..).zip(links).map(|(at, link): (u32, &Link)| (SpanId(link.id), at)).collect();
    by_id.sort_unstable();
    let with_id = |id: SpanId| {
        let from = by_id.partition_point(|(other, _)| *other < id);
        by_id[from..].iter().take_while(move |(other, _)| *other == id).map(|(_, at)| *at)
    };
    let shared = |id: SpanId| {
        let mut several = with_id(id).skip(1);
        several.next()?;
        let first = |kind| with_id(id).find(|at| links[*at as usize].kind == kind);
        Some((first(kind::CLIENT)?, first(kind::SERVER)?))
    };
    let parent = |(at, link): (usize, &Link)| {
        if link.kind == kind::SERVER
            && let Some((client, server)) = shared(SpanId(link.id))
            && server as usize == at
        {
            return Parent::Span(client);
        }
        if link.parent == [0; 8] {
            return Parent::Root;
        }
        if link.parent == link.id {
            return Parent::Missing;
        }
        let id = SpanId(link.parent);
        if let Some((client, server)) = shared(id) {
            let of_client =
                same_resource(client as usize, at) && !same_resource(server as usize, at);
            return Parent::Span(if of_client { client } else { server });
        }
        with_id(id).next().map_or(Parent::Missing, Parent::Span)
    };
    links.iter().enumerate().map(parent).collect()
}

/// The children of every span, one list after the other.
struct Children {
    starts: Vec<u32>,
    children: Vec<u32>,
}

impl Children {
    fn of(parents: &[Parent]) -> Children {
        let mut starts = vec![0u32; parents.len() + 1];
        for parent in parents {
            if let Parent::Span(parent) = parent {
                starts[*parent as usize + 1] += 1;
            }
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut children = vec![0; starts.last().map_or(0, |count| *count as usize)];
        for (at, parent) in (0u32..).zip(parents) {
            if let Parent::Span(parent) = parent {
                let place = &mut next[*parent as usize];
                children[*place as usize] = at;
                *place += 1;
            }
        }
        Children { starts, children }
    }

    fn of_span(&self, at: usize) -> &[u32] {
        &self.children[self.starts[at] as usize..self.starts[at + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: u8, parent: u8, kind: i32) -> Link {
        Link { id: [id; 8], parent: [parent; 8], kind }
    }

    /// (left, right, parent, children) of every span.
    fn numbers(links: &[Link]) -> Vec<(i64, i64, i64, i64)> {
        let s = Structure::of(&parents(links, |_, _| true));
        (0..links.len())
            .map(|at| (s.left(at), s.right(at), s.parent_left(at), s.child_count(at)))
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
        let structure = Structure::of(&parents(&orphans, |_, _| true));
        assert_eq!((structure.parent(2), structure.parent(1)), (Some(1), None));
    }

    #[test]
    fn two_sides_of_a_call_with_one_id_are_parent_and_child() {
        let spans = [span(1, 0, kind::CLIENT), span(1, 0, kind::SERVER), span(2, 1, 1)];
        assert_eq!(numbers(&spans), [(1, 6, -1, 1), (2, 5, 1, 1), (3, 4, 2, 0)]);
        // The child was reported by the client's resource alone.
        let by_client = parents(&spans, |a, b| a != 1 && b != 1);
        assert_eq!(by_client[2], Parent::Span(0));
    }

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        let link = |at: u64| Link {
            id: (at + 1).to_be_bytes(),
            parent: at.to_be_bytes(),
            kind: kind::INTERNAL,
        };
        let links: Vec<Link> = (0..100_000).map(link).collect();
        assert_eq!(numbers(&links)[99_999], (100_000, 100_001, 99_999, 0));
    }
}
