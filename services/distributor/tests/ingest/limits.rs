//! What does not fit now is refused at once, with a true hint when to come again.

use std::time::Duration;

use clew_distributor::Config;
use clew_model::{ErrorKind, TenantId};
use clew_node::Problem;
use clew_node::config::{Bytes as Size, Span};
use clew_node::status::retry_delay;
use http::StatusCode;

use crate::cluster::{Behaviour, Cluster};
use crate::otlp::{json_request, request, span, status};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn an_overloaded_shard_is_answered_429_with_its_hint() {
    let cluster = Cluster::new(4, false, Config::default());
    let delay = Duration::from_millis(1_500);
    let problem = Problem::new(ErrorKind::Overloaded, "head_full", "the head is full");
    for shard in 0..4 {
        cluster.shards.behave(shard, Behaviour::Refuse(problem.clone().retry_after(delay)));
    }
    let answer = cluster.post_protobuf(request(&[span(1, 1, "a")])).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(retry_delay(&answer.body), Some(delay));
    let (code, message) = status(&answer.body);
    assert_eq!(code, 8);
    assert!(message.contains("the head is full"), "{message}");
    let answer = cluster.post(&[JSON], json_request(1, 1, "a").to_string()).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.json()["details"][0]["retryDelay"], "1.500000000s");
    // Overload is not moved on to other shards.
    let name = "clew_distributor_append_failures_total{reason=\"overloaded\"}";
    assert_eq!(cluster.metric(name), Some(2.0));
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let config =
        Config { requests_in_flight_max: 1, retry_after: Span::seconds(3), ..Config::default() };
    let cluster = Cluster::new(1, false, config);
    cluster.shards.behave(0, Behaviour::Hang);
    let body = request(&[span(1, 1, "a")]);
    let first = cluster.post_protobuf(body.clone());
    tokio::pin!(first);
    tokio::select! {
        _ = &mut first => panic!("the shard hangs"),
        () = cluster.shards.arrived() => {}
    }
    let second = cluster.post_protobuf(body.clone()).await;
    assert_eq!(second.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(second.header("retry-after"), Some("3"));
    cluster.shards.release();
    assert_eq!(first.await.status, StatusCode::OK);
    cluster.shards.release();
    assert_eq!(cluster.post_protobuf(body).await.status, StatusCode::OK);
}

#[tokio::test]
async fn bytes_in_flight_are_bounded() {
    let config = Config {
        body_bytes_max: Size(2_000),
        decompressed_bytes_max: Size(2_000),
        bytes_in_flight_max: Size(10_000),
        ..Config::default()
    };
    let cluster = Cluster::new(1, false, config);
    cluster.shards.behave(0, Behaviour::Hang);
    // Names that do not compress, so that the batches are as large as the bodies.
    let body = |n: u64| {
        let spans: Vec<_> = (0..15u64)
            .map(|at| {
                let random =
                    (1..6).map(|k| (n * 99 + at * 7 + k).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                span(1, at + 1, &random.map(|r| format!("{r:016x}")).collect::<String>())
            })
            .collect();
        request(&spans)
    };
    let mut waiting = Vec::new();
    let refused = loop {
        let mut next = Box::pin(cluster.post_protobuf(body(waiting.len() as u64)));
        tokio::select! {
            answer = &mut next => break answer,
            () = cluster.shards.arrived() => waiting.push(next),
        }
        assert!(waiting.len() < 10, "ten bodies of more than a kilobyte cannot fit");
    };
    assert!(!waiting.is_empty());
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.header("retry-after"), Some("1"));
    let inflight = cluster.metric("clew_distributor_inflight_bytes").unwrap();
    assert!(inflight > 1_000.0 && inflight <= 10_000.0, "{inflight}");
    for next in waiting {
        cluster.shards.release();
        assert_eq!(next.await.status, StatusCode::OK);
    }
    assert_eq!(cluster.metric("clew_distributor_inflight_bytes"), Some(0.0));
}

#[tokio::test]
async fn a_tenant_over_its_rate_waits_and_others_do_not() {
    let body = request(&[span(1, 1, "a")]);
    let size = body.len() as u64;
    let config = Config {
        tenant_rate_bytes: Size(size.div_ceil(10)),
        tenant_burst_bytes: Size(size),
        ..Config::default()
    };
    let cluster = Cluster::new(1, true, config);
    let send =
        async |tenant| cluster.post(&[PROTOBUF, ("x-scope-orgid", tenant)], body.clone()).await;
    assert_eq!(send("a").await.status, StatusCode::OK);
    let refused = send("a").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(status(&refused.body).1.starts_with("RATE_LIMITED: "));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((9..=10).contains(&seconds), "{seconds}");
    assert_eq!(send("b").await.status, StatusCode::OK);
    cluster.time.advance(Duration::from_secs(seconds - 1));
    assert_eq!(send("a").await.status, StatusCode::TOO_MANY_REQUESTS);
    cluster.time.advance(Duration::from_secs(1));
    assert_eq!(send("a").await.status, StatusCode::OK);
    let name = "clew_distributor_requests_refused_total{reason=\"rate_limited\",tenant=\"a\"}";
    assert_eq!(cluster.metric(name), Some(2.0));
}

#[tokio::test]
async fn the_handle_gives_problems() {
    let cluster = Cluster::single();
    let tenant = TenantId::single();
    let good = cluster.handle().push(&tenant, request(&[span(1, 1, "a")]), None).await.unwrap();
    assert_eq!((good.accepted, good.rejected.total()), (1, 0));
    let bad = cluster.handle().push(&tenant, "no protobuf".into(), None).await.unwrap_err();
    assert_eq!((bad.kind, bad.reason.as_str()), (ErrorKind::Invalid, "malformed_request"));
    cluster.shards.set_leader(0, false);
    let later = cluster.handle().push(&tenant, request(&[span(1, 1, "a")]), None).await;
    let later = later.unwrap_err();
    assert_eq!((later.kind, later.reason.as_str()), (ErrorKind::Unavailable, "no_leader"));
    assert_eq!(later.retry_after, Some(Duration::from_secs(1)));
}
