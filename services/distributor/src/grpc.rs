//! OTLP/gRPC: the unary call `TraceService/Export`.
//!
//! The framing is read here rather than by tonic: the message stays the bytes it came in, and
//! decompression is bounded, counted, and off the async threads. (Protocol:
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.)

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bytes::{BufMut, Bytes, BytesMut};
use clew_model::TenantId;
use clew_node::status::retry_info_details;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Frame;
use tonic::{Code, Status};

use crate::answer;
use crate::body::Upload;
use crate::coding::Coding;
use crate::push::{Format, Incoming, Ingest, PushOutcome};
use crate::refusal::Refusal;
use crate::tenant;

/// The path of the call.
const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Bytes before a message: whether it is compressed, and its length.
const FRAMING: usize = 5;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip,zstd,identity");

/// The routes of OTLP/gRPC.
pub(crate) fn router(ingest: Arc<Ingest>) -> Router {
    Router::new().route(PATH, post(export)).fallback(unknown).with_state(ingest)
}

async fn unknown() -> Response<Body> {
    Status::unimplemented("this port serves the OTLP trace service only").into_http()
}

async fn export(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response<Body> {
    if !request.headers().get(CONTENT_TYPE).is_some_and(is_grpc) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let started = ingest.deps.clock.monotonic();
    let taken = take(&ingest, started, request).await;
    let code = taken.as_ref().map_or_else(Refusal::grpc_code, |_| Code::Ok);
    ingest.metrics.requests.with_label_values(&["grpc", &format!("{code:?}")]).inc();
    let seconds = (ingest.deps.clock.monotonic() - started).as_secs_f64();
    ingest.metrics.request_seconds.with_label_values(&["grpc"]).observe(seconds);
    match taken {
        Ok(outcome) => success(&outcome),
        Err(refusal) => status(&refusal).into_http(),
    }
}

/// gRPC with protobuf messages. gRPC-Web has another framing, `+json` other messages.
fn is_grpc(content_type: &HeaderValue) -> bool {
    let media_type = content_type.as_bytes().split(|byte| *byte == b';').next();
    let media_type = media_type.unwrap_or_default().trim_ascii();
    media_type.eq_ignore_ascii_case(b"application/grpc")
        || media_type.eq_ignore_ascii_case(b"application/grpc+proto")
}

async fn take(
    ingest: &Arc<Ingest>,
    started: Duration,
    request: Request<Body>,
) -> Result<PushOutcome, Refusal> {
    let tenant = tenant::of_headers(request.headers(), ingest.multitenancy_enabled);
    let known = tenant.clone().ok();
    let deadline = timeout_of(request.headers()).map(|timeout| started.saturating_add(timeout));
    let taken = match tenant {
        Ok(tenant) => take_for(ingest, tenant, deadline, request).await,
        Err(error) => Err(Refusal::Tenant(error)),
    };
    if let Err(refusal) = &taken {
        ingest.metrics.refused(known.as_ref(), refusal.reason());
    }
    taken
}

async fn take_for(
    ingest: &Arc<Ingest>,
    tenant: TenantId,
    deadline: Option<Duration>,
    request: Request<Body>,
) -> Result<PushOutcome, Refusal> {
    let coding = match request.headers().get("grpc-encoding") {
        Some(name) => Coding::from_name(name.as_bytes())?,
        None => Coding::Identity,
    };
    let mut hold = ingest.admission.enter()?;
    let (clock, mut limits) = (&ingest.deps.clock, ingest.body_limits(FRAMING));
    if let Some(deadline) = deadline {
        limits.timeout = limits.timeout.min(deadline.saturating_sub(clock.monotonic()));
    }
    let (head, body) = request.into_parts();
    let framed = Upload::new(&head, body).read(limits, clock, &mut hold).await?;
    let (coding, raw) = unframe(framed, coding)?;
    let format = Format::Protobuf;
    ingest.ingest(Incoming { tenant, raw, coding, format, deadline, hold }).await
}

/// The one message of a unary call, with the compression it really has.
fn unframe(framed: Bytes, coding: Coding) -> Result<(Coding, Bytes), Refusal> {
    let Some((&[compressed, a, b, c, d], message)) = framed.split_first_chunk::<FRAMING>() else {
        return Err(Refusal::Framing("the request message is missing"));
    };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if message.len() < length {
        return Err(Refusal::Framing("the request message is truncated"));
    }
    if message.len() > length {
        return Err(Refusal::Framing("there is more than one request message"));
    }
    let coding = match (compressed, coding) {
        (0, _) => Coding::Identity,
        (1, Coding::Identity) => {
            return Err(Refusal::Framing("the message is compressed but grpc-encoding is not set"));
        }
        (1, coding) => coding,
        _ => return Err(Refusal::Framing("the compressed flag is neither 0 nor 1")),
    };
    Ok((coding, framed.slice(FRAMING..)))
}

/// The client's timeout: up to eight digits and a unit. One that cannot be read is none, as in
/// other servers.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn success(outcome: &PushOutcome) -> Response<Body> {
    let message = answer::success_protobuf(outcome);
    let mut framed = BytesMut::with_capacity(FRAMING + message.len());
    framed.put_u8(0);
    // The message is held to a few kilobytes.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    let frames = [Frame::data(framed.freeze()), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
    let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response.headers_mut().insert("grpc-accept-encoding", ACCEPTED);
    response
}

fn status(refusal: &Refusal) -> Status {
    let (code, message) = (refusal.grpc_code(), refusal.message());
    let details = match refusal.retry_after() {
        Some(delay) => retry_info_details(code, &message, delay).into(),
        None => Bytes::new(),
    };
    let mut status = Status::with_details(code, message, details);
    if matches!(refusal, Refusal::UnknownCoding(_)) {
        let accepted = tonic::metadata::MetadataValue::from_static("gzip,zstd,identity");
        status.metadata_mut().insert("grpc-accept-encoding", accepted);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_checked() {
        let frame = |bytes: &'static [u8]| unframe(Bytes::from_static(bytes), Coding::Gzip);
        assert_eq!(frame(b"\0\0\0\0\x02ab").unwrap(), (Coding::Identity, Bytes::from("ab")));
        assert_eq!(frame(b"\x01\0\0\0\x02ab").unwrap(), (Coding::Gzip, Bytes::from("ab")));
        assert_eq!(frame(b"\0\0\0\0\0").unwrap(), (Coding::Identity, Bytes::new()));
        for bad in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x03ab",
            b"\0\0\0\0\x01ab",
            b"\x02\0\0\0\x02ab",
            b"\0\xff\xff\xff\xffab",
        ] {
            assert!(matches!(frame(bad), Err(Refusal::Framing(_))), "{bad:?}");
        }
        let unnamed = unframe(Bytes::from_static(b"\x01\0\0\0\0"), Coding::Identity);
        assert!(matches!(unnamed, Err(Refusal::Framing(_))));
    }

    #[test]
    fn only_grpc_with_protobuf_is_taken() {
        let is = |text: &'static str| is_grpc(&HeaderValue::from_static(text));
        assert!(is("application/grpc") && is("Application/gRPC+proto; charset=utf-8"));
        for other in ["application/grpc-web", "application/grpc-web+proto", "application/grpc+json"]
        {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn timeouts_are_read() {
        let timeout = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            timeout_of(&headers)
        };
        assert_eq!(timeout("10S"), Some(Duration::from_secs(10)));
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(359_999_996_400)));
        for bad in ["", "S", "10", "10s", "123456789S", "-1S", "+1S", "1 S"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }
}
