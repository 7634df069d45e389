//! What an index can do for a query: conditions it can look up, combined so that the result is
//! always a superset of the spans that match.

use std::ops::Bound;
use std::sync::Arc;

use crate::ast::FieldExpr;
use crate::eval::Filter;
use crate::value::Static;

mod build;

pub(crate) use build::of_node;

/// The most conditions of one prefilter; what does not fit is left to the filter.
pub const CONDITIONS_MAX: usize = 1024;

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
    /// int, float and duration. Identifiers are lower-case hex digits at full width.
    Equals(Static),
    /// Some numeric value (int, float, duration) lies within the bounds. A bound of a magnitude of
    /// 2^53 or more is inclusive and may be rounded, so that an index may convert its values to
    /// doubles: what such a bound admits need not pass the filter.
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

/// What an index can do for a filter: holds for every span the filter matches.
pub fn prefilter(filter: &FieldExpr) -> Prefilter {
    Filter::new(filter).prefilter()
}

impl Prefilter {
    /// Whether no span can match.
    pub const fn is_none(&self) -> bool {
        matches!(self, Prefilter::None)
    }

    /// Whether nothing is excluded.
    pub const fn is_all(&self) -> bool {
        matches!(self, Prefilter::All)
    }

    /// A test on a field.
    pub fn condition(field: Field, test: Test) -> Prefilter {
        Prefilter::Condition(Condition { field, test })
    }

    /// Spans in all of these, simplified.
    pub fn and(parts: impl IntoIterator<Item = Prefilter>) -> Prefilter {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Prefilter::All => {}
                Prefilter::None => return Prefilter::None,
                Prefilter::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            0 => Prefilter::All,
            1 => flat.pop().unwrap_or(Prefilter::All),
            _ => Prefilter::And(flat),
        }
    }

    /// Spans in any of these, simplified.
    pub fn or(parts: impl IntoIterator<Item = Prefilter>) -> Prefilter {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Prefilter::None => {}
                Prefilter::All => return Prefilter::All,
                Prefilter::Or(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            0 => Prefilter::None,
            1 => flat.pop().unwrap_or(Prefilter::None),
            _ => Prefilter::Or(flat),
        }
    }

    /// How many conditions there are.
    pub fn conditions(&self) -> usize {
        match self {
            Prefilter::All | Prefilter::None => 0,
            Prefilter::Condition(_) => 1,
            Prefilter::And(parts) | Prefilter::Or(parts) => {
                parts.iter().map(Prefilter::conditions).sum()
            }
        }
    }

    /// The same with at most that many conditions, excluding no more than before.
    fn bounded(self, max: usize) -> Prefilter {
        if self.conditions() <= max {
            return self;
        }
        match self {
            Prefilter::And(parts) => {
                let mut left = max;
                let mut kept = Vec::new();
                for part in parts {
                    let part = part.bounded(left);
                    left -= part.conditions();
                    kept.push(part);
                }
                Prefilter::and(kept)
            }
            _ => Prefilter::All,
        }
    }
}
