//! What the objects in the bucket tell of themselves, read from their ends without a catalog.

use std::collections::BTreeSet;

use bytes::Bytes;
use clew_block::{BlockError, Footer, Heritage, TenantEntry};
use clew_catalog::{
    FoundObject, Incarnation, LogPoint, LogRange, ObjectKey, ObjectMeta, TenantBlock,
};
use clew_model::UnixNanos;
use clew_storage::{Bucket, Listed};

/// An object up to this size is read whole: its footers are not far apart.
const WHOLE_BYTES: u64 = 4 << 20;

/// How much of a larger block's end is read at first.
const TAIL_BYTES: u64 = 64 << 10;

/// An object's bytes, or the way to them.
struct Source<'a> {
    bucket: &'a Bucket,
    name: &'a str,
    whole: Option<Bytes>,
}

impl Source<'_> {
    async fn read(&self, start: u64, end: u64) -> Result<Bytes, String> {
        let Some(whole) = &self.whole else {
            let read = self.bucket.get_range(self.name, start..end).await;
            return read.map_err(|error| error.to_string());
        };
        let at = |index: u64| usize::try_from(index).unwrap_or(usize::MAX).min(whole.len());
        Ok(whole.slice(at(start)..at(end)))
    }

    /// The footer of the block that ends at `end`.
    async fn footer(&self, end: u64) -> Result<Footer, String> {
        let mut length = TAIL_BYTES.min(end);
        loop {
            let tail = self.read(end - length, end).await?;
            match Footer::parse(&tail) {
                Ok(footer) => return Ok(footer),
                Err(BlockError::TailTooShort { needed }) if needed > length && needed <= end => {
                    length = needed;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// What the blocks of an object tell.
///
/// # Errors
/// What is wrong with it, for people; also if the bucket does not give it.
pub(crate) async fn read(
    bucket: &Bucket,
    key: ObjectKey,
    listed: &Listed,
) -> Result<FoundObject, String> {
    let name = key.to_string();
    let mut source = Source { bucket, name: &name, whole: None };
    if listed.size <= WHOLE_BYTES {
        source.whole = Some(source.read(0, listed.size).await?);
    }
    let mut footers = Vec::new();
    let mut end = listed.size;
    while end > 0 {
        let footer = source.footer(end).await?;
        let entry = TenantEntry::of(&footer, end).ok_or("a block begins before its object")?;
        end = entry.offset;
        footers.push((footer, tenant_block(entry)));
    }
    footers.reverse();
    describe(key, listed, &footers)
}

fn describe(
    key: ObjectKey,
    listed: &Listed,
    footers: &[(Footer, TenantBlock)],
) -> Result<FoundObject, String> {
    let (first, _) = footers.first().ok_or("it is empty")?;
    let (mut from, mut through) = (0, LogPoint::default());
    let mut replaces = BTreeSet::new();
    for (footer, _) in footers {
        if footer.origin.shard != u64::from(key.shard().0) {
            return Err("a block is of another shard than its name".to_owned());
        }
        for lineage in &footer.lineage {
            replaces.insert(ObjectKey::parse(lineage).map_err(|error| error.to_string())?);
        }
    }
    if let ObjectKey::Flush(flush) = key {
        let origin = first.origin;
        let named = (flush.incarnation.0, flush.through);
        let is_same = |footer: &Footer| footer.origin == origin && footer.lineage.is_empty();
        if (origin.incarnation, origin.through) != named
            || !footers.iter().all(|(footer, _)| is_same(footer))
        {
            return Err("a block is of another flush than its name".to_owned());
        }
        from = origin.from;
        through.index = origin.through;
    }
    let heritage = &first.heritage;
    let arrived = match footers.iter().map(|(footer, _)| footer.heritage.arrived).max() {
        Some(arrived) if arrived > 0 => UnixNanos(arrived),
        _ => listed.modified,
    };
    let object = ObjectMeta {
        key,
        size: listed.size,
        from,
        through,
        level: level(key, heritage, &replaces),
        created_at: arrived,
        data_at: arrived,
        revision: 0,
        tenants: footers.iter().map(|(_, block)| block.clone()).collect(),
    };
    object.validate().map_err(|error| error.to_string())?;
    let cover = |cover: &clew_block::Cover| LogRange {
        incarnation: Incarnation(cover.incarnation),
        from: cover.from,
        through: cover.through,
    };
    Ok(FoundObject {
        object,
        replaces,
        covers: heritage.covers.iter().map(cover).collect(),
        objects_of_merge: heritage.objects,
    })
}

/// The level of an object; one that does not tell is as high as what it replaces lets it be.
fn level(key: ObjectKey, heritage: &Heritage, replaces: &BTreeSet<ObjectKey>) -> u32 {
    let is_flush = |key: &ObjectKey| matches!(key, ObjectKey::Flush(_));
    match heritage.level {
        _ if is_flush(&key) => 0,
        0 if replaces.iter().all(is_flush) => 1,
        0 => 2,
        level => level.min(clew_catalog::LEVEL_MAX),
    }
}

fn tenant_block(entry: TenantEntry) -> TenantBlock {
    TenantBlock {
        tenant: entry.tenant,
        offset: entry.offset,
        length: entry.length,
        footer_length: entry.tail_length,
        min_time: UnixNanos(entry.min_start),
        max_time: UnixNanos(entry.max_end),
        spans: entry.spans,
        traces: entry.traces,
        splits: entry.split,
        ids: None,
    }
}
