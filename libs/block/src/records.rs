//! Distinct resources or instrumentation scopes, each with the rows it reported.

use std::sync::Arc;

use bytes::Bytes;
use clew_model::trace::{ResourceRecord, ScopeRecord};
use hashbrown::HashTable;

use crate::codec::narrow;
use crate::hash::hash64;

/// A message with a schema URL: what resources and scopes have in common.
pub(crate) trait Describe {
    /// Puts one together.
    fn new(message: Bytes, schema_url: Arc<str>) -> Self;
    /// The encoded message.
    fn message(&self) -> &[u8];
    /// Its schema URL.
    fn schema_url(&self) -> &str;
}

impl Describe for ResourceRecord {
    fn new(bytes: Bytes, schema_url: Arc<str>) -> ResourceRecord {
        ResourceRecord { bytes, schema_url }
    }
    fn message(&self) -> &[u8] {
        &self.bytes
    }
    fn schema_url(&self) -> &str {
        &self.schema_url
    }
}

impl Describe for ScopeRecord {
    fn new(bytes: Bytes, schema_url: Arc<str>) -> ScopeRecord {
        ScopeRecord { bytes, schema_url }
    }
    fn message(&self) -> &[u8] {
        &self.bytes
    }
    fn schema_url(&self) -> &str {
        &self.schema_url
    }
}

/// One distinct record.
#[derive(Debug)]
pub(crate) struct Entry<R> {
    pub(crate) record: Arc<R>,
    rows: Vec<u32>,
}

impl<R> Entry<R> {
    /// Its rows below `rows_max`, ascending.
    pub(crate) fn rows(&self, rows_max: u32) -> &[u32] {
        &self.rows[..self.rows.partition_point(|row| *row < rows_max)]
    }
}

/// Interned records.
#[derive(Debug)]
pub(crate) struct Records<R> {
    seed: u64,
    entries: Vec<Entry<R>>,
    index: HashTable<(u64, u32)>,
    last: u32,
    bytes: usize,
    rows: usize,
}

impl<R: Describe> Records<R> {
    pub(crate) fn new(seed: u64) -> Records<R> {
        Records {
            seed,
            entries: Vec::new(),
            index: HashTable::new(),
            last: u32::MAX,
            bytes: 0,
            rows: 0,
        }
    }

    /// The ordinal of a record, new or known. A new one is copied, so that it does not hold on to
    /// the buffer it came in.
    pub(crate) fn intern(&mut self, message: &[u8], schema_url: &str) -> u32 {
        if self.is(self.last, message, schema_url) {
            return self.last;
        }
        let hash = hash64(hash64(self.seed, schema_url.as_bytes()), message);
        let known = self
            .index
            .find(hash, |(kept, record)| *kept == hash && self.is(*record, message, schema_url));
        self.last = match known {
            Some((_, record)) => *record,
            None => {
                let ordinal = narrow(self.entries.len());
                let record = R::new(Bytes::copy_from_slice(message), Arc::from(schema_url));
                self.entries.push(Entry { record: Arc::new(record), rows: Vec::new() });
                self.index.insert_unique(hash, (hash, ordinal), |(hash, _)| *hash);
                self.bytes += message.len() + schema_url.len();
                ordinal
            }
        };
        self.last
    }

    fn is(&self, ordinal: u32, message: &[u8], schema_url: &str) -> bool {
        self.entries.get(ordinal as usize).is_some_and(|entry| {
            entry.record.message() == message && entry.record.schema_url() == schema_url
        })
    }

    /// Notes that a row has the record. Rows come in ascending order.
    pub(crate) fn note(&mut self, ordinal: u32, row: u32) {
        self.entries[ordinal as usize].rows.push(row);
        self.rows += 1;
    }

    pub(crate) fn entries(&self) -> &[Entry<R>] {
        &self.entries
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes
            + self.rows * 6
            + self.entries.capacity() * (size_of::<Entry<R>>() + size_of::<R>() + 64)
            + self.index.capacity() * 17
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_records_are_one_and_schema_urls_tell_apart() {
        let mut records: Records<ScopeRecord> = Records::new(3);
        let a = records.intern(b"m", "u");
        let b = records.intern(b"m", "v");
        assert_ne!(a, b);
        assert_eq!(records.intern(b"m", "u"), a);
        records.note(a, 2);
        records.note(a, 5);
        assert_eq!(records.entries()[a as usize].rows(5), [2]);
    }
}
