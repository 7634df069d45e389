//! The defects that can be planted in production code to see that a run notices them.

/// A defect behind a switch that only builds for tests have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planted {
    /// The name of its switch.
    pub name: &'static str,
    /// What goes wrong.
    pub what: &'static str,
    /// Seeds, from the first on, within which the usual run notices it; nothing if that is not certain.
    pub within: Option<u64>,
}

const fn planted(name: &'static str, what: &'static str, within: Option<u64>) -> Planted {
    Planted { name, what, within }
}

/// Every planted defect.
pub const PLANTED: [Planted; 12] = [
    planted("bug::ack_before_commit", "a batch is acknowledged before it is committed", Some(1)),
    planted("bug::log_not_synced", "an append to the log is not synced", Some(1)),
    planted("bug::vote_not_saved", "a vote is not saved", None),
    planted("bug::no_compare_and_set", "a flush is registered wherever it begins", None),
    planted("bug::seal_too_far", "a flush is registered for more than it holds", None),
    planted("bug::purge_first", "the log is told before the flush is registered", None),
    planted("bug::members_of_now", "a shard's snapshot has the members of now", None),
    planted("bug::disk_keeps_id", "an emptied disk keeps its replica id", None),
    planted("bug::unknown_is_new", "a trace is not split while the filters are not loaded", None),
    planted("bug::read_without_index", "a read does not confirm leadership", None),
    planted(
        "bug::commit_without_lease",
        "a compaction is committed after its lease was given to another",
        None,
    ),
    planted("bug::no_grace", "replaced objects are deleted at once", None),
];
