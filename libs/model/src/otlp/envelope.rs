//! `ResourceSpans` and `ScopeSpans` have the same shape: a describing message (field 1), repeated
//! children (field 2) and a schema URL (field 3). Scan, decode and encode share that shape here.

use bytes::Bytes;

use crate::wire::{self, Reader, WireError};

/// The describing message.
const MESSAGE: u32 = 1;
/// `scope_spans` of a resource, `spans` of a scope.
pub(crate) const CHILDREN: u32 = 2;
/// The schema URL.
const SCHEMA_URL: u32 = 3;

/// What describes the children of a `ResourceSpans` or `ScopeSpans`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Envelope {
    /// The encoded `Resource` or `InstrumentationScope`; empty when none was sent.
    pub(crate) message: Bytes,
    /// The schema URL as it was sent, not checked for UTF-8.
    pub(crate) schema_url: Bytes,
}

impl Envelope {
    /// Reads the envelope of `raw`, which is a part of `body`. Fields may come in any order, so
    /// this is a pass of its own before the children are visited.
    ///
    /// A describing message sent in several pieces is one message whose pieces are joined, as
    /// protobuf has it.
    pub(crate) fn read(body: &Bytes, raw: &[u8]) -> Result<Envelope, WireError> {
        let mut first: &[u8] = &[];
        let mut joined = Vec::new();
        let mut schema_url: &[u8] = &[];
        let mut reader = Reader::new(raw);
        while let Some(field) = reader.next_field()? {
            match field.number {
                MESSAGE if first.is_empty() => first = field.bytes()?,
                MESSAGE => {
                    if joined.is_empty() {
                        joined.extend_from_slice(first);
                    }
                    joined.extend_from_slice(field.bytes()?);
                }
                SCHEMA_URL => schema_url = field.bytes()?,
                _ => {}
            }
        }
        let message = if joined.is_empty() { slice_of(body, first) } else { Bytes::from(joined) };
        Ok(Envelope { message, schema_url: slice_of(body, schema_url) })
    }
}

/// `part` as a slice that shares the memory of `body`.
pub(crate) fn slice_of(body: &Bytes, part: &[u8]) -> Bytes {
    // An empty part may point anywhere; `slice_ref` wants it inside the body.
    if part.is_empty() { Bytes::new() } else { body.slice_ref(part) }
}

/// Content length of an envelope without its children.
pub(crate) fn envelope_len(message: &[u8], schema_url: &[u8]) -> usize {
    let field = |number, bytes: &[u8]| match bytes.len() {
        0 => 0,
        length => wire::bytes_field_len(number, length),
    };
    field(MESSAGE, message) + field(SCHEMA_URL, schema_url)
}

/// Appends the describing message. Empty means that none was sent.
pub(crate) fn put_message(out: &mut Vec<u8>, message: &[u8]) {
    if !message.is_empty() {
        wire::put_bytes_field(out, MESSAGE, message);
    }
}

/// Appends the schema URL, if there is one.
pub(crate) fn put_schema_url(out: &mut Vec<u8>, schema_url: &[u8]) {
    if !schema_url.is_empty() {
        wire::put_bytes_field(out, SCHEMA_URL, schema_url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_pieces_is_joined_and_fields_come_in_any_order() {
        let mut raw = Vec::new();
        wire::put_bytes_field(&mut raw, SCHEMA_URL, b"url");
        wire::put_bytes_field(&mut raw, MESSAGE, b"ab");
        wire::put_bytes_field(&mut raw, CHILDREN, b"child");
        wire::put_bytes_field(&mut raw, MESSAGE, b"cd");
        wire::put_bytes_field(&mut raw, MESSAGE, b"ef");
        let body = Bytes::from(raw);
        let envelope = Envelope::read(&body, &body).unwrap();
        assert_eq!(&envelope.message[..], b"abcdef");
        assert_eq!(&envelope.schema_url[..], b"url");
    }

    #[test]
    fn nothing_sent_is_empty() {
        let envelope = Envelope::read(&Bytes::new(), &[]).unwrap();
        assert!(envelope.message.is_empty() && envelope.schema_url.is_empty());
        assert_eq!(envelope_len(b"", b""), 0);
    }
}
