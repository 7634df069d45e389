//! Laws of decoding, encoding and merging traces, and of what is derived from them.

use std::collections::BTreeSet;

use bytes::Bytes;
use clew_model::otlp::SpanView;
use clew_model::{Trace, TraceId};
use proptest::prelude::*;

use crate::generate::{Resource, protobuf, request};

fn decode(request: &[Resource]) -> Vec<Trace> {
    Trace::decode(&Bytes::from(protobuf(request))).unwrap()
}

/// The spans of all generated traces, as if they were one.
fn one_trace(request: &[Resource]) -> Trace {
    let spans = decode(request).into_iter().flat_map(|trace| trace.spans).collect();
    Trace { id: TraceId([1; 16]), spans }
}

/// Deals the spans of a trace out to `count` fragments; a span may go to several.
fn deal(trace: &Trace, hands: &[u8], count: usize) -> Vec<Trace> {
    let mut fragments = vec![Trace { id: trace.id, spans: Vec::new() }; count];
    for (at, span) in trace.spans.iter().enumerate() {
        let hand = usize::from(hands.get(at % hands.len()).copied().unwrap_or_default());
        fragments[hand % count].spans.push(span.clone());
        if hand % 3 == 0 {
            fragments[(hand + 1) % count].spans.insert(0, span.clone());
        }
    }
    fragments
}

proptest! {
    #[test]
    fn decoding_keeps_every_span_in_its_trace(request in request()) {
        let traces = decode(&request);
        let sent: usize = request.iter().flat_map(|r| &r.scopes).map(|s| s.spans.len()).sum();
        prop_assert_eq!(traces.iter().map(|t| t.spans.len()).sum::<usize>(), sent);
        let ids: BTreeSet<TraceId> = traces.iter().map(|t| t.id).collect();
        prop_assert_eq!(ids.len(), traces.len());
        for trace in traces {
            for span in &trace.spans {
                prop_assert_eq!(SpanView::parse(&span.bytes).unwrap().trace(), Some(trace.id));
            }
        }
    }

    #[test]
    fn encoding_and_decoding_a_merged_trace_changes_nothing(request in request()) {
        for trace in decode(&request) {
            let merged = Trace::merge([trace]).unwrap();
            let encoded = merged.encode();
            let decoded = Trace::decode(&Bytes::from(encoded.clone())).unwrap();
            prop_assert_eq!(decoded.len(), 1);
            let again = Trace::merge(decoded).unwrap();
            prop_assert_eq!(&again, &merged);
            prop_assert_eq!(again.encode(), encoded);
        }
    }

    #[test]
    fn encodings_may_be_appended(request in request()) {
        let mut out = Vec::new();
        let traces = decode(&request);
        for trace in &traces {
            trace.encode_into(&mut out);
        }
        let decoded = Trace::decode(&Bytes::from(out)).unwrap();
        prop_assert_eq!(decoded.len(), traces.len());
        for (a, b) in decoded.into_iter().zip(traces) {
            prop_assert_eq!(Trace::merge([a]), Trace::merge([b]));
        }
    }

    #[test]
    fn merging_is_associative_commutative_and_idempotent(
        request in request(),
        hands in proptest::collection::vec(any::<u8>(), 1..20),
        cut in 0usize..5,
    ) {
        let whole = one_trace(&request);
        let merged = Trace::merge([whole.clone()]).unwrap();
        let mut fragments = deal(&whole, &hands, 5);
        prop_assert_eq!(Trace::merge(fragments.clone()), Some(merged.clone()));

        let (left, right) = fragments.split_at(cut);
        let halves = [Trace::merge(left.to_vec()), Trace::merge(right.to_vec())];
        prop_assert_eq!(Trace::merge(halves.into_iter().flatten()), Some(merged.clone()));

        fragments.reverse();
        fragments.rotate_left(cut);
        fragments.iter_mut().for_each(|fragment| fragment.spans.reverse());
        prop_assert_eq!(Trace::merge(fragments), Some(merged.clone()));

        prop_assert_eq!(Trace::merge([merged.clone(), merged.clone(), whole]), Some(merged));
    }

    #[test]
    fn fragments_that_share_nothing_in_memory_encode_like_the_whole(
        request in request(),
        hands in proptest::collection::vec(any::<u8>(), 1..20),
    ) {
        for trace in decode(&request) {
            let fragments = deal(&trace, &hands, 3).into_iter().flat_map(|fragment| {
                Trace::decode(&Bytes::from(fragment.encode())).unwrap()
            });
            let merged = Trace::merge(fragments).unwrap();
            prop_assert_eq!(merged.encode(), Trace::merge([trace]).unwrap().encode());
        }
    }

    #[test]
    fn a_merged_trace_has_each_identity_once_and_is_sorted(request in request()) {
        let whole = one_trace(&request);
        let keys = |trace: &Trace| -> Vec<_> {
            trace.spans.iter().map(|record| {
                let span = SpanView::parse(&record.bytes).unwrap();
                (span.start_unix_nanos, span.span().unwrap(), span.kind)
            }).collect()
        };
        let before: BTreeSet<_> = keys(&whole).into_iter().map(|(_, id, kind)| (id, kind)).collect();
        let merged = Trace::merge([whole]).unwrap();
        let after = keys(&merged);
        prop_assert!(after.is_sorted());
        let identities: BTreeSet<_> = after.iter().map(|(_, id, kind)| (*id, *kind)).collect();
        prop_assert_eq!(identities.len(), after.len());
        prop_assert_eq!(identities, before);
    }

    #[test]
    fn summaries_add_up(request in request()) {
        let trace = one_trace(&request);
        let summary = trace.summary();
        prop_assert!(summary.start <= summary.end);
        prop_assert_eq!(summary.span_count as usize, trace.spans.len());
        prop_assert_eq!(summary.services.iter().map(|s| s.spans).sum::<u32>(), summary.span_count);
        prop_assert_eq!(summary.services.iter().map(|s| s.errors).sum::<u32>(), summary.error_count);
        prop_assert!(summary.services.is_sorted_by(|a, b| a.name < b.name));
        let roots = trace.spans.iter().filter(|record| {
            SpanView::parse(&record.bytes).unwrap().parent().is_none()
        });
        prop_assert_eq!(summary.root_name.is_some(), roots.count() > 0);
        prop_assert_eq!(summary.root_name.is_some(), summary.root_service.is_some());
    }

    #[test]
    fn unsharing_leaves_no_shared_pair_and_every_parent_in_place(request in request()) {
        let mut trace = Trace::merge([one_trace(&request)]).unwrap();
        let known = |trace: &Trace| -> BTreeSet<_> {
            trace.spans.iter().filter_map(|r| SpanView::parse(&r.bytes).unwrap().span()).collect()
        };
        let orphans = |trace: &Trace| {
            let ids = known(trace);
            let parents = trace.spans.iter().filter_map(|record| {
                SpanView::parse(&record.bytes).unwrap().parent()
            });
            parents.filter(|parent| !ids.contains(parent)).count()
        };
        let (spans, before) = (trace.spans.len(), orphans(&trace));
        trace.unshare_span_ids();
        prop_assert_eq!(trace.spans.len(), spans);
        // A server span that had lost its parent has one now.
        prop_assert!(orphans(&trace) <= before);
        let side = |kind: i32| -> BTreeSet<_> {
            trace.spans.iter().filter_map(|record| {
                let span = SpanView::parse(&record.bytes).unwrap();
                (span.kind == kind).then(|| span.span().unwrap())
            }).collect()
        };
        prop_assert!(side(2).is_disjoint(&side(3)));
        let once = trace.clone();
        trace.unshare_span_ids();
        prop_assert_eq!(trace, once);
    }
}
