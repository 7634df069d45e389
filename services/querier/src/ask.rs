//! What a query's root is asked, already checked: the border between the HTTP API and the engine.

use std::collections::BTreeMap;

use clew_model::{TraceId, UnixNanos};

/// A closed range of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeRange {
    /// Its first nanosecond.
    pub(crate) start: UnixNanos,
    /// Its last nanosecond.
    pub(crate) end: UnixNanos,
}

impl TimeRange {
    /// Everything.
    pub(crate) const ALL: TimeRange = TimeRange { start: UnixNanos(0), end: UnixNanos(u64::MAX) };

    /// Whether it shares a nanosecond with [`min`, `max`].
    pub(crate) fn overlaps(&self, min: UnixNanos, max: UnixNanos) -> bool {
        min <= self.end && self.start <= max
    }

    /// The range longer by `margin` nanoseconds at both ends.
    pub(crate) fn widened(&self, margin: u64) -> TimeRange {
        TimeRange {
            start: UnixNanos(self.start.0.saturating_sub(margin)),
            end: UnixNanos(self.end.0.saturating_add(margin)),
        }
    }
}

/// A search; without a query it is by tags, and with neither for every trace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SearchAsk {
    pub(crate) query: String,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) min_duration_nanos: u64,
    /// 0 for none.
    pub(crate) max_duration_nanos: u64,
    pub(crate) range: Option<TimeRange>,
    pub(crate) limit: u32,
    pub(crate) spans_per_spanset: u32,
}

/// A deletion: of these traces, or of all that a search finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeletionAsk {
    pub(crate) ids: Vec<TraceId>,
    pub(crate) search: Option<SearchAsk>,
    /// Only tell what would be deleted.
    pub(crate) dry_run: bool,
}

/// The scopes a client can ask tag names of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagScope {
    /// Every scope.
    All,
    /// A scope without attributes.
    Trace,
    Resource,
    Span,
    /// The fixed list of intrinsics.
    Intrinsic,
    Event,
    Link,
    Instrumentation,
}

impl TagScope {
    /// The scope of that name.
    pub(crate) fn parse(name: &str) -> Option<TagScope> {
        Some(match name {
            "" | "none" => TagScope::All,
            "trace" => TagScope::Trace,
            "resource" => TagScope::Resource,
            "span" => TagScope::Span,
            "intrinsic" => TagScope::Intrinsic,
            "event" => TagScope::Event,
            "link" => TagScope::Link,
            "instrumentation" => TagScope::Instrumentation,
            _ => return None,
        })
    }

    /// What a leaf is asked: one scope by name or empty for all; nothing if no leaf has any.
    pub(crate) fn leaf_scope(self) -> Option<&'static str> {
        match self {
            TagScope::All => Some(""),
            TagScope::Resource => Some("resource"),
            TagScope::Span => Some("span"),
            TagScope::Event => Some("event"),
            TagScope::Link => Some("link"),
            TagScope::Instrumentation => Some("instrumentation"),
            TagScope::Trace | TagScope::Intrinsic => None,
        }
    }

    /// Whether the intrinsics belong to the answer.
    pub(crate) fn has_intrinsics(self) -> bool {
        matches!(self, TagScope::All | TagScope::Intrinsic)
    }
}

/// A request for the names of attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagNamesAsk {
    pub(crate) scope: TagScope,
    pub(crate) query: String,
    pub(crate) range: Option<TimeRange>,
    /// Names of each scope; 0 for all.
    pub(crate) limit: u32,
}

/// A request for the values of one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagValuesAsk {
    /// A TraceQL attribute or intrinsic.
    pub(crate) tag: String,
    pub(crate) query: String,
    pub(crate) range: Option<TimeRange>,
    /// 0 for all.
    pub(crate) limit: u32,
}
