//! From a trace to an encoded `TracesData`, and the grouping that the JSON writer shares.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{ResourceRecord, ScopeRecord, SpanRecord, Trace};
use crate::otlp::envelope::{CHILDREN, envelope_len, put_message, put_schema_url};
use crate::wire::{bytes_field_len, put_bytes_field, put_len_header};

impl Trace {
    /// The trace as an encoded `TracesData`; see [`Trace::encode_into`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Appends the trace as an encoded `TracesData`.
    ///
    /// Spans are grouped by resource and scope (equal by content), each group in the order of its
    /// first span, spans in the order they have here. So a merged trace has one encoding, and
    /// encodings of several traces may be appended to each other.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let groups = group_spans(&self.spans);
        out.reserve(groups.iter().map(|group| bytes_field_len(1, group.content_len())).sum());
        for group in &groups {
            put_len_header(out, 1, group.content_len());
            put_message(out, &group.resource.bytes);
            for scope in &group.scopes {
                put_len_header(out, CHILDREN, scope.content_len());
                put_message(out, &scope.scope.bytes);
                for span in &scope.spans {
                    put_bytes_field(out, CHILDREN, &span.bytes);
                }
                put_schema_url(out, scope.scope.schema_url.as_bytes());
            }
            put_schema_url(out, group.resource.schema_url.as_bytes());
        }
    }
}

/// The spans of one resource.
pub(crate) struct ResourceGroup<'a> {
    pub(crate) resource: &'a ResourceRecord,
    pub(crate) scopes: Vec<ScopeGroup<'a>>,
}

/// The spans of one scope under one resource.
pub(crate) struct ScopeGroup<'a> {
    pub(crate) scope: &'a ScopeRecord,
    pub(crate) spans: Vec<&'a SpanRecord>,
    /// Encoded length of the spans as fields of the `ScopeSpans`.
    spans_len: usize,
}

impl ResourceGroup<'_> {
    fn content_len(&self) -> usize {
        let scopes = self.scopes.iter().map(|s| bytes_field_len(CHILDREN, s.content_len()));
        envelope_len(&self.resource.bytes, self.resource.schema_url.as_bytes())
            + scopes.sum::<usize>()
    }
}

impl ScopeGroup<'_> {
    fn content_len(&self) -> usize {
        envelope_len(&self.scope.bytes, self.scope.schema_url.as_bytes()) + self.spans_len
    }
}

/// Groups spans by the content of resource and scope, in the order of first occurrence.
pub(crate) fn group_spans(spans: &[SpanRecord]) -> Vec<ResourceGroup<'_>> {
    let mut groups: Vec<ResourceGroup<'_>> = Vec::new();
    let mut resources = Interner::default();
    let mut scopes = Interner::default();
    // (resource, scope) by number -> position of the scope inside its resource's group.
    let mut positions: FxHashMap<(usize, usize), usize> = FxHashMap::default();
    for span in spans {
        let resource = resources.number(&span.resource);
        if resource == groups.len() {
            groups.push(ResourceGroup { resource: &span.resource, scopes: Vec::new() });
        }
        let group = &mut groups[resource];
        let scope = *positions.entry((resource, scopes.number(&span.scope))).or_insert_with(|| {
            group.scopes.push(ScopeGroup { scope: &span.scope, spans: Vec::new(), spans_len: 0 });
            group.scopes.len() - 1
        });
        let scope = &mut group.scopes[scope];
        scope.spans.push(span);
        scope.spans_len += bytes_field_len(CHILDREN, span.bytes.len());
    }
    groups
}

/// Numbers records by content. Spans share their records, so most lookups end at the address.
struct Interner<'a, R> {
    by_address: FxHashMap<*const R, usize>,
    by_content: BTreeMap<&'a R, usize>,
}

impl<R> Default for Interner<'_, R> {
    fn default() -> Self {
        Interner { by_address: FxHashMap::default(), by_content: BTreeMap::new() }
    }
}

impl<'a, R: Ord> Interner<'a, R> {
    /// The number of the record, counted from 0 in the order of first occurrence.
    fn number(&mut self, record: &'a Arc<R>) -> usize {
        let by_content = &mut self.by_content;
        *self.by_address.entry(Arc::as_ptr(record)).or_insert_with(|| {
            let next = by_content.len();
            *by_content.entry(record.as_ref()).or_insert(next)
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn span(resource: &'static [u8], scope: &'static [u8], span: &'static [u8]) -> SpanRecord {
        let schema_url: Arc<str> = Arc::from("u");
        let resource = ResourceRecord { bytes: Bytes::from_static(resource), schema_url };
        let scope = ScopeRecord { bytes: Bytes::from_static(scope), ..Default::default() };
        SpanRecord {
            resource: Arc::new(resource),
            scope: Arc::new(scope),
            bytes: Bytes::from_static(span),
        }
    }

    #[test]
    fn equal_records_at_different_addresses_are_one_group() {
        let spans = [span(b"r", b"s", b"1"), span(b"q", b"s", b"2"), span(b"r", b"t", b"3")];
        let again = [span(b"r", b"s", b"4"), span(b"q", b"s", b"5"), span(b"p", b"s", b"6")];
        let spans = [spans, again].concat();
        let found: Vec<_> = group_spans(&spans)
            .iter()
            .flat_map(|group| group.scopes.iter().map(move |scope| (group, scope)))
            .map(|(group, scope)| {
                let spans: Vec<u8> = scope.spans.iter().map(|span| span.bytes[0]).collect();
                (group.resource.bytes[0], scope.scope.bytes[0], spans)
            })
            .collect();
        let expected = [
            (b'r', b's', b"14".to_vec()),
            (b'r', b't', b"3".to_vec()),
            (b'q', b's', b"25".to_vec()),
            (b'p', b's', b"6".to_vec()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_encoding_is_as_protobuf_has_it() {
        let trace = Trace { id: crate::TraceId([1; 16]), spans: vec![span(b"r", b"", b"1")] };
        assert_eq!(trace.encode(), b"\x0a\x0b\x0a\x01r\x12\x03\x12\x011\x1a\x01u");
    }
}
