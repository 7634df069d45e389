//! Deletions: traces that nobody may see any more, and the record of what became of them.

use std::sync::Arc;

use clew_model::{TenantId, TraceId, UnixNanos};

use crate::ident::{DeletionId, RequestId};

/// The most traces that one deletion names.
pub const DELETION_TRACES_MAX: usize = 100_000;

/// The longest text of a query in the record of a deletion, in bytes.
pub const DELETION_QUERY_BYTES_MAX: usize = 128 << 10;

/// What is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeletionScope {
    /// These traces, ascending, in every object registered before. Empty once all is done.
    Traces(Arc<[TraceId]>),
    /// Everything the tenant has.
    Tenant,
}

/// A deletion and what became of it.
///
/// It concerns the objects that are older than it: spans that arrive later stay, also those of a
/// deleted trace. Whoever asks for one flushes the heads first, so that all that was acknowledged
/// before lies in such objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Names it; also the revision before which objects are concerned.
    pub id: DeletionId,
    /// The request that asked for it.
    pub request: RequestId,
    /// Whose traces.
    pub tenant: TenantId,
    /// Which.
    pub scope: DeletionScope,
    /// How the traces were chosen, for people: a query, or nothing.
    pub query: String,
    /// How many traces were named.
    pub named: u64,
    /// When it was asked for.
    pub at: UnixNanos,
    /// When the last byte was gone.
    pub done_at: Option<UnixNanos>,
    /// How many traces were removed from objects so far; a trace in two objects counts twice.
    pub traces: u64,
    /// How many spans were removed so far.
    pub spans: u64,
}

impl Deletion {
    /// Whether it concerns an object of this revision.
    pub fn concerns(&self, revision: u64) -> bool {
        self.done_at.is_none() && revision < self.id.0
    }

    /// The traces it names, ascending.
    pub fn ids(&self) -> &[TraceId] {
        match &self.scope {
            DeletionScope::Traces(ids) => ids,
            DeletionScope::Tenant => &[],
        }
    }
}
