//! What an answer to an OTLP export means: acknowledged, try again, or never.

use std::time::Duration;

use clew_model::wire::{Reader, WireError};
use tonic::Code;

/// The longest pause a server can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The fate of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// Every span was taken.
    Acked,
    /// The request was taken, but not all of its spans.
    Rejected {
        /// How many were not.
        spans: u64,
        /// What the server says.
        reason: String,
    },
    /// Refused for now: worth repeating.
    Retry {
        /// The pause the server asks for.
        after: Option<Duration>,
        /// What the server says.
        reason: String,
    },
    /// No answer came, at all or in time: worth repeating.
    Unanswered {
        /// What happened.
        reason: String,
    },
    /// Not worth repeating.
    Refused {
        /// What the server says.
        reason: String,
    },
}

impl Sent {
    /// Reads an `ExportTraceServiceResponse`.
    pub(super) fn from_response(body: &[u8]) -> Sent {
        match partial_success(body) {
            Ok((0, _)) => Sent::Acked,
            Ok((spans, reason)) => Sent::Rejected { spans, reason: format!("rejected: {reason}") },
            Err(error) => Sent::Refused { reason: format!("answer does not parse: {error}") },
        }
    }

    /// Reads a failed gRPC call by the rules of the OTLP specification.
    pub(super) fn from_status(status: &tonic::Status) -> Sent {
        let reason = format!("{:?}: {}", status.code(), status.message());
        let after = retry_delay(status.details());
        let again = match status.code() {
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => true,
            // A client must not repeat this one unless it is told when.
            Code::ResourceExhausted => after.is_some(),
            _ => false,
        };
        // What a broken connection looks like: no server sends a cause along.
        if std::error::Error::source(status).is_some() {
            return Sent::Unanswered { reason };
        }
        if again { Sent::Retry { after, reason } } else { Sent::Refused { reason } }
    }

    /// Reads an HTTP answer by the rules of the OTLP specification.
    pub(super) fn from_http(code: u16, retry_after: Option<&str>, body: &[u8]) -> Sent {
        match code {
            200..=299 => Sent::from_response(body),
            429 | 502 | 503 | 504 => {
                let seconds = retry_after.and_then(|text| text.trim().parse().ok());
                let after = seconds.map(|seconds| Duration::from_secs(seconds).min(PAUSE_MAX));
                Sent::Retry { after, reason: format!("HTTP {code}") }
            }
            _ => Sent::Refused { reason: format!("HTTP {code}: {}", printable(body)) },
        }
    }
}

/// The readable part of a body, cut to a line's length. Errors are a `google.rpc.Status`.
fn printable(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Rejected spans and message of an `ExportTraceServiceResponse`.
fn partial_success(body: &[u8]) -> Result<(u64, String), WireError> {
    let (mut spans, mut message) = (0, String::new());
    let mut reader = Reader::new(body);
    while let Some(field) = reader.next_field()? {
        if field.number != 1 {
            continue;
        }
        let mut partial = Reader::new(field.bytes()?);
        while let Some(field) = partial.next_field()? {
            match field.number {
                1 => spans = field.varint()?,
                2 => message = field.text()?.to_owned(),
                _ => {}
            }
        }
    }
    Ok((spans, message))
}

/// The delay of the `RetryInfo` among the details of a `google.rpc.Status`, if there is one.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = Reader::new(details).map_while(Result::ok);
    for detail in status.filter(|field| field.number == 3) {
        let (mut url, mut value): (&str, &[u8]) = ("", &[]);
        for field in Reader::new(detail.bytes().ok()?).map_while(Result::ok) {
            match field.number {
                1 => url = field.text().ok()?,
                2 => value = field.bytes().ok()?,
                _ => {}
            }
        }
        if !url.ends_with("google.rpc.RetryInfo") {
            continue;
        }
        let (mut seconds, mut nanos) = (0, 0);
        let delay = Reader::new(value).map_while(Result::ok).find(|field| field.number == 1);
        if let Some(delay) = delay {
            for field in Reader::new(delay.bytes().ok()?).map_while(Result::ok) {
                match field.number {
                    1 => seconds = field.varint().ok()?,
                    2 => nanos = field.varint().ok()?,
                    _ => {}
                }
            }
        }
        let nanos = u32::try_from(nanos).unwrap_or(0).min(999_999_999);
        return Some(Duration::new(seconds.min(PAUSE_MAX.as_secs()), nanos));
    }
    None
}

#[cfg(test)]
mod tests {
    use clew_model::wire;

    use super::*;

    fn retry_info(seconds: u64, nanos: u64) -> Vec<u8> {
        let (mut delay, mut info, mut any, mut status) = <(Vec<u8>, _, _, _)>::default();
        wire::put_varint_field(&mut delay, 1, seconds);
        wire::put_varint_field(&mut delay, 2, nanos);
        wire::put_bytes_field(&mut info, 1, &delay);
        wire::put_bytes_field(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
        wire::put_bytes_field(&mut any, 2, &info);
        wire::put_varint_field(&mut status, 1, 8);
        wire::put_bytes_field(&mut status, 3, &any);
        status
    }

    #[test]
    fn exhausted_is_repeated_only_with_retry_info() {
        let bare = tonic::Status::resource_exhausted("slow down");
        assert!(matches!(Sent::from_status(&bare), Sent::Refused { .. }));
        let details = retry_info(5, 500_000_000).into();
        let told = tonic::Status::with_details(Code::ResourceExhausted, "slow down", details);
        let Sent::Retry { after, .. } = Sent::from_status(&told) else { panic!("refused") };
        assert_eq!(after, Some(Duration::from_millis(5500)));
    }

    #[test]
    fn pauses_are_bounded_and_damaged_details_ignored() {
        assert_eq!(retry_delay(&retry_info(1 << 40, 0)), Some(PAUSE_MAX));
        assert_eq!(retry_delay(&[0x1a, 0x7f, 1]), None);
        assert_eq!(retry_delay(b""), None);
    }

    #[test]
    fn codes_follow_the_specification() {
        let retried = |code| {
            let status = tonic::Status::new(code, "");
            matches!(Sent::from_status(&status), Sent::Retry { .. })
        };
        assert!(retried(Code::Unavailable) && retried(Code::DeadlineExceeded));
        assert!(!retried(Code::InvalidArgument) && !retried(Code::Unimplemented));
        assert!(matches!(Sent::from_http(400, None, b"no"), Sent::Refused { .. }));
        assert_eq!(
            Sent::from_http(429, Some("7"), b""),
            Sent::Retry { after: Some(Duration::from_secs(7)), reason: "HTTP 429".to_owned() }
        );
    }

    #[test]
    fn partial_success_is_not_an_ack() {
        let (mut partial, mut response) = (Vec::new(), Vec::new());
        wire::put_varint_field(&mut partial, 1, 3);
        wire::put_bytes_field(&mut partial, 2, b"bad ids");
        wire::put_bytes_field(&mut response, 1, &partial);
        let expected = Sent::Rejected { spans: 3, reason: "rejected: bad ids".to_owned() };
        assert_eq!(Sent::from_http(200, None, &response), expected);
        assert_eq!(Sent::from_response(b""), Sent::Acked);
        assert!(matches!(Sent::from_response(&[0x0a]), Sent::Refused { .. }));
    }
}
