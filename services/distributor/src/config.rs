//! What an operator can set about ingest, with its defaults and what is allowed.

use clew_model::otlp::ScanLimits;
use clew_model::otlp::request::VALUE_DEPTH_MAX;
use clew_node::config::{Bytes, Span};
use serde::{Deserialize, Serialize};

/// The most bytes of one body. Positions of spans in a body are 32 bits wide.
const BODY_BYTES_ALLOWED: u64 = u32::MAX as u64;

/// Settings of the distributor. Past a limit of a span, the span is rejected; past a limit of a
/// request, the request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes of one request body as it comes over the wire.
    pub body_bytes_max: Bytes,
    /// Bytes of one request body after decompression.
    pub decompressed_bytes_max: Bytes,
    /// How long a request body may take to arrive.
    pub body_timeout: Span,
    /// After about so long a client is asked to connect anew, so that distributors that were not there
    /// before get their share; requests under way are finished. 0 leaves connections open.
    pub connection_age_max: Span,
    /// Spans of one request.
    pub spans_max: usize,
    /// Bytes of one encoded span.
    pub span_bytes_max: Bytes,
    /// Attributes of one span, resource or scope; also events and links of one span.
    pub span_parts_max: usize,
    /// Attribute values inside attribute values; a plain value has depth 1.
    pub value_depth_max: u32,
    /// Requests being worked on at the same time.
    pub requests_in_flight_max: usize,
    /// Bytes of memory held by requests being worked on at the same time.
    pub bytes_in_flight_max: Bytes,
    /// How long requests should at most wait for those that came before them. While more bytes are
    /// in flight than were finished in so much time lately, further requests are refused.
    pub queue_wait_max: Span,
    /// Decompressed OTLP bytes per second that one tenant may send to this process; 0 is no limit.
    pub tenant_rate_bytes: Bytes,
    /// Decompressed OTLP bytes that one tenant may send at once after a pause.
    pub tenant_burst_bytes: Bytes,
    /// Bytes, before compression, of one batch to a shard. A request with more for a shard sends
    /// several batches; a larger span is a batch by itself.
    pub batch_bytes_max: Bytes,
    /// How long the shards of a request may take to acknowledge it.
    pub append_timeout: Span,
    /// How long spans whose shards have no leader wait for an election, within `append_timeout`.
    pub leader_wait: Span,
    /// When a client should try again after a failure that passes.
    pub retry_after: Span,
    /// Origins of web pages that may send spans: `*` for all, or origins such as
    /// `https://shop.example`, where one `*` stands for any text. Empty: none.
    pub cors_origins: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            body_bytes_max: Bytes::mebi(32),
            decompressed_bytes_max: Bytes::mebi(64),
            body_timeout: Span::seconds(60),
            connection_age_max: Span::seconds(300),
            spans_max: 500_000,
            span_bytes_max: Bytes::mebi(16),
            span_parts_max: 10_000,
            value_depth_max: 32,
            requests_in_flight_max: 2_000,
            bytes_in_flight_max: Bytes::mebi(384),
            queue_wait_max: Span::seconds(2),
            tenant_rate_bytes: Bytes(0),
            tenant_burst_bytes: Bytes::mebi(64),
            batch_bytes_max: Bytes::mebi(4),
            append_timeout: Span::seconds(10),
            leader_wait: Span::seconds(6),
            retry_after: Span::seconds(1),
            cors_origins: vec!["*".to_owned()],
        }
    }
}

/// Why a distributor cannot be built from its settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A setting's value is not allowed.
    #[error("config key distributor.{key}: {allowed}, not {given}")]
    Setting {
        /// The key below `distributor`.
        key: &'static str,
        /// What is allowed.
        allowed: String,
        /// What was given.
        given: String,
    },
}

impl BuildError {
    /// What the caller should do about it.
    pub const fn kind(&self) -> clew_model::ErrorKind {
        match self {
            BuildError::Setting { .. } => clew_model::ErrorKind::Invalid,
        }
    }
}

impl Config {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`BuildError::Setting`] for the first one that is not allowed.
    pub fn validate(&self) -> Result<(), BuildError> {
        let body = |key, bytes: Bytes| {
            let fits = (1..=BODY_BYTES_ALLOWED).contains(&bytes.0);
            check(fits, key, &"must be 1 byte to 4GiB", &bytes)
        };
        body("body_bytes_max", self.body_bytes_max)?;
        body("decompressed_bytes_max", self.decompressed_bytes_max)?;
        body("span_bytes_max", self.span_bytes_max)?;
        body("batch_bytes_max", self.batch_bytes_max)?;
        let positive = |key, value: usize| check(value > 0, key, &"must be 1 or more", &value);
        positive("spans_max", self.spans_max)?;
        positive("span_parts_max", self.span_parts_max)?;
        positive("requests_in_flight_max", self.requests_in_flight_max)?;
        let depth = self.value_depth_max;
        let allowed = format!("must be 1 to {VALUE_DEPTH_MAX}");
        check((1..=VALUE_DEPTH_MAX).contains(&depth), "value_depth_max", &allowed, &depth)?;
        // Otherwise the largest request could never be taken, yet would be told to come again.
        let least = Bytes(self.body_bytes_max.0 + 4 * self.decompressed_bytes_max.0);
        let (key, given) = ("bytes_in_flight_max", self.bytes_in_flight_max);
        let allowed = format!("must be body_bytes_max + 4 * decompressed_bytes_max ({least})");
        check(given >= least, key, &format!("{allowed} or more"), &given)?;
        let limited = self.tenant_rate_bytes.0 > 0;
        let burst = self.tenant_burst_bytes;
        let allowed = "must be 1 byte or more when tenant_rate_bytes is set";
        check(!limited || burst.0 > 0, "tenant_burst_bytes", &allowed, &burst)?;
        for (key, span) in [
            ("body_timeout", self.body_timeout),
            ("append_timeout", self.append_timeout),
            ("queue_wait_max", self.queue_wait_max),
            ("retry_after", self.retry_after),
        ] {
            check(!span.0.is_zero(), key, &"must be longer than 0s", &span)?;
        }
        self.cors_origins.iter().try_for_each(|origin| {
            let fits = origin.is_ascii()
                && !origin.contains(|c: char| c.is_ascii_control() || c == ' ' || c == ',')
                && (origin == "*" || origin.contains("://"))
                && origin.matches('*').count() <= 1;
            check(fits, "cors_origins", &"must be * or like https://*.example.com", origin)
        })
    }

    /// The most bytes that the batches of one request may have together, before compression.
    /// Resources are repeated for each shard, so one request could fill memory many times over.
    pub(crate) fn batches_bytes_max(&self) -> usize {
        self.decompressed_bytes_max.as_usize().saturating_mul(2)
    }

    /// The limits of a request that its scan checks.
    pub(crate) fn scan_limits(&self) -> ScanLimits {
        ScanLimits {
            request_bytes_max: self.decompressed_bytes_max.as_usize(),
            span_bytes_max: self.span_bytes_max.as_usize(),
            attributes_max: self.span_parts_max,
            events_max: self.span_parts_max,
            links_max: self.span_parts_max,
            depth_max: self.value_depth_max,
        }
    }
}

fn check(
    fits: bool,
    key: &'static str,
    allowed: &dyn std::fmt::Display,
    given: &dyn std::fmt::Display,
) -> Result<(), BuildError> {
    let error =
        || BuildError::Setting { key, allowed: allowed.to_string(), given: given.to_string() };
    if fits { Ok(()) } else { Err(error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_allowed() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn errors_name_the_key_the_value_and_what_is_allowed() {
        assert_eq!(
            refused(|config| config.value_depth_max = 65),
            "config key distributor.value_depth_max: must be 1 to 64, not 65"
        );
        assert_eq!(
            refused(|config| config.bytes_in_flight_max = Bytes::mebi(287)),
            "config key distributor.bytes_in_flight_max: must be body_bytes_max + \
             4 * decompressed_bytes_max (288MiB) or more, not 287MiB"
        );
        for (key, message) in [
            ("body_bytes_max", refused(|config| config.body_bytes_max = Bytes(0))),
            ("spans_max", refused(|config| config.spans_max = 0)),
            ("append_timeout", refused(|config| config.append_timeout = Span::seconds(0))),
            ("cors_origins", refused(|config| config.cors_origins = vec!["a b".to_owned()])),
            ("cors_origins", refused(|config| config.cors_origins = vec!["*://*".to_owned()])),
            (
                "tenant_burst_bytes",
                refused(|config| {
                    config.tenant_rate_bytes = Bytes(1);
                    config.tenant_burst_bytes = Bytes(0);
                }),
            ),
        ] {
            assert!(message.contains(&format!("distributor.{key}:")), "{message}");
        }
    }
}
