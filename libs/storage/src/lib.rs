//! The object store behind one narrow, write-once interface.
//!
//! A [`Bucket`] stores immutable objects: [`Bucket::put_new`] never overwrites, and repeating it
//! after an unknown outcome is safe. Reads are ranged and exact: what is returned has the asked
//! length, or there is an error. A successful put is durable: on local disk the file and every
//! directory above it are synced.
//!
//! The engine is the `object_store` crate, whose types stay inside; retries, time limits, metrics
//! and the rules above are here, so that they are the same for every provider. A [`BucketConfig`]
//! names the provider by URL: a path or `file://`, `memory://`, `s3://`, `gs://`, `az://`. Reads of
//! remote buckets that take long are made a second time, within a budget.
//!
//! Errors: see [`Error::kind`]. A failed [`Bucket::put_new`] is unknown, not undone: repeat it with
//! the same bytes, or leave an orphan that its key identifies.

mod backend;
mod bucket;
mod budget;
mod config;
mod connect;
mod disk;
mod error;
mod hedge;
mod key;
mod metrics;
mod ranges;
mod remote;
mod retry;

#[cfg(any(test, feature = "test-support"))]
pub mod conformance;
#[cfg(any(test, feature = "test-support"))]
pub mod faults;
#[cfg(any(test, feature = "test-support"))]
pub mod simulated;

pub use backend::Listed;
pub use bucket::{Bucket, OBJECT_BYTES_MAX, Put, Tail};
pub use budget::Budget;
pub use config::{BucketConfig, ConfigError, Encryption};
pub use error::{Error, Operation};
pub use key::{KEY_BYTES_MAX, KeyError};
pub use ranges::joined;
pub use retry::RetryPolicy;
