//! Settings of the ingester.

use clew_node::config::{Bytes, Span};
use clew_raft::GroupOptions;
use serde::{Deserialize, Serialize};

/// Settings of the ingester.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// When the head is sealed and written to the bucket.
    pub flush: FlushConfig,
    /// Memory for the heads of all shards here; past it senders are told to retry.
    pub head_bytes_max: Bytes,
    /// The largest log entry: what waits becomes one entry up to this size.
    pub entry_bytes_max: Bytes,
    /// Compressed batches that may wait for the log, per shard; past it senders are told to retry.
    pub append_queue_bytes_max: Bytes,
    /// How often the leader of a shard shows that it is alive. Without it for three to five times as
    /// long another takes over. The same on all nodes; longer where links are slow.
    pub raft_heartbeat: Span,
    /// How long an append may wait for its commit.
    pub append_timeout: Span,
    /// How long a read waits for the head to catch up.
    pub read_timeout: Span,
    /// Fragments of one trace that arrive further apart than this may be judged apart.
    pub trace_horizon: Span,
    /// The delay a sender is told when the head is full.
    pub retry_after: Span,
}

/// When the head is sealed and written to the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushConfig {
    /// Spans in the head of one shard.
    pub spans_max: u32,
    /// Uncompressed span bytes in the head of one shard.
    pub bytes_max: Bytes,
    /// Age of the oldest entry in a head that is worth a flush: one of `spans_min`.
    pub age_target: Span,
    /// A head of fewer spans, and of less than a fifth of `bytes_max`, waits until `age_max`.
    pub spans_min: u32,
    /// Age of the oldest entry in the head, however small it is.
    pub age_max: Span,
    /// zstd level of the pages.
    pub zstd_level: i32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            flush: FlushConfig::default(),
            head_bytes_max: Bytes::mebi(1024),
            entry_bytes_max: Bytes::mebi(2),
            append_queue_bytes_max: Bytes::mebi(32),
            raft_heartbeat: Span(GroupOptions::default().heartbeat),
            append_timeout: Span::seconds(10),
            read_timeout: Span::seconds(10),
            trace_horizon: Span::seconds(3600),
            retry_after: Span::seconds(2),
        }
    }
}

impl Default for FlushConfig {
    fn default() -> Self {
        FlushConfig {
            spans_max: 250_000,
            bytes_max: Bytes::mebi(80),
            age_target: Span::seconds(90),
            spans_min: 50_000,
            age_max: Span::seconds(600),
            zstd_level: 3,
        }
    }
}

impl Config {
    /// What is wrong with the settings, naming the key.
    pub fn problem(&self) -> Option<String> {
        let entry_max = Bytes::mebi(4);
        if self.flush.spans_max == 0 {
            return Some("ingester.flush.spans_max: 0 is not allowed, at least 1".to_owned());
        }
        if self.entry_bytes_max < Bytes(64 << 10) || self.entry_bytes_max > entry_max {
            let given = self.entry_bytes_max;
            return Some(format!(
                "ingester.entry_bytes_max: {given} is not in 64KiB to {entry_max}"
            ));
        }
        if self.flush.bytes_max.0 * 2 > self.head_bytes_max.0 {
            return Some(format!(
                "ingester.head_bytes_max: {} holds less than two times ingester.flush.bytes_max {}",
                self.head_bytes_max, self.flush.bytes_max
            ));
        }
        if !(1..=19).contains(&self.flush.zstd_level) {
            let given = self.flush.zstd_level;
            return Some(format!("ingester.flush.zstd_level: {given} is not in 1 to 19"));
        }
        GroupOptions::heartbeat_problem(self.raft_heartbeat.0)
            .map(|problem| format!("ingester.raft_heartbeat: {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed() {
        assert_eq!(Config::default().problem(), None);
    }

    #[test]
    fn impossible_settings_name_their_key() {
        let mut config = Config::default();
        config.flush.spans_max = 0;
        assert!(config.problem().unwrap().starts_with("ingester.flush.spans_max"));
        let config = Config { raft_heartbeat: Span::millis(501), ..Config::default() };
        assert_eq!(
            config.problem().unwrap(),
            "ingester.raft_heartbeat: 501ms is not in 20ms to 500ms"
        );
        let config = Config { head_bytes_max: Bytes(1), ..Config::default() };
        assert!(config.problem().unwrap().starts_with("ingester.head_bytes_max"));
    }
}
