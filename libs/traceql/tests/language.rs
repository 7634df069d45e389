//! The language as users know it: which queries are accepted, which are refused and why, and what
//! filters find on a few known spans. One line per statement of the specification.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use clew_traceql::{
    EvalError, Filter, Intrinsic, Kind, Prefilter, QUERY_BYTES_MAX, Scope, SpanValues, Static,
    Status, parse, parse_field, prefilter,
};

#[test]
fn these_queries_are_accepted() {
    let accepted = include_str!("language/accepted.traceql");
    for text in accepted.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let query = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let printed = query.to_string();
        assert_eq!(parse(&printed).as_ref(), Ok(&query), "{text} prints as {printed}");
    }
}

#[test]
fn these_queries_are_refused_with_a_reason() {
    let refused = include_str!("language/refused.traceql");
    let mut count = 0;
    let mut wrong = Vec::new();
    for line in refused.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (text, reason) = line.split_once("  ##  ").unwrap_or_else(|| panic!("{line}"));
        let (col, reason) = reason.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        match parse(text) {
            Ok(query) => wrong.push(format!("{text} was read as {query}")),
            Err(error) => {
                let placed = (error.line, error.col) == (1, col.parse().unwrap());
                if !placed || !error.message.contains(reason) {
                    wrong.push(format!("{line}\n    {error}"));
                }
            }
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100);
}

#[test]
fn length_and_depth_are_bounded() {
    assert!(parse(&" ".repeat(QUERY_BYTES_MAX + 1)).is_err());
    for (open, close) in [("(", ")"), ("!", ""), ("-(", ")"), ("1 + (", ")"), ("1 ^ ", "")] {
        let text = format!("{{ {}1{} = 1 }}", open.repeat(9000), close.repeat(9000));
        let error = parse(&text).unwrap_err();
        assert!(error.message.contains("deeper than"), "{error}");
    }
    let spansets = |depth: usize| format!("{}{{}}{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&spansets(100)).is_ok());
    assert!(parse(&spansets(9000)).is_err());
    let sums = format!("{{ .a{} > 1 }}", " + 1".repeat(9000));
    assert!(parse(&sums).unwrap_err().message.contains("deeper than"));
    assert!(parse(&"{} >> ".repeat(9000)).is_err());
    assert!(parse(&vec!["{ .a =~ `x` }"; 100].join(" || ")).is_err());
}

#[test]
fn a_long_list_is_no_deep_query() {
    let any = vec![".a = 1"; 9000].join(" || ");
    let filter = Filter::new(parse(&format!("{{ {any} }}")).unwrap().as_filter().unwrap());
    assert!(matches!(filter.prefilter(), Prefilter::All));
    let all = vec!["span.a = 1"; 9000].join(" && ");
    let query = parse(&format!("{{ {all} }}")).unwrap();
    assert!(
        prefilter(query.as_filter().unwrap()).conditions() <= clew_traceql::plan::CONDITIONS_MAX
    );
}

#[test]
fn errors_say_where() {
    let error = parse("{ .a = 1 &&\n  .b == 2 }").unwrap_err();
    assert_eq!((error.line, error.col), (2, 7));
    assert!(error.to_string().starts_with("parse error at line 2, col 7: "));
    assert_eq!(error.kind(), clew_model::ErrorKind::Invalid);
}

#[test]
fn single_fields_are_read() {
    for text in
        [".a", "span.a", "resource.\"a b\"", "name", "span:kind", "event:name", "nestedSetLeft"]
    {
        assert_eq!(parse_field(text).unwrap().to_string(), text);
    }
    for text in ["", "a", "a.b", "trace:name", ".a .b", "{ .a }", "parent", "1"] {
        assert!(parse_field(text).is_err(), "{text}");
    }
}

/// Attributes by scope and name, intrinsics, events, links.
#[derive(Default)]
struct Span {
    attributes: BTreeMap<(Scope, &'static str), Static>,
    intrinsics: BTreeMap<Intrinsic, Static>,
    events: Vec<(&'static str, Vec<(&'static str, Static)>)>,
    links: Vec<(&'static str, Vec<(&'static str, Static)>)>,
    parent: BTreeMap<(Scope, &'static str), Static>,
}

impl SpanValues for Span {
    fn attribute(&self, scope: Scope, name: &str) -> Option<Static> {
        let mut all = self.attributes.iter();
        all.find(|((at, key), _)| *at == scope && *key == name).map(|(_, value)| value.clone())
    }

    fn intrinsic(&self, intrinsic: Intrinsic) -> Option<Static> {
        self.intrinsics.get(&intrinsic).cloned()
    }

    fn event_count(&self) -> usize {
        self.events.len()
    }

    fn event_attribute(&self, event: usize, name: &str) -> Option<Static> {
        self.events[event].1.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
    }

    fn event_intrinsic(&self, event: usize, intrinsic: Intrinsic) -> Option<Static> {
        (intrinsic == Intrinsic::EventName).then(|| Static::string(self.events[event].0))
    }

    fn link_count(&self) -> usize {
        self.links.len()
    }

    fn link_attribute(&self, link: usize, name: &str) -> Option<Static> {
        self.links[link].1.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
    }

    fn link_intrinsic(&self, link: usize, intrinsic: Intrinsic) -> Option<Static> {
        (intrinsic == Intrinsic::LinkTraceId).then(|| Static::string(self.links[link].0))
    }

    fn parent_attribute(&self, scope: Scope, name: &str) -> Option<Static> {
        let mut all = self.parent.iter();
        all.find(|((at, key), _)| *at == scope && *key == name).map(|(_, value)| value.clone())
    }
}

fn known_span() -> Span {
    use Static::{Array, Bool, Duration, Float, Int};
    let text = Static::string;
    let mut span = Span::default();
    let attributes = [
        (Scope::Span, "int", Int(500)),
        (Scope::Span, "float", Float(0.5)),
        (Scope::Span, "text", text("hello\nworld")),
        (Scope::Span, "yes", Bool(true)),
        (Scope::Span, "no", Bool(false)),
        (Scope::Span, "both", text("span")),
        (Scope::Span, "texts", Array(vec![text("a"), text("b")])),
        (Scope::Span, "ints", Array(vec![Int(1), Int(5)])),
        (Scope::Span, "zero", Int(0)),
        (Scope::Resource, "both", text("resource")),
        (Scope::Resource, "service.name", text("shop")),
        (Scope::Instrumentation, "lib", text("otel")),
    ];
    for (scope, name, value) in attributes {
        span.attributes.insert((scope, name), value);
    }
    span.intrinsics = BTreeMap::from([
        (Intrinsic::Duration, Duration(2_000_000_000)),
        (Intrinsic::TraceDuration, Duration(4_000_000_000)),
        (Intrinsic::Name, text("GET /cart")),
        (Intrinsic::Status, Static::Status(Status::Error)),
        (Intrinsic::Kind, Static::Kind(Kind::Server)),
        (Intrinsic::SpanId, text("00000000000000ab")),
        (Intrinsic::TraceId, text("0000000000000000000000000000beef")),
        (Intrinsic::RootName, text("checkout")),
        (Intrinsic::RootService, text("frontend")),
        (Intrinsic::NestedSetParent, Int(-1)),
    ]);
    span.events = vec![
        ("exception", vec![("type", text("IO")), ("fatal", Bool(true))]),
        ("retry", vec![("type", text("net")), ("count", Int(3))]),
    ];
    span.parent = BTreeMap::from([
        ((Scope::Span, "int"), Int(7)),
        ((Scope::Span, "both"), text("parent span")),
        ((Scope::Resource, "both"), text("parent resource")),
        ((Scope::Resource, "service.name"), text("gateway")),
    ]);
    span.links = vec![("000000000000000000000000000000cd", vec![("why", text("batch"))])];
    span
}

fn matches(filter: &str, span: &Span) -> Result<bool, EvalError> {
    let query = parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    Filter::new(query.as_filter().unwrap()).matches(span)
}

#[test]
fn these_filters_match_the_known_span() {
    let span = known_span();
    for (wanted, text) in [
        (true, include_str!("language/matching.traceql")),
        (false, include_str!("language/not_matching.traceql")),
    ] {
        for filter in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            assert_eq!(matches(filter, &span), Ok(wanted), "{filter}");
        }
    }
}

#[test]
fn some_filters_cannot_be_evaluated() {
    let span = known_span();
    for (filter, error) in [
        ("{ 1 / 0 = 1 }", EvalError::DivisionByZero),
        ("{ .int / .zero = 1 }", EvalError::DivisionByZero),
        ("{ .int % 0 = 1 }", EvalError::DivisionByZero),
        ("{ .ints + 1 = 2 }", EvalError::ArrayArithmetic),
        ("{ -.ints = 2 }", EvalError::ArrayArithmetic),
    ] {
        assert_eq!(matches(filter, &span), Err(error.clone()), "{filter}");
        assert_eq!(error.kind(), clew_model::ErrorKind::Invalid);
    }
    assert_eq!(matches("{ .zero != 0 && .int / .zero = 1 }", &span), Ok(false));
}

#[test]
fn pairs_of_events_and_links_are_bounded() {
    let mut span = known_span();
    span.events = vec![("e", vec![]); 2000];
    span.links = vec![("1", vec![]); 2000];
    let together = "{ event:name = \"x\" || link.why = \"y\" }";
    assert_eq!(
        matches(together, &span),
        Err(EvalError::TooManyPairs { events: 2000, links: 2000 })
    );
    assert_eq!(matches("{ event:name = \"x\" && link.why = \"y\" }", &span), Ok(false));
}

#[test]
fn spans_without_events_have_no_event_fields() {
    let span = Span::default();
    assert_eq!(matches("{ event.x = nil }", &span), Ok(false));
    assert_eq!(matches("{ event.x != nil }", &span), Ok(false));
    assert_eq!(matches("{ !(event.x = 1) }", &span), Ok(true));
    assert_eq!(matches("{ event.x = 1 || .a = nil }", &span), Ok(true));
}

#[test]
fn what_never_matches_is_known_beforehand() {
    for text in [
        "{ false }",
        "{ 1 = 2 }",
        "{ .a && false }",
        "{ nil = nil }",
        "{ nil != nil }",
        "{ !true }",
        "{ \"a\" =~ \"b\" }",
        "{ 1 + 1 = 3 || false }",
        "{ .a = 1.0 / 0 }",
    ] {
        let query = parse(text).unwrap();
        let filter = Filter::new(query.as_filter().unwrap());
        assert!(filter.is_never(), "{text}");
        assert!(filter.prefilter().is_none(), "{text}");
    }
    for text in ["{}", "{ true }", "{ 1 < 1h }", "{ .a || 2 ^ 3 = 8 }", "{ !false }"] {
        let query = parse(text).unwrap();
        let filter = Filter::new(query.as_filter().unwrap());
        assert!(filter.is_always(), "{text}");
        assert!(filter.prefilter().is_all(), "{text}");
    }
}

#[test]
fn prefilters_use_what_an_index_knows() {
    for (text, wanted) in [
        ("{ span.a = 1 }", "span.a = 1"),
        ("{ 1 < span.a }", "span.a in (1, inf)"),
        ("{ span.a <= 1.5 }", "span.a in (-inf, 1.5]"),
        ("{ .a = 1 }", "(span.a = 1 or resource.a = 1)"),
        ("{ span.a != 1 }", "span.a exists"),
        ("{ span.a !~ `x` }", "span.a exists"),
        ("{ span.a = nil }", "all"),
        ("{ span.a != nil }", "span.a exists"),
        ("{ !(span.a = nil) }", "span.a exists"),
        ("{ !(event.a = nil) }", "all"),
        ("{ span.a }", "span.a = true"),
        ("{ !span.a }", "span.a = false"),
        ("{ !(span.a = 1) }", "all"),
        ("{ span.a = span.b }", "(span.a exists and span.b exists)"),
        ("{ span.a + span.b > 1 }", "(span.a exists and span.b exists)"),
        ("{ span.a = 1 && span.b = nil }", "span.a = 1"),
        ("{ span.a = 1 || span.b = nil }", "all"),
        ("{ span.a = 1 && false }", "none"),
        ("{ trace:id = \"BEEF\" }", "trace:id = \"0000000000000000000000000000beef\""),
        ("{ trace:duration > 1s }", "trace:duration in (1000000000, inf)"),
        ("{ span.a > 9007199254740993 }", "span.a in [9007199254740992, inf)"),
        ("{ span.a >= \"m\" }", "span.a in [\"m\", inf)"),
    ] {
        let query = parse(text).unwrap();
        assert_eq!(shown(&prefilter(query.as_filter().unwrap())), wanted, "{text}");
    }
}

fn shown(prefilter: &Prefilter) -> String {
    let joined = |parts: &[Prefilter], word: &str| {
        format!("({})", parts.iter().map(shown).collect::<Vec<_>>().join(word))
    };
    match prefilter {
        Prefilter::All => "all".to_owned(),
        Prefilter::None => "none".to_owned(),
        Prefilter::And(parts) => joined(parts, " and "),
        Prefilter::Or(parts) => joined(parts, " or "),
        Prefilter::Condition(condition) => shown_condition(condition),
    }
}

fn shown_condition(condition: &clew_traceql::Condition) -> String {
    use clew_traceql::{Field, FieldRef, Test};
    let field = match &condition.field {
        Field::Attribute(scope, name) => FieldRef::attribute(Some(*scope), name).to_string(),
        Field::Intrinsic(intrinsic) => intrinsic.scoped_name().unwrap().to_owned(),
    };
    match &condition.test {
        Test::Exists => format!("{field} exists"),
        Test::Equals(value) => format!("{field} = {value}"),
        Test::Matches(regex) => format!("{field} =~ {regex}"),
        Test::NumberRange(low, high) => format!("{field} in {}", shown_range(*low, *high)),
        Test::StringRange(low, high) => {
            let quoted = |text: std::sync::Arc<str>| Static::String(text);
            format!("{field} in {}", shown_range(low.clone().map(quoted), high.clone().map(quoted)))
        }
    }
}

fn shown_range<T: std::fmt::Display>(low: std::ops::Bound<T>, high: std::ops::Bound<T>) -> String {
    use std::ops::Bound;
    let low = match low {
        Bound::Included(value) => format!("[{value}"),
        Bound::Excluded(value) => format!("({value}"),
        Bound::Unbounded => "(-inf".to_owned(),
    };
    match high {
        Bound::Included(value) => format!("{low}, {value}]"),
        Bound::Excluded(value) => format!("{low}, {value})"),
        Bound::Unbounded => format!("{low}, inf)"),
    }
}
