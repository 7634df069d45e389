//! Serving HTTP/1.1 and HTTP/2 (gRPC included) on one listener, in plain text or encrypted, with the
//! limits that a public port needs: connections, header time, header size, streams; and a bounded drain.

mod open_files;
mod watched;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::{Service, ServiceExt};

use self::watched::Watched;
use crate::tls::Credentials;
use crate::{Clock, Stop, Tasks};

/// Limits of one listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at the same time; more wait in the listen queue. Fewer where the process may
    /// not open many files.
    pub connections_max: usize,
    /// How long a client may take to send its request's head, and a connection may wait for one.
    pub header_timeout: Duration,
    /// How long a client may refuse to take any byte of an answer.
    pub stall_timeout: Duration,
    /// The largest request head, in bytes.
    pub header_bytes_max: u32,
    /// Requests in flight on one HTTP/2 connection.
    pub streams_max: u32,
    /// How long open requests may take to finish after the stop signal.
    pub drain: Duration,
    /// After about so long a connection takes no more requests, and the client opens another one, maybe to a
    /// server that was not there before; what is under way is finished, with HTTP/1 one more request is answered. A
    /// tenth more at most, so that connections that were opened together do not end together. `None`: it stays as
    /// long as the client wants.
    pub age_max: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 16_384,
            header_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            header_bytes_max: 64 << 10,
            streams_max: 1_000,
            drain: Duration::from_secs(20),
            age_max: None,
        }
    }
}

/// A socket that takes connections, and what encrypts them.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    credentials: Option<Credentials>,
}

impl Listener {
    /// A listener in plain text, unless there are credentials.
    pub fn new(socket: TcpListener, credentials: Option<Credentials>) -> Listener {
        Listener { socket, credentials }
    }
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Listener {
        Listener::new(socket, None)
    }
}

/// Serves `router` on `listener` until `stop`, then drains: requests that are open may finish within
/// [`Limits::drain`], then their connections are cut.
pub async fn serve(
    listener: impl Into<Listener>,
    router: Router,
    limits: Limits,
    clock: Clock,
    tasks: Tasks,
    stop: Stop,
) {
    let Listener { socket, credentials } = listener.into();
    let connections_max = limits.connections_max.min(open_files::connections_max());
    let open = Arc::new(Semaphore::new(connections_max));
    let builder = connection_builder(&limits);
    let server = Arc::new(Server { builder, router, clock: clock.clone(), limits: limits.clone() });
    let cut = Stop::new();
    loop {
        let Some(Ok(permit)) = stop.or(open.clone().acquire_owned()).await else { break };
        let Some(accepted) = stop.or(socket.accept()).await else { break };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file handles or a connection that broke before we took it: both pass.
                tracing::warn!(%error, "a connection could not be accepted");
                clock.sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Nagle's algorithm only delays small answers; failing to switch it off costs latency alone.
        let _ = stream.set_nodelay(true);
        let (server, credentials) = (server.clone(), credentials.clone());
        let (stop, cut) = (stop.clone(), cut.clone());
        tasks.spawn(async move {
            // Whoever waits for the tasks does not wait for a client that never finishes.
            match credentials {
                None => {
                    cut.or(server.serve(stream, peer, &stop)).await;
                }
                Some(credentials) => {
                    let within = server.limits.header_timeout;
                    let accepted = stop.or(Box::pin(credentials.accept(stream, peer, within)));
                    if let Some(Some(stream)) = accepted.await {
                        cut.or(server.serve(stream, peer, &stop)).await;
                    }
                }
            }
            drop(permit);
        });
    }
    drop(socket);
    // Each connection has one until it ends.
    let all = open.acquire_many(u32::try_from(connections_max).unwrap_or(u32::MAX));
    if clock.timeout(limits.drain, all).await.is_none() {
        tracing::warn!("requests were still open at the end of the drain");
        cut.stop();
    }
}

/// What every connection of a listener needs.
struct Server {
    builder: auto::Builder<TokioExecutor>,
    router: Router,
    clock: Clock,
    limits: Limits,
}

impl Server {
    /// Answers the requests of a connection until it ends, is old, or `stop`.
    async fn serve<S>(&self, stream: S, peer: SocketAddr, stop: &Stop)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Limits { header_timeout, stall_timeout, .. } = self.limits;
        let stream = Watched::new(stream, &self.clock, header_timeout, stall_timeout);
        let (router, life) = (self.router.clone(), Arc::new(Life::default()));
        let lives = life.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (router, life) = (router.clone(), lives.clone());
            async move { life.answer(router, request).await }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = &mut connection => Some(ended),
            () = stop.stopped() => None,
            () = self.grow_old(peer, &life) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Waits until a connection is old, if it is one of HTTP/2, whose client can be told so at any time. The port
    /// of the client stands in for chance.
    async fn grow_old(&self, peer: SocketAddr, life: &Life) {
        if let Some(age) = self.limits.age_max {
            let more = (age / 10).mul_f64(f64::from(peer.port() % 64) / 64.0);
            self.clock.sleep(age.saturating_add(more)).await;
            life.is_old.store(true, Ordering::Relaxed);
            if life.is_http2.load(Ordering::Relaxed) {
                return;
            }
        }
        std::future::pending().await
    }
}

/// What is known of a connection.
#[derive(Default)]
struct Life {
    is_http2: AtomicBool,
    is_old: AtomicBool,
}

impl Life {
    /// Answers a request. On an old connection of HTTP/1 it is the last one, and the answer says so: closed between
    /// two requests, the next could be on its way already, and its client could not tell what became of it.
    async fn answer(
        &self,
        router: Router,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let is_http2 = request.version() == Version::HTTP_2;
        self.is_http2.store(is_http2, Ordering::Relaxed);
        let mut response = call(router, request).await?;
        if !is_http2 && self.is_old.load(Ordering::Relaxed) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
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

async fn call(router: Router, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut service = router.into_service::<Incoming>();
    let ready = match service.ready().await {
        Ok(ready) => ready,
        Err(never) => match never {},
    };
    ready.call(request).await
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use clew_model::UnixNanos;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::clock::ManualTime;

    struct Rig {
        time: ManualTime,
        tasks: Tasks,
        stop: Stop,
        addr: std::net::SocketAddr,
    }

    async fn rig() -> Rig {
        rig_with(Limits::default()).await
    }

    async fn rig_with(limits: Limits) -> Rig {
        let time = ManualTime::at(UnixNanos(0));
        let (tasks, stop) = (Tasks::new(1), Stop::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let take = post(|body: axum::body::Bytes| async move { body.len().to_string() });
        let router = Router::new().route("/", get(|| async { "hello" })).route("/take", take);
        let (clock, spawner) = (time.clock(), tasks.clone());
        tasks.spawn(serve(listener, router, limits, clock, spawner, stop.clone()));
        Rig { time, tasks, stop, addr }
    }

    /// Moves time on until `future` completes; gives up after a long while.
    async fn advancing<F: Future>(time: &ManualTime, future: F) -> F::Output {
        tokio::pin!(future);
        for _ in 0..100_000 {
            if let std::task::Poll::Ready(output) = futures::poll!(&mut future) {
                return output;
            }
            tokio::task::yield_now().await;
            time.advance(Duration::from_secs(1));
        }
        panic!("it never ends");
    }

    #[tokio::test]
    async fn a_connection_without_a_request_is_closed() {
        let rig = rig().await;
        for sent in [&b""[..], b"PRI * HT"] {
            let mut client = TcpStream::connect(rig.addr).await.unwrap();
            client.write_all(sent).await.unwrap();
            // A reset is an end, too.
            let read = advancing(&rig.time, client.read(&mut [0; 10])).await;
            assert!(matches!(read, Ok(0) | Err(_)));
        }
    }

    /// Reads an answer with this body.
    async fn answer(client: &mut TcpStream, body: &str) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(body.as_bytes()) {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
        }
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn an_old_connection_answers_once_more_and_ends() {
        let limits = Limits {
            age_max: Some(Duration::from_secs(20)),
            header_timeout: Duration::from_secs(1_000),
            ..Limits::default()
        };
        let rig = rig_with(limits).await;
        let mut client = TcpStream::connect(rig.addr).await.unwrap();
        let ask = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        client.write_all(ask).await.unwrap();
        assert!(!answer(&mut client, "hello").await.contains("connection: close"));
        // Idle, it stays open: the next request may be on its way.
        for _ in 0..60 {
            tokio::task::yield_now().await;
            rig.time.advance(Duration::from_secs(1));
        }
        client.write_all(ask).await.unwrap();
        assert!(answer(&mut client, "hello").await.contains("connection: close"));
        assert_eq!(client.read(&mut [0; 10]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn requests_are_answered_and_the_connection_is_kept() {
        let rig = rig().await;
        let mut client = TcpStream::connect(rig.addr).await.unwrap();
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"hello") {
                assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
            }
            rig.time.advance(Duration::from_secs(1_000));
        }
    }

    #[tokio::test]
    async fn a_client_that_never_finishes_does_not_hold_up_the_end() {
        let rig = rig().await;
        let mut client = TcpStream::connect(rig.addr).await.unwrap();
        let head = b"POST /take HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9";
        client.write_all(head).await.unwrap();
        client.write_all(b"\r\n\r\n").await.unwrap();
        // Told to go on: the request is being worked on.
        client.read_exact(&mut [0; 12]).await.unwrap();
        rig.stop.stop();
        advancing(&rig.time, rig.tasks.finish()).await;
    }
}
