//! The trace table: one entry per trace of a block with what search answers without its spans.
//!
//! Raw form: number of traces (varint), the ids in ascending order (16 bytes each), the texts
//! (count, then each with its length), then column by column, one number per trace, all varints:
//! span count, page minus the page before, start minus the block's earliest start, duration, root
//! service and root name (0 for no root, else text ordinal + 1), error count, flags (bit 0: split),
//! weight (4 bytes, a float), number of services; then per service entry text ordinal, span count,
//! error count.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use clew_model::trace::{ServiceStats, TraceSummary};
use clew_model::wire::put_varint;
use clew_model::{TraceId, UnixNanos};

use crate::codec::{ByteReader, narrow, put_bytes};
use crate::error::BlockError;

const SECTION: &str = "trace table";
const FLAG_SPLIT: u64 = 1;

/// What a block says about a trace: the facts hold for the spans in the block.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceEntry {
    /// The trace's id.
    pub id: TraceId,
    /// Its rows.
    pub rows: Range<u32>,
    /// The index of its first page in the page directory.
    pub page: u32,
    /// The earliest start, nanoseconds since the epoch.
    pub start: u64,
    /// The latest end, never before the start.
    pub end: u64,
    /// Service and name of the root span, if the root is here.
    pub root: Option<(Arc<str>, Arc<str>)>,
    /// How many spans have status error.
    pub errors: u32,
    /// Spans and errors by service, in the order of the services' names.
    pub services: Vec<ServiceStats>,
    /// Whether spans of the trace may lie elsewhere.
    pub split: bool,
    /// How many traces this one stands for under sampling; 1 if it was not sampled.
    pub weight: f32,
}

/// When a trace happened and how large it is, as far as one place holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceExtent {
    /// The trace's id.
    pub id: TraceId,
    /// The earliest start, nanoseconds since the epoch.
    pub start: u64,
    /// The latest end, nanoseconds since the epoch.
    pub end: u64,
    /// How many spans there are; in a table repeated ones are counted.
    pub spans: u32,
}

impl TraceEntry {
    /// The facts as the model states them.
    pub fn summary(&self) -> TraceSummary {
        let (root_service, root_name) = self.root.clone().unzip();
        TraceSummary {
            id: self.id,
            start: UnixNanos(self.start),
            end: UnixNanos(self.end),
            root_service,
            root_name,
            span_count: self.rows.end - self.rows.start,
            error_count: self.errors,
            services: self.services.clone(),
        }
    }
}

/// Collects texts, each once.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    ordinals: BTreeMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl Texts {
    pub(crate) fn intern(&mut self, text: &str) -> u32 {
        if let Some(ordinal) = self.ordinals.get(text) {
            return *ordinal;
        }
        let ordinal = narrow(self.texts.len());
        let text: Arc<str> = Arc::from(text);
        self.ordinals.insert(Arc::clone(&text), ordinal);
        self.texts.push(text);
        ordinal
    }

    pub(crate) fn get(&self, ordinal: u32) -> &str {
        self.texts.get(ordinal as usize).map_or("", |text| text)
    }
}

/// A trace on its way into the table; texts are ordinals.
#[derive(Debug)]
pub(crate) struct NewTrace {
    pub(crate) id: TraceId,
    pub(crate) spans: u32,
    pub(crate) page: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Service and name.
    pub(crate) root: Option<(u32, u32)>,
    pub(crate) errors: u32,
    /// Service, spans, errors.
    pub(crate) services: Range<usize>,
    pub(crate) split: bool,
    pub(crate) weight: f32,
}

/// Collects the table.
#[derive(Debug, Default)]
pub(crate) struct TracesWriter {
    pub(crate) texts: Texts,
    pub(crate) traces: Vec<NewTrace>,
    pub(crate) services: Vec<(u32, u32, u32)>,
}

impl TracesWriter {
    pub(crate) fn finish(&self, earliest: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.traces.len() * 48);
        put_varint(&mut out, self.traces.len() as u64);
        for trace in &self.traces {
            out.extend_from_slice(&trace.id.0);
        }
        put_varint(&mut out, self.texts.texts.len() as u64);
        for text in &self.texts.texts {
            put_bytes(&mut out, text.as_bytes());
        }
        let mut column = |value: &dyn Fn(&NewTrace) -> u64| {
            for trace in &self.traces {
                put_varint(&mut out, value(trace));
            }
        };
        let coded = |text: Option<u32>| text.map_or(0, |text| u64::from(text) + 1);
        column(&|trace| u64::from(trace.spans));
        let page_before = std::cell::Cell::new(0);
        column(&|trace| u64::from(trace.page - page_before.replace(trace.page)));
        column(&|trace| trace.start.saturating_sub(earliest));
        column(&|trace| trace.end - trace.start);
        column(&|trace| coded(trace.root.map(|root| root.0)));
        column(&|trace| coded(trace.root.map(|root| root.1)));
        column(&|trace| u64::from(trace.errors));
        column(&|trace| if trace.split { FLAG_SPLIT } else { 0 });
        for trace in &self.traces {
            out.extend_from_slice(&trace.weight.to_le_bytes());
        }
        for trace in &self.traces {
            put_varint(&mut out, trace.services.len() as u64);
        }
        for trace in &self.traces {
            for (service, spans, errors) in &self.services[trace.services.clone()] {
                put_varint(&mut out, u64::from(*service));
                put_varint(&mut out, u64::from(*spans));
                put_varint(&mut out, u64::from(*errors));
            }
        }
        out
    }
}

/// The traces of a block, ascending by id.
#[derive(Debug, Clone, Default)]
pub struct TraceTable {
    traces: Vec<TraceEntry>,
    /// The end of each trace's rows, apart because it is looked at for every row that is found.
    row_ends: Vec<u32>,
    /// What is looked at of every trace that is found.
    extents: Vec<TraceExtent>,
}

impl TraceTable {
    /// Reads the raw table of a block whose earliest start is `earliest`.
    pub(crate) fn parse(raw: &[u8], earliest: u64) -> Result<TraceTable, BlockError> {
        let mut reader = ByteReader::new(SECTION, raw);
        let count = reader.count(16)?;
        let ids: Vec<TraceId> =
            (0..count).map(|_| reader.array().map(TraceId)).collect::<Result<_, _>>()?;
        if !ids.is_sorted_by(|a, b| a < b) {
            return Err(reader.corrupt("its traces are not sorted"));
        }
        let text_count = reader.count(1)?;
        let texts: Vec<Arc<str>> =
            (0..text_count).map(|_| reader.text().map(Arc::from)).collect::<Result<_, _>>()?;
        let mut traces = read_rows(&mut reader, ids)?;
        read_times(&mut reader, &mut traces, earliest)?;
        read_roots(&mut reader, &mut traces, &texts)?;
        for trace in &mut traces {
            trace.errors = reader.varint_u32()?;
        }
        for trace in &mut traces {
            trace.split = reader.varint()? & FLAG_SPLIT != 0;
        }
        for trace in &mut traces {
            trace.weight = f32::from_le_bytes(reader.array()?);
        }
        read_services(&mut reader, &mut traces, &texts)?;
        let row_ends = traces.iter().map(|trace| trace.rows.end).collect();
        let extent = |trace: &TraceEntry| TraceExtent {
            id: trace.id,
            start: trace.start,
            end: trace.end,
            spans: trace.rows.end - trace.rows.start,
        };
        let extents = traces.iter().map(extent).collect();
        Ok(TraceTable { traces, row_ends, extents })
    }

    /// All traces, ascending by id. The position is the trace's ordinal.
    pub fn entries(&self) -> &[TraceEntry] {
        &self.traces
    }

    /// The ordinal of a trace.
    pub fn find(&self, id: &TraceId) -> Option<u32> {
        self.traces.binary_search_by(|trace| trace.id.cmp(id)).ok().map(narrow)
    }

    /// A trace by its ordinal.
    pub fn get(&self, ordinal: u32) -> Option<&TraceEntry> {
        self.traces.get(ordinal as usize)
    }

    /// When and how large a trace is, by its ordinal.
    pub fn extent(&self, ordinal: u32) -> Option<&TraceExtent> {
        self.extents.get(ordinal as usize)
    }

    /// The ordinal of the trace that a row belongs to.
    pub fn trace_of_row(&self, row: u32) -> Option<u32> {
        let at = self.row_ends.partition_point(|end| *end <= row);
        (at < self.row_ends.len()).then(|| narrow(at))
    }

    /// The ordinals of the traces that have one of the rows, which ascend; ascending, each once.
    pub fn traces_of_rows(&self, rows: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut ordinals = Vec::new();
        let (mut at, mut end) = (0, 0);
        for row in rows {
            if row < end {
                continue;
            }
            // The next trace is mostly near: double the step until it is passed, then search.
            let mut step = 1;
            while self.row_ends.get(at + step).is_some_and(|end| *end <= row) {
                at += step;
                step *= 2;
            }
            let within = self.row_ends.get(at..).unwrap_or_default();
            let within = &within[..within.len().min(step + 1)];
            at += within.partition_point(|end| *end <= row);
            let Some(next) = self.row_ends.get(at) else { break };
            end = *next;
            ordinals.push(narrow(at));
        }
        ordinals
    }

    /// How many rows there are.
    pub fn row_count(&self) -> u32 {
        self.traces.last().map_or(0, |trace| trace.rows.end)
    }

    /// About how many bytes of memory the table takes.
    pub fn memory_bytes(&self) -> usize {
        let services: usize = self.traces.iter().map(|trace| trace.services.len()).sum();
        self.traces.len() * (size_of::<TraceEntry>() + size_of::<TraceExtent>() + 4)
            + services * size_of::<ServiceStats>()
    }
}

const fn too_large() -> BlockError {
    BlockError::corrupt(SECTION, "a number is too large")
}

fn text_at(texts: &[Arc<str>], ordinal: u64) -> Result<Arc<str>, BlockError> {
    let text = usize::try_from(ordinal).ok().and_then(|ordinal| texts.get(ordinal));
    text.cloned().ok_or_else(|| BlockError::corrupt(SECTION, "a text is missing"))
}

/// Reads how many spans each trace has and its page.
fn read_rows(
    reader: &mut ByteReader<'_>,
    ids: Vec<TraceId>,
) -> Result<Vec<TraceEntry>, BlockError> {
    let mut traces = Vec::with_capacity(ids.len());
    let mut row = 0u32;
    for id in ids {
        let end = row.checked_add(reader.varint_u32()?).ok_or_else(too_large)?;
        traces.push(TraceEntry {
            id,
            rows: row..end,
            page: 0,
            start: 0,
            end: 0,
            root: None,
            errors: 0,
            services: Vec::new(),
            split: false,
            weight: 1.0,
        });
        row = end;
    }
    let mut page = 0u32;
    for trace in &mut traces {
        page = page.checked_add(reader.varint_u32()?).ok_or_else(too_large)?;
        trace.page = page;
    }
    Ok(traces)
}

fn read_times(
    reader: &mut ByteReader<'_>,
    traces: &mut [TraceEntry],
    earliest: u64,
) -> Result<(), BlockError> {
    for trace in traces.iter_mut() {
        trace.start = earliest.checked_add(reader.varint()?).ok_or_else(too_large)?;
    }
    for trace in traces {
        trace.end = trace.start.checked_add(reader.varint()?).ok_or_else(too_large)?;
    }
    Ok(())
}

fn read_roots(
    reader: &mut ByteReader<'_>,
    traces: &mut [TraceEntry],
    texts: &[Arc<str>],
) -> Result<(), BlockError> {
    let services =
        traces.iter().map(|_| reader.varint()).collect::<Result<Vec<_>, BlockError>>()?;
    for (trace, service) in traces.iter_mut().zip(services) {
        trace.root = match (service.checked_sub(1), reader.varint()?.checked_sub(1)) {
            (Some(service), Some(name)) => Some((text_at(texts, service)?, text_at(texts, name)?)),
            (None, None) => None,
            _ => return Err(reader.corrupt("a root is incomplete")),
        };
    }
    Ok(())
}

fn read_services(
    reader: &mut ByteReader<'_>,
    traces: &mut [TraceEntry],
    texts: &[Arc<str>],
) -> Result<(), BlockError> {
    let counts = traces.iter().map(|_| reader.count(3)).collect::<Result<Vec<_>, BlockError>>()?;
    for (trace, services) in traces.iter_mut().zip(counts) {
        for _ in 0..services {
            let name = text_at(texts, reader.varint()?)?;
            let (spans, errors) = (reader.varint_u32()?, reader.varint_u32()?);
            trace.services.push(ServiceStats { name, spans, errors });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_lead_to_their_traces(
            lengths in proptest::collection::vec(1u32..6, 0..200),
            rows in proptest::collection::btree_set(0u32..1_000, 0..300),
        ) {
            let mut end = 0;
            let row_ends = lengths.iter().map(|length| { end += length; end }).collect();
            let table = TraceTable { row_ends, ..TraceTable::default() };
            let expected: BTreeSet<u32> =
                rows.iter().filter_map(|row| table.trace_of_row(*row)).collect();
            let found = table.traces_of_rows(rows.into_iter());
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
