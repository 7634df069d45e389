//! What the clients of a cluster know: what they sent, what was acknowledged, and what may or may not
//! have been stored. A call that failed is unknown, for ever: it may take effect later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

/// Spans of every trace: two pieces of two.
pub(crate) const SPANS: usize = 4;

/// Traces that one search looks for.
pub(crate) const GROUP: usize = 8;

/// A trace, by its place in the ledger.
pub(crate) type TraceIndex = usize;

/// What is known of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// Never sent.
    Unsent,
    /// On its way, or given up: it may be stored.
    Unknown,
    /// Acknowledged.
    Acked,
}

/// A trace as its sender knows it.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(crate) id: u128,
    pub(crate) spans: [u64; SPANS],
    pub(crate) fates: [Fate; SPANS],
    /// When it began, by the sender's clock.
    pub(crate) began_unix_nanos: u64,
}

impl Trace {
    /// The search group it is in.
    pub(crate) fn hex(&self) -> String {
        format!("{:032x}", self.id)
    }

    fn count(&self, fate: Fate) -> usize {
        self.fates.iter().filter(|known| **known >= fate).count()
    }

    /// Whether every span was acknowledged.
    pub(crate) fn is_whole(&self) -> bool {
        self.count(Fate::Acked) == SPANS
    }

    /// Whether every span was sent at least.
    pub(crate) fn may_be_whole(&self) -> bool {
        self.count(Fate::Unknown) == SPANS
    }

    pub(crate) fn acked(&self) -> BTreeSet<u64> {
        let spans = self.spans.iter().zip(self.fates);
        spans.filter(|(_, fate)| *fate == Fate::Acked).map(|(span, _)| *span).collect()
    }
}

/// Everything that was ever sent. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    traces: Vec<Trace>,
    by_id: BTreeMap<u128, TraceIndex>,
}

impl Ledger {
    /// Notes a trace of which nothing was sent yet.
    pub(crate) fn add(&self, trace: Trace) -> TraceIndex {
        let mut book = self.0.lock();
        let index = book.traces.len();
        book.by_id.insert(trace.id, index);
        book.traces.push(trace);
        index
    }

    /// Notes that spans are on their way.
    pub(crate) fn sent(&self, pieces: &[(TraceIndex, usize)]) {
        self.set(pieces, Fate::Unknown);
    }

    /// Notes that spans were acknowledged.
    pub(crate) fn acked(&self, pieces: &[(TraceIndex, usize)]) {
        self.set(pieces, Fate::Acked);
    }

    fn set(&self, pieces: &[(TraceIndex, usize)], fate: Fate) {
        let mut book = self.0.lock();
        for (trace, span) in pieces {
            let known = &mut book.traces[*trace].fates[*span];
            *known = fate.max(*known);
        }
    }

    pub(crate) fn trace(&self, index: TraceIndex) -> Trace {
        self.0.lock().traces[index].clone()
    }

    pub(crate) fn find(&self, id: u128) -> Option<TraceIndex> {
        self.0.lock().by_id.get(&id).copied()
    }

    /// How many traces there are.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().traces.len()
    }

    /// The traces of a search group.
    pub(crate) fn group(&self, group: usize) -> Vec<Trace> {
        let book = self.0.lock();
        let traces = book.traces.iter().skip(group * GROUP).take(GROUP);
        traces.cloned().collect()
    }

    /// How many spans were acknowledged.
    pub(crate) fn acked_spans(&self) -> usize {
        self.0.lock().traces.iter().map(|trace| trace.count(Fate::Acked)).sum()
    }
}

/// The group of a trace.
pub(crate) fn group_of(index: TraceIndex) -> usize {
    index / GROUP
}
