//! The internal port: what the other processes of the cluster call. It is open before the roles are
//! built, since the metastore comes together over it; what is not there yet is answered with "try
//! again", never with "unknown".

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::response::IntoResponse;
use clew_model::ErrorKind;
use clew_node::Problem;
use parking_lot::RwLock;
use tonic::service::Routes;
use tower::ServiceExt;

/// The services that are there by now. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Inside(Arc<RwLock<Router>>);

impl Inside {
    /// A port without services.
    pub(crate) fn new() -> Inside {
        Inside(Arc::new(RwLock::new(Router::new().fallback(not_yet))))
    }

    /// Puts these services in the place of those before.
    pub(crate) fn put(&self, routes: Routes) {
        *self.0.write() = routes.into_axum_router().fallback(not_yet);
    }

    /// The routes of the listener.
    pub(crate) fn router(&self) -> Router {
        Router::new().fallback(pass).with_state(self.clone())
    }
}

async fn pass(State(inside): State<Inside>, request: Request) -> Response<Body> {
    let router = inside.0.read().clone();
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn not_yet() -> impl IntoResponse {
    let problem = Problem::new(ErrorKind::Unavailable, "not_here", "no such service here now");
    tonic::Status::from(problem).into_http::<Body>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_there_yet_can_be_tried_again() {
        let request = Request::post("/clew.raft.v1.RaftService/Call").body(Body::empty()).unwrap();
        let answer = Inside::new().router().oneshot(request).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "14");
    }
}
