//! The defects that can be planted in production code to see that a run notices them.

/// Seeds, from the first on, within which the usual run notices each of them.
pub const WITHIN: u64 = 12;

/// Name and meaning of every planted defect.
pub const PLANTED: [(&str, &str); 12] = [
    ("bug::ack_before_commit", "a batch is acknowledged before it is committed"),
    ("bug::log_not_synced", "an append to the log is not synced"),
    ("bug::vote_not_saved", "a vote is not saved"),
    ("bug::no_compare_and_set", "a flush is registered wherever it begins"),
    ("bug::seal_too_far", "a flush is registered for more than it holds"),
    ("bug::purge_first", "the log is told before the flush is registered"),
    ("bug::members_of_now", "a shard's snapshot has the members of now"),
    ("bug::disk_keeps_id", "an emptied disk keeps its replica id"),
    ("bug::unknown_is_new", "a trace is not split while the filters are not loaded"),
    ("bug::read_without_index", "a read does not confirm leadership"),
    ("bug::commit_without_lease", "a compaction is committed after its lease was given to another"),
    ("bug::no_grace", "replaced objects are deleted at once"),
];
