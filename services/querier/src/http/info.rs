//! Endpoints that need no data.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use clew_query::refuse_metrics_query;
use http::{HeaderMap, Uri};

use super::fault::Fault;
use super::query_string::Parameters;
use super::reply::json_of;
use super::tenant::tenants_of;
use super::{Api, params};

/// The version of Tempo's API that this one stands for, which Grafana reads as what it may use:
/// search streaming from 2.2.0 and metrics streaming from 2.7.0, which does not exist here yet.
pub(crate) const TEMPO_API_VERSION: &str = "2.6.0";

/// The health check of Grafana's data source.
pub(crate) async fn echo() -> &'static str {
    "echo\n"
}

/// `GET /api/status/buildinfo`
pub(crate) async fn build_info(State(api): State<Arc<Api>>) -> Result<Response, Fault> {
    let version = &api.version;
    json_of(&serde_json::json!({
        "version": TEMPO_API_VERSION,
        "revision": version.revision,
        "branch": format!("clew-{}", version.version),
        "buildDate": version.build_date,
        "buildUser": "",
        "goVersion": "",
    }))
}

/// `GET /api/metrics/query_range` and `GET /api/metrics/query`
pub(crate) async fn metrics_query(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    tenants_of(&headers, &api.config)?;
    let parameters = Parameters::parse(uri.query().unwrap_or(""))?;
    let query = params::metrics_query(&parameters, &api.config.query)?;
    Err(Fault::bad(refuse_metrics_query(&query).to_string()))
}

/// The structural difference of two traces.
pub(crate) async fn diff() -> Fault {
    Fault::unsupported("the difference of traces")
}
