//! Many fragments, one trace: the merge laws stated in [`crate::trace`].

use std::cmp::Ordering;

use super::{SpanRecord, Trace};
use crate::otlp::view::SpanView;

impl Trace {
    /// Joins fragments of one trace; `None` if there are none.
    ///
    /// The result holds one span per identity (span id, kind), sorted by (start, span id, kind).
    /// Merging is associative, commutative and idempotent. A span that does not parse has no
    /// identity but its bytes: it is kept once, after the others of start 0.
    pub fn merge(fragments: impl IntoIterator<Item = Trace>) -> Option<Trace> {
        let mut fragments = fragments.into_iter();
        let mut merged = fragments.next()?;
        for fragment in fragments {
            debug_assert_eq!(merged.id, fragment.id, "fragments of one trace");
            merged.id = merged.id.min(fragment.id);
            merged.spans.extend(fragment.spans);
        }
        let mut keyed: Vec<(Key, SpanRecord)> =
            merged.spans.into_iter().map(|span| (Key::of(&span), span)).collect();
        keyed.sort_unstable_by(|(a, x), (b, y)| {
            a.identity.cmp(&b.identity).then_with(|| by_preference(y, x))
        });
        keyed.dedup_by(|(later, x), (kept, y)| match later.identity {
            Identity::Span { .. } => later.identity == kept.identity,
            Identity::Damaged => later.identity == kept.identity && x == y,
        });
        // Identities are unique now, except of damaged spans, which the stable sort leaves in order.
        keyed.sort_by_key(|(key, _)| (key.start, key.identity));
        merged.spans = keyed.into_iter().map(|(_, span)| span).collect();
        Some(merged)
    }
}

/// What a span is sorted by.
#[derive(Debug, Clone, Copy)]
struct Key {
    start: u64,
    identity: Identity,
}

/// What makes a span the same span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    Span { id: [u8; 8], kind: i32 },
    Damaged,
}

impl Key {
    fn of(span: &SpanRecord) -> Key {
        let parsed = SpanView::parse(&span.bytes).ok();
        match parsed.and_then(|view| Some((view.span()?, view))) {
            Some((id, view)) => Key {
                start: view.start_unix_nanos,
                identity: Identity::Span { id: id.0, kind: view.kind },
            },
            None => Key { start: 0, identity: Identity::Damaged },
        }
    }
}

/// The total order by which the greatest of several versions of a span wins: the longer one has
/// more to say; past that any fixed order will do.
fn by_preference(a: &SpanRecord, b: &SpanRecord) -> Ordering {
    a.bytes
        .len()
        .cmp(&b.bytes.len())
        .then_with(|| a.bytes.cmp(&b.bytes))
        .then_with(|| a.resource.cmp(&b.resource))
        .then_with(|| a.scope.cmp(&b.scope))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::TraceId;
    use crate::trace::{ResourceRecord, ScopeRecord};
    use crate::wire::{put_bytes_field, put_fixed64_field, put_varint_field};

    const ID: TraceId = TraceId([1; 16]);

    fn span(id: u8, kind: u64, start: u64, name: &str) -> SpanRecord {
        let mut bytes = Vec::new();
        put_bytes_field(&mut bytes, 1, &ID.0);
        put_bytes_field(&mut bytes, 2, &[id; 8]);
        put_bytes_field(&mut bytes, 5, name.as_bytes());
        put_varint_field(&mut bytes, 6, kind);
        put_fixed64_field(&mut bytes, 7, start);
        record(&bytes)
    }

    fn record(bytes: &[u8]) -> SpanRecord {
        SpanRecord {
            resource: Arc::default(),
            scope: Arc::default(),
            bytes: Bytes::copy_from_slice(bytes),
        }
    }

    fn merge(spans: Vec<SpanRecord>) -> Vec<SpanRecord> {
        Trace::merge(spans.into_iter().map(|span| Trace { id: ID, spans: vec![span] }))
            .unwrap()
            .spans
    }

    #[test]
    fn the_longer_version_wins_then_the_greater() {
        let (short, long) = (span(1, 1, 5, "a"), span(1, 1, 9, "ab"));
        assert_eq!(merge(vec![short.clone(), long.clone()]), std::slice::from_ref(&long));
        assert_eq!(merge(vec![long.clone(), short]), [long]);
        let (a, b) = (span(1, 1, 5, "a"), span(1, 1, 5, "b"));
        assert_eq!(merge(vec![b.clone(), a]), [b]);
    }

    #[test]
    fn equal_spans_of_two_resources_keep_the_greater_resource() {
        let small = span(1, 1, 5, "a");
        let resource =
            ResourceRecord { bytes: Bytes::from_static(b"\x10\x01"), ..Default::default() };
        let great = SpanRecord { resource: Arc::new(resource), ..small.clone() };
        assert_eq!(merge(vec![great.clone(), small.clone()]), std::slice::from_ref(&great));
        assert_eq!(merge(vec![small, great.clone()]), [great]);
    }

    #[test]
    fn equal_spans_of_two_scopes_keep_the_greater_scope() {
        let small = span(1, 1, 5, "a");
        let scope = ScopeRecord { bytes: Bytes::from_static(b"\x0a\x01n"), ..Default::default() };
        let great = SpanRecord { scope: Arc::new(scope), ..small.clone() };
        assert_eq!(merge(vec![great.clone(), small.clone()]), std::slice::from_ref(&great));
        assert_eq!(merge(vec![small, great.clone()]), [great]);
    }

    #[test]
    fn kind_is_part_of_the_identity_and_order_is_by_start() {
        let (client, server, late) = (span(9, 3, 5, "c"), span(9, 2, 5, "s"), span(1, 1, 6, "l"));
        assert_eq!(
            merge(vec![late.clone(), client.clone(), server.clone()]),
            [server, client, late]
        );
    }

    #[test]
    fn damaged_spans_are_kept_once_each() {
        let (a, b, fine) = (record(b"\xff"), record(b"\x0a"), span(1, 1, 0, "x"));
        let one = merge(vec![a.clone(), b.clone(), a.clone(), fine.clone()]);
        assert_eq!(one.len(), 3);
        assert_eq!(one[0], fine);
        assert_eq!(one, merge(vec![fine, a.clone(), b, a]));
    }

    #[test]
    fn nothing_merges_to_nothing() {
        assert_eq!(Trace::merge([]), None);
        let empty = Trace { id: ID, spans: Vec::new() };
        assert_eq!(Trace::merge([empty.clone(), empty.clone()]), Some(empty));
    }
}
