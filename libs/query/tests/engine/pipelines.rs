//! Pipelines, structural operators and aggregates: a second evaluation, slow and simple, of random
//! queries on whole traces, against the engine with the spans scattered over heads and blocks.

#![allow(clippy::cast_precision_loss, clippy::cast_possible_wrap, reason = "small numbers")]

use clew_proto::query::v1::{FoundTrace, SearchRequest};
use clew_proto::tempopb::SpanSet;
use clew_query::QueryLimits;
use clew_traceql::value::Static;
use proptest::prelude::*;

use super::filters::{Expr, filters, parent_of};
use super::run;
use super::search::{requests, tight};
use super::spans::{SpanModel, TraceModel, Val};
use super::world::{Layout, World, layouts};

/// An expression over spansets.
#[derive(Debug, Clone)]
enum Sets {
    Filter(Expr),
    Binary(&'static str, Box<Sets>, Box<Sets>),
    Pipeline(Vec<Step>),
}

#[derive(Debug, Clone)]
enum Step {
    Sets(Sets),
    Compare(Scalar, &'static str, Scalar),
    By(&'static str),
    Coalesce,
    Select(&'static str),
}

#[derive(Debug, Clone)]
enum Scalar {
    Count,
    /// Of `duration`.
    Duration(&'static str),
    /// `sum(span.b)` or another one.
    Number(&'static str),
    Nanos(i64),
    Int(i64),
    /// `max(duration) - min(duration)`
    Spread,
    /// `({ filter } | count())`
    CountOf(Box<Expr>),
}

const STRUCTURAL: [&str; 15] =
    [">>", "<<", ">", "<", "~", "!>>", "!<<", "!>", "!<", "!~", "&>>", "&<<", "&>", "&<", "&~"];

impl Sets {
    fn text(&self) -> String {
        match self {
            Sets::Filter(filter) => format!("{{ {} }}", filter.text()),
            Sets::Binary(op, left, right) => format!("({}) {op} ({})", left.text(), right.text()),
            Sets::Pipeline(steps) => format!("({})", text_of(steps)),
        }
    }
}

fn text_of(steps: &[Step]) -> String {
    let text = |step: &Step| match step {
        Step::Sets(sets) => sets.text(),
        Step::Compare(left, op, right) => format!("{} {op} {}", left.text(), right.text()),
        Step::By(field) => format!("by({field})"),
        Step::Coalesce => "coalesce()".to_owned(),
        Step::Select(field) => format!("select({field})"),
    };
    steps.iter().map(text).collect::<Vec<_>>().join(" | ")
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Scalar::Count => "count()".to_owned(),
            Scalar::Duration(function) => format!("{function}(duration)"),
            Scalar::Number(function) => format!("{function}(span.b)"),
            Scalar::Nanos(nanos) => format!("{nanos}ns"),
            Scalar::Int(number) => number.to_string(),
            Scalar::Spread => "max(duration) - min(duration)".to_owned(),
            Scalar::CountOf(filter) => format!("({{ {} }} | count())", filter.text()),
        }
    }
}

/// Places of spans in their trace, ascending, and what is said of them.
#[derive(Debug, Clone, PartialEq)]
struct Set {
    spans: Vec<usize>,
    said: Vec<(String, String)>,
}

fn nil_or<T>(value: Option<T>, wrap: impl Fn(T) -> Static) -> Static {
    value.map_or(Static::Nil, wrap)
}

fn static_of(value: &Val) -> Static {
    match value {
        Val::Text(text) => Static::string(text),
        Val::Int(number) => Static::Int(*number),
        Val::Truth(truth) => Static::Bool(*truth),
        Val::Texts(texts) => Static::Array(texts.iter().map(|text| Static::string(text)).collect()),
    }
}

/// As an answer shows a value.
fn shown(value: &Static) -> String {
    match value {
        Static::String(text) => format!("text {text}"),
        Static::Int(number) => format!("int {number}"),
        Static::Float(number) => format!("float {number}"),
        Static::Bool(truth) => format!("bool {truth}"),
        other => format!("text {other}"),
    }
}

struct Naive<'a>(&'a TraceModel);

impl Naive<'_> {
    fn span(&self, at: usize) -> &SpanModel {
        &self.0.spans[at]
    }

    fn parent(&self, at: usize) -> Option<usize> {
        let parent = parent_of(self.0, self.span(at))?;
        self.0.spans.iter().position(|span| span.id == parent.id)
    }

    /// The ancestors, nearest first, if they lead to a root.
    fn ancestors(&self, at: usize) -> Option<Vec<usize>> {
        let mut chain = Vec::new();
        let mut next = at;
        while self.span(next).parent != 0 {
            next = self.parent(next)?;
            if chain.contains(&next) {
                return None;
            }
            chain.push(next);
        }
        Some(chain)
    }

    /// Whether `b` is the descendant (and so on) of `a`.
    fn is(&self, relation: &str, a: usize, b: usize) -> bool {
        let (Some(above_a), Some(above_b)) = (self.ancestors(a), self.ancestors(b)) else {
            return false;
        };
        match relation {
            ">>" => above_b.contains(&a),
            "<<" => above_a.contains(&b),
            ">" => above_b.first() == Some(&a),
            "<" => above_a.first() == Some(&b),
            "~" => a != b && above_a.first() == above_b.first(),
            other => unreachable!("{other}"),
        }
    }

    fn sets(&self, sets: &Sets, of: &Set) -> Vec<Set> {
        match sets {
            Sets::Filter(filter) => {
                let passes = |at: &usize| filter.matches(self.0, self.span(*at));
                let spans: Vec<usize> = of.spans.iter().copied().filter(passes).collect();
                kept(spans, of)
            }
            Sets::Pipeline(steps) => self.steps(steps, vec![of.clone()]),
            Sets::Binary(op, left, right) => {
                let left = united(&self.sets(left, of));
                let right = united(&self.sets(right, of));
                let (form, relation) = match op.strip_prefix('!') {
                    Some(relation) => ('!', relation),
                    None => match op.strip_prefix('&').filter(|rest| *rest != "&") {
                        Some(relation) => ('&', relation),
                        None => (' ', *op),
                    },
                };
                let spans = match (form, relation) {
                    (' ', "&&") if left.is_empty() || right.is_empty() => Vec::new(),
                    (' ', "&&" | "||") => of
                        .spans
                        .iter()
                        .copied()
                        .filter(|at| left.contains(at) || right.contains(at))
                        .collect(),
                    _ => {
                        let on_right = |b: usize| {
                            right.contains(&b) && left.iter().any(|a| self.is(relation, *a, b))
                        };
                        let on_left = |a: usize| {
                            left.contains(&a) && right.iter().any(|b| self.is(relation, a, *b))
                        };
                        let wanted = |at: &usize| match form {
                            '!' => right.contains(at) && !on_right(*at),
                            '&' => on_right(*at) || on_left(*at),
                            _ => on_right(*at),
                        };
                        of.spans.iter().copied().filter(wanted).collect()
                    }
                };
                kept(spans, of)
            }
        }
    }

    fn steps(&self, steps: &[Step], mut sets: Vec<Set>) -> Vec<Set> {
        for step in steps {
            sets = match step {
                Step::Sets(expr) => sets.iter().flat_map(|set| self.sets(expr, set)).collect(),
                Step::Compare(left, op, right) => {
                    sets.iter().filter_map(|set| self.compare(left, op, right, set)).collect()
                }
                Step::By(field) => sets.iter().flat_map(|set| self.by(field, set)).collect(),
                Step::Coalesce if sets.is_empty() => Vec::new(),
                Step::Coalesce => vec![Set { spans: united(&sets), said: Vec::new() }],
                Step::Select(_) => sets,
            };
        }
        sets
    }

    fn by(&self, field: &str, set: &Set) -> Vec<Set> {
        let mut groups: Vec<(Static, Set)> = Vec::new();
        for at in &set.spans {
            let span = self.span(*at);
            let value = match field {
                "name" => Static::string(&span.name),
                "span.a" => nil_or(span.a.as_ref(), static_of),
                "resource.service.name" => {
                    nil_or(span.resource.service.as_ref(), |text| Static::string(text))
                }
                other => unreachable!("{other}"),
            };
            let place = groups.iter().position(|(known, _)| *known == value);
            let place = place.unwrap_or_else(|| {
                let mut said = set.said.clone();
                said.push((format!("by({field})"), shown(&value)));
                groups.push((value, Set { spans: Vec::new(), said }));
                groups.len() - 1
            });
            groups[place].1.spans.push(*at);
        }
        groups.into_iter().map(|(_, set)| set).collect()
    }

    fn compare(&self, left: &Scalar, op: &str, right: &Scalar, set: &Set) -> Option<Set> {
        let mut said = set.said.clone();
        let mut whole = false;
        let mut found = Vec::new();
        let mut values = Vec::new();
        for side in [left, right] {
            let (spans, parts): (Vec<usize>, Vec<(String, Scalar)>) = match side {
                Scalar::Nanos(number) | Scalar::Int(number) => {
                    values.push(Some(*number as f64));
                    continue;
                }
                Scalar::CountOf(filter) => {
                    let passes = |at: &usize| filter.matches(self.0, self.span(*at));
                    let spans: Vec<usize> = set.spans.iter().copied().filter(passes).collect();
                    found.extend(spans.iter().copied());
                    (spans, vec![(printed(side), Scalar::Count)])
                }
                Scalar::Spread => {
                    whole = true;
                    let part = |function: &'static str| {
                        (format!("{function}(duration)"), Scalar::Duration(function))
                    };
                    (set.spans.clone(), vec![part("max"), part("min")])
                }
                simple => {
                    whole = true;
                    (set.spans.clone(), vec![(simple.text(), simple.clone())])
                }
            };
            let mut numbers = Vec::new();
            for (label, part) in parts {
                let value = self.aggregate(&part, &spans);
                match said.iter_mut().find(|(known, _)| *known == label) {
                    Some(known) => known.1 = shown(&value),
                    None => said.push((label, shown(&value))),
                }
                numbers.push(match value {
                    Static::Int(number) | Static::Duration(number) => Some(number as f64),
                    Static::Float(number) => Some(number),
                    _ => None,
                });
            }
            values.push(match numbers.as_slice() {
                [number] => *number,
                [a, b] => a.zip(*b).map(|(a, b)| a - b),
                _ => unreachable!(),
            });
        }
        let (left, right) = (values[0]?, values[1]?);
        let holds = match op {
            ">" => left > right,
            "<=" => left <= right,
            "=" => left == right,
            "!=" => left != right,
            other => unreachable!("{other}"),
        };
        found.sort_unstable();
        found.dedup();
        let spans = if whole { set.spans.clone() } else { found };
        (holds && !spans.is_empty()).then_some(Set { spans, said })
    }

    fn aggregate(&self, scalar: &Scalar, spans: &[usize]) -> Static {
        let (function, numbers): (&str, Vec<i64>) = match scalar {
            Scalar::Duration(function) => {
                (function, spans.iter().map(|at| self.span(*at).duration as i64).collect())
            }
            Scalar::Number(function) => {
                let number = |at: &usize| match self.span(*at).b {
                    Some(Val::Int(number)) => Some(number),
                    _ => None,
                };
                (function, spans.iter().filter_map(number).collect())
            }
            _ => return Static::Int(spans.len() as i64),
        };
        let duration = matches!(scalar, Scalar::Duration(_));
        let unit =
            |number: i64| if duration { Static::Duration(number) } else { Static::Int(number) };
        if numbers.is_empty() {
            return Static::Nil;
        }
        let sum: i64 = numbers.iter().sum();
        match function {
            "min" => unit(*numbers.iter().min().unwrap()),
            "max" => unit(*numbers.iter().max().unwrap()),
            "sum" => unit(sum),
            "avg" if duration => unit(sum / numbers.len() as i64),
            "avg" => Static::Float(sum as f64 / numbers.len() as f64),
            other => unreachable!("{other}"),
        }
    }
}

/// The scalar as the printer writes it.
fn printed(scalar: &Scalar) -> String {
    let query = clew_traceql::parse(&format!("{} > 0", scalar.text())).unwrap().to_string();
    query.trim_end_matches(" > 0").to_owned()
}

fn kept(spans: Vec<usize>, of: &Set) -> Vec<Set> {
    if spans.is_empty() { Vec::new() } else { vec![Set { spans, said: of.said.clone() }] }
}

fn united(sets: &[Set]) -> Vec<usize> {
    let mut spans: Vec<usize> = sets.iter().flat_map(|set| set.spans.clone()).collect();
    spans.sort_unstable();
    spans.dedup();
    spans
}

fn sets_of(depth: u32) -> BoxedStrategy<Sets> {
    // Often filters that an index decides alone, so that both ways are taken.
    let simple = prop_oneof![
        2 => prop::sample::select(vec!["x", "y"])
            .prop_map(|word| Expr::Test("resource.service.name", "=", Val::Text(word.to_owned()))),
        2 => (0u8..3).prop_map(Expr::Status),
        1 => prop::sample::select(vec!["x", "y"])
            .prop_map(|word| Expr::Test("name", "=", Val::Text(word.to_owned()))),
        1 => Just(Expr::Constant(true)),
    ];
    let filter = prop_oneof![3 => simple, 1 => filters()].prop_map(Sets::Filter);
    if depth == 0 {
        return filter.boxed();
    }
    let op = prop_oneof![
        1 => prop::sample::select(vec!["&&", "||"]),
        3 => prop::sample::select(STRUCTURAL.to_vec()),
    ];
    let inner = || sets_of(depth - 1);
    prop_oneof![
        2 => filter,
        4 => (op, inner(), inner())
            .prop_map(|(op, left, right)| Sets::Binary(op, Box::new(left), Box::new(right))),
        1 => (inner(), prop::collection::vec(step(depth - 1, false), 1..3)).prop_map(
            |(first, rest)| {
                Sets::Pipeline([Step::Sets(first)].into_iter().chain(rest).collect())
            }
        ),
    ]
    .boxed()
}

fn step(depth: u32, groups: bool) -> BoxedStrategy<Step> {
    let op = || prop::sample::select(vec![">", "<=", "=", "!="]);
    let function = || prop::sample::select(vec!["min", "max", "avg", "sum"]);
    let spans = prop_oneof![
        3 => (op(), 0i64..4).prop_map(|(op, n)| Step::Compare(Scalar::Count, op, Scalar::Int(n))),
        2 => (function(), op(), 0i64..40)
            .prop_map(|(f, op, n)| Step::Compare(Scalar::Duration(f), op, Scalar::Nanos(n))),
        2 => (function(), op(), 0i64..4)
            .prop_map(|(f, op, n)| Step::Compare(Scalar::Number(f), op, Scalar::Int(n))),
        1 => (op(), 0i64..20)
            .prop_map(|(op, n)| Step::Compare(Scalar::Spread, op, Scalar::Nanos(n))),
        1 => op().prop_map(|op| Step::Compare(Scalar::Count, op, Scalar::Number("avg"))),
        1 => (op(), 0i64..3).prop_map(|(op, n)| Step::Compare(Scalar::Int(n), op, Scalar::Count)),
        2 => (filters(), op(), filters()).prop_map(|(a, op, b)| {
            Step::Compare(Scalar::CountOf(Box::new(a)), op, Scalar::CountOf(Box::new(b)))
        }),
    ];
    let other = prop_oneof![Just(Step::Coalesce), Just(Step::Select("span.a"))];
    let by =
        prop::sample::select(vec!["name", "span.a", "resource.service.name"]).prop_map(Step::By);
    prop_oneof![
        3 => sets_of(depth).prop_map(Step::Sets),
        4 => spans,
        1 => other,
        if groups { 3 } else { 0 } => by,
    ]
    .boxed()
}

fn pipelines() -> impl Strategy<Value = Vec<Step>> {
    (sets_of(2), prop::collection::vec(step(1, true), 0..4))
        .prop_map(|(first, rest)| [Step::Sets(first)].into_iter().chain(rest).collect())
}

/// Trace, and of each spanset how many matched, the ids of the spans shown, and what is said of it.
type Entry = (u8, Vec<(u32, Vec<String>, Vec<(String, String)>)>);

fn expected(layout: &Layout, request: &SearchRequest, steps: &[Step]) -> Vec<Entry> {
    let or_all = |bound: u64| if bound == 0 { u64::MAX } else { bound };
    let (end, max) = (or_all(request.end_unix_nanos), or_all(request.max_duration_nanos));
    let mut found = Vec::new();
    for trace in &layout.traces {
        let duration = trace.end() - trace.start();
        let inside = trace.start() <= end && trace.end() >= request.start_unix_nanos;
        if !inside || !(request.min_duration_nanos..=max).contains(&duration) {
            continue;
        }
        let all = Set { spans: (0..trace.spans.len()).collect(), said: Vec::new() };
        let sets = Naive(trace).steps(steps, vec![all]);
        if sets.is_empty() {
            continue;
        }
        let shown = |set: Set| {
            let ids = set.spans.iter().take(request.spans_per_spanset as usize);
            let ids = ids.map(|at| format!("{:02x}", trace.spans[*at].id).repeat(8)).collect();
            (u32::try_from(set.spans.len()).unwrap(), ids, set.said)
        };
        let rank = (std::cmp::Reverse(trace.start()), trace.id);
        found.push((rank, (trace.id, sets.into_iter().map(shown).collect())));
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.truncate(request.limit as usize);
    found.into_iter().map(|(_, entry)| entry).collect()
}

fn entry(found: &FoundTrace) -> Entry {
    use clew_proto::common::v1::any_value::Value;
    let said = |set: &SpanSet| {
        let said = |pair: &clew_proto::common::v1::KeyValue| {
            let value = match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
                Value::StringValue(text) => format!("text {text}"),
                Value::IntValue(number) => format!("int {number}"),
                Value::DoubleValue(number) => format!("float {number}"),
                Value::BoolValue(truth) => format!("bool {truth}"),
                other => panic!("{other:?}"),
            };
            (pair.key.clone(), value)
        };
        set.attributes.iter().map(said).collect()
    };
    let set = |set: &SpanSet| {
        (set.matched, set.spans.iter().map(|span| span.span_id.clone()).collect(), said(set))
    };
    (found.trace_id[0], found.metadata.as_ref().unwrap().span_sets.iter().map(set).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn pipelines_find_exactly_what_they_should(
        layout in layouts(),
        steps in pipelines(),
        request in requests(),
        small_steps: bool,
    ) {
        let query = text_of(&steps);
        let request = SearchRequest { query: query.clone(), ..request };
        let limits = if small_steps { tight() } else { QueryLimits::default() };
        let found = run(async {
            World::build(&layout, limits).await.search(&request).await.unwrap()
        });
        let found: Vec<Entry> = found.traces.iter().map(entry).collect();
        prop_assert_eq!(found, expected(&layout, &request, &steps), "{}", query);
    }
}
