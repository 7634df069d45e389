//! Collects the spans of a block page by page, taken apart into columns.

use clew_model::TraceId;
use clew_model::wire::put_varint;
use hashbrown::HashTable;

use super::shapes::{Content, FieldDef, Shapes, ShapesBuilder};
use super::split::{Item, RowFacts, Split};
use super::values::{ByteColumn, Streams, write_ints};
use super::{PageEntry, PagesParts};
use crate::codec::{DECOMPRESSED_BYTES_MAX, narrow};
use crate::columns::{ColumnRow, ColumnsWriter, Parent};
use crate::error::BlockError;
use crate::hash::hash64;
use crate::terms::TermOrdinal;

/// The most bytes of a page before it is taken apart, unless one span is larger.
pub(crate) const PAGE_BYTES_MAX: usize = 16 << 20;

/// A span on its way into a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageSpan<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) scope: u32,
    pub(crate) columns: ColumnRow,
}

/// What the spans of a trace have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageTrace {
    pub(crate) id: TraceId,
    /// The trace's place in the trace table.
    pub(crate) ordinal: u32,
    /// The earliest start of its spans.
    pub(crate) start: u64,
    /// The row of its first span.
    pub(crate) first_row: u32,
}

/// The values of one field in the page at hand.
#[derive(Debug)]
enum Column {
    Nothing,
    Bytes(ByteColumn),
    Ints(Vec<i64>),
}

/// A trace of the page at hand.
#[derive(Debug)]
struct Part {
    id: TraceId,
    start: u64,
    rows: u32,
}

/// The page at hand.
#[derive(Debug, Default)]
struct Open {
    /// First trace, row and trace ordinal; none while the page is empty.
    first: Option<(TraceId, u32, u32)>,
    raw_length: usize,
    parts: Vec<Part>,
    /// Each row's shape and scope.
    shapes: Vec<u32>,
    scopes: Vec<i64>,
    /// By field ordinal.
    columns: Vec<Column>,
    /// The bytes of distinct values, and where to find them.
    bytes: Vec<u8>,
    index: HashTable<(u64, u32, u32)>,
}

/// Collects pages.
pub(crate) struct PagesWriter {
    compressor: zstd::bulk::Compressor<'static>,
    target: usize,
    seed: u64,
    shapes: ShapesBuilder,
    open: Open,
    fixed: ColumnsWriter,
    streams: Streams,
    pages: Vec<u8>,
    columns: Vec<u8>,
    entries: Vec<PageEntry>,
    /// For terms whose value a page has as a number: the page, and the number.
    term_numbers: Vec<(u32, u32)>,
}

impl PagesWriter {
    /// `target` is how many bytes of spans a page should have.
    pub(crate) fn new(level: i32, target: usize, seed: u64) -> Result<PagesWriter, BlockError> {
        Ok(PagesWriter {
            compressor: zstd::bulk::Compressor::new(level)
                .map_err(BlockError::engine("starting a compressor"))?,
            target: target.clamp(1, PAGE_BYTES_MAX),
            seed,
            shapes: ShapesBuilder::new(seed),
            open: Open::default(),
            fixed: ColumnsWriter::default(),
            streams: Streams::default(),
            pages: Vec::new(),
            columns: Vec::new(),
            entries: Vec::new(),
            term_numbers: Vec::new(),
        })
    }

    /// The fields and shapes so far, to add to.
    pub(super) const fn shapes_mut(&mut self) -> &mut ShapesBuilder {
        &mut self.shapes
    }

    /// Whether a trace of so many bytes has room in one page.
    pub(crate) const fn has_room_for(&self, size: usize) -> bool {
        size <= self.target
    }

    /// Ends the page at hand if a trace of so many bytes has no room in it, and begins the trace;
    /// returns its page. The trace's rows are to be put with [`PagesWriter::open_row`].
    pub(super) fn open_trace(
        &mut self,
        trace: &PageTrace,
        size: usize,
        rows: usize,
    ) -> Result<u32, BlockError> {
        if self.open.first.is_some() && self.open.raw_length + size > self.target {
            self.flush()?;
        }
        self.open.first.get_or_insert((trace.id, trace.first_row, trace.ordinal));
        self.open.parts.push(Part { id: trace.id, start: trace.start, rows: narrow(rows) });
        self.open.raw_length += size;
        Ok(narrow(self.entries.len()))
    }

    /// Begins a row of the trace at hand; the values of the shape's fields are to be put next.
    pub(super) fn open_row(&mut self, row: u32, shape: u32, scope: u32, columns: &ColumnRow) {
        self.open.shapes.push(shape);
        self.open.scopes.push(i64::from(scope));
        self.fixed.push(row, columns);
    }

    /// Puts a number of the row at hand.
    #[inline]
    pub(super) fn put_int(&mut self, field: u32, value: i64) {
        if let Column::Ints(column) = self.open.column(self.shapes.shapes(), field) {
            column.push(value);
        }
    }

    /// Puts a byte string of the row at hand.
    #[inline]
    pub(super) fn put_bytes(&mut self, field: u32, value: &[u8]) -> u32 {
        self.open.put_bytes(self.seed, self.shapes.shapes(), field, value)
    }

    /// Puts the byte string that is the only one of the field with the term `term`.
    #[inline]
    pub(super) fn put_term(&mut self, field: u32, term: TermOrdinal, value: &[u8]) {
        let page = narrow(self.entries.len());
        let at = term as usize;
        if self.term_numbers.len() <= at {
            self.term_numbers.resize(at + at / 4 + 1, (u32::MAX, 0));
        }
        let (of_page, number) = self.term_numbers[at];
        if of_page == page
            && let Column::Bytes(column) = self.open.column(self.shapes.shapes(), field)
        {
            column.numbers.push(number);
            return;
        }
        let number = self.put_bytes(field, value);
        self.term_numbers[at] = (page, number);
    }

    /// Appends a trace; returns its first page. A trace larger than a page has pages of its own.
    pub(crate) fn add(
        &mut self,
        trace: &PageTrace,
        spans: &[PageSpan<'_>],
    ) -> Result<u32, BlockError> {
        let size: usize = spans.iter().map(|span| span.bytes.len()).sum();
        if self.open.first.is_some() && self.open.raw_length + size > self.target {
            self.flush()?;
        }
        let page = narrow(self.entries.len());
        if size <= self.target {
            self.put(trace, trace.first_row, spans)?;
            return Ok(page);
        }
        let (mut row, mut rest) = (trace.first_row, spans);
        while !rest.is_empty() {
            let mut part_size = 0;
            let fitting = rest.iter().take_while(|span| {
                part_size += span.bytes.len();
                part_size <= self.target
            });
            let (part, others) = rest.split_at(fitting.count().max(1));
            self.put(trace, row, part)?;
            self.flush()?;
            row += narrow(part.len());
            rest = others;
        }
        Ok(page)
    }

    /// Adds spans of one trace, of which the first is at `first_row`, to the page at hand.
    fn put(
        &mut self,
        trace: &PageTrace,
        first_row: u32,
        spans: &[PageSpan<'_>],
    ) -> Result<(), BlockError> {
        self.open.first.get_or_insert((trace.id, first_row, trace.ordinal));
        self.open.parts.push(Part { id: trace.id, start: trace.start, rows: narrow(spans.len()) });
        let mut split = Split::default();
        for (row, span) in (first_row..).zip(spans) {
            let columns = &span.columns;
            let parent = match columns.parent {
                Parent::Row(parent) => parent.checked_sub(first_row),
                Parent::Root | Parent::Elsewhere => None,
            };
            let parent = parent.and_then(|at| spans.get(at as usize));
            let start = trace.start.saturating_add(columns.start_in_trace);
            let facts = RowFacts {
                trace_id: trace.id.0,
                span_id: columns.span_id,
                parent: parent.map(|parent| parent.columns.span_id),
                start,
                end: start.saturating_add(columns.duration),
                kind: columns.kind,
                status: columns.status,
            };
            let shape = split.split(&mut self.shapes, span.bytes, &facts)?;
            let full = BlockError::Limit { what: "shapes in a block", limit: 0 };
            self.open.push(self.seed, self.shapes.shapes(), &split, shape.ok_or(full)?);
            self.open.scopes.push(i64::from(span.scope));
            self.open.raw_length += span.bytes.len();
            self.fixed.push(row, columns);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        let Some((first_trace, first_row, first_ordinal)) = self.open.first.take() else {
            return Ok(());
        };
        if self.open.raw_length > DECOMPRESSED_BYTES_MAX {
            let limit = DECOMPRESSED_BYTES_MAX as u64;
            return Err(BlockError::Limit { what: "bytes in a span", limit });
        }
        self.open.write(self.shapes.shapes(), &mut self.streams);
        let start = self.pages.len();
        self.put_streams()?;
        let columns_start = self.columns.len();
        self.fixed.finish(&mut self.columns);
        self.entries.push(PageEntry {
            first_trace,
            first_row,
            rows: narrow(self.open.shapes.len()),
            first_ordinal,
            bytes: start as u64..self.pages.len() as u64,
            columns: columns_start as u64..self.columns.len() as u64,
            raw_length: narrow(self.open.raw_length),
            crc32c: crc32c::crc32c(&self.pages[start..]),
            columns_crc32c: crc32c::crc32c(&self.columns[columns_start..]),
        });
        self.open.clear();
        Ok(())
    }

    /// The lengths of the three streams, then the streams, the first two compressed.
    fn put_streams(&mut self) -> Result<(), BlockError> {
        let failed = BlockError::engine("compression");
        let codes = self.compressor.compress(&self.streams.codes).map_err(failed)?;
        let failed = BlockError::engine("compression");
        let text = self.compressor.compress(&self.streams.text).map_err(failed)?;
        let out = &mut self.pages;
        put_varint(out, self.streams.codes.len() as u64);
        put_varint(out, codes.len() as u64);
        put_varint(out, self.streams.text.len() as u64);
        put_varint(out, text.len() as u64);
        out.extend_from_slice(&codes);
        out.extend_from_slice(&text);
        out.extend_from_slice(&self.streams.plain);
        Ok(())
    }

    /// The sections of the pages.
    pub(crate) fn finish(mut self) -> Result<PagesParts, BlockError> {
        self.flush()?;
        Ok(PagesParts {
            directory: super::put_directory(&self.entries),
            shapes: self.shapes.shapes().to_bytes(),
            pages: self.pages,
            columns: self.columns,
            entries: self.entries,
        })
    }
}

impl Open {
    fn push(&mut self, seed: u64, shapes: &Shapes, split: &Split<'_>, shape: u32) {
        for (field, item) in split.steps.iter().zip(&split.items) {
            match item {
                Item::Nothing => {
                    self.column(shapes, *field);
                }
                Item::Int(value) => {
                    if let Column::Ints(column) = self.column(shapes, *field) {
                        column.push(*value);
                    }
                }
                Item::Bytes(value) => {
                    self.put_bytes(seed, shapes, *field, value);
                }
            }
        }
        self.shapes.push(shape);
    }

    /// The column of a field.
    #[inline]
    fn column(&mut self, shapes: &Shapes, field: u32) -> &mut Column {
        while self.columns.len() <= field as usize {
            let field = shapes.fields().get(self.columns.len());
            let content = |field: &FieldDef| field.form.content();
            self.columns.push(match field.map_or(Content::Nothing, content) {
                Content::Nothing => Column::Nothing,
                Content::Bytes => Column::Bytes(ByteColumn::default()),
                Content::Ints => Column::Ints(Vec::new()),
            });
        }
        &mut self.columns[field as usize]
    }

    /// Puts a byte string; returns its number in the column.
    #[inline]
    fn put_bytes(&mut self, seed: u64, shapes: &Shapes, field: u32, value: &[u8]) -> u32 {
        self.column(shapes, field);
        let Self { columns, index, bytes, .. } = self;
        let Column::Bytes(column) = &mut columns[field as usize] else { return 0 };
        let number = number_of(seed, index, bytes, field, column, value);
        column.numbers.push(number);
        number
    }

    /// Writes the page into the streams.
    fn write(&self, shapes: &Shapes, out: &mut Streams) {
        out.clear();
        let base = self.parts.iter().map(|part| part.start).min().unwrap_or(0);
        out.codes.extend_from_slice(&base.to_le_bytes());
        put_varint(&mut out.codes, self.parts.len() as u64);
        for part in &self.parts {
            out.plain.extend_from_slice(&part.id.0);
            put_varint(&mut out.codes, part.start - base);
            put_varint(&mut out.codes, u64::from(part.rows));
        }
        let rows: Vec<i64> = self.shapes.iter().map(|shape| i64::from(*shape)).collect();
        write_ints(&rows, out);
        write_ints(&self.scopes, out);
        debug_assert!(self.columns.len() <= shapes.fields().len(), "a field without definition");
        for column in &self.columns {
            match column {
                Column::Bytes(column) if !column.numbers.is_empty() => {
                    column.write(&self.bytes, out);
                }
                Column::Ints(values) => write_ints(values, out),
                Column::Nothing | Column::Bytes(_) => {}
            }
        }
    }

    fn clear(&mut self) {
        self.raw_length = 0;
        self.parts.clear();
        self.shapes.clear();
        self.scopes.clear();
        self.bytes.clear();
        self.index.clear();
        for column in &mut self.columns {
            match column {
                Column::Nothing => {}
                Column::Bytes(column) => column.clear(),
                Column::Ints(values) => values.clear(),
            }
        }
    }
}

/// The number of a value in its column, new or known.
#[inline]
fn number_of(
    seed: u64,
    index: &mut HashTable<(u64, u32, u32)>,
    bytes: &mut Vec<u8>,
    field: u32,
    column: &mut ByteColumn,
    value: &[u8],
) -> u32 {
    let distinct = &column.distinct;
    // Neighbours are often alike.
    if let Some(&last) = column.numbers.last() {
        let (start, length) = distinct[last as usize];
        if bytes[start as usize..][..length as usize] == *value {
            return last;
        }
    }
    let hash = hash64(seed ^ u64::from(field), value);
    let known = index.find(hash, |(kept, of, number)| {
        *kept == hash && *of == field && {
            let (start, length) = distinct[*number as usize];
            bytes[start as usize..][..length as usize] == *value
        }
    });
    if let Some((_, _, number)) = known {
        return *number;
    }
    let number = narrow(distinct.len());
    column.distinct.push((narrow(bytes.len()), narrow(value.len())));
    bytes.extend_from_slice(value);
    index.insert_unique(hash, (hash, field, number), |(hash, _, _)| *hash);
    number
}
