//! Filters the load test knows the answer to: each prints itself as TraceQL and judges a generated
//! span by itself, without the code of any server.

use std::fmt;

use clew_model::TraceId;
use regex::Regex;

use crate::workload::{Span, TraceData, Value, World, find};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// An attribute of the span.
    Span(&'static str),
    /// An attribute of the resource.
    Resource(&'static str),
    /// An attribute of the span, else of the resource.
    Any(&'static str),
    /// An attribute of any event.
    Event(&'static str),
    /// An attribute of any link.
    Link(&'static str),
    /// The name of any event.
    EventName,
    /// The name of the instrumentation scope.
    InstrumentationName,
    /// The span's name.
    Name,
    /// The span's kind.
    Kind,
    /// The span's status.
    Status,
    /// The span's status message.
    StatusMessage,
    /// The span's duration, compared in nanoseconds.
    Duration,
    /// The service of the root span.
    RootService,
    /// From the first start to the last end, compared in nanoseconds.
    TraceDuration,
    /// The trace a link points to.
    LinkTraceId,
}

/// What it is compared with.
#[derive(Debug, Clone)]
pub enum Test {
    /// Equal to a text.
    Is(String),
    /// Present and not equal to a text.
    IsNot(String),
    /// Equal to a status or kind.
    IsWord(&'static str),
    /// Equal to an integer.
    IsInt(i64),
    /// Equal to a truth value.
    IsBool(bool),
    /// At least an integer.
    AtLeast(i64),
    /// Greater than a fraction.
    Above(f64),
    /// Longer than so many milliseconds.
    Longer(u64),
    /// Shorter than so many milliseconds.
    Shorter(u64),
    /// Matches as a whole.
    Matches(Pattern),
    /// Present, and does not match as a whole.
    MatchesNot(Pattern),
    /// Absent.
    Absent,
}

/// A regular expression that must match a whole text.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: &'static str,
    regex: Option<Regex>,
}

impl Pattern {
    /// The pattern `text`, anchored at both ends.
    pub fn new(text: &'static str) -> Pattern {
        // The patterns are written in `classes` and tested; one that is wrong matches nothing.
        Pattern { text, regex: Regex::new(&format!("(?s)^(?:{text})$")).ok() }
    }

    fn matches(&self, text: &str) -> bool {
        self.regex.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

/// A filter on spans.
#[derive(Debug, Clone)]
pub enum Filter {
    /// Every span.
    Everything,
    /// One comparison.
    Test(Field, Test),
    /// All of them.
    All(Vec<Filter>),
    /// One of them.
    Any(Vec<Filter>),
}

/// A span with what it belongs to.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The world it was made in.
    pub world: &'a World,
    /// Its trace.
    pub trace: &'a TraceData<'a>,
    /// The duration of its trace, in nanoseconds.
    pub trace_duration: u64,
    /// The span.
    pub span: &'a Span<'a>,
}

impl Filter {
    /// One comparison.
    pub fn on(field: Field, test: Test) -> Filter {
        Filter::Test(field, test)
    }

    /// Whether the span matches.
    pub fn matches(&self, subject: Subject<'_>) -> bool {
        match self {
            Filter::Everything => true,
            Filter::Test(field, test) => holds(*field, test, subject),
            Filter::All(filters) => filters.iter().all(|filter| filter.matches(subject)),
            Filter::Any(filters) => filters.iter().any(|filter| filter.matches(subject)),
        }
    }

    /// The TraceQL query.
    pub fn to_traceql(&self) -> String {
        match self {
            Filter::Everything => "{ }".to_owned(),
            filter => format!("{{ {filter} }}"),
        }
    }
}

fn holds(field: Field, test: &Test, subject: Subject<'_>) -> bool {
    let span = subject.span;
    let resource = &subject.world.resources[span.resource].attributes;
    let value = |value: Option<&Value<'_>>| value.map_or_else(|| test.absent(), |v| test.value(v));
    let mut events = span.events.iter();
    let mut links = span.links.iter();
    match field {
        Field::Span(key) => value(span.attribute(key)),
        Field::Resource(key) => value(find(resource, key)),
        Field::Any(key) => value(span.attribute(key).or_else(|| find(resource, key))),
        Field::Event(key) => {
            events.any(|event| find(&event.attributes, key).is_some_and(|v| test.value(v)))
        }
        Field::Link(key) => {
            links.any(|link| find(&link.attributes, key).is_some_and(|v| test.value(v)))
        }
        Field::EventName => events.any(|event| test.text(event.name)),
        Field::LinkTraceId => links.any(|link| test.text(&link.trace_id.to_string())),
        Field::InstrumentationName => test.text(World::scope(span.scope).0),
        Field::Name => test.text(&span.name),
        Field::Kind => test.word(kind_word(span.kind)),
        Field::Status => test.word(status_word(span.status)),
        Field::StatusMessage => test.text(&span.status_message),
        Field::Duration => test.nanos(span.end.saturating_sub(span.start)),
        Field::RootService => test.text(subject.world.service_name(root(subject.trace))),
        Field::TraceDuration => test.nanos(subject.trace_duration),
    }
}

/// The resource of the root span.
fn root(trace: &TraceData<'_>) -> usize {
    trace.spans.first().map_or(0, |span| span.resource)
}

/// How TraceQL calls a span kind.
pub(crate) fn kind_word(kind: i32) -> &'static str {
    match kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "unspecified",
    }
}

/// How TraceQL calls a status code.
pub(crate) fn status_word(status: i32) -> &'static str {
    match status {
        1 => "ok",
        2 => "error",
        _ => "unset",
    }
}

impl Test {
    fn absent(&self) -> bool {
        matches!(self, Test::Absent)
    }

    fn value(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Test::Absent, _) => false,
            (_, Value::Text(text)) => self.text(text),
            (Test::IsNot(_) | Test::MatchesNot(_), Value::Texts(texts)) => {
                texts.iter().all(|text| self.text(text))
            }
            (_, Value::Texts(texts)) => texts.iter().any(|text| self.text(text)),
            (Test::IsInt(wanted), Value::Int(number)) => number == wanted,
            (Test::AtLeast(least), Value::Int(number)) => number >= least,
            (Test::Above(bound), Value::Double(number)) => number > bound,
            (Test::IsBool(wanted), Value::Bool(truth)) => truth == wanted,
            _ => false,
        }
    }

    fn text(&self, text: &str) -> bool {
        match self {
            Test::Is(wanted) => text == wanted,
            Test::IsNot(unwanted) => text != unwanted,
            Test::Matches(pattern) => pattern.matches(text),
            Test::MatchesNot(pattern) => !pattern.matches(text),
            _ => false,
        }
    }

    fn word(&self, word: &str) -> bool {
        matches!(self, Test::IsWord(wanted) if *wanted == word)
    }

    fn nanos(&self, nanos: u64) -> bool {
        match self {
            Test::Longer(millis) => nanos > millis * 1_000_000,
            Test::Shorter(millis) => nanos < millis * 1_000_000,
            _ => false,
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (filters, between) = match self {
            Filter::Everything => return Ok(()),
            Filter::Test(field, test) => return write!(f, "{field} {test}"),
            Filter::All(filters) => (filters, " && "),
            Filter::Any(filters) => (filters, " || "),
        };
        for (at, filter) in filters.iter().enumerate() {
            if at > 0 {
                f.write_str(between)?;
            }
            match filter {
                Filter::Test(..) => write!(f, "{filter}")?,
                _ => write!(f, "({filter})")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Span(key) => write!(f, "span.{key}"),
            Field::Resource(key) => write!(f, "resource.{key}"),
            Field::Any(key) => write!(f, ".{key}"),
            Field::Event(key) => write!(f, "event.{key}"),
            Field::Link(key) => write!(f, "link.{key}"),
            Field::EventName => f.write_str("event:name"),
            Field::InstrumentationName => f.write_str("instrumentation:name"),
            Field::Name => f.write_str("name"),
            Field::Kind => f.write_str("kind"),
            Field::Status => f.write_str("status"),
            Field::StatusMessage => f.write_str("statusMessage"),
            Field::Duration => f.write_str("duration"),
            Field::RootService => f.write_str("rootServiceName"),
            Field::TraceDuration => f.write_str("traceDuration"),
            Field::LinkTraceId => f.write_str("link:traceID"),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Test::Is(text) => write!(f, "= {}", quoted(text)),
            Test::IsNot(text) => write!(f, "!= {}", quoted(text)),
            Test::IsWord(word) => write!(f, "= {word}"),
            Test::IsInt(number) => write!(f, "= {number}"),
            Test::IsBool(truth) => write!(f, "= {truth}"),
            Test::AtLeast(number) => write!(f, ">= {number}"),
            Test::Above(number) => write!(f, "> {number}"),
            Test::Longer(millis) => write!(f, "> {millis}ms"),
            Test::Shorter(millis) => write!(f, "< {millis}ms"),
            Test::Matches(pattern) => write!(f, "=~ {}", quoted(pattern.text)),
            Test::MatchesNot(pattern) => write!(f, "!~ {}", quoted(pattern.text)),
            Test::Absent => f.write_str("= nil"),
        }
    }
}

/// `text` as a TraceQL string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The text that finds `trace` as the target of a link.
pub(super) fn link_to(trace: TraceId) -> Filter {
    Filter::on(Field::LinkTraceId, Test::Is(trace.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_print_as_traceql() {
        let filter = Filter::All(vec![
            Filter::on(Field::Span("a.b"), Test::Is("x\"y\\".to_owned())),
            Filter::Any(vec![
                Filter::on(Field::Duration, Test::Longer(5)),
                Filter::on(Field::Status, Test::IsWord("error")),
            ]),
        ]);
        assert_eq!(
            filter.to_traceql(),
            r#"{ span.a.b = "x\"y\\" && (duration > 5ms || status = error) }"#
        );
        assert_eq!(Filter::Everything.to_traceql(), "{ }");
    }

    #[test]
    fn absent_makes_every_comparison_false() {
        for test in [
            Test::IsNot("x".to_owned()),
            Test::MatchesNot(Pattern::new("x")),
            Test::Is("x".to_owned()),
        ] {
            assert!(!test.absent());
        }
        assert!(Test::Absent.absent());
    }

    #[test]
    fn patterns_match_whole_texts() {
        assert!(Pattern::new("a.*|b").matches("ab\nc"));
        assert!(!Pattern::new("a|b").matches("ab"));
    }

    #[test]
    fn lists_match_by_any_and_differ_by_all() {
        let list = Value::Texts(&["de", "en"]);
        assert!(Test::Is("de".to_owned()).value(&list));
        assert!(!Test::IsNot("de".to_owned()).value(&list));
        assert!(Test::IsNot("fr".to_owned()).value(&list));
    }
}
