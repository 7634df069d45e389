//! The imagined system that is traced: services with their routes, databases and instances, and
//! who calls whom. It depends on the seed and the number of services only.

use clew_model::wire;

use super::dice::Dice;
use super::encode;
use super::span::{Attribute, Value};
use super::words::{LANGUAGES, NAMESPACES, NOUNS, REGIONS, ROLES, ZONES};

/// The stream of dice that makes the world; waves use the streams from zero on.
const WORLD_STREAM: u64 = u64::MAX;

/// A system of services.
#[derive(Debug)]
pub struct World {
    /// The services; calls go from lower positions to higher ones only.
    pub services: Vec<Service>,
    /// One per instance of a service.
    pub resources: Vec<Resource>,
    /// Positions of the services where traces begin.
    pub entries: Vec<usize>,
}

/// A service.
#[derive(Debug)]
pub struct Service {
    /// `service.name`.
    pub name: String,
    /// Where others reach it.
    pub host: String,
    /// Which of [`LANGUAGES`] it is written in.
    pub language: usize,
    /// Whether it is called over gRPC rather than HTTP.
    pub grpc: bool,
    /// Position of the resource of its first instance.
    pub first_resource: usize,
    /// How many instances it has.
    pub instances: usize,
    /// What can be asked of it; never empty.
    pub routes: Vec<Route>,
    /// Positions of the services it calls.
    pub callees: Vec<usize>,
    /// Its database, if it has one.
    pub database: Option<Database>,
    /// Whether it uses a cache.
    pub cache: bool,
    /// What it publishes to, if anything.
    pub topic: Option<Topic>,
}

/// An operation of a service.
#[derive(Debug)]
pub struct Route {
    /// The HTTP method.
    pub method: &'static str,
    /// The path with `{id}` in it.
    pub template: String,
    /// Method and path: the name of the server span.
    pub span_name: String,
    /// The function that handles it, with its module.
    pub function: String,
    /// The gRPC service.
    pub rpc_service: String,
    /// The gRPC method.
    pub rpc_method: String,
    /// `service/method`: the name of the spans of a gRPC call.
    pub rpc_name: String,
}

/// A database with what is asked of it.
#[derive(Debug)]
pub struct Database {
    /// `db.system`.
    pub system: &'static str,
    /// `db.name`.
    pub name: String,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: i64,
    /// What is sent to it; never empty.
    pub statements: Vec<Statement>,
}

/// A statement, as an instrumentation prints it.
#[derive(Debug)]
pub struct Statement {
    /// `db.operation`.
    pub operation: &'static str,
    /// The table or collection.
    pub table: String,
    /// The text with placeholders.
    pub text: String,
    /// Whether it gives a list rather than one row.
    pub lists: bool,
    /// Operation and place: the name of the span.
    pub span_name: String,
}

/// A message queue between two services.
#[derive(Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// `publish` and its name.
    pub publish_name: String,
    /// `process` and its name.
    pub process_name: String,
    /// Position of the service that reads it.
    pub consumer: usize,
}

/// What describes one instance of a service.
#[derive(Debug)]
pub struct Resource {
    /// Position of the service.
    pub service: usize,
    /// Its attributes.
    pub attributes: Vec<Attribute<'static>>,
    /// The encoded `Resource` message.
    pub bytes: Vec<u8>,
    /// How far its clock is ahead of the others, in nanoseconds.
    pub clock_skew: i64,
}

impl World {
    /// The world of `services` services (at least 2) under `seed`.
    pub fn new(seed: u64, services: usize) -> World {
        let services = services.max(2);
        let mut dice = Dice::new(seed, WORLD_STREAM);
        let mut world = World { services: Vec::new(), resources: Vec::new(), entries: Vec::new() };
        for at in 0..services {
            let service = make_service(&mut dice, at, services, world.resources.len());
            for instance in 0..service.instances {
                let resource = make_resource(&mut dice, &service, at, instance);
                world.resources.push(resource);
            }
            world.services.push(service);
        }
        world.entries = (0..(services / 10).max(2)).collect();
        world
    }

    /// The instrumentation scope at `position`: name and version.
    pub fn scope(position: usize) -> (&'static str, &'static str) {
        let language = &LANGUAGES[(position / SCOPES) % LANGUAGES.len()];
        language.scopes[position % SCOPES]
    }

    /// The name of the service that reported under `resource`.
    pub fn service_name(&self, resource: usize) -> &str {
        &self.services[self.resources[resource].service].name
    }
}

/// How many instrumentation scopes a language has.
pub(crate) const SCOPES: usize = 5;

fn make_service(dice: &mut Dice, at: usize, count: usize, first_resource: usize) -> Service {
    let noun = NOUNS[at % NOUNS.len()];
    let generation = at / NOUNS.len();
    let name = match generation {
        0 => noun.to_owned(),
        1..=10 => format!("{noun}-{}", ROLES[generation - 1]),
        _ => format!("{noun}-{}-{}", ROLES[generation % ROLES.len()], generation / ROLES.len()),
    };
    let namespace = NAMESPACES[at % NAMESPACES.len()];
    let language = dice.index(LANGUAGES.len());
    // The last third calls nobody: databases and caches are below it.
    let callees = if at < count * 2 / 3 { make_callees(dice, at, count) } else { Vec::new() };
    let database = dice.chance(750).then(|| make_database(dice, noun, namespace));
    let consumer = at + 1 + dice.index((count - at).saturating_sub(1).max(1));
    let topic = (at + 1 < count && dice.chance(350)).then(|| {
        let topic = format!("{noun}.{}", dice.pick(&["created", "changed", "requested"]));
        Topic {
            publish_name: format!("publish {topic}"),
            process_name: format!("process {topic}"),
            name: topic,
            consumer,
        }
    });
    Service {
        host: format!("{name}.{namespace}.svc"),
        language,
        // Entries are reached from browsers.
        grpc: at > 1 && dice.chance(300),
        first_resource,
        instances: dice.index(2) + 1,
        routes: make_routes(dice, at, LANGUAGES[language].package),
        callees,
        database,
        cache: dice.chance(400),
        topic,
        name,
    }
}

fn make_callees(dice: &mut Dice, at: usize, count: usize) -> Vec<usize> {
    let below = count - at - 1;
    let mut callees: Vec<usize> =
        (0..dice.between(2, 5)).map(|_| at + 1 + dice.skewed(below)).collect();
    callees.sort_unstable();
    callees.dedup();
    callees
}

fn make_routes(dice: &mut Dice, at: usize, package: &str) -> Vec<Route> {
    const SHAPES: [(&str, &str, &str); 10] = [
        ("GET", "", "List"),
        ("POST", "", "Create"),
        ("GET", "/{id}", "Get"),
        ("GET", "/{id}/items", "ListItems"),
        ("PUT", "/{id}", "Replace"),
        ("GET", "/search", "Search"),
        ("POST", "/{id}/confirm", "Confirm"),
        ("DELETE", "/{id}", "Delete"),
        ("PATCH", "/{id}/status", "SetStatus"),
        ("GET", "/{id}/history", "History"),
    ];
    let noun = NOUNS[at % NOUNS.len()];
    let version = dice.between(1, 3);
    let mut title = noun.to_owned();
    title[..1].make_ascii_uppercase();
    let count = 4 + dice.index(SHAPES.len() - 5);
    SHAPES[..count]
        .iter()
        .map(|(method, tail, verb)| {
            let template = format!("/api/v{version}/{noun}{tail}");
            let rpc_service = format!("shop.{noun}.v{version}.{title}Service");
            Route {
                method,
                span_name: format!("{method} {template}"),
                template,
                function: format!("{package}{title}Controller.{}{}", verb.to_lowercase(), title),
                rpc_name: format!("{rpc_service}/{verb}"),
                rpc_service,
                rpc_method: (*verb).to_owned(),
            }
        })
        .collect()
}

fn make_database(dice: &mut Dice, noun: &str, namespace: &str) -> Database {
    let (system, port) = *dice.pick(&[
        ("postgresql", 5432),
        ("postgresql", 5432),
        ("postgresql", 5432),
        ("mysql", 3306),
        ("mongodb", 27017),
    ]);
    let name = format!("{noun}_prod");
    let tables = [noun.to_owned(), format!("{noun}_items")];
    let mut statements = Vec::new();
    for table in tables {
        let texts = [
            ("SELECT", format!("SELECT id, status, total, updated_at FROM {table} WHERE id = $1")),
            (
                "SELECT",
                format!(
                    "SELECT id, status FROM {table} WHERE owner = $1 ORDER BY id DESC LIMIT $2"
                ),
            ),
            ("INSERT", format!("INSERT INTO {table} (owner, status, total) VALUES ($1, $2, $3)")),
            ("UPDATE", format!("UPDATE {table} SET status = $2, updated_at = $3 WHERE id = $1")),
            ("DELETE", format!("DELETE FROM {table} WHERE updated_at < $1")),
        ];
        for (operation, text) in texts {
            statements.push(Statement {
                operation,
                table: table.clone(),
                lists: text.contains("LIMIT"),
                text,
                span_name: format!("{operation} {name}.{table}"),
            });
        }
    }
    Database { system, host: format!("{noun}-db.{namespace}.internal"), name, port, statements }
}

fn make_resource(dice: &mut Dice, service: &Service, at: usize, instance: usize) -> Resource {
    let language = &LANGUAGES[service.language];
    let region = *dice.pick(&REGIONS);
    let suffix = dice.below(1 << 20);
    let node = dice.below(64);
    let mut attributes: Vec<Attribute<'static>> = vec![
        ("service.name", service.name.clone().into()),
        ("service.namespace", NAMESPACES[at % NAMESPACES.len()].into()),
        ("service.version", format!("{}.{}.{}", at % 4 + 1, at % 17, instance / 2).into()),
        ("service.instance.id", uuid(dice).into()),
        ("deployment.environment.name", "production".into()),
        ("k8s.pod.name", format!("{}-{suffix:05x}-{instance}", service.name).into()),
        ("k8s.node.name", format!("node-{node:02}.{region}").into()),
        ("host.name", format!("ip-10-3-{node}-{}", 10 + instance).into()),
        ("telemetry.sdk.language", language.name.into()),
        ("telemetry.sdk.name", "opentelemetry".into()),
        ("telemetry.sdk.version", language.sdk_version.into()),
        ("cloud.region", region.into()),
    ];
    if at.is_multiple_of(3) {
        let zone = format!("{region}{}", dice.pick(&ZONES));
        attributes.push(("cloud.availability_zone", Value::from(zone)));
    }
    if at.is_multiple_of(4) {
        #[allow(clippy::cast_possible_wrap, reason = "a small number")]
        attributes.push(("process.pid", Value::Int(dice.between(1, 40_000) as i64)));
    }
    let mut bytes = Vec::new();
    for (key, value) in &attributes {
        encode::put_attribute(&mut bytes, 1, key, value);
    }
    // One instance in ten has a clock that is off by up to 5 ms.
    #[allow(clippy::cast_possible_wrap, reason = "at most ten million")]
    let off = dice.below(10_000_001) as i64 - 5_000_000;
    let clock_skew = if dice.chance(100) { off } else { 0 };
    Resource { service: at, attributes, bytes, clock_skew }
}

/// A version 4 UUID.
pub(crate) fn uuid(dice: &mut Dice) -> String {
    let (high, low) = (dice.bits(), dice.bits());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

/// The encoded `InstrumentationScope` at `position`.
pub(crate) fn scope_bytes(position: usize) -> Vec<u8> {
    let (name, version) = World::scope(position);
    let mut bytes = Vec::new();
    wire::put_bytes_field(&mut bytes, 1, name.as_bytes());
    wire::put_bytes_field(&mut bytes, 2, version.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_world_is_fixed_by_its_seed() {
        let print = |seed| format!("{:?}", World::new(seed, 50));
        assert_eq!(print(1), print(1));
        assert_ne!(print(1), print(2));
    }

    #[test]
    fn calls_go_down_only_and_names_are_unique() {
        for count in [10, 20, 333, 2000] {
            let world = World::new(5, count);
            let names: BTreeSet<_> = world.services.iter().map(|s| &s.name).collect();
            assert_eq!(names.len(), count);
            for (at, service) in world.services.iter().enumerate() {
                assert!(service.callees.iter().all(|&to| to > at && to < count));
                assert!(service.topic.as_ref().is_none_or(|t| t.consumer > at));
                assert!(service.topic.as_ref().is_none_or(|t| t.consumer < count));
                let instances = service.first_resource..service.first_resource + service.instances;
                assert!(instances.into_iter().all(|r| world.resources[r].service == at));
            }
        }
    }

    #[test]
    fn resources_have_about_twelve_attributes() {
        let world = World::new(5, 20);
        let total: usize = world.resources.iter().map(|r| r.attributes.len()).sum();
        let mean = total as f64 / world.resources.len() as f64;
        assert!((12.0..13.0).contains(&mean), "{mean}");
    }
}
