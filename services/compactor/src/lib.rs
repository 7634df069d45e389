//! The compactor: leases jobs from the metastore, merges blocks, applies retention and deletions,
//! and removes from the bucket what nobody reads any more.
//!
//! It has no state. Whatever it does can end between any two steps: what it wrote and did not
//! register is dead by its name alone, and what it registered replaced its inputs in the same
//! command.
//!
//! Invariants:
//! - An object is written once, and registered before anything refers to it.
//! - Bytes are deleted only of objects that the metastore calls dead: by their grace, or because no
//!   command can ever register them.
//! - Memory is bounded by the size of one output, not by that of the inputs.

mod compactor;
mod config;
mod error;
mod job;
mod marks;
mod merge;
mod metastore;
mod metrics;
mod output;
mod pages;
mod sweep;
mod throttle;

pub use compactor::{Compactor, Parts};
pub use config::{Config, RetentionConfig};
pub use error::CompactorError;
pub use pages::identity_of;

/// Ends the process if a test asks for it at this point.
pub(crate) fn crash_point(name: &str) {
    fail::fail_point!(name, |_| std::process::abort());
    let _ = name;
}
