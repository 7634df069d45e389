//! One connection to another node. Much of what can be wrong with certificates shows late: a server
//! refuses a client's in answer to the first bytes that it sends, when the client believes itself
//! connected. So a link remembers what it heard for those whose calls fail.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::tls::{Complaints, Credentials, Refusal};

/// How an alert of TLS begins (RFC 8446 section 5.1). HTTP/2 never begins so: it would be the length of
/// a frame of more than a megabyte.
const ALERT: [u8; 2] = [21, 3];

/// Another node's address, and why it could not be talked to.
#[derive(Debug)]
pub(super) struct Target {
    addr: String,
    complaints: Arc<Complaints>,
    refusal: Mutex<Option<String>>,
}

impl Target {
    pub(super) fn new(addr: &str, complaints: Arc<Complaints>) -> Target {
        Target { addr: addr.to_owned(), complaints, refusal: Mutex::default() }
    }

    /// Why there is no connection, if that is a matter of certificates.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.lock().clone()
    }

    /// Notes that the two sides do not fit, and logs it once.
    fn refused(&self, why: &str) -> String {
        let text = format!("cannot talk to {}: {why}", self.addr);
        if self.complaints.is_news(&text) {
            tracing::warn!("{text}");
        }
        *self.refusal.lock() = Some(text.clone());
        text
    }
}

/// A connection to another node.
pub(super) struct Link {
    wire: Wire,
    target: Arc<Target>,
    /// Whether the other side has said anything that it says only to those whom it accepts.
    heard: bool,
}

enum Wire {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Link {
    /// A link over `socket`, encrypted if there are credentials.
    pub(super) async fn make(
        socket: TcpStream,
        credentials: Option<&Credentials>,
        target: Arc<Target>,
    ) -> Result<Link> {
        let wire = match credentials {
            None => Wire::Plain(socket),
            Some(credentials) => match credentials.connect(socket).await {
                Ok(stream) => Wire::Encrypted(Box::new(stream)),
                Err(error) => return Err(explained(error, &target)),
            },
        };
        Ok(Link { wire, target, heard: false })
    }

    /// Looks at what was read, until the other side is known to accept this one.
    fn hear(&mut self, bytes: &[u8]) -> Result<()> {
        if self.heard || bytes.is_empty() {
            return Ok(());
        }
        if matches!(self.wire, Wire::Plain(_)) && bytes.starts_with(&ALERT) {
            let why = "it speaks TLS, and this process has no certificate (rpc.tls, or --tls-cert)";
            return Err(Error::new(ErrorKind::InvalidData, self.target.refused(why)));
        }
        self.heard = true;
        *self.target.refusal.lock() = None;
        Ok(())
    }
}

impl Link {
    /// A server that refuses this side closes the connection behind its reason, so writing may fail
    /// before the reason was read: it is waited for. It has come, or the end of the stream has.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, result: Poll<Result<T>>) -> Poll<Result<T>> {
        let Poll::Ready(Err(error)) = result else { return result };
        if self.heard {
            return Poll::Ready(Err(error));
        }
        let mut space = [0; 256];
        let mut buf = ReadBuf::new(&mut space);
        match Pin::new(self).poll_read(cx, &mut buf) {
            Poll::Ready(Err(reason)) => Poll::Ready(Err(reason)),
            Poll::Ready(Ok(())) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn explained(error: Error, target: &Target) -> Error {
    match Refusal::of(&error) {
        Some(refusal) => Error::new(ErrorKind::InvalidData, target.refused(&refusal.text)),
        None => error,
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Encrypted(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        match result {
            Poll::Ready(Ok(())) => Poll::Ready(this.hear(&buf.filled()[before..])),
            Poll::Ready(Err(error)) => Poll::Ready(Err(explained(error, &this.target))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Encrypted(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        this.wrote(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Encrypted(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        this.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let result = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        };
        this.wrote(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
