//! One transport type for generated gRPC clients, whether the server is in this process or behind
//! a socket. Roles are written against clients over [`Channel`] and cannot tell the difference.

mod fail_over;
mod pool;

use std::convert::Infallible;
use std::time::Duration;

use clew_model::ErrorKind;
use futures::future::BoxFuture;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use self::fail_over::FailOver;
pub use self::pool::Pool;
use crate::Problem;

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

    /// A channel to `http://host:port`, connected on first use and again after failures.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the address is no URI.
    pub fn connect(uri: &str) -> Result<Channel, Problem> {
        let endpoint = Endpoint::from_shared(uri.to_owned()).map_err(|error| {
            Problem::new(
                ErrorKind::Invalid,
                "bad_address",
                format!("no gRPC address: {uri}: {error}"),
            )
        })?;
        let channel = endpoint
            .connect_timeout(Duration::from_secs(2))
            // A link that was cut is noticed in time for an election, and its connection made anew.
            .http2_keep_alive_interval(Duration::from_secs(3))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_lazy();
        Ok(Channel(BoxCloneSyncService::new(channel.map_err(BoxError::from))))
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
