//! Settings of the metastore.

use clew_node::config::Span;
use clew_raft::GroupOptions;
use serde::{Deserialize, Serialize};

/// Shards of a new cluster for each member of its metastore, unless their number is given: one per
/// core, and not more than this. The more shards, the smaller the batches and log entries that a
/// request is divided into, which is what replication costs (`docs/performance.md`); the fewer, the
/// more of them goes to one other node when their leader dies.
const SHARDS_PER_MEMBER_MAX: usize = 4;

/// Settings of the metastore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The internal addresses of all members of the metastore, as `host:port`, the same list on every
    /// node; `dns:host:port` stands for all addresses of a name. Empty = this process alone.
    pub members: Vec<String>,
    /// How many shards a new cluster starts with; 0 = one per four cores of this node, or in a cluster
    /// one per core and at most four for each member of the metastore.
    pub shards: u32,
    /// A snapshot of the catalog is taken after this many commands.
    pub snapshot_commands: u64,
    /// How often the group's leader shows that it is alive. Without it for three to five times as long
    /// another takes over. The same on all members; longer where links are slow.
    pub raft_heartbeat: Span,
    /// How long a command or view may wait for the group's leader.
    pub timeout: Span,
    /// How long an ingester may be silent before its replicas are moved to others.
    pub dead_after: Span,
    /// The cluster's feature level rises to what all nodes support, but not above this, so that the
    /// release before can be gone back to; 0 = no bound.
    pub feature_level_max: u32,
    /// How often the catalog is backed up into the bucket, if it has changed; 0s = never.
    pub backup_interval: Span,
    /// How many backups of the catalog are kept.
    pub backups_kept: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            members: Vec::new(),
            shards: 0,
            snapshot_commands: 5_000,
            raft_heartbeat: Span(GroupOptions::default().heartbeat),
            timeout: Span::seconds(10),
            dead_after: Span::seconds(120),
            feature_level_max: 0,
            backup_interval: Span::seconds(600),
            backups_kept: 48,
        }
    }
}

impl Config {
    /// What is wrong with the settings, naming the key.
    pub fn problem(&self) -> Option<String> {
        GroupOptions::heartbeat_problem(self.raft_heartbeat.0)
            .map(|problem| format!("metastore.raft_heartbeat: {problem}"))
    }

    /// The number of shards of a new cluster with `members` metastores, on a node with `cores` cores.
    pub fn shard_count(&self, members: usize, cores: usize) -> u32 {
        if self.shards > 0 {
            return self.shards;
        }
        let count = match members {
            0 | 1 => cores.div_ceil(4),
            _ => members * cores.clamp(1, SHARDS_PER_MEMBER_MAX),
        };
        u32::try_from(count).unwrap_or(u32::MAX).max(1)
    }
}
