//! Providers of the `object_store` crate as a backend.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use clew_model::UnixNanos;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use crate::backend::{Backend, Creation, Listed, Read, Span};
use crate::error::{Error, Operation};

/// A provider and the prefix inside it that the bucket lives under.
pub(crate) struct Remote {
    store: Arc<dyn ObjectStore>,
    /// Without slashes at its ends; may be empty.
    prefix: String,
}

impl Remote {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Remote {
        Remote { store, prefix: prefix.to_owned() }
    }

    fn path(&self, key: &str) -> Path {
        if self.prefix.is_empty() {
            Path::from(key)
        } else {
            Path::from(format!("{}/{key}", self.prefix))
        }
    }

    /// For stores without conditional writes: keys hold random bits, so a look beforehand is
    /// enough to tell a repeated attempt from a first one.
    async fn create_unconditionally(&self, key: &str, body: Bytes) -> Result<Creation, Error> {
        match self.size(key).await {
            Ok(_) => return Ok(Creation::Existed),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let options = PutOptions::from(PutMode::Overwrite);
        let put = self.store.put_opts(&self.path(key), PutPayload::from(body), options).await;
        put.map(|_| Creation::Created).map_err(|error| translate(Operation::Put, key, error))
    }

    /// For stores that answer a range that is the whole object as if no range had been asked for.
    async fn read_whole(
        &self,
        key: &str,
        tail: Option<u64>,
        range: Range<u64>,
    ) -> Result<Read, Error> {
        let result = self.store.get_opts(&self.path(key), GetOptions::default()).await;
        let result = result.map_err(|error| translate(Operation::Get, key, error))?;
        let size = result.meta.size;
        let range = tail.map_or(range, |length| size.saturating_sub(length)..size);
        // A store that never reads ranges would be asked for every byte again and again.
        if range.end.min(size).saturating_sub(range.start) < size / 2 {
            let message = "it does not read ranges of an object".to_owned();
            return Err(Error::Unavailable {
                operation: Operation::Get,
                key: key.to_owned(),
                message,
            });
        }
        let whole = result.bytes().await.map_err(|error| translate(Operation::Get, key, error))?;
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(whole.len());
        Ok(Read { bytes: whole.slice(at(range.start)..at(range.end)), size })
    }

    /// For stores that cannot read a tail at once.
    async fn read_tail(&self, key: &str, length: u64) -> Result<Read, Error> {
        let size = self.size(key).await?;
        if size == 0 {
            return Ok(Read { bytes: Bytes::new(), size });
        }
        self.read(key, Span::Range(size.saturating_sub(length)..size)).await
    }
}

#[async_trait]
impl Backend for Remote {
    async fn create(&self, key: &str, body: Bytes) -> Result<Creation, Error> {
        let options = PutOptions::from(PutMode::Create);
        let payload = PutPayload::from(body.clone());
        match self.store.put_opts(&self.path(key), payload, options).await {
            Ok(_) => Ok(Creation::Created),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(Creation::Existed),
            Err(
                object_store::Error::NotImplemented { .. }
                | object_store::Error::NotSupported { .. },
            ) => self.create_unconditionally(key, body).await,
            Err(error) => Err(translate(Operation::Put, key, error)),
        }
    }

    async fn read(&self, key: &str, span: Span) -> Result<Read, Error> {
        let part = match &span {
            Span::Range(range) => range.clone(),
            Span::Tail(_) => 0..0,
        };
        let (range, tail) = match span {
            Span::Range(range) => (GetRange::Bounded(range), None),
            Span::Tail(length) => (GetRange::Suffix(length), Some(length)),
        };
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let result = match self.store.get_opts(&self.path(key), options).await {
            Ok(result) => result,
            Err(
                object_store::Error::NotSupported { .. }
                | object_store::Error::NotImplemented { .. },
            ) if let Some(length) = tail => return self.read_tail(key, length).await,
            Err(error) if ignores_range(&error) => return self.read_whole(key, tail, part).await,
            Err(error) => return Err(translate(Operation::Get, key, error)),
        };
        let size = result.meta.size;
        let bytes = result.bytes().await.map_err(|error| translate(Operation::Get, key, error))?;
        Ok(Read { bytes, size })
    }

    async fn size(&self, key: &str) -> Result<u64, Error> {
        let meta = self.store.head(&self.path(key)).await;
        meta.map(|meta| meta.size).map_err(|error| translate(Operation::Head, key, error))
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Listed, Error>> {
        let whole = match (self.prefix.as_str(), prefix) {
            ("", "") => None,
            (root, "") => Some(Path::from(root)),
            ("", prefix) => Some(Path::from(prefix)),
            (root, prefix) => Some(Path::from(format!("{root}/{prefix}"))),
        };
        let (root, prefix) = (self.prefix.clone(), prefix.to_owned());
        let listed = self.store.list(whole.as_ref()).map(move |meta| {
            let meta = meta.map_err(|error| translate(Operation::List, &prefix, error))?;
            let path = meta.location.as_ref();
            let key = path.strip_prefix(root.as_str()).unwrap_or(path);
            let nanos = meta.last_modified.timestamp_nanos_opt().unwrap_or(0);
            Ok(Listed {
                key: key.trim_start_matches('/').to_owned(),
                size: meta.size,
                modified: UnixNanos(u64::try_from(nanos).unwrap_or(0)),
            })
        });
        listed.boxed()
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(translate(Operation::Delete, key, error)),
        }
    }
}

/// Whether a store sent the object instead of the range. The crate has no error of its own for it.
fn ignores_range(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { source, .. }
        if source.to_string().contains("non-partial"))
}

/// The crate's error as ours. What it cannot classify may be a passing failure.
pub(crate) fn translate(operation: Operation, key: &str, error: object_store::Error) -> Error {
    let key = key.to_owned();
    match error {
        object_store::Error::NotFound { .. } => Error::NotFound { key },
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => {
            Error::Denied { operation, key, message: error.to_string() }
        }
        object_store::Error::NotSupported { .. }
        | object_store::Error::NotImplemented { .. }
        | object_store::Error::InvalidPath { .. } => {
            Error::Invalid { reason: format!("{operation} {key}: {error}") }
        }
        _ => Error::Unavailable { operation, key, message: error.to_string() },
    }
}
