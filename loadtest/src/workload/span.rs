//! A span as the generator thinks of it, before it becomes bytes.

use std::borrow::Cow;

use clew_model::{SpanId, TraceId};

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'w> {
    /// Text.
    Text(Cow<'w, str>),
    /// A 64-bit integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// True or false.
    Bool(bool),
    /// A list of texts.
    Texts(&'static [&'static str]),
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl<'w> From<&'w str> for Value<'w> {
    fn from(text: &'w str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Value::Bool(truth)
    }
}

/// A key and its value.
pub type Attribute<'w> = (&'static str, Value<'w>);

/// Something that happened during a span.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'w> {
    /// When, in nanoseconds since the epoch.
    pub time: u64,
    /// Its name.
    pub name: &'static str,
    /// Its attributes.
    pub attributes: Vec<Attribute<'w>>,
}

/// A pointer to a span of another trace, or of the same one.
#[derive(Debug, Clone, PartialEq)]
pub struct Link<'w> {
    /// The trace pointed to.
    pub trace_id: TraceId,
    /// The span pointed to.
    pub span_id: SpanId,
    /// Its attributes.
    pub attributes: Vec<Attribute<'w>>,
}

/// One span. Names borrow from the world it was made in.
#[derive(Debug, Clone, PartialEq)]
pub struct Span<'w> {
    /// Its identifier, unique in the trace.
    pub span_id: SpanId,
    /// The span that caused it; none for the root.
    pub parent: Option<SpanId>,
    /// Its name.
    pub name: Cow<'w, str>,
    /// Kind, as OTLP numbers it.
    pub kind: i32,
    /// Start, in nanoseconds since the epoch.
    pub start: u64,
    /// End, in nanoseconds since the epoch.
    pub end: u64,
    /// Its attributes.
    pub attributes: Vec<Attribute<'w>>,
    /// Its events.
    pub events: Vec<Event<'w>>,
    /// Its links.
    pub links: Vec<Link<'w>>,
    /// Status code, as OTLP numbers it.
    pub status: i32,
    /// Status message; empty when there is none.
    pub status_message: Cow<'w, str>,
    /// Which of the world's resources reported it.
    pub resource: usize,
    /// Which of the world's instrumentation scopes made it.
    pub scope: usize,
}

impl<'w> Span<'w> {
    /// The value of an attribute of the span itself.
    pub fn attribute(&self, key: &str) -> Option<&Value<'w>> {
        find(&self.attributes, key)
    }
}

/// The value under `key`.
pub fn find<'a, 'w>(attributes: &'a [Attribute<'w>], key: &str) -> Option<&'a Value<'w>> {
    attributes.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// A whole trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceData<'w> {
    /// Its identifier.
    pub id: TraceId,
    /// Its spans, the root first and parents before their children.
    pub spans: Vec<Span<'w>>,
}

impl TraceData<'_> {
    /// The earliest start of a span, in nanoseconds since the epoch.
    pub fn start(&self) -> u64 {
        self.spans.iter().map(|span| span.start).min().unwrap_or(0)
    }

    /// The latest end of a span, in nanoseconds since the epoch.
    pub fn end(&self) -> u64 {
        self.spans.iter().map(|span| span.end).max().unwrap_or(0)
    }
}
