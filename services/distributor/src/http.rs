//! OTLP/HTTP as the OpenTelemetry protocol specification has it: `POST /v1/traces` in protobuf or
//! JSON, answered in the encoding of the request.

mod cors;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use clew_model::TenantId;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};

use crate::answer;
use crate::body::Upload;
use crate::coding::Coding;
use crate::push::{Format, Incoming, Ingest, PushOutcome};
use crate::refusal::{Refusal, shorten};
use crate::tenant;

/// The path of the OTLP/HTTP trace endpoint.
const PATH: &str = "/v1/traces";

/// The longest content type shown to the client, in bytes.
const TYPE_BYTES_MAX: usize = 128;

/// The routes of OTLP/HTTP.
pub(crate) fn router(ingest: Arc<Ingest>) -> Router {
    let cors = cors::layer(&ingest.config.cors_origins);
    Router::new().route(PATH, post(export)).layer(cors).with_state(ingest)
}

async fn export(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response<Body> {
    let started = ingest.deps.clock.monotonic();
    let (head, body) = request.into_parts();
    let mut upload = Upload::new(&head, body);
    let format = format_of(&head.headers);
    let protocol = match format {
        Ok(Format::Protobuf) => "http_protobuf",
        Ok(Format::Json) => "http_json",
        Err(_) => "http",
    };
    let response = match format {
        Ok(format) => answer(format, take(&ingest, format, &head.headers, &mut upload).await),
        Err(refusal) => {
            ingest.metrics.refused(None, refusal.reason());
            plain(&refusal)
        }
    };
    upload.drain(&ingest.deps.clock).await;
    let status = response.status();
    ingest.metrics.requests.with_label_values(&[protocol, status.as_str()]).inc();
    let seconds = (ingest.deps.clock.monotonic() - started).as_secs_f64();
    ingest.metrics.request_seconds.with_label_values(&[protocol]).observe(seconds);
    response
}

async fn take(
    ingest: &Arc<Ingest>,
    format: Format,
    headers: &HeaderMap,
    upload: &mut Upload,
) -> Result<PushOutcome, Refusal> {
    let tenant = tenant::of_headers(headers, ingest.multitenancy_enabled);
    let known = tenant.clone().ok();
    let taken = match tenant {
        Ok(tenant) => take_for(ingest, tenant, format, headers, upload).await,
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
    format: Format,
    headers: &HeaderMap,
    upload: &mut Upload,
) -> Result<PushOutcome, Refusal> {
    let coding = coding_of(headers)?;
    let mut hold = ingest.admission.enter()?;
    let (clock, limits) = (&ingest.deps.clock, ingest.body_limits(0));
    let raw = upload.read(limits, clock, &mut hold).await?;
    ingest.ingest(Incoming { tenant, raw, coding, format, deadline: None, hold }).await
}

/// The format that the content type names; parameters such as a charset do not matter.
fn format_of(headers: &HeaderMap) -> Result<Format, Refusal> {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("none");
    let media_type = text.split(';').next().unwrap_or_default().trim();
    let is = |known: &str| media_type.eq_ignore_ascii_case(known);
    if is("application/x-protobuf") || is("application/protobuf") {
        Ok(Format::Protobuf)
    } else if is("application/json") {
        Ok(Format::Json)
    } else {
        Err(Refusal::UnknownType(shorten(text.to_owned(), TYPE_BYTES_MAX)))
    }
}

fn coding_of(headers: &HeaderMap) -> Result<Coding, Refusal> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = codings.next().map_or(Ok(Coding::Identity), |v| Coding::from_name(v.as_bytes()));
    match codings.next() {
        None => coding,
        Some(_) => Err(Refusal::UnknownCoding("several".to_owned())),
    }
}

fn answer(format: Format, taken: Result<PushOutcome, Refusal>) -> Response<Body> {
    let status = taken.as_ref().map_or_else(Refusal::http_status, |_| StatusCode::OK);
    let (content_type, body) = match (format, &taken) {
        (Format::Protobuf, Ok(outcome)) => (PROTOBUF, answer::success_protobuf(outcome)),
        (Format::Protobuf, Err(refusal)) => (PROTOBUF, answer::status_protobuf(refusal)),
        (Format::Json, Ok(outcome)) => (JSON, answer::success_json(outcome).to_string().into()),
        (Format::Json, Err(refusal)) => (JSON, answer::status_json(refusal).to_string().into()),
    };
    let response = respond(status, content_type, body);
    match taken {
        Ok(_) => response,
        Err(refusal) => with_hints(response, &refusal),
    }
}

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A refusal of a request whose encoding is not known.
fn plain(refusal: &Refusal) -> Response<Body> {
    respond(refusal.http_status(), TEXT, refusal.message().into())
}

fn respond(status: StatusCode, content_type: HeaderValue, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn with_hints(mut response: Response<Body>, refusal: &Refusal) -> Response<Body> {
    let headers = response.headers_mut();
    if let Some(delay) = refusal.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(delay)));
    }
    if matches!(refusal, Refusal::UnknownCoding(_)) {
        // RFC 9110 section 12.5.3: what the client may send instead.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, identity"));
    }
    response
}

/// `Retry-After` counts whole seconds; coming too early would only be refused again.
fn whole_seconds(delay: Duration) -> u64 {
    delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_999, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }

    #[test]
    fn content_types_are_read_generously() {
        let format = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            format_of(&headers)
        };
        assert_eq!(format("Application/JSON; charset=utf-8"), Ok(Format::Json));
        assert_eq!(format("application/x-protobuf"), Ok(Format::Protobuf));
        assert!(matches!(format("text/plain"), Err(Refusal::UnknownType(_))));
        assert!(matches!(format_of(&HeaderMap::new()), Err(Refusal::UnknownType(_))));
    }
}
