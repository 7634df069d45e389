//! From an encoded `TracesData` to traces that share its memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{ResourceRecord, ScopeRecord, SpanRecord, Trace};
use crate::otlp::envelope::{CHILDREN, Envelope, slice_of};
use crate::otlp::view::{SpanView, messages};
use crate::wire::WireError;
use crate::{ModelError, TraceId};

impl Trace {
    /// Groups the spans of an encoded `TracesData` (or `ExportTraceServiceRequest`) by trace, in
    /// the order in which traces and spans first occur.
    ///
    /// Nothing is copied: spans are slices of `traces_data` and keep it alive. The spans were
    /// checked when they were accepted; what is needed to read them later (ids, UTF-8 of scalar
    /// fields) is checked again here, because stored bytes may be damaged.
    ///
    /// # Errors
    /// [`ModelError::Damaged`] or [`ModelError::DamagedId`].
    pub fn decode(traces_data: &Bytes) -> Result<Vec<Trace>, ModelError> {
        let mut decoder = Decoder { body: traces_data, traces: Vec::new(), known: BTreeMap::new() };
        for resource_spans in messages(traces_data, 1) {
            decoder.resource_spans(resource_spans.map_err(ModelError::Damaged)?)?;
        }
        Ok(decoder.traces)
    }
}

struct Decoder<'b> {
    body: &'b Bytes,
    traces: Vec<Trace>,
    /// Where each trace is in `traces`. An ordered map: trace ids are chosen by senders, who must
    /// not be able to choose collisions.
    known: BTreeMap<TraceId, usize>,
}

impl Decoder<'_> {
    fn resource_spans(&mut self, raw: &[u8]) -> Result<(), ModelError> {
        let (bytes, schema_url) = self.describe(raw).map_err(ModelError::Damaged)?;
        let resource = Arc::new(ResourceRecord { bytes, schema_url });
        for scope_spans in messages(raw, CHILDREN) {
            let raw = scope_spans.map_err(ModelError::Damaged)?;
            let (bytes, schema_url) = self.describe(raw).map_err(ModelError::Damaged)?;
            let scope = Arc::new(ScopeRecord { bytes, schema_url });
            for span in messages(raw, CHILDREN) {
                self.span(span.map_err(ModelError::Damaged)?, &resource, &scope)?;
            }
        }
        Ok(())
    }

    fn describe(&self, raw: &[u8]) -> Result<(Bytes, Arc<str>), WireError> {
        let envelope = Envelope::read(self.body, raw)?;
        let schema_url =
            std::str::from_utf8(&envelope.schema_url).map_err(|_| WireError::NotUtf8(3))?;
        Ok((envelope.message, Arc::from(schema_url)))
    }

    fn span(
        &mut self,
        raw: &[u8],
        resource: &Arc<ResourceRecord>,
        scope: &Arc<ScopeRecord>,
    ) -> Result<(), ModelError> {
        let view = SpanView::parse(raw).map_err(ModelError::Damaged)?;
        let (Some(id), Some(_)) = (view.trace(), view.span()) else {
            return Err(ModelError::DamagedId);
        };
        let at = *self.known.entry(id).or_insert_with(|| {
            self.traces.push(Trace { id, spans: Vec::new() });
            self.traces.len() - 1
        });
        if let Some(trace) = self.traces.get_mut(at) {
            trace.spans.push(SpanRecord {
                resource: Arc::clone(resource),
                scope: Arc::clone(scope),
                bytes: slice_of(self.body, raw),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::wire::put_bytes_field;

    #[test]
    fn spans_without_ids_are_damage() {
        let mut out = Vec::new();
        for (field, content) in [(2u32, 0usize), (2, 0), (1, 0)] {
            let inner = std::mem::take(&mut out);
            put_bytes_field(&mut out, field, &inner[content..]);
        }
        let error = Trace::decode(&Bytes::from(out)).unwrap_err();
        assert_eq!(error, ModelError::DamagedId);
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let error = Trace::decode(&Bytes::from_static(b"\x0a\x09x")).unwrap_err();
        assert_eq!(error, ModelError::Damaged(WireError::Truncated));
    }

    #[test]
    fn nothing_is_copied() {
        let mut span = Vec::new();
        put_bytes_field(&mut span, 1, &[1; 16]);
        put_bytes_field(&mut span, 2, &[1; 8]);
        let mut scope_spans = Vec::new();
        put_bytes_field(&mut scope_spans, 1, b"\x0a\x01n");
        put_bytes_field(&mut scope_spans, 2, &span);
        let mut resource_spans = Vec::new();
        put_bytes_field(&mut resource_spans, 1, b"\x10\x07");
        put_bytes_field(&mut resource_spans, 2, &scope_spans);
        let mut body = Vec::new();
        put_bytes_field(&mut body, 1, &resource_spans);
        let body = Bytes::from(body);
        let trace = Trace::decode(&body).unwrap().remove(0);
        let record = &trace.spans[0];
        assert_eq!(record.bytes, span);
        let memory = body.as_ptr_range();
        for part in [&record.bytes, &record.resource.bytes, &record.scope.bytes] {
            assert!(!part.is_empty() && memory.contains(&part.as_ptr()));
        }
    }

    #[test]
    fn nothing_is_no_trace() {
        assert_eq!(Trace::decode(&Bytes::new()), Ok(Vec::new()));
    }
}
