//! A wave: the traces that are in flight together, and the requests that carry their spans.
//!
//! A wave is a function of the data set and its number alone, so nothing that was sent needs to be
//! kept: the ledger remembers which waves were acknowledged, and the checker makes them again.

use std::collections::BTreeMap;

use clew_model::{TraceId, wire};

use super::DataSet;
use super::attributes::Scribe;
use super::dice::Dice;
use super::encode::put_span;
use super::shape;
use super::span::TraceData;
use super::world::{World, scope_bytes};

/// The mean number of spans of a request.
const REQUEST_SPANS_MEAN: usize = 345;
/// The fewest spans of a request of a full wave.
pub const REQUEST_SPANS_MIN: usize = 200;
/// The most spans of a request.
pub const REQUEST_SPANS_MAX: usize = 500;
/// Every so many traces, one starts in the same nanosecond as the one before it, so that the order
/// of equals shows.
const TIE_EVERY: u64 = 101;

/// Traces in flight together.
#[derive(Debug)]
pub struct Wave<'w> {
    /// Its number.
    pub number: u64,
    /// Its traces.
    pub traces: Vec<TraceData<'w>>,
    /// For each request, the spans it carries: (trace, span) positions.
    pub requests: Vec<Vec<(usize, usize)>>,
}

impl<'w> Wave<'w> {
    /// Makes wave `number` of `data_set`.
    pub fn new(world: &'w World, data_set: &DataSet, number: u64) -> Wave<'w> {
        let mut dice = Dice::new(data_set.seed, number);
        let mut elsewhere = None;
        let mut last_start = 0;
        let mut traces = Vec::new();
        for trace in data_set.traces_of(number) {
            let id = TraceId(dice.id());
            let jitter = dice.below(data_set.interval_nanos);
            let mut start = data_set.base_unix_nanos + trace * data_set.interval_nanos + jitter;
            if trace % TIE_EVERY == TIE_EVERY - 1 && last_start > 0 {
                start = last_start;
            }
            last_start = start;
            let size = shape::draw_size(&mut dice);
            let nodes = shape::draw(world, &mut dice, size, start);
            let spans = Scribe::new(world, &mut dice, id).write(&nodes, &mut elsewhere);
            traces.push(TraceData { id, spans });
        }
        let requests = deal(&mut dice, &traces);
        Wave { number, traces, requests }
    }

    /// How many spans the wave has.
    pub fn span_count(&self) -> usize {
        self.traces.iter().map(|trace| trace.spans.len()).sum()
    }

    /// The OTLP `ExportTraceServiceRequest` at position `request`.
    pub fn encode_request(&self, world: &World, request: usize) -> Vec<u8> {
        self.encode(world, &self.requests[request])
    }

    /// An OTLP `TracesData` of the spans at `places`.
    pub fn encode(&self, world: &World, places: &[(usize, usize)]) -> Vec<u8> {
        let mut groups: BTreeMap<(usize, usize), Vec<(usize, usize)>> = BTreeMap::new();
        for &(trace, span) in places {
            let record = &self.traces[trace].spans[span];
            groups.entry((record.resource, record.scope)).or_default().push((trace, span));
        }
        let mut out = Vec::with_capacity(places.len() * 640);
        let (mut resource_spans, mut scope_spans, mut span_bytes) = Default::default();
        let mut groups = groups.into_iter().peekable();
        while let Some(((resource, scope), places)) = groups.next() {
            if Vec::is_empty(&resource_spans) {
                wire::put_bytes_field(&mut resource_spans, 1, &world.resources[resource].bytes);
            }
            Vec::clear(&mut scope_spans);
            wire::put_bytes_field(&mut scope_spans, 1, &scope_bytes(scope));
            for (trace, span) in places {
                let trace = &self.traces[trace];
                Vec::clear(&mut span_bytes);
                put_span(&mut span_bytes, trace.id, &trace.spans[span]);
                wire::put_bytes_field(&mut scope_spans, 2, &span_bytes);
            }
            wire::put_bytes_field(&mut resource_spans, 2, &scope_spans);
            if groups.peek().is_none_or(|((next, _), _)| *next != resource) {
                wire::put_bytes_field(&mut out, 1, &resource_spans);
                resource_spans.clear();
            }
        }
        out
    }
}

/// Deals the spans of all traces out to requests, in random order, so that a trace arrives in
/// several of them.
fn deal(dice: &mut Dice, traces: &[TraceData<'_>]) -> Vec<Vec<(usize, usize)>> {
    let mut places: Vec<(usize, usize)> = traces
        .iter()
        .enumerate()
        .flat_map(|(at, trace)| (0..trace.spans.len()).map(move |span| (at, span)))
        .collect();
    dice.shuffle(&mut places);
    let total = places.len();
    let rounded = (total + REQUEST_SPANS_MEAN / 2) / REQUEST_SPANS_MEAN;
    let count = rounded.max(total.div_ceil(REQUEST_SPANS_MAX)).max(1);
    let mean = total / count;
    // Requests come in pairs, one as much larger as the other is smaller, so that all stay in range.
    // The remainder of the division goes to the last one, which gets no more than the mean.
    let room = REQUEST_SPANS_MAX.saturating_sub(mean).min(mean.saturating_sub(REQUEST_SPANS_MIN));
    let mut requests = Vec::with_capacity(count);
    let mut rest = places.as_slice();
    let mut offset = 0;
    for at in 0..count {
        let size = match (at % 2, at + 1 == count) {
            (_, true) => rest.len(),
            (0, _) => {
                offset = dice.index(room / 2 + 1);
                mean + offset
            }
            _ => mean - offset,
        };
        let (taken, left) = rest.split_at(size.min(rest.len()));
        let mut taken = taken.to_vec();
        taken.sort_unstable();
        requests.push(taken);
        rest = left;
    }
    requests
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use clew_model::Trace;

    use super::*;
    use crate::workload::tests::data_set;

    #[test]
    fn waves_are_fixed_by_seed_and_number() {
        let bytes = |seed, number| {
            let data_set = DataSet { seed, ..data_set(1000) };
            let world = data_set.world();
            let wave = Wave::new(&world, &data_set, number);
            (0..wave.requests.len()).flat_map(|at| wave.encode_request(&world, at)).collect()
        };
        let first: Vec<u8> = bytes(1, 3);
        assert_eq!(first, bytes(1, 3));
        assert_ne!(first, bytes(1, 4));
        assert_ne!(first, bytes(2, 3));
    }

    #[test]
    fn requests_carry_every_span_once_and_decode() {
        let data_set = data_set(1000);
        let world = data_set.world();
        for number in [0, 1, data_set.waves() - 1] {
            let wave = Wave::new(&world, &data_set, number);
            let mut found = BTreeMap::new();
            for at in 0..wave.requests.len() {
                let body = Bytes::from(wave.encode_request(&world, at));
                for trace in Trace::decode(&body).unwrap() {
                    *found.entry(trace.id).or_insert(0) += trace.spans.len();
                }
            }
            let made: BTreeMap<_, _> = wave.traces.iter().map(|t| (t.id, t.spans.len())).collect();
            assert_eq!(found, made);
        }
    }

    #[test]
    fn requests_have_200_to_500_spans() {
        let data_set = data_set(20_000);
        let world = data_set.world();
        for number in 0..data_set.waves() - 1 {
            for request in &Wave::new(&world, &data_set, number).requests {
                assert!(
                    (REQUEST_SPANS_MIN..=REQUEST_SPANS_MAX).contains(&request.len()),
                    "wave {number}: {}",
                    request.len()
                );
            }
        }
    }
}
