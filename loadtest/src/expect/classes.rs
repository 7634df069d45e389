//! The fixed classes of queries, each with one or more concrete queries for a data set.

use super::filter::{Field, Filter, Pattern, Test, link_to};
use super::look::Look;
use crate::workload::{DataSet, Wave, World, user_name};

/// The largest `limit` that is asked for: what Tempo allows by default.
pub const LIMIT_MAX: usize = 262_144;
/// The `limit` of queries for the newest traces.
const NEWEST: usize = 20;
/// How many different values are looked up per class and tenant.
const LOOKUPS: u64 = 20;
/// How many tenants are asked the queries.
const TENANTS_ASKED: u64 = 3;

/// Queries of one kind.
#[derive(Debug, Clone)]
pub struct Class {
    /// A short name for tables.
    pub name: &'static str,
    /// Whether it is one of the classes whose cost is compared between servers; the others are
    /// there for correctness only.
    pub timed: bool,
    /// The queries.
    pub queries: Vec<Query>,
}

/// One query to one tenant.
#[derive(Debug, Clone)]
pub struct Query {
    /// Which tenant.
    pub tenant: u64,
    /// What is looked for.
    pub look: Look,
    /// How many traces are asked for.
    pub limit: usize,
}

/// The classes for `data_set`.
pub fn classes(world: &World, data_set: &DataSet) -> Vec<Class> {
    let tenants = data_set.tenants.min(TENANTS_ASKED).min(data_set.waves());
    let mut classes = lookups(world, data_set, tenants);
    for (name, timed, limit, look) in fixed(world) {
        let queries =
            (0..tenants).map(|tenant| Query { tenant, look: look.clone(), limit }).collect();
        classes.push(Class { name, timed, queries });
    }
    classes
}

/// Look-ups of values that occur in the data set, spread over its length.
fn lookups(world: &World, data_set: &DataSet, tenants: u64) -> Vec<Class> {
    let [mut unique, mut user, mut link] = [Vec::new(), Vec::new(), Vec::new()];
    for tenant in 0..tenants {
        let waves = (data_set.waves() - tenant).div_ceil(data_set.tenants);
        for at in 0..LOOKUPS {
            let number = tenant + waves * at / LOOKUPS * data_set.tenants;
            let wave = Wave::new(world, data_set, number);
            let trace = &wave.traces[usize::try_from(at).unwrap_or(0) % wave.traces.len()];
            let query = |filter| Query { tenant, look: Look::Spans(filter), limit: NEWEST };
            let spans = trace.spans.iter().rev();
            let text = |key| {
                spans.clone().find_map(|span| match span.attribute(key) {
                    Some(crate::workload::Value::Text(text)) => Some(text.to_string()),
                    _ => None,
                })
            };
            if let Some(id) = text("request.id") {
                unique.push(query(Filter::on(Field::Span("request.id"), Test::Is(id))));
            }
            // Of every four users asked for, one is the busiest.
            let name = if at % 4 == 3 { Some(user_name(0)) } else { text("user.id") };
            if let Some(name) = name {
                user.push(query(Filter::on(Field::Any("user.id"), Test::Is(name))));
            }
            if at == 0
                && let Some(target) =
                    wave.traces.iter().flat_map(|t| &t.spans).flat_map(|s| &s.links).next()
            {
                link.push(query(link_to(target.trace_id)));
            }
        }
    }
    vec![
        Class { name: "unique value, scoped", timed: true, queries: unique },
        Class { name: "user, unscoped", timed: true, queries: user },
        Class { name: "link target", timed: false, queries: link },
    ]
}

/// Queries that are the same for every data set of a world.
fn fixed(world: &World) -> Vec<(&'static str, bool, usize, Look)> {
    let is = |field, text: &str| Filter::on(field, Test::Is(text.to_owned()));
    let word = |field, word| Filter::on(field, Test::IsWord(word));
    let matches = |field, text| Filter::on(field, Test::Matches(Pattern::new(text)));
    let system = Field::Span("db.system");
    let operation = Field::Span("db.operation");
    let method = Field::Span("http.request.method");
    let code = Field::Span("http.response.status_code");
    let slow_update = vec![
        is(system, "postgresql"),
        is(operation, "UPDATE"),
        Filter::on(Field::Duration, Test::Longer(40)),
    ];
    let failed =
        vec![is(Field::Resource("service.name"), "checkout"), word(Field::Status, "error")];
    let all = vec![
        ("common value, newest 20", true, NEWEST, is(method, "GET")),
        ("service and error, newest 20", true, NEWEST, Filter::All(failed)),
        ("method POST, all", true, LIMIT_MAX, is(method, "POST")),
        ("slow database updates, all", true, LIMIT_MAX, Filter::All(slow_update)),
        ("status code >= 500, all", true, LIMIT_MAX, Filter::on(code, Test::AtLeast(500))),
        (
            "regex on a route, all",
            true,
            LIMIT_MAX,
            matches(Field::Span("http.route"), "/api/v[0-9]+/orders/.*"),
        ),
        ("everything", false, LIMIT_MAX, Filter::Everything),
        ("nothing", false, NEWEST, is(method, "BREW")),
    ];
    let all = all.into_iter().chain(for_correctness(world));
    let spans = all.map(|(name, timed, limit, filter)| (name, timed, limit, Look::Spans(filter)));
    spans.chain(of_traces(world)).collect()
}

/// Queries about several spans of a trace.
fn of_traces(world: &World) -> Vec<(&'static str, bool, usize, Look)> {
    // Calls go from lower positions to higher ones.
    let service = |at: usize| {
        let name = &world.services[at.min(world.services.len() - 1)].name;
        Filter::on(Field::Resource("service.name"), Test::Is(name.clone()))
    };
    let failed = Filter::on(Field::Status, Test::IsWord("error"));
    let callee = world.services[0].callees.first().map_or(0, |callee| *callee);
    let below = Look::Below(service(0), failed.clone());
    let many = Look::MoreThan(service(2), 5);
    vec![
        ("error below a service, all", true, LIMIT_MAX, below.clone()),
        ("error below a service, newest 20", true, NEWEST, below),
        ("more than 5 spans of a service, all", true, LIMIT_MAX, many.clone()),
        ("more than 5 spans of a service, newest 20", true, NEWEST, many),
        ("service below a service", false, LIMIT_MAX, Look::Below(service(0), service(callee))),
        ("many errors", false, LIMIT_MAX, Look::MoreThan(failed, 2)),
    ]
}

fn for_correctness(world: &World) -> Vec<(&'static str, bool, usize, Filter)> {
    let is = |field, text: &str| Filter::on(field, Test::Is(text.to_owned()));
    let word = |field, word| Filter::on(field, Test::IsWord(word));
    let matches = |field, text| Filter::on(field, Test::Matches(Pattern::new(text)));
    let not_redis = Filter::on(Field::Span("db.system"), Test::IsNot("redis".to_owned()));
    let route = &world.services[0].routes[0];
    let cases = vec![
        ("not equal", Filter::All(vec![not_redis, is(Field::Span("db.operation"), "DELETE")])),
        (
            "one or the other",
            Filter::Any(vec![
                Filter::on(Field::Span("rpc.grpc.status_code"), Test::IsInt(14)),
                is(Field::Span("messaging.consumer.group.name"), "main"),
            ]),
        ),
        ("event attribute", is(Field::Event("exception.type"), "KeyError")),
        (
            "event name and kind",
            Filter::All(vec![is(Field::EventName, "cache.miss"), word(Field::Kind, "server")]),
        ),
        (
            "root service and trace duration",
            Filter::All(vec![
                is(Field::RootService, &world.services[0].name),
                Filter::on(Field::TraceDuration, Test::Longer(400)),
            ]),
        ),
        (
            "link attribute",
            Filter::on(Field::Link("messaging.batch.message_count"), Test::IsInt(1)),
        ),
        ("instrumentation", matches(Field::InstrumentationName, ".*shop-tracing")),
        (
            "truth and short",
            Filter::All(vec![
                Filter::on(Field::Span("cache.hit"), Test::IsBool(false)),
                Filter::on(Field::Duration, Test::Shorter(1)),
            ]),
        ),
        ("fraction", Filter::on(Field::Span("app.ratio"), Test::Above(0.95))),
        ("list", is(Field::Span("http.request.header.accept-language"), "de")),
        ("status message", matches(Field::StatusMessage, ".*timed out.*")),
        (
            "name",
            is(
                Field::Name,
                if world.services[0].grpc { &route.rpc_name } else { &route.span_name },
            ),
        ),
        ("resource, unscoped", matches(Field::Any("k8s.node.name"), "node-0.*")),
        (
            "not matching",
            Filter::on(
                Field::Span("code.function"),
                Test::MatchesNot(Pattern::new(".*(list|get|create|internal).*")),
            ),
        ),
        (
            "absent",
            Filter::All(vec![
                Filter::on(Field::Span("http.route"), Test::Absent),
                word(Field::Kind, "server"),
            ]),
        ),
        ("status ok", word(Field::Status, "ok")),
    ];
    cases.into_iter().map(|(name, filter)| (name, false, LIMIT_MAX, filter)).collect()
}
