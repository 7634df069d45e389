//! The columns section: what queries need of every span without reading its page.
//!
//! Six columns in this order: start after the start of the trace, duration (both nanoseconds),
//! resource ordinal, kind, status, parent. The parent column holds 0 for a root, 1 for a span whose
//! parent is not among the trace's spans here, and otherwise 2 plus the zigzag-coded distance from
//! the span's row back to its parent's.

use bytes::Bytes;

use crate::error::BlockError;
use crate::packed::{Column, put_column};

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

/// Collects the columns row by row.
#[derive(Debug, Default)]
pub(crate) struct ColumnsWriter {
    starts: Vec<u64>,
    durations: Vec<u64>,
    resources: Vec<u64>,
    kinds: Vec<u64>,
    statuses: Vec<u64>,
    parents: Vec<u64>,
}

/// A row's values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnRow {
    pub(crate) start_in_trace: u64,
    pub(crate) duration: u64,
    pub(crate) resource: u32,
    pub(crate) kind: u8,
    pub(crate) status: u8,
    pub(crate) parent: Parent,
}

impl ColumnsWriter {
    pub(crate) fn push(&mut self, row: u32, values: &ColumnRow) {
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

    pub(crate) fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let Self { starts, durations, resources, kinds, statuses, parents } = self;
        for column in [starts, durations, resources, kinds, statuses, parents] {
            put_column(&mut out, column);
        }
        out
    }
}

/// The columns of a block.
#[derive(Debug, Clone)]
pub struct Columns {
    starts: Column,
    durations: Column,
    resources: Column,
    kinds: Column,
    statuses: Column,
    parents: Column,
}

impl Columns {
    /// Reads the section of a block with that many rows.
    pub(crate) fn parse(bytes: &Bytes, rows: u32) -> Result<Columns, BlockError> {
        let (starts, rest) = Column::parse(bytes, rows)?;
        let (durations, rest) = Column::parse(&rest, rows)?;
        let (resources, rest) = Column::parse(&rest, rows)?;
        let (kinds, rest) = Column::parse(&rest, rows)?;
        let (statuses, rest) = Column::parse(&rest, rows)?;
        // What later versions append is not looked at.
        let (parents, _) = Column::parse(&rest, rows)?;
        Ok(Columns { starts, durations, resources, kinds, statuses, parents })
    }

    /// Nanoseconds from the start of the row's trace to the start of its span.
    pub fn start_in_trace(&self, row: u32) -> Option<u64> {
        self.starts.get(row)
    }

    /// How long the row's span lasts, in nanoseconds.
    pub fn duration(&self, row: u32) -> Option<u64> {
        self.durations.get(row)
    }

    /// The ordinal of the row's resource.
    pub fn resource(&self, row: u32) -> Option<u32> {
        u32::try_from(self.resources.get(row)?).ok()
    }

    /// The row's span kind as OTLP numbers it; unknown kinds are 0.
    pub fn kind(&self, row: u32) -> Option<u8> {
        u8::try_from(self.kinds.get(row)?).ok()
    }

    /// The row's status code as OTLP numbers it; unknown codes are 0.
    pub fn status(&self, row: u32) -> Option<u8> {
        u8::try_from(self.statuses.get(row)?).ok()
    }

    /// Where the row's parent is. A server span that shares its id with a client span has the
    /// client span as its parent.
    pub fn parent(&self, row: u32) -> Option<Parent> {
        Some(match self.parents.get(row)? {
            0 => Parent::Root,
            1 => Parent::Elsewhere,
            coded => {
                let coded = coded - 2;
                let back = (coded >> 1).cast_signed() ^ -(coded & 1).cast_signed();
                Parent::Row(u32::try_from(i64::from(row).checked_sub(back)?).ok()?)
            }
        })
    }

    /// Calls `visit` with every row and the duration of its span.
    pub(crate) fn for_each_duration(&self, visit: impl FnMut(u32, u64)) {
        self.durations.for_each(visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let rows = [
            (Parent::Root, 0u32),
            (Parent::Row(0), 1),
            (Parent::Row(4), 2),
            (Parent::Elsewhere, 3),
            (Parent::Row(0), 4),
        ];
        let mut writer = ColumnsWriter::default();
        for (parent, row) in rows {
            let values = ColumnRow {
                start_in_trace: u64::from(row) * 10,
                duration: u64::MAX - u64::from(row),
                resource: row,
                kind: 3,
                status: 2,
                parent,
            };
            writer.push(row, &values);
        }
        let columns = Columns::parse(&Bytes::from(writer.finish()), 5).unwrap();
        for (parent, row) in rows {
            assert_eq!(columns.parent(row), Some(parent));
            assert_eq!(columns.start_in_trace(row), Some(u64::from(row) * 10));
            assert_eq!(columns.duration(row), Some(u64::MAX - u64::from(row)));
            assert_eq!(columns.resource(row), Some(row));
            assert_eq!((columns.kind(row), columns.status(row)), (Some(3), Some(2)));
        }
        assert_eq!(columns.parent(5), None);
    }
}
