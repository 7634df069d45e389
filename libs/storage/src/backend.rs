//! What a provider has to offer: single attempts, without retries or limits, which the bucket adds.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use clew_model::UnixNanos;
use futures::stream::BoxStream;

use crate::error::Error;

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key, below the bucket's prefix. Names that no key can have are listed as they are.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When the store says it was written.
    pub modified: UnixNanos,
}

/// Which bytes of an object to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Span {
    /// These bytes; not empty.
    Range(Range<u64>),
    /// The last bytes, at most this many; not 0.
    Tail(u64),
}

/// Bytes of an object, and how large the whole is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    /// The size of the object in bytes.
    pub(crate) size: u64,
}

/// What became of an attempt to create an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Creation {
    /// It exists now, durably, with the given bytes.
    Created,
    /// The key existed before, durably, with bytes that may differ.
    Existed,
}

/// One provider. Keys are checked by the caller.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// Creates an object unless its key exists; atomic, and durable when it returns.
    async fn create(&self, key: &str, body: Bytes) -> Result<Creation, Error>;

    /// Reads part of an object; may return fewer bytes than asked for, which the caller checks.
    async fn read(&self, key: &str, span: Span) -> Result<Read, Error>;

    /// The size of an object in bytes.
    async fn size(&self, key: &str) -> Result<u64, Error>;

    /// The objects whose keys begin with the parts of `prefix`, in no order; empty for all.
    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Listed, Error>>;

    /// Deletes an object; no error if there is none.
    async fn delete(&self, key: &str) -> Result<(), Error>;
}
