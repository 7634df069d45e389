//! The part of the API port that every process has, whatever its roles: readiness, metrics, status,
//! and the operator's flush. The query API is put beside it once the querier is built.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clew_catalog::SharedTopology;
use clew_node::rpc::Channel;
use clew_node::{Metrics, Problem};
use clew_proto::shard::v1::FlushRequest;
use clew_proto::shard::v1::shard_service_client::ShardServiceClient;
use serde_json::json;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::cluster;
use crate::config::Config;
use crate::router::ClusterRouter;

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
    insight: Insight,
}

/// What a process knows of its cluster.
pub(crate) struct Insight {
    pub(crate) metastore: Channel,
    pub(crate) topology: watch::Receiver<SharedTopology>,
    pub(crate) router: Arc<ClusterRouter>,
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
    pub(crate) fn set_api(&self, querier: Option<Router>, insight: Insight) {
        if self.0.api.set(Api { querier, insight }).is_err() {
            tracing::error!("the query api was put in place twice");
        }
    }

    /// The routes of the API port.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .route("/status/cluster", get(cluster_status))
            .route("/status/config", get(config))
            .route("/status/services", get(services))
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
        "node": config.node_name(),
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

/// The roles and how they are, a line each: what Tempo's clients take for a health check.
async fn services(State(status): State<Status>) -> String {
    let state = if status.0.ready.load(Ordering::Acquire) { "Running" } else { "Not ready" };
    let roles = status.0.config.roles.iter().map(|role| role.as_str());
    std::iter::once(("SERVICE", "STATUS"))
        .chain(roles.map(|role| (role, state)))
        .map(|(role, state)| format!("{role:<16}{state}\n"))
        .collect()
}

async fn version() -> String {
    format!("clew {}\n", env!("CARGO_PKG_VERSION"))
}

/// The cluster as the metastore's leader sees it: JSON, or a page for a browser.
async fn cluster_status(State(status): State<Status>, headers: HeaderMap) -> Response {
    let Some(api) = status.0.api.get() else { return starting() };
    let Insight { metastore, topology, .. } = &api.insight;
    let topology = topology.borrow().clone();
    let account = match cluster::ask(metastore.clone()).await {
        Ok(account) => account,
        Err(problem) => return (problem.http_status(), format!("{problem}\n")).into_response(),
    };
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepts.is_some_and(|accepts| accepts.contains("text/html")) {
        let page = cluster::page(&topology, &account);
        return ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response();
    }
    let body = cluster::json(&topology, &account).to_string();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Seals and flushes every shard's head, wherever it is led; answers when the objects are registered.
async fn flush(State(status): State<Status>) -> Response {
    let Some(api) = status.0.api.get() else { return starting() };
    let leaders = api.insight.router.leading_nodes();
    let flushes = leaders.into_iter().map(|leader| async move {
        ShardServiceClient::new(leader).flush(FlushRequest::default()).await
    });
    for flushed in futures::future::join_all(flushes).await {
        if let Err(error) = flushed {
            let problem = Problem::from(error);
            return (problem.http_status(), format!("{problem}\n")).into_response();
        }
    }
    StatusCode::NO_CONTENT.into_response()
}

fn starting() -> Response {
    let retry = [(header::RETRY_AFTER, "1")];
    (StatusCode::SERVICE_UNAVAILABLE, retry, "starting\n").into_response()
}

/// Everything else is the query API's.
async fn query(State(status): State<Status>, request: Request) -> Response {
    let Some(api) = status.0.api.get() else { return starting() };
    let Some(querier) = &api.querier else {
        return (StatusCode::NOT_FOUND, "this process is no querier\n").into_response();
    };
    match querier.clone().oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}
