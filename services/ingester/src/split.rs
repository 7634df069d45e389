//! Which traces may have spans elsewhere: the filters of a shard's recent flushes.
//!
//! A fragment carries the split bit if its id hits the filter of a flush within the trace horizon,
//! or if that cannot be known because the filters are not loaded yet (the head was rebuilt). A false
//! bit costs a gather, a missing one is a bug, so not knowing counts as a hit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use clew_block::TraceFilter;
use clew_catalog::ObjectMeta;
use clew_model::{TenantId, TraceId, UnixNanos, planted};
use parking_lot::RwLock;

/// One registered flush, or what several were compacted into, with the filters of its blocks.
#[derive(Debug, Clone)]
pub(crate) struct RecentFlush {
    pub(crate) object: Arc<ObjectMeta>,
    pub(crate) filters: BTreeMap<TenantId, TraceFilter>,
}

/// The flushes of one shard within the trace horizon, oldest first.
#[derive(Debug)]
pub(crate) struct RecentFlushes {
    state: RwLock<State>,
    horizon: Duration,
}

#[derive(Debug, Default)]
struct State {
    flushes: VecDeque<RecentFlush>,
    /// Whether the filters of the flushes before this leader's own are here.
    complete: bool,
}

impl RecentFlushes {
    pub(crate) fn new(horizon: Duration) -> RecentFlushes {
        RecentFlushes { state: RwLock::default(), horizon }
    }

    /// Forgets everything: nothing is known until [`RecentFlushes::load`].
    pub(crate) fn reset(&self) {
        *self.state.write() = State::default();
    }

    /// Adds the flushes found in the catalog; from now on a miss is a miss.
    pub(crate) fn load(&self, earlier: Vec<RecentFlush>) {
        let mut state = self.state.write();
        for flush in earlier.into_iter().rev() {
            let key = flush.object.key;
            if state.flushes.iter().all(|known| known.object.key != key) {
                state.flushes.push_front(flush);
            }
        }
        state.complete = true;
    }

    /// Adds a flush of this leader and drops those that left the horizon.
    pub(crate) fn push(&self, flush: RecentFlush) {
        let now = flush.object.data_at;
        let mut state = self.state.write();
        state.flushes.push_back(flush);
        while state.flushes.front().is_some_and(|old| self.is_past(&old.object, now)) {
            state.flushes.pop_front();
        }
    }

    /// When the horizon begins at `now`.
    pub(crate) fn since(&self, now: UnixNanos) -> UnixNanos {
        let horizon = u64::try_from(self.horizon.as_nanos()).unwrap_or(u64::MAX);
        UnixNanos(now.0.saturating_sub(horizon))
    }

    /// Whether an object of the catalog is out of the horizon at `now`.
    pub(crate) fn is_past(&self, object: &ObjectMeta, now: UnixNanos) -> bool {
        now.since(object.data_at) > self.horizon
    }

    /// Whether an earlier flush may hold spans of the trace.
    pub(crate) fn may_hold(&self, tenant: &TenantId, trace: &TraceId) -> bool {
        let state = self.state.read();
        (!state.complete && !planted("bug::unknown_is_new"))
            || state
                .flushes
                .iter()
                .any(|flush| flush.filters.get(tenant).is_some_and(|filter| filter.contains(trace)))
    }

    /// The objects that cover the log from `after` to `through`, if all of them are known.
    pub(crate) fn covering(&self, after: u64, through: u64) -> Option<Vec<Arc<ObjectMeta>>> {
        let state = self.state.read();
        let mut border = after;
        let mut objects = Vec::new();
        for flush in &state.flushes {
            let object = &flush.object;
            if object.level > 0 {
                continue;
            }
            if object.through.index <= after || object.through.index > through {
                continue;
            }
            if object.from != border {
                return None;
            }
            border = object.through.index;
            objects.push(Arc::clone(object));
        }
        (border == through).then_some(objects)
    }
}

#[cfg(test)]
mod tests {
    use clew_catalog::{Incarnation, LogPoint, ObjectKey};
    use clew_ring::ShardId;

    use super::*;

    fn flush(from: u64, through: u64, at_seconds: u64, ids: &[TraceId]) -> RecentFlush {
        let object = ObjectMeta {
            key: ObjectKey::flush(ShardId(0), Incarnation(1), through, 0),
            size: 1,
            from,
            through: LogPoint { term: 1, leader: 1, index: through },
            level: 0,
            created_at: UnixNanos::from_seconds(at_seconds),
            data_at: UnixNanos::from_seconds(at_seconds),
            revision: 0,
            tenants: Vec::new(),
        };
        let filter = TraceFilter::build(ids);
        RecentFlush {
            object: Arc::new(object),
            filters: BTreeMap::from([(TenantId::single(), filter)]),
        }
    }

    #[test]
    fn not_knowing_counts_as_a_hit() {
        let recent = RecentFlushes::new(Duration::from_secs(60));
        let (seen, unseen) = (TraceId([1; 16]), TraceId([2; 16]));
        assert!(recent.may_hold(&TenantId::single(), &unseen));
        recent.load(vec![flush(0, 5, 1, &[seen])]);
        assert!(recent.may_hold(&TenantId::single(), &seen));
        assert!(!recent.may_hold(&TenantId::single(), &unseen));
        assert!(!recent.may_hold(&TenantId::parse("other").unwrap(), &seen));
        recent.reset();
        assert!(recent.may_hold(&TenantId::single(), &unseen));
    }

    #[test]
    fn flushes_leave_with_the_horizon() {
        let recent = RecentFlushes::new(Duration::from_secs(60));
        recent.load(Vec::new());
        let old = TraceId([1; 16]);
        recent.push(flush(0, 5, 10, &[old]));
        recent.push(flush(5, 9, 70, &[]));
        assert!(recent.may_hold(&TenantId::single(), &old));
        recent.push(flush(9, 12, 71, &[]));
        assert!(!recent.may_hold(&TenantId::single(), &old));
    }

    #[test]
    fn a_difference_is_covered_whole_or_not_at_all() {
        let recent = RecentFlushes::new(Duration::from_secs(3600));
        recent.load(vec![flush(4, 9, 1, &[])]);
        recent.push(flush(9, 12, 2, &[]));
        let borders = |after, through| {
            let objects = recent.covering(after, through)?;
            Some(objects.iter().map(|object| object.through.index).collect::<Vec<_>>())
        };
        assert_eq!(borders(4, 12), Some(vec![9, 12]));
        assert_eq!(borders(9, 12), Some(vec![12]));
        assert_eq!(borders(12, 12), Some(vec![]));
        assert_eq!(borders(0, 12), None, "the first flush is not known any more");
        assert_eq!(borders(5, 12), None, "no flush border");
    }
}
