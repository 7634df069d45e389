//! Writes the attribute index from terms that are interned already: each key's terms are sorted by
//! value, each term's rows are renumbered, and both go straight into the dictionary and the
//! posting lists. No document is ever built.

use clew_model::trace::{ResourceRecord, ScopeRecord};
use tantivy::postings::TermInfo;
use tantivy::termdict::TermDictionaryBuilder;

use super::PREFIX_BYTES;
use crate::codec::narrow;
use crate::error::BlockError;
use crate::keys::BlockKey;
use crate::postings::PostingsWriter;
use crate::records::{Entry, Records};
use crate::term::{KeyScope, code, intrinsic};
use crate::terms::{KeyEntry, TermStore};

/// Keys with more terms than this get a posting list of their own.
const UNITED_TERMS_MAX: u32 = 32;

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
    #[inline]
    fn push(&self, row: u32, rows: &mut Vec<u32>) {
        match self.renumbered {
            None => rows.push(row),
            Some(renumbered) => {
                if let Some(&row) = renumbered.get(row as usize)
                    && row != DROPPED
                {
                    rows.push(row);
                }
            }
        }
    }
}

/// The sections of an index.
pub(crate) struct IndexParts {
    pub(crate) dictionary: Vec<u8>,
    pub(crate) postings: Vec<u8>,
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

/// Writes the index of `rows` rows.
pub(crate) fn write_index(
    stores: &[StoreRows<'_>],
    resources: &Records<ResourceRecord>,
    scopes: &Records<ScopeRecord>,
    rows: u32,
) -> Result<IndexParts, BlockError> {
    let mut writer = IndexWriter::new(rows)?;
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
        writer.end(true)?;
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
        writer.end(false)?;
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
    /// The rows of all terms of the key at hand.
    key_rows: Vec<u32>,
}

impl IndexWriter {
    fn new(rows: u32) -> Result<IndexWriter, BlockError> {
        Ok(IndexWriter {
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
        self.keys.push(BlockKey {
            scope,
            name: name.into(),
            repeated: false,
            rows: 0,
            terms: 0,
            postings: 0..0,
        });
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
        terms.sort_unstable_by(|a, b| (a.code, a.value, a.store).cmp(&(b.code, b.value, b.store)));
        let unite = terms.len() > UNITED_TERMS_MAX as usize;
        for same in terms.chunk_by(|a, b| (a.code, a.value) == (b.code, b.value)) {
            let mut rows = std::mem::take(&mut self.rows);
            rows.clear();
            for place in same {
                let store = &stores[place.store];
                let (first, rest) = store.terms.term(place.term).rows(store.rows_max);
                for &row in first.iter().chain(rest) {
                    store.push(row, &mut rows);
                }
            }
            if unite {
                self.key_rows.extend_from_slice(&rows);
            }
            if let Some(first) = same.first() {
                self.put_term(first.code, first.value, &mut rows)?;
            }
            self.rows = rows;
        }
        Ok(())
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

    /// Ends a key; one without rows is forgotten unless it has a fixed place.
    fn end(&mut self, keep: bool) -> Result<(), BlockError> {
        let rows = std::mem::take(&mut self.key_rows);
        let Some(key) = self.keys.last_mut() else { return Ok(()) };
        if key.terms == 0 && !keep {
            self.keys.pop();
        } else if key.terms > UNITED_TERMS_MAX && !rows.is_empty() {
            let start = self.key_postings.position();
            self.key_rows = rows;
            key.rows = self.key_postings.put(&mut self.key_rows)?;
            key.postings = start..self.key_postings.position();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<IndexParts, BlockError> {
        let dictionary =
            self.dictionary.finish().map_err(BlockError::engine("ending a term dictionary"))?;
        let shift = self.postings.position();
        for key in self.keys.iter_mut().filter(|key| !key.postings.is_empty()) {
            key.postings = key.postings.start + shift..key.postings.end + shift;
        }
        let mut postings = self.postings.finish();
        postings.extend_from_slice(&self.key_postings.finish());
        Ok(IndexParts { dictionary, postings, keys: self.keys })
    }
}
