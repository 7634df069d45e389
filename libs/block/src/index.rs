//! The attribute index of a block: a dictionary of terms in tantivy's sorted-string-table form,
//! and a posting list for each term. The dictionary's bytes are shared, not copied.
//!
//! A dictionary key is the ordinal of the attribute key (4 bytes, big-endian), the type code and
//! the value bytes, so the terms of a key, of a type and of a range of values each lie together.

mod locator;
mod search;
mod write;

use std::io;
use std::ops::{Bound, ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use tantivy::HasLen;
use tantivy::directory::{FileHandle, FileSlice, OwnedBytes};
use tantivy::termdict::TermDictionary;

use self::locator::{Locator, located_hash};
pub use self::search::BlockSearch;
pub(crate) use self::search::SearchParts;
pub(crate) use self::write::{DROPPED, IndexParts, StoreRows, write_index};
use crate::error::BlockError;
use crate::hash::hash64;
use crate::keys::{BlockKey, Keys};
use crate::packed::Column;
use crate::postings::Postings;
use crate::probe::{Probe, Values};
use crate::rows::RowSet;
use crate::source::{Place, TermRef, TermVisitor};
use crate::term::code;

const DICTIONARY: &str = "term dictionary";
const NUMBERS: &str = "numbers";

/// The bytes in front of a value in a dictionary key.
const PREFIX_BYTES: usize = 5;

/// Dictionary and posting lists of a block, opened without copying.
#[derive(Clone)]
pub(crate) struct AttributeIndex {
    keys: Arc<Keys>,
    dictionary: TermDictionary,
    postings: Postings,
    locator: Arc<Locator>,
    numbers: Bytes,
    rows: u32,
}

impl std::fmt::Debug for AttributeIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttributeIndex").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// The bytes of an index, verified.
pub(crate) struct IndexSections {
    pub(crate) dictionary: Bytes,
    pub(crate) postings: Bytes,
    pub(crate) locator: Bytes,
    pub(crate) numbers: Bytes,
}

/// Lends bytes to the dictionary: what it reads, a block of terms at a time, is copied.
#[derive(Debug)]
struct Shared(Bytes);

impl HasLen for Shared {
    fn len(&self) -> usize {
        self.0.len()
    }
}

impl FileHandle for Shared {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        match self.0.get(range) {
            Some(bytes) => Ok(OwnedBytes::new(bytes.to_vec())),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl AttributeIndex {
    /// Opens the index of a block with that many rows. The bytes have been verified.
    pub(crate) fn open(
        keys: Arc<Keys>,
        sections: IndexSections,
        rows: u32,
    ) -> Result<AttributeIndex, BlockError> {
        check_dictionary_frame(&sections.dictionary)?;
        let handle: Arc<dyn FileHandle> = Arc::new(Shared(sections.dictionary));
        let dictionary = TermDictionary::open(FileSlice::new(handle))
            .map_err(|_| BlockError::corrupt(DICTIONARY, "it does not open"))?;
        Ok(AttributeIndex {
            keys,
            dictionary,
            postings: Postings::parse(&sections.postings)?,
            locator: Arc::new(Locator::parse(&sections.locator)?),
            numbers: sections.numbers,
            rows,
        })
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// About how many bytes of memory the index takes once everything was unpacked.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.postings.raw_length() + self.locator.memory_bytes() + self.numbers.len()
    }

    pub(crate) const fn rows(&self) -> u32 {
        self.rows
    }

    /// Visits the terms of a key in a probe's range, in the order of their values.
    pub(crate) fn visit_terms(
        &self,
        key: u32,
        probe: Option<&Probe>,
        visit: &mut TermVisitor<'_>,
    ) -> Result<(), BlockError> {
        let (low, high) = match probe {
            None => (Bound::Included(prefix(key, None)), after(prefix(key, None))),
            Some(Probe { code, values: Values::One(value), .. }) => {
                let mut term = prefix(key, Some(*code));
                term.extend_from_slice(value);
                if let Some(info) = self.dictionary.get(&term).map_err(damaged)? {
                    let place = Place::Postings(info.postings_range, info.doc_freq);
                    let _ = visit(&TermRef { code: *code, value, place })?;
                }
                return Ok(());
            }
            Some(Probe { code, values: Values::Between(low, high), .. }) => {
                let begin = prefix(key, Some(*code));
                (
                    with(&begin, low, &|| Bound::Included(begin.clone())),
                    with(&begin, high, &|| after(begin.clone())),
                )
            }
        };
        self.stream(low, high, visit)
    }

    fn stream(
        &self,
        low: Bound<Vec<u8>>,
        high: Bound<Vec<u8>>,
        visit: &mut TermVisitor<'_>,
    ) -> Result<(), BlockError> {
        let range = self.dictionary.range();
        let range = match &low {
            Bound::Included(low) => range.ge(low),
            Bound::Excluded(low) => range.gt(low),
            Bound::Unbounded => range,
        };
        let range = match &high {
            Bound::Included(high) => range.le(high),
            Bound::Excluded(high) => range.lt(high),
            Bound::Unbounded => range,
        };
        let mut stream = range.into_stream().map_err(damaged)?;
        while stream.advance() {
            let Some((prefix, value)) = stream.key().split_at_checked(PREFIX_BYTES) else {
                return Err(BlockError::corrupt(DICTIONARY, "a term is too short"));
            };
            let info = stream.value();
            let place = Place::Postings(info.postings_range.clone(), info.doc_freq);
            let code = prefix.last().copied().unwrap_or(code::PRESENT);
            if visit(&TermRef { code, value, place })?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Adds the rows of a posting list.
    pub(crate) fn add_postings(
        &self,
        place: &Range<usize>,
        count: u32,
        rows: &mut RowSet,
    ) -> Result<(), BlockError> {
        self.postings.add(place, count, self.rows, rows)
    }

    /// The pages that may have a rare text under a key.
    pub(crate) fn pages_of_text(&self, key: u32, text: &[u8]) -> Vec<u32> {
        match self.keys.get(key) {
            Some(key) if key.rare_texts.is_some() => {
                self.locator.pages_of(located_hash(key.hash(), hash64(0, text)))
            }
            _ => Vec::new(),
        }
    }

    /// The rows that have rare texts under a key.
    pub(crate) fn rare_text_rows(&self, key: u32) -> Result<RowSet, BlockError> {
        let mut rows = RowSet::new();
        if let Some(rare) = self.keys.get(key).and_then(|key| key.rare_texts.as_ref()) {
            self.add_postings(&rare.place, rare.count, &mut rows)?;
        }
        Ok(rows)
    }

    /// Visits the rare numbers of a type with their rows, which ascend.
    pub(crate) fn visit_rare_numbers(
        &self,
        key: u32,
        type_code: u8,
        visit: &mut dyn FnMut(u32, u64),
    ) -> Result<(), BlockError> {
        let rare = self.keys.get(key).and_then(|key: &BlockKey| key.rare_numbers(type_code));
        let Some(rare) = rare else { return Ok(()) };
        let outside = || BlockError::corrupt(NUMBERS, "a column lies outside");
        let place = rare.place.clone();
        let bytes = (place.end <= self.numbers.len()).then(|| self.numbers.slice(place));
        let (distances, rest) = Column::parse(&bytes.ok_or_else(outside)?, rare.count)?;
        let (values, _) = Column::parse(&rest, rare.count)?;
        let mut rows = Vec::with_capacity(distances.len());
        let mut row = 0u64;
        distances.for_each(|_, distance| {
            row = row.saturating_add(distance);
            rows.push(u32::try_from(row).unwrap_or(u32::MAX));
        });
        if rows.last().is_some_and(|row| *row >= self.rows) {
            return Err(outside());
        }
        values.for_each(|at, value| {
            if let Some(row) = rows.get(at as usize) {
                visit(*row, value);
            }
        });
        Ok(())
    }

    /// The rows that have a key.
    pub(crate) fn key_rows(&self, key: u32) -> Result<RowSet, BlockError> {
        let Some(entry) = self.keys.get(key) else { return Ok(RowSet::new()) };
        let mut rows = RowSet::new();
        if entry.postings.is_empty() {
            self.visit_terms(key, None, &mut |term| {
                if let Place::Postings(place, count) = &term.place {
                    self.add_postings(place, *count, &mut rows)?;
                }
                Ok(ControlFlow::Continue(()))
            })?;
        } else {
            self.add_postings(&entry.postings, entry.rows, &mut rows)?;
        }
        Ok(rows)
    }
}

fn damaged(_: io::Error) -> BlockError {
    BlockError::corrupt(DICTIONARY, "it cannot be read")
}

/// The beginning of the dictionary keys of an attribute key, or of one type of its terms.
fn prefix(key: u32, code: Option<u8>) -> Vec<u8> {
    let mut prefix = key.to_be_bytes().to_vec();
    prefix.extend(code);
    prefix
}

/// The bound in front of everything that does not begin with `prefix` but follows it.
fn after(mut prefix: Vec<u8>) -> Bound<Vec<u8>> {
    while let Some(last) = prefix.pop() {
        if let Some(next) = last.checked_add(1) {
            prefix.push(next);
            return Bound::Excluded(prefix);
        }
    }
    Bound::Unbounded
}

fn with(
    prefix: &[u8],
    bound: &Bound<Vec<u8>>,
    open: &dyn Fn() -> Bound<Vec<u8>>,
) -> Bound<Vec<u8>> {
    let join = |value: &Vec<u8>| [prefix, value].concat();
    match bound {
        Bound::Unbounded => open(),
        Bound::Included(value) => Bound::Included(join(value)),
        Bound::Excluded(value) => Bound::Excluded(join(value)),
    }
}

/// Checks the frame that the engine trusts: it ends in the length of the block index, the offset
/// of the index, the number of terms, the version and the type.
fn check_dictionary_frame(bytes: &[u8]) -> Result<(), BlockError> {
    const FRAME_BYTES: usize = 8 + 8 + 8 + 4 + 4;
    let corrupt = |reason| BlockError::corrupt(DICTIONARY, reason);
    let Some(body) = bytes.len().checked_sub(FRAME_BYTES) else {
        return Err(corrupt("it is too short"));
    };
    let number = |at: usize| -> u64 {
        let field = bytes.get(body + at..).and_then(|field| field.first_chunk::<8>());
        field.map_or(u64::MAX, |field| u64::from_le_bytes(*field))
    };
    let (index_length, index_offset) = (number(0), number(8));
    if index_offset > body as u64 || index_length > body as u64 - index_offset {
        return Err(corrupt("its index lies outside"));
    }
    Ok(())
}
