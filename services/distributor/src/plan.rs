//! Dividing the spans of a request among shards, and packing each part as one batch.
//!
//! No allocation per span: spans are positions in the request's body, and each batch is encoded
//! straight from there.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use clew_model::TraceId;
use clew_model::otlp::request::ScannedSpan;
use clew_model::otlp::{Scan, regroup};
use clew_ring::{Places, ShardId};

use crate::admission::Hold;
use crate::refusal::Refusal;
use crate::router::Leader;

/// Compression is bound by the distributor's processors, and most of the gain comes early.
const ZSTD_LEVEL: i32 = 1;

/// A part of a request's spans that goes to one shard.
pub(crate) struct Part {
    /// The shard.
    pub(crate) shard: ShardId,
    /// Its leader when this was planned.
    pub(crate) leader: Leader,
    /// The shard is not the home of these traces.
    pub(crate) fallback: bool,
    /// The spans, in the order sent; at least one.
    pub(crate) spans: Vec<ScannedSpan>,
    /// Size when encoded, in bytes.
    pub(crate) raw_bytes: usize,
}

/// A part that is packed and can be sent.
pub(crate) struct Packed {
    /// What was packed.
    pub(crate) part: Part,
    /// A zstd frame of an encoded `TracesData`.
    pub(crate) traces: Bytes,
}

/// A trace none of whose places can be written to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoPlace {
    /// The home of the trace.
    pub(crate) home: ShardId,
}

/// Divides `spans` by shard: each trace goes to the first of its places that has a leader and is
/// not among those to `avoid`. Parts are cut at about `bytes_max` bytes.
///
/// # Errors
/// [`NoPlace`] when a trace has no such place; then nothing of the request should be sent.
pub(crate) fn divide(
    scan: &Scan,
    spans: &[ScannedSpan],
    places: impl Fn(TraceId) -> Places,
    leader: impl Fn(ShardId) -> Option<Leader>,
    avoid: &BTreeSet<ShardId>,
    bytes_max: usize,
) -> Result<Vec<Part>, NoPlace> {
    let mut leaders = Leaders { ask: leader, known: HashMap::new(), avoid };
    let mut open: Vec<Open> = Vec::new();
    let mut open_at: HashMap<(ShardId, bool), usize> = HashMap::new();
    let mut parts = Vec::new();
    let mut last: Option<(TraceId, usize)> = None;
    for span in spans {
        let at = match last {
            // Spans of a trace are mostly neighbours.
            Some((trace_id, at)) if trace_id == span.trace_id => at,
            _ => {
                let (shard, fallback, leader) = leaders.choose(&places(span.trace_id))?;
                *open_at.entry((shard, fallback)).or_insert_with(|| {
                    let spans = Vec::with_capacity(spans.len() / 8 + 1);
                    open.push(Open { part: part(shard, leader, fallback, spans), last: None });
                    open.len() - 1
                })
            }
        };
        last = Some((span.trace_id, at));
        let open = &mut open[at];
        open.part.raw_bytes += open.cost(scan, span);
        open.part.spans.push(*span);
        open.last = Some((span.resource, span.scope));
        if open.part.raw_bytes >= bytes_max {
            let Part { shard, ref leader, fallback, .. } = open.part;
            let next = part(shard, leader.clone(), fallback, Vec::new());
            parts.push(std::mem::replace(&mut open.part, next));
            open.last = None;
        }
    }
    parts.extend(open.into_iter().map(|open| open.part).filter(|part| !part.spans.is_empty()));
    Ok(parts)
}

fn part(shard: ShardId, leader: Leader, fallback: bool, spans: Vec<ScannedSpan>) -> Part {
    Part { shard, leader, fallback, spans, raw_bytes: 0 }
}

/// A part still being filled.
struct Open {
    part: Part,
    /// Resource and scope of its last span.
    last: Option<(u32, u32)>,
}

impl Open {
    /// Bytes that `span` adds, with its resource and scope if they are not yet there; the framing
    /// is an upper bound.
    fn cost(&self, scan: &Scan, span: &ScannedSpan) -> usize {
        const FRAMING: usize = 6;
        let mut cost = span.range().len() + FRAMING;
        if self.last.is_none_or(|(resource, _)| resource != span.resource) {
            let resource = scan.resources.get(span.resource as usize);
            cost += resource.map_or(0, |r| r.message.len() + r.schema_url.len()) + 3 * FRAMING;
        }
        if self.last != Some((span.resource, span.scope)) {
            let scope = scan.scopes.get(span.scope as usize);
            cost += scope.map_or(0, |s| s.message.len() + s.schema_url.len()) + 3 * FRAMING;
        }
        cost
    }
}

/// The leaders of shards, asked for once per request.
struct Leaders<'a, F> {
    ask: F,
    known: HashMap<ShardId, Option<Leader>>,
    avoid: &'a BTreeSet<ShardId>,
}

impl<F: Fn(ShardId) -> Option<Leader>> Leaders<'_, F> {
    fn choose(&mut self, places: &Places) -> Result<(ShardId, bool, Leader), NoPlace> {
        let home = places.home;
        for &shard in places.all() {
            let leader = self.known.entry(shard).or_insert_with(|| {
                if self.avoid.contains(&shard) { None } else { (self.ask)(shard) }
            });
            if let Some(leader) = leader {
                return Ok((shard, shard != home, leader.clone()));
            }
        }
        Err(NoPlace { home })
    }
}

/// Encodes and compresses each part. Their compressed bytes are counted in `hold`.
///
/// # Errors
/// [`Refusal::TooLarge`] when the parts together would have more than `bytes_max` bytes,
/// [`Refusal::Busy`] when they do not fit into memory now.
pub(crate) fn pack(
    scan: &mut Scan,
    parts: Vec<Part>,
    bytes_max: usize,
    hold: &mut Hold,
) -> Result<Vec<Packed>, Refusal> {
    let sum: usize = parts.iter().map(|part| part.raw_bytes).sum();
    if sum > bytes_max {
        return Err(Refusal::TooLarge { form: "after regrouping by shard", bytes_max });
    }
    let mut compressor = compressor().map_err(|error| Refusal::Internal(error.to_string()))?;
    let mut packed = Vec::with_capacity(parts.len());
    for mut part in parts {
        hold.grow(part.raw_bytes)?;
        let counted = part.raw_bytes;
        // The scan lends its place for spans, so that the encoder sees those of this part only.
        let others = std::mem::replace(&mut scan.spans, std::mem::take(&mut part.spans));
        let encoded = regroup(scan, |_| 0, 1).pop().unwrap_or_default();
        part.spans = std::mem::replace(&mut scan.spans, others);
        part.raw_bytes = encoded.len();
        let traces = compressor
            .compress(&encoded)
            .map_err(|error| Refusal::Internal(format!("zstd: {error}")))?;
        drop(encoded);
        hold.shrink(counted);
        hold.grow(traces.len())?;
        packed.push(Packed { part, traces: traces.into() });
    }
    Ok(packed)
}

fn compressor() -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    // Checked again wherever the batch is read: on the wire, in the log, on every replica.
    compressor.include_checksum(true)?;
    Ok(compressor)
}
