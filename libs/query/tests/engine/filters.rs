//! Random filters, as text for the engine and as a plain evaluation on the models.

use proptest::prelude::*;

use super::spans::{Event, SpanModel, TraceModel, Val};

#[derive(Debug, Clone)]
pub enum Expr {
    Test(&'static str, &'static str, Val),
    Nil(&'static str, bool),
    Status(u8),
    Kind(u8),
    Duration(&'static str, u64),
    TraceDuration(u64),
    IsRoot,
    Event(&'static str, &'static str, String),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Constant(bool),
}

const STATUS: [&str; 3] = ["unset", "ok", "error"];
const KIND: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];

fn quoted(value: &Val) -> String {
    match value {
        Val::Text(text) => format!("\"{text}\""),
        Val::Int(number) => number.to_string(),
        Val::Truth(truth) => truth.to_string(),
        Val::Texts(_) => unreachable!("no literal"),
    }
}

impl Expr {
    pub fn text(&self) -> String {
        let joined = |parts: &[Expr], with: &str| {
            let parts: Vec<String> =
                parts.iter().map(|part| format!("({})", part.text())).collect();
            parts.join(with)
        };
        match self {
            Expr::Test(field, op, value) => format!("{field} {op} {}", quoted(value)),
            Expr::Nil(field, present) => {
                format!("{field} {} nil", if *present { "!=" } else { "=" })
            }
            Expr::Status(status) => format!("status = {}", STATUS[usize::from(*status)]),
            Expr::Kind(kind) => format!("kind != {}", KIND[usize::from(*kind)]),
            Expr::Duration(op, nanos) => format!("duration {op} {nanos}ns"),
            Expr::TraceDuration(nanos) => format!("trace:duration > {nanos}ns"),
            Expr::IsRoot => "nestedSetParent < 0".to_owned(),
            Expr::Event(field, op, value) => format!("{field} {op} \"{value}\""),
            Expr::Not(inner) => format!("!({})", inner.text()),
            Expr::And(parts) => joined(parts, " && "),
            Expr::Or(parts) => joined(parts, " || "),
            Expr::Constant(truth) => truth.to_string(),
        }
    }

    /// Whether the filter is true for a span: for one of its events, if it has any.
    pub fn matches(&self, trace: &TraceModel, span: &SpanModel) -> bool {
        if span.events.is_empty() {
            return self.holds(trace, span, None);
        }
        span.events.iter().any(|event| self.holds(trace, span, Some(event)))
    }

    fn holds(&self, trace: &TraceModel, span: &SpanModel, event: Option<&Event>) -> bool {
        match self {
            Expr::Test(field, op, wanted) => {
                value_of(field, trace, span).is_some_and(|value| passes(op, &value, wanted))
            }
            Expr::Nil(field, present) => value_of(field, trace, span).is_some() == *present,
            Expr::Status(status) => span.status == *status,
            Expr::Kind(kind) => span.kind != *kind,
            Expr::Duration(op, nanos) => ordered(op, span.duration, *nanos),
            Expr::TraceDuration(nanos) => trace.end() - trace.start() > *nanos,
            Expr::IsRoot => span.parent == 0,
            Expr::Event(field, op, wanted) => event.is_some_and(|event| {
                let value =
                    if *field == "event:name" { Some(&event.name) } else { event.e.as_ref() };
                value.is_some_and(|value| (value == wanted) == (*op == "="))
            }),
            Expr::Not(inner) => !inner.holds(trace, span, event),
            Expr::And(parts) => parts.iter().all(|part| part.holds(trace, span, event)),
            Expr::Or(parts) => parts.iter().any(|part| part.holds(trace, span, event)),
            Expr::Constant(truth) => *truth,
        }
    }
}

fn ordered<T: PartialOrd>(op: &str, left: T, right: T) -> bool {
    match op {
        "=" => left == right,
        "!=" => left != right,
        "<" => left < right,
        ">=" => left >= right,
        other => unreachable!("{other}"),
    }
}

fn value_of(field: &str, trace: &TraceModel, span: &SpanModel) -> Option<Val> {
    match field {
        "span.a" => span.a.clone(),
        "span.b" => span.b.clone(),
        "resource.a" => span.resource.a.clone(),
        ".a" => span.a.clone().or_else(|| span.resource.a.clone()),
        ".b" => span.b.clone(),
        "resource.service.name" => span.resource.service.clone().map(Val::Text),
        "name" => Some(Val::Text(span.name.clone())),
        "parent.a" => parent_of(trace, span)
            .and_then(|parent| parent.a.clone().or_else(|| parent.resource.a.clone())),
        "parent.span.b" => parent_of(trace, span).and_then(|parent| parent.b.clone()),
        "parent.resource.service.name" => {
            parent_of(trace, span)?.resource.service.clone().map(Val::Text)
        }
        "rootName" => trace.root().map(|root| Val::Text(root.name.clone())),
        "rootServiceName" => {
            trace.root().map(|root| Val::Text(root.resource.service.clone().unwrap_or_default()))
        }
        other => unreachable!("{other}"),
    }
}

pub fn parent_of<'a>(trace: &'a TraceModel, span: &SpanModel) -> Option<&'a SpanModel> {
    let parent = trace.spans.iter().find(|other| other.id == span.parent);
    parent.filter(|parent| parent.id != span.id)
}

fn passes(op: &str, value: &Val, wanted: &Val) -> bool {
    match (value, wanted) {
        (Val::Text(value), Val::Text(wanted)) => match op {
            "=~" => value.starts_with(wanted.as_str()),
            "!~" => !value.starts_with(wanted.as_str()),
            op => ordered(op, value.as_str(), wanted.as_str()),
        },
        (Val::Int(value), Val::Int(wanted)) => ordered(op, *value, *wanted),
        (Val::Truth(value), Val::Truth(wanted)) => ordered(op, *value, *wanted),
        (Val::Texts(values), wanted) => {
            let each = |value: &String| passes(op, &Val::Text(value.clone()), wanted);
            match op {
                "!=" | "!~" => matches!(wanted, Val::Text(_)) && values.iter().all(each),
                _ => values.iter().any(each),
            }
        }
        _ => false,
    }
}

fn leaf() -> impl Strategy<Value = Expr> {
    let word = || prop::sample::select(vec!["x", "y", "xy", ""]).prop_map(str::to_owned);
    let attribute = || {
        prop::sample::select(vec![
            "span.a",
            "span.b",
            "resource.a",
            ".a",
            ".b",
            "parent.a",
            "parent.span.b",
        ])
    };
    let text_field = prop::sample::select(vec![
        "resource.service.name",
        "name",
        "rootName",
        "rootServiceName",
        "parent.resource.service.name",
        "span.a",
        ".a",
        "resource.a",
    ]);
    prop_oneof![
        6 => (text_field, prop::sample::select(vec!["=", "!=", "<", ">="]), word())
            .prop_map(|(field, op, value)| Expr::Test(field, op, Val::Text(value))),
        3 => (attribute(), prop::sample::select(vec!["=", "!=", "<", ">="]), 0i64..4)
            .prop_map(|(field, op, value)| Expr::Test(field, op, Val::Int(value))),
        1 => (attribute(), prop::sample::select(vec!["=", "!="]), any::<bool>())
            .prop_map(|(field, op, value)| Expr::Test(field, op, Val::Truth(value))),
        2 => (attribute(), any::<bool>()).prop_map(|(field, present)| Expr::Nil(field, present)),
        1 => (0u8..3).prop_map(Expr::Status),
        1 => (0u8..6).prop_map(Expr::Kind),
        1 => (prop::sample::select(vec!["<", ">="]), 0u64..30)
            .prop_map(|(op, nanos)| Expr::Duration(op, nanos)),
        1 => (0u64..100).prop_map(Expr::TraceDuration),
        1 => Just(Expr::IsRoot),
        1 => any::<bool>().prop_map(Expr::Constant),
    ]
}

fn word_of_root() -> impl Strategy<Value = Expr> {
    let word = prop::sample::select(vec!["x", "y", ""]).prop_map(str::to_owned);
    let field = prop::sample::select(vec!["rootName", "rootServiceName"]);
    prop_oneof![
        2 => (field, word).prop_map(|(field, word)| Expr::Test(field, "=", Val::Text(word))),
        1 => (10u64..90).prop_map(Expr::TraceDuration),
    ]
}

/// Event conditions are not negated: what a filter means for spans without events is not at stake.
pub fn filters() -> impl Strategy<Value = Expr> {
    let word = prop::sample::select(vec!["x", "y", ""]).prop_map(str::to_owned);
    let event = (
        prop::sample::select(vec!["event:name", "event.e"]),
        prop::sample::select(vec!["=", "!="]),
        word,
    )
        .prop_map(|(field, op, value)| Expr::Event(field, op, value));
    // Facts of the whole trace together with facts of a span: a fragment alone cannot tell.
    let across = (word_of_root(), leaf()).prop_map(|(root, leaf)| Expr::And(vec![root, leaf]));
    let negated = leaf().prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Expr::Not(Box::new(inner))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            prop::collection::vec(inner, 2..4).prop_map(Expr::Or),
        ]
    });
    prop_oneof![6 => negated, 1 => event, 3 => across].prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            prop::collection::vec(inner, 2..4).prop_map(Expr::Or),
        ]
    })
}
