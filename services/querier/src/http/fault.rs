//! A request that was not answered: the exact status and plain text that Tempo's clients expect.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use clew_model::{ErrorKind, TenantError};
use clew_node::Problem;
use clew_node::status::http_status;
use http::{HeaderValue, StatusCode, header};

/// When to come back if nothing better is known.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// Status, text and retry hint of a refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Fault {
    /// A fault without a retry hint.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Fault {
        Fault { status, message: message.into(), retry_after: None }
    }

    /// A request that can never succeed as it is.
    pub(crate) fn bad(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, message)
    }

    /// A request for something this release does not do yet. It must be an error: an empty answer
    /// would be read as "no data".
    pub(crate) fn unsupported(what: &str) -> Fault {
        Fault::bad(format!("{what} is not supported yet"))
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Fault {
        let status = http_status(problem.kind);
        let retryable = matches!(
            problem.kind,
            ErrorKind::Unavailable | ErrorKind::Overloaded | ErrorKind::Fenced
        );
        let retry_after = retryable.then(|| problem.retry_after.unwrap_or(RETRY_AFTER_DEFAULT));
        Fault { status, message: problem.message, retry_after }
    }
}

impl From<TenantError> for Fault {
    fn from(error: TenantError) -> Fault {
        let status = match error {
            TenantError::Missing => StatusCode::UNAUTHORIZED,
            _ => StatusCode::BAD_REQUEST,
        };
        Fault::new(status, error.to_string())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.message).into_response();
        if let Some(delay) = self.retry_after {
            let part = u64::from(delay.subsec_nanos() > 0);
            let seconds = delay.as_secs().saturating_add(part);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_keep_their_status_and_hint() {
        let problem = Problem::new(ErrorKind::Unavailable, "no_leader", "no leader")
            .retry_after(Duration::from_millis(1_200));
        let response = Fault::from(problem).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        let never = Problem::new(ErrorKind::Overloaded, "busy", "x").retry_after(Duration::MAX);
        let response = Fault::from(never).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], u64::MAX.to_string());
        let corrupt = Fault::from(Problem::new(ErrorKind::Corrupt, "damaged", "x")).into_response();
        assert_eq!(corrupt.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!corrupt.headers().contains_key(header::RETRY_AFTER));
    }
}
