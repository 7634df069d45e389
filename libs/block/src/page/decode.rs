//! A page read back: its columns decoded, its spans put together when they are asked for.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use clew_model::TraceId;
use clew_model::otlp::view::messages;
use clew_model::otlp::{AnyValueView, KeyValueView};
use clew_model::trace::{SpanRecord, Trace};

use super::join::Joiner;
use super::read_values::{Ints, StreamReaders, Strings};
use super::shapes::{Content, Form, Shapes};
use super::{BlockRecords, PAGE, PageEntry};
use crate::codec::{ByteReader, Decompressor, narrow, verify};
use crate::columns::ColumnChunk;
use crate::error::BlockError;
use crate::rows::RowSet;

/// Attributes of an OTLP `Span`.
const SPAN_ATTRIBUTES: u32 = 9;

/// A decoded page.
#[derive(Debug, Clone)]
pub struct Page {
    first_row: u32,
    traces: Vec<PageTraceRows>,
    /// The rows' shapes, as places in `used`.
    shapes: Vec<u16>,
    /// The shapes that occur, by their ordinals in the block.
    used: Vec<u32>,
    pub(super) scopes: Ints,
    pub(super) columns: Vec<Values>,
    pub(super) chunk: ColumnChunk,
    memory_bytes: usize,
}

/// Which value of each field comes next, for whoever goes through a page from front to back.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageCursor {
    /// The first row of the page.
    page: Option<u32>,
    /// How many of the page's rows are passed.
    pub(super) passed: usize,
    /// The next value of each field.
    pub(super) next: Vec<usize>,
}

/// A trace, or the part of it that the page holds.
#[derive(Debug, Clone)]
pub(super) struct PageTraceRows {
    pub(super) id: TraceId,
    pub(super) start: u64,
    pub(super) rows: Range<u32>,
}

/// The values of one field, in the order of the rows that have it.
#[derive(Debug, Clone, Default)]
pub(super) enum Values {
    #[default]
    Nothing,
    Bytes(Strings),
    Ints(Ints),
}

impl Page {
    /// Verifies and decodes the bytes of a page and of its columns.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when they are not what the directory describes.
    pub fn decode(
        packed: &[u8],
        columns: &Bytes,
        entry: &PageEntry,
        records: &BlockRecords,
    ) -> Result<Page, BlockError> {
        verify(PAGE, packed, entry.crc32c)?;
        let mut reader = ByteReader::new(PAGE, packed);
        let codes = read_stream(&mut reader)?;
        let text = read_stream(&mut reader)?;
        let mut zstd = Decompressor::default();
        let codes = unpack(&mut reader, codes, &mut zstd)?;
        let text = unpack(&mut reader, text, &mut zstd)?;
        let plain = Bytes::copy_from_slice(reader.take(reader.remaining())?);
        let mut from = StreamReaders::new(PAGE, &codes, &text, &plain);
        let mut page = Page {
            first_row: entry.first_row,
            traces: Vec::new(),
            shapes: Vec::new(),
            used: Vec::new(),
            scopes: Ints::One { value: 0, count: 0 },
            columns: Vec::new(),
            chunk: ColumnChunk::parse(columns, entry)?,
            memory_bytes: codes.len() + text.len() + plain.len() + columns.len(),
        };
        page.read_traces(&mut from, entry)?;
        page.read_shapes(&mut from, entry, &records.shapes)?;
        page.read_columns(&mut from, entry, &records.shapes)?;
        from.codes.finish()?;
        from.text.finish()?;
        from.plain.finish()?;
        Ok(page)
    }

    fn read_traces(
        &mut self,
        from: &mut StreamReaders<'_>,
        entry: &PageEntry,
    ) -> Result<(), BlockError> {
        let base = from.codes.u64()?;
        let count = from.codes.count(2)?;
        let mut row = entry.first_row;
        for _ in 0..count {
            let id = TraceId(from.plain.array()?);
            let start = base.saturating_add(from.codes.varint()?);
            let end = row.checked_add(from.codes.varint_u32()?);
            let end = end.ok_or_else(|| from.codes.corrupt("it has too many rows"))?;
            self.traces.push(PageTraceRows { id, start, rows: row..end });
            row = end;
        }
        if row - entry.first_row != entry.rows {
            return Err(from.codes.corrupt("it has not the rows stated"));
        }
        Ok(())
    }

    fn read_shapes(
        &mut self,
        from: &mut StreamReaders<'_>,
        entry: &PageEntry,
        shapes: &Shapes,
    ) -> Result<(), BlockError> {
        let rows = entry.rows as usize;
        let ordinals = Ints::read(from, rows)?;
        let ordinals: Vec<i64> = (0..rows).filter_map(|at| ordinals.get(at)).collect();
        if ordinals.len() != rows {
            return Err(from.codes.corrupt("a value is missing"));
        }
        let mut used = ordinals.clone();
        used.sort_unstable();
        used.dedup();
        for ordinal in &used {
            let known = u32::try_from(*ordinal).ok().filter(|at| shapes.shape(*at).is_some());
            self.used.push(known.ok_or_else(|| from.codes.corrupt("a shape is missing"))?);
        }
        let place = |ordinal: &i64| {
            // There are no more shapes than 16-bit numbers, and every ordinal is among the used.
            used.binary_search(ordinal).ok().and_then(|at| u16::try_from(at).ok())
        };
        let places: Option<Vec<u16>> = ordinals.iter().map(place).collect();
        self.shapes = places.ok_or_else(|| from.codes.corrupt("it has too many shapes"))?;
        self.scopes = Ints::read(from, rows)?;
        Ok(())
    }

    fn read_columns(
        &mut self,
        from: &mut StreamReaders<'_>,
        entry: &PageEntry,
        shapes: &Shapes,
    ) -> Result<(), BlockError> {
        let counts = self.values_before(narrow(self.shapes.len()), shapes);
        // Every field takes at least one byte of its span.
        let all = counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count as u64));
        if all > u64::from(entry.raw_length) {
            return Err(from.codes.corrupt("it has more values than bytes"));
        }
        self.columns = Vec::with_capacity(counts.len());
        for (count, field) in counts.into_iter().zip(shapes.fields()) {
            let values = match field.form.content() {
                _ if count == 0 => Values::Nothing,
                Content::Nothing => Values::Nothing,
                Content::Bytes => Values::Bytes(Strings::read(from, count)?),
                Content::Ints => Values::Ints(Ints::read(from, count)?),
            };
            self.memory_bytes += match &values {
                Values::Nothing => 0,
                Values::Bytes(strings) => strings.memory_bytes(),
                Values::Ints(values) => values.memory_bytes(),
            };
            self.columns.push(values);
        }
        Ok(())
    }

    /// How many values each field has in the rows before the `rows`-th of the page.
    fn values_before(&self, rows: u32, shapes: &Shapes) -> Vec<usize> {
        let mut by_shape = vec![0usize; self.used.len()];
        for place in self.shapes.iter().take(rows as usize) {
            by_shape[usize::from(*place)] += 1;
        }
        let mut counts = vec![0usize; shapes.fields().len()];
        for (ordinal, count) in self.used.iter().zip(by_shape) {
            for field in shapes.shape(*ordinal).unwrap_or_default() {
                let of_field = &mut counts[*field as usize];
                *of_field = of_field.saturating_add(count);
            }
        }
        counts
    }

    /// Brings a cursor to the row in front of which the page has `passed` others. Cheap if that lies
    /// behind where it was.
    pub(super) fn seek(&self, cursor: &mut PageCursor, passed: usize, shapes: &Shapes) {
        if cursor.page != Some(self.first_row) || cursor.passed > passed {
            cursor.page = Some(self.first_row);
            cursor.passed = 0;
            cursor.next.clear();
            cursor.next.resize(shapes.fields().len(), 0);
        }
        for place in self.shapes.iter().take(passed).skip(cursor.passed) {
            let shape = self.used.get(usize::from(*place)).and_then(|shape| shapes.shape(*shape));
            for field in shape.unwrap_or_default() {
                cursor.next[*field as usize] += 1;
            }
        }
        cursor.passed = passed;
    }

    /// The ordinal of the shape of the row that has `at` others of the page in front of it.
    #[inline]
    pub(super) fn shape_at(&self, at: usize) -> Option<u32> {
        self.used.get(usize::from(*self.shapes.get(at)?)).copied()
    }

    /// The part of a trace with that number in the page.
    pub(super) fn part(&self, number: usize) -> Option<&PageTraceRows> {
        self.traces.get(number)
    }

    /// How many rows of the page belong to the trace with that number in it.
    pub(crate) fn part_len(&self, number: usize) -> usize {
        self.traces.get(number).map_or(0, |part| part.rows.len())
    }

    /// The rows of a part, counted from the page's first.
    pub(super) fn rows_of(&self, part: &PageTraceRows) -> Range<usize> {
        let at = |row: u32| (row - self.first_row) as usize;
        at(part.rows.start)..at(part.rows.end)
    }

    /// The spans of the part of a trace with that number in the page, none if there is no such part.
    /// Parts are best asked for in ascending order with the same cursor.
    pub(crate) fn trace_part(
        &self,
        number: usize,
        cursor: &mut PageCursor,
        records: &BlockRecords,
    ) -> Result<Vec<SpanRecord>, BlockError> {
        let Some(part) = self.traces.get(number) else { return Ok(Vec::new()) };
        let rows = self.rows_of(part);
        self.seek(cursor, rows.start, &records.shapes);
        let spans;
        (spans, cursor.next) = self.spans(part, std::mem::take(&mut cursor.next), records)?;
        cursor.passed = rows.end;
        Ok(spans)
    }

    /// The traces of the page with their rows in it. A trace larger than a page goes on in the
    /// next one.
    pub fn traces(&self) -> impl ExactSizeIterator<Item = (TraceId, Range<u32>)> + '_ {
        self.traces.iter().map(|trace| (trace.id, trace.rows.clone()))
    }

    /// The rows of the page.
    pub fn rows(&self) -> Range<u32> {
        self.first_row..self.first_row + narrow(self.shapes.len())
    }

    /// The rows with a text under one of their span's own attributes, ascending.
    pub fn rows_with_text(&self, name: &str, value: &str, records: &BlockRecords) -> Vec<u32> {
        let mut rows = Vec::new();
        if let Some((field, strings)) = self.strings_of(Form::Text, name, records) {
            let positions = strings.positions(value.as_bytes());
            let mut next = positions.iter().peekable();
            if !positions.is_empty() {
                self.visit_positions(field, records, |row, position| {
                    if next.next_if(|at| **at == position).is_some() {
                        rows.push(row);
                    }
                });
            }
        }
        self.visit_raw_texts(name, records, |row, text| {
            if text == value {
                rows.push(row);
            }
        });
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// Calls `visit` with every text under the attribute `name` of the rows in `within`.
    pub fn visit_texts(
        &self,
        name: &str,
        within: &RowSet,
        records: &BlockRecords,
        mut visit: impl FnMut(&str),
    ) {
        if let Some((field, strings)) = self.strings_of(Form::Text, name, records) {
            let mut text = Vec::new();
            self.visit_positions(field, records, |row, position| {
                text.clear();
                if within.contains(row)
                    && strings.append(position as usize, &mut text)
                    && let Ok(text) = std::str::from_utf8(&text)
                {
                    visit(text);
                }
            });
        }
        self.visit_raw_texts(name, records, |row, text| {
            if within.contains(row) {
                visit(text);
            }
        });
    }

    /// Calls `visit` with every text under the attribute `name` that is kept as raw bytes: it was
    /// encoded in an unusual way, or the block has no room for more fields or shapes.
    fn visit_raw_texts(
        &self,
        name: &str,
        records: &BlockRecords,
        mut visit: impl FnMut(u32, &str),
    ) {
        let Some((field, strings)) = self.strings_of(Form::Raw, "", records) else { return };
        let mut raw = Vec::new();
        self.visit_positions(field, records, |row, position| {
            raw.clear();
            if !strings.append(position as usize, &mut raw) {
                return;
            }
            // A field of the span with its tag, or all of them.
            for pair in messages(&raw, SPAN_ATTRIBUTES).map_while(Result::ok) {
                if let Ok(KeyValueView { key, value: AnyValueView::String(text) }) =
                    KeyValueView::parse(pair)
                    && key == name
                {
                    visit(row, text);
                }
            }
        });
    }

    fn strings_of(
        &self,
        form: Form,
        name: &str,
        records: &BlockRecords,
    ) -> Option<(u32, &Strings)> {
        let field = records.shapes.attribute(form, false, name.as_bytes())?;
        match self.columns.get(field as usize) {
            Some(Values::Bytes(strings)) => Some((field, strings)),
            _ => None,
        }
    }

    /// Calls `visit` with each row that has the field and the position of its value, as often as
    /// the row has it.
    fn visit_positions(&self, field: u32, records: &BlockRecords, mut visit: impl FnMut(u32, u32)) {
        let count = |ordinal: &u32| {
            let steps = records.shapes.shape(*ordinal).unwrap_or_default();
            steps.iter().filter(|step| **step == field).count()
        };
        let counts: Vec<usize> = self.used.iter().map(count).collect();
        let mut position = 0;
        for (row, place) in (self.first_row..).zip(&self.shapes) {
            for _ in 0..counts[usize::from(*place)] {
                visit(row, position);
                position += 1;
            }
        }
    }

    /// The span at a row of the page.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when it refers to a resource or scope that is not there.
    pub fn span(&self, row: u32, records: &BlockRecords) -> Result<Option<SpanRecord>, BlockError> {
        let trace = self.traces.iter().find(|trace| trace.rows.contains(&row));
        let Some(trace) = trace else { return Ok(None) };
        let part = PageTraceRows { rows: row..row + 1, ..trace.clone() };
        let cursors = self.values_before(row - self.first_row, &records.shapes);
        Ok(self.spans(&part, cursors, records)?.0.pop())
    }

    /// The spans of a trace in this page, in the order of their rows; none if it is not here. They
    /// share one buffer of their own.
    ///
    /// # Errors
    /// As [`Page::span`].
    pub fn trace(&self, id: &TraceId, records: &BlockRecords) -> Result<Trace, BlockError> {
        let mut spans = Vec::new();
        let from = self.traces.partition_point(|trace| trace.id < *id);
        for part in self.traces[from..].iter().take_while(|trace| trace.id == *id) {
            let cursors = self.values_before(part.rows.start - self.first_row, &records.shapes);
            spans.append(&mut self.spans(part, cursors, records)?.0);
        }
        Ok(Trace { id: *id, spans })
    }

    /// All traces of the page, ascending, each with what the page holds of it. Cheaper than asking
    /// for one after the other.
    ///
    /// # Errors
    /// As [`Page::span`].
    pub fn all_traces(&self, records: &BlockRecords) -> Result<Vec<Trace>, BlockError> {
        let mut cursors = self.values_before(0, &records.shapes);
        let mut traces: Vec<Trace> = Vec::with_capacity(self.traces.len());
        for part in &self.traces {
            let spans;
            (spans, cursors) = self.spans(part, cursors, records)?;
            traces.push(Trace { id: part.id, spans });
        }
        Ok(traces)
    }

    /// The spans of a part whose values begin at `cursors`, and where the values go on.
    fn spans(
        &self,
        part: &PageTraceRows,
        cursors: Vec<usize>,
        records: &BlockRecords,
    ) -> Result<(Vec<SpanRecord>, Vec<usize>), BlockError> {
        let shapes = &records.shapes;
        let mut joiner = Joiner::new(&self.columns, cursors, &self.chunk, part);
        let mut ends = Vec::with_capacity(part.rows.len());
        for row in part.rows.clone() {
            let at = (row - self.first_row) as usize;
            let shape = self.shapes.get(at).and_then(|at| self.used.get(usize::from(*at)));
            let steps = shape.and_then(|shape| shapes.shape(*shape)).unwrap_or_default();
            joiner.join(row, steps, shapes.fields())?;
            ends.push(joiner.len());
        }
        let (bytes, cursors) = joiner.into_parts();
        let bytes = Bytes::from(bytes);
        let mut start = 0;
        let mut spans = Vec::with_capacity(ends.len());
        for (row, end) in part.rows.clone().zip(ends) {
            let missing = || BlockError::corrupt(PAGE, "a span has no resource or scope");
            let resource = self.chunk.resource(row).ok_or_else(missing)?;
            let scope = self.scopes.get((row - self.first_row) as usize);
            let scope = scope.and_then(|scope| usize::try_from(scope).ok()).ok_or_else(missing)?;
            spans.push(SpanRecord {
                resource: Arc::clone(records.resources.get(resource as usize).ok_or_else(missing)?),
                scope: Arc::clone(records.scopes.get(scope).ok_or_else(missing)?),
                bytes: bytes.slice(start..end),
            });
            start = end;
        }
        Ok((spans, cursors))
    }

    /// About how many bytes of memory the page takes.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes + self.shapes.len() * 10 + self.traces.len() * 40
    }
}

/// The raw and the packed length of a stream.
fn read_stream(reader: &mut ByteReader<'_>) -> Result<(usize, usize), BlockError> {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Ok((number(reader.varint()?), number(reader.varint()?)))
}

fn unpack(
    reader: &mut ByteReader<'_>,
    (raw, packed): (usize, usize),
    zstd: &mut Decompressor,
) -> Result<Bytes, BlockError> {
    zstd.decompress(PAGE, reader.take(packed)?, raw)
}
