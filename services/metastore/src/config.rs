//! Settings of the metastore.

use clew_node::config::Span;
use serde::{Deserialize, Serialize};

/// Settings of the metastore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many shards a new cluster starts with; 0 = one per four cores of this node.
    pub shards: u32,
    /// A snapshot of the catalog is taken after this many commands.
    pub snapshot_commands: u64,
    /// How long a command or view may wait for the group's leader.
    pub timeout: Span,
}

impl Default for Config {
    fn default() -> Self {
        Config { shards: 0, snapshot_commands: 5_000, timeout: Span::seconds(10) }
    }
}

impl Config {
    /// The number of shards of a new cluster on a node with `cores` cores.
    pub fn shard_count(&self, cores: usize) -> u32 {
        if self.shards > 0 {
            return self.shards;
        }
        u32::try_from(cores.div_ceil(4)).unwrap_or(u32::MAX).max(1)
    }
}
