//! Shards that fail, hang or answer too late, and clients that go away.

use std::time::Duration;

use clew_distributor::Config;
use clew_model::{ErrorKind, TenantId};
use clew_node::Problem;
use clew_node::config::Span;
use clew_ring::{Ring, ShardId};
use http::StatusCode;

use crate::cluster::{Behaviour, Cluster, GENERATION};
use crate::otlp::{request, span, status, trace_id};

fn down() -> Problem {
    Problem::new(ErrorKind::Unavailable, "not_leader", "this replica does not lead")
}

/// Home and fallbacks of the trace, as anyone computes them.
fn places(cluster: &Cluster, trace: u32) -> Vec<u32> {
    assert_eq!(cluster.map.generation(), GENERATION);
    let ring = Ring::new(std::sync::Arc::new(cluster.map.clone()));
    let places = ring.places(&TenantId::single(), trace_id(trace), 0);
    places.all().iter().map(|ShardId(shard)| *shard).collect()
}

#[tokio::test]
async fn a_home_without_leader_falls_over_to_the_fallback() {
    let cluster = Cluster::new(8, false, Config::default());
    let places = places(&cluster, 5);
    cluster.shards.set_leader(places[0], false);
    assert_eq!(cluster.post_protobuf(request(&[span(5, 1, "a")])).await.status, StatusCode::OK);
    let stored = &cluster.shards.stored()[0];
    assert_eq!((stored.shard, stored.fallback), (places[1], true));
    cluster.shards.set_leader(places[0], true);
    assert_eq!(cluster.post_protobuf(request(&[span(5, 2, "a")])).await.status, StatusCode::OK);
    let stored = &cluster.shards.stored()[1];
    assert_eq!((stored.shard, stored.fallback), (places[0], false));
    assert_eq!(cluster.metric("clew_distributor_fallback_batches_total"), Some(1.0));
}

#[tokio::test]
async fn places_that_fail_are_tried_in_order() {
    let cluster = Cluster::new(8, false, Config::default());
    let places = places(&cluster, 5);
    cluster.shards.behave(places[0], Behaviour::Refuse(down()));
    // Its answer is lost after the spans were stored: they are stored twice, never not at all.
    cluster.shards.behave(places[1], Behaviour::StoreAndRefuse(down()));
    assert_eq!(cluster.post_protobuf(request(&[span(5, 1, "a")])).await.status, StatusCode::OK);
    let stored = cluster.shards.stored();
    let shards: Vec<_> = stored.iter().map(|stored| (stored.shard, stored.fallback)).collect();
    assert_eq!(shards, [(places[1], true), (places[2], true)]);
    assert_eq!(stored[0].spans, stored[1].spans);
}

#[tokio::test]
async fn one_shard_that_cannot_be_replaced_fails_the_whole_request() {
    let config = Config { leader_wait: Span::seconds(0), ..Config::default() };
    let cluster = Cluster::new(8, false, config);
    let bad = places(&cluster, 5);
    for shard in &bad {
        cluster.shards.behave(*shard, Behaviour::Refuse(down()));
    }
    let other = (6..).find(|trace| !bad.contains(&places(&cluster, *trace)[0])).unwrap();
    let body = request(&[span(5, 1, "a"), span(other, 1, "b")]);
    let answer = cluster.post_protobuf(body.clone()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(status(&answer.body).0, 14);
    assert_eq!(cluster.shards.spans(), [span(other, 1, "b")]);
    for shard in bad {
        cluster.shards.behave(shard, Behaviour::Store);
    }
    assert_eq!(cluster.post_protobuf(body).await.status, StatusCode::OK);
    let mut spans = cluster.shards.spans();
    spans.dedup();
    assert_eq!(spans, [span(5, 1, "a"), span(other, 1, "b")]);
}

#[tokio::test]
async fn an_election_is_waited_for() {
    let long = Span::seconds(100_000);
    let config = Config { leader_wait: long, append_timeout: long, ..Config::default() };
    let cluster = Cluster::new(8, false, config);
    let places = places(&cluster, 5);
    for shard in &places {
        cluster.shards.behave(*shard, Behaviour::Refuse(down()));
    }
    let answering = cluster.post_protobuf(request(&[span(5, 1, "a")]));
    tokio::pin!(answering);
    for _ in 0..2 * places.len() {
        loop {
            tokio::select! {
                biased;
                answer = &mut answering => panic!("it gave up: {}", answer.status),
                () = cluster.shards.arrived() => break,
                () = tokio::task::yield_now() => cluster.time.advance(Duration::from_millis(10)),
            }
        }
    }
    cluster.shards.behave(places[0], Behaviour::Store);
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut answering => break answer,
            () = tokio::task::yield_now() => cluster.time.advance(Duration::from_millis(10)),
        }
    };
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(cluster.shards.spans(), [span(5, 1, "a")]);
}

#[tokio::test]
async fn without_any_place_nothing_is_sent() {
    let cluster = Cluster::new(8, false, Config::default());
    let bad = places(&cluster, 5);
    bad.iter().for_each(|shard| cluster.shards.set_leader(*shard, false));
    let other = (6..).find(|trace| !bad.contains(&places(&cluster, *trace)[0])).unwrap();
    let answer = cluster.post_protobuf(request(&[span(other, 1, "b"), span(5, 1, "a")])).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(cluster.shards.stored().is_empty());
}

#[tokio::test]
async fn a_shard_that_calls_a_checked_batch_invalid_does_not_lose_the_clients_spans() {
    let cluster = Cluster::new(8, false, Config::default());
    let home = places(&cluster, 5)[0];
    let problem = Problem::new(ErrorKind::Invalid, "unknown", "what is this");
    cluster.shards.behave(home, Behaviour::Refuse(problem));
    let answer = cluster.post_protobuf(request(&[span(5, 1, "a")])).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(cluster.shards.stored().is_empty());
}

#[tokio::test]
async fn a_shard_that_hangs_is_given_up_after_the_append_timeout() {
    let cluster = Cluster::single();
    cluster.shards.behave(0, Behaviour::Hang);
    let answering = cluster.post_protobuf(request(&[span(1, 1, "a")]));
    tokio::pin!(answering);
    tokio::select! {
        _ = &mut answering => panic!("the shard hangs"),
        () = cluster.shards.arrived() => {}
    }
    cluster.time.advance(Config::default().append_timeout.0);
    let answer = answering.await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), Some("1"));
    // Packing for other places may have begun when the request was given up.
    let in_flight = || cluster.metric("clew_distributor_inflight_bytes");
    for _ in 0..20_000 {
        if in_flight() == Some(0.0) {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(in_flight(), Some(0.0));
    let name = "clew_distributor_append_failures_total{reason=\"timeout\"}";
    assert_eq!(cluster.metric(name), Some(1.0));
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_undo_the_append() {
    let cluster = Cluster::single();
    cluster.shards.behave(0, Behaviour::Hang);
    {
        let answering = cluster.post_protobuf(request(&[span(1, 1, "a")]));
        tokio::pin!(answering);
        tokio::select! {
            _ = &mut answering => panic!("the shard hangs"),
            () = cluster.shards.arrived() => {}
        }
    }
    // What it holds is counted until it ends.
    assert!(cluster.metric("clew_distributor_inflight_bytes").unwrap() > 0.0);
    cluster.shards.release();
    cluster.tasks.finish().await;
    assert_eq!(cluster.shards.spans(), [span(1, 1, "a")]);
    assert_eq!(cluster.metric("clew_distributor_inflight_bytes"), Some(0.0));
}

#[tokio::test]
async fn the_deadline_of_the_handle_is_kept() {
    let cluster = Cluster::single();
    cluster.shards.behave(0, Behaviour::Hang);
    let (handle, tenant) = (cluster.handle(), TenantId::single());
    let deadline = Some(Duration::from_secs(2));
    let pushing = handle.push(&tenant, request(&[span(1, 1, "a")]), deadline);
    tokio::pin!(pushing);
    tokio::select! {
        _ = &mut pushing => panic!("the shard hangs"),
        () = cluster.shards.arrived() => {}
    }
    cluster.time.advance(Duration::from_secs(2));
    let problem = pushing.await.unwrap_err();
    assert_eq!(
        (problem.kind, problem.reason.as_str()),
        (ErrorKind::Cancelled, "deadline_exceeded")
    );
}
