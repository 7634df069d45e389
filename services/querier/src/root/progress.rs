//! What a search has found while it still runs.

use std::sync::Arc;

use clew_proto::query::v1 as query;
use clew_proto::tempopb::TraceSearchMetadata;
use parking_lot::Mutex;

/// Found so far, and how far the search is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// Newest first; traces of several tenants one after the other.
    pub(crate) traces: Vec<TraceSearchMetadata>,
    /// Steps that are done.
    pub(crate) done: u32,
    /// Steps that are known of.
    pub(crate) steps: u32,
}

/// Where a search puts what it has found so far, for whoever listens. Cheap to clone; nobody listens
/// to a default one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Option<Arc<Mutex<Found>>>);

impl Progress {
    /// One that is listened to.
    pub(crate) fn heard() -> Progress {
        Progress(Some(Arc::default()))
    }

    /// What was found since the last call, and how far the search is.
    pub(crate) fn take(&self) -> Found {
        let Some(found) = &self.0 else { return Found::default() };
        let mut found = found.lock();
        Found { traces: std::mem::take(&mut found.traces), ..found.clone() }
    }

    /// More steps are to be done.
    pub(crate) fn expect(&self, steps: usize) {
        if let Some(found) = &self.0 {
            let mut found = found.lock();
            found.steps = found.steps.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX));
        }
    }

    /// Steps are done, and these traces are in the answer for now.
    pub(crate) fn report(&self, steps: usize, response: &query::SearchResponse) {
        if let Some(found) = &self.0 {
            let mut found = found.lock();
            let traces = response.traces.iter().filter_map(|trace| trace.metadata.clone());
            found.traces = traces.collect();
            found.done = found.done.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX));
        }
    }
}
