//! Finds the parent of each span among the spans of its trace, by the rule the model uses when it
//! shows a trace.

use clew_model::otlp::view::kind;

use super::assemble::NewSpan;
use crate::codec::narrow;
use crate::columns::Parent;

/// The spans of the trace at hand by id; reused for all traces.
#[derive(Debug, Default)]
pub(super) struct Parents {
    /// Span id and position, sorted.
    by_id: Vec<([u8; 8], u32)>,
}

impl Parents {
    /// Reads a trace.
    pub(super) fn read(&mut self, spans: &[NewSpan<'_>]) {
        self.by_id.clear();
        self.by_id.extend((0..).zip(spans).map(|(at, span): (u32, _)| (span.span_id, at)));
        self.by_id.sort_unstable();
    }

    /// Positions of the spans with an id.
    fn with_id(&self, id: [u8; 8]) -> impl Iterator<Item = usize> + '_ {
        let from = self.by_id.partition_point(|(other, _)| *other < id);
        let found = self.by_id.get(from..).unwrap_or_default();
        found.iter().take_while(move |(other, _)| *other == id).map(|(_, at)| *at as usize)
    }

    /// Where the parent of the span at `at` is, if the trace's first span is at `first_row`.
    ///
    /// A server span that shares its id with a client span is the client span's child. Children of
    /// a shared id belong to the server span, unless only the client's resource reported them.
    pub(super) fn of(
        &self,
        at: usize,
        span: &NewSpan<'_>,
        spans: &[NewSpan<'_>],
        first_row: u32,
    ) -> Parent {
        let place = |at: usize| Parent::Row(first_row.saturating_add(narrow(at)));
        if span.kind == kind::SERVER
            && let Some((client, server)) = self.shared(span.span_id, spans)
            && server == at
        {
            return place(client);
        }
        if span.parent_id == [0; 8] {
            return Parent::Root;
        }
        if span.parent_id == span.span_id {
            return Parent::Elsewhere;
        }
        if let Some((client, server)) = self.shared(span.parent_id, spans) {
            let client_only =
                spans[client].resource == span.resource && spans[server].resource != span.resource;
            return place(if client_only { client } else { server });
        }
        self.with_id(span.parent_id).next().map_or(Parent::Elsewhere, place)
    }

    /// The client and the server span of an id that both have.
    fn shared(&self, id: [u8; 8], spans: &[NewSpan<'_>]) -> Option<(usize, usize)> {
        let first = |kind| self.with_id(id).find(|at| spans[*at].kind == kind);
        Some((first(kind::CLIENT)?, first(kind::SERVER)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: u8, parent: u8, kind: i32, resource: u32) -> NewSpan<'static> {
        NewSpan {
            bytes: &[],
            start: 0,
            end: 0,
            span_id: [id; 8],
            parent_id: [parent; 8],
            kind,
            status: 0,
            resource,
            scope: 0,
        }
    }

    fn parents(spans: &[NewSpan<'_>]) -> Vec<Parent> {
        let mut parents = Parents::default();
        parents.read(spans);
        spans.iter().enumerate().map(|(at, span)| parents.of(at, span, spans, 10)).collect()
    }

    #[test]
    fn parents_are_found_by_id() {
        let spans = [span(1, 0, 1, 0), span(2, 1, 1, 0), span(3, 9, 1, 0), span(4, 4, 1, 0)];
        assert_eq!(
            parents(&spans),
            [Parent::Root, Parent::Row(10), Parent::Elsewhere, Parent::Elsewhere]
        );
    }

    #[test]
    fn the_two_sides_of_a_call_under_one_id_are_parent_and_child() {
        let spans = [
            span(1, 0, kind::CLIENT, 0),
            span(1, 0, kind::SERVER, 1),
            span(2, 1, 1, 1),
            span(3, 1, 1, 0),
        ];
        assert_eq!(
            parents(&spans),
            [Parent::Root, Parent::Row(10), Parent::Row(11), Parent::Row(10)]
        );
    }
}
