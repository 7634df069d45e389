//! Taking in a request's body: bounded in bytes and in time, counted as it arrives.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use clew_node::Clock;
use http::Version;
use http::header::EXPECT;
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::Body as _;

use crate::admission::Hold;
use crate::refusal::Refusal;

/// Memory set aside on the word of a `Content-Length` alone, in bytes.
const TRUSTED_BYTES_MAX: usize = 1 << 20;

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Bytes as sent.
    pub(crate) bytes_max: usize,
    /// How long it may take.
    pub(crate) timeout: Duration,
}

/// The most of an unwanted body that is read for the sake of its sender, in bytes.
const DRAINED_BYTES_MAX: u64 = 64 << 20;

/// How long an unwanted body is read.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A request's body on its way in.
pub(crate) struct Upload {
    body: Body,
    /// The client sends although nobody reads, and may look for an answer only afterwards.
    pushed: bool,
    ended: bool,
}

impl Upload {
    /// The body of a request with this head.
    pub(crate) fn new(head: &Parts, body: Body) -> Upload {
        // With HTTP/2 a stream is refused by itself; a client that expects 100 waits to be told.
        let pushed = head.version < Version::HTTP_2 && !head.headers.contains_key(EXPECT);
        Upload { body, pushed, ended: false }
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] as soon as that is known, [`Refusal::SlowBody`],
    /// [`Refusal::BrokenBody`] when the connection fails, [`Refusal::Busy`] when it does not fit
    /// into memory now.
    pub(crate) async fn read(
        &mut self,
        limits: BodyLimits,
        clock: &Clock,
        hold: &mut Hold,
    ) -> Result<Bytes, Refusal> {
        let announced = usize::try_from(self.body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > limits.bytes_max {
            return Err(too_large(limits));
        }
        let whole = clock.timeout(limits.timeout, self.collect(announced, limits, hold)).await;
        whole.unwrap_or_else(|| {
            self.ended = true;
            Err(Refusal::SlowBody(limits.timeout))
        })
    }

    /// Takes in and forgets what the client still sends, within bounds: many clients read the
    /// answer only after they have sent everything, and see a broken connection otherwise.
    pub(crate) async fn drain(&mut self, clock: &Clock) {
        let mut left = DRAINED_BYTES_MAX;
        if !self.pushed || self.body.size_hint().lower() > left {
            return;
        }
        let reading = async {
            while let Ok(Some(data)) = self.next().await {
                left = left.saturating_sub(data.len() as u64);
                if left == 0 {
                    return;
                }
            }
        };
        // Whoever is slower than this loses the answer.
        let _ = clock.timeout(DRAIN_TIME, reading).await;
    }

    /// The next piece, or nothing after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        while !self.ended {
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Err(Refusal::BrokenBody(error.to_string()));
                }
                None => self.ended = true,
            }
        }
        Ok(None)
    }

    async fn collect(
        &mut self,
        announced: usize,
        limits: BodyLimits,
        hold: &mut Hold,
    ) -> Result<Bytes, Refusal> {
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(data) = self.next().await? {
            if data.len() > limits.bytes_max - first.len() - whole.len() {
                return Err(too_large(limits));
            }
            hold.grow(data.len())?;
            if first.is_empty() && whole.is_empty() {
                // A body of one piece is not copied.
                first = data;
                continue;
            }
            if whole.is_empty() {
                whole.reserve(announced.min(TRUSTED_BYTES_MAX).max(first.len() + data.len()));
                whole.extend_from_slice(&first);
                first = Bytes::new();
            }
            whole.extend_from_slice(&data);
        }
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    }
}

fn too_large(limits: BodyLimits) -> Refusal {
    Refusal::TooLarge { form: "as sent", bytes_max: limits.bytes_max }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use clew_node::clock::ManualTime;
    use futures::StreamExt;
    use hyper::body::Frame;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits { bytes_max: 10, timeout: Duration::from_secs(5) };

    fn hold() -> Hold {
        crate::admission::alone(1 << 20).enter().unwrap()
    }

    fn pieces(pieces: impl IntoIterator<Item = &'static [u8], IntoIter: Send + 'static>) -> Body {
        let frames = pieces
            .into_iter()
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece))));
        Body::new(http_body_util::StreamBody::new(futures::stream::iter(frames)))
    }

    fn upload(body: Body) -> Upload {
        let (head, body) = http::Request::new(body).into_parts();
        Upload::new(&head, body)
    }

    async fn read_now(body: Body) -> Result<Bytes, Refusal> {
        upload(body).read(LIMITS, &ManualTime::default().clock(), &mut hold()).await
    }

    #[tokio::test]
    async fn pieces_are_joined_and_a_single_one_is_not_copied() {
        assert_eq!(read_now(Body::empty()).await.unwrap(), "");
        assert_eq!(read_now(pieces([&b"ab"[..], b"", b"cd", b"ef"])).await.unwrap(), "abcdef");
        let single = Bytes::from(vec![1, 2, 3]);
        let read = read_now(Body::from(single.clone())).await.unwrap();
        assert_eq!(read.as_ptr(), single.as_ptr());
    }

    #[tokio::test]
    async fn a_body_without_end_is_cut_at_the_limit() {
        let endless = pieces(std::iter::repeat(&b"abc"[..]));
        assert_eq!(read_now(endless).await, Err(too_large(LIMITS)));
        assert_eq!(read_now(pieces([&b"12345"[..], b"67890"])).await.unwrap(), "1234567890");
        assert_eq!(read_now(Body::from(vec![0; 11])).await, Err(too_large(LIMITS)));
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_given_up() {
        let time = ManualTime::default();
        let stuck = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("a")))])
            .chain(futures::stream::pending());
        let body = Body::new(http_body_util::StreamBody::new(stuck));
        let (clock, mut hold) = (time.clock(), hold());
        let mut upload = upload(body);
        let reading = upload.read(LIMITS, &clock, &mut hold);
        tokio::pin!(reading);
        assert!(futures::poll!(&mut reading).is_pending());
        time.advance(Duration::from_secs(5));
        assert_eq!(reading.await, Err(Refusal::SlowBody(LIMITS.timeout)));
    }

    #[tokio::test]
    async fn an_unwanted_body_is_not_waited_for_without_end() {
        let time = ManualTime::default();
        let stuck = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("a")))])
            .chain(futures::stream::pending());
        let mut upload = upload(Body::new(http_body_util::StreamBody::new(stuck)));
        let clock = time.clock();
        let draining = upload.drain(&clock);
        tokio::pin!(draining);
        assert!(futures::poll!(&mut draining).is_pending());
        time.advance(DRAIN_TIME);
        draining.await;
    }
}
