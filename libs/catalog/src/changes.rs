//! The latest changes of the catalog, so that readers can follow it without fetching it again.

use std::collections::VecDeque;
use std::sync::Arc;

use clew_model::TenantId;

use crate::deletion::Deletion;
use crate::gap::Gap;
use crate::key::ObjectKey;
use crate::object::ObjectMeta;
use crate::state::Generation;
use crate::view::{Quarantine, ShardView};

/// How many changes are remembered.
const CHANGES_MAX: usize = 8_192;

/// One change of what queries see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The revision that made it.
    pub revision: u64,
    /// What changed.
    pub kind: ChangeKind,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// A flushed object was registered, and its shard's watermark moved to its end.
    ObjectAdded(Arc<ObjectMeta>),
    /// A block was found damaged.
    BlockQuarantined(Quarantine),
    /// A block that was quarantined is whole: it is read again.
    QuarantineLifted {
        /// Its object.
        object: Arc<ObjectMeta>,
        /// Whose block of it.
        tenant: TenantId,
    },
    /// A shard's log was opened; a previous incarnation is closed.
    ShardOpened(ShardView),
    /// The shard map has a new generation.
    GenerationAdded(Generation),
    /// Objects are read no longer, and others are, or have another description.
    ObjectsReplaced {
        /// Those that are not read any more.
        gone: Vec<ObjectKey>,
        /// Those that are read from now on, or otherwise than before.
        added: Vec<Arc<ObjectMeta>>,
    },
    /// Traces were deleted, or are physically gone by now.
    DeletionChanged(Arc<Deletion>),
    /// These are all gaps now.
    GapsChanged(Vec<Gap>),
}

/// A bounded list of changes, ascending by revision.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChangeLog {
    /// Every change after this revision is in the list.
    floor: u64,
    changes: VecDeque<Change>,
}

impl ChangeLog {
    /// A list that remembers nothing up to `floor`.
    pub(crate) fn starting_after(floor: u64) -> ChangeLog {
        ChangeLog { floor, changes: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, change: Change) {
        self.changes.push_back(change);
        while self.changes.len() > CHANGES_MAX {
            if let Some(forgotten) = self.changes.pop_front() {
                self.floor = forgotten.revision;
            }
        }
    }

    pub(crate) fn since(&self, revision: u64) -> Option<Vec<Change>> {
        if revision < self.floor {
            return None;
        }
        let first = self.changes.partition_point(|change| change.revision <= revision);
        Some(self.changes.range(first..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use clew_ring::ShardId;

    use super::*;
    use crate::ident::{Incarnation, LogPoint};

    #[test]
    fn old_changes_are_forgotten_and_said_to_be() {
        let mut log = ChangeLog::starting_after(10);
        let watermark = LogPoint::default();
        let (shard, incarnation) = (ShardId(0), Incarnation(1));
        let shard = ShardView { shard, incarnation, watermark, replicas: vec![] };
        for revision in 11..=10 + 2 * CHANGES_MAX as u64 {
            log.push(Change { revision, kind: ChangeKind::ShardOpened(shard.clone()) });
        }
        let floor = 10 + CHANGES_MAX as u64;
        assert_eq!(log.since(floor - 1), None);
        assert_eq!(log.since(floor).unwrap().len(), CHANGES_MAX);
        assert_eq!(log.since(floor).unwrap()[0].revision, floor + 1);
        assert_eq!(log.since(floor + CHANGES_MAX as u64), Some(vec![]));
        assert_eq!(ChangeLog::starting_after(10).since(9), None);
    }
}
