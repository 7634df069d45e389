//! Bytes of a block, from the cache on disk or from the bucket. What comes from either is not verified
//! yet; what came from the bucket goes to the disk once it is. What does not verify is read once more
//! from the bucket: a block counts as damaged only if that does not verify either, since a single
//! transfer may be garbled on its way.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use clew_model::ErrorKind;
use futures::future::try_join_all;

use super::BlockSource;
use crate::QueryError;

/// Bytes of a block that were not verified yet.
pub(super) struct Section {
    pub(super) bytes: Bytes,
    /// Where they lie in the object, if they came from the bucket: they belong on disk once verified.
    pub(super) fetched: Option<Range<u64>>,
}

/// Where bytes are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// The cache on disk, and the bucket for what it does not have.
    Disk,
    /// The bucket, past all caches.
    Bucket,
}

impl BlockSource {
    /// What `make` makes of bytes that it reads; made once more past all caches if they were damaged.
    pub(super) async fn twice<T, F>(&self, make: impl Fn(Via) -> F) -> Result<T, QueryError>
    where
        F: Future<Output = Result<T, QueryError>>,
    {
        match make(Via::Disk).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let block = &self.info.name;
                tracing::warn!(%block, %error, "a read of a block is damaged, reading it again");
                make(Via::Bucket).await
            }
            made => made,
        }
    }

    /// Bytes of the block; `range` counts from its beginning.
    pub(super) async fn read(&self, range: Range<u64>, via: Via) -> Result<Section, QueryError> {
        self.read_all(&[range], via).await?.pop().ok_or_else(|| self.confused())
    }

    /// Bytes of the block in each of `ranges`, as [`read`](Self::read) gives them; what is near to
    /// each other in the bucket is fetched together.
    pub(super) async fn read_all(
        &self,
        ranges: &[Range<u64>],
        via: Via,
    ) -> Result<Vec<Section>, QueryError> {
        let on_disk = match via {
            Via::Disk => try_join_all(ranges.iter().map(|range| self.on_disk(range))).await?,
            Via::Bucket => vec![None; ranges.len()],
        };
        let places = ranges.iter().map(|range| self.place(range));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let missing = on_disk.iter().zip(&places).filter(|(bytes, _)| bytes.is_none());
        let missing: Vec<Range<u64>> = missing.map(|(_, place)| place.clone()).collect();
        let mut fetched = self.fetch_places(&missing).await?.into_iter();
        let section = |(bytes, place): (Option<Bytes>, Range<u64>)| match bytes {
            Some(bytes) => Some(Section { bytes, fetched: None }),
            None => fetched.next().map(|bytes| Section { bytes, fetched: Some(place) }),
        };
        Ok(on_disk.into_iter().zip(places).map_while(section).collect())
    }

    /// Bytes of the block from the bucket, in one read if they are near to each other.
    pub(super) async fn fetch_pair(
        &self,
        one: &Range<u64>,
        other: &Range<u64>,
    ) -> Result<(Bytes, Bytes), QueryError> {
        let bytes = self.fetch_places(&[self.place(one)?, self.place(other)?]).await?;
        let mut bytes = bytes.into_iter();
        Ok((bytes.next().unwrap_or_default(), bytes.next().unwrap_or_default()))
    }

    /// Bytes of the object, as many as there are places.
    async fn fetch_places(&self, places: &[Range<u64>]) -> Result<Vec<Bytes>, QueryError> {
        for read in clew_storage::joined(places) {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.read_bytes.fetch_add(read.end - read.start, Ordering::Relaxed);
        }
        let fetched = self.reader.bucket.get_ranges(&self.block.object, places).await;
        fetched.map_err(|error| QueryError::Storage {
            source_name: Arc::clone(&self.info.name),
            error: Arc::new(error),
        })
    }

    /// Bytes of the block, if they are on disk.
    pub(super) async fn on_disk(&self, range: &Range<u64>) -> Result<Option<Bytes>, QueryError> {
        let place = self.place(range)?;
        match &self.reader.disk {
            Some(_) if place.is_empty() => Ok(Some(Bytes::new())),
            Some(disk) => Ok(disk.get(&self.block.object, &place).await),
            None => Ok(None),
        }
    }

    /// Keeps on disk what was read of the bucket, now that it is verified.
    pub(super) fn keep_on_disk(&self, sections: impl IntoIterator<Item = Section>) {
        let Some(disk) = &self.reader.disk else { return };
        for Section { bytes, fetched } in sections {
            if let Some(place) = fetched.filter(|place| !place.is_empty()) {
                disk.put(&self.block.object, &place, bytes);
            }
        }
    }

    /// Where a range of the block lies in the object.
    pub(super) fn place(&self, range: &Range<u64>) -> Result<Range<u64>, QueryError> {
        if range.start > range.end || range.end > self.block.length {
            return Err(self.corrupt("footer", "a section lies outside"));
        }
        let offset = self.block.offset;
        Ok(offset.saturating_add(range.start)..offset.saturating_add(range.end))
    }
}
