//! A connection that ends when its peer only holds it open: one that never says which protocol it
//! speaks, or does not take what is written to it. Neither is covered by hyper's own timers.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Clock;

/// What an HTTP/2 client sends first (RFC 9113 section 3.4). The two protocols cannot be told
/// apart, and no timer of theirs begins, while a client has sent a part of it and nothing else.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection with a limit to how long its peer may do nothing.
pub(super) struct Watched<S> {
    io: S,
    clock: Clock,
    /// The end of the wait for the protocol, until that is known.
    greeting: Option<BoxFuture<'static, ()>>,
    /// Bytes of the preface that were read.
    greeted: usize,
    /// The end of the wait for the peer to take more, while it takes nothing.
    stall: Option<BoxFuture<'static, ()>>,
    stall_timeout: Duration,
}

impl<S> Watched<S> {
    /// Watches `io`, which must show its protocol within `greeting_timeout` and may refuse to take
    /// bytes for `stall_timeout`.
    pub(super) fn new(
        io: S,
        clock: &Clock,
        greeting_timeout: Duration,
        stall_timeout: Duration,
    ) -> Watched<S> {
        let greeting = Some(sleep(clock, greeting_timeout));
        Watched { io, clock: clock.clone(), greeting, greeted: 0, stall: None, stall_timeout }
    }

    /// Notes what was read; nothing is the end of the stream.
    fn heard(&mut self, bytes: &[u8]) {
        if self.greeting.is_none() {
            return;
        }
        if bytes.is_empty() || !PREFACE[self.greeted..].starts_with(bytes) {
            self.greeting = None;
            return;
        }
        self.greeted += bytes.len();
        if self.greeted == PREFACE.len() {
            self.greeting = None;
        }
    }

    /// Ends a write that waits too long; any that does not wait shows that the peer is there.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, result: Poll<Result<T>>) -> Poll<Result<T>> {
        if result.is_ready() {
            self.stall = None;
            return result;
        }
        let stall = self.stall.get_or_insert_with(|| sleep(&self.clock, self.stall_timeout));
        match is_over(stall, cx) {
            true => Poll::Ready(Err(timed_out("the peer takes no bytes"))),
            false => Poll::Pending,
        }
    }
}

fn sleep(clock: &Clock, duration: Duration) -> BoxFuture<'static, ()> {
    let clock = clock.clone();
    Box::pin(async move { clock.sleep(duration).await })
}

/// Whether a wait is over, also for whoever asks again.
fn is_over(wait: &mut BoxFuture<'static, ()>, cx: &mut Context<'_>) -> bool {
    let is_over = wait.as_mut().poll(cx).is_ready();
    if is_over {
        *wait = Box::pin(std::future::ready(()));
    }
    is_over
}

fn timed_out(what: &'static str) -> Error {
    Error::new(ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buf);
        if result.is_ready() {
            this.heard(&buf.filled()[before..]);
        } else if let Some(greeting) = &mut this.greeting
            && is_over(greeting, cx)
        {
            return Poll::Ready(Err(timed_out("the peer sends no request")));
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    // On a socket these wait for nothing. What encrypts keeps some of what was written, and waits here until the
    // peer has taken it.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.wrote(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_shutdown(cx);
        this.wrote(cx, result)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::clock::ManualTime;

    const GREETING: Duration = Duration::from_secs(3);
    const STALL: Duration = Duration::from_secs(5);

    fn watched(time: &ManualTime) -> (Watched<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(8);
        (Watched::new(near, &time.clock(), GREETING, STALL), far)
    }

    /// Takes any bytes and never gets rid of them, as encryption does above a peer that does not read.
    struct Full;

    impl AsyncWrite for Full {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_peer_that_lets_nothing_be_flushed_is_given_up() {
        let time = ManualTime::default();
        let mut near = Watched::new(Full, &time.clock(), GREETING, STALL);
        near.write_all(&[0; 20]).await.unwrap();
        {
            let flushing = near.flush();
            tokio::pin!(flushing);
            assert!(futures::poll!(&mut flushing).is_pending());
            time.advance(STALL);
            assert_eq!(flushing.await.unwrap_err().kind(), ErrorKind::TimedOut);
        }
        assert_eq!(near.shutdown().await.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_take_bytes_is_given_up() {
        let time = ManualTime::default();
        let (mut near, mut far) = watched(&time);
        {
            let writing = near.write_all(&[0; 20]);
            tokio::pin!(writing);
            assert!(futures::poll!(&mut writing).is_pending());
            // Each byte that is taken starts the wait anew.
            time.advance(STALL - Duration::from_secs(1));
            far.read_exact(&mut [0; 8]).await.unwrap();
            assert!(futures::poll!(&mut writing).is_pending());
            time.advance(STALL - Duration::from_secs(1));
            assert!(futures::poll!(&mut writing).is_pending());
            time.advance(Duration::from_secs(1));
            assert_eq!(writing.await.unwrap_err().kind(), ErrorKind::TimedOut);
        }
    }

    #[tokio::test]
    async fn a_peer_that_shows_no_protocol_is_given_up() {
        for sent in [&b""[..], b"P", b"PRI * "] {
            let time = ManualTime::default();
            let (mut near, mut far) = watched(&time);
            far.write_all(sent).await.unwrap();
            let mut buf = [0; 100];
            let reading = near.read_exact(&mut buf);
            tokio::pin!(reading);
            assert!(futures::poll!(&mut reading).is_pending());
            time.advance(GREETING);
            assert_eq!(reading.await.unwrap_err().kind(), ErrorKind::TimedOut);
        }
    }

    #[tokio::test]
    async fn a_peer_with_a_protocol_may_be_silent() {
        for sent in [&b"G"[..], b"POST /", b"PRIX", PREFACE] {
            let time = ManualTime::default();
            let (mut near, mut far) = watched(&time);
            let mut got = vec![0; sent.len()];
            let (read, written) = futures::join!(near.read_exact(&mut got), far.write_all(sent));
            assert!(read.is_ok() && written.is_ok());
            let mut buf = [0; 1];
            let reading = near.read_exact(&mut buf);
            tokio::pin!(reading);
            assert!(futures::poll!(&mut reading).is_pending());
            time.advance(GREETING * 10);
            assert!(futures::poll!(&mut reading).is_pending());
        }
    }
}
