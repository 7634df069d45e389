//! Splitting a scanned request by destination.

use super::{Scan, ScannedSpan};
use crate::TraceId;
use crate::otlp::envelope::{CHILDREN, envelope_len, put_message, put_schema_url};
use crate::wire::{bytes_field_len, put_bytes_field, put_len_header};

/// Re-encodes the accepted spans of `scan` as one `TracesData` for each of `places` destinations.
/// `pick` names the destination of a trace, counted from 0; numbers past the last mean the last.
///
/// Each destination gets its spans in the order sent, and a resource or scope once for each
/// occurrence in the request that has spans for it. The message of a destination without spans is
/// empty. Fields of `ResourceSpans` and `ScopeSpans` that the schema does not know are dropped.
pub fn regroup(scan: &Scan, pick: impl Fn(TraceId) -> usize, places: usize) -> Vec<Vec<u8>> {
    let Some(last) = places.checked_sub(1) else { return Vec::new() };
    let mut sizes = vec![0usize; places];
    let destinations: Vec<usize> = scan
        .spans
        .iter()
        .map(|span| {
            let place = pick(span.trace_id).min(last);
            sizes[place] += 1;
            place
        })
        .collect();
    let sorted = sort_by_place(&scan.spans, &destinations, &sizes);
    let mut rest = sorted.as_slice();
    sizes
        .into_iter()
        .map(|size| {
            let (spans, behind) = rest.split_at(size);
            rest = behind;
            encode(scan, spans)
        })
        .collect()
}

/// A stable counting sort: spans of one place become neighbours and keep their order.
fn sort_by_place(
    spans: &[ScannedSpan],
    destinations: &[usize],
    sizes: &[usize],
) -> Vec<ScannedSpan> {
    let mut next = Vec::with_capacity(sizes.len());
    let mut sum = 0;
    for size in sizes {
        next.push(sum);
        sum += size;
    }
    let mut sorted = spans.to_vec();
    for (span, place) in spans.iter().zip(destinations) {
        sorted[next[*place]] = *span;
        next[*place] += 1;
    }
    sorted
}

fn encode(scan: &Scan, spans: &[ScannedSpan]) -> Vec<u8> {
    let runs = || spans.chunk_by(|a, b| a.resource == b.resource);
    let length = runs().map(|run| bytes_field_len(1, resource_len(scan, run))).sum();
    let mut out = Vec::with_capacity(length);
    for run in runs() {
        put_len_header(&mut out, 1, resource_len(scan, run));
        put_resource(scan, run, &mut out);
    }
    debug_assert_eq!(out.len(), length);
    out
}

fn scope_runs(spans: &[ScannedSpan]) -> impl Iterator<Item = &[ScannedSpan]> {
    spans.chunk_by(|a, b| a.scope == b.scope)
}

/// Content length of the `ResourceSpans` of a run of spans of one resource.
fn resource_len(scan: &Scan, run: &[ScannedSpan]) -> usize {
    let Some(resource) = run.first().and_then(|span| scan.resources.get(span.resource as usize))
    else {
        return 0;
    };
    let scopes: usize =
        scope_runs(run).map(|spans| bytes_field_len(CHILDREN, scope_len(scan, spans))).sum();
    envelope_len(&resource.message, &resource.schema_url) + scopes
}

/// Content length of the `ScopeSpans` of a run of spans of one scope.
fn scope_len(scan: &Scan, run: &[ScannedSpan]) -> usize {
    let Some(scope) = run.first().and_then(|span| scan.scopes.get(span.scope as usize)) else {
        return 0;
    };
    let spans: usize = run.iter().map(|span| bytes_field_len(CHILDREN, span.range().len())).sum();
    envelope_len(&scope.message, &scope.schema_url) + spans
}

fn put_resource(scan: &Scan, run: &[ScannedSpan], out: &mut Vec<u8>) {
    let Some(resource) = run.first().and_then(|span| scan.resources.get(span.resource as usize))
    else {
        return;
    };
    put_message(out, &resource.message);
    for spans in scope_runs(run) {
        put_len_header(out, CHILDREN, scope_len(scan, spans));
        put_scope(scan, spans, out);
    }
    put_schema_url(out, &resource.schema_url);
}

fn put_scope(scan: &Scan, run: &[ScannedSpan], out: &mut Vec<u8>) {
    let Some(scope) = run.first().and_then(|span| scan.scopes.get(span.scope as usize)) else {
        return;
    };
    put_message(out, &scope.message);
    for span in run {
        put_bytes_field(out, CHILDREN, scan.span_bytes(span));
    }
    put_schema_url(out, &scope.schema_url);
}
