//! Laws of scanning and regrouping a request.

use std::collections::BTreeMap;

use bytes::Bytes;
use clew_model::otlp::{RejectReason, Scan, ScanLimits, SpanView, regroup, scan};
use clew_model::wire::put_bytes_field;
use proptest::prelude::*;

use crate::generate::{Resource, protobuf, protobuf_with, request};

/// A span with everything that describes it.
type Described = [Vec<u8>; 5];

/// How often each described span occurs.
fn count(scans: &[Scan]) -> BTreeMap<Described, usize> {
    let mut counts = BTreeMap::new();
    for scan in scans {
        for span in &scan.spans {
            let resource = &scan.resources[span.resource as usize];
            let scope = &scan.scopes[span.scope as usize];
            let described = [
                resource.message.to_vec(),
                resource.schema_url.to_vec(),
                scope.message.to_vec(),
                scope.schema_url.to_vec(),
                scan.span_bytes(span).to_vec(),
            ];
            *counts.entry(described).or_default() += 1;
        }
    }
    counts
}

fn scanned(bytes: Vec<u8>) -> Scan {
    scan(&Bytes::from(bytes), &ScanLimits::default()).unwrap()
}

fn spans_of(request: &[Resource]) -> usize {
    request.iter().flat_map(|r| &r.scopes).map(|s| s.spans.len()).sum()
}

proptest! {
    #[test]
    fn a_good_request_is_accepted_whole(request in request()) {
        let scan = scanned(protobuf(&request));
        prop_assert_eq!(scan.rejected.message(), "");
        let sent = request.iter().flat_map(|r| &r.scopes).flat_map(|s| &s.spans);
        let sent: Vec<Vec<u8>> = sent.map(|span| span.protobuf()).collect();
        let found: Vec<Vec<u8>> =
            scan.spans.iter().map(|span| scan.span_bytes(span).to_vec()).collect();
        prop_assert_eq!(found, sent);
        for span in &scan.spans {
            let view = SpanView::parse(scan.span_bytes(span)).unwrap();
            prop_assert_eq!(view.trace(), Some(span.trace_id));
        }
    }

    #[test]
    fn regrouping_loses_and_doubles_nothing(request in request(), places in 1usize..5) {
        let whole = scanned(protobuf(&request));
        let pick = |id: clew_model::TraceId| usize::from(id.0[3]) * 7 % places;
        let parts: Vec<Scan> = regroup(&whole, pick, places).into_iter().map(scanned).collect();
        prop_assert_eq!(parts.len(), places);
        for (place, part) in parts.iter().enumerate() {
            prop_assert!(part.rejected.is_empty());
            prop_assert!(part.spans.iter().all(|span| pick(span.trace_id) == place));
        }
        prop_assert_eq!(count(&parts), count(&[whole]));
    }

    #[test]
    fn regrouping_to_one_place_keeps_the_order(request in request()) {
        let whole = scanned(protobuf(&request));
        let one = scanned(regroup(&whole, |_| 0, 1).remove(0));
        let bytes = |scan: &Scan| -> Vec<Vec<u8>> {
            scan.spans.iter().map(|span| scan.span_bytes(span).to_vec()).collect()
        };
        prop_assert_eq!(bytes(&one), bytes(&whole));
    }

    #[test]
    fn bad_spans_are_counted_and_their_neighbours_stay(request in request()) {
        let mut no_trace_id = Vec::new();
        put_bytes_field(&mut no_trace_id, 2, &[1; 8]);
        let mut no_span_id = Vec::new();
        put_bytes_field(&mut no_span_id, 1, &[1; 16]);
        let mut not_text = no_span_id.clone();
        put_bytes_field(&mut not_text, 2, &[1; 8]);
        put_bytes_field(&mut not_text, 5, b"\xc0");
        let extra = [no_trace_id, no_span_id, not_text, vec![0x08]];
        let scan = scanned(protobuf_with(&request, &extra));
        prop_assert_eq!(scan.spans.len(), spans_of(&request));
        let scopes = request.iter().map(|r| r.scopes.len() as u64).sum::<u64>();
        let counts: Vec<_> = scan.rejected.iter().map(|(reason, n, _)| (reason, n)).collect();
        let reasons = [
            RejectReason::InvalidTraceId,
            RejectReason::InvalidSpanId,
            RejectReason::NotUtf8,
            RejectReason::Malformed,
        ];
        let expected: Vec<_> = if scopes == 0 {
            Vec::new()
        } else {
            reasons.into_iter().map(|reason| (reason, scopes)).collect()
        };
        prop_assert_eq!(counts, expected);
        prop_assert_eq!(scan.rejected.total(), scopes * 4);
    }
}
