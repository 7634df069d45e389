//! Writes the attribute index from terms that are interned already: each key's terms are sorted by
//! value, each term's rows are renumbered, and both go straight into the dictionary and the
//! posting lists. No document is ever built.

use clew_model::trace::{ResourceRecord, ScopeRecord};
use tantivy::postings::TermInfo;
use tantivy::termdict::TermDictionaryBuilder;

use super::PREFIX_BYTES;
use super::locator::{Located, located_hash, put_locator};
use crate::codec::narrow;
use crate::error::BlockError;
use crate::hash::hash64;
use crate::keys::{BlockKey, Rare};
use crate::packed::put_column;
use crate::page::PageEntry;
use crate::postings::PostingsWriter;
use crate::records::{Entry, Records};
use crate::term::{KeyScope, code, intrinsic};
use crate::terms::{KeyEntry, RareValues, TermStore};

/// Keys with more terms than this get a posting list of their own.
const UNITED_TERMS_MAX: u32 = 32;

/// Of a key with more terms than this, texts that lie in one page only and all numbers are rare.
const COMMON_TERMS_MAX: usize = 1024;

/// Marks a row that is not in the block.
pub(crate) const DROPPED: u32 = u32::MAX;

/// A term store and where its rows are in the block.
pub(crate) struct StoreRows<'a> {
    pub(crate) terms: &'a TermStore,
    /// The block's row for each row of the store, or [`DROPPED`]; none if they are the same.
    pub(crate) renumbered: Option<&'a [u32]>,
    /// Rows at or above do not exist.
    pub(crate) rows_max: u32,
}

impl StoreRows<'_> {
    /// The block's row for a row of the store.
    #[inline]
    fn place(&self, row: u32) -> Option<u32> {
        match self.renumbered {
            None => Some(row),
            Some(renumbered) => renumbered.get(row as usize).copied().filter(|row| *row != DROPPED),
        }
    }
}

/// The sections of an index.
pub(crate) struct IndexParts {
    pub(crate) dictionary: Vec<u8>,
    pub(crate) postings: Vec<u8>,
    pub(crate) locator: Vec<u8>,
    pub(crate) numbers: Vec<u8>,
    pub(crate) keys: Vec<BlockKey>,
}

/// A key in one of the stores.
type KeyPlace<'a> = (usize, &'a KeyEntry);

/// A term in one of the stores, with what it is sorted by.
struct TermPlace<'a> {
    code: u8,
    value: &'a [u8],
    store: usize,
    term: u32,
}

/// Writes the index of the rows that lie in `pages`.
pub(crate) fn write_index(
    stores: &[StoreRows<'_>],
    resources: &Records<ResourceRecord>,
    scopes: &Records<ScopeRecord>,
    pages: &[PageEntry],
) -> Result<IndexParts, BlockError> {
    let mut writer = IndexWriter::new(pages)?;
    for (ordinal, name) in (0..).zip(intrinsic::NAMES) {
        writer.begin(KeyScope::Intrinsic, name);
        match ordinal {
            intrinsic::RESOURCE => writer.put_records(resources.entries())?,
            intrinsic::SCOPE => writer.put_records(scopes.entries())?,
            _ => {
                let places: Vec<KeyPlace<'_>> = stores
                    .iter()
                    .enumerate()
                    .filter_map(|(at, store)| Some((at, store.terms.keys().get(ordinal as usize)?)))
                    .collect();
                writer.put_key(stores, &places)?;
            }
        }
        writer.end(true);
    }
    let mut keys: Vec<(KeyScope, &[u8], KeyPlace<'_>)> = Vec::new();
    for (at, store) in stores.iter().enumerate() {
        for key in store.terms.keys().iter().skip(intrinsic::NAMES.len()) {
            if key.first_row < store.rows_max {
                keys.push((key.scope, store.terms.key_name(key), (at, key)));
            }
        }
    }
    keys.sort_unstable_by_key(|(scope, name, (store, _))| (*scope, *name, *store));
    for same in keys.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let Some((scope, name, _)) = same.first() else { continue };
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let places: Vec<KeyPlace<'_>> = same.iter().map(|(_, _, place)| *place).collect();
        writer.begin(*scope, name);
        writer.put_key(stores, &places)?;
        writer.end(false);
    }
    writer.finish()
}

struct IndexWriter {
    dictionary: TermDictionaryBuilder<Vec<u8>>,
    postings: PostingsWriter,
    /// The lists of keys, apart because the dictionary wants the terms' lists without gaps.
    key_postings: PostingsWriter,
    keys: Vec<BlockKey>,
    /// The dictionary key at hand; its first bytes are the attribute key's ordinal.
    term: Vec<u8>,
    /// The rows of the term at hand.
    rows: Vec<u32>,
    /// The rows of all values of the key at hand, if it gets a list of its own.
    key_rows: Vec<u32>,
    /// Of the key at hand.
    key_hash: u64,
    /// The page of each row.
    page_of: Vec<u32>,
    pages: u32,
    located: Vec<Located>,
    numbers: Vec<u8>,
}

impl IndexWriter {
    fn new(pages: &[PageEntry]) -> Result<IndexWriter, BlockError> {
        let mut page_of = Vec::new();
        for (page, entry) in (0u32..).zip(pages) {
            page_of.resize(page_of.len() + entry.rows as usize, page);
        }
        let rows = narrow(page_of.len());
        Ok(IndexWriter {
            key_hash: 0,
            page_of,
            pages: narrow(pages.len()),
            located: Vec::new(),
            numbers: Vec::new(),
            dictionary: TermDictionaryBuilder::create(Vec::new())
                .map_err(BlockError::engine("starting a term dictionary"))?,
            postings: PostingsWriter::new(rows),
            key_postings: PostingsWriter::new(rows),
            keys: Vec::new(),
            term: Vec::new(),
            rows: Vec::new(),
            key_rows: Vec::new(),
        })
    }

    /// Starts a key.
    fn begin(&mut self, scope: KeyScope, name: &str) {
        self.term.clear();
        self.term.extend_from_slice(&narrow(self.keys.len()).to_be_bytes());
        self.key_rows.clear();
        let key = BlockKey::new(scope, name);
        self.key_hash = key.hash();
        self.keys.push(key);
    }

    /// Writes the terms of a key from all stores that have it.
    fn put_key(
        &mut self,
        stores: &[StoreRows<'_>],
        places: &[KeyPlace<'_>],
    ) -> Result<(), BlockError> {
        let mut terms: Vec<TermPlace<'_>> = Vec::new();
        for (at, key) in places {
            let store = stores[*at].terms;
            terms.extend(key.terms.iter().map(|&term| {
                let entry = store.term(term);
                TermPlace { code: entry.code, value: store.value(entry), store: *at, term }
            }));
            if let Some(entry) = self.keys.last_mut() {
                entry.repeated |= key.repeated;
            }
        }
        let has_rare = |values: fn(&KeyEntry) -> &RareValues| {
            places.iter().any(|(_, key)| !values(key).rows.is_empty())
        };
        let many = terms.len() > COMMON_TERMS_MAX;
        let rare_texts = many || has_rare(|key| &key.rare_texts);
        let rare_ints = many || has_rare(|key| &key.rare_ints);
        let rare_floats = many || has_rare(|key| &key.rare_floats);
        let unite =
            terms.len() > UNITED_TERMS_MAX as usize || rare_texts || rare_ints || rare_floats;
        if rare_ints {
            let rare = self.put_numbers(stores, places, code::INT, &mut terms);
            self.note(|key| key.rare_ints = rare);
        }
        if rare_floats {
            let rare = self.put_numbers(stores, places, code::FLOAT, &mut terms);
            self.note(|key| key.rare_floats = rare);
        }
        terms.sort_unstable_by(|a, b| (a.code, a.value, a.store).cmp(&(b.code, b.value, b.store)));
        let mut rare = Vec::new();
        for same in terms.chunk_by(|a, b| (a.code, a.value) == (b.code, b.value)) {
            let Some(first) = same.first() else { continue };
            let mut rows = std::mem::take(&mut self.rows);
            rows.clear();
            for place in same {
                let store = &stores[place.store];
                let of_store = store.terms.term(place.term).rows(store.rows_max);
                rows.extend(of_store.iter().filter_map(|row| store.place(*row)));
            }
            if unite {
                self.key_rows.extend_from_slice(&rows);
            }
            match self.page_of_all(&rows) {
                Some(page) if rare_texts && first.code == code::STRING => {
                    self.locate(hash64(0, first.value), page);
                    rare.append(&mut rows);
                }
                _ => self.put_term(first.code, first.value, &mut rows)?,
            }
            self.rows = rows;
        }
        self.put_rare_texts(stores, places, rare)?;
        if unite { self.put_key_rows() } else { Ok(()) }
    }

    /// Files the rare texts of a key, and the rows of all of them, of which `rows` are known.
    fn put_rare_texts(
        &mut self,
        stores: &[StoreRows<'_>],
        places: &[KeyPlace<'_>],
        mut rows: Vec<u32>,
    ) -> Result<(), BlockError> {
        for (at, key) in places {
            let store = &stores[*at];
            for (row, hash) in key.rare_texts.below(store.rows_max) {
                let Some(row) = store.place(row) else { continue };
                self.locate(hash, self.page_of[row as usize]);
                self.key_rows.push(row);
                rows.push(row);
            }
        }
        if !rows.is_empty() {
            let start = self.key_postings.position();
            let count = self.key_postings.put(&mut rows)?;
            let place = start..self.key_postings.position();
            self.note(|key| key.rare_texts = Some(Rare { count, place }));
        }
        Ok(())
    }

    /// Writes the numbers of a type as columns and takes their terms out of `terms`.
    fn put_numbers<'t>(
        &mut self,
        stores: &[StoreRows<'t>],
        places: &[KeyPlace<'_>],
        type_code: u8,
        terms: &mut Vec<TermPlace<'t>>,
    ) -> Option<Rare> {
        let mut numbers: Vec<(u32, u64)> = Vec::new();
        for (at, key) in places {
            let store = &stores[*at];
            let rare = key.rare_numbers(type_code).into_iter();
            let rare = rare.flat_map(|rare| rare.below(store.rows_max));
            numbers.extend(rare.filter_map(|(row, value)| Some((store.place(row)?, value))));
        }
        for term in terms.iter().filter(|term| term.code == type_code) {
            let Ok(value) = term.value.try_into() else { continue };
            let (value, store) = (u64::from_be_bytes(value), &stores[term.store]);
            let rows = store.terms.term(term.term).rows(store.rows_max).iter();
            let rows = rows.filter_map(|row| store.place(*row));
            numbers.extend(rows.map(|row| (row, value)));
        }
        terms.retain(|term| term.code != type_code);
        if numbers.is_empty() {
            return None;
        }
        numbers.sort_unstable();
        // A value is a set's element: a row has it once.
        numbers.dedup();
        self.key_rows.extend(numbers.iter().map(|(row, _)| *row));
        let mut before = 0;
        let distance =
            |(row, _): &(u32, u64)| u64::from(row - std::mem::replace(&mut before, *row));
        let distances: Vec<u64> = numbers.iter().map(distance).collect();
        let values: Vec<u64> = numbers.iter().map(|(_, value)| *value).collect();
        let start = self.numbers.len();
        put_column(&mut self.numbers, &distances);
        put_column(&mut self.numbers, &values);
        Some(Rare { count: narrow(numbers.len()), place: start..self.numbers.len() })
    }

    /// Writes the rows of each record under its ordinal.
    fn put_records<R>(&mut self, entries: &[Entry<R>]) -> Result<(), BlockError> {
        for (ordinal, entry) in (0u32..).zip(entries) {
            let mut rows = entry.rows(u32::MAX).to_vec();
            self.put_term(code::ORDINAL, &ordinal.to_be_bytes(), &mut rows)?;
        }
        Ok(())
    }

    fn put_term(&mut self, code: u8, value: &[u8], rows: &mut Vec<u32>) -> Result<(), BlockError> {
        if rows.is_empty() {
            return Ok(());
        }
        let start = self.postings.position();
        let doc_freq = self.postings.put(rows)?;
        self.term.truncate(PREFIX_BYTES - 1);
        self.term.push(code);
        self.term.extend_from_slice(value);
        let info = TermInfo {
            doc_freq,
            postings_range: start..self.postings.position(),
            positions_range: 0..0,
        };
        self.dictionary.insert(&self.term, &info).map_err(BlockError::engine("writing a term"))?;
        if let Some(key) = self.keys.last_mut() {
            key.terms += 1;
            key.rows = key.rows.saturating_add(doc_freq);
        }
        Ok(())
    }

    /// The page that all of the rows lie in.
    fn page_of_all(&self, rows: &[u32]) -> Option<u32> {
        let page = |row: &u32| self.page_of.get(*row as usize).copied();
        let first = page(rows.first()?)?;
        rows.iter().all(|row| page(row) == Some(first)).then_some(first)
    }

    fn locate(&mut self, value: u64, page: u32) {
        self.located.push((located_hash(self.key_hash, value), page));
    }

    fn put_key_rows(&mut self) -> Result<(), BlockError> {
        let mut rows = std::mem::take(&mut self.key_rows);
        if !rows.is_empty() {
            let start = self.key_postings.position();
            let count = self.key_postings.put(&mut rows)?;
            let postings = start..self.key_postings.position();
            self.note(|key| (key.rows, key.postings) = (count, postings));
        }
        self.key_rows = rows;
        Ok(())
    }

    fn note(&mut self, change: impl FnOnce(&mut BlockKey)) {
        if let Some(key) = self.keys.last_mut() {
            change(key);
        }
    }

    /// Ends a key; one without rows is forgotten unless it has a fixed place.
    fn end(&mut self, keep: bool) {
        self.key_rows.clear();
        if !keep && self.keys.last().is_some_and(|key| key.rows == 0) {
            self.keys.pop();
        }
    }

    fn finish(mut self) -> Result<IndexParts, BlockError> {
        let dictionary =
            self.dictionary.finish().map_err(BlockError::engine("ending a term dictionary"))?;
        let shift = self.postings.position();
        let moved = |range: &mut std::ops::Range<usize>| {
            *range = range.start + shift..range.end + shift;
        };
        for key in &mut self.keys {
            if !key.postings.is_empty() {
                moved(&mut key.postings);
            }
            if let Some(rare) = &mut key.rare_texts {
                moved(&mut rare.place);
            }
        }
        Ok(IndexParts {
            dictionary,
            postings: self.postings.finish(self.key_postings)?,
            locator: put_locator(self.located, self.pages),
            numbers: self.numbers,
            keys: self.keys,
        })
    }
}
