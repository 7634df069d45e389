//! The Tempo-compatible HTTP API.
//!
//! Routes do not check the method, as Tempo's do not. Errors are plain text with the status that
//! Tempo's clients expect.

mod deletions;
mod duration;
mod fault;
mod gate;
mod handlers;
mod info;
mod logfmt;
mod params;
mod query_string;
mod reply;
mod tag_path;
mod tenant;

use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use clew_node::Deps;
use tower_http::compression::CompressionLayer;

pub(crate) use self::fault::Fault;
pub(crate) use self::gate::{Gate, admitted};
pub(crate) use self::params::{from_metrics, from_search, from_tag_names, from_tag_values};
pub(crate) use self::tenant::tenants_of;
use crate::Config;
use crate::metrics::QuerierMetrics;
use crate::querier::VersionInfo;
use crate::root::Root;

/// What handlers share.
pub(crate) struct Api {
    pub(crate) config: Config,
    pub(crate) deps: Deps,
    pub(crate) root: Root,
    pub(crate) metrics: Arc<QuerierMetrics>,
    pub(crate) version: VersionInfo,
    pub(crate) gate: Gate,
}

/// The API's routes below the configured prefix.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let prefix = api.config.http_api_prefix.clone();
    let routes = Router::new()
        .route("/api/echo", any(info::echo))
        .route("/api/status/buildinfo", any(info::build_info))
        .route("/api/traces/{id}", any(handlers::trace_v1))
        .route("/api/v2/traces/{id}", any(handlers::trace_v2))
        .route("/api/v2/traces/diff", any(info::diff))
        .route("/api/search", any(handlers::search))
        .route("/api/search/tags", any(handlers::tag_names_v1))
        .route("/api/v2/search/tags", any(handlers::tag_names_v2))
        // The name may hold slashes, encoded or (behind some proxies) not.
        .route("/api/search/tag/{*rest}", any(handlers::tag_values_v1))
        .route("/api/v2/search/tag/{*rest}", any(handlers::tag_values_v2))
        .route("/api/metrics/query_range", any(info::metrics_query))
        .route("/api/metrics/query", any(info::metrics_query))
        .route("/api/deletions", any(deletions::deletions))
        .route("/api/tenant", any(deletions::remove_tenant))
        .with_state(api);
    let routes = if prefix.is_empty() { routes } else { Router::new().nest(&prefix, routes) };
    routes.layer(CompressionLayer::new())
}
