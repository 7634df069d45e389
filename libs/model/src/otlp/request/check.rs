//! The checks a span, resource or scope passes before it is stored: every field known to the schema
//! has its own wire type, every string is UTF-8, ids have their lengths, parts have a bound.

use std::fmt::{Display, Formatter};

use super::{RejectReason, ScanLimits, VALUE_DEPTH_MAX};
use crate::TraceId;
use crate::otlp::schema::{FieldKind, MessageDef, SPAN, span_field};
use crate::otlp::view::{PlainValue, is_utf8, plain_pair, plain_value};
use crate::wire::{Field, Reader, Value, WireError};

/// What is wrong with a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    /// Not the length and content a trace id has.
    TraceId { bytes: usize },
    /// Not the length and content a span id has.
    SpanId { bytes: usize },
    /// A parent id that is neither absent nor 8 bytes.
    ParentId { bytes: usize },
    /// An id of a link that is neither absent nor of its length.
    LinkId { bytes: usize },
    /// More parts than allowed.
    TooMany { message: &'static str, parts: &'static str, parts_max: usize },
    /// More bytes than allowed.
    TooLarge { bytes: usize, bytes_max: usize },
    /// The bytes do not parse as the message.
    Message { message: &'static str, error: WireError },
}

impl Defect {
    /// The class this defect is counted in.
    pub(super) fn reason(&self) -> RejectReason {
        match self {
            Defect::TraceId { .. } => RejectReason::InvalidTraceId,
            Defect::SpanId { .. } | Defect::ParentId { .. } => RejectReason::InvalidSpanId,
            Defect::LinkId { .. } => RejectReason::InvalidLink,
            Defect::TooMany { .. } => RejectReason::TooMany,
            Defect::TooLarge { .. } => RejectReason::TooLarge,
            Defect::Message { error: WireError::TooDeep, .. } => RejectReason::TooDeep,
            Defect::Message { error: WireError::NotUtf8(_), .. } => RejectReason::NotUtf8,
            Defect::Message { .. } => RejectReason::Malformed,
        }
    }
}

impl Display for Defect {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match *self {
            Defect::TraceId { bytes } => {
                write!(f, "a trace id must be 16 bytes and not all zero: {bytes} bytes")
            }
            Defect::SpanId { bytes } => {
                write!(f, "a span id must be 8 bytes and not all zero: {bytes} bytes")
            }
            Defect::ParentId { bytes } => {
                write!(f, "a parent span id must be absent or 8 bytes: {bytes} bytes")
            }
            Defect::LinkId { bytes } => {
                write!(f, "a link's ids must be absent or 16 and 8 bytes: {bytes} bytes")
            }
            Defect::TooMany { message, parts, parts_max } => {
                write!(f, "{message} has too many {parts}: at most {parts_max}")
            }
            Defect::TooLarge { bytes, bytes_max } => {
                write!(f, "a span is too large: {bytes} bytes, at most {bytes_max}")
            }
            Defect::Message { message, error } => write!(f, "{message}: {error}"),
        }
    }
}

/// Checks an encoded span and returns its trace id.
pub(super) fn check_span(raw: &[u8], limits: &ScanLimits) -> Result<TraceId, Defect> {
    if raw.len() > limits.span_bytes_max {
        return Err(Defect::TooLarge { bytes: raw.len(), bytes_max: limits.span_bytes_max });
    }
    let checker = Checker { outer: SPAN.name, limits };
    let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
    let (mut attributes, mut events, mut links) = (0usize, 0usize, 0usize);
    let mut reader = Reader::new(raw);
    while let Some(field) = reader.next_field().map_err(|error| checker.wire(error))? {
        match field.number {
            span_field::TRACE_ID => trace_id = field.bytes().map_err(|e| checker.wire(e))?,
            span_field::SPAN_ID => span_id = field.bytes().map_err(|e| checker.wire(e))?,
            span_field::PARENT_SPAN_ID => {
                let bytes = field.bytes().map_err(|e| checker.wire(e))?.len();
                if bytes != 0 && bytes != 8 {
                    return Err(Defect::ParentId { bytes });
                }
            }
            span_field::ATTRIBUTES if is_plain_attribute(&field) && checker.depth() > 0 => {
                attributes += 1;
            }
            number => {
                attributes += usize::from(number == span_field::ATTRIBUTES);
                events += usize::from(number == span_field::EVENTS);
                links += usize::from(number == span_field::LINKS);
                checker.field(&field, &SPAN, checker.depth())?;
            }
        }
    }
    let id = TraceId::from_wire(trace_id).ok_or(Defect::TraceId { bytes: trace_id.len() })?;
    if crate::SpanId::from_wire(span_id).is_none() {
        return Err(Defect::SpanId { bytes: span_id.len() });
    }
    checker.count(attributes, "attributes", limits.attributes_max)?;
    checker.count(events, "events", limits.events_max)?;
    checker.count(links, "links", limits.links_max)?;
    Ok(id)
}

/// Whether the field is an attribute in its usual form, in which nothing can be wrong that was not
/// looked at here.
#[inline]
fn is_plain_attribute(field: &Field<'_>) -> bool {
    let Value::Bytes(raw) = field.value else { return false };
    let Some((key, value)) = plain_pair(raw) else { return false };
    is_utf8(key)
        && match plain_value(value) {
            Some(PlainValue::Text(text)) => is_utf8(text),
            Some(PlainValue::Bool(_) | PlainValue::Int(_) | PlainValue::Double(_)) => true,
            None => false,
        }
}

/// Checks an encoded resource or scope (`def` says which) and its schema URL.
pub(super) fn check_description(
    raw: &[u8],
    schema_url: &[u8],
    def: &'static MessageDef,
    limits: &ScanLimits,
) -> Result<(), Defect> {
    let checker = Checker { outer: def.name, limits };
    if std::str::from_utf8(schema_url).is_err() {
        return Err(checker.wire(WireError::NotUtf8(3)));
    }
    let attributes_number = def.named("attributes").map_or(0, |field| field.number);
    let mut attributes = 0;
    let mut reader = Reader::new(raw);
    while let Some(field) = reader.next_field().map_err(|error| checker.wire(error))? {
        attributes += usize::from(field.number == attributes_number);
        checker.field(&field, def, checker.depth())?;
    }
    checker.count(attributes, "attributes", limits.attributes_max)
}

struct Checker<'l> {
    /// The name of the outermost message, for the error text.
    outer: &'static str,
    limits: &'l ScanLimits,
}

impl Checker<'_> {
    fn wire(&self, error: WireError) -> Defect {
        Defect::Message { message: self.outer, error }
    }

    /// How many values may lie inside each other.
    fn depth(&self) -> u32 {
        self.limits.depth_max.min(VALUE_DEPTH_MAX)
    }

    fn count(&self, found: usize, parts: &'static str, parts_max: usize) -> Result<(), Defect> {
        if found > parts_max {
            return Err(Defect::TooMany { message: self.outer, parts, parts_max });
        }
        Ok(())
    }

    /// Checks a message that is not the outermost. Recursion ends after `depth_left` values.
    fn message(&self, raw: &[u8], def: &'static MessageDef, depth_left: u32) -> Result<(), Defect> {
        let depth_left = match (def.any_value, depth_left.checked_sub(1)) {
            (true, None) => return Err(self.wire(WireError::TooDeep)),
            (true, Some(left)) => left,
            (false, _) => depth_left,
        };
        let mut reader = Reader::new(raw);
        while let Some(field) = reader.next_field().map_err(|error| self.wire(error))? {
            self.field(&field, def, depth_left)?;
        }
        Ok(())
    }

    fn field(
        &self,
        field: &Field<'_>,
        def: &'static MessageDef,
        depth_left: u32,
    ) -> Result<(), Defect> {
        let Some((_, known)) = def.field(field.number) else { return Ok(()) };
        if let (FieldKind::Message(inner), Value::Bytes(raw)) = (known.kind, field.value) {
            return self.message(raw, inner, depth_left);
        }
        let checked = match known.kind {
            FieldKind::Text => field.text().map(drop),
            FieldKind::TraceId => return self.link_id(field, 16),
            FieldKind::SpanId => return self.link_id(field, 8),
            FieldKind::Bytes | FieldKind::Message(_) => field.bytes().map(drop),
            FieldKind::Bool | FieldKind::Int64 | FieldKind::Uint32 | FieldKind::Enum(_) => {
                field.varint().map(drop)
            }
            FieldKind::Fixed32 => field.fixed32().map(drop),
            FieldKind::Fixed64 | FieldKind::Double => field.fixed64().map(drop),
        };
        checked.map_err(|error| self.wire(error))
    }

    /// Ids of a span are checked by [`check_span`], so these are a link's.
    fn link_id(&self, field: &Field<'_>, length: usize) -> Result<(), Defect> {
        let bytes = field.bytes().map_err(|error| self.wire(error))?.len();
        if bytes != 0 && bytes != length {
            return Err(Defect::LinkId { bytes });
        }
        Ok(())
    }
}
