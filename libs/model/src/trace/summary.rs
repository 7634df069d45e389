//! What search and the trace table say about a trace without reading its spans again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ResourceRecord, Trace};
use crate::otlp::view::{AnyValueView, SpanView, resource_attributes, status};
use crate::{TraceId, UnixNanos};

/// The resource attribute that names a service.
const SERVICE_NAME: &str = "service.name";

/// Spans of one service in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStats {
    /// `service.name` of the resource; empty when it has none.
    pub name: Arc<str>,
    /// How many spans it reported.
    pub spans: u32,
    /// How many of them have status error.
    pub errors: u32,
}

/// Facts about a whole trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSummary {
    /// The trace's id.
    pub id: TraceId,
    /// The earliest start; zero for a trace without spans.
    pub start: UnixNanos,
    /// The latest end. A span whose clock ran backwards ends when it starts, so this is never
    /// before `start`.
    pub end: UnixNanos,
    /// Service of the root span, empty when it names none; `None` while no root has arrived.
    pub root_service: Option<Arc<str>>,
    /// Name of the root span; `None` while no root has arrived.
    pub root_name: Option<Arc<str>>,
    /// How many spans there are, saturating.
    pub span_count: u32,
    /// How many of them have status error, saturating.
    pub error_count: u32,
    /// By service, in the order of their names.
    pub services: Vec<ServiceStats>,
}

impl TraceSummary {
    /// End minus start in nanoseconds.
    pub const fn duration_nanos(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }
}

/// The best root so far.
struct Root<'a> {
    /// Start, id and kind: the least is the root.
    order: (u64, [u8; 8], i32),
    name: &'a str,
    service: Arc<str>,
}

impl Trace {
    /// Sums the trace up. The root is the span without a parent; of several, the one that starts
    /// first, then the one with the smallest id, then the smallest kind. Spans that do not parse
    /// are only counted.
    pub fn summary(&self) -> TraceSummary {
        let mut names = ServiceNames::default();
        let mut services: BTreeMap<Arc<str>, (u32, u32)> = BTreeMap::new();
        let (mut start, mut end, mut errors) = (u64::MAX, 0u64, 0u32);
        let mut root: Option<Root<'_>> = None;
        for record in &self.spans {
            let service = names.of(&record.resource);
            let counts = services.entry(Arc::clone(&service)).or_default();
            counts.0 = counts.0.saturating_add(1);
            let Ok(span) = SpanView::parse(&record.bytes) else { continue };
            let failed = u32::from(span.status_code == status::ERROR);
            counts.1 = counts.1.saturating_add(failed);
            errors = errors.saturating_add(failed);
            start = start.min(span.start_unix_nanos);
            end = end.max(span.start_unix_nanos).max(span.end_unix_nanos);
            if span.parent().is_none() {
                let id = span.span().map_or([0; 8], |id| id.0);
                let order = (span.start_unix_nanos, id, span.kind);
                if root.as_ref().is_none_or(|best| order < best.order) {
                    root = Some(Root { order, name: span.name, service });
                }
            }
        }
        let (root_name, root_service) = match root {
            Some(root) => (Some(Arc::from(root.name)), Some(root.service)),
            None => (None, None),
        };
        TraceSummary {
            id: self.id,
            start: UnixNanos(start.min(end)),
            end: UnixNanos(end),
            root_service,
            root_name,
            span_count: u32::try_from(self.spans.len()).unwrap_or(u32::MAX),
            error_count: errors,
            services: services
                .into_iter()
                .map(|(name, (spans, errors))| ServiceStats { name, spans, errors })
                .collect(),
        }
    }
}

impl ResourceRecord {
    /// The text of `service.name`, if the resource has one.
    pub fn service_name(&self) -> Option<&str> {
        resource_attributes(&self.bytes)
            .map_while(Result::ok)
            .filter(|attribute| attribute.key == SERVICE_NAME)
            .find_map(|attribute| match attribute.value {
                AnyValueView::String(name) => Some(name),
                _ => None,
            })
    }
}

/// Reads the name of a resource once for a run of spans that share it.
#[derive(Default)]
struct ServiceNames {
    last: Option<(*const ResourceRecord, Arc<str>)>,
}

impl ServiceNames {
    fn of(&mut self, resource: &Arc<ResourceRecord>) -> Arc<str> {
        let address = Arc::as_ptr(resource);
        match &self.last {
            Some((known, name)) if *known == address => Arc::clone(name),
            _ => {
                let name: Arc<str> = Arc::from(resource.service_name().unwrap_or_default());
                self.last = Some((address, Arc::clone(&name)));
                name
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::trace::SpanRecord;
    use crate::wire::{put_bytes_field, put_fixed64_field, put_varint_field};

    fn resource(service: &str) -> Arc<ResourceRecord> {
        let mut value = Vec::new();
        put_bytes_field(&mut value, 1, service.as_bytes());
        let mut pair = Vec::new();
        put_bytes_field(&mut pair, 1, SERVICE_NAME.as_bytes());
        put_bytes_field(&mut pair, 2, &value);
        let mut bytes = Vec::new();
        put_bytes_field(&mut bytes, 1, &pair);
        Arc::new(ResourceRecord { bytes: Bytes::from(bytes), ..Default::default() })
    }

    struct Part {
        id: u8,
        parent: u8,
        times: (u64, u64),
        error: bool,
    }

    fn span(part: Part, resource: &Arc<ResourceRecord>) -> SpanRecord {
        let mut bytes = Vec::new();
        put_bytes_field(&mut bytes, 2, &[part.id; 8]);
        put_bytes_field(&mut bytes, 4, &[part.parent; 8]);
        put_bytes_field(&mut bytes, 5, format!("op{}", part.id).as_bytes());
        put_fixed64_field(&mut bytes, 7, part.times.0);
        put_fixed64_field(&mut bytes, 8, part.times.1);
        if part.error {
            let mut code = Vec::new();
            put_varint_field(&mut code, 3, 2);
            put_bytes_field(&mut bytes, 15, &code);
        }
        SpanRecord {
            resource: Arc::clone(resource),
            scope: Arc::default(),
            bytes: Bytes::from(bytes),
        }
    }

    fn trace(spans: Vec<SpanRecord>) -> Trace {
        Trace { id: TraceId([1; 16]), spans }
    }

    #[test]
    fn counts_times_and_root() {
        let (a, b) = (resource("a"), resource("b"));
        let summary = trace(vec![
            span(Part { id: 2, parent: 1, times: (20, 90), error: true }, &b),
            span(Part { id: 1, parent: 0, times: (10, 50), error: false }, &a),
            span(Part { id: 3, parent: 0, times: (11, 12), error: false }, &b),
            span(Part { id: 4, parent: 9, times: (99, 3), error: true }, &Arc::default()),
        ])
        .summary();
        assert_eq!((summary.start, summary.end), (UnixNanos(10), UnixNanos(99)));
        assert_eq!(summary.duration_nanos(), 89);
        assert_eq!(summary.root_service.as_deref(), Some("a"));
        assert_eq!(summary.root_name.as_deref(), Some("op1"));
        assert_eq!((summary.span_count, summary.error_count), (4, 2));
        let services: Vec<_> =
            summary.services.iter().map(|s| (&*s.name, s.spans, s.errors)).collect();
        assert_eq!(services, [("", 1, 1), ("a", 1, 0), ("b", 2, 1)]);
    }

    #[test]
    fn of_several_roots_the_first_then_the_smallest() {
        let a = resource("a");
        let root = |id, start| span(Part { id, parent: 0, times: (start, 9), error: false }, &a);
        let name = |spans| trace(spans).summary().root_name;
        assert_eq!(name(vec![root(1, 5), root(2, 4)]).as_deref(), Some("op2"));
        assert_eq!(name(vec![root(2, 5), root(1, 5)]).as_deref(), Some("op1"));
    }

    #[test]
    fn no_root_and_no_span() {
        let child = span(Part { id: 1, parent: 2, times: (7, 7), error: false }, &resource("a"));
        let summary = trace(vec![child]).summary();
        assert_eq!((summary.root_service, summary.root_name), (None, None));
        let empty = trace(Vec::new()).summary();
        assert_eq!((empty.start, empty.end, empty.span_count), (UnixNanos(0), UnixNanos(0), 0));
    }
}
