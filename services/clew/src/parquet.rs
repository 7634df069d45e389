//! Writes Parquet files: flat columns of texts and numbers in plain encoding, one row after the other,
//! so that a file may be larger than memory.
//!
//! The format is that of <https://parquet.apache.org/docs/file-format/>: row groups of column chunks of
//! data pages (version 1), then the metadata. Readers need nothing beyond its oldest part. The `parquet`
//! crate would bring nine more crates, and a reader, encodings and statistics that nothing here needs.

mod thrift;

use self::thrift::{Struct, structure, varint};

const MAGIC: &[u8] = b"PAR1";

/// A row group is written once it takes so much memory, in bytes.
const GROUP_BYTES: usize = 32 << 20;

/// A page is finished at so many bytes of values.
const PAGE_BYTES: usize = 1 << 20;

/// A page is finished at so many rows.
const PAGE_ROWS: i32 = 20_000;

/// Who wrote a file: readers know errors of writers by it, so it changes with this module only.
const WRITER: &str = "clew version 1";

/// How hard pages are compressed.
const ZSTD_LEVEL: i32 = 3;

/// Numbers of the format's enumerations.
mod code {
    pub(super) const INT64: i32 = 2;
    pub(super) const BYTE_ARRAY: i32 = 6;
    pub(super) const REQUIRED: i32 = 0;
    pub(super) const OPTIONAL: i32 = 1;
    pub(super) const UTF8: i32 = 0;
    pub(super) const JSON: i32 = 19;
    pub(super) const PLAIN: i32 = 0;
    pub(super) const RLE: i32 = 3;
    pub(super) const DATA_PAGE: i32 = 0;
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// UTF-8.
    Text,
    /// UTF-8 that is JSON.
    Json,
    /// 64 bits, signed.
    Number,
    /// Nanoseconds since the Unix epoch.
    Timestamp,
}

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Whether rows may have nothing in it.
    pub(crate) is_optional: bool,
}

/// What a row has in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    Text(&'a str),
    Number(i64),
    Missing,
}

/// How pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    #[cfg_attr(not(test), expect(dead_code, reason = "golden bytes must not depend on a library"))]
    Plain,
    Zstd,
}

/// Why a table cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParquetError {
    #[error("the column {0} cannot hold such a value")]
    Mismatched(&'static str),
    #[error("a page of the column {0} is too large")]
    TooLarge(&'static str),
    #[error("a page cannot be compressed: {0}")]
    Compression(#[from] std::io::Error),
}

/// Where the bytes of the file go.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]);

/// Writes one file.
pub(crate) struct ParquetWriter {
    codec: Codec,
    chunks: Vec<Chunk>,
    rows: i64,
    rows_of_group: i64,
    groups: Vec<Group>,
    /// How many bytes were written.
    length: usize,
}

/// A column of the row group under way.
struct Chunk {
    column: Column,
    /// Encoded values of the page under way.
    values: Vec<u8>,
    /// Of the page under way, how many rows in turn have a value or none.
    runs: Vec<(bool, u64)>,
    page_rows: i32,
    /// Finished pages with their headers.
    pages: Vec<u8>,
    raw_bytes: usize,
}

/// A row group as the metadata describes it.
struct Group {
    rows: i64,
    chunks: Vec<ChunkPlace>,
}

struct ChunkPlace {
    column: Column,
    offset: usize,
    raw_bytes: usize,
    bytes: usize,
}

impl ParquetWriter {
    /// Begins a file with these columns.
    pub(crate) fn new(columns: &[Column], codec: Codec, sink: Sink<'_>) -> ParquetWriter {
        sink(MAGIC);
        let chunk = |column: &Column| Chunk {
            column: *column,
            values: Vec::new(),
            runs: Vec::new(),
            page_rows: 0,
            pages: Vec::new(),
            raw_bytes: 0,
        };
        ParquetWriter {
            codec,
            chunks: columns.iter().map(chunk).collect(),
            rows: 0,
            rows_of_group: 0,
            groups: Vec::new(),
            length: MAGIC.len(),
        }
    }

    /// Adds a row: a cell for each column.
    pub(crate) fn row(&mut self, cells: &[Cell<'_>], sink: Sink<'_>) -> Result<(), ParquetError> {
        for (at, chunk) in self.chunks.iter_mut().enumerate() {
            chunk.push(cells.get(at).copied().unwrap_or(Cell::Missing))?;
            if chunk.values.len() >= PAGE_BYTES || chunk.page_rows >= PAGE_ROWS {
                chunk.finish_page(self.codec)?;
            }
        }
        self.rows += 1;
        self.rows_of_group += 1;
        let held = self.chunks.iter().map(|chunk| chunk.pages.len() + chunk.values.len());
        if held.sum::<usize>() >= GROUP_BYTES {
            self.finish_group(sink)?;
        }
        Ok(())
    }

    fn finish_group(&mut self, sink: Sink<'_>) -> Result<(), ParquetError> {
        if self.rows_of_group == 0 {
            return Ok(());
        }
        let mut places = Vec::with_capacity(self.chunks.len());
        for chunk in &mut self.chunks {
            chunk.finish_page(self.codec)?;
            let (pages, raw_bytes) = (std::mem::take(&mut chunk.pages), chunk.raw_bytes);
            chunk.raw_bytes = 0;
            let (offset, bytes) = (self.length, pages.len());
            places.push(ChunkPlace { column: chunk.column, offset, raw_bytes, bytes });
            sink(&pages);
            self.length += bytes;
        }
        self.groups.push(Group { rows: std::mem::take(&mut self.rows_of_group), chunks: places });
        Ok(())
    }

    /// Ends the file.
    pub(crate) fn finish(mut self, sink: Sink<'_>) -> Result<(), ParquetError> {
        self.finish_group(sink)?;
        let metadata = self.metadata();
        sink(&metadata);
        let length = u32::try_from(metadata.len());
        sink(&length.map_err(|_| ParquetError::TooLarge("metadata"))?.to_le_bytes());
        sink(MAGIC);
        Ok(())
    }

    /// `FileMetaData`.
    fn metadata(&self) -> Vec<u8> {
        let codec = self.codec.number();
        let columns: Vec<Column> = self.chunks.iter().map(|chunk| chunk.column).collect();
        // The root of the schema, then what is below it.
        let elements: Vec<Option<Column>> =
            std::iter::once(None).chain(columns.iter().copied().map(Some)).collect();
        structure(|file| {
            file.i32(1, 1);
            file.structures(2, &elements, |element, s| match element {
                None => {
                    s.text(4, "spans");
                    s.i32(5, i32::try_from(columns.len()).unwrap_or(i32::MAX));
                }
                Some(column) => column.schema(s),
            });
            file.i64(3, self.rows);
            file.structures(4, &self.groups, |group, s| group.write(codec, s));
            file.text(6, WRITER);
        })
    }
}

impl Column {
    /// `SchemaElement`.
    fn schema(&self, s: &mut Struct<'_>) {
        s.i32(1, self.physical());
        s.i32(3, if self.is_optional { code::OPTIONAL } else { code::REQUIRED });
        s.text(4, self.name);
        match self.kind {
            Kind::Text => {
                s.i32(6, code::UTF8);
                s.structure(10, |logical| logical.structure(1, |_| {}));
            }
            Kind::Json => {
                s.i32(6, code::JSON);
                s.structure(10, |logical| logical.structure(12, |_| {}));
            }
            Kind::Number => {}
            Kind::Timestamp => s.structure(10, |logical| {
                logical.structure(8, |timestamp| {
                    // Not adjusted to UTC by the reader: then nanoseconds stay, and it is UTC already.
                    timestamp.bool(1, false);
                    timestamp.structure(2, |unit| unit.structure(3, |_| {}));
                });
            }),
        }
    }

    fn physical(&self) -> i32 {
        match self.kind {
            Kind::Text | Kind::Json => code::BYTE_ARRAY,
            Kind::Number | Kind::Timestamp => code::INT64,
        }
    }
}

impl Group {
    /// `RowGroup`.
    fn write(&self, codec: i32, s: &mut Struct<'_>) {
        let raw: usize = self.chunks.iter().map(|chunk| chunk.raw_bytes).sum();
        s.structures(1, &self.chunks, |chunk, s| {
            s.i64(2, int(chunk.offset));
            s.structure(3, |s| {
                s.i32(1, chunk.column.physical());
                s.numbers(2, &[code::PLAIN, code::RLE]);
                s.texts(3, &[chunk.column.name]);
                s.i32(4, codec);
                s.i64(5, self.rows);
                s.i64(6, int(chunk.raw_bytes));
                s.i64(7, int(chunk.bytes));
                s.i64(9, int(chunk.offset));
            });
        });
        s.i64(2, int(raw));
        s.i64(3, self.rows);
    }
}

impl Chunk {
    fn push(&mut self, cell: Cell<'_>) -> Result<(), ParquetError> {
        match (cell, self.column.kind) {
            (Cell::Text(text), Kind::Text | Kind::Json) => {
                let length = u32::try_from(text.len());
                let length = length.map_err(|_| ParquetError::TooLarge(self.column.name))?;
                self.values.extend(length.to_le_bytes());
                self.values.extend(text.as_bytes());
            }
            (Cell::Number(number), Kind::Number | Kind::Timestamp) => {
                self.values.extend(number.to_le_bytes());
            }
            (Cell::Missing, _) if self.column.is_optional => {}
            _ => return Err(ParquetError::Mismatched(self.column.name)),
        }
        let is_there = cell != Cell::Missing;
        match self.runs.last_mut() {
            Some((same, count)) if *same == is_there => *count += 1,
            _ => self.runs.push((is_there, 1)),
        }
        self.page_rows += 1;
        Ok(())
    }

    fn finish_page(&mut self, codec: Codec) -> Result<(), ParquetError> {
        if self.page_rows == 0 {
            return Ok(());
        }
        let mut body = Vec::with_capacity(self.values.len() + 16);
        if self.column.is_optional {
            let mut levels = Vec::new();
            for (is_there, count) in &self.runs {
                varint(&mut levels, count << 1);
                levels.push(u8::from(*is_there));
            }
            let length = u32::try_from(levels.len());
            let length = length.map_err(|_| ParquetError::TooLarge(self.column.name))?;
            body.extend(length.to_le_bytes());
            body.append(&mut levels);
        }
        body.append(&mut self.values);
        self.runs.clear();
        let packed = codec.pack(&body)?;
        let size = |bytes: &[u8]| {
            i32::try_from(bytes.len()).map_err(|_| ParquetError::TooLarge(self.column.name))
        };
        let (raw, compressed) = (size(&body)?, size(&packed)?);
        let rows = std::mem::take(&mut self.page_rows);
        // `PageHeader`.
        let header = structure(|s| {
            s.i32(1, code::DATA_PAGE);
            s.i32(2, raw);
            s.i32(3, compressed);
            s.structure(5, |s| {
                s.i32(1, rows);
                s.i32(2, code::PLAIN);
                s.i32(3, code::RLE);
                s.i32(4, code::RLE);
            });
        });
        self.raw_bytes += header.len() + body.len();
        self.pages.extend(header);
        self.pages.extend(packed);
        Ok(())
    }
}

impl Codec {
    const fn number(self) -> i32 {
        match self {
            Codec::Plain => 0,
            Codec::Zstd => 6,
        }
    }

    fn pack(self, raw: &[u8]) -> Result<Vec<u8>, std::io::Error> {
        match self {
            Codec::Plain => Ok(raw.to_vec()),
            Codec::Zstd => zstd::bulk::compress(raw, ZSTD_LEVEL),
        }
    }
}

fn int(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column { name: "name", kind: Kind::Text, is_optional: false },
        Column { name: "parent", kind: Kind::Text, is_optional: true },
        Column { name: "start", kind: Kind::Timestamp, is_optional: false },
    ];

    fn file(rows: &[[Cell<'_>; 3]], codec: Codec) -> Vec<u8> {
        let mut out = Vec::new();
        let mut sink = |bytes: &[u8]| out.extend_from_slice(bytes);
        let mut writer = ParquetWriter::new(&COLUMNS, codec, &mut sink);
        for row in rows {
            writer.row(row, &mut sink).unwrap();
        }
        writer.finish(&mut sink).unwrap();
        out
    }

    /// DuckDB read the rows of the test back from it.
    const GOLDEN: &str = concat!(
        "504152311500152415242c1506150015061506000003000000676574030000007075740000000015",
        "00153015302c15061500150615060000040000000200040104000000303066660400000030313030",
        "1500153015302c1506150015061506000001002a36fe9c9717ffffffffffffffff00000000000000",
        "001502194c48057370616e73150600150c250018046e616d6525004c1c000000150c250218067061",
        "72656e7425004c1c00000015042500180573746172746c8c121c3c00000000001606191c193c2608",
        "1c150c192500061918046e616d65150016061646164626080000264e1c150c192500061918067061",
        "72656e741500160616521652264e000026a0011c1504192500061918057374617274150016061652",
        "165226a001000016ea01160600280e636c65772076657273696f6e203100bd00000050415231",
    );

    #[test]
    fn a_file_by_example() {
        use Cell::{Missing, Number, Text};
        let rows = [
            [Text("get"), Missing, Number(1_700_000_000_000_000_001)],
            [Text("put"), Text("00ff"), Number(-1)],
            [Text(""), Text("0100"), Number(0)],
        ];
        let written = file(&rows, Codec::Plain);
        let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    #[test]
    fn many_rows_make_pages_and_groups() {
        let text = "x".repeat(4_000);
        let row = [Cell::Text(&text), Cell::Missing, Cell::Number(7)];
        let written = file(&vec![row; 20_000], Codec::Plain);
        // 80 MB of texts: three groups, each with some thirty pages.
        assert!(written.len() > 80_000_000 && written.len() < 81_000_000, "{}", written.len());
        assert!(file(&vec![row; 20_000], Codec::Zstd).len() < 1_000_000);
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        let mut sink = |_: &[u8]| {};
        let mut writer = ParquetWriter::new(&COLUMNS, Codec::Zstd, &mut sink);
        for row in [
            [Cell::Number(1), Cell::Missing, Cell::Number(1)],
            [Cell::Missing, Cell::Missing, Cell::Number(1)],
            [Cell::Text(""), Cell::Missing, Cell::Text("")],
        ] {
            assert!(matches!(writer.row(&row, &mut sink), Err(ParquetError::Mismatched(_))));
        }
    }
}
