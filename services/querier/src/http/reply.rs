//! Answers in the form that the client accepts.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::fault::Fault;
use crate::root::Missing;

/// The header of an answer that misses something; its value says what.
const PARTIAL_HEADER: &str = "x-clew-partial";

/// The longest value of that header, in bytes.
const PARTIAL_HEADER_BYTES_MAX: usize = 1_024;

const PROTOBUF: &str = "application/protobuf";
const JSON: &str = "application/json";

/// Whether the client asks for protobuf.
pub(crate) fn wants_protobuf(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|value| value.to_str().is_ok_and(|text| text.contains(PROTOBUF)))
}

/// An answer in protobuf.
pub(crate) fn protobuf(body: impl Into<Bytes>) -> Response {
    let content_type = [(header::CONTENT_TYPE, PROTOBUF)];
    (StatusCode::OK, content_type, body.into()).into_response()
}

/// An answer in JSON.
pub(crate) fn json(body: impl Into<Bytes>) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, JSON)], body.into()).into_response()
}

/// An answer in JSON from a shape.
pub(crate) fn json_of(shape: &impl serde::Serialize) -> Result<Response, Fault> {
    let body = serde_json::to_vec(shape).map_err(|error| {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer is no JSON: {error}"))
    })?;
    Ok(json(body))
}

/// Marks an answer that misses something.
pub(crate) fn marked(mut response: Response, missing: &Missing) -> Response {
    if let Some(message) = missing.message() {
        let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        let text: String = message.chars().map(plain).take(PARTIAL_HEADER_BYTES_MAX).collect();
        if let Ok(value) = HeaderValue::try_from(text) {
            response.headers_mut().insert(PARTIAL_HEADER, value);
        }
    }
    response
}
