//! Taking in a request's body: bounded in bytes and in time, counted as it arrives.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use clew_node::Clock;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use std::time::Duration;

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

/// Reads the whole of `body`.
///
/// # Errors
/// [`Refusal::TooLarge`] as soon as that is known, [`Refusal::SlowBody`], [`Refusal::BrokenBody`]
/// when the connection fails, [`Refusal::Busy`] when it does not fit into memory now.
pub(crate) async fn read(
    body: Body,
    limits: BodyLimits,
    clock: &Clock,
    hold: &mut Hold,
) -> Result<Bytes, Refusal> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limits.bytes_max {
        return Err(too_large(limits));
    }
    clock
        .timeout(limits.timeout, collect(body, announced, limits, hold))
        .await
        .unwrap_or(Err(Refusal::SlowBody(limits.timeout)))
}

async fn collect(
    mut body: Body,
    announced: usize,
    limits: BodyLimits,
    hold: &mut Hold,
) -> Result<Bytes, Refusal> {
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::BrokenBody(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
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
    use crate::admission::Admission;

    const LIMITS: BodyLimits = BodyLimits { bytes_max: 10, timeout: Duration::from_secs(5) };

    fn hold() -> Hold {
        let gauge = prometheus::IntGauge::new("bytes", "bytes").unwrap();
        Admission::new(1, 1 << 20, Duration::from_secs(1), gauge).enter().unwrap()
    }

    fn pieces(pieces: impl IntoIterator<Item = &'static [u8], IntoIter: Send + 'static>) -> Body {
        let frames = pieces
            .into_iter()
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece))));
        Body::new(http_body_util::StreamBody::new(futures::stream::iter(frames)))
    }

    async fn read_now(body: Body) -> Result<Bytes, Refusal> {
        read(body, LIMITS, &ManualTime::default().clock(), &mut hold()).await
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
        let reading = read(body, LIMITS, &clock, &mut hold);
        tokio::pin!(reading);
        assert!(futures::poll!(&mut reading).is_pending());
        time.advance(Duration::from_secs(5));
        assert_eq!(reading.await, Err(Refusal::SlowBody(LIMITS.timeout)));
    }
}
