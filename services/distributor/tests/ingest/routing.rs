//! Every accepted span goes to exactly one shard, and a trace always to the same one.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_distributor::Config;
use clew_model::{TenantId, TraceId};
use clew_node::config::Bytes as Size;
use clew_ring::{Ring, ShardId};
use http::StatusCode;
use proptest::prelude::*;

use crate::cluster::Cluster;
use crate::otlp::{request, request_of, resource, span};

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_span_is_stored_once_at_its_home(
        shards in 1..20u32,
        requests in prop::collection::vec(prop::collection::vec(0..30u32, 1..40), 1..4),
        batch_bytes_max in prop::sample::select(vec![1u64, 150, 4 << 20]),
    ) {
        let batch_bytes_max = Size(batch_bytes_max);
        let cluster = Cluster::new(shards, false, Config { batch_bytes_max, ..Config::default() });
        let mut sent = Vec::new();
        for traces in requests {
            let spans: Vec<Vec<u8>> =
                traces.iter().map(|trace| { sent.push(*trace); span(*trace, sent.len() as u64, "a") }).collect();
            let answer = run(cluster.post_protobuf(request(&spans)));
            prop_assert_eq!(answer.status, StatusCode::OK);
        }
        let mut expected: Vec<Vec<u8>> =
            sent.iter().zip(1..).map(|(trace, id)| span(*trace, id, "a")).collect();
        expected.sort();
        prop_assert_eq!(cluster.shards.spans(), expected);
        let ring = Ring::new(Arc::new(cluster.map.clone()));
        for stored in cluster.shards.stored() {
            prop_assert!(!stored.fallback);
            for (trace_id, _) in stored.spans {
                let places = ring.places(&TenantId::single(), trace_id, 0);
                prop_assert_eq!(places.home, ShardId(stored.shard));
            }
        }
    }
}

#[tokio::test]
async fn a_node_is_called_once_for_all_shards_that_it_leads() {
    let cluster = Cluster::new(12, false, Config::default());
    let spans: Vec<_> = (0..400).map(|n| span(n, 1, "a")).collect();
    assert_eq!(cluster.post_protobuf(request(&spans)).await.status, StatusCode::OK);
    assert_eq!(cluster.shards.stored().len(), 12);
    // Three shards each.
    assert_eq!(cluster.shards.calls(), 4);
}

#[tokio::test]
async fn traces_spread_over_the_shards() {
    let cluster = Cluster::new(4, false, Config::default());
    let spans: Vec<_> = (0..400).map(|n| span(n, 1, "a")).collect();
    assert_eq!(cluster.post_protobuf(request(&spans)).await.status, StatusCode::OK);
    let mut by_shard: BTreeMap<u32, usize> = BTreeMap::new();
    for stored in cluster.shards.stored() {
        *by_shard.entry(stored.shard).or_default() += stored.spans.len();
    }
    assert_eq!(by_shard.len(), 4, "{by_shard:?}");
    assert!(by_shard.values().all(|spans| (50..150).contains(spans)), "{by_shard:?}");
}

#[tokio::test]
async fn batches_are_cut_and_each_has_its_resource() {
    let config = Config { batch_bytes_max: Size(2_000), ..Config::default() };
    let cluster = Cluster::new(1, false, config);
    let name = "n".repeat(100);
    let spans: Vec<_> = (0..200).map(|n| span(n / 10, u64::from(n) + 1, &name)).collect();
    let resource = resource("service.name", "checkout");
    assert_eq!(cluster.post_protobuf(request_of(&resource, &spans)).await.status, StatusCode::OK);
    let stored = cluster.shards.stored();
    assert!(stored.len() > 10);
    for batch in &stored {
        assert!(batch.traces.len() < 2_200, "{}", batch.traces.len());
        let traces = clew_model::Trace::decode(&batch.traces).unwrap();
        assert!(traces.iter().all(|trace| trace.id != TraceId([0; 16])));
        let found = batch.traces.windows(resource.len()).any(|part| part == resource);
        assert!(found, "a batch without its resource");
    }
    assert_eq!(cluster.shards.spans().len(), 200);
}

#[tokio::test]
async fn a_large_request_passes_through_whole() {
    let cluster = Cluster::new(16, false, Config::default());
    let name = "n".repeat(500);
    let spans: Vec<_> = (0..20_000).map(|n| span(n / 20, u64::from(n) + 1, &name)).collect();
    let mut expected = spans.clone();
    expected.sort();
    assert_eq!(cluster.post_protobuf(request(&spans)).await.status, StatusCode::OK);
    assert!(cluster.shards.spans() == expected);
    assert_eq!(cluster.metric("clew_distributor_inflight_bytes"), Some(0.0));
}
