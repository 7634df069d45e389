//! The querier's settings: data only, with limits for everything a client can ask for.

use std::time::Duration;

use clew_model::ErrorKind;
use clew_node::config::{Bytes, Span};
use serde::{Deserialize, Serialize};

/// Settings of the querier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether the tenant is taken from `X-Scope-OrgID`; otherwise everything belongs to one.
    #[serde(skip)]
    pub multitenancy_enabled: bool,
    /// Whether the header may name several tenants, as `a|b`.
    pub multi_tenant_queries_enabled: bool,
    /// The most tenants of one query.
    pub tenants_per_query_max: usize,
    /// Whether traces and tenants can be deleted over the API.
    pub deletions_enabled: bool,
    /// What API paths begin with, such as `/tempo`; empty for nothing.
    pub http_api_prefix: String,
    /// Limits of one request.
    pub query: QueryConfig,
    /// Queries that run at the same time.
    pub concurrent_queries_max: usize,
    /// Queries that wait for their turn; more are refused with 429.
    pub queued_queries_max: usize,
    /// Blocks read at the same time by one query.
    pub concurrent_reads_max: usize,
    /// How long a query may take, with waiting.
    pub query_timeout: Span,
    /// How long a query waits for a shard or the metastore to have a leader again.
    pub leader_wait: Span,
    /// How long this querier waits for blocks that another one reads before it reads them, too.
    pub hedge_after: Span,
    /// How old a catalog view may be that is used while the metastore is away.
    pub view_age_max: Span,
    /// Memory for catalog views, as a number of objects in them.
    pub cached_objects_max: usize,
    /// Memory for indexes and, a quarter of it, pages of blocks.
    pub cache_bytes: Bytes,
    /// Local disk for sections of blocks.
    pub disk_cache: DiskCacheConfig,
    /// Memory for the trace-id filters of blocks, about a byte per trace in the bucket.
    pub filter_cache_bytes: Bytes,
    /// Fragments of one trace lie at most this far apart in time; see the design's split traces.
    pub trace_horizon: Span,
}

/// Local disk for sections of blocks, below the cache in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskCacheConfig {
    /// The folder, for this process alone; empty for none. What is in it may be lost.
    pub path: String,
    /// The most bytes of files in it.
    pub bytes: Bytes,
    /// How long a section stays after it was read from the bucket. What was deleted there is gone from here
    /// by then.
    pub age_max: Span,
}

/// Limits of one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryConfig {
    /// Traces of a search without `limit`.
    pub default_limit: u32,
    /// The largest `limit` of a search; 0 for none.
    pub limit_max: u32,
    /// Spans shown of each spanset of a search without `spss`.
    pub default_spans_per_spanset: u32,
    /// The largest `spss`; 0 for none.
    pub spans_per_spanset_max: u32,
    /// The longest range of a search between `start` and `end`; 0 for none.
    pub search_range_max: Span,
    /// The longest TraceQL text.
    pub expression_bytes_max: Bytes,
    /// The largest trace that is answered; 0 for none.
    pub trace_bytes_max: Bytes,
    /// Tag values after which an answer is cut off, in bytes.
    pub tag_values_bytes_max: Bytes,
    /// Bytes of spans that one search may decode.
    pub inspected_bytes_max: Bytes,
    /// Spans that one search may decode.
    pub inspected_spans_max: u64,
    /// Bytes of traces that are fetched by id in one step.
    pub fetched_bytes_max: Bytes,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            multitenancy_enabled: false,
            multi_tenant_queries_enabled: true,
            tenants_per_query_max: 100,
            deletions_enabled: true,
            http_api_prefix: String::new(),
            query: QueryConfig::default(),
            concurrent_queries_max: 64,
            queued_queries_max: 2_000,
            concurrent_reads_max: 8,
            query_timeout: Span::seconds(60),
            leader_wait: Span::seconds(3),
            hedge_after: Span(Duration::from_millis(500)),
            view_age_max: Span::seconds(1_800),
            cached_objects_max: 250_000,
            cache_bytes: Bytes::mebi(128),
            disk_cache: DiskCacheConfig::default(),
            filter_cache_bytes: Bytes::mebi(128),
            trace_horizon: Span::seconds(3_600),
        }
    }
}

impl Default for DiskCacheConfig {
    fn default() -> Self {
        DiskCacheConfig {
            path: String::new(),
            bytes: Bytes::mebi(10 << 10),
            age_max: Span::seconds(24 * 3_600),
        }
    }
}

impl Default for QueryConfig {
    fn default() -> Self {
        QueryConfig {
            default_limit: 20,
            limit_max: 262_144,
            default_spans_per_spanset: 3,
            spans_per_spanset_max: 100,
            search_range_max: Span::seconds(168 * 3_600),
            expression_bytes_max: Bytes(128 << 10),
            trace_bytes_max: Bytes::mebi(64),
            tag_values_bytes_max: Bytes(1_000_000),
            inspected_bytes_max: Bytes(16 << 30),
            inspected_spans_max: 50_000_000,
            fetched_bytes_max: Bytes::mebi(256),
        }
    }
}

/// Why a querier could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A setting that cannot work.
    #[error("config key querier.{key}: {value} is not allowed, use {allowed}")]
    Setting {
        /// The key below the querier's section.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The folder of the cache on disk cannot be used.
    #[error("config key querier.disk_cache.path: {path} cannot be used: {message}")]
    DiskCache {
        /// The folder.
        path: String,
        /// Why.
        message: String,
    },
}

impl BuildError {
    /// What the caller should do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            BuildError::Setting { .. } | BuildError::DiskCache { .. } => ErrorKind::Invalid,
        }
    }
}

impl Config {
    /// Checks what types alone do not.
    ///
    /// # Errors
    /// [`BuildError::Setting`] with the first key that cannot work.
    pub fn validate(&self) -> Result<(), BuildError> {
        let prefix = self.http_api_prefix.as_str();
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
        let prefix_fits = prefix.is_empty()
            || prefix.starts_with('/') && !prefix.ends_with('/') && prefix.chars().all(plain);
        let query = &self.query;
        let at_least_one = "at least 1";
        let disk = &self.disk_cache;
        let checks: [(&'static str, bool, String, &'static str); 9] = [
            ("http_api_prefix", prefix_fits, format!("{prefix:?}"), "a path such as /tempo"),
            (
                "tenants_per_query_max",
                self.tenants_per_query_max > 0,
                self.tenants_per_query_max.to_string(),
                at_least_one,
            ),
            (
                "concurrent_queries_max",
                (1..=1 << 20).contains(&self.concurrent_queries_max),
                self.concurrent_queries_max.to_string(),
                "1 to 1048576",
            ),
            (
                "concurrent_reads_max",
                self.concurrent_reads_max > 0,
                self.concurrent_reads_max.to_string(),
                at_least_one,
            ),
            (
                "query_timeout",
                !self.query_timeout.0.is_zero(),
                self.query_timeout.to_string(),
                "more than 0s",
            ),
            (
                "disk_cache.bytes",
                disk.path.is_empty() || disk.bytes >= Bytes::mebi(64),
                disk.bytes.to_string(),
                "64MiB and more",
            ),
            (
                "disk_cache.age_max",
                !disk.age_max.0.is_zero(),
                disk.age_max.to_string(),
                "more than 0s",
            ),
            (
                "query.default_limit",
                query.default_limit > 0
                    && (query.limit_max == 0 || query.default_limit <= query.limit_max),
                query.default_limit.to_string(),
                "1 to query.limit_max",
            ),
            (
                "query.expression_bytes_max",
                (1..=128 << 10).contains(&query.expression_bytes_max.0),
                query.expression_bytes_max.to_string(),
                "1 to 128KiB",
            ),
        ];
        match checks.into_iter().find(|(_, fits, _, _)| !fits) {
            Some((key, _, value, allowed)) => Err(BuildError::Setting { key, value, allowed }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_serde() {
        let config = Config::default();
        assert_eq!(config.validate(), Ok(()));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
        assert!(serde_json::from_str::<Config>("{\"no_such_key\":1}").is_err());
    }

    #[test]
    fn bad_settings_name_their_key() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 7] = [
            (|c| c.http_api_prefix = "tempo".to_owned(), "http_api_prefix"),
            (|c| c.http_api_prefix = "/{x}".to_owned(), "http_api_prefix"),
            (|c| c.concurrent_queries_max = 0, "concurrent_queries_max"),
            (|c| c.query.default_limit = 300_000, "query.default_limit"),
            (|c| c.disk_cache.age_max = Span::seconds(0), "disk_cache.age_max"),
            (
                |c| {
                    let path = "cache".to_owned();
                    let bytes = Bytes::mebi(63);
                    c.disk_cache = DiskCacheConfig { path, bytes, ..DiskCacheConfig::default() };
                },
                "disk_cache.bytes",
            ),
            (|c| c.query.expression_bytes_max = Bytes(1 << 20), "query.expression_bytes_max"),
        ];
        for (change, key) in cases {
            let mut config = Config::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.to_string().contains(&format!("querier.{key}:")), "{error}");
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }
}
