//! The key table of a block's index: every attribute key with what saves a scan of the dictionary.
//!
//! Raw form: number of keys (varint); per key its scope (1 byte), flags (1 byte), name (length and
//! bytes), number of rows and of distinct terms (varints), and where the posting list of the rows
//! that have it begins and how long it is (varints; length 0: there is none, unite the terms').
//! The intrinsic keys come first in their fixed order, the others sorted by (scope, name); the
//! position is the key's ordinal in terms.

use std::ops::Range;

use clew_model::wire::put_varint;

use crate::codec::{ByteReader, narrow, put_bytes};
use crate::error::BlockError;
use crate::term::{KeyScope, intrinsic};

const SECTION: &str = "keys";
const FLAG_REPEATED: u8 = 1;

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
}

/// Writes the raw table.
pub(crate) fn put_keys(keys: &[BlockKey]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, keys.len() as u64);
    for key in keys {
        out.push(key.scope as u8);
        out.push(if key.repeated { FLAG_REPEATED } else { 0 });
        put_bytes(&mut out, key.name.as_bytes());
        put_varint(&mut out, u64::from(key.rows));
        put_varint(&mut out, u64::from(key.terms));
        put_varint(&mut out, key.postings.start as u64);
        put_varint(&mut out, key.postings.len() as u64);
    }
    out
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
            let (start, length) = (reader.varint()?, reader.varint()?);
            let place = usize::try_from(start).ok().zip(usize::try_from(length).ok());
            let postings =
                place.and_then(|(start, length)| Some(start..start.checked_add(length)?));
            let postings = postings.ok_or_else(|| reader.corrupt("a number is too large"))?;
            let repeated = flags & FLAG_REPEATED != 0;
            keys.push(BlockKey { scope, name, repeated, rows, terms, postings });
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
