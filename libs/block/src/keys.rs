//! The key table of a block's index: every attribute key with what saves a scan of the dictionary.
//!
//! Raw form: number of keys (varint); per key its scope (1 byte), flags (1 byte), name (length and
//! bytes), number of rows and of distinct terms (varints), and where the posting list of the rows
//! that have it begins and how long it is (varints; length 0: there is none, unite the terms');
//! then for each of rare texts, rare integers and rare doubles, if its flag is set, how many there
//! are, and place and length (varints) of the posting list of the texts' rows, or of the columns of
//! the numbers. The intrinsic keys come first in their fixed order, the others sorted by (scope,
//! name); the position is the key's ordinal in terms.

use std::ops::Range;

use clew_model::wire::put_varint;

use crate::codec::{ByteReader, narrow, put_bytes};
use crate::error::BlockError;
use crate::hash::hash64;
use crate::term::{KeyScope, code, intrinsic};

const SECTION: &str = "keys";
const FLAG_REPEATED: u8 = 1;
const FLAG_RARE_TEXTS: u8 = 2;
const FLAG_RARE_INTS: u8 = 4;
const FLAG_RARE_FLOATS: u8 = 8;

/// Values that no term stands for.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rare {
    /// How many: of texts, how many rows have one.
    pub(crate) count: u32,
    /// Of texts, the posting list of their rows. Of numbers, two columns: the distance of each
    /// value's row from the row before, and the values.
    pub(crate) place: Range<usize>,
}

/// A key of a block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BlockKey {
    pub(crate) scope: KeyScope,
    pub(crate) name: Box<str>,
    /// Some row may have several values of which only one counts.
    pub(crate) repeated: bool,
    /// How many rows have it; may be too many by rows that were dropped as duplicates.
    pub(crate) rows: u32,
    /// How many terms it has.
    pub(crate) terms: u32,
    /// Its own posting list; empty if there is none.
    pub(crate) postings: Range<usize>,
    /// Texts that the locator finds.
    pub(crate) rare_texts: Option<Rare>,
    /// Integers in columns.
    pub(crate) rare_ints: Option<Rare>,
    /// Doubles in columns.
    pub(crate) rare_floats: Option<Rare>,
}

impl BlockKey {
    /// A key without rows.
    pub(crate) fn new(scope: KeyScope, name: &str) -> BlockKey {
        BlockKey {
            scope,
            name: name.into(),
            repeated: false,
            rows: 0,
            terms: 0,
            postings: 0..0,
            rare_texts: None,
            rare_ints: None,
            rare_floats: None,
        }
    }

    /// The rare numbers of a type.
    pub(crate) fn rare_numbers(&self, type_code: u8) -> Option<&Rare> {
        match type_code {
            code::INT => self.rare_ints.as_ref(),
            code::FLOAT => self.rare_floats.as_ref(),
            _ => None,
        }
    }

    /// Goes into the hashes under which rare texts are located.
    pub(crate) fn hash(&self) -> u64 {
        hash64(self.scope as u64, self.name.as_bytes())
    }

    fn flags(&self) -> u8 {
        let flag = |flag, set| if set { flag } else { 0 };
        flag(FLAG_REPEATED, self.repeated)
            | flag(FLAG_RARE_TEXTS, self.rare_texts.is_some())
            | flag(FLAG_RARE_INTS, self.rare_ints.is_some())
            | flag(FLAG_RARE_FLOATS, self.rare_floats.is_some())
    }
}

/// Writes the raw table.
pub(crate) fn put_keys(keys: &[BlockKey]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, keys.len() as u64);
    for key in keys {
        out.push(key.scope as u8);
        out.push(key.flags());
        put_bytes(&mut out, key.name.as_bytes());
        put_varint(&mut out, u64::from(key.rows));
        put_varint(&mut out, u64::from(key.terms));
        put_range(&mut out, &key.postings);
        for rare in [&key.rare_texts, &key.rare_ints, &key.rare_floats].into_iter().flatten() {
            put_varint(&mut out, u64::from(rare.count));
            put_range(&mut out, &rare.place);
        }
    }
    out
}

fn put_range(out: &mut Vec<u8>, range: &Range<usize>) {
    put_varint(out, range.start as u64);
    put_varint(out, range.len() as u64);
}

fn read_range(reader: &mut ByteReader<'_>) -> Result<Range<usize>, BlockError> {
    let (start, length) = (reader.varint()?, reader.varint()?);
    let place = usize::try_from(start).ok().zip(usize::try_from(length).ok());
    let range = place.and_then(|(start, length)| Some(start..start.checked_add(length)?));
    range.ok_or_else(|| reader.corrupt("a number is too large"))
}

fn read_rare(reader: &mut ByteReader<'_>) -> Result<Rare, BlockError> {
    Ok(Rare { count: reader.varint_u32()?, place: read_range(reader)? })
}

/// The keys of a block.
#[derive(Debug, Clone)]
pub(crate) struct Keys(Vec<BlockKey>);

impl Keys {
    /// Reads the raw table.
    pub(crate) fn parse(raw: &[u8]) -> Result<Keys, BlockError> {
        let mut reader = ByteReader::new(SECTION, raw);
        let count = reader.count(7)?;
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            let scope = KeyScope::from_code(reader.u8()?);
            let scope = scope.ok_or_else(|| reader.corrupt("a scope is unknown"))?;
            let flags = reader.u8()?;
            let name = reader.text()?.into();
            let (rows, terms) = (reader.varint_u32()?, reader.varint_u32()?);
            let postings = read_range(&mut reader)?;
            let mut rare = |flag| (flags & flag != 0).then(|| read_rare(&mut reader)).transpose();
            keys.push(BlockKey {
                scope,
                name,
                repeated: flags & FLAG_REPEATED != 0,
                rows,
                terms,
                postings,
                rare_texts: rare(FLAG_RARE_TEXTS)?,
                rare_ints: rare(FLAG_RARE_INTS)?,
                rare_floats: rare(FLAG_RARE_FLOATS)?,
            });
        }
        reader.finish()?;
        let (fixed, sorted) = keys
            .split_at_checked(intrinsic::NAMES.len())
            .ok_or_else(|| reader.corrupt("intrinsic keys are missing"))?;
        let fixed_right = fixed
            .iter()
            .zip(intrinsic::NAMES)
            .all(|(key, name)| key.scope == KeyScope::Intrinsic && &*key.name == name);
        if !fixed_right || !sorted.is_sorted_by(|a, b| order(a) < order(b)) {
            return Err(reader.corrupt("its keys are not in order"));
        }
        Ok(Keys(keys))
    }

    pub(crate) fn all(&self) -> &[BlockKey] {
        &self.0
    }

    pub(crate) fn get(&self, ordinal: u32) -> Option<&BlockKey> {
        self.0.get(ordinal as usize)
    }

    /// The ordinal of a key.
    pub(crate) fn find(&self, scope: KeyScope, name: &[u8]) -> Option<u32> {
        let fixed = intrinsic::NAMES.len();
        let (intrinsics, sorted) = self.0.split_at_checked(fixed)?;
        let at = if scope == KeyScope::Intrinsic {
            intrinsics.iter().position(|key| key.name.as_bytes() == name)?
        } else {
            fixed + sorted.binary_search_by(|key| order(key).cmp(&(scope, name))).ok()?
        };
        Some(narrow(at))
    }
}

fn order(key: &BlockKey) -> (KeyScope, &[u8]) {
    (key.scope, key.name.as_bytes())
}
