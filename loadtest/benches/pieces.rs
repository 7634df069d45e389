//! The pieces of ingest and search alone, on the workload of `make bench`: to see in seconds what a
//! change to one of them gives. What they cost together is for `make bench` to say.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench fails by panicking")]

#[path = "../tests/tool/values.rs"]
mod values;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_block::{
    Block, BlockMeta, BlockOptions, BlockSearch, BlockWriter, Heritage, Merge, MergeStep, Origin,
    SearchSections, SpanTable, TableRows, TraceMarks, write_block,
};
use clew_loadtest::workload::{DataSet, GENERATOR_VERSION, Wave};
use clew_model::otlp::{ScanLimits, scan};
use clew_model::{TenantId, Trace, TraceSummary};
use clew_node::Deps;
use clew_proto::shard::v1::{Batch, LogEntry};
use clew_raft::{
    GroupId, GroupOptions, GroupSpec, Host, LogOptions, LogStore, NoPeers, NodeAddr, ReplicaId,
    ShardGroup,
};
use clew_traceql::eval::Filter;
use clew_traceql::parse;
use clew_traceql::plan::{Condition, Prefilter};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;

use self::values::Values;

/// Some 20,000 spans: more than caches hold, few enough to be done soon.
const TRACES: u64 = 1024;
/// A guard against a bench that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Conditions of different selectivity and kind of value, by name.
const CONDITIONS: [(&str, &str); 7] = [
    ("unique text", r#"{ span.request.id = "00000000000000aa" }"#),
    ("hot text", r#"{ span.http.request.method = "GET" }"#),
    ("service", r#"{ resource.service.name = "checkout" }"#),
    ("status", "{ status = error }"),
    ("number", "{ span.http.response.status_code >= 500 }"),
    ("duration", "{ duration > 40ms }"),
    ("regex", r#"{ span.http.route =~ "/api/v[0-9]+/orders/.*" }"#),
];

/// The workload in the forms that the pieces take.
struct Workload {
    requests: Vec<Bytes>,
    spans: u64,
}

impl Workload {
    fn new() -> Workload {
        let data_set = DataSet {
            generator: GENERATOR_VERSION,
            seed: 42,
            base_unix_nanos: 1_750_000_000_000_000_000,
            interval_nanos: 12_000_000,
            services: 20,
            concurrent_traces: 64,
            traces: TRACES,
            tenants: 1,
        };
        let world = data_set.world();
        let (mut requests, mut spans) = (Vec::new(), 0);
        for number in 0..data_set.waves() {
            let wave = Wave::new(&world, &data_set, number);
            spans += wave.span_count() as u64;
            let encoded = (0..wave.requests.len()).map(|at| wave.encode_request(&world, at));
            requests.extend(encoded.map(Bytes::from));
        }
        Workload { requests, spans }
    }

    fn table(&self) -> SpanTable {
        let mut table = SpanTable::new(7);
        for request in &self.requests {
            table.push(request).unwrap();
        }
        table
    }

    /// Entries of a shard's log with one request each.
    fn entries(&self) -> Vec<Bytes> {
        let entry = |request: &Bytes| {
            let batch = Batch {
                tenant: TenantId::single().to_string(),
                raw_bytes: request.len() as u64,
                traces: zstd::bulk::compress(request, 1).unwrap().into(),
                ..Batch::default()
            };
            Bytes::from(LogEntry { batches: vec![batch] }.encode_to_vec())
        };
        self.requests.iter().map(entry).collect()
    }
}

fn meta() -> BlockMeta {
    BlockMeta {
        tenant: TenantId::single(),
        origin: Origin::default(),
        lineage: vec![],
        heritage: Heritage::default(),
    }
}

fn block_of(table: &SpanTable) -> Bytes {
    let rows = [TableRows { table, rows_max: u32::MAX }];
    Bytes::from(write_block(&rows, &BlockOptions::default(), meta()).unwrap())
}

/// What a compaction job does with flushes. Traces that lay in several are put together from their
/// spans, or, if `from_spans`, all are.
fn merge(blocks: &[Bytes], from_spans: bool) -> Vec<u8> {
    let mut merge = Merge::new(blocks.iter().map(|block| Block::open(block).unwrap()).collect());
    let options = BlockOptions { page_level: 3, ..BlockOptions::default() };
    let mut writer = BlockWriter::new(&options, meta(), 7).unwrap();
    loop {
        match merge.step().unwrap() {
            MergeStep::End => return writer.finish().unwrap(),
            MergeStep::Trace(merged) if from_spans => {
                writer.push_trace(&merged.trace().unwrap(), TraceMarks::default()).unwrap();
            }
            MergeStep::Trace(merged) => writer.push_merged(&merged, TraceMarks::default()).unwrap(),
            MergeStep::Pages(wanted) => {
                for place in wanted {
                    let (bytes, block) = (&blocks[place.input], merge.block(place.input).unwrap());
                    let entry = &block.pages().entries()[place.page];
                    let (packed, columns) =
                        (slice(bytes, &entry.bytes), slice(bytes, &entry.columns));
                    let page = block.page(place.page, &packed, &columns).unwrap();
                    merge.supply(place.input, page, |_, _| true).unwrap();
                }
            }
        }
    }
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let at = |position| usize::try_from(position).unwrap();
    bytes.slice(at(range.start)..at(range.end))
}

fn search_of(bytes: &Bytes, block: &Block) -> BlockSearch {
    let ranges = block.search_ranges().unwrap();
    let sections = SearchSections {
        traces: slice(bytes, &ranges.traces),
        dictionary: slice(bytes, &ranges.dictionary),
        postings: slice(bytes, &ranges.postings),
        locator: slice(bytes, &ranges.locator),
        numbers: slice(bytes, &ranges.numbers),
        columns: slice(bytes, &ranges.columns),
    };
    block.search(&sections).unwrap()
}

fn condition_of(query: &str) -> Condition {
    match Filter::new(parse(query).unwrap().as_filter().unwrap()).prefilter() {
        Prefilter::Condition(condition) => condition,
        other => unreachable!("{query} is one condition, not {other:?}"),
    }
}

fn ingest(criterion: &mut Criterion) {
    let workload = Workload::new();
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Elements(workload.spans));
    let limits = ScanLimits::default();
    group.bench_function("OTLP scan", |bencher| {
        bencher.iter(|| {
            for request in &workload.requests {
                black_box(scan(request, &limits).unwrap());
            }
        });
    });
    let entries = workload.entries();
    group.bench_function("head insert", |bencher| {
        bencher.iter(|| {
            for entry in &entries {
                black_box(clew_ingester::read_entry(entry));
            }
        });
    });
    group.bench_function("table push", |bencher| {
        // Dropping a table is not part of it.
        bencher.iter_batched(|| (), |()| workload.table(), BatchSize::PerIteration);
    });
    let table = workload.table();
    group.bench_function("block build", |bencher| bencher.iter(|| block_of(&table)));
    group.finish();
}

/// Appends to the log of a shard with one replica: what it costs includes the sync of the disk.
fn log_append(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let host = {
        let _entered = runtime.enter();
        let deps = Deps::system(1);
        let store = LogStore::open(dir.path(), &LogOptions::default(), &deps).unwrap();
        Host::new(store, Arc::new(NoPeers), deps)
    };
    let replica = ReplicaId(1);
    let spec = GroupSpec {
        group: GroupId::shard(1, 1),
        replica,
        bootstrap: Some(BTreeMap::from([(replica, NodeAddr::default())])),
        options: GroupOptions::default(),
    };
    let shard: ShardGroup = runtime.block_on(host.open_shard(spec)).unwrap();
    let payload = Workload::new().entries().swap_remove(0);
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("append", |bencher| {
        bencher.iter(|| runtime.block_on(shard.append(payload.clone(), PATIENCE)).unwrap());
    });
    group.throughput(Throughput::Bytes(16 * payload.len() as u64));
    group.bench_function("append, 16 at once", |bencher| {
        bencher.iter(|| {
            let appends = (0..16).map(|_| shard.append(payload.clone(), PATIENCE));
            runtime.block_on(futures::future::try_join_all(appends)).unwrap()
        });
    });
    group.finish();
    runtime.block_on(host.shutdown());
    host.store().close();
}

fn read(criterion: &mut Criterion) {
    let table = Workload::new().table();
    let bytes = block_of(&table);
    let block = Block::open(&bytes).unwrap();
    let search = search_of(&bytes, &block);
    let mut group = criterion.benchmark_group("read");
    group.bench_function("block open", |bencher| bencher.iter(|| Block::open(&bytes).unwrap()));
    group.bench_function("search open", |bencher| bencher.iter(|| search_of(&bytes, &block)));
    let entry = &block.pages().entries()[0];
    let (packed, columns) = (slice(&bytes, &entry.bytes), slice(&bytes, &entry.columns));
    let page = block.page(0, &packed, &columns).unwrap();
    group.throughput(Throughput::Elements(page.rows().len() as u64));
    group.bench_function("page decode", |bencher| {
        bencher.iter(|| block.page(0, &packed, &columns).unwrap());
    });
    let traces = || page.traces().map(|(id, _)| page.trace(&id, block.records()).unwrap());
    group.bench_function("page decode, traces", |bencher| {
        bencher.iter(|| traces().for_each(|trace| drop(black_box(trace))));
    });
    let traces: Vec<Trace> = traces().collect();
    let summaries: Vec<TraceSummary> = traces.iter().map(Trace::summary).collect();
    // Decoded before, so that only the filter is measured.
    let spans: Vec<Values<'_>> = (traces.iter().zip(&summaries))
        .flat_map(|(trace, summary)| trace.spans.iter().map(|span| Values::new(span, summary)))
        .collect();
    for (name, query) in CONDITIONS {
        let filter = Filter::new(parse(query).unwrap().as_filter().unwrap());
        group.bench_function(format!("filter spans, {name}"), |bencher| {
            bencher.iter(|| spans.iter().filter(|span| filter.matches(*span).unwrap()).count());
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("lookup");
    for (name, query) in CONDITIONS {
        let condition = condition_of(query);
        group.bench_function(format!("block, {name}"), |bencher| {
            bencher.iter(|| search.lookup(&condition).unwrap());
        });
        group.bench_function(format!("head, {name}"), |bencher| {
            bencher.iter(|| table.lookup(&condition, u32::MAX).unwrap());
        });
    }
    group.finish();
}

fn compaction(criterion: &mut Criterion) {
    let workload = Workload::new();
    let flushes: Vec<Bytes> = workload
        .requests
        .chunks(workload.requests.len().div_ceil(16))
        .map(|requests| {
            let mut table = SpanTable::new(7);
            for request in requests {
                table.push(request).unwrap();
            }
            block_of(&table)
        })
        .collect();
    let mut group = criterion.benchmark_group("compaction");
    group.throughput(Throughput::Elements(workload.spans));
    group.bench_function("16 flushes", |bencher| bencher.iter(|| merge(&flushes, false)));
    group.bench_function("16 flushes, from spans", |bencher| {
        bencher.iter(|| merge(&flushes, true));
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = pieces; config = short(); targets = ingest, log_append, read, compaction }
criterion_main!(pieces);
