//! The footer: what a block is, and where its sections are. It is found from the block's end, so
//! a reader needs to know nothing but the bytes.
//!
//! The last 24 bytes are the trailer: footer length (4 bytes), format version (2), zero (2),
//! CRC-32C of the footer and of the trailer's first 8 bytes (4), length of the tail (4), magic (8).
//! The tail is what a reader wants at once: all sections but pages, index, columns and traces,
//! and the footer. Numbers are little-endian.
//!
//! Version rules: a reader refuses a version above its own. What a new release can add without a
//! new version: section kinds (unknown ones are left alone) and fields at the end of the footer.

use std::ops::Range;

use clew_model::TenantId;
use clew_model::wire::put_varint;

use crate::codec::{ByteReader, narrow, put_bytes};
use crate::error::BlockError;
use crate::heritage::Heritage;

/// The format version this release writes, and the only one it reads: version 1 was never released.
pub const FORMAT_VERSION: u16 = 2;

/// The length of the trailer in bytes.
pub const TRAILER_BYTES: usize = 24;

/// The longest footer; a longer one is taken for damage.
const FOOTER_BYTES_MAX: usize = 16 << 20;

const SECTION: &str = "footer";
const MAGIC: &[u8; 8] = b"ClewBlk1";

/// What a section is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SectionKind {
    /// The trace pages, each with a checksum of its own in the directory.
    Pages = 1,
    /// Which page holds what.
    PageDirectory = 2,
    /// One entry per trace.
    Traces = 3,
    /// The distinct resources.
    Resources = 4,
    /// The distinct instrumentation scopes.
    Scopes = 5,
    /// The trace-id filter.
    Filter = 6,
    /// The ids of traces whose other spans may lie elsewhere.
    SplitIds = 7,
    /// The attribute keys.
    Keys = 8,
    /// The term dictionary.
    Dictionary = 9,
    /// The posting lists.
    Postings = 10,
    /// Ids, times and other numbers of every span, a chunk per page, each with a checksum of its
    /// own in the directory.
    Columns = 11,
    /// Which fields spans have, and in which order.
    Shapes = 12,
    /// Where values lie that the dictionary does not have.
    Locator = 13,
    /// Columns of numbers that the dictionary does not have.
    Numbers = 14,
}

impl SectionKind {
    /// Every kind that this release knows.
    pub const ALL: [SectionKind; 14] = [
        SectionKind::Pages,
        SectionKind::PageDirectory,
        SectionKind::Traces,
        SectionKind::Resources,
        SectionKind::Scopes,
        SectionKind::Filter,
        SectionKind::SplitIds,
        SectionKind::Keys,
        SectionKind::Dictionary,
        SectionKind::Postings,
        SectionKind::Columns,
        SectionKind::Shapes,
        SectionKind::Locator,
        SectionKind::Numbers,
    ];

    /// The name of the section that a footer lists as `kind`, if this release knows it.
    pub fn name_of(kind: u8) -> Option<&'static str> {
        SectionKind::ALL.iter().find(|known| **known as u8 == kind).map(|known| known.as_str())
    }

    /// The name used in errors and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            SectionKind::Pages => "pages",
            SectionKind::PageDirectory => "page directory",
            SectionKind::Traces => "trace table",
            SectionKind::Resources => "resources",
            SectionKind::Scopes => "scopes",
            SectionKind::Filter => "filter",
            SectionKind::SplitIds => "split ids",
            SectionKind::Keys => "keys",
            SectionKind::Dictionary => "term dictionary",
            SectionKind::Postings => "postings",
            SectionKind::Columns => "columns",
            SectionKind::Shapes => "shapes",
            SectionKind::Locator => "locator",
            SectionKind::Numbers => "numbers",
        }
    }
}

/// How a section is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// Where a section is and how to verify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The [`SectionKind`] as a number; may be one this release does not know.
    pub kind: u8,
    /// How it is stored.
    pub codec: Codec,
    /// Its bytes, counted from the beginning of the block.
    pub bytes: Range<u64>,
    /// Its length after decompression.
    pub raw_length: u64,
    /// The CRC-32C of its stored bytes. Zero for pages and columns, which are verified page by
    /// page.
    pub crc32c: u32,
}

/// Which part of which shard log a block was made from. The format gives these no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The shard.
    pub shard: u64,
    /// The incarnation of its log.
    pub incarnation: u64,
    /// The first log index.
    pub from: u64,
    /// The last log index.
    pub through: u64,
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The format version.
    pub version: u16,
    /// Whose block it is.
    pub tenant: TenantId,
    /// Where its spans came from.
    pub origin: Origin,
    /// Keys of the objects it replaces.
    pub lineage: Vec<String>,
    /// How many spans it holds.
    pub spans: u64,
    /// How many traces it holds.
    pub traces: u64,
    /// How many of them may have spans elsewhere.
    pub split: u64,
    /// The earliest start of a span, nanoseconds since the epoch.
    pub min_start: u64,
    /// The latest end of a span.
    pub max_end: u64,
    /// The sections in the order of their bytes.
    pub sections: Vec<Section>,
    /// What a catalog wants to know that has to be made anew.
    pub heritage: Heritage,
    /// How many bytes at the block's end hold everything that is read when it is opened.
    pub tail_length: u32,
    /// Where the footer begins, which is the length of all sections.
    pub footer_start: u64,
    /// The length of footer and trailer in bytes; not stored, as the trailer tells it.
    pub footer_length: u32,
}

impl Footer {
    /// Footer and trailer as bytes, to follow the last section.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, self.tenant.as_str().as_bytes());
        let Origin { shard, incarnation, from, through } = self.origin;
        for number in [shard, incarnation, from, through] {
            put_varint(&mut out, number);
        }
        put_varint(&mut out, self.lineage.len() as u64);
        for key in &self.lineage {
            put_bytes(&mut out, key.as_bytes());
        }
        for number in [self.spans, self.traces, self.split, self.min_start, self.max_end] {
            put_varint(&mut out, number);
        }
        put_varint(&mut out, self.footer_start);
        put_varint(&mut out, self.sections.len() as u64);
        for section in &self.sections {
            out.push(section.kind);
            out.push(section.codec as u8);
            put_varint(&mut out, section.bytes.start);
            put_varint(&mut out, section.bytes.end - section.bytes.start);
            put_varint(&mut out, section.raw_length);
            out.extend_from_slice(&section.crc32c.to_le_bytes());
        }
        self.heritage.put(&mut out);
        let footer_length = narrow(out.len());
        let tail = self.footer_start - self.tail_start() + out.len() as u64 + TRAILER_BYTES as u64;
        out.extend_from_slice(&footer_length.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        let tail = u32::try_from(tail).unwrap_or(u32::MAX);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &tail.to_le_bytes());
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&tail.to_le_bytes());
        out.extend_from_slice(MAGIC);
        out
    }

    /// Where the sections begin that are read when a block is opened.
    fn tail_start(&self) -> u64 {
        self.sections
            .iter()
            .filter(|section| TAIL_SECTIONS.iter().any(|kind| *kind as u8 == section.kind))
            .map(|section| section.bytes.start)
            .min()
            .unwrap_or(self.footer_start)
    }

    /// Reads the footer of the block that ends with `tail`.
    ///
    /// # Errors
    /// [`BlockError::TailTooShort`] with what is needed, [`BlockError::Corrupt`], or
    /// [`BlockError::UnsupportedVersion`].
    pub fn parse(tail: &[u8]) -> Result<Footer, BlockError> {
        let Some((before, trailer)) = tail.split_last_chunk::<TRAILER_BYTES>() else {
            return Err(BlockError::TailTooShort { needed: TRAILER_BYTES as u64 });
        };
        let mut reader = ByteReader::new(SECTION, trailer);
        let length = reader.u32()? as usize;
        let (version, _zero) = (reader.u16()?, reader.u16()?);
        let crc = reader.u32()?;
        let tail_length = reader.u32()?;
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(reader.corrupt("its end is not that of a block"));
        }
        if length > FOOTER_BYTES_MAX {
            return Err(reader.corrupt("its length is out of bounds"));
        }
        let Some(start) = before.len().checked_sub(length) else {
            let needed = (length + TRAILER_BYTES) as u64;
            return Err(BlockError::TailTooShort { needed });
        };
        let checked = &tail[start..before.len() + 8];
        if crc32c::crc32c_append(crc32c::crc32c(checked), &tail_length.to_le_bytes()) != crc {
            return Err(reader.corrupt("checksum mismatch"));
        }
        if version != FORMAT_VERSION {
            return Err(BlockError::UnsupportedVersion { version });
        }
        let mut footer = Footer::read(&before[start..], version, tail_length)?;
        footer.footer_length = narrow(length + TRAILER_BYTES);
        if u64::from(tail_length) > footer.block_length()
            || (tail_length as usize) < length + TRAILER_BYTES
        {
            return Err(reader.corrupt("its tail is out of bounds"));
        }
        Ok(footer)
    }

    fn read(bytes: &[u8], version: u16, tail_length: u32) -> Result<Footer, BlockError> {
        let mut reader = ByteReader::new(SECTION, bytes);
        let tenant = TenantId::parse(reader.text()?)
            .map_err(|_| BlockError::corrupt(SECTION, "its tenant is impossible"))?;
        let origin = Origin {
            shard: reader.varint()?,
            incarnation: reader.varint()?,
            from: reader.varint()?,
            through: reader.varint()?,
        };
        let lineage = (0..reader.count(1)?)
            .map(|_| reader.text().map(str::to_owned))
            .collect::<Result<Vec<_>, _>>()?;
        let (spans, traces, split) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let (min_start, max_end) = (reader.varint()?, reader.varint()?);
        let footer_start = reader.varint()?;
        let count = reader.count(9)?;
        let mut sections: Vec<Section> = Vec::with_capacity(count);
        for _ in 0..count {
            let section = read_section(&mut reader)?;
            let begin = sections.last().map_or(0, |before| before.bytes.end);
            if section.bytes.start < begin || section.bytes.end > footer_start {
                return Err(reader.corrupt("a section lies outside the block"));
            }
            if sections.iter().any(|other| other.kind == section.kind) {
                return Err(reader.corrupt("a section is there twice"));
            }
            sections.push(section);
        }
        let heritage = Heritage::read(&mut reader)?;
        Ok(Footer {
            version,
            tenant,
            origin,
            lineage,
            spans,
            traces,
            split,
            min_start,
            max_end,
            sections,
            heritage,
            tail_length,
            footer_start,
            footer_length: 0,
        })
    }

    /// The length of the whole block in bytes.
    pub fn block_length(&self) -> u64 {
        self.footer_start.saturating_add(u64::from(self.footer_length))
    }

    /// Where a section is.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when the block lacks it.
    pub fn section(&self, kind: SectionKind) -> Result<&Section, BlockError> {
        self.sections
            .iter()
            .find(|section| section.kind == kind as u8)
            .ok_or_else(|| BlockError::corrupt(kind.as_str(), "it is missing"))
    }

    /// The bytes of a section, counted from the beginning of the block.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when the block lacks it.
    pub fn section_range(&self, kind: SectionKind) -> Result<Range<u64>, BlockError> {
        Ok(self.section(kind)?.bytes.clone())
    }
}

/// The sections read when a block is opened.
const TAIL_SECTIONS: [SectionKind; 6] = [
    SectionKind::PageDirectory,
    SectionKind::Resources,
    SectionKind::Scopes,
    SectionKind::Keys,
    SectionKind::Filter,
    SectionKind::SplitIds,
];

fn read_section(reader: &mut ByteReader<'_>) -> Result<Section, BlockError> {
    let kind = reader.u8()?;
    let codec = match reader.u8()? {
        0 => Codec::Raw,
        1 => Codec::Zstd,
        _ => return Err(reader.corrupt("a codec is unknown")),
    };
    let start = reader.varint()?;
    let end = start.checked_add(reader.varint()?);
    let end = end.ok_or_else(|| reader.corrupt("a section lies outside the block"))?;
    let raw_length = reader.varint()?;
    let crc32c = reader.u32()?;
    Ok(Section { kind, codec, bytes: start..end, raw_length, crc32c })
}
