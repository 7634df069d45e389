//! The columns section: what queries need of every span without reading its page, and what the page
//! therefore does not repeat. One chunk per page.
//!
//! A chunk holds the span ids (8 bytes each) and then six columns in this order: start after the
//! start of the trace, duration (both nanoseconds), resource ordinal, kind, status, parent. The
//! parent column holds 0 for a root, 1 for a span whose parent is not among the trace's spans here,
//! and otherwise 2 plus the zigzag-coded distance from the span's row back to its parent's. At the
//! end are the ids of parents that are elsewhere, so that a trace in pieces can be put together
//! without pages: their number (varint), the rows of their children counted from the page's first
//! (4 bytes each, little endian, ascending), then the ids (8 bytes each). Earlier writers left that
//! out.

use bytes::Bytes;
use clew_model::wire::put_varint;

use crate::codec::{ByteReader, narrow, verify};
use crate::error::BlockError;
use crate::packed::{Column, put_column};
use crate::page::{PageDirectory, PageEntry};

const SECTION: &str = "columns";
const ID_BYTES: usize = 8;
const ROW_BYTES: usize = 4;

/// Where a span's parent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// It has none: the span is a root.
    Root,
    /// Not in this block.
    Elsewhere,
    /// At this row.
    Row(u32),
}

impl Parent {
    /// What the parent column holds at `row`.
    fn decode(row: u32, coded: u64) -> Option<Parent> {
        Some(match coded {
            0 => Parent::Root,
            1 => Parent::Elsewhere,
            coded => {
                let coded = coded - 2;
                let back = (coded >> 1).cast_signed() ^ -(coded & 1).cast_signed();
                Parent::Row(u32::try_from(i64::from(row).checked_sub(back)?).ok()?)
            }
        })
    }
}

/// Collects the columns of a page row by row.
#[derive(Debug, Default)]
pub(crate) struct ColumnsWriter {
    ids: Vec<u8>,
    starts: Vec<u64>,
    durations: Vec<u64>,
    resources: Vec<u64>,
    kinds: Vec<u64>,
    statuses: Vec<u64>,
    parents: Vec<u64>,
    absent: AbsentParents,
}

/// Ids of parents that are elsewhere, by the rows of their children counted from the page's first.
#[derive(Debug, Default)]
struct AbsentParents {
    rows: Vec<u8>,
    ids: Vec<u8>,
}

impl AbsentParents {
    fn finish(&mut self, out: &mut Vec<u8>) {
        put_varint(out, (self.ids.len() / ID_BYTES) as u64);
        out.append(&mut self.rows);
        out.append(&mut self.ids);
    }
}

/// A row's values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnRow {
    pub(crate) span_id: [u8; 8],
    pub(crate) start_in_trace: u64,
    pub(crate) duration: u64,
    pub(crate) resource: u32,
    pub(crate) kind: u8,
    pub(crate) status: u8,
    pub(crate) parent: Parent,
    /// The id of a parent that is elsewhere, if it is known.
    pub(crate) absent_parent: Option<[u8; 8]>,
}

impl ColumnsWriter {
    pub(crate) fn push(&mut self, row: u32, values: &ColumnRow) {
        if let (Parent::Elsewhere, Some(id)) = (values.parent, values.absent_parent) {
            self.absent.rows.extend_from_slice(&narrow(self.starts.len()).to_le_bytes());
            self.absent.ids.extend_from_slice(&id);
        }
        self.ids.extend_from_slice(&values.span_id);
        self.starts.push(values.start_in_trace);
        self.durations.push(values.duration);
        self.resources.push(u64::from(values.resource));
        self.kinds.push(u64::from(values.kind));
        self.statuses.push(u64::from(values.status));
        self.parents.push(match values.parent {
            Parent::Root => 0,
            Parent::Elsewhere => 1,
            Parent::Row(parent) => {
                let back = i64::from(row) - i64::from(parent);
                2 + ((back << 1) ^ (back >> 63)).cast_unsigned()
            }
        });
    }

    /// Appends the chunk of the page and begins the next.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.ids);
        let Self { ids: _, starts, durations, resources, kinds, statuses, parents, absent } = self;
        for column in [starts, durations, resources, kinds, statuses, parents] {
            put_column(out, column);
            column.clear();
        }
        absent.finish(out);
    }
}

/// The columns of a page.
#[derive(Debug, Clone)]
pub(crate) struct ColumnChunk {
    first_row: u32,
    ids: Bytes,
    starts: Column,
    durations: Column,
    resources: Column,
    kinds: Column,
    statuses: Column,
    parents: Column,
    /// Rows and ids of [`AbsentParents`].
    absent_rows: Bytes,
    absent_ids: Bytes,
}

impl ColumnChunk {
    /// Verifies and reads the chunk of the page that `entry` describes.
    pub(crate) fn parse(bytes: &Bytes, entry: &PageEntry) -> Result<ColumnChunk, BlockError> {
        verify(SECTION, bytes, entry.columns_crc32c)?;
        let rows = entry.rows;
        let ids_length = (rows as usize).saturating_mul(ID_BYTES);
        if ids_length > bytes.len() {
            return Err(BlockError::corrupt(SECTION, "it ends too early"));
        }
        let (ids, rest) = (bytes.slice(..ids_length), bytes.slice(ids_length..));
        let (starts, rest) = Column::parse(&rest, rows)?;
        let (durations, rest) = Column::parse(&rest, rows)?;
        let (resources, rest) = Column::parse(&rest, rows)?;
        let (kinds, rest) = Column::parse(&rest, rows)?;
        let (statuses, rest) = Column::parse(&rest, rows)?;
        let (parents, rest) = Column::parse(&rest, rows)?;
        let (absent_rows, absent_ids) = parse_absent(&rest)?;
        Ok(ColumnChunk {
            first_row: entry.first_row,
            ids,
            starts,
            durations,
            resources,
            kinds,
            statuses,
            parents,
            absent_rows,
            absent_ids,
        })
    }

    /// Unpacks the chunk into `rows`, for whoever wants every row.
    pub(crate) fn unpack(&self, rows: &mut UnpackedRows) {
        rows.first_row = self.first_row;
        rows.ids.clear();
        rows.ids.extend_from_slice(self.ids.as_chunks::<ID_BYTES>().0);
        let UnpackedRows { starts, durations, resources, kinds, statuses, parents, .. } = rows;
        let columns = [
            (&self.starts, starts),
            (&self.durations, durations),
            (&self.resources, resources),
            (&self.kinds, kinds),
            (&self.statuses, statuses),
            (&self.parents, parents),
        ];
        for (column, values) in columns {
            values.clear();
            column.unpack(values);
        }
        rows.absent.clear();
        let children = self.absent_rows.as_chunks::<ROW_BYTES>().0.iter();
        let ids = self.absent_ids.as_chunks::<ID_BYTES>().0;
        rows.absent.extend(children.map(|row| u32::from_le_bytes(*row)).zip(ids.iter().copied()));
    }

    fn at(&self, row: u32) -> Option<u32> {
        row.checked_sub(self.first_row)
    }

    pub(crate) fn span_id(&self, row: u32) -> Option<[u8; 8]> {
        let from = (self.at(row)? as usize).checked_mul(ID_BYTES)?;
        self.ids.get(from..)?.first_chunk().copied()
    }

    pub(crate) fn start_in_trace(&self, row: u32) -> Option<u64> {
        self.starts.get(self.at(row)?)
    }

    pub(crate) fn duration(&self, row: u32) -> Option<u64> {
        self.durations.get(self.at(row)?)
    }

    pub(crate) fn resource(&self, row: u32) -> Option<u32> {
        u32::try_from(self.resources.get(self.at(row)?)?).ok()
    }

    pub(crate) fn kind(&self, row: u32) -> Option<u8> {
        u8::try_from(self.kinds.get(self.at(row)?)?).ok()
    }

    pub(crate) fn status(&self, row: u32) -> Option<u8> {
        u8::try_from(self.statuses.get(self.at(row)?)?).ok()
    }

    pub(crate) fn parent(&self, row: u32) -> Option<Parent> {
        Parent::decode(row, self.parents.get(self.at(row)?)?)
    }

    pub(crate) fn absent_parent(&self, row: u32) -> Option<[u8; 8]> {
        let (row, rows) = (self.at(row)?, self.absent_rows.as_chunks::<ROW_BYTES>().0);
        let at = rows.binary_search_by_key(&row, |row| u32::from_le_bytes(*row)).ok()?;
        self.absent_ids.as_chunks::<ID_BYTES>().0.get(at).copied()
    }
}

/// The rows and the ids of parents that are elsewhere. What later versions append is not looked at.
fn parse_absent(rest: &Bytes) -> Result<(Bytes, Bytes), BlockError> {
    if rest.is_empty() {
        return Ok((Bytes::new(), Bytes::new()));
    }
    let mut reader = ByteReader::new(SECTION, rest);
    let count = reader.count(ROW_BYTES + ID_BYTES)?;
    let from = rest.len() - reader.remaining();
    let between = from + count * ROW_BYTES;
    Ok((rest.slice(from..between), rest.slice(between..between + count * ID_BYTES)))
}

/// The columns of a page with all values unpacked; reused for all pages of a block.
#[derive(Debug, Default)]
pub(crate) struct UnpackedRows {
    first_row: u32,
    ids: Vec<[u8; ID_BYTES]>,
    starts: Vec<u64>,
    durations: Vec<u64>,
    resources: Vec<u64>,
    kinds: Vec<u64>,
    statuses: Vec<u64>,
    parents: Vec<u64>,
    absent: Vec<(u32, [u8; ID_BYTES])>,
}

impl UnpackedRows {
    /// The values of a row, if they are such as a writer puts there.
    #[inline]
    pub(crate) fn row(&self, row: u32) -> Option<ColumnRow> {
        let offset = row.checked_sub(self.first_row)?;
        let at = offset as usize;
        let parent = Parent::decode(row, *self.parents.get(at)?)?;
        let absent_parent = match parent {
            Parent::Elsewhere => {
                let found = self.absent.binary_search_by_key(&offset, |(row, _)| *row).ok();
                found.map(|found| self.absent[found].1)
            }
            Parent::Root | Parent::Row(_) => None,
        };
        Some(ColumnRow {
            span_id: *self.ids.get(at)?,
            start_in_trace: *self.starts.get(at)?,
            duration: *self.durations.get(at)?,
            resource: u32::try_from(*self.resources.get(at)?).ok()?,
            kind: u8::try_from(*self.kinds.get(at)?).ok()?,
            status: u8::try_from(*self.statuses.get(at)?).ok()?,
            parent,
            absent_parent,
        })
    }
}

/// The columns of a block.
#[derive(Debug, Clone)]
pub struct Columns {
    chunks: Vec<ColumnChunk>,
}

impl Columns {
    /// Verifies and reads the section of a block with those pages.
    pub(crate) fn parse(bytes: &Bytes, pages: &PageDirectory) -> Result<Columns, BlockError> {
        let start = pages.entries().first().map_or(0, |page| page.columns.start);
        let chunk = |page: &PageEntry| {
            let place = |at: u64| usize::try_from(at.checked_sub(start)?).ok();
            let range = place(page.columns.start).zip(place(page.columns.end));
            let range = range.filter(|(from, to)| from <= to && *to <= bytes.len());
            let outside = || BlockError::corrupt(SECTION, "a page's columns lie outside");
            let (from, to) = range.ok_or_else(outside)?;
            ColumnChunk::parse(&bytes.slice(from..to), page)
        };
        Ok(Columns { chunks: pages.entries().iter().map(chunk).collect::<Result<_, _>>()? })
    }

    fn chunk(&self, row: u32) -> Option<&ColumnChunk> {
        let at = self.chunks.partition_point(|chunk| chunk.first_row <= row);
        self.chunks.get(at.checked_sub(1)?)
    }

    /// The row's span id.
    pub fn span_id(&self, row: u32) -> Option<[u8; 8]> {
        self.chunk(row)?.span_id(row)
    }

    /// Nanoseconds from the start of the row's trace to the start of its span.
    pub fn start_in_trace(&self, row: u32) -> Option<u64> {
        self.chunk(row)?.start_in_trace(row)
    }

    /// How long the row's span lasts, in nanoseconds.
    pub fn duration(&self, row: u32) -> Option<u64> {
        self.chunk(row)?.duration(row)
    }

    /// The ordinal of the row's resource.
    pub fn resource(&self, row: u32) -> Option<u32> {
        self.chunk(row)?.resource(row)
    }

    /// The row's span kind as OTLP numbers it; unknown kinds are 0.
    pub fn kind(&self, row: u32) -> Option<u8> {
        self.chunk(row)?.kind(row)
    }

    /// The row's status code as OTLP numbers it; unknown codes are 0.
    pub fn status(&self, row: u32) -> Option<u8> {
        self.chunk(row)?.status(row)
    }

    /// Where the row's parent is. A server span that shares its id with a client span has the
    /// client span as its parent.
    pub fn parent(&self, row: u32) -> Option<Parent> {
        self.chunk(row)?.parent(row)
    }

    /// The id of the row's parent if that is elsewhere; `None` if it is not, or if whoever wrote
    /// the block left it out.
    pub fn absent_parent(&self, row: u32) -> Option<[u8; 8]> {
        self.chunk(row)?.absent_parent(row)
    }

    /// Calls `visit` with every row and the duration of its span.
    pub(crate) fn for_each_duration(&self, mut visit: impl FnMut(u32, u64)) {
        for chunk in &self.chunks {
            chunk.durations.for_each(|at, duration| visit(chunk.first_row + at, duration));
        }
    }
}

#[cfg(test)]
mod tests {
    use clew_model::TraceId;

    use super::*;

    #[test]
    fn rows_come_back() {
        let rows = [
            (Parent::Root, 3u32),
            (Parent::Row(3), 4),
            (Parent::Row(7), 5),
            (Parent::Elsewhere, 6),
            (Parent::Row(3), 7),
        ];
        let mut writer = ColumnsWriter::default();
        for (parent, row) in rows {
            writer.push(
                row,
                &ColumnRow {
                    span_id: u64::from(row).to_be_bytes(),
                    start_in_trace: u64::from(row) * 10,
                    duration: u64::MAX - u64::from(row),
                    resource: row,
                    kind: 3,
                    status: 2,
                    parent,
                    absent_parent: (row == 6).then_some([9; 8]),
                },
            );
        }
        let mut bytes = Vec::new();
        writer.finish(&mut bytes);
        let entry = entry(5, &bytes);
        let columns = ColumnChunk::parse(&Bytes::from(bytes), &entry).unwrap();
        let mut unpacked = UnpackedRows::default();
        columns.unpack(&mut unpacked);
        for (parent, row) in rows {
            assert_eq!(columns.parent(row), Some(parent));
            assert_eq!(columns.span_id(row), Some(u64::from(row).to_be_bytes()));
            assert_eq!(columns.start_in_trace(row), Some(u64::from(row) * 10));
            assert_eq!(columns.duration(row), Some(u64::MAX - u64::from(row)));
            assert_eq!(columns.resource(row), Some(row));
            assert_eq!((columns.kind(row), columns.status(row)), (Some(3), Some(2)));
            let absent = (row == 6).then_some([9; 8]);
            assert_eq!(columns.absent_parent(row), absent);
            assert_eq!(unpacked.row(row).map(|row| row.absent_parent), Some(absent));
        }
        assert_eq!([columns.parent(8), columns.parent(2)], [None, None]);
    }

    #[test]
    fn columns_without_ids_of_absent_parents_are_read() {
        let mut writer = ColumnsWriter::default();
        writer.push(
            3,
            &ColumnRow {
                span_id: [1; 8],
                start_in_trace: 0,
                duration: 1,
                resource: 0,
                kind: 0,
                status: 0,
                parent: Parent::Elsewhere,
                absent_parent: None,
            },
        );
        let mut bytes = Vec::new();
        writer.finish(&mut bytes);
        // Earlier writers ended here.
        assert_eq!(bytes.pop(), Some(0));
        let columns = ColumnChunk::parse(&Bytes::from(bytes.clone()), &entry(1, &bytes)).unwrap();
        assert_eq!((columns.parent(3), columns.absent_parent(3)), (Some(Parent::Elsewhere), None));
        // A count without its rows and ids.
        bytes.push(1);
        assert!(ColumnChunk::parse(&Bytes::from(bytes.clone()), &entry(1, &bytes)).is_err());
    }

    fn entry(rows: u32, bytes: &[u8]) -> PageEntry {
        PageEntry {
            first_trace: TraceId([1; 16]),
            first_row: 3,
            rows,
            first_ordinal: 0,
            bytes: 0..0,
            columns: 0..bytes.len() as u64,
            raw_length: 0,
            crc32c: 0,
            columns_crc32c: crc32c::crc32c(bytes),
        }
    }
}
