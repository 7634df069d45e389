//! The shallow scan of an `ExportTraceServiceRequest`: what a distributor must know about a request
//! (which spans may be kept and where they lie) without building a single owned span.
//!
//! A span that can never be stored is counted with its reason and left out; the rest of the request
//! stands. Only when the framing around the spans is broken, so that spans cannot even be told
//! apart, is the whole request an error.
//!
//! What passes here can be read by every view in [`crate::otlp::view`] and by the strict decoders
//! of other clients (Grafana refuses a whole trace for one link id of a wrong length).

mod check;
mod regroup;
mod rejection;

use bytes::Bytes;

use self::check::{Defect, check_description, check_span};
pub use self::regroup::regroup;
pub use self::rejection::{RejectReason, Rejections};
use super::envelope::{CHILDREN, Envelope};
use super::schema::{self, MessageDef};
use super::view::messages;
use crate::wire::WireError;
use crate::{ModelError, TraceId};

/// The deepest nesting of attribute values that any limit may allow. Readers of stored spans
/// recurse at most this deep.
pub const VALUE_DEPTH_MAX: u32 = 64;

/// The number of the field that holds the `ResourceSpans` of a request.
const RESOURCE_SPANS: u32 = 1;

/// What a request may hold. Past a limit a span is rejected, not cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanLimits {
    /// Bytes of a whole request, decompressed.
    pub request_bytes_max: usize,
    /// Bytes of one encoded span.
    pub span_bytes_max: usize,
    /// Attributes of a span, of a resource and of a scope.
    pub attributes_max: usize,
    /// Events of a span.
    pub events_max: usize,
    /// Links of a span.
    pub links_max: usize,
    /// Attribute values inside attribute values; a plain value has depth 1. Held to
    /// [`VALUE_DEPTH_MAX`].
    pub depth_max: u32,
}

impl Default for ScanLimits {
    fn default() -> ScanLimits {
        ScanLimits {
            request_bytes_max: 64 << 20,
            span_bytes_max: 16 << 20,
            attributes_max: 10_000,
            events_max: 10_000,
            links_max: 10_000,
            depth_max: 32,
        }
    }
}

/// A resource of the request, of which at least one span was accepted.
#[derive(Debug, Clone)]
pub struct ScannedResource {
    /// The encoded `Resource`; empty when none was sent.
    pub message: Bytes,
    /// `ResourceSpans.schema_url`, valid UTF-8.
    pub schema_url: Bytes,
}

/// A scope of the request, of which at least one span was accepted.
#[derive(Debug, Clone)]
pub struct ScannedScope {
    /// The encoded `InstrumentationScope`; empty when none was sent.
    pub message: Bytes,
    /// `ScopeSpans.schema_url`, valid UTF-8.
    pub schema_url: Bytes,
}

/// An accepted span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScannedSpan {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Index into [`Scan::resources`].
    pub resource: u32,
    /// Index into [`Scan::scopes`].
    pub scope: u32,
    /// Where its encoded bytes start in the request.
    start: u32,
    /// Where they end.
    end: u32,
}

impl ScannedSpan {
    /// Where the encoded span lies in the request.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// What a request holds.
#[derive(Debug, Clone)]
pub struct Scan {
    /// The request itself.
    pub body: Bytes,
    /// Its resources, in the order sent.
    pub resources: Vec<ScannedResource>,
    /// Its scopes, in the order sent. A scope lies under one resource.
    pub scopes: Vec<ScannedScope>,
    /// The accepted spans, in the order sent, so spans of a scope are neighbours.
    pub spans: Vec<ScannedSpan>,
    /// What was not accepted.
    pub rejected: Rejections,
}

impl Scan {
    /// The encoded bytes of an accepted span.
    pub fn span_bytes(&self, span: &ScannedSpan) -> &[u8] {
        self.body.get(span.range()).unwrap_or_default()
    }
}

/// Scans the encoded request (or `TracesData`) in `body`.
///
/// # Errors
/// [`ModelError::TooLarge`], or [`ModelError::Request`] when the messages around the spans do not
/// parse. Bad spans are no error; see [`Scan::rejected`].
pub fn scan(body: &Bytes, limits: &ScanLimits) -> Result<Scan, ModelError> {
    // Positions are kept as 32 bits.
    let bytes_max = limits.request_bytes_max.min(u32::MAX as usize);
    if body.len() > bytes_max {
        return Err(ModelError::TooLarge { bytes: body.len(), bytes_max });
    }
    let mut walk = Walk {
        limits,
        scan: Scan {
            body: body.clone(),
            resources: Vec::new(),
            scopes: Vec::new(),
            spans: Vec::new(),
            rejected: Rejections::default(),
        },
    };
    for resource_spans in messages(body, RESOURCE_SPANS) {
        resource_spans.and_then(|raw| walk.resource_spans(raw)).map_err(ModelError::Request)?;
    }
    Ok(walk.scan)
}

/// An envelope with what is wrong about it and where it was filed. It is filed with its first
/// accepted span, so that empty envelopes cost no memory.
struct Described {
    envelope: Envelope,
    defect: Option<Defect>,
    filed: Option<u32>,
}

struct Walk<'l> {
    limits: &'l ScanLimits,
    scan: Scan,
}

impl Walk<'_> {
    fn describe(&self, raw: &[u8], def: &'static MessageDef) -> Result<Described, WireError> {
        let envelope = Envelope::read(&self.scan.body, raw)?;
        let defect =
            check_description(&envelope.message, &envelope.schema_url, def, self.limits).err();
        Ok(Described { envelope, defect, filed: None })
    }

    fn resource_spans(&mut self, raw: &[u8]) -> Result<(), WireError> {
        let mut resource = self.describe(raw, &schema::RESOURCE)?;
        for scope_spans in messages(raw, CHILDREN) {
            self.scope_spans(scope_spans?, &mut resource)?;
        }
        Ok(())
    }

    fn scope_spans(&mut self, raw: &[u8], resource: &mut Described) -> Result<(), WireError> {
        let mut scope = self.describe(raw, &schema::SCOPE)?;
        for span in messages(raw, CHILDREN) {
            let span = span?;
            let checked = match resource.defect.or(scope.defect) {
                Some(defect) => Err(defect),
                None => check_span(span, self.limits),
            };
            match checked {
                Ok(trace_id) => self.accept(trace_id, span, resource, &mut scope),
                Err(defect) => self.scan.rejected.add(defect.reason(), &defect),
            }
        }
        Ok(())
    }

    fn accept(
        &mut self,
        trace_id: TraceId,
        span: &[u8],
        resource: &mut Described,
        scope: &mut Described,
    ) {
        let scan = &mut self.scan;
        let resource = *resource.filed.get_or_insert_with(|| {
            let Envelope { message, schema_url } = resource.envelope.clone();
            scan.resources.push(ScannedResource { message, schema_url });
            ordinal(scan.resources.len())
        });
        let scope = *scope.filed.get_or_insert_with(|| {
            let Envelope { message, schema_url } = scope.envelope.clone();
            scan.scopes.push(ScannedScope { message, schema_url });
            ordinal(scan.scopes.len())
        });
        let start = (span.as_ptr() as usize) - (scan.body.as_ptr() as usize);
        let (start, end) = (position(start), position(start + span.len()));
        scan.spans.push(ScannedSpan { trace_id, resource, scope, start, end });
    }
}

/// The index of the last of `length` elements. There are fewer elements than bytes, and those were
/// held to 32 bits.
#[allow(clippy::cast_possible_truncation, reason = "the body was held to 32 bits")]
fn ordinal(length: usize) -> u32 {
    (length - 1) as u32
}

#[allow(clippy::cast_possible_truncation, reason = "the body was held to 32 bits")]
fn position(at: usize) -> u32 {
    at as u32
}

#[cfg(test)]
mod tests;
