//! The terms of a set of rows in memory: interned keys, interned values, and for each term the
//! rows that have it.
//!
//! Many terms occur once, so a term's row is kept in place and a list is only allocated for the
//! second. Keys are kept apart from values: a term costs its value's bytes once, and a key's bytes
//! are never repeated. Hashes are seeded, because keys and values come from strangers.
//!
//! A key whose values hardly ever repeat (request ids, sizes in bytes) stops interning new ones:
//! they are *rare* values, of which only row and hash are kept, or row and number. That is a tenth
//! of the memory and of the time, and nothing is lost: whoever looks one up goes through the list.

use hashbrown::HashTable;

use crate::codec::narrow;
use crate::error::BlockError;
use crate::hash::hash64;
use crate::term::{KeyScope, TermBytes, code, intrinsic, with_bytes};

/// Position of a key in its store.
pub(crate) type KeyOrdinal = u32;

/// Position of a term in its store.
pub(crate) type TermOrdinal = u32;

/// The most keys of one store; the limit bounds what hostile keys can cost.
pub(crate) const KEYS_MAX: u64 = 1 << 22;

/// A key with fewer terms interns all its values.
const RARE_TERMS_MIN: usize = 2048;

/// Values are rare if a key has more than one term for so many rows.
const RARE_ROWS_PER_TERM: u64 = 3;

/// The most bytes of all values or all keys of one store.
const ARENA_BYTES_MAX: u64 = u32::MAX as u64;

/// A key and what is known of its values.
#[derive(Debug)]
pub(crate) struct KeyEntry {
    /// Whose key it is.
    pub(crate) scope: KeyScope,
    offset: u32,
    length: u32,
    /// Some row had the key twice in one place, so a row may have values that do not count.
    pub(crate) repeated: bool,
    /// How many rows have it.
    pub(crate) rows: u32,
    /// The first row that had it.
    pub(crate) first_row: u32,
    last_row: u32,
    /// The term that was added to last.
    last_term: TermOrdinal,
    /// Its terms in order of appearance.
    pub(crate) terms: Vec<TermOrdinal>,
    /// Its rare texts: row and hash ([`hash64`] with seed 0), rows ascending.
    pub(crate) rare_texts: RareValues,
    /// Its rare integers: row and number as [`TermBytes::Word`] orders it.
    pub(crate) rare_ints: RareValues,
    /// Its rare doubles.
    pub(crate) rare_floats: RareValues,
}

/// Values that are not interned, each with its row. Rows ascend; a row may have several.
#[derive(Debug, Default)]
pub(crate) struct RareValues {
    pub(crate) rows: Vec<u32>,
    pub(crate) values: Vec<u64>,
}

impl RareValues {
    fn push(&mut self, row: u32, value: u64) {
        self.rows.push(row);
        self.values.push(value);
    }

    /// The rows below `rows_max` with their values.
    pub(crate) fn below(&self, rows_max: u32) -> impl Iterator<Item = (u32, u64)> + Clone + '_ {
        let end = self.rows.partition_point(|row| *row < rows_max);
        self.rows[..end].iter().copied().zip(self.values.iter().copied())
    }
}

impl KeyEntry {
    /// The rare numbers of a type, if numbers of that type can be rare.
    pub(crate) fn rare_numbers(&self, type_code: u8) -> Option<&RareValues> {
        match type_code {
            code::INT => Some(&self.rare_ints),
            code::FLOAT => Some(&self.rare_floats),
            _ => None,
        }
    }

    /// Whether new values are not to be interned.
    fn is_rare(&self) -> bool {
        self.scope != KeyScope::Intrinsic
            && self.terms.len() >= RARE_TERMS_MIN
            && self.terms.len() as u64 * RARE_ROWS_PER_TERM >= u64::from(self.rows)
    }

    /// Keeps a rare value; whether it is of a type that can be rare.
    fn add_rare(&mut self, type_code: u8, value: &[u8], row: u32) -> bool {
        match (type_code, <[u8; 8]>::try_from(value)) {
            (code::STRING, _) => self.rare_texts.push(row, hash64(0, value)),
            (code::INT, Ok(word)) => self.rare_ints.push(row, u64::from_be_bytes(word)),
            (code::FLOAT, Ok(word)) => self.rare_floats.push(row, u64::from_be_bytes(word)),
            _ => return false,
        }
        true
    }
}

/// A term and its rows.
#[derive(Debug)]
pub(crate) struct TermEntry {
    pub(crate) key: KeyOrdinal,
    offset: u32,
    length: u16,
    /// The type code.
    pub(crate) code: u8,
    /// Its last row, beside the rest of the entry: the end of a list lies elsewhere in memory, and is
    /// seldom in a cache when the next row comes.
    last: u32,
    /// All of its rows, once there are two.
    list: Vec<u32>,
}

impl TermEntry {
    /// The term's rows below `rows_max`, ascending.
    pub(crate) fn rows(&self, rows_max: u32) -> &[u32] {
        let rows = if self.list.is_empty() { std::slice::from_ref(&self.last) } else { &self.list };
        &rows[..rows.partition_point(|row| *row < rows_max)]
    }

    /// Adds a row, once; returns how many more its list has.
    fn add(&mut self, row: u32) -> usize {
        if self.last == row {
            return 0;
        }
        let listed = self.list.len();
        if listed == 0 {
            self.list.push(self.last);
        }
        self.list.push(row);
        self.last = row;
        self.list.len() - listed
    }
}

/// Interned terms with their rows.
#[derive(Debug)]
pub(crate) struct TermStore {
    seed: u64,
    keys: Vec<KeyEntry>,
    key_bytes: Vec<u8>,
    key_index: HashTable<(u32, KeyOrdinal)>,
    terms: Vec<TermEntry>,
    values: Vec<u8>,
    term_index: HashTable<(u32, TermOrdinal)>,
    listed_rows: usize,
    rare_values: usize,
}

/// Spreads a kept 32-bit hash over the bits a hash table looks at.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the upper half is dropped on purpose")]
const fn shorten(hash: u64) -> u32 {
    hash as u32
}

impl TermStore {
    /// A store with the keys of [`intrinsic`]. `seed` should not be guessable by who sends spans.
    pub(crate) fn new(seed: u64) -> TermStore {
        let mut store = TermStore {
            seed,
            keys: Vec::new(),
            key_bytes: Vec::new(),
            key_index: HashTable::new(),
            terms: Vec::new(),
            values: Vec::new(),
            term_index: HashTable::new(),
            listed_rows: 0,
            rare_values: 0,
        };
        for name in intrinsic::NAMES {
            store.key(KeyScope::Intrinsic, name.as_bytes());
        }
        store
    }

    /// Fails if what `input_bytes` more bytes of spans can hold might not fit; nothing can fail
    /// after that.
    pub(crate) fn reserve(&self, input_bytes: usize) -> Result<(), BlockError> {
        if self.keys.len() as u64 > KEYS_MAX {
            return Err(BlockError::Limit { what: "attribute keys", limit: KEYS_MAX });
        }
        // A number of two bytes on the wire becomes a value of eight, in a message of four or
        // more; everything else becomes no longer than it was.
        let growth = (input_bytes as u64).saturating_mul(2);
        let longest = self.values.len().max(self.key_bytes.len()) as u64;
        if longest.saturating_add(growth) > ARENA_BYTES_MAX {
            return Err(BlockError::Limit { what: "bytes of values", limit: ARENA_BYTES_MAX });
        }
        Ok(())
    }

    /// The ordinal of a key, new or known.
    pub(crate) fn key(&mut self, scope: KeyScope, name: &[u8]) -> KeyOrdinal {
        let hash = self.key_hash(scope, name);
        let (keys, bytes) = (&self.keys, &self.key_bytes);
        let known = self.key_index.find(spread(hash), |(kept, key)| {
            *kept == hash && is_key(&keys[*key as usize], bytes, scope, name)
        });
        if let Some((_, key)) = known {
            return *key;
        }
        let ordinal = narrow(self.keys.len());
        self.keys.push(KeyEntry {
            scope,
            offset: narrow(self.key_bytes.len()),
            length: narrow(name.len()),
            repeated: false,
            rows: 0,
            first_row: u32::MAX,
            last_row: u32::MAX,
            last_term: TermOrdinal::MAX,
            terms: Vec::new(),
            rare_texts: RareValues::default(),
            rare_ints: RareValues::default(),
            rare_floats: RareValues::default(),
        });
        self.key_bytes.extend_from_slice(name);
        self.key_index.insert_unique(spread(hash), (hash, ordinal), |(hash, _)| spread(*hash));
        ordinal
    }

    fn key_hash(&self, scope: KeyScope, name: &[u8]) -> u32 {
        shorten(hash64(self.seed ^ ((scope as u64) << 56), name))
    }

    /// Whether `key` is the key `name`: cheaper than [`TermStore::key`] for a good guess.
    #[inline]
    pub(crate) fn key_is(&self, key: KeyOrdinal, scope: KeyScope, name: &[u8]) -> bool {
        self.keys.get(key as usize).is_some_and(|key| is_key(key, &self.key_bytes, scope, name))
    }

    /// The ordinal of a key, if it is known.
    pub(crate) fn find_key(&self, scope: KeyScope, name: &[u8]) -> Option<KeyOrdinal> {
        let hash = self.key_hash(scope, name);
        self.key_index
            .find(spread(hash), |(kept, key)| *kept == hash && self.key_is(*key, scope, name))
            .map(|(_, key)| *key)
    }

    /// Notes that `row` has a value of `key`. Rows come in ascending order.
    #[inline]
    pub(crate) fn note_key(&mut self, key: KeyOrdinal, row: u32) {
        let entry = &mut self.keys[key as usize];
        if entry.last_row == row {
            entry.repeated |= entry.scope == KeyScope::Span;
            return;
        }
        if entry.rows == 0 {
            entry.first_row = row;
        }
        entry.last_row = row;
        entry.rows += 1;
    }

    /// Adds `row` to the rows of a term. Rows come in ascending order; a row counts once. Returns
    /// the term, unless the value is rare and kept apart.
    #[inline]
    pub(crate) fn add(
        &mut self,
        key: KeyOrdinal,
        code: u8,
        value: &TermBytes<'_>,
        row: u32,
    ) -> Option<TermOrdinal> {
        with_bytes(value, |bytes| self.add_bytes(key, code, bytes, row))
    }

    /// Adds `row` to the rows of a term that [`TermStore::add`] named.
    #[inline]
    pub(crate) fn add_known(&mut self, term: TermOrdinal, row: u32) {
        self.listed_rows += self.terms[term as usize].add(row);
    }

    fn add_bytes(
        &mut self,
        key: KeyOrdinal,
        code: u8,
        value: &[u8],
        row: u32,
    ) -> Option<TermOrdinal> {
        // Neighbours are often alike.
        let last = self.keys[key as usize].last_term;
        if let Some(term) = self.terms.get_mut(last as usize)
            && is_term(term, &self.values, key, code, value)
        {
            self.listed_rows += term.add(row);
            return Some(last);
        }
        let hash = self.term_hash(key, code, value);
        let (terms, values) = (&self.terms, &self.values);
        let known = self.term_index.find(spread(hash), |(kept, term)| {
            *kept == hash && is_term(&terms[*term as usize], values, key, code, value)
        });
        if let Some((_, term)) = known {
            let term = *term;
            self.keys[key as usize].last_term = term;
            self.add_known(term, row);
            return Some(term);
        }
        let entry = &mut self.keys[key as usize];
        if entry.is_rare() && entry.add_rare(code, value, row) {
            self.rare_values += 1;
            return None;
        }
        let ordinal = narrow(self.terms.len());
        #[allow(clippy::cast_possible_truncation, reason = "term bytes are at most 264")]
        self.terms.push(TermEntry {
            key,
            offset: narrow(self.values.len()),
            length: value.len() as u16,
            code,
            last: row,
            list: Vec::new(),
        });
        self.values.extend_from_slice(value);
        self.keys[key as usize].terms.push(ordinal);
        self.term_index.insert_unique(spread(hash), (hash, ordinal), |(hash, _)| spread(*hash));
        Some(ordinal)
    }

    #[inline]
    fn term_hash(&self, key: KeyOrdinal, code: u8, value: &[u8]) -> u32 {
        shorten(hash64(self.seed ^ (u64::from(key) << 8 | u64::from(code)), value))
    }

    /// The term of that key and value, if there is one.
    pub(crate) fn find_term(
        &self,
        key: KeyOrdinal,
        code: u8,
        value: &[u8],
    ) -> Option<(TermOrdinal, &TermEntry)> {
        let hash = self.term_hash(key, code, value);
        self.term_index
            .find(spread(hash), |(kept, term)| {
                *kept == hash
                    && is_term(&self.terms[*term as usize], &self.values, key, code, value)
            })
            .map(|(_, term)| (*term, &self.terms[*term as usize]))
    }

    /// All keys in order of appearance, the intrinsic ones first.
    pub(crate) fn keys(&self) -> &[KeyEntry] {
        &self.keys
    }

    /// A key's bytes.
    pub(crate) fn key_name(&self, key: &KeyEntry) -> &[u8] {
        &self.key_bytes[key.offset as usize..][..key.length as usize]
    }

    /// A term by its ordinal.
    pub(crate) fn term(&self, term: TermOrdinal) -> &TermEntry {
        &self.terms[term as usize]
    }

    /// A term's value bytes.
    #[inline]
    pub(crate) fn value(&self, term: &TermEntry) -> &[u8] {
        &self.values[term.offset as usize..][..usize::from(term.length)]
    }

    /// About how much memory the store takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.values.capacity()
            + self.key_bytes.capacity()
            + self.terms.capacity() * size_of::<TermEntry>()
            + self.keys.capacity() * size_of::<KeyEntry>()
            + (self.term_index.capacity() + self.key_index.capacity()) * 10
            // Lists double as they grow; each term is also in its key's list.
            + self.listed_rows * 6
            + self.terms.len() * 6
            + self.rare_values * 18
    }
}

#[inline]
fn is_key(key: &KeyEntry, bytes: &[u8], scope: KeyScope, name: &[u8]) -> bool {
    key.scope == scope && &bytes[key.offset as usize..][..key.length as usize] == name
}

#[inline]
fn is_term(term: &TermEntry, values: &[u8], key: KeyOrdinal, code: u8, value: &[u8]) -> bool {
    term.key == key
        && term.code == code
        && &values[term.offset as usize..][..usize::from(term.length)] == value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::term::code;

    fn rows(store: &TermStore, key: u32, value: &[u8], rows_max: u32) -> Vec<u32> {
        let Some((_, term)) = store.find_term(key, code::STRING, value) else {
            return Vec::new();
        };
        term.rows(rows_max).to_vec()
    }

    #[test]
    fn a_term_knows_its_rows_once_and_below_a_limit() {
        let mut store = TermStore::new(7);
        let key = store.key(KeyScope::Span, b"k");
        for row in [1, 1, 4, 4, 9] {
            store.note_key(key, row);
            store.add(key, code::STRING, &TermBytes::Borrowed(b"v"), row);
        }
        assert_eq!(rows(&store, key, b"v", 100), [1, 4, 9]);
        assert_eq!(rows(&store, key, b"v", 9), [1, 4]);
        assert_eq!(rows(&store, key, b"v", 1), [0u32; 0]);
        let entry = &store.keys()[key as usize];
        assert_eq!((entry.rows, entry.first_row, entry.repeated), (3, 1, true));
    }

    #[test]
    fn keys_of_two_scopes_and_values_of_two_types_are_apart() {
        let mut store = TermStore::new(7);
        let span = store.key(KeyScope::Span, b"a\0b");
        let event = store.key(KeyScope::Event, b"a\0b");
        assert_ne!(span, event);
        assert_eq!(store.key(KeyScope::Span, b"a\0b"), span);
        assert_eq!(store.find_key(KeyScope::Link, b"a\0b"), None);
        store.add(span, code::STRING, &TermBytes::Borrowed(b"x"), 1);
        store.add(span, code::STRING | code::ARRAY, &TermBytes::Borrowed(b"x"), 2);
        store.add(event, code::STRING, &TermBytes::Borrowed(b"x"), 3);
        assert_eq!(rows(&store, span, b"x", 9), [1]);
        assert_eq!(rows(&store, event, b"x", 9), [3]);
    }

    #[test]
    fn intrinsic_keys_have_fixed_places() {
        let store = TermStore::new(1);
        for (at, name) in intrinsic::NAMES.iter().enumerate() {
            let found = store.find_key(KeyScope::Intrinsic, name.as_bytes());
            assert_eq!(found, Some(u32::try_from(at).unwrap()));
        }
    }
}
