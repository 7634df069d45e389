//! The real disk: RocksDB, with one write-ahead log for all column families.

use std::path::Path;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, Options, ReadOptions,
    WriteBatch, WriteOptions,
};

use super::disk::{Disk, Visit};
use super::{LogOptions, Op, keys};
use crate::error::Error;

/// An open database.
pub(crate) struct Rocks(DB);

impl Rocks {
    /// Opens the database in `path`, or makes it.
    pub(crate) fn open(path: &Path, options: &LogOptions) -> Result<Rocks, Error> {
        let cache = Cache::new_lru_cache(options.cache_bytes);
        let families = keys::FAMILIES
            .map(|family| ColumnFamilyDescriptor::new(family, family_options(options, &cache)));
        Ok(Rocks(DB::open_cf_descriptors(&database_options(options), path, families)?))
    }

    fn family(&self, name: &'static str) -> Result<&ColumnFamily, Error> {
        self.0.cf_handle(name).ok_or_else(|| Error::Database(format!("no column family {name}")))
    }
}

impl Disk for Rocks {
    fn get(&self, family: &'static str, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self.0.get_pinned_cf(self.family(family)?, key)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        family: &'static str,
        start: &[u8],
        end: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        if start >= end {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end);
        let mut iter = self.0.raw_iterator_cf_opt(self.family(family)?, options);
        iter.seek(start);
        while let Some((key, value)) = iter.item() {
            if !visit(key, value)? {
                return Ok(());
            }
            iter.next();
        }
        Ok(iter.status()?)
    }

    fn last(
        &self,
        family: &'static str,
        start: &[u8],
        end: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, Error> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end);
        let mut iter = self.0.raw_iterator_cf_opt(self.family(family)?, options);
        iter.seek_to_last();
        iter.status()?;
        Ok(match iter.item() {
            Some((key, value)) if key >= start => {
                Some((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)))
            }
            _ => None,
        })
    }

    fn write(&self, ops: &mut dyn Iterator<Item = &Op>, sync: bool) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        for op in ops {
            match op {
                Op::Put { family, key, value } => batch.put_cf(self.family(family)?, key, value),
                Op::Delete { family, key } => batch.delete_cf(self.family(family)?, key),
                Op::DeleteRange { family, start, end } => {
                    batch.delete_range_cf(self.family(family)?, start, end);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.0.write_opt(batch, &options)?;
        // A failed flush or compaction leaves writes working until the memory is full.
        match self.0.property_int_value(rocksdb::properties::BACKGROUND_ERRORS)? {
            Some(0) | None => Ok(()),
            Some(errors) => Err(Error::Database(format!("background errors: {errors}"))),
        }
    }

    fn drop_files(&self, family: &'static str, start: &[u8], last: &[u8]) -> Result<(), Error> {
        Ok(self.0.delete_file_in_range_cf(self.family(family)?, start, last)?)
    }
}

fn database_options(options: &LogOptions) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.create_missing_column_families(true);
    // The default may drop synced records that stand behind a damaged one without a word.
    database.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
    database.set_track_and_verify_wals_in_manifest(true);
    database.set_paranoid_checks(true);
    database.set_db_write_buffer_size(options.write_buffers_bytes_max);
    database.set_max_total_wal_size(options.wal_bytes_max);
    database.set_max_open_files(options.open_files_max);
    database.set_max_background_jobs(options.background_jobs_max);
    database.set_manifest_preallocation_size(64 << 10);
    database.set_keep_log_file_num(2);
    database.set_max_log_file_size(1 << 20);
    database.set_log_level(rocksdb::LogLevel::Warn);
    database.set_stats_dump_period_sec(0);
    database
}

fn family_options(options: &LogOptions, cache: &Cache) -> Options {
    let mut family = Options::default();
    family.set_write_buffer_size(options.write_buffer_bytes);
    family.set_max_write_buffer_number(3);
    family.set_arena_block_size(64 << 10);
    family.set_target_file_size_base(8 << 20);
    // Payloads arrive compressed.
    family.set_compression_type(rocksdb::DBCompressionType::None);
    // Values live beside the tree, so that a compaction moves keys only and purged payloads are
    // unlinked with their file instead of being rewritten.
    family.set_enable_blob_files(true);
    family.set_min_blob_size(1 << 10);
    family.set_blob_file_size(32 << 20);
    family.set_blob_compression_type(rocksdb::DBCompressionType::None);
    family.set_enable_blob_gc(true);
    family.set_blob_gc_age_cutoff(0.25);
    family.set_blob_gc_force_threshold(0.8);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    family.set_block_based_table_factory(&table);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rocksdb_is_a_disk() {
        let folder = tempfile::tempdir().unwrap();
        let rocks = Rocks::open(folder.path(), &LogOptions::default()).unwrap();
        crate::store::disk::conformance::check(&rocks);
    }
}
