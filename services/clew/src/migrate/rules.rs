//! What each key of Tempo's configuration becomes. The first rule whose pattern begins the key's path
//! counts, so that exceptions stand before what they are taken from. Keys are those of Tempo's own
//! documentation of versions 2 and 3, the old flat limits among them.

use serde_json::{Value, json};

/// What becomes of the keys that a pattern fits.
pub(super) enum Rule {
    /// A setting of Clew.
    Set {
        /// Its key.
        key: &'static str,
        /// Its value from Tempo's, or what is wrong with that.
        convert: fn(&Value) -> Result<Value, String>,
        /// What differs.
        note: &'static str,
    },
    /// None, for this reason.
    Left(&'static str),
}

const fn set(
    key: &'static str,
    convert: fn(&Value) -> Result<Value, String>,
    note: &'static str,
) -> Rule {
    Rule::Set { key, convert, note }
}

const RATE: &str = "a limit of each distributor process, as Tempo's strategy `local`";
const TRACE_BYTES: &str = "limits what is read; what is larger is stored all the same";
const RETENTION: &str = "from when spans arrived; 0 keeps them for ever in both";
const NO_GOSSIP: &str = "nodes are known by the metastore (metastore.members), not by gossip";
const NO_RING: &str = "placement is the metastore's, there is no ring to configure";
const NO_CACHE: &str = "queriers keep what they read in memory (querier.cache_bytes)";
const NO_QUEUE: &str = "the log is replicated among the ingesters, there is no queue beside them";
const BLOCKS: &str = "blocks have one format, with an index over every attribute";
const OWN_FLUSH: &str = "when heads are flushed is ingester.flush.*, by other measures";
const LATER_METRICS: &str =
    "metrics are not generated; use the collector's spanmetrics and servicegraph connectors";
const RECEIVER: &str = "only OTLP is received; put a collector with this receiver in front";
const COMPACTION: &str = "see the compactor's settings: clew config";
const TRANSPORT: &str = "limits of the listeners are fixed";
const PUBLIC_TLS: &str = "one certificate for the query API and both OTLP ports";
const INTERNAL: &str = "the internal port, for nodes of the cluster only: whoever reaches it may do \
                        everything, unless rpc.tls is set";
const PER_TENANT: &str =
    "retention is per tenant (clew tenant set), other limits are the same for all";
const HEDGE: &str = "requests to the bucket are hedged once, at most one in ten";
const NO_FRONTEND: &str = "every querier is the root of its queries, there are no jobs to size";

/// By the beginning of a path; the first that fits counts.
const RULES: &[(&str, Rule)] = &[
    ("multitenancy_enabled", set("multitenancy_enabled", boolean, "")),
    ("http_api_prefix", set("querier.http_api_prefix", text, "")),
    ("target", Rule::Left("roles are chosen by --role; without, one process runs all")),
    (
        "stream_over_http_enabled",
        Rule::Left("searches are streamed over gRPC, on http_addr, always"),
    ),
    ("autocomplete_filtering_enabled", Rule::Left("always on")),
    ("shutdown_delay", set("shutdown_delay", duration, "")),
    ("server.http_listen_port", set("http_addr", port, "")),
    ("server.http_listen_address", Rule::Left("write it before the port of http_addr")),
    ("server.grpc_listen_port", set("rpc_addr", port, INTERNAL)),
    ("server.log_level", set("telemetry.log_level", text, "")),
    ("server.log_format", set("telemetry.log_format", log_format, "")),
    ("server.http_tls_config.cert_file", set("server.tls.cert_file", text, PUBLIC_TLS)),
    ("server.http_tls_config.key_file", set("server.tls.key_file", text, PUBLIC_TLS)),
    ("server.http_tls_config.client_ca_file", set("server.tls.client_ca_file", text, PUBLIC_TLS)),
    ("server.http_tls_config", Rule::Left("see server.tls")),
    ("server.grpc_tls_config", Rule::Left("certificates of the internal port are rpc.tls")),
    ("server", Rule::Left(TRANSPORT)),
    ("internal_server", Rule::Left("/ready and /metrics are on http_addr")),
    ("distributor.receivers.otlp.protocols.grpc.endpoint", set("otlp_grpc_addr", address, "")),
    ("distributor.receivers.otlp.protocols.http.endpoint", set("otlp_http_addr", address, "")),
    ("distributor.receivers.otlp.protocols.http.cors", Rule::Left("see distributor.cors_origins")),
    (
        "distributor.receivers.otlp.protocols.grpc.tls.cert_file",
        set("server.tls.cert_file", text, PUBLIC_TLS),
    ),
    (
        "distributor.receivers.otlp.protocols.grpc.tls.key_file",
        set("server.tls.key_file", text, PUBLIC_TLS),
    ),
    (
        "distributor.receivers.otlp.protocols.grpc.tls.client_ca_file",
        set("server.tls.client_ca_file", text, PUBLIC_TLS),
    ),
    (
        "distributor.receivers.otlp.protocols.http.tls.cert_file",
        set("server.tls.cert_file", text, PUBLIC_TLS),
    ),
    (
        "distributor.receivers.otlp.protocols.http.tls.key_file",
        set("server.tls.key_file", text, PUBLIC_TLS),
    ),
    (
        "distributor.receivers.otlp.protocols.http.tls.client_ca_file",
        set("server.tls.client_ca_file", text, PUBLIC_TLS),
    ),
    ("distributor.receivers.otlp", Rule::Left("OTLP is always received; limits are distributor.*")),
    ("distributor.receivers", Rule::Left(RECEIVER)),
    (
        "distributor.max_attribute_bytes",
        Rule::Left("attributes are never cut; see distributor.span_bytes_max"),
    ),
    ("distributor.retry_after_on_resource_exhausted", set("distributor.retry_after", duration, "")),
    ("distributor.ring", Rule::Left(NO_RING)),
    ("distributor.kafka", Rule::Left(NO_QUEUE)),
    ("distributor", Rule::Left("spans are logged and counted by /metrics only")),
    ("ingester.lifecycler", Rule::Left(NO_RING)),
    ("ingester_client", Rule::Left("calls between nodes are not configured")),
    ("ingester", Rule::Left(OWN_FLUSH)),
    ("live_store_client", Rule::Left(NO_QUEUE)),
    ("live_store", Rule::Left(OWN_FLUSH)),
    ("block_builder", Rule::Left(OWN_FLUSH)),
    ("ingest", Rule::Left(NO_QUEUE)),
    ("partition_ring", Rule::Left(NO_RING)),
    ("memberlist", Rule::Left(NO_GOSSIP)),
    ("metrics_generator_client", Rule::Left(LATER_METRICS)),
    ("metrics_generator", Rule::Left(LATER_METRICS)),
    ("query_frontend.search.default_result_limit", set("querier.query.default_limit", count, "")),
    ("query_frontend.search.max_result_limit", set("querier.query.limit_max", count, "")),
    ("query_frontend.search.max_duration", set("querier.query.search_range_max", duration, "")),
    (
        "query_frontend.search.max_spans_per_span_set",
        set("querier.query.spans_per_spanset_max", count, ""),
    ),
    (
        "query_frontend.search.default_spans_per_span_set",
        set("querier.query.default_spans_per_spanset", count, ""),
    ),
    (
        "query_frontend.max_query_expression_size_bytes",
        set("querier.query.expression_bytes_max", bytes, ""),
    ),
    ("query_frontend.api_timeout", set("querier.query_timeout", duration, "")),
    (
        "query_frontend.multi_tenant_queries_enabled",
        set("querier.multi_tenant_queries_enabled", boolean, ""),
    ),
    (
        "query_frontend.max_outstanding_per_tenant",
        set("querier.queued_queries_max", count, "for all tenants of a querier together"),
    ),
    ("query_frontend.metrics", Rule::Left("limits of metrics queries are querier.*")),
    ("query_frontend.query_end_cutoff", Rule::Left("the newest data is never hidden")),
    ("query_frontend", Rule::Left(NO_FRONTEND)),
    ("querier.max_concurrent_queries", set("querier.concurrent_queries_max", count, "")),
    ("querier.search.query_timeout", set("querier.query_timeout", duration, "")),
    ("querier", Rule::Left(NO_FRONTEND)),
    ("compactor.compaction.block_retention", set("compactor.retention.age", duration, RETENTION)),
    ("compactor", Rule::Left(COMPACTION)),
    (
        "backend_scheduler.provider.compaction.compaction.block_retention",
        set("compactor.retention.age", duration, RETENTION),
    ),
    (
        "backend_worker.compaction.block_retention",
        set("compactor.retention.age", duration, RETENTION),
    ),
    ("backend_scheduler_client", Rule::Left(COMPACTION)),
    ("backend_scheduler", Rule::Left(COMPACTION)),
    ("backend_worker", Rule::Left(COMPACTION)),
    ("storage.trace.block", Rule::Left(BLOCKS)),
    ("storage.trace.wal", Rule::Left("the log is in data_dir")),
    ("storage.trace.cache", Rule::Left(NO_CACHE)),
    ("storage.trace.memcached", Rule::Left(NO_CACHE)),
    ("storage.trace.redis", Rule::Left(NO_CACHE)),
    ("storage.trace.background_cache", Rule::Left(NO_CACHE)),
    ("storage.trace.search", Rule::Left(BLOCKS)),
    ("storage.trace.pool", Rule::Left("see querier.concurrent_reads_max")),
    (
        "storage.trace.blocklist_poll",
        Rule::Left("the metastore knows every object, nothing is polled"),
    ),
    ("storage.trace.empty_tenant_deletion", Rule::Left("tenants have no folders of their own")),
    ("storage.trace.s3.hedge_requests_at", set("bucket.hedge_after", duration, HEDGE)),
    ("storage.trace.gcs.hedge_requests_at", set("bucket.hedge_after", duration, HEDGE)),
    ("storage.trace.azure.hedge_requests_at", set("bucket.hedge_after", duration, HEDGE)),
    ("storage.trace.s3.hedge_requests_up_to", Rule::Left(HEDGE)),
    ("storage.trace.gcs.hedge_requests_up_to", Rule::Left(HEDGE)),
    ("storage.trace.azure.hedge_requests_up_to", Rule::Left(HEDGE)),
    ("storage", Rule::Left("requests to the bucket are repeated by fixed rules")),
    ("cache", Rule::Left(NO_CACHE)),
    (
        "overrides.defaults.ingestion.rate_limit_bytes",
        set("distributor.tenant_rate_bytes", bytes, RATE),
    ),
    (
        "overrides.defaults.ingestion.burst_size_bytes",
        set("distributor.tenant_burst_bytes", bytes, RATE),
    ),
    (
        "overrides.defaults.ingestion.max_traces_per_user",
        Rule::Left("traces in memory are limited by bytes (ingester.head_bytes_max)"),
    ),
    (
        "overrides.defaults.global.max_bytes_per_trace",
        set("querier.query.trace_bytes_max", bytes, TRACE_BYTES),
    ),
    (
        "overrides.defaults.read.max_bytes_per_tag_values_query",
        set("querier.query.tag_values_bytes_max", bytes, ""),
    ),
    (
        "overrides.defaults.read.max_search_duration",
        set("querier.query.search_range_max", duration, ""),
    ),
    (
        "overrides.defaults.compaction.block_retention",
        set("compactor.retention.age", duration, RETENTION),
    ),
    ("overrides.defaults.compaction", Rule::Left(COMPACTION)),
    ("overrides.defaults.metrics_generator", Rule::Left(LATER_METRICS)),
    ("overrides.defaults.storage", Rule::Left(BLOCKS)),
    ("overrides.ingestion_rate_limit_bytes", set("distributor.tenant_rate_bytes", bytes, RATE)),
    ("overrides.ingestion_burst_size_bytes", set("distributor.tenant_burst_bytes", bytes, RATE)),
    ("overrides.max_bytes_per_trace", set("querier.query.trace_bytes_max", bytes, TRACE_BYTES)),
    (
        "overrides.max_bytes_per_tag_values_query",
        set("querier.query.tag_values_bytes_max", bytes, ""),
    ),
    ("overrides.max_search_duration", set("querier.query.search_range_max", duration, "")),
    ("overrides.block_retention", set("compactor.retention.age", duration, RETENTION)),
    ("overrides.metrics_generator", Rule::Left(LATER_METRICS)),
    ("overrides.per_tenant_override", Rule::Left(PER_TENANT)),
    ("overrides.user_configurable_overrides", Rule::Left(PER_TENANT)),
    ("overrides", Rule::Left("there is no such limit")),
    ("usage_report", Rule::Left("nothing is reported to anybody")),
    ("tracing", Rule::Left("own traces go to telemetry.otlp_endpoint")),
];

/// The rule for a key.
pub(super) fn find(path: &str) -> Option<&'static Rule> {
    let fits = |pattern: &str| {
        path.strip_prefix(pattern)
            // A family of keys that begin alike, as per_tenant_override_config and …_period.
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('_'))
    };
    RULES.iter().find(|(pattern, _)| fits(pattern)).map(|(_, rule)| rule)
}

fn boolean(value: &Value) -> Result<Value, String> {
    value.as_bool().map(Value::from).ok_or_else(|| format!("{value} is no truth value"))
}

fn text(value: &Value) -> Result<Value, String> {
    value.as_str().map(Value::from).ok_or_else(|| format!("{value} is no text"))
}

fn count(value: &Value) -> Result<Value, String> {
    match value.as_u64() {
        Some(number) if u32::try_from(number).is_ok() => Ok(number.into()),
        _ => Err(format!("{value} is no number that fits")),
    }
}

fn bytes(value: &Value) -> Result<Value, String> {
    // YAML's 1.5e+07 is a whole number, too; larger ones would not be told exactly.
    let whole = |number: &f64| (0.0..9e15).contains(number) && number.fract() == 0.0;
    #[allow(clippy::cast_possible_truncation, reason = "it is whole and fits")]
    let number = value.as_u64().or(value.as_f64().filter(whole).map(|number| number as u64));
    number.map(Value::from).ok_or_else(|| format!("{value} is no number of bytes"))
}

fn duration(value: &Value) -> Result<Value, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        // Tempo writes no unit for nothing.
        Value::Number(number) if number.as_u64() == Some(0) => "0s".to_owned(),
        _ => return Err(format!("{value} is no duration")),
    };
    match clew_node::config::parse_duration(&text) {
        Some(_) => Ok(text.into()),
        None => Err(format!("{value} is no duration")),
    }
}

fn port(value: &Value) -> Result<Value, String> {
    match value.as_u64().and_then(|port| u16::try_from(port).ok()) {
        Some(port) if port > 0 => Ok(json!(format!("0.0.0.0:{port}"))),
        _ => Err(format!("{value} is no port")),
    }
}

fn address(value: &Value) -> Result<Value, String> {
    let given = value.as_str().unwrap_or_default();
    match given.rsplit_once(':') {
        Some(("", port)) if port.parse::<u16>().is_ok() => Ok(json!(format!("0.0.0.0:{port}"))),
        Some((_, port)) if port.parse::<u16>().is_ok() => Ok(given.into()),
        _ => Err(format!("{value} is not host:port")),
    }
}

fn log_format(value: &Value) -> Result<Value, String> {
    match value.as_str() {
        Some("json") => Ok("json".into()),
        Some("logfmt") => Ok("text".into()),
        _ => Err(format!("{value} is not logfmt or json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_stand_before_what_they_are_taken_from() {
        for (n, (pattern, _)) in RULES.iter().enumerate() {
            let hidden = RULES[..n].iter().find(|(before, _)| {
                pattern.strip_prefix(before).is_some_and(|rest| rest.starts_with(['.', '_']))
            });
            // A family's rule may only be followed by names that are not of the family.
            assert!(hidden.is_none(), "{pattern} is hidden by {:?}", hidden.map(|(p, _)| p));
        }
    }

    #[test]
    fn every_setting_that_rules_name_exists() {
        let known = clew_node::config::shown(&crate::config::Config::default()).unwrap();
        for (pattern, rule) in RULES {
            if let Rule::Set { key, .. } = rule {
                let found = key.split('.').try_fold(&known, |tree, part| tree.get(part));
                assert!(found.is_some(), "{pattern}: there is no setting {key}");
            }
        }
    }

    #[test]
    fn values_are_converted_or_refused() {
        assert_eq!(address(&json!(":4317")), Ok(json!("0.0.0.0:4317")));
        assert_eq!(port(&json!(3200)), Ok(json!("0.0.0.0:3200")));
        assert_eq!(duration(&json!(0)), Ok(json!("0s")));
        assert_eq!(bytes(&json!(1.5e7)), Ok(json!(15_000_000)));
        assert!(bytes(&json!(1.5)).is_err() && bytes(&json!(-1)).is_err());
        for wrong in [port(&json!(70_000)), address(&json!("here")), duration(&json!("1 moon"))] {
            assert!(wrong.is_err());
        }
    }
}
