//! One transport type for generated gRPC clients, whether the server is in this process or behind
//! a socket. Roles are written against clients over [`Channel`] and cannot tell the difference.

mod dialer;
mod fail_over;
mod link;
mod pool;

use std::convert::Infallible;

use futures::future::BoxFuture;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

pub use self::dialer::Dialer;
use self::fail_over::FailOver;
pub use self::pool::{Connect, Pool};

/// The largest message between roles, in bytes: a log entry or an answer with its framing.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What a transport's failure looks like.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection to a gRPC server, cheap to clone.
#[derive(Clone)]
pub struct Channel(BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>);

impl Channel {
    /// A channel straight into a service of this process, without sockets.
    pub fn local<S>(server: S) -> Channel
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        Channel(BoxCloneSyncService::new(server.map_err(|never| match never {})))
    }

    /// A channel to one of several servers that can stand in for each other: the same one until it
    /// fails, then the next. A call that failed is not repeated by itself.
    pub fn first_of(channels: Vec<Channel>) -> Channel {
        Channel(BoxCloneSyncService::new(FailOver::new(channels)))
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Channel")
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<http::Response<Body>, BoxError>>;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}
