//! What an index can do for a query: conditions it can look up, combined so that the result is
//! always a superset of the spans that match.

use std::ops::Bound;
use std::sync::Arc;

use crate::value::Static;

/// Where an attribute lives; unscoped names are expanded into `Span` or `Resource`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `span.`
    Span,
    /// `resource.`
    Resource,
    /// `event.`
    Event,
    /// `link.`
    Link,
    /// `instrumentation.`
    Instrumentation,
}

/// A field that is not an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Intrinsic {
    /// `span:duration`
    Duration,
    /// `span:name`
    Name,
    /// `span:status`
    Status,
    /// `span:statusMessage`
    StatusMessage,
    /// `span:kind`
    Kind,
    /// `span:id`
    SpanId,
    /// `span:parentID`
    ParentId,
    /// `span:childCount`
    ChildCount,
    /// `trace:duration`
    TraceDuration,
    /// `trace:rootName`
    RootName,
    /// `trace:rootService`
    RootService,
    /// `trace:id`
    TraceId,
    /// `event:name`
    EventName,
    /// `event:timeSinceStart`
    EventTimeSinceStart,
    /// `link:traceID`
    LinkTraceId,
    /// `link:spanID`
    LinkSpanId,
    /// `instrumentation:name`
    InstrumentationName,
    /// `instrumentation:version`
    InstrumentationVersion,
    /// `nestedSetLeft`
    NestedSetLeft,
    /// `nestedSetRight`
    NestedSetRight,
    /// `nestedSetParent`
    NestedSetParent,
}

/// A field with its place known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// An attribute.
    Attribute(Scope, Arc<str>),
    /// An intrinsic.
    Intrinsic(Intrinsic),
}

/// A test on one value.
#[derive(Debug, Clone)]
pub enum Test {
    /// The field has a value.
    Exists,
    /// Some value (array element, event) equals this scalar; numbers compare by value across
    /// int, float and duration.
    Equals(Static),
    /// Some numeric value (int, float, duration) lies within the bounds, compared by value.
    NumberRange(Bound<f64>, Bound<f64>),
    /// Some string value lies within the bounds, compared bytewise.
    StringRange(Bound<Arc<str>>, Bound<Arc<str>>),
    /// Some string value matches the (already anchored) expression.
    Matches(Arc<regex::Regex>),
}

/// A test on a field: true for a span if any of the field's values passes.
#[derive(Debug, Clone)]
pub struct Condition {
    /// The field.
    pub field: Field,
    /// The test.
    pub test: Test,
}

/// A combination of conditions that holds for every span the filter matches, and maybe for more.
#[derive(Debug, Clone)]
pub enum Prefilter {
    /// Nothing is known: every span is a candidate.
    All,
    /// No span can match.
    None,
    /// Spans that pass one condition.
    Condition(Condition),
    /// Spans in all of these.
    And(Vec<Prefilter>),
    /// Spans in any of these.
    Or(Vec<Prefilter>),
}
