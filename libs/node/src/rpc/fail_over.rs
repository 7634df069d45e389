//! A channel to whichever of several equal servers answers: the next one is taken after a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tonic::Code;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::{BoxError, Channel};

/// Servers that can stand in for each other, and the one that is asked now.
#[derive(Clone)]
pub(super) struct FailOver {
    channels: Arc<[Channel]>,
    current: Arc<AtomicUsize>,
}

impl FailOver {
    pub(super) fn new(channels: Vec<Channel>) -> FailOver {
        FailOver { channels: channels.into(), current: Arc::default() }
    }
}

/// A call on its way. If nothing good comes of it, also because the caller tired of waiting, the
/// calls after it go to the next server.
struct Attempt {
    asked: usize,
    current: Arc<AtomicUsize>,
    good: bool,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.good {
            let next = self.asked.wrapping_add(1);
            // Whoever was quicker has moved on already.
            let _ = self.current.compare_exchange(
                self.asked,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }
}

impl Service<http::Request<Body>> for FailOver {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<http::Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let asked = self.current.load(Ordering::Relaxed);
        let channel = self.channels.get(asked % self.channels.len().max(1)).cloned();
        let current = self.current.clone();
        Box::pin(async move {
            let Some(channel) = channel else { return Err("no servers are known".into()) };
            let mut attempt = Attempt { asked, current, good: false };
            let answer = channel.oneshot(request).await;
            attempt.good = answer.as_ref().is_ok_and(|answer| !is_away(answer));
            answer
        })
    }
}

/// Whether the server says that it cannot be asked now.
fn is_away(answer: &http::Response<Body>) -> bool {
    let code = answer.headers().get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()));
    code == Some(Code::Unavailable)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::service_fn;

    use super::*;

    fn server(name: &'static str, code: Option<&'static str>) -> Channel {
        Channel::local(service_fn(move |_: http::Request<Body>| async move {
            let mut answer = http::Response::builder().header("name", name);
            if let Some(code) = code {
                answer = answer.header("grpc-status", code);
            }
            Ok::<_, Infallible>(answer.body(Body::empty()).unwrap())
        }))
    }

    async fn ask(channel: &Channel) -> String {
        let answer = channel.clone().oneshot(http::Request::new(Body::empty())).await.unwrap();
        answer.headers()["name"].to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_left_for_the_next() {
        let servers = vec![server("away", Some("14")), server("invalid", Some("3"))];
        let channel = Channel::first_of(servers);
        let mut asked = Vec::new();
        for _ in 0..3 {
            asked.push(ask(&channel).await);
        }
        assert_eq!(asked, ["away", "invalid", "invalid"]);
    }

    #[tokio::test]
    async fn a_server_that_hangs_is_left_for_the_next() {
        let hangs = Channel::local(service_fn(|_: http::Request<Body>| {
            std::future::pending::<Result<http::Response<Body>, Infallible>>()
        }));
        let channel = Channel::first_of(vec![hangs, server("good", None)]);
        let hanging = channel.clone().oneshot(http::Request::new(Body::empty()));
        let mut hanging = Box::pin(hanging);
        assert!(futures::poll!(&mut hanging).is_pending());
        drop(hanging);
        assert_eq!(ask(&channel).await, "good");
    }
}
