//! Divides a `TracesData` into its spans, without reading the spans.

use std::borrow::Cow;
use std::ops::Range;

use clew_model::otlp::view::messages;
use clew_model::wire::{Reader, WireError};

/// Field number of the describing message in `ResourceSpans` and `ScopeSpans`.
const MESSAGE: u32 = 1;
/// Field number of the children in `TracesData` (1), `ResourceSpans` and `ScopeSpans` (2).
const CHILDREN: u32 = 2;
/// Field number of the schema URL.
const SCHEMA_URL: u32 = 3;

/// What spans were reported under.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) resource: Cow<'a, [u8]>,
    pub(super) resource_schema_url: &'a str,
    pub(super) scope: Cow<'a, [u8]>,
    pub(super) scope_schema_url: &'a str,
}

/// Where a span's bytes are and what it was reported under.
#[derive(Debug)]
pub(super) struct SpanFrame {
    pub(super) bytes: Range<usize>,
    pub(super) frame: usize,
}

/// All spans of a buffer.
#[derive(Debug, Default)]
pub(super) struct Frames<'a> {
    pub(super) frames: Vec<Frame<'a>>,
    pub(super) spans: Vec<SpanFrame>,
}

/// Reads the frames of an encoded `TracesData`.
///
/// # Errors
/// [`WireError`] when a message that holds spans is damaged.
pub(super) fn read_frames(body: &[u8]) -> Result<Frames<'_>, WireError> {
    let mut frames = Frames::default();
    for resource_spans in messages(body, 1) {
        let raw = resource_spans?;
        let (resource, resource_schema_url) = describe(raw)?;
        for scope_spans in messages(raw, CHILDREN) {
            let raw = scope_spans?;
            let (scope, scope_schema_url) = describe(raw)?;
            let frame = frames.frames.len();
            let spans_before = frames.spans.len();
            for span in messages(raw, CHILDREN) {
                let bytes = range_in(body, span?);
                frames.spans.push(SpanFrame { bytes, frame });
            }
            if frames.spans.len() > spans_before {
                frames.frames.push(Frame {
                    resource: resource.clone(),
                    resource_schema_url,
                    scope,
                    scope_schema_url,
                });
            }
        }
    }
    Ok(frames)
}

/// The describing message, its pieces joined as protobuf has it, and the schema URL.
fn describe(raw: &[u8]) -> Result<(Cow<'_, [u8]>, &str), WireError> {
    let mut message = Cow::Borrowed(&[][..]);
    let mut schema_url = "";
    let mut reader = Reader::new(raw);
    while let Some(field) = reader.next_field()? {
        match field.number {
            MESSAGE if message.is_empty() => message = Cow::Borrowed(field.bytes()?),
            MESSAGE => message.to_mut().extend_from_slice(field.bytes()?),
            SCHEMA_URL => schema_url = field.text()?,
            _ => {}
        }
    }
    Ok((message, schema_url))
}

/// Where `part`, a slice of `body`, begins and ends in it.
fn range_in(body: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(body.as_ptr().addr());
    start..start + part.len()
}

#[cfg(test)]
mod tests {
    use clew_model::wire::put_bytes_field;

    use super::*;

    fn nested(parts: &[(u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, bytes) in parts {
            put_bytes_field(&mut out, *number, bytes);
        }
        out
    }

    #[test]
    fn spans_are_found_whatever_the_order_of_fields() {
        let scope = nested(&[(2, b"first"), (1, b"sc"), (3, b"su"), (2, b"second"), (1, b"ope")]);
        let resource = nested(&[(3, b"ru"), (2, &scope), (1, b"res")]);
        let body = nested(&[(1, &resource)]);
        let frames = read_frames(&body).unwrap();
        let spans: Vec<_> = frames.spans.iter().map(|span| &body[span.bytes.clone()]).collect();
        assert_eq!(spans, [&b"first"[..], b"second"]);
        let frame = &frames.frames[0];
        assert_eq!((&frame.resource[..], frame.resource_schema_url), (&b"res"[..], "ru"));
        assert_eq!((&frame.scope[..], frame.scope_schema_url), (&b"scope"[..], "su"));
    }

    #[test]
    fn scopes_without_spans_leave_no_frame() {
        let resource = nested(&[(2, &nested(&[(1, b"x")])), (2, &nested(&[(2, b"span")]))]);
        let body = nested(&[(1, &resource)]);
        let frames = read_frames(&body).unwrap();
        assert_eq!((frames.frames.len(), frames.spans[0].frame), (1, 0));
    }

    #[test]
    fn damage_is_an_error() {
        assert!(read_frames(b"\x0a\x09x").is_err());
    }
}
