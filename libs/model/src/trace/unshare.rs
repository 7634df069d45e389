//! Zipkin reports the two sides of a call under one span id. Readers of OTLP take an id for one
//! span, so the server's side gets an id of its own before a trace is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::{ResourceRecord, Trace};
use crate::SpanId;
use crate::otlp::view::{SpanView, kind};
use crate::wire::{Reader, put_bytes_field};

const SPAN_ID: u32 = 2;
const PARENT_SPAN_ID: u32 = 4;

/// An id that a client span and a server span share.
struct Shared {
    server: usize,
    server_id: SpanId,
    client_resource: Arc<ResourceRecord>,
    server_resource: Arc<ResourceRecord>,
}

impl Trace {
    /// Gives a server span that shares its id with a client span a new id, derived from the old
    /// one, and makes the client span its parent.
    ///
    /// Children of the shared id become children of the server span, where the work is done,
    /// unless they were reported by the client's resource and not by the server's. Order and number
    /// of spans stay. Doing it twice is the same as once.
    pub fn unshare_span_ids(&mut self) {
        let shared = self.shared_ids();
        if shared.is_empty() {
            return;
        }
        for (at, record) in self.spans.iter_mut().enumerate() {
            let Ok(view) = SpanView::parse(&record.bytes) else { continue };
            let Some(id) = view.span() else { continue };
            let rewritten = match (shared.get(&id), view.parent()) {
                (Some(pair), _) if pair.server == at => with_ids(&record.bytes, pair.server_id, id),
                (_, Some(parent)) if parent != id => match shared.get(&parent) {
                    Some(pair) if pair.is_parent_of(&record.resource) => {
                        with_ids(&record.bytes, id, pair.server_id)
                    }
                    _ => continue,
                },
                _ => continue,
            };
            record.bytes = rewritten;
        }
    }

    fn shared_ids(&self) -> BTreeMap<SpanId, Shared> {
        let mut clients: BTreeMap<SpanId, usize> = BTreeMap::new();
        let mut servers: BTreeMap<SpanId, usize> = BTreeMap::new();
        let mut used: BTreeSet<SpanId> = BTreeSet::new();
        for (at, record) in self.spans.iter().enumerate() {
            let Ok(view) = SpanView::parse(&record.bytes) else { continue };
            let Some(id) = view.span() else { continue };
            used.insert(id);
            match view.kind {
                kind::CLIENT => clients.entry(id).or_insert(at),
                kind::SERVER => servers.entry(id).or_insert(at),
                _ => continue,
            };
        }
        let mut shared = BTreeMap::new();
        for (id, server) in servers {
            let Some(client) = clients.get(&id) else { continue };
            let server_id = unused_id(id, &used);
            used.insert(server_id);
            let pair = Shared {
                server,
                server_id,
                client_resource: Arc::clone(&self.spans[*client].resource),
                server_resource: Arc::clone(&self.spans[server].resource),
            };
            shared.insert(id, pair);
        }
        shared
    }
}

impl Shared {
    /// Whether a child of the shared id that `resource` reported belongs to the server span.
    fn is_parent_of(&self, resource: &Arc<ResourceRecord>) -> bool {
        *resource == self.server_resource || *resource != self.client_resource
    }
}

/// An id derived from `id` and the server's kind that no span of the trace has.
fn unused_id(id: SpanId, used: &BTreeSet<SpanId>) -> SpanId {
    let mut state = u64::from_be_bytes(id.0) ^ kind::SERVER.unsigned_abs() as u64;
    loop {
        // SplitMix64: a bijection, so it reaches every id before it repeats one.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let candidate = SpanId(mixed.to_be_bytes());
        if mixed != 0 && !used.contains(&candidate) {
            return candidate;
        }
    }
}

/// The encoded span with other ids; every other field as it was.
fn with_ids(raw: &[u8], id: SpanId, parent: SpanId) -> Bytes {
    let mut out = Vec::with_capacity(raw.len() + 10);
    let mut reader = Reader::new(raw);
    let mut before = reader.rest();
    let mut placed = false;
    while let Ok(Some(field)) = reader.next_field() {
        let taken = &before[..before.len() - reader.rest().len()];
        before = reader.rest();
        if !placed && field.number > SPAN_ID {
            put_ids(&mut out, id, parent);
            placed = true;
        }
        if field.number != SPAN_ID && field.number != PARENT_SPAN_ID {
            out.extend_from_slice(taken);
        }
    }
    if !placed {
        put_ids(&mut out, id, parent);
    }
    Bytes::from(out)
}

fn put_ids(out: &mut Vec<u8>, id: SpanId, parent: SpanId) {
    put_bytes_field(out, SPAN_ID, &id.0);
    put_bytes_field(out, PARENT_SPAN_ID, &parent.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TraceId;
    use crate::trace::SpanRecord;
    use crate::wire::put_varint_field;

    fn resource(tag: &'static [u8]) -> Arc<ResourceRecord> {
        Arc::new(ResourceRecord { bytes: Bytes::from_static(tag), ..Default::default() })
    }

    fn span(id: u8, parent: u8, kind: i32, resource: &Arc<ResourceRecord>) -> SpanRecord {
        let mut bytes = Vec::new();
        put_bytes_field(&mut bytes, 1, &[1; 16]);
        put_bytes_field(&mut bytes, 2, &[id; 8]);
        if parent != 0 {
            put_bytes_field(&mut bytes, 4, &[parent; 8]);
        }
        put_bytes_field(&mut bytes, 5, b"name");
        put_varint_field(&mut bytes, 6, u64::from(kind.unsigned_abs()));
        SpanRecord {
            resource: Arc::clone(resource),
            scope: Arc::default(),
            bytes: Bytes::from(bytes),
        }
    }

    fn ids(trace: &Trace) -> Vec<(SpanId, Option<SpanId>)> {
        trace
            .spans
            .iter()
            .map(|record| {
                let view = SpanView::parse(&record.bytes).unwrap();
                assert_eq!(view.name, "name");
                assert_eq!(view.trace(), Some(TraceId([1; 16])));
                (view.span().unwrap(), view.parent())
            })
            .collect()
    }

    fn plain(n: u8) -> SpanId {
        SpanId([n; 8])
    }

    #[test]
    fn the_server_gets_an_id_and_the_client_as_parent() {
        let (c, s, third) = (resource(b"\x10\x01"), resource(b"\x10\x02"), resource(b"\x10\x03"));
        let mut trace = Trace {
            id: TraceId([1; 16]),
            spans: vec![
                span(1, 0, kind::INTERNAL, &c),
                span(2, 1, kind::CLIENT, &c),
                span(2, 1, kind::SERVER, &s),
                span(3, 2, kind::INTERNAL, &s),
                span(4, 2, kind::INTERNAL, &c),
                span(5, 2, kind::INTERNAL, &third),
            ],
        };
        trace.unshare_span_ids();
        let after = ids(&trace);
        let server = after[2].0;
        assert_ne!(server, plain(2));
        assert_eq!(
            after,
            [
                (plain(1), None),
                (plain(2), Some(plain(1))),
                (server, Some(plain(2))),
                (plain(3), Some(server)),
                (plain(4), Some(plain(2))),
                (plain(5), Some(server)),
            ]
        );
        let once = trace.clone();
        trace.unshare_span_ids();
        assert_eq!(trace, once);
    }

    #[test]
    fn two_shared_ids_in_a_row() {
        let one = resource(b"\x10\x01");
        let mut trace = Trace {
            id: TraceId([1; 16]),
            spans: vec![
                span(2, 0, kind::CLIENT, &one),
                span(2, 0, kind::SERVER, &one),
                span(3, 2, kind::CLIENT, &one),
                span(3, 2, kind::SERVER, &one),
            ],
        };
        trace.unshare_span_ids();
        let after = ids(&trace);
        let (outer, inner) = (after[1].0, after[3].0);
        assert_eq!(
            after,
            [
                (plain(2), None),
                (outer, Some(plain(2))),
                (plain(3), Some(outer)),
                (inner, Some(plain(3))),
            ]
        );
    }

    #[test]
    fn traces_without_shared_ids_stay_as_they_are() {
        let one = resource(b"");
        let mut trace = Trace {
            id: TraceId([1; 16]),
            spans: vec![span(2, 0, kind::CLIENT, &one), span(3, 2, kind::SERVER, &one)],
        };
        let before = trace.clone();
        trace.unshare_span_ids();
        assert_eq!(trace, before);
    }

    #[test]
    fn a_taken_id_is_not_given_out() {
        let first = unused_id(plain(2), &BTreeSet::new());
        let second = unused_id(plain(2), &BTreeSet::from([first]));
        assert_ne!(first, second);
    }
}
