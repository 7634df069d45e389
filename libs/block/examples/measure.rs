//! Measures what a span costs in the table and in a block, on spans as HTTP services send them:
//! 14 attributes of which three are unique per span, 20 spans per trace, about 570 bytes of OTLP.
//!
//! `cargo run -p clew-block --example measure [SPANS]`

#![allow(clippy::cast_possible_truncation, reason = "the numbers are small")]

use std::ops::Bound;
use std::time::Instant;

use bytes::Bytes;
use clew_block::{
    Block, BlockMeta, BlockOptions, Heritage, Origin, SearchSections, SpanTable, TableRows,
    write_block,
};
use clew_model::TenantId;
use clew_model::wire::{put_bytes_field, put_fixed64_field, put_varint_field};
use clew_traceql::plan::{Condition, Field, Intrinsic, Scope, Test};
use clew_traceql::value::{Kind, Static, Status};

const SPANS_PER_TRACE: u64 = 20;
const SPANS_PER_BATCH: u64 = 400;
const SERVICES: u64 = 30;

/// SplitMix64: the same spans on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Processor time of this thread in microseconds: wall time would count the neighbours.
fn processor_micros() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok());
    nanos.unwrap_or(0.0) / 1e3
}

fn message(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

fn text(out: &mut Vec<u8>, number: u32, key: &str, value: &str) {
    let pair = message(|out| {
        put_bytes_field(out, 1, key.as_bytes());
        put_bytes_field(out, 2, &message(|out| put_bytes_field(out, 1, value.as_bytes())));
    });
    put_bytes_field(out, number, &pair);
}

fn int(out: &mut Vec<u8>, number: u32, key: &str, value: u64) {
    let pair = message(|out| {
        put_bytes_field(out, 1, key.as_bytes());
        put_bytes_field(out, 2, &message(|out| put_varint_field(out, 3, value)));
    });
    put_bytes_field(out, number, &pair);
}

fn span(random: &mut Random, trace: &[u8; 16], at: u64, start: u64) -> Vec<u8> {
    let route = random.below(200);
    let failed = random.below(50) == 0;
    message(|out| {
        put_bytes_field(out, 1, trace);
        put_bytes_field(out, 2, &random.next().to_be_bytes());
        if at > 0 {
            put_bytes_field(out, 4, &(random.next() | 1).to_be_bytes());
        }
        put_bytes_field(out, 5, format!("GET /api/v1/resource{route}/{{id}}").as_bytes());
        put_varint_field(out, 6, 1 + random.below(3));
        put_fixed64_field(out, 7, start);
        put_fixed64_field(out, 8, start + 50_000 + random.below(20_000_000));
        text(out, 9, "http.request.method", ["GET", "POST", "PUT"][random.below(3) as usize]);
        int(out, 9, "http.response.status_code", if failed { 500 } else { 200 });
        text(out, 9, "http.route", &format!("/api/v1/resource{route}/{{id}}"));
        text(out, 9, "url.path", &format!("/api/v1/resource{route}/{}", random.below(100_000_000)));
        text(out, 9, "url.scheme", "https");
        text(out, 9, "server.address", &format!("host-{}.internal", random.below(50)));
        int(out, 9, "server.port", 8443);
        text(out, 9, "client.address", &format!("10.0.{}.{}", random.below(8), random.below(256)));
        text(out, 9, "user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)");
        text(out, 9, "network.protocol.version", "1.1");
        text(out, 9, "user.id", &format!("user-{}", random.below(5_000)));
        text(out, 9, "request.id", &format!("{:016x}", random.next()));
        int(out, 9, "http.response.body.size", random.below(1_000_000_000));
        text(out, 9, "thread.name", &format!("worker-{}", random.below(16)));
        if failed {
            put_bytes_field(out, 15, &message(|out| put_varint_field(out, 3, 2)));
        }
    })
}

fn batch(random: &mut Random, clock: &mut u64) -> Bytes {
    let per_service = SPANS_PER_BATCH / 4;
    let traces = SPANS_PER_BATCH / SPANS_PER_TRACE;
    let ids: Vec<[u8; 16]> = (0..traces)
        .map(|_| u128::from(random.next()) << 64 | u128::from(random.next()))
        .map(u128::to_be_bytes)
        .collect();
    let body = message(|out| {
        for part in 0..4u64 {
            let service = random.below(SERVICES);
            let resource = message(|out| {
                text(out, 1, "service.name", &format!("service-{service}"));
                text(out, 1, "k8s.pod.name", &format!("service-{service}-{}", random.below(4)));
                text(out, 1, "deployment.environment", "production");
            });
            let spans = message(|out| {
                put_bytes_field(out, 1, &message(|out| put_bytes_field(out, 1, b"otel-http")));
                for at in 0..per_service {
                    *clock += 1_000;
                    let trace = &ids[(at % traces) as usize];
                    put_bytes_field(out, 2, &span(random, trace, part + at / traces, *clock));
                }
            });
            let resource_spans = message(|out| {
                put_bytes_field(out, 1, &resource);
                put_bytes_field(out, 2, &spans);
            });
            put_bytes_field(out, 1, &resource_spans);
        }
    });
    Bytes::from(body)
}

#[allow(clippy::print_stdout, reason = "a measurement is for reading")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spans: u64 = std::env::args().nth(1).map_or(Ok(250_000), |text| text.parse())?;
    let mut random = Random(7);
    let mut clock = 1_700_000_000_000_000_000;
    let batches: Vec<Bytes> =
        (0..spans / SPANS_PER_BATCH).map(|_| batch(&mut random, &mut clock)).collect();
    let input: usize = batches.iter().map(Bytes::len).sum();
    let per = |value: f64| value / spans as f64;

    let started = processor_micros();
    let mut table = SpanTable::new(11);
    for batch in &batches {
        table.push(batch)?;
    }
    let pushed = processor_micros() - started;
    println!("input          {:8.1} B/span", per(input as f64));
    println!("table push     {:8.2} µs/span", per(pushed));
    let memory = table.memory_bytes();
    println!("table memory   {:8.1} B/span, buffers included", per(memory as f64));

    for level in [1, 3] {
        let options = BlockOptions { page_level: level, ..BlockOptions::default() };
        let meta = BlockMeta {
            tenant: TenantId::single(),
            origin: Origin::default(),
            lineage: vec![],
            heritage: Heritage::default(),
        };
        let started = processor_micros();
        let rows = [TableRows { table: &table, rows_max: u32::MAX }];
        let block = write_block(&rows, &options, meta)?;
        let elapsed = processor_micros() - started;
        println!("block, level {level} {:8.2} µs/span", per(elapsed));
        println!("               {:8.1} B/span", per(block.len() as f64));
        if level == 1 {
            read(&Bytes::from(block), &table, per)?;
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "a measurement is for reading")]
#[allow(clippy::disallowed_methods, reason = "a measurement needs the clock")]
fn read(
    bytes: &Bytes,
    table: &SpanTable,
    per: impl Fn(f64) -> f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let slice =
        |range: &std::ops::Range<u64>| bytes.slice(range.start as usize..range.end as usize);
    let started = Instant::now();
    let block = Block::open(bytes)?;
    println!("open           {:8.1} µs", started.elapsed().as_secs_f64() * 1e6);
    println!("tail           {:8} B", block.footer().tail_length);
    for section in &block.footer().sections {
        let length = (section.bytes.end - section.bytes.start) as f64;
        println!("  section {:2}   {:8.2} B/span", section.kind, per(length));
    }
    let ranges = block.search_ranges()?;
    let sections = SearchSections {
        traces: slice(&ranges.traces),
        dictionary: slice(&ranges.dictionary),
        postings: slice(&ranges.postings),
        locator: slice(&ranges.locator),
        numbers: slice(&ranges.numbers),
        columns: slice(&ranges.columns),
    };
    let started = Instant::now();
    let search = block.search(&sections)?;
    println!("open search    {:8.1} µs", started.elapsed().as_secs_f64() * 1e6);
    for (name, condition) in conditions() {
        let started = Instant::now();
        let found = search.lookup(&condition)?;
        let of_block = started.elapsed().as_secs_f64() * 1e6;
        let started = Instant::now();
        table.lookup(&condition, u32::MAX)?;
        let of_table = started.elapsed().as_secs_f64() * 1e6;
        println!("{name:28} {:7} rows {of_block:9.1} µs {of_table:9.1} µs", found.rows.len());
    }
    let started = Instant::now();
    let entry = &block.pages().entries()[0];
    let page = block.page(0, &slice(&entry.bytes), &slice(&entry.columns))?;
    println!("decode a page  {:8.1} µs", started.elapsed().as_secs_f64() * 1e6);
    println!(
        "               {:8} spans of {} pages",
        page.rows().len(),
        block.pages().entries().len()
    );
    Ok(())
}

fn conditions() -> Vec<(&'static str, Condition)> {
    let attribute = |scope, key: &str| Field::Attribute(scope, key.into());
    let equals = |text: &str| Test::Equals(Static::String(text.into()));
    let condition = |field, test| Condition { field, test };
    vec![
        (
            "status = error",
            condition(
                Field::Intrinsic(Intrinsic::Status),
                Test::Equals(Static::Status(Status::Error)),
            ),
        ),
        (
            "kind = server",
            condition(Field::Intrinsic(Intrinsic::Kind), Test::Equals(Static::Kind(Kind::Server))),
        ),
        (
            "root",
            condition(
                Field::Intrinsic(Intrinsic::NestedSetParent),
                Test::NumberRange(Bound::Unbounded, Bound::Excluded(0.0)),
            ),
        ),
        (
            "duration > 19ms",
            condition(
                Field::Intrinsic(Intrinsic::Duration),
                Test::NumberRange(Bound::Excluded(19_000_000.0), Bound::Unbounded),
            ),
        ),
        (
            "resource.service.name",
            condition(attribute(Scope::Resource, "service.name"), equals("service-3")),
        ),
        (
            "span.http.route",
            condition(attribute(Scope::Span, "http.route"), equals("/api/v1/resource7/{id}")),
        ),
        (
            "span.http.request.method",
            condition(attribute(Scope::Span, "http.request.method"), equals("GET")),
        ),
        ("span.request.id exists", condition(attribute(Scope::Span, "request.id"), Test::Exists)),
        (
            "span.request.id, one",
            condition(attribute(Scope::Span, "request.id"), equals("0000000000000000")),
        ),
        (
            "span.body.size range",
            condition(
                attribute(Scope::Span, "http.response.body.size"),
                Test::NumberRange(Bound::Included(1e6), Bound::Included(2e6)),
            ),
        ),
        (
            "span.user.id regex",
            condition(
                attribute(Scope::Span, "user.id"),
                Test::Matches(std::sync::Arc::new(
                    regex::Regex::new("^(?s:user-1.*)$")
                        .unwrap_or_else(|error| unreachable!("{error}")),
                )),
            ),
        ),
    ]
}
