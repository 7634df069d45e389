//! The one table between [`ErrorKind`] and the status codes of HTTP and gRPC.
//!
//! A gRPC status carries the kind (`clew-kind`) and a stable reason (`clew-reason`) in its
//! metadata, so that it survives the hop between roles unchanged. A retry hint travels as
//! `google.rpc.RetryInfo` in the status details, as OTLP asks for.

use std::time::Duration;

use clew_model::ErrorKind;
use http::StatusCode;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

const KIND_KEY: &str = "clew-kind";
const REASON_KEY: &str = "clew-reason";

/// An error as it crosses a process border: what to do, a stable reason, text for a human.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What the caller should do.
    pub kind: ErrorKind,
    /// A stable word for programs and metrics, such as `head_full`.
    pub reason: String,
    /// Lower-case text for a human.
    pub message: String,
    /// When to try again, for kinds that can be retried.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// A problem without a retry hint.
    pub fn new(kind: ErrorKind, reason: &str, message: impl Into<String>) -> Problem {
        Problem { kind, reason: reason.to_owned(), message: message.into(), retry_after: None }
    }

    /// The same with a retry hint.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Problem {
        self.retry_after = Some(delay);
        self
    }

    /// The status to answer over HTTP.
    pub fn http_status(&self) -> StatusCode {
        http_status(self.kind)
    }
}

/// The HTTP status of a kind.
pub fn http_status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Unavailable | ErrorKind::Fenced => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        // 499: the client closed the request (nginx's number, which Tempo uses too).
        ErrorKind::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        ErrorKind::Corrupt | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The gRPC code of a kind.
pub fn grpc_code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::Aborted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Fenced => Code::FailedPrecondition,
        ErrorKind::Overloaded => Code::ResourceExhausted,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    }
}

/// The kind a foreign gRPC code stands for.
pub fn kind_of_code(code: Code) -> ErrorKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => ErrorKind::Invalid,
        Code::NotFound => ErrorKind::NotFound,
        Code::Aborted | Code::AlreadyExists => ErrorKind::Conflict,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::FailedPrecondition => ErrorKind::Fenced,
        Code::ResourceExhausted => ErrorKind::Overloaded,
        Code::Cancelled | Code::DeadlineExceeded => ErrorKind::Cancelled,
        Code::DataLoss => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Status {
        let mut metadata = MetadataMap::new();
        metadata.insert(KIND_KEY, MetadataValue::from_static(problem.kind.as_str()));
        if let Ok(reason) = MetadataValue::try_from(problem.reason.as_str()) {
            metadata.insert(REASON_KEY, reason);
        }
        let code = grpc_code(problem.kind);
        let details = match problem.retry_after {
            Some(delay) => retry_info_details(code, &problem.message, delay),
            None => Vec::new(),
        };
        Status::with_details_and_metadata(code, problem.message, details.into(), metadata)
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Problem {
        let text = |key: &str| status.metadata().get(key).and_then(|value| value.to_str().ok());
        let kind = text(KIND_KEY)
            .and_then(ErrorKind::from_name)
            .unwrap_or_else(|| kind_of_code(status.code()));
        Problem {
            kind,
            reason: text(REASON_KEY).unwrap_or("remote").to_owned(),
            message: status.message().to_owned(),
            retry_after: retry_delay(status.details()),
        }
    }
}

/// An encoded `google.rpc.Status` with one `google.rpc.RetryInfo` in its details
/// (googleapis `google/rpc/status.proto`, `error_details.proto`).
pub fn retry_info_details(code: Code, message: &str, delay: Duration) -> Vec<u8> {
    use clew_model::wire::{put_bytes_field, put_varint_field};
    let mut duration = Vec::new();
    put_varint_field(&mut duration, 1, delay.as_secs());
    put_varint_field(&mut duration, 2, u64::from(delay.subsec_nanos()));
    let mut retry_info = Vec::new();
    put_bytes_field(&mut retry_info, 1, &duration);
    let mut any = Vec::new();
    put_bytes_field(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
    put_bytes_field(&mut any, 2, &retry_info);
    let mut status = Vec::new();
    put_varint_field(&mut status, 1, u64::from(code as i32 as u32));
    put_bytes_field(&mut status, 2, message.as_bytes());
    put_bytes_field(&mut status, 3, &any);
    status
}

/// The delay in encoded status details made by [`retry_info_details`] or another OTLP server.
pub fn retry_delay(details: &[u8]) -> Option<Duration> {
    let any = find_bytes(details, 3)?;
    let retry_info = find_bytes(any, 2)?;
    let duration = find_bytes(retry_info, 1)?;
    let number = |number| {
        clew_model::wire::Reader::new(duration)
            .filter_map(Result::ok)
            .find(|field| field.number == number)
            .and_then(|field| field.varint().ok())
            .unwrap_or(0)
    };
    let nanos = u32::try_from(number(2)).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(number(1), nanos))
}

fn find_bytes(message: &[u8], number: u32) -> Option<&[u8]> {
    clew_model::wire::Reader::new(message)
        .filter_map(Result::ok)
        .find(|field| field.number == number)
        .and_then(|field| field.bytes().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_survives_the_hop() {
        for kind in ErrorKind::ALL {
            let problem = Problem::new(kind, "some_reason", "text");
            assert_eq!(Problem::from(Status::from(problem.clone())), problem);
        }
        let delay = Duration::from_millis(1500);
        let problem = Problem::new(ErrorKind::Overloaded, "head_full", "full").retry_after(delay);
        assert_eq!(Problem::from(Status::from(problem.clone())), problem);
    }

    #[test]
    fn retry_is_only_asked_for_where_it_can_help() {
        for kind in ErrorKind::ALL {
            let http = http_status(kind);
            let retryable =
                http == StatusCode::TOO_MANY_REQUESTS || http == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(retryable, kind.is_retryable() || kind == ErrorKind::Fenced, "{kind}");
        }
    }
}
