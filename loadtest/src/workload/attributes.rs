//! What is written on the spans: attributes by the OpenTelemetry semantic conventions, some of
//! them unique per span, events, links and status.

use clew_model::otlp::view::{kind, status};
use clew_model::{SpanId, TraceId};

use super::dice::Dice;
use super::shape::{Node, Work};
use super::span::{Attribute, Event, Link, Span, Value};
use super::words::{ACCEPT_LANGUAGES, EXCEPTIONS, EXTERNALS, LANGUAGES, NOTES, USER_AGENTS};
use super::world::{Database, Route, SCOPES, Service, Statement, World, uuid};

/// How many users there are; the first ones are the busiest.
pub(crate) const USERS: usize = 10_000;

/// How many threads of an instance take turns.
const THREADS: u64 = 4;
/// How many connections an instance keeps open to another service.
const CONNECTIONS: u64 = 4;
/// The first port of the range the system gives to outgoing connections.
const FIRST_PORT: u64 = 32_768;

/// What the spans of a trace have in common, and what its predecessors left.
pub(crate) struct Scribe<'w, 'd> {
    pub(crate) world: &'w World,
    pub(crate) dice: &'d mut Dice,
    trace_id: TraceId,
    user: String,
    session: String,
    client: String,
    order: String,
    /// Names the thing the request is about in paths and queries.
    entity: u64,
    tier: &'static str,
    /// Chooses the instances, threads and connections that serve this trace.
    salt: u64,
}

/// Positions of a language's instrumentation scopes.
mod scope {
    pub(super) const SERVER: usize = 0;
    pub(super) const CLIENT: usize = 1;
    pub(super) const RPC: usize = 2;
    pub(super) const DATABASE: usize = 3;
    pub(super) const OWN: usize = 4;
}

impl<'w, 'd> Scribe<'w, 'd> {
    /// For the spans of one trace.
    pub(crate) fn new(world: &'w World, dice: &'d mut Dice, trace_id: TraceId) -> Self {
        let user = user_name(dice.skewed(USERS));
        let session = format!("{:012x}", dice.below(1 << 48));
        let client = format!("203.0.113.{}", dice.below(256));
        let order = format!("ord-{:08}", dice.below(100_000_000));
        let entity = dice.below(1_000_000);
        let tier = *dice.pick(&["free", "plus", "business"]);
        let salt = dice.bits();
        Scribe { world, dice, trace_id, user, session, client, order, entity, tier, salt }
    }

    /// The spans for `nodes`. `elsewhere` is a sender of an earlier trace, and becomes the last one
    /// of this trace.
    pub(crate) fn write(
        &mut self,
        nodes: &[Node],
        elsewhere: &mut Option<(TraceId, SpanId)>,
    ) -> Vec<Span<'w>> {
        let mut spans: Vec<Span<'w>> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let parent = node.parent.map(|at| spans[at].span_id);
            let mut span = self.span(node, parent);
            match (node.work, parent) {
                (Work::Producer, _) => *elsewhere = Some((self.trace_id, span.span_id)),
                (Work::Consumer, Some(sender)) => {
                    let own = (self.trace_id, sender);
                    let (trace_id, span_id) =
                        elsewhere.filter(|_| self.dice.chance(300)).unwrap_or(own);
                    let attributes = vec![("messaging.batch.message_count", Value::Int(1))];
                    span.links.push(Link { trace_id, span_id, attributes });
                }
                _ => {}
            }
            spans.push(span);
        }
        spans
    }

    fn span(&mut self, node: &Node, parent: Option<SpanId>) -> Span<'w> {
        let service = &self.world.services[node.service];
        let resource = service.first_resource + self.instance(node.service, service.instances);
        let skew = self.world.resources[resource].clock_skew;
        let language = service.language * SCOPES;
        let mut attributes: Vec<Attribute<'w>> = Vec::with_capacity(18);
        let (name, kind, scope) = match node.work {
            Work::Server => self.server(node, service, &mut attributes),
            Work::Client => self.client(node, &mut attributes),
            Work::External => self.external(node, &mut attributes),
            Work::Database => self.database(node, service, &mut attributes),
            Work::Cache => self.cache(node, &mut attributes),
            Work::Internal => self.internal(service, &mut attributes),
            Work::Producer => self.message(service, true, &mut attributes),
            Work::Consumer => {
                let sender = &self.world.services[node.peer];
                self.message(sender, false, &mut attributes)
            }
        };
        self.identity(node, service, &mut attributes);
        let mut span = Span {
            span_id: SpanId(self.dice.id()),
            parent,
            name: name.into(),
            kind,
            start: node.start.saturating_add_signed(skew),
            end: node.end.saturating_add_signed(skew),
            attributes,
            events: Vec::new(),
            links: Vec::new(),
            status: status::UNSET,
            status_message: "".into(),
            resource,
            scope: language + scope,
        };
        self.outcome(node, service, &mut span);
        span
    }

    /// Which instance of a service works on this trace.
    #[allow(clippy::cast_possible_truncation, reason = "a remainder of a small number")]
    fn instance(&self, service: usize, instances: usize) -> usize {
        self.kept(service, instances as u64) as usize
    }

    /// A number below `count` that stays the same for a service as long as the trace lasts, as
    /// threads and pooled connections do.
    fn kept(&self, service: usize, count: u64) -> u64 {
        let mixed = (self.salt ^ service as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) % count
    }

    fn server(
        &mut self,
        node: &Node,
        service: &'w Service,
        out: &mut Vec<Attribute<'w>>,
    ) -> (&'w str, i32, usize) {
        let route = &service.routes[node.choice];
        let rpc = service.grpc;
        if rpc {
            self.rpc(route, node.failed, out);
        } else {
            self.http(route, node.failed, out);
            out.push(("http.route", route.template.as_str().into()));
            out.push(("url.scheme", "https".into()));
            out.push(("http.response.body.size", self.size(32, 170)));
        }
        out.push(("server.address", service.host.as_str().into()));
        out.push(("server.port", Value::Int(if rpc { 9000 } else { 8080 })));
        out.push(("code.function", route.function.as_str().into()));
        if node.parent.is_none() {
            out.push(("user_agent.original", (*self.dice.pick(&USER_AGENTS)).into()));
            let languages = *self.dice.pick(&ACCEPT_LANGUAGES);
            out.push(("http.request.header.accept-language", Value::Texts(languages)));
        }
        if !rpc {
            out.push(("url.path", self.path(route).into()));
        }
        let caller = match node.parent {
            None => self.client.clone().into(),
            Some(_) => self.address(node.peer),
        };
        out.push(("client.address", caller));
        out.push(("net.peer.port", self.port(node.service)));
        let name = if rpc { &route.rpc_name } else { &route.span_name };
        (name, kind::SERVER, if rpc { scope::RPC } else { scope::SERVER })
    }

    fn client(&mut self, node: &Node, out: &mut Vec<Attribute<'w>>) -> (&'w str, i32, usize) {
        let world = self.world;
        let peer = &world.services[node.peer];
        let route = &peer.routes[node.choice];
        if peer.grpc {
            self.rpc(route, node.failed, out);
        } else {
            self.http(route, node.failed, out);
            out.push(("network.protocol.version", "1.1".into()));
        }
        out.push(("server.address", peer.host.as_str().into()));
        out.push(("server.port", Value::Int(if peer.grpc { 9000 } else { 8080 })));
        if !peer.grpc {
            let path = self.path(route);
            out.push(("url.full", format!("http://{}:8080{path}", peer.host).into()));
        }
        out.push(("network.peer.address", self.address(node.peer)));
        out.push(("net.peer.port", self.port(node.peer)));
        match peer.grpc {
            true => (&route.rpc_name, kind::CLIENT, scope::RPC),
            false => (route.method, kind::CLIENT, scope::CLIENT),
        }
    }

    fn external(&mut self, node: &Node, out: &mut Vec<Attribute<'w>>) -> (&'w str, i32, usize) {
        let host = *self.dice.pick(&EXTERNALS);
        let code = if node.failed { 503 } else { 200 };
        out.push(("http.request.method", "POST".into()));
        out.push(("http.response.status_code", Value::Int(code)));
        out.push(("server.address", host.into()));
        out.push(("server.port", Value::Int(443)));
        out.push(("url.full", format!("https://{host}/v1/calls/{}", self.entity).into()));
        out.push(("net.peer.port", self.port(node.service)));
        out.push(("network.protocol.version", "2".into()));
        out.push(("http.request.body.size", self.size(16, 90)));
        out.push(("peer.service", host.into()));
        ("POST", kind::CLIENT, scope::CLIENT)
    }

    fn database(
        &mut self,
        node: &Node,
        service: &'w Service,
        out: &mut Vec<Attribute<'w>>,
    ) -> (&'w str, i32, usize) {
        let Some(Database { system, name, host, port, statements }) = &service.database else {
            return ("query", kind::CLIENT, scope::DATABASE);
        };
        let statement = &statements[node.choice % statements.len()];
        out.push(("db.system", (*system).into()));
        out.push(("db.name", name.as_str().into()));
        out.push(("db.operation", statement.operation.into()));
        out.push(("db.sql.table", statement.table.as_str().into()));
        out.push(("db.statement", statement.text.as_str().into()));
        out.push(("server.address", host.as_str().into()));
        out.push(("server.port", Value::Int(*port)));
        out.push(("db.response.returned_rows", self.rows(statement)));
        out.push(("db.query.parameter.0", int(self.entity)));
        out.push(("net.peer.port", self.port(node.service)));
        (&statement.span_name, kind::CLIENT, scope::DATABASE)
    }

    fn cache(&mut self, node: &Node, out: &mut Vec<Attribute<'w>>) -> (&'w str, i32, usize) {
        let operation = *self.dice.pick(&["GET", "GET", "MGET", "SET", "EXPIRE"]);
        out.push(("db.system", "redis".into()));
        out.push(("db.operation", operation.into()));
        out.push(("db.statement", format!("{operation} session:{}", self.session).into()));
        out.push(("db.redis.database_index", Value::Int(0)));
        out.push(("cache.hit", self.dice.chance(870).into()));
        out.push(("cache.load_factor", Value::Double(self.dice.below(32) as f64 / 32.0)));
        out.push(("server.address", "cache-main.core.internal".into()));
        out.push(("server.port", Value::Int(6379)));
        out.push(("net.peer.port", self.port(node.service)));
        out.push(("network.peer.address", self.address(7)));
        out.push(("network.transport", "tcp".into()));
        (operation, kind::CLIENT, scope::DATABASE)
    }

    fn internal(
        &mut self,
        service: &'w Service,
        out: &mut Vec<Attribute<'w>>,
    ) -> (&'w str, i32, usize) {
        let choice = self.dice.skewed(service.routes.len().min(4));
        let route = &service.routes[choice];
        let language = &LANGUAGES[service.language];
        out.push(("code.function", route.function.as_str().into()));
        out.push(("code.namespace", language.package.into()));
        out.push(("code.lineno", int(31 + 47 * choice as u64)));
        let retries = if self.dice.chance(40) { self.number(1, 3) } else { Value::Int(0) };
        out.push(("app.retries", retries));
        out.push(("app.ratio", Value::Double(self.dice.between(0, 8) as f64 / 8.0)));
        out.push(("app.dry_run", self.dice.chance(30).into()));
        out.push(("app.tier", self.tier.into()));
        out.push(("order.id", self.order.clone().into()));
        (&route.rpc_method, kind::INTERNAL, scope::OWN)
    }

    /// A message of the topic of `sender`, sent or worked on.
    fn message(
        &mut self,
        sender: &'w Service,
        sent: bool,
        out: &mut Vec<Attribute<'w>>,
    ) -> (&'w str, i32, usize) {
        let Some(topic) = &sender.topic else {
            return ("message", kind::INTERNAL, scope::OWN);
        };
        out.push(("messaging.system", "kafka".into()));
        out.push(("messaging.destination.name", topic.name.as_str().into()));
        out.push(("messaging.operation.type", if sent { "publish" } else { "process" }.into()));
        out.push(("messaging.message.id", uuid(self.dice).into()));
        out.push(("messaging.message.body.size", self.size(32, 110)));
        out.push(("messaging.destination.partition.id", self.number(0, 7)));
        out.push(("messaging.kafka.offset", self.number(1_000_000, 900_000_000)));
        out.push(("messaging.client.id", sender.name.as_str().into()));
        out.push(("server.address", "kafka-0.kafka.core.svc.cluster.local".into()));
        out.push(("server.port", Value::Int(9092)));
        if !sent {
            out.push(("messaging.consumer.group.name", "main".into()));
        }
        let name = if sent { &topic.publish_name } else { &topic.process_name };
        (name, if sent { kind::PRODUCER } else { kind::CONSUMER }, scope::OWN)
    }

    fn http(&mut self, route: &'w Route, failed: bool, out: &mut Vec<Attribute<'w>>) {
        let code = if failed {
            *self.dice.pick(&[500, 500, 502, 503, 504])
        } else if self.dice.chance(30) {
            *self.dice.pick(&[400, 401, 404, 404, 409])
        } else if route.method == "POST" {
            201
        } else if route.method == "DELETE" {
            204
        } else {
            200
        };
        out.push(("http.request.method", route.method.into()));
        out.push(("http.response.status_code", Value::Int(code)));
    }

    fn rpc(&mut self, route: &'w Route, failed: bool, out: &mut Vec<Attribute<'w>>) {
        let code = if failed { *self.dice.pick(&[4, 13, 14]) } else { 0 };
        out.push(("rpc.system", "grpc".into()));
        out.push(("rpc.service", route.rpc_service.as_str().into()));
        out.push(("rpc.method", route.rpc_method.as_str().into()));
        out.push(("rpc.grpc.status_code", Value::Int(code)));
    }

    /// Who works for whom: the thread, the user behind the trace, and what is unique to the span.
    fn identity(&mut self, node: &Node, service: &'w Service, out: &mut Vec<Attribute<'w>>) {
        let number = self.kept(node.service, THREADS);
        out.push(("thread.id", int(number + 20)));
        let name = format!("{}{number}", LANGUAGES[service.language].thread);
        out.push(("thread.name", name.into()));
        if !matches!(node.work, Work::Database | Work::Cache) {
            out.push(("user.id", self.user.clone().into()));
            out.push(("session.id", self.session.clone().into()));
        }
        out.push(("request.id", self.unique()));
    }

    /// Status, the exception of a failed span, and sometimes a note.
    fn outcome(&mut self, node: &Node, service: &'w Service, span: &mut Span<'w>) {
        let middle = span.start + (span.end - span.start) / 2;
        if self.dice.chance(25) {
            let name = *self.dice.pick(&NOTES);
            let attributes = vec![("note.attempt", self.number(1, 3))];
            span.events.push(Event { time: middle, name, attributes });
        }
        if !node.failed {
            if self.dice.chance(50) {
                span.status = status::OK;
            }
            return;
        }
        let (exception, message) = *self.dice.pick(&EXCEPTIONS);
        span.status = status::ERROR;
        span.status_message = message.into();
        let route = &service.routes[node.choice % service.routes.len()];
        span.events.push(Event {
            time: span.end,
            name: "exception",
            attributes: vec![
                ("exception.type", exception.into()),
                ("exception.message", message.into()),
                ("exception.stacktrace", stack_trace(route, exception, message).into()),
                ("exception.escaped", false.into()),
            ],
        });
    }

    fn number(&mut self, low: u64, high: u64) -> Value<'w> {
        int(self.dice.between(low, high))
    }

    /// The size of a body: one of a few, as the same answer is given again and again.
    fn size(&mut self, count: usize, step: u64) -> Value<'w> {
        int(step * (self.dice.skewed(count) as u64 + 1))
    }

    /// The caller's end of a pooled connection to a service, or from it to a database.
    fn port(&self, service: usize) -> Value<'w> {
        int(FIRST_PORT + service as u64 % 400 * CONNECTIONS + self.kept(service, CONNECTIONS))
    }

    /// How many rows a statement gives: one, unless it lists.
    fn rows(&mut self, statement: &Statement) -> Value<'w> {
        int(if statement.lists { self.dice.skewed(50) as u64 } else { 1 })
    }

    /// A value that hardly any other span has.
    fn unique(&mut self) -> Value<'w> {
        format!("{:010x}", self.dice.below(1 << 40)).into()
    }

    fn address(&self, host: usize) -> Value<'w> {
        format!("10.3.{}.{}", host % 250, self.kept(host, 4) + 10).into()
    }

    /// The path of a request, its `{id}` filled in.
    fn path(&self, route: &Route) -> String {
        match route.template.split_once("{id}") {
            Some((before, after)) => format!("{before}{}{after}", self.entity),
            None => route.template.clone(),
        }
    }
}

fn int(number: u64) -> Value<'static> {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The name of the user at `position`.
pub(crate) fn user_name(position: usize) -> String {
    format!("user-{position:05}")
}

fn stack_trace(route: &Route, exception: &str, message: &str) -> String {
    let function = &route.function;
    format!(
        "{exception}: {message}\n    at {function} (line 88)\n    at retry ({function}:41)\n    at \
         {}.{} (generated:1207)\n    at Executor.run (pool:319)",
        route.rpc_service, route.rpc_method
    )
}
