//! From span tables to a block: brings the rows of all tables into final order and renumbers the
//! terms they are interned under.

use clew_model::TraceId;
use clew_model::trace::SpanRecord;

use super::assemble::{Assembler, NewSpan};
use super::{BlockMeta, BlockOptions, TraceMarks};
use crate::error::BlockError;
use crate::index::{DROPPED, StoreRows};
use crate::table::{Row, SpanTable};

/// A span table as far as it goes into a block.
#[derive(Debug, Clone, Copy)]
pub struct TableRows<'a> {
    /// The table.
    pub table: &'a SpanTable,
    /// Rows at or above stay out.
    pub rows_max: u32,
}

/// A row of one of the tables.
#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    table: usize,
    at: u32,
    row: &'a Row,
}

/// Writes the spans of the tables as one block. A span that is there in several versions is
/// written once, by the model's law. The same spans give the same bytes, however they are spread
/// over tables and whatever order they arrived in, as far as resources appear in the same order.
///
/// # Errors
/// [`BlockError::Limit`] when there are too many rows, [`BlockError::Engine`] when the index or
/// the compressor fails.
pub fn write_block(
    tables: &[TableRows<'_>],
    options: &BlockOptions,
    meta: BlockMeta,
) -> Result<Vec<u8>, BlockError> {
    let mut assembler = Assembler::new(options, meta, 0)?;
    let mut fragments: Vec<(TraceId, usize, u32, bool)> = Vec::new();
    for (at, part) in tables.iter().enumerate() {
        for (trace, entry) in (0..).zip(part.table.traces()) {
            fragments.push((entry.id, at, trace, entry.split));
        }
    }
    fragments.sort_unstable();
    let mut order = Order::new(tables);
    let mut sources = Vec::new();
    let mut spans = Vec::new();
    for same in fragments.chunk_by(|a, b| a.0 == b.0) {
        sources.clear();
        for (_, at, trace, _) in same {
            let part = &tables[*at];
            sources.extend(part.table.trace_rows(*trace, part.rows_max).map(|row| Source {
                table: *at,
                at: row,
                row: &part.table.rows()[row as usize],
            }));
        }
        let Some((id, ..)) = same.first() else { continue };
        drop_duplicates(tables, &mut sources);
        sources
            .sort_unstable_by_key(|source| (source.row.start, source.row.span_id, source.row.kind));
        let first_row = assembler.next_row(sources.len())?;
        spans.clear();
        for (row, source) in (first_row..).zip(&sources) {
            spans.push(order.place(&mut assembler, source, row));
        }
        let marks =
            TraceMarks { split: same.iter().any(|fragment| fragment.3), ..TraceMarks::default() };
        assembler.add_trace(*id, marks, &spans)?;
    }
    let stores: Vec<StoreRows<'_>> = tables
        .iter()
        .zip(&order.renumbered)
        .map(|(part, renumbered)| StoreRows {
            terms: part.table.terms(),
            renumbered: Some(renumbered),
            rows_max: part.rows_max,
        })
        .collect();
    assembler.finish(&stores)
}

/// Where the rows and the records of each table go in the block.
struct Order<'a> {
    tables: &'a [TableRows<'a>],
    renumbered: Vec<Vec<u32>>,
    resources: Vec<Vec<u32>>,
    scopes: Vec<Vec<u32>>,
}

impl<'a> Order<'a> {
    fn new(tables: &'a [TableRows<'a>]) -> Order<'a> {
        let blank = |length: &dyn Fn(&SpanTable) -> usize| {
            tables.iter().map(|part| vec![DROPPED; length(part.table)]).collect()
        };
        Order {
            tables,
            renumbered: blank(&|table| table.rows().len()),
            resources: blank(&|table| table.resources().entries().len()),
            scopes: blank(&|table| table.scopes().entries().len()),
        }
    }

    /// Gives a row its place in the block.
    fn place(&mut self, assembler: &mut Assembler, source: &Source<'a>, place: u32) -> NewSpan<'a> {
        let row = source.row;
        let table = self.tables[source.table].table;
        self.renumbered[source.table][source.at as usize] = place;
        let resource = &mut self.resources[source.table][row.resource as usize];
        let scope = &mut self.scopes[source.table][row.scope as usize];
        if *resource == DROPPED || *scope == DROPPED {
            (*resource, *scope) = assembler.intern(
                &table.resources().entries()[row.resource as usize].record,
                &table.scopes().entries()[row.scope as usize].record,
            );
        }
        NewSpan {
            bytes: table.span_bytes(row),
            start: row.start,
            end: row.end,
            span_id: row.span_id,
            parent_id: row.parent_id,
            kind: row.kind,
            status: row.status,
            resource: *resource,
            scope: *scope,
        }
    }
}

/// Leaves one row per span identity. Finding out that there is no duplicate is all that most
/// traces need.
fn drop_duplicates(tables: &[TableRows<'_>], sources: &mut Vec<Source<'_>>) {
    let identity = |source: &Source<'_>| (source.row.span_id, source.row.kind);
    sources.sort_unstable_by_key(|source| (identity(source), source.table, source.at));
    if sources.windows(2).all(|pair| identity(&pair[0]) != identity(&pair[1])) {
        return;
    }
    let mut kept: Vec<Source<'_>> = Vec::with_capacity(sources.len());
    for versions in sources.chunk_by(|a, b| identity(a) == identity(b)) {
        kept.extend(
            versions.iter().copied().reduce(|best, other| {
                if is_preferred(tables, &other, &best) { other } else { best }
            }),
        );
    }
    *sources = kept;
}

/// Whether the model keeps `a` when `b` is another version of the same span.
fn is_preferred(tables: &[TableRows<'_>], a: &Source<'_>, b: &Source<'_>) -> bool {
    let bytes = |source: &Source<'_>| tables[source.table].table.span_bytes(source.row);
    let record = |source: &Source<'_>| tables[source.table].table.span(source.at);
    let (a_bytes, b_bytes) = (bytes(a), bytes(b));
    (a_bytes.len(), a_bytes).cmp(&(b_bytes.len(), b_bytes)).then_with(|| {
        let key = |span: SpanRecord| (span.resource, span.scope);
        record(a).map(key).cmp(&record(b).map(key))
    }) == std::cmp::Ordering::Greater
}
