//! The part of the API port that every process has, whatever its roles: readiness, metrics, status,
//! and the operator's flush. The query API is put beside it once the querier is built.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clew_node::rpc::Channel;
use clew_node::{Metrics, Problem};
use clew_proto::shard::v1::FlushRequest;
use clew_proto::shard::v1::shard_service_client::ShardServiceClient;
use serde_json::json;
use tower::ServiceExt;

use crate::config::Config;

/// What a process says about itself. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Status(Arc<Inner>);

struct Inner {
    config: Config,
    metrics: Metrics,
    ready: AtomicBool,
    api: OnceLock<Api>,
}

/// What is only there once the roles are built.
struct Api {
    querier: Option<Router>,
    shards: Option<Channel>,
}

impl Status {
    pub(crate) fn new(config: &Config, metrics: Metrics) -> Status {
        Status(Arc::new(Inner {
            config: config.clone(),
            metrics,
            ready: AtomicBool::new(false),
            api: OnceLock::new(),
        }))
    }

    /// Says whether requests are welcome.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Release);
    }

    /// Puts the query API in place. Only the first call counts.
    pub(crate) fn set_api(&self, querier: Option<Router>, shards: Option<Channel>) {
        if self.0.api.set(Api { querier, shards }).is_err() {
            tracing::error!("the query api was put in place twice");
        }
    }

    /// The routes of the API port.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .route("/status/config", get(config))
            .route("/status/version", get(version))
            .route("/flush", post(flush))
            .fallback(query)
            .with_state(self.clone())
    }
}

async fn ready(State(status): State<Status>) -> Response {
    if status.0.ready.load(Ordering::Acquire) {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
}

async fn metrics(State(status): State<Status>) -> Response {
    match status.0.metrics.render() {
        Ok(text) => {
            let content_type = "text/plain; version=0.0.4; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn status(State(status): State<Status>) -> Response {
    let config = &status.0.config;
    let roles: Vec<&str> = config.roles.iter().map(|role| role.as_str()).collect();
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": status.0.ready.load(Ordering::Acquire),
        "node": config.node.name,
        "roles": roles,
        "addresses": {
            "http": config.http_addr,
            "otlp_grpc": config.otlp_grpc_addr,
            "otlp_http": config.otlp_http_addr,
            "rpc": config.rpc_addr,
        },
        "bucket": config.bucket_shown(),
        "multitenancy_enabled": config.multitenancy_enabled,
    });
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn config(State(status): State<Status>) -> Response {
    match status.0.config.to_yaml() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/yaml")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn version() -> String {
    format!("clew {}\n", env!("CARGO_PKG_VERSION"))
}

/// Seals and flushes every shard's head; answers when the objects are registered.
async fn flush(State(status): State<Status>) -> Response {
    let Some(shards) = status.0.api.get().and_then(|api| api.shards.clone()) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "no ingester is known here\n").into_response();
    };
    match ShardServiceClient::new(shards).flush(FlushRequest::default()).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => {
            let problem = Problem::from(error);
            (problem.http_status(), format!("{problem}\n")).into_response()
        }
    }
}

/// Everything else is the query API's.
async fn query(State(status): State<Status>, request: Request) -> Response {
    let Some(api) = status.0.api.get() else {
        let retry = [(header::RETRY_AFTER, "1")];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, "starting\n").into_response();
    };
    let Some(querier) = &api.querier else {
        return (StatusCode::NOT_FOUND, "this process is no querier\n").into_response();
    };
    match querier.clone().oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}
