//! Serving HTTP/1.1 and HTTP/2 (clear text, gRPC included) on one listener, with the limits that a
//! public port needs: connections, header time, header size, streams; and a bounded drain.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::{Service, ServiceExt};

use crate::{Clock, Stop, Tasks};

/// Limits of one listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at the same time; more wait in the listen queue.
    pub connections_max: usize,
    /// How long a client may take to send its request's head.
    pub header_timeout: Duration,
    /// The largest request head, in bytes.
    pub header_bytes_max: u32,
    /// Requests in flight on one HTTP/2 connection.
    pub streams_max: u32,
    /// How long open requests may take to finish after the stop signal.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 16_384,
            header_timeout: Duration::from_secs(30),
            header_bytes_max: 64 << 10,
            streams_max: 1_000,
            drain: Duration::from_secs(20),
        }
    }
}

/// Serves `router` on `listener` until `stop`, then drains.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    clock: Clock,
    tasks: Tasks,
    stop: Stop,
) {
    let builder = Arc::new(connection_builder(&limits));
    let graceful = GracefulShutdown::new();
    let open = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let Some(Ok(permit)) = stop.or(open.clone().acquire_owned()).await else { break };
        let Some(accepted) = stop.or(listener.accept()).await else { break };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file handles or a connection that broke before we took it: both pass.
                tracing::warn!(%error, "a connection could not be accepted");
                clock.sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let watcher = graceful.watcher();
        let builder = builder.clone();
        let router = router.clone();
        tasks.spawn(async move {
            serve_connection(stream, router, &builder, watcher).await;
            drop(permit);
        });
    }
    drop(listener);
    if clock.timeout(limits.drain, graceful.shutdown()).await.is_none() {
        tracing::warn!("requests were still open at the end of the drain");
    }
}

fn connection_builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(usize::try_from(limits.header_bytes_max).unwrap_or(64 << 10).max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_bytes_max)
        .max_concurrent_streams(limits.streams_max)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    builder: &auto::Builder<TokioExecutor>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    // Nagle's algorithm only delays small answers; failing to switch it off costs latency alone.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { call(router, request).await }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn call(router: Router, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut service = router.into_service::<Incoming>();
    let ready = match service.ready().await {
        Ok(ready) => ready,
        Err(never) => match never {},
    };
    ready.call(request).await
}
