//! Settings of the compactor.

use clew_node::config::{Bytes, Span};
use clew_proto::metastore::v1::CompactionOptions;
use serde::{Deserialize, Serialize};

/// Settings of the compactor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Jobs done at the same time.
    pub jobs_max: usize,
    /// The share of a core that one job may use.
    pub cpu_share: f64,
    /// How often work is looked for when there was none.
    pub poll_interval: Span,
    /// How long after the last sign of life another compactor takes a job over.
    pub lease: Span,
    /// So many blocks are merged as soon as they are there.
    pub fan_in: u32,
    /// The most bytes of all inputs of a job. A merged block larger than its share of that, by
    /// `fan_in`, is not merged again.
    pub input_bytes_max: Bytes,
    /// How often a span is merged at most.
    pub levels: u32,
    /// Blocks are merged with those of the same stretch of time.
    pub window: Span,
    /// How long after a stretch of time its last blocks are merged.
    pub settle: Span,
    /// From this size on a tenant's block is an object of its own.
    pub own_object_bytes: Bytes,
    /// Past this size an object of several tenants is finished.
    pub object_bytes_max: Bytes,
    /// Past so many spans a block is finished and another begun; bounds memory.
    pub block_spans_max: u32,
    /// Past so many bytes of OTLP a block is finished and another begun; bounds memory.
    pub block_bytes_max: Bytes,
    /// zstd level of the pages.
    pub zstd_level: i32,
    /// How long spans are kept.
    pub retention: RetentionConfig,
    /// How long after it was asked for a deletion is carried out in the bucket.
    pub deletion_delay: Span,
    /// How long the bytes of replaced blocks stay for queries that began before.
    pub grace: Span,
    /// How often the bucket is searched for objects that nobody knows.
    pub orphan_interval: Span,
    /// Fragments of one trace that lie further apart than this may be judged apart. As the
    /// ingester's.
    #[serde(skip, default = "hour")]
    pub trace_horizon: Span,
}

/// How long spans are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// Spans that arrived longer ago are dropped; 0 keeps them for ever.
    pub age: Span,
    /// Of a tenant that has more bytes in the bucket the oldest are dropped; 0 is no bound.
    pub bytes: Bytes,
}

const HOUR: u64 = 3_600;

fn hour() -> Span {
    Span::seconds(HOUR)
}

impl Default for Config {
    fn default() -> Self {
        Config {
            jobs_max: 1,
            cpu_share: 0.5,
            poll_interval: Span::seconds(5),
            lease: Span::seconds(60),
            fan_in: 24,
            input_bytes_max: Bytes::mebi(512),
            levels: 2,
            window: Span::seconds(24 * HOUR),
            settle: Span::seconds(600),
            own_object_bytes: Bytes::mebi(64),
            object_bytes_max: Bytes::mebi(128),
            block_spans_max: 1_000_000,
            block_bytes_max: Bytes::mebi(768),
            zstd_level: 3,
            retention: RetentionConfig { age: Span::seconds(14 * 24 * HOUR), bytes: Bytes(0) },
            deletion_delay: Span::seconds(600),
            grace: Span::seconds(2_400),
            orphan_interval: Span::seconds(HOUR),
            trace_horizon: Span::seconds(HOUR),
        }
    }
}

impl Config {
    /// What is wrong with the settings, naming the key.
    pub fn problem(&self) -> Option<String> {
        let wrong = |key: &str, value: String, allowed: &str| {
            Some(format!("compactor.{key}: {value} is not allowed, use {allowed}"))
        };
        if !(1..=64).contains(&self.jobs_max) {
            return wrong("jobs_max", self.jobs_max.to_string(), "1 to 64");
        }
        if !(0.01..=1.0).contains(&self.cpu_share) {
            return wrong("cpu_share", self.cpu_share.to_string(), "0.01 to 1");
        }
        if !(2..=256).contains(&self.fan_in) {
            return wrong("fan_in", self.fan_in.to_string(), "2 to 256");
        }
        if !(1..=8).contains(&self.levels) {
            return wrong("levels", self.levels.to_string(), "1 to 8");
        }
        if !(1..=19).contains(&self.zstd_level) {
            return wrong("zstd_level", self.zstd_level.to_string(), "1 to 19");
        }
        if self.block_spans_max == 0 || self.block_spans_max > 1 << 28 {
            return wrong("block_spans_max", self.block_spans_max.to_string(), "1 to 268435456");
        }
        let object_max = Bytes::mebi(1024);
        let sizes = [
            ("object_bytes_max", self.object_bytes_max, Bytes(1), object_max),
            ("block_bytes_max", self.block_bytes_max, Bytes::mebi(1), object_max),
            ("input_bytes_max", self.input_bytes_max, Bytes(1), Bytes(u64::MAX)),
        ];
        for (key, value, low, high) in sizes {
            if value < low || value > high {
                return wrong(key, value.to_string(), &format!("{low} to {high}"));
            }
        }
        let times = [
            ("poll_interval", self.poll_interval),
            ("lease", self.lease),
            ("window", self.window),
            ("orphan_interval", self.orphan_interval),
        ];
        let zero = times.iter().find(|(_, span)| span.0.is_zero());
        if let Some((key, span)) = zero {
            return wrong(key, span.to_string(), "more than 0s");
        }
        None
    }

    /// What the metastore plans by.
    pub(crate) fn options(&self) -> CompactionOptions {
        CompactionOptions {
            fan_in: self.fan_in,
            input_bytes_max: self.input_bytes_max.0,
            levels: self.levels,
            window: nanos(self.window),
            settle: nanos(self.settle),
            own_object_bytes: self.own_object_bytes.0,
            retention_age: nanos(self.retention.age),
            retention_bytes: self.retention.bytes.0,
            deletion_delay: nanos(self.deletion_delay),
            grace: nanos(self.grace),
            horizon: nanos(self.trace_horizon),
        }
    }
}

pub(crate) fn nanos(span: Span) -> u64 {
    u64::try_from(span.0.as_nanos()).unwrap_or(u64::MAX)
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
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 5] = [
            (|c| c.cpu_share = f64::NAN, "compactor.cpu_share: NaN"),
            (|c| c.fan_in = 1, "compactor.fan_in: 1"),
            (|c| c.block_spans_max = 0, "compactor.block_spans_max: 0"),
            (|c| c.lease = Span::seconds(0), "compactor.lease: 0s"),
            (|c| c.zstd_level = 20, "compactor.zstd_level: 20"),
        ];
        for (change, message) in cases {
            let mut config = Config::default();
            change(&mut config);
            let problem = config.problem().unwrap_or_default();
            assert!(problem.starts_with(message), "{problem}");
        }
    }
}
