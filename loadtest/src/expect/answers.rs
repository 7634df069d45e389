//! The right answers: one pass over the generated traces that collects, for every query, the
//! traces it must return, and the facts a search answer states about them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use clew_model::TraceId;

use super::classes::Class;
use super::filter::{Field, Filter, Subject, Test};
use super::look::Look;
use crate::workload::{Attribute, DataSet, TraceData, Value, Wave, World};

/// What a search says about a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceFacts {
    /// Its identifier.
    pub id: TraceId,
    /// Whose it is.
    pub tenant: u64,
    /// The earliest start of a span, in nanoseconds since the epoch.
    pub start: u64,
    /// The latest end of a span, in nanoseconds since the epoch.
    pub end: u64,
    /// The service of the root span.
    pub root_service: Arc<str>,
    /// The name of the root span.
    pub root_name: Arc<str>,
    /// Spans.
    pub spans: u32,
    /// Failed spans.
    pub errors: u32,
    /// False if the fate of some of its spans is unknown: then nothing is claimed about it.
    pub sure: bool,
}

/// A trace a query must return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Its position in [`Answers::traces`].
    pub trace: usize,
    /// How many of its spans match.
    pub matched: u32,
}

/// Names and values of attributes of one tenant.
#[derive(Debug, Clone, Default)]
pub struct Tags {
    /// By scope: the keys.
    pub names: BTreeMap<&'static str, BTreeSet<String>>,
    /// By tag as TraceQL spells it: (type, value).
    pub values: BTreeMap<&'static str, BTreeSet<(&'static str, String)>>,
}

/// Tags whose values are collected: scope and key, and both joined.
pub const VALUE_TAGS: [(&str, &str, &str); 5] = [
    ("resource", "service.name", "resource.service.name"),
    ("span", "http.request.method", "span.http.request.method"),
    ("span", "http.response.status_code", "span.http.response.status_code"),
    ("span", "db.operation", "span.db.operation"),
    ("span", "cache.hit", "span.cache.hit"),
];

/// The right answers to the queries of some classes.
#[derive(Debug, Default)]
pub struct Answers {
    /// Every trace that was sent.
    pub traces: Vec<TraceFacts>,
    /// For every class and query the traces to return, newest first; equals by identifier.
    pub hits: Vec<Vec<Vec<Hit>>>,
    /// Attribute names and values by tenant.
    pub tags: BTreeMap<u64, Tags>,
    /// Whether the fate of every span is known.
    pub closed: bool,
}

impl Answers {
    /// The answers as far as the traces of `waves` are concerned; `unsure` tells the spans (by
    /// wave and request) whose fate is unknown.
    pub fn collect(
        world: &World,
        data_set: &DataSet,
        classes: &[Class],
        waves: Range<u64>,
        unsure: &BTreeSet<(u64, u32)>,
    ) -> Answers {
        let mut collector = Collector::new(world, data_set, classes);
        for number in waves {
            let wave = Wave::new(world, data_set, number);
            let mut doubtful = BTreeSet::new();
            for (_, request) in unsure.range((number, 0)..(number + 1, 0)) {
                let request = usize::try_from(*request).unwrap_or(usize::MAX);
                let places = wave.requests.get(request).into_iter().flatten();
                doubtful.extend(places.map(|&(trace, _)| trace));
            }
            for (at, trace) in wave.traces.iter().enumerate() {
                collector.trace(trace, data_set.tenant_of(number), !doubtful.contains(&at));
            }
        }
        collector.answers
    }

    /// Adds the answers about other waves.
    pub fn append(&mut self, other: Answers) {
        let offset = self.traces.len();
        self.traces.extend(other.traces);
        self.hits.resize_with(other.hits.len().max(self.hits.len()), Vec::new);
        for (class, others) in self.hits.iter_mut().zip(other.hits) {
            class.resize_with(others.len().max(class.len()), Vec::new);
            for (query, hits) in class.iter_mut().zip(others) {
                query.extend(hits.into_iter().map(|hit| Hit { trace: hit.trace + offset, ..hit }));
            }
        }
        for (tenant, tags) in other.tags {
            let own = self.tags.entry(tenant).or_default();
            for (scope, names) in tags.names {
                own.names.entry(scope).or_default().extend(names);
            }
            for (tag, values) in tags.values {
                own.values.entry(tag).or_default().extend(values);
            }
        }
    }

    /// Puts hits in the order of a search answer. To be called once, after the last `append`.
    pub fn finish(&mut self) {
        let traces = &self.traces;
        for hits in self.hits.iter_mut().flatten() {
            hits.sort_unstable_by_key(|hit| {
                let trace = &traces[hit.trace];
                (std::cmp::Reverse(trace.start), trace.id)
            });
        }
        self.closed = self.traces.iter().all(|trace| trace.sure);
    }

    /// The first start and last end of all spans, in nanoseconds since the epoch.
    pub fn time_range(&self) -> Option<Range<u64>> {
        let start = self.traces.iter().map(|trace| trace.start).min()?;
        let end = self.traces.iter().map(|trace| trace.end).max()?;
        Some(start..end)
    }
}

struct Collector<'a> {
    world: &'a World,
    /// Look-ups of one value by a tenant, by key and value: going through thousands of them for every span
    /// would take too long.
    lookups: HashMap<&'static str, ByValue<'a>>,
    /// All other queries for spans, with who asks.
    others: Vec<(Place, u64, &'a Filter)>,
    /// Queries about several spans of a trace.
    of_traces: Vec<(Place, u64, &'a Look)>,
    names: HashMap<String, Arc<str>>,
    /// How many spans of the current trace match each query.
    matched: BTreeMap<Place, u32>,
    answers: Answers,
}

/// Positions of class and query.
type Place = (usize, usize);
/// The queries for a value, with who asks.
type ByValue<'a> = HashMap<&'a str, Vec<(Place, u64)>>;

impl<'a> Collector<'a> {
    fn new(world: &'a World, data_set: &DataSet, classes: &'a [Class]) -> Collector<'a> {
        let mut lookups: HashMap<_, ByValue<'a>> = HashMap::new();
        let (mut others, mut of_traces) = (Vec::new(), Vec::new());
        for (class, queries) in classes.iter().enumerate() {
            for (at, query) in queries.queries.iter().enumerate() {
                let place = (class, at);
                match &query.look {
                    Look::Spans(Filter::Test(
                        Field::Span(key) | Field::Any(key),
                        Test::Is(value),
                    )) if matches!(*key, "request.id" | "user.id") => {
                        let values = lookups.entry(*key).or_default();
                        values.entry(value.as_str()).or_default().push((place, query.tenant));
                    }
                    Look::Spans(filter) => others.push((place, query.tenant, filter)),
                    whole => of_traces.push((place, query.tenant, whole)),
                }
            }
        }
        let hits = classes.iter().map(|class| vec![Vec::new(); class.queries.len()]).collect();
        let tags = (0..data_set.tenants).map(|tenant| (tenant, Tags::default())).collect();
        let answers = Answers { hits, tags, ..Answers::default() };
        let (names, matched) = (HashMap::new(), BTreeMap::new());
        Collector { world, lookups, others, of_traces, names, matched, answers }
    }

    fn trace(&mut self, trace: &TraceData<'_>, tenant: u64, sure: bool) {
        let (start, end) = (trace.start(), trace.end());
        let position = self.answers.traces.len();
        let Some(root) = trace.spans.first() else { return };
        let errors = trace.spans.iter().filter(|span| span.status == 2).count();
        let facts = TraceFacts {
            id: trace.id,
            tenant,
            start,
            end,
            root_service: self.intern(self.world.service_name(root.resource)),
            root_name: self.intern(&root.name),
            spans: u32::try_from(trace.spans.len()).unwrap_or(u32::MAX),
            errors: u32::try_from(errors).unwrap_or(u32::MAX),
            sure,
        };
        self.answers.traces.push(facts);
        self.matched.clear();
        for span in &trace.spans {
            let subject = Subject { world: self.world, trace, trace_duration: end - start, span };
            self.lookup(subject, tenant);
            for (place, asked_by, filter) in &self.others {
                if *asked_by == tenant && filter.matches(subject) {
                    *self.matched.entry(*place).or_default() += 1;
                }
            }
            if sure {
                self.tags(subject, tenant);
            }
        }
        for (place, _, look) in self.of_traces.iter().filter(|(_, by, _)| *by == tenant) {
            let matched = look.matched(self.world, trace, end - start);
            if matched > 0 {
                self.matched.insert(*place, matched);
            }
        }
        for (&(class, query), &matched) in &self.matched {
            self.answers.hits[class][query].push(Hit { trace: position, matched });
        }
    }

    fn lookup(&mut self, subject: Subject<'_>, tenant: u64) {
        for (key, values) in &self.lookups {
            let Some(Value::Text(text)) = subject.span.attribute(key) else { continue };
            let places = values.get(text.as_ref()).into_iter().flatten();
            for (place, _) in places.filter(|(_, asked_by)| *asked_by == tenant) {
                *self.matched.entry(*place).or_default() += 1;
            }
        }
    }

    fn tags(&mut self, subject: Subject<'_>, tenant: u64) {
        let tags = self.answers.tags.entry(tenant).or_default();
        let span = subject.span;
        tags.add("span", &span.attributes);
        tags.add("resource", &self.world.resources[span.resource].attributes);
        for event in &span.events {
            tags.add("event", &event.attributes);
        }
        for link in &span.links {
            tags.add("link", &link.attributes);
        }
    }

    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.names.get(text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = Arc::from(text);
        self.names.insert(text.to_owned(), Arc::clone(&shared));
        shared
    }
}

impl Tags {
    fn add(&mut self, scope: &'static str, attributes: &[Attribute<'_>]) {
        let names = self.names.entry(scope).or_default();
        for (key, value) in attributes {
            if !names.contains(*key) {
                names.insert((*key).to_owned());
            }
            let wanted = VALUE_TAGS.iter().find(|(s, k, _)| (*s, *k) == (scope, *key));
            if let Some((_, _, tag)) = wanted {
                let value = match value {
                    Value::Text(text) => ("string", text.to_string()),
                    Value::Int(number) => ("int", number.to_string()),
                    Value::Double(number) => ("float", number.to_string()),
                    Value::Bool(truth) => ("bool", truth.to_string()),
                    Value::Texts(_) => continue,
                };
                self.values.entry(tag).or_default().insert(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::classes;
    use crate::workload::tests::data_set;

    fn print(answers: &Answers) -> String {
        format!("{:?} {:?} {:?}", answers.traces, answers.hits, answers.tags)
    }

    #[test]
    fn parts_give_the_same_answers_as_the_whole() {
        let data_set = DataSet { tenants: 2, ..data_set(1000) };
        let world = data_set.world();
        let classes = classes(&world, &data_set);
        let none = BTreeSet::new();
        let part = |waves| Answers::collect(&world, &data_set, &classes, waves, &none);
        let mut whole = part(0..data_set.waves());
        whole.finish();
        let mut joined = part(0..5);
        joined.append(part(5..data_set.waves()));
        joined.finish();
        assert_eq!(print(&whole), print(&joined));
        assert!(whole.closed);
    }

    #[test]
    fn a_lost_request_makes_its_traces_unsure() {
        let data_set = data_set(200);
        let world = data_set.world();
        let unsure = BTreeSet::from([(1, 0)]);
        let mut answers = Answers::collect(&world, &data_set, &[], 0..data_set.waves(), &unsure);
        answers.finish();
        let touched: BTreeSet<usize> = Wave::new(&world, &data_set, 1).requests[0]
            .iter()
            .map(|&(trace, _)| 64 + trace)
            .collect();
        for (at, trace) in answers.traces.iter().enumerate() {
            assert_eq!(trace.sure, !touched.contains(&at));
        }
        assert!(!answers.closed);
    }

    #[test]
    fn shares_of_the_reference_queries_are_as_stated() {
        let data_set = data_set(10_000);
        let world = data_set.world();
        let classes = classes(&world, &data_set);
        let none = BTreeSet::new();
        let answers = Answers::collect(&world, &data_set, &classes, 0..data_set.waves(), &none);
        let share = |name: &str| {
            let at = classes.iter().position(|class| class.name == name).unwrap();
            answers.hits[at][0].len() as f64 / 10_000.0
        };
        let shares: Vec<_> = classes.iter().map(|class| (class.name, share(class.name))).collect();
        assert!((0.3..0.6).contains(&share("method POST, all")), "{shares:?}");
        assert!((0.003..0.02).contains(&share("slow database updates, all")), "{shares:?}");
        assert!((0.03..0.08).contains(&share("status code >= 500, all")), "{shares:?}");
        assert!((0.1..0.25).contains(&share("regex on a route, all")), "{shares:?}");
        assert!(share("everything") == 1.0 && share("nothing") == 0.0, "{shares:?}");
        for class in classes.iter().filter(|class| class.name != "nothing") {
            assert!(share(class.name) > 0.0, "{} finds nothing: {shares:?}", class.name);
        }
    }
}
