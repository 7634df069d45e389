//! The bucket: what the rest of Clew stores objects in.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_node::Deps;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use crate::backend::{Backend, Creation, Listed, Read, Span};
use crate::config::{BucketConfig, Place};
use crate::connect::{OpenDisk, connect};
use crate::disk::Disk;
use crate::error::{Error, Operation};
use crate::hedge::Hedger;
use crate::metrics::StorageMetrics;
use crate::retry::{Retrier, RetryPolicy};
use crate::{key, ranges};

/// The largest object that can be put, and the longest range that can be read, in bytes.
pub const OBJECT_BYTES_MAX: u64 = 1 << 30;

/// How many reads of one [`Bucket::get_ranges`] run side by side.
const PARALLEL_READS: usize = 8;

/// How much of an existing object is compared at a time, in bytes.
const COMPARE_BYTES: u64 = 8 << 20;

/// What a successful put found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is new.
    Created,
    /// The object was there already, with the same bytes.
    AlreadyExists,
}

/// The end of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Its last bytes: as many as asked for, or all of a shorter object.
    pub bytes: Bytes,
    /// The size of the whole object in bytes.
    pub object_size: u64,
}

/// A write-once store of objects. Cheap to clone; clones share the retry budget.
#[derive(Clone)]
pub struct Bucket {
    backend: Arc<dyn Backend>,
    retrier: Retrier,
    /// Reads are made once if there is none.
    hedger: Option<Hedger>,
    metrics: StorageMetrics,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bucket")
    }
}

impl Bucket {
    /// Opens the bucket that the settings describe. A local directory is created if missing; a remote
    /// bucket is not contacted. Touches the disk, so call it at start-up.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting that is wrong.
    pub fn open(config: &BucketConfig, deps: &Deps) -> Result<Bucket, Error> {
        Bucket::connected(config, deps, Disk::open)
    }

    /// As [`Bucket::open`], to look at the bucket of another process: a local directory that is missing
    /// is not created, and one that is there is left as it is. Not for putting objects.
    ///
    /// # Errors
    /// As [`Bucket::open`], and for a local directory that does not exist.
    pub fn open_existing(config: &BucketConfig, deps: &Deps) -> Result<Bucket, Error> {
        Bucket::connected(config, deps, Disk::open_existing)
    }

    fn connected(config: &BucketConfig, deps: &Deps, open_disk: OpenDisk) -> Result<Bucket, Error> {
        let bucket = Bucket::over(connect(config, deps, open_disk)?, deps);
        let is_remote = !matches!(config.place()?, Place::Disk(_) | Place::Memory);
        let after = config.hedge_after.0;
        Ok(if is_remote && !after.is_zero() { bucket.with_hedging(after) } else { bucket })
    }

    /// An empty bucket in memory, for tests.
    pub fn memory(deps: &Deps) -> Bucket {
        let store = Arc::new(object_store::memory::InMemory::new());
        Bucket::over(Arc::new(crate::remote::Remote::new(store, "")), deps)
    }

    pub(crate) fn over(backend: Arc<dyn Backend>, deps: &Deps) -> Bucket {
        let metrics = StorageMetrics::new(&deps.metrics);
        let (clock, rng) = (deps.clock.clone(), deps.rng.clone());
        let retrier = Retrier::new(RetryPolicy::default(), clock, rng, metrics.clone());
        Bucket { backend, retrier, hedger: None, metrics }
    }

    /// The same bucket, with reads that take longer than `after` made a second time.
    #[must_use]
    pub fn with_hedging(mut self, after: Duration) -> Bucket {
        let hedger = Hedger::new(after, self.retrier.clock.clone(), self.metrics.clone());
        self.hedger = Some(hedger);
        self
    }

    /// The same bucket with another patience.
    #[must_use]
    pub fn with_retry_policy(mut self, policy: RetryPolicy) -> Bucket {
        self.retrier.policy = policy;
        self
    }

    #[cfg(any(test, feature = "test-support"))]
    pub(crate) fn map_backend(
        mut self,
        wrap: impl FnOnce(Arc<dyn Backend>) -> Arc<dyn Backend>,
    ) -> Bucket {
        self.backend = wrap(self.backend);
        self
    }

    /// Stores a new object, durably when this returns: the store was asked for its size afterwards,
    /// since what only it has is given up elsewhere next. Repeating it with the same bytes is safe,
    /// also after an error.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the key exists with other bytes; [`Error::Invalid`] for an empty body or
    /// one above [`OBJECT_BYTES_MAX`]. After [`Error::Unavailable`] the object may exist.
    pub async fn put_new(&self, key: &str, body: Bytes) -> Result<Put, Error> {
        key::check(key)?;
        let length = body.len() as u64;
        if length == 0 || length > OBJECT_BYTES_MAX {
            let reason = format!("an object must have 1 to {OBJECT_BYTES_MAX} bytes: {length}");
            return Err(Error::Invalid { reason });
        }
        let attempt = || self.backend.create(key, body.clone());
        let creation = self.retrier.run(Operation::Put, key, length, |_| length, attempt).await?;
        match creation {
            Creation::Created => self.confirm(key, length).await,
            Creation::Existed => self.compare(key, &body).await,
        }
    }

    /// Whether the object that the store says to have taken is there.
    async fn confirm(&self, key: &str, length: u64) -> Result<Put, Error> {
        let unkept = |message: String| Error::Unavailable {
            operation: Operation::Put,
            key: key.to_owned(),
            message,
        };
        match self.head(key).await {
            Ok(size) if size == length => Ok(Put::Created),
            Ok(size) => Err(unkept(format!("it took {length} bytes and has {size}"))),
            Err(Error::NotFound { .. }) => {
                Err(unkept("it took the object and has none".to_owned()))
            }
            // A policy may allow no more than writing: the store's word has to do.
            Err(Error::Denied { .. }) => Ok(Put::Created),
            Err(error) => Err(error),
        }
    }

    /// Whether the existing object is the one to be put.
    async fn compare(&self, key: &str, body: &Bytes) -> Result<Put, Error> {
        let conflict = || Error::Conflict { key: key.to_owned() };
        let length = body.len() as u64;
        if self.head(key).await? != length {
            return Err(conflict());
        }
        let mut rest = body.as_ref();
        let mut start = 0;
        while start < length {
            let end = length.min(start + COMPARE_BYTES);
            let stored = self.get_range(key, start..end).await?;
            rest = rest.strip_prefix(stored.as_ref()).ok_or_else(conflict)?;
            start = end;
        }
        Ok(Put::AlreadyExists)
    }

    /// The bytes of an object in `range`, all of them.
    ///
    /// # Errors
    /// [`Error::TooShort`] if the object ends before the range does; [`Error::Truncated`] if the store
    /// keeps sending less than the object has.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, Error> {
        key::check(key)?;
        check_range(&range)?;
        let wanted = range.end - range.start;
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let read = || async {
            let read = self.backend.read(key, Span::Range(range.clone())).await;
            self.check_read(key, &range, read).await
        };
        let attempt = || self.hedged(wanted, &read);
        self.retrier.run(Operation::Get, key, wanted, |bytes| bytes.len() as u64, attempt).await
    }

    /// The last `length` bytes of an object, or all of a shorter one.
    ///
    /// # Errors
    /// As [`Bucket::get_range`]; [`Error::Invalid`] for a length of 0.
    pub async fn get_tail(&self, key: &str, length: u64) -> Result<Tail, Error> {
        key::check(key)?;
        if length == 0 || length > OBJECT_BYTES_MAX {
            let reason = format!("a tail must have 1 to {OBJECT_BYTES_MAX} bytes: {length}");
            return Err(Error::Invalid { reason });
        }
        let read = || async {
            let Read { bytes, size } = self.backend.read(key, Span::Tail(length)).await?;
            let wanted = length.min(size);
            let bytes = exactly(key, bytes, wanted)?;
            Ok(Tail { bytes, object_size: size })
        };
        let attempt = || self.hedged(length, &read);
        let measure = |tail: &Tail| tail.bytes.len() as u64;
        self.retrier.run(Operation::Get, key, length, measure, attempt).await
    }

    /// The bytes of an object in each of `ranges`, in their order. Near ranges are fetched together.
    ///
    /// # Errors
    /// As [`Bucket::get_range`], of the first range that fails.
    pub async fn get_ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        key::check(key)?;
        ranges.iter().try_for_each(check_range)?;
        let reads = ranges::joined(ranges);
        let fetches: Vec<_> = reads.iter().map(|read| self.get_range(key, read.clone())).collect();
        let fetched: Vec<Bytes> =
            stream::iter(fetches).buffered(PARALLEL_READS).try_collect().await?;
        let slice = |range: &Range<u64>| {
            let Some(place) = ranges::holder(&reads, range) else { return Some(Bytes::new()) };
            let (read, bytes) = (reads.get(place)?, fetched.get(place)?);
            let start = usize::try_from(range.start - read.start).ok()?;
            let end = usize::try_from(range.end - read.start).ok()?;
            (end <= bytes.len()).then(|| bytes.slice(start..end))
        };
        let slices: Option<Vec<Bytes>> = ranges.iter().map(slice).collect();
        slices.ok_or_else(|| Error::Invalid { reason: "a range does not fit memory".to_owned() })
    }

    /// The size of an object in bytes.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn head(&self, key: &str) -> Result<u64, Error> {
        key::check(key)?;
        self.retrier.run(Operation::Head, key, 0, |_| 0, || self.backend.size(key)).await
    }

    /// The objects whose keys begin with the whole parts of `prefix` (`a/b` has `a/b/c`, not `a/bc`),
    /// in no order; an empty prefix lists all. Not retried: after an error, start again.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<Listed, Error>> {
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty()
            && let Err(error) = key::check(prefix)
        {
            return stream::once(std::future::ready(Err(error.into()))).boxed();
        }
        let metrics = self.metrics.clone();
        let listed = self.backend.list(prefix).map(Some);
        // The end is an item too, so that a listing is counted once, when its outcome is known.
        let ended = stream::once(std::future::ready(None));
        let mut failed = false;
        let counted = listed.chain(ended).filter_map(move |item| {
            match &item {
                Some(Err(error)) if !failed => {
                    failed = true;
                    metrics.outcome(Operation::List, Err(error));
                }
                None if !failed => metrics.outcome(Operation::List, Ok(())),
                _ => {}
            }
            std::future::ready(item)
        });
        counted.boxed()
    }

    /// Deletes an object; no error if there is none.
    ///
    /// # Errors
    /// After [`Error::Unavailable`] the object may be gone.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        key::check(key)?;
        self.retrier.run(Operation::Delete, key, 0, |()| 0, || self.backend.delete(key)).await
    }

    /// One attempt of a read, which may be two requests.
    async fn hedged<T, F>(&self, bytes: u64, read: &impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        match &self.hedger {
            // Two requests are a large future, which callers would hold inside of theirs.
            Some(hedger) => Box::pin(hedger.run(bytes, read)).await,
            None => read().await,
        }
    }

    /// The bytes of a read, if they are exactly those of `range`.
    async fn check_read(
        &self,
        key: &str,
        range: &Range<u64>,
        read: Result<Read, Error>,
    ) -> Result<Bytes, Error> {
        let size = match read {
            Ok(Read { bytes, size }) if range.end <= size => {
                return exactly(key, bytes, range.end - range.start);
            }
            Ok(Read { size, .. }) => size,
            // Stores answer a range past the end with an error of many shapes: look for ourselves.
            Err(error) if error.is_transient() => match self.backend.size(key).await {
                Ok(size) if size < range.end => size,
                Err(Error::NotFound { key }) => return Err(Error::NotFound { key }),
                Ok(_) | Err(_) => return Err(error),
            },
            Err(error) => return Err(error),
        };
        Err(Error::TooShort { key: key.to_owned(), size, wanted: range.end })
    }
}

fn check_range(range: &Range<u64>) -> Result<(), Error> {
    let length = range.end.checked_sub(range.start);
    if length.is_some_and(|length| length <= OBJECT_BYTES_MAX) {
        return Ok(());
    }
    let (start, end) = (range.start, range.end);
    let reason = format!("a range must have 0 to {OBJECT_BYTES_MAX} bytes: {start} to {end}");
    Err(Error::Invalid { reason })
}

fn exactly(key: &str, bytes: Bytes, wanted: u64) -> Result<Bytes, Error> {
    let got = bytes.len() as u64;
    if got == wanted {
        return Ok(bytes);
    }
    Err(Error::Truncated { key: key.to_owned(), got, wanted })
}

#[cfg(test)]
mod tests {
    use clew_node::config::Span;

    use super::*;

    #[test]
    fn looking_at_a_folder_does_not_create_it() {
        let (deps, folder) = (Deps::system(1), tempfile::tempdir().unwrap());
        let root = folder.path().join("bucket");
        let config = BucketConfig::at(root.display().to_string());
        let refused = Bucket::open_existing(&config, &deps).unwrap_err();
        assert!(refused.to_string().contains("a directory that exists"), "{refused}");
        assert!(!root.exists());
        std::fs::create_dir(&root).unwrap();
        Bucket::open_existing(&config, &deps).unwrap();
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
    }

    #[test]
    fn only_remote_buckets_are_asked_twice() {
        let (deps, folder) = (Deps::system(1), tempfile::tempdir().unwrap());
        let hedges = |url: &str, after| {
            let config = BucketConfig { hedge_after: after, ..BucketConfig::at(url) };
            Bucket::open(&config, &deps).unwrap().hedger.is_some()
        };
        let after = BucketConfig::default().hedge_after;
        assert!(hedges("s3://traces", after) && hedges("gs://traces", after));
        assert!(!hedges("s3://traces", Span::seconds(0)));
        assert!(!hedges(&folder.path().display().to_string(), after));
        assert!(!hedges("memory://", after));
    }
}
