//! The law of the read path: wherever spans happen to lie, and whatever flushes in the middle of a
//! query, an answer that is not marked partial is that of a naive evaluation of all whole traces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::SeqCst;

use clew_model::TenantId;
use proptest::prelude::*;

use crate::cluster::Cluster;
use crate::spans::{SECOND, Span, Value, root};

/// What happens to the cluster, one after the other.
#[derive(Debug, Clone)]
enum Step {
    Append { shard: usize, spans: Vec<Span>, fallback: bool },
    Flush { shard: usize },
}

const SHARDS: usize = 2;

/// Traces are a quarter of an hour apart, spans of a trace at most half an hour. A span's number
/// says everything about it, so that one that comes twice is the same.
fn span() -> impl Strategy<Value = Span> {
    (1..7u64, 1..6u64).prop_map(|(trace, number)| {
        let first = root(trace, 10_000 + trace * 900);
        if number == 1 {
            return first;
        }
        let start = first.start + (trace + number) % 3 * 600 * SECOND + number;
        Span {
            id: trace * 1_000 + number,
            parent: first.id,
            name: format!("step {number}"),
            service: if number.is_multiple_of(2) { "db" } else { "shop" },
            kind: 3,
            status: if number == 3 { 2 } else { 0 },
            start,
            end: start + number * SECOND,
            attributes: vec![("code", Value::Int(number.cast_signed() % 3))],
            ..first
        }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = (prop::collection::vec(span(), 1..5), any::<bool>()).prop_map(|(spans, away)| {
        // A trace goes to its home unless it falls over to another shard.
        let home = usize::try_from(spans[0].trace).unwrap() % SHARDS;
        let shard = if away { (home + 1) % SHARDS } else { home };
        let spans = spans
            .into_iter()
            .filter(|span| usize::try_from(span.trace).unwrap() % SHARDS == home)
            .collect();
        Step::Append { shard, spans, fallback: away }
    });
    let flush = (0..SHARDS).prop_map(|shard| Step::Flush { shard });
    prop::collection::vec(prop_oneof![4 => append, 1 => flush], 1..24)
}

/// A filter as TraceQL, and what it means.
type Filter = (&'static str, fn(&Span) -> bool);

const FILTERS: [Filter; 6] = [
    ("{}", |_| true),
    ("{ kind = server }", |span| span.kind == 2),
    ("{ resource.service.name = \"db\" }", |span| span.service == "db"),
    ("{ status = error && span.code = 0 }", |span| span.status == 2),
    ("{ name =~ \"step [24]\" }", |span| matches!(span.name.as_str(), "step 2" | "step 4")),
    ("{ duration > 4s || .http.status_code = 200 }", |span| {
        span.end - span.start > 4 * SECOND || span.kind == 2
    }),
];

/// Every span once, by trace.
fn whole(steps: &[Step]) -> BTreeMap<u64, Vec<Span>> {
    let mut traces: BTreeMap<u64, BTreeMap<u64, Span>> = BTreeMap::new();
    for step in steps {
        if let Step::Append { spans, .. } = step {
            for span in spans {
                traces.entry(span.trace).or_default().insert(span.id, span.clone());
            }
        }
    }
    traces.into_iter().map(|(id, spans)| (id, spans.into_values().collect())).collect()
}

fn expected(traces: &BTreeMap<u64, Vec<Span>>, filter: &Filter, range: (u64, u64)) -> Vec<String> {
    let mut found: Vec<(std::cmp::Reverse<u64>, u64)> = traces
        .iter()
        .filter(|(_, spans)| spans.iter().any(filter.1))
        .filter_map(|(id, spans)| {
            let start = spans.iter().map(|span| span.start).min()?;
            let end = spans.iter().map(|span| span.end).max()?;
            let inside = start < (range.1 + 1) * SECOND && end >= range.0 * SECOND;
            inside.then_some((std::cmp::Reverse(start), *id))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, id)| format!("{id:x}")).collect()
}

async fn check(steps: Vec<Step>, limit: usize, start: u64, length: u64, flushes: usize) {
    let cluster = Cluster::new(u32::try_from(SHARDS).unwrap());
    let others = [cluster.another_querier(), cluster.another_querier()];
    if steps.len().is_multiple_of(2) {
        cluster.share_blocks("a", &[("b", others[0].blocks()), ("c", others[1].blocks())]);
    }
    for step in &steps {
        match step {
            Step::Append { shard, spans, fallback } => {
                cluster.shards[*shard].append(&TenantId::single(), spans, *fallback);
            }
            Step::Flush { shard } => {
                cluster.shards[*shard].flush().await;
            }
        }
    }
    let traces = whole(&steps);
    for filter in &FILTERS {
        // The first of these queries find the heads being flushed under their hands.
        cluster.shards[0].flushes_before_read.store(flushes, SeqCst);
        let reply = cluster.search(filter.0, &format!("&limit={limit}")).await;
        assert_eq!(reply.partial(), None);
        let mut all = expected(&traces, filter, (0, 1 << 32));
        all.truncate(limit);
        assert_eq!(reply.ids(), all, "{} limit {limit}", filter.0);
        let range = format!("&start={start}&end={}", start + length);
        let reply = cluster.search(filter.0, &range).await;
        let inside = expected(&traces, filter, (start, start + length));
        assert_eq!(reply.ids(), inside, "{} {range}", filter.0);
        let matched = |span: &&Span| filter.1(span);
        for found in reply.json()["traces"].as_array().unwrap() {
            let id = u64::from_str_radix(found["traceID"].as_str().unwrap(), 16).unwrap();
            let matching = traces[&id].iter().filter(matched).count();
            assert_eq!(found["spanSet"]["matched"], matching, "{} trace {id}", filter.0);
        }
    }
    for (id, spans) in &traces {
        let reply = cluster.get(&format!("/api/traces/{id:x}")).await;
        let names = |value: &serde_json::Value| -> Vec<String> {
            let batches = value["batches"].as_array().unwrap();
            let scopes = batches.iter().flat_map(|b| b["scopeSpans"].as_array().unwrap());
            let spans = scopes.flat_map(|scope| scope["spans"].as_array().unwrap());
            spans.map(|span| span["name"].as_str().unwrap().to_owned()).collect()
        };
        let mut found = names(&reply.json());
        found.sort();
        let mut all: Vec<String> = spans.iter().map(|span| span.name.clone()).collect();
        all.sort();
        assert_eq!(found, all, "trace {id}");
    }
    let names: BTreeSet<String> = traces.values().flatten().map(|span| span.name.clone()).collect();
    let reply = cluster.get("/api/search/tag/name/values").await.json();
    assert_eq!(reply["tagValues"], serde_json::json!(names));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn answers_do_not_depend_on_where_spans_lie(
        steps in steps(),
        limit in 1..5usize,
        start in 10_000..17_000u64,
        length in 0..2_000u64,
        flushes in 0..3usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(check(steps, limit, start, length, flushes));
    }
}
