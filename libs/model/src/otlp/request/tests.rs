//! Examples of what the scan accepts and rejects.

use super::*;
use crate::wire::{put_bytes_field, put_fixed64_field, put_len_header, put_varint_field};

const TRACE: [u8; 16] = [7; 16];

fn span(trace_id: &[u8], span_id: &[u8], rest: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes_field(&mut out, 1, trace_id);
    put_bytes_field(&mut out, 2, span_id);
    rest(&mut out);
    out
}

fn good(n: u8) -> Vec<u8> {
    span(&TRACE, &[n; 8], |_| {})
}

fn wrap(resource: Option<&[u8]>, scope: Option<&[u8]>, spans: &[Vec<u8>]) -> Bytes {
    let mut scope_spans = Vec::new();
    for span in spans {
        put_bytes_field(&mut scope_spans, 2, span);
    }
    if let Some(scope) = scope {
        put_bytes_field(&mut scope_spans, 1, scope);
    }
    let mut resource_spans = Vec::new();
    put_bytes_field(&mut resource_spans, 2, &scope_spans);
    if let Some(resource) = resource {
        put_bytes_field(&mut resource_spans, 1, resource);
    }
    let mut out = Vec::new();
    put_bytes_field(&mut out, 1, &resource_spans);
    Bytes::from(out)
}

fn reasons(body: &Bytes) -> Vec<(RejectReason, u64)> {
    let scan = scan(body, &ScanLimits::default()).unwrap();
    scan.rejected.iter().map(|(reason, spans, _)| (reason, spans)).collect()
}

fn reason_of(bad: Vec<u8>) -> RejectReason {
    let scan = scan(&wrap(None, None, &[good(1), bad, good(2)]), &ScanLimits::default()).unwrap();
    assert_eq!(scan.spans.len(), 2, "its neighbours stay");
    let all: Vec<_> = scan.rejected.iter().collect();
    assert_eq!(all.len(), 1);
    all[0].0
}

/// An attribute whose value is `depth` arrays inside each other, around an empty value.
fn nested_attribute(depth: usize) -> Vec<u8> {
    // lengths[i]: content length of the value at distance i from the innermost.
    let mut lengths = vec![0usize];
    for i in 1..depth {
        let array = crate::wire::bytes_field_len(1, lengths[i - 1]);
        lengths.push(crate::wire::bytes_field_len(5, array));
    }
    let mut out = Vec::new();
    put_bytes_field(&mut out, 1, b"k");
    put_len_header(&mut out, 2, lengths[depth - 1]);
    for i in (1..depth).rev() {
        put_len_header(&mut out, 5, crate::wire::bytes_field_len(1, lengths[i - 1]));
        put_len_header(&mut out, 1, lengths[i - 1]);
    }
    out
}

#[test]
fn ids_are_checked() {
    assert_eq!(reason_of(span(&[7; 15], &[1; 8], |_| {})), RejectReason::InvalidTraceId);
    assert_eq!(reason_of(span(&[0; 16], &[1; 8], |_| {})), RejectReason::InvalidTraceId);
    assert_eq!(reason_of(span(&[], &[1; 8], |_| {})), RejectReason::InvalidTraceId);
    assert_eq!(reason_of(span(&TRACE, &[1; 7], |_| {})), RejectReason::InvalidSpanId);
    assert_eq!(reason_of(span(&TRACE, &[0; 8], |_| {})), RejectReason::InvalidSpanId);
    let parent = span(&TRACE, &[1; 8], |out| put_bytes_field(out, 4, &[1; 3]));
    assert_eq!(reason_of(parent), RejectReason::InvalidSpanId);
    let mut link = Vec::new();
    put_bytes_field(&mut link, 1, &[1; 4]);
    let linked = span(&TRACE, &[1; 8], |out| put_bytes_field(out, 13, &link));
    assert_eq!(reason_of(linked), RejectReason::InvalidLink);
}

#[test]
fn strings_are_checked_all_the_way_down() {
    let mut value = Vec::new();
    put_bytes_field(&mut value, 1, b"\xff");
    let mut pair = Vec::new();
    put_bytes_field(&mut pair, 2, &value);
    let mut event = Vec::new();
    put_bytes_field(&mut event, 3, &pair);
    assert_eq!(
        reason_of(span(&TRACE, &[1; 8], |out| put_bytes_field(out, 11, &event))),
        RejectReason::NotUtf8
    );
    // Bytes values need not be text.
    let mut bytes = Vec::new();
    put_bytes_field(&mut bytes, 7, b"\xff");
    let mut pair = Vec::new();
    put_bytes_field(&mut pair, 2, &bytes);
    let body = wrap(None, None, &[span(&TRACE, &[1; 8], |out| put_bytes_field(out, 9, &pair))]);
    assert_eq!(reasons(&body), []);
}

#[test]
fn wrong_types_and_broken_framing_reject_one_span() {
    let wrong = span(&TRACE, &[1; 8], |out| put_varint_field(out, 7, 1));
    assert_eq!(reason_of(wrong), RejectReason::Malformed);
    let wrong = span(&TRACE, &[1; 8], |out| put_fixed64_field(out, 9, 1));
    assert_eq!(reason_of(wrong), RejectReason::Malformed);
    assert_eq!(reason_of(vec![0x0a]), RejectReason::Malformed);
}

#[test]
fn nesting_is_bounded_without_recursion_into_the_abyss() {
    let with =
        |depth| span(&TRACE, &[1; 8], |out| put_bytes_field(out, 9, &nested_attribute(depth)));
    assert_eq!(reasons(&wrap(None, None, &[with(32)])), []);
    assert_eq!(reasons(&wrap(None, None, &[with(33)])), [(RejectReason::TooDeep, 1)]);
    assert_eq!(reason_of(with(200_000)), RejectReason::TooDeep);
    let limits = ScanLimits { depth_max: u32::MAX, ..ScanLimits::default() };
    let scan = scan(&wrap(None, None, &[with(64), with(65)]), &limits).unwrap();
    assert_eq!((scan.spans.len(), scan.rejected.total()), (1, 1));
}

#[test]
fn parts_and_bytes_are_bounded() {
    let limits = ScanLimits {
        attributes_max: 2,
        events_max: 1,
        links_max: 0,
        span_bytes_max: 100,
        ..ScanLimits::default()
    };
    let with = |field, count| {
        span(&TRACE, &[1; 8], |out| (0..count).for_each(|_| put_bytes_field(out, field, b"")))
    };
    let large = span(&TRACE, &[1; 8], |out| put_bytes_field(out, 5, &[b'a'; 80]));
    let spans = [with(9, 2), with(9, 3), with(11, 1), with(11, 2), with(13, 0), with(13, 1), large];
    let scanned = scan(&wrap(None, None, &spans), &limits).unwrap();
    assert_eq!(scanned.spans.len(), 3);
    let rejected: Vec<_> = scanned.rejected.iter().map(|(r, n, _)| (r, n)).collect();
    assert_eq!(rejected, [(RejectReason::TooMany, 3), (RejectReason::TooLarge, 1)]);

    let body = wrap(None, None, &[good(1)]);
    let limits = ScanLimits { request_bytes_max: body.len() - 1, ..ScanLimits::default() };
    assert!(matches!(scan(&body, &limits), Err(ModelError::TooLarge { .. })));
}

#[test]
fn a_bad_resource_or_scope_rejects_its_spans() {
    let mut attribute = Vec::new();
    put_bytes_field(&mut attribute, 1, b"\xff");
    let mut bad = Vec::new();
    put_bytes_field(&mut bad, 1, &attribute);
    let spans = [good(1), good(2)];
    assert_eq!(reasons(&wrap(Some(&bad), None, &spans)), [(RejectReason::NotUtf8, 2)]);
    assert_eq!(reasons(&wrap(None, Some(b"\x0a\x01\xff"), &spans)), [(RejectReason::NotUtf8, 2)]);
    assert_eq!(reasons(&wrap(None, Some(b"\x0a"), &spans)), [(RejectReason::Malformed, 2)]);
    assert_eq!(reasons(&wrap(Some(b"\x10\x07"), Some(b""), &spans)), []);
}

#[test]
fn broken_framing_around_spans_is_an_error() {
    for body in [&b"\x0a\x05"[..], b"\x08\x01", b"\x0a\x01\x12", b"\x0a\x03\x12\x01\x12", b"hello"]
    {
        let result = scan(&Bytes::copy_from_slice(body), &ScanLimits::default());
        assert!(matches!(result, Err(ModelError::Request(_))), "{body:?}");
    }
}

#[test]
fn unknown_fields_and_the_retired_one_are_ignored() {
    let mut body = wrap(None, None, &[good(1)]).to_vec();
    let mut retired = Vec::new();
    put_bytes_field(&mut retired, 1000, b"\xff\xff");
    put_bytes_field(&mut body, 1, &retired);
    put_varint_field(&mut body, 77, 1);
    let scan = scan(&Bytes::from(body), &ScanLimits::default()).unwrap();
    assert_eq!((scan.spans.len(), scan.rejected.total()), (1, 0));
    assert_eq!(scan.resources.len(), 1, "a resource without spans is not filed");
}

#[test]
fn regrouping_splits_by_trace_and_keeps_descriptions() {
    let other = span(&[9; 16], &[3; 8], |_| {});
    let body = wrap(Some(b"\x10\x07"), Some(b"\x0a\x01n"), &[good(1), other, good(2)]);
    let scanned = scan(&body, &ScanLimits::default()).unwrap();
    let parts = regroup(&scanned, |id| usize::from(id == TraceId([9; 16])) * 2, 3);
    assert_eq!(parts.len(), 3);
    assert!(parts[1].is_empty());
    let first = scan(&Bytes::from(parts[0].clone()), &ScanLimits::default()).unwrap();
    assert_eq!(first.spans.len(), 2);
    assert_eq!(&first.resources[0].message[..], b"\x10\x07");
    assert_eq!(&first.scopes[0].message[..], b"\x0a\x01n");
    assert_eq!(first.span_bytes(&first.spans[1]), good(2));
    assert!(regroup(&scanned, |_| 0, 0).is_empty());
    let all = regroup(&scanned, |_| usize::MAX, 2);
    assert!(all[0].is_empty() && !all[1].is_empty());
}
