//! Why a request was not taken, and what each protocol answers: the one table of this crate.
//!
//! OTLP clients drop data on codes that are not retryable and resend on those that are, so the
//! choice of code decides whether data is lost. Retryable over HTTP are 429, 502, 503 and 504; over
//! gRPC `UNAVAILABLE`, `RESOURCE_EXHAUSTED` with `RetryInfo`, and also `OUT_OF_RANGE`, `DATA_LOSS`,
//! `ABORTED`, `CANCELLED` and `DEADLINE_EXCEEDED`. A body that is too large is therefore
//! `INVALID_ARGUMENT` here, not the `OUT_OF_RANGE` or `RESOURCE_EXHAUSTED` of other servers.

use std::time::Duration;

use clew_model::{ErrorKind, ModelError, TenantError};
use clew_node::Problem;
use clew_node::status::{grpc_code, http_status};
use http::StatusCode;
use tonic::Code;

/// The longest message sent to a client, in bytes; parts of it may come from the client.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No tenant, or none that can be written to.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// The body is no OTLP request.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The body is larger than allowed.
    #[error("the request body is too large {form}: more than {bytes_max} bytes")]
    TooLarge {
        /// `as sent` or `after decompression`.
        form: &'static str,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The body cannot be decompressed.
    #[error("the request body is not valid {coding}: {message}")]
    Coding {
        /// Name of the content coding.
        coding: &'static str,
        /// What the decompressor says.
        message: String,
    },
    /// The request has more spans than allowed.
    #[error("the request has too many spans: {spans}, at most {spans_max}")]
    TooManySpans {
        /// How many it has.
        spans: u64,
        /// The limit.
        spans_max: usize,
    },
    /// The connection failed within the body.
    #[error("the request body broke off: {0}")]
    BrokenBody(String),
    /// The body took too long.
    #[error("the request body did not arrive in time: {0:?}")]
    SlowBody(Duration),
    /// The gRPC framing of the body is wrong.
    #[error("the gRPC message is malformed: {0}")]
    Framing(&'static str),
    /// The client uses a compression that is not offered.
    #[error("the compression is not supported, use gzip, zstd or identity: {0}")]
    UnknownCoding(String),
    /// The body is of another content type.
    #[error(
        "the content type is not supported, use application/x-protobuf or application/json: {0}"
    )]
    UnknownType(String),
    /// This process has its hands full.
    #[error("too many {what} in flight, try again later: at most {max}")]
    Busy {
        /// `requests` or `bytes`.
        what: &'static str,
        /// The limit.
        max: u64,
        /// When to try again.
        retry_after: Duration,
    },
    /// The tenant sends more than it may.
    #[error(
        "RATE_LIMITED: ingestion rate limit exceeded, limit {rate} bytes/s, burst {burst} bytes, \
         request {bytes} bytes"
    )]
    RateLimited {
        /// Bytes per second.
        rate: u64,
        /// Bytes at once.
        burst: u64,
        /// Size of this request in bytes.
        bytes: usize,
        /// When the request will fit.
        retry_after: Duration,
    },
    /// A shard refuses more for now.
    #[error("a shard is overloaded, try again later: {message}")]
    Overloaded {
        /// What the shard says.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Some spans could not be stored now. Others may have been; sending all again is safe.
    #[error("the spans could not be stored, try again later: {message}")]
    Unavailable {
        /// Stable word for metrics.
        reason: &'static str,
        /// What went wrong.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The client's own deadline passed; whether the spans were stored is unknown.
    #[error("the deadline passed before the spans were acknowledged")]
    Deadline,
    /// A defect of this program.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Refusal {
    /// What the client should do about it.
    pub(crate) const fn kind(&self) -> ErrorKind {
        match self {
            Refusal::Model(error) => error.kind(),
            Refusal::Tenant(_)
            | Refusal::TooLarge { .. }
            | Refusal::Coding { .. }
            | Refusal::TooManySpans { .. }
            | Refusal::BrokenBody(_)
            | Refusal::Framing(_)
            | Refusal::UnknownCoding(_)
            | Refusal::UnknownType(_) => ErrorKind::Invalid,
            Refusal::Busy { .. } | Refusal::RateLimited { .. } | Refusal::Overloaded { .. } => {
                ErrorKind::Overloaded
            }
            Refusal::Unavailable { .. } => ErrorKind::Unavailable,
            Refusal::SlowBody(_) | Refusal::Deadline => ErrorKind::Cancelled,
            Refusal::Internal(_) => ErrorKind::Internal,
        }
    }

    /// A stable word for metrics and for programs.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Refusal::Tenant(TenantError::Missing) => "no_tenant",
            Refusal::Tenant(_) => "bad_tenant",
            Refusal::Model(ModelError::TooLarge { .. }) | Refusal::TooLarge { .. } => "too_large",
            Refusal::Model(_) => "malformed_request",
            Refusal::Coding { .. } => "malformed_compression",
            Refusal::TooManySpans { .. } => "too_many_spans",
            Refusal::BrokenBody(_) => "broken_body",
            Refusal::SlowBody(_) => "slow_body",
            Refusal::Framing(_) => "malformed_frame",
            Refusal::UnknownCoding(_) => "unknown_compression",
            Refusal::UnknownType(_) => "unknown_content_type",
            Refusal::Busy { .. } => "busy",
            Refusal::RateLimited { .. } => "rate_limited",
            Refusal::Overloaded { .. } => "shard_overloaded",
            Refusal::Unavailable { reason, .. } => reason,
            Refusal::Deadline => "deadline_exceeded",
            Refusal::Internal(_) => "internal",
        }
    }

    /// When to try again, for what can succeed later unchanged.
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::Busy { retry_after, .. }
            | Refusal::RateLimited { retry_after, .. }
            | Refusal::Overloaded { retry_after, .. }
            | Refusal::Unavailable { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// The status of an HTTP answer.
    pub(crate) fn http_status(&self) -> StatusCode {
        match self {
            Refusal::Tenant(TenantError::Missing) => StatusCode::UNAUTHORIZED,
            Refusal::Model(ModelError::TooLarge { .. }) | Refusal::TooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Refusal::UnknownCoding(_) | Refusal::UnknownType(_) => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Refusal::SlowBody(_) => StatusCode::REQUEST_TIMEOUT,
            Refusal::Deadline => StatusCode::GATEWAY_TIMEOUT,
            _ => http_status(self.kind()),
        }
    }

    /// The code of a gRPC answer, also the one inside an HTTP answer's `Status`.
    pub(crate) fn grpc_code(&self) -> Code {
        match self {
            Refusal::Tenant(TenantError::Missing) => Code::Unauthenticated,
            Refusal::UnknownCoding(_) => Code::Unimplemented,
            Refusal::SlowBody(_) | Refusal::Deadline => Code::DeadlineExceeded,
            _ => grpc_code(self.kind()),
        }
    }

    /// The text for the client, cut to a length that fits a header.
    pub(crate) fn message(&self) -> String {
        shorten(self.to_string(), MESSAGE_BYTES_MAX)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let problem = Problem::new(refusal.kind(), refusal.reason(), refusal.message());
        match refusal.retry_after() {
            Some(delay) => problem.retry_after(delay),
            None => problem,
        }
    }
}

/// `text` cut to at most `bytes_max` bytes, with a mark that it was cut.
pub(crate) fn shorten(mut text: String, bytes_max: usize) -> String {
    const MARK: &str = "…";
    if text.len() > bytes_max {
        let room = bytes_max.saturating_sub(MARK.len());
        let cut = (0..=room).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or(0));
        text.push_str(MARK);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Refusal> {
        let retry_after = Duration::from_secs(2);
        vec![
            Refusal::Tenant(TenantError::Missing),
            Refusal::Tenant(TenantError::Several),
            Refusal::Model(ModelError::TooLarge { bytes: 2, bytes_max: 1 }),
            Refusal::Model(ModelError::Json { message: "x".to_owned(), line: 1, column: 2 }),
            Refusal::TooLarge { form: "as sent", bytes_max: 1 },
            Refusal::Coding { coding: "gzip", message: "x".to_owned() },
            Refusal::TooManySpans { spans: 2, spans_max: 1 },
            Refusal::BrokenBody("x".to_owned()),
            Refusal::SlowBody(retry_after),
            Refusal::Framing("x"),
            Refusal::UnknownCoding("x".to_owned()),
            Refusal::UnknownType("x".to_owned()),
            Refusal::Busy { what: "bytes", max: 1, retry_after },
            Refusal::RateLimited { rate: 1, burst: 1, bytes: 1, retry_after },
            Refusal::Overloaded { message: "x".to_owned(), retry_after },
            Refusal::Unavailable { reason: "x", message: "x".to_owned(), retry_after },
            Refusal::Deadline,
            Refusal::Internal("x".to_owned()),
        ]
    }

    /// The retryable codes of the OTLP specification.
    fn is_retried(refusal: &Refusal) -> (bool, bool) {
        let http = matches!(refusal.http_status().as_u16(), 429 | 502 | 503 | 504);
        let grpc = match refusal.grpc_code() {
            Code::ResourceExhausted => refusal.retry_after().is_some(),
            code => matches!(
                code,
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unavailable
                    | Code::DataLoss
            ),
        };
        (http, grpc)
    }

    #[test]
    fn what_can_never_succeed_is_never_retried_and_the_rest_always() {
        for refusal in samples() {
            let expected = match refusal {
                // The client that let the body starve is gone or broken; over gRPC it is told the
                // same as by its own deadline.
                Refusal::SlowBody(_) => (false, true),
                Refusal::Deadline => (true, true),
                ref other => (other.kind().is_retryable(), other.kind().is_retryable()),
            };
            assert_eq!(is_retried(&refusal), expected, "{refusal:?}");
            assert_eq!(refusal.retry_after().is_some(), refusal.kind().is_retryable());
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let text = shorten("é".repeat(1_000), 1_024);
        assert!(text.len() <= 1_024 && text.ends_with('…'));
        assert_eq!(shorten("short".to_owned(), 1_024), "short");
    }
}
