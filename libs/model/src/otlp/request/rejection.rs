//! The account of spans that were not accepted, for `partial_success` and for metrics.

use std::fmt::{Display, Write as _};

/// Why a span was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// The trace id is not 16 bytes, or zero.
    InvalidTraceId,
    /// The span id is not 8 bytes, or zero; or the parent's id has another length.
    InvalidSpanId,
    /// An id of a link has a wrong length.
    InvalidLink,
    /// Attribute values are nested too deeply.
    TooDeep,
    /// Too many attributes, events or links.
    TooMany,
    /// The span has too many bytes.
    TooLarge,
    /// A string is not UTF-8.
    NotUtf8,
    /// The bytes are no span, resource or scope.
    Malformed,
}

impl RejectReason {
    /// Every reason, in declaration order.
    pub const ALL: [RejectReason; 8] = [
        RejectReason::InvalidTraceId,
        RejectReason::InvalidSpanId,
        RejectReason::InvalidLink,
        RejectReason::TooDeep,
        RejectReason::TooMany,
        RejectReason::TooLarge,
        RejectReason::NotUtf8,
        RejectReason::Malformed,
    ];

    /// The stable lower-case name, used as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            RejectReason::InvalidTraceId => "invalid_trace_id",
            RejectReason::InvalidSpanId => "invalid_span_id",
            RejectReason::InvalidLink => "invalid_link",
            RejectReason::TooDeep => "too_deep",
            RejectReason::TooMany => "too_many_parts",
            RejectReason::TooLarge => "span_too_large",
            RejectReason::NotUtf8 => "not_utf8",
            RejectReason::Malformed => "malformed_span",
        }
    }
}

impl Display for RejectReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many spans were rejected, by reason, with the first example of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejections {
    entries: [Entry; RejectReason::ALL.len()],
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    spans: u64,
    example: String,
}

impl Rejections {
    /// Counts one span.
    pub fn add(&mut self, reason: RejectReason, detail: &dyn Display) {
        let entry = &mut self.entries[reason as usize];
        if entry.spans == 0 {
            entry.example = detail.to_string();
        }
        entry.spans += 1;
    }

    /// The number of rejected spans.
    pub fn total(&self) -> u64 {
        self.entries.iter().map(|entry| entry.spans).sum()
    }

    /// Whether every span was accepted.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// The reasons that occurred: reason, number of spans, what was wrong with the first one.
    pub fn iter(&self) -> impl Iterator<Item = (RejectReason, u64, &str)> {
        RejectReason::ALL
            .into_iter()
            .zip(&self.entries)
            .filter(|(_, entry)| entry.spans > 0)
            .map(|(reason, entry)| (reason, entry.spans, entry.example.as_str()))
    }

    /// One line for a `partial_success` message; empty when nothing was rejected.
    pub fn message(&self) -> String {
        let mut text = String::new();
        for (reason, spans, example) in self.iter() {
            let separator = if text.is_empty() { "" } else { "; " };
            let noun = if spans == 1 { "span" } else { "spans" };
            // Writing to a string does not fail.
            let _ = write!(text, "{separator}{spans} {noun} rejected, {reason}: {example}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_example_of_each_reason_is_kept() {
        let mut rejected = Rejections::default();
        assert!(rejected.is_empty() && rejected.message().is_empty());
        rejected.add(RejectReason::NotUtf8, &"first");
        rejected.add(RejectReason::NotUtf8, &"second");
        rejected.add(RejectReason::InvalidTraceId, &"no id");
        assert_eq!(rejected.total(), 3);
        assert_eq!(
            rejected.message(),
            "1 span rejected, invalid_trace_id: no id; 2 spans rejected, not_utf8: first"
        );
    }

    #[test]
    fn reasons_index_their_entries() {
        for (at, reason) in RejectReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
    }
}
