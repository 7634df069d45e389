//! What the clients of a cluster know: what they sent, what was acknowledged, what was deleted, and
//! what may or may not have happened. A call that failed is unknown, for ever: it may take effect later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

/// Spans of every trace: two pieces of two.
pub(crate) const SPANS: usize = 4;

/// Traces that one search looks for.
const GROUP: usize = 48;

/// A trace, by its place in the ledger.
pub(crate) type TraceIndex = usize;

/// Traces of one tenant that are searched for together, by their place in the ledger.
pub(crate) type GroupIndex = usize;

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

/// What is known of a trace's deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// Nobody asked for it.
    None,
    /// Asked for, and it may have happened, in part too.
    Unknown,
    /// Accepted.
    Done,
}

/// A trace as its sender knows it.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(crate) id: u128,
    /// Whose it is.
    pub(crate) tenant: usize,
    pub(crate) deletion: Deletion,
    /// When the last of it was sent, by the sender's clock; nothing while some is still to be sent.
    pub(crate) ended_unix_nanos: Option<u64>,
    pub(crate) spans: [u64; SPANS],
    pub(crate) fates: [Fate; SPANS],
    /// When it began, by the sender's clock.
    pub(crate) began_unix_nanos: u64,
}

impl Trace {
    /// Its id as people write it.
    pub(crate) fn hex(&self) -> String {
        format!("{:032x}", self.id)
    }

    fn count(&self, fate: Fate) -> usize {
        self.fates.iter().filter(|known| **known >= fate).count()
    }

    /// Whether every span was acknowledged, and none may be deleted.
    pub(crate) fn is_whole(&self) -> bool {
        self.count(Fate::Acked) == SPANS && self.deletion == Deletion::None
    }

    /// Whether every span was sent at least.
    pub(crate) fn was_sent_whole(&self) -> bool {
        self.count(Fate::Unknown) == SPANS
    }

    /// The spans that have to be there.
    pub(crate) fn acked(&self) -> BTreeSet<u64> {
        if self.deletion != Deletion::None {
            return BTreeSet::new();
        }
        let spans = self.spans.iter().zip(self.fates);
        spans.filter(|(_, fate)| *fate == Fate::Acked).map(|(span, _)| *span).collect()
    }
}

/// Traces of one tenant that are searched for together.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) tenant: usize,
    pub(crate) traces: Vec<TraceIndex>,
}

/// Everything that was ever sent. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    traces: Vec<Trace>,
    by_id: BTreeMap<u128, TraceIndex>,
    groups: Vec<Group>,
    /// The group that takes the next trace, by tenant.
    open: BTreeMap<usize, GroupIndex>,
    /// The group of each trace.
    group_of: Vec<GroupIndex>,
}

impl Ledger {
    /// Notes a trace of which nothing was sent yet.
    pub(crate) fn add(&self, trace: Trace) -> TraceIndex {
        let mut book = self.0.lock();
        let index = book.traces.len();
        book.by_id.insert(trace.id, index);
        let tenant = trace.tenant;
        book.traces.push(trace);
        let open = book.open.get(&tenant).copied();
        let group = open.filter(|group| book.groups[*group].traces.len() < GROUP);
        let group = group.unwrap_or_else(|| {
            book.groups.push(Group { tenant, traces: Vec::new() });
            book.groups.len() - 1
        });
        book.open.insert(tenant, group);
        book.groups[group].traces.push(index);
        book.group_of.push(group);
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

    /// How many search groups there are.
    pub(crate) fn groups(&self) -> usize {
        self.0.lock().groups.len()
    }

    /// Whose a search group is.
    pub(crate) fn tenant_of(&self, group: GroupIndex) -> usize {
        self.0.lock().groups[group].tenant
    }

    /// The search group of a trace.
    pub(crate) fn group_of(&self, trace: TraceIndex) -> GroupIndex {
        self.0.lock().group_of[trace]
    }

    /// The traces of a search group.
    pub(crate) fn group(&self, group: GroupIndex) -> Vec<Trace> {
        let book = self.0.lock();
        book.groups[group].traces.iter().map(|index| book.traces[*index].clone()).collect()
    }

    /// Notes that nothing more of a trace will be sent.
    pub(crate) fn ended(&self, trace: TraceIndex, now_unix_nanos: u64) {
        self.0.lock().traces[trace].ended_unix_nanos = Some(now_unix_nanos);
    }

    /// Traces of a tenant that ended before a time, all of them acknowledged: what may be deleted
    /// without a late copy bringing it back. At most `count`, beginning with the one at `from`.
    pub(crate) fn settled(
        &self,
        tenant: usize,
        before_unix_nanos: u64,
        from: TraceIndex,
        count: usize,
    ) -> Vec<TraceIndex> {
        let book = self.0.lock();
        let is_settled = |trace: &Trace| {
            trace.tenant == tenant
                && trace.is_whole()
                && trace.ended_unix_nanos.is_some_and(|ended| ended < before_unix_nanos)
        };
        let traces = book.traces.iter().enumerate().skip(from);
        traces.filter(|(_, trace)| is_settled(trace)).map(|(at, _)| at).take(count).collect()
    }

    /// Notes what is known of the deletion of traces.
    pub(crate) fn deleted(&self, traces: &[TraceIndex], deletion: Deletion) {
        let mut book = self.0.lock();
        for trace in traces {
            book.traces[*trace].deletion = deletion;
        }
    }

    /// How many spans were acknowledged.
    pub(crate) fn acked_spans(&self) -> usize {
        self.0.lock().traces.iter().map(|trace| trace.count(Fate::Acked)).sum()
    }
}
