//! Input made to break the process: bombs, deep nesting, damage, bodies without end.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use bytes::Bytes;
use clew_distributor::Config;
use clew_node::config::Bytes as Size;
use futures::StreamExt;
use http::StatusCode;
use hyper::body::Frame;
use proptest::prelude::*;

use crate::cluster::{Cluster, post};
use crate::otlp::{
    gzip, json_request, nested_span, partial_success, request, request_of, resource, span, status,
    zstd,
};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

/// A gibibyte of zeros, compressed without holding it.
fn bomb(coding: &str) -> Vec<u8> {
    let mut zeros = std::io::Read::take(std::io::repeat(0), 1 << 30);
    let mut out = Vec::new();
    if coding == "gzip" {
        let mut writer = flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
        std::io::copy(&mut zeros, &mut writer).unwrap();
        writer.finish().unwrap();
    } else {
        zstd::stream::copy_encode(zeros, &mut out, 1).unwrap();
    }
    out
}

#[tokio::test]
async fn bombs_are_refused_before_they_unfold() {
    // The limit on bytes in flight is counted, so passing it would be "busy", not "too large".
    let config = Config {
        body_bytes_max: Size::mebi(8),
        decompressed_bytes_max: Size::mebi(1),
        bytes_in_flight_max: Size::mebi(12),
        ..Config::default()
    };
    let cluster = Cluster::new(1, false, config);
    for coding in ["gzip", "zstd"] {
        let body = bomb(coding);
        for content_type in [PROTOBUF, JSON] {
            let headers = [content_type, ("content-encoding", coding)];
            let answer = cluster.post(&headers, body.clone()).await;
            assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{coding}");
            assert_eq!(answer.header("retry-after"), None);
        }
    }
    assert_eq!(cluster.metric("clew_distributor_inflight_bytes"), Some(0.0));
}

#[tokio::test]
async fn bodies_are_bounded_with_and_without_a_length() {
    let config = Config { body_bytes_max: Size(1_000), ..Config::default() };
    let cluster = Cluster::new(1, false, config);
    let answer = cluster.post_protobuf(vec![0; 1_001]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let endless = futures::stream::repeat_with(|| {
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[7; 100])))
    });
    let body = Body::new(http_body_util::StreamBody::new(endless));
    let answer = cluster.post_protobuf(body).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(status(&answer.body).0, 3);
}

/// A body of `pieces` pieces of a kibibyte, and how many of them were taken.
fn counted_body(pieces: usize) -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    let stream = futures::stream::iter(0..pieces).map(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[7; 1_024])))
    });
    (Body::new(http_body_util::StreamBody::new(stream)), taken)
}

#[tokio::test]
async fn a_refused_body_is_taken_in_so_that_its_sender_reads_the_answer() {
    let config = Config { body_bytes_max: Size(4 << 10), ..Config::default() };
    let cluster = Cluster::new(1, false, config);
    let refused = [
        (PROTOBUF, "identity", StatusCode::PAYLOAD_TOO_LARGE),
        (PROTOBUF, "br", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (("content-type", "text/plain"), "identity", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ];
    for (content_type, coding, status) in refused {
        let (body, taken) = counted_body(1_000);
        let headers = [content_type, ("content-encoding", coding)];
        assert_eq!(cluster.post(&headers, body).await.status, status);
        assert_eq!(taken.load(Ordering::Relaxed), 1_000, "{status} {coding}");
    }
    // Only within bounds, and not where the client waits to be told to send.
    let (body, taken) = counted_body(1_000_000);
    assert_eq!(cluster.post_protobuf(body).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!((1_000..100_000).contains(&taken.load(Ordering::Relaxed)));
    let (body, taken) = counted_body(1_000);
    let headers = [("content-type", "text/plain"), ("expect", "100-continue")];
    let answer = cluster.post(&headers, body).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(taken.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let cluster = Cluster::single();
    let (frames, stream) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let stream = futures::stream::unfold(stream, |mut stream| async move {
        stream.recv().await.map(|frame| (frame, stream))
    });
    let body = Body::new(http_body_util::StreamBody::new(stream));
    let answering = cluster.http(post(&[PROTOBUF], body));
    tokio::pin!(answering);
    frames.send(Ok(Frame::data(Bytes::from_static(b"\n")))).await.unwrap();
    assert!(futures::poll!(&mut answering).is_pending());
    cluster.time.advance(Config::default().body_timeout.0);
    assert_eq!(answering.await.status, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn nesting_without_end_rejects_that_span_alone() {
    let cluster = Cluster::single();
    let body = request(&[span(1, 1, "good"), nested_span(200_000), nested_span(33)]);
    let answer = cluster.post_protobuf(body).await;
    assert_eq!(answer.status, StatusCode::OK);
    let (rejected, message) = partial_success(&answer.body).unwrap();
    assert_eq!(rejected, 2);
    assert!(message.contains("too_deep"), "{message}");
    assert_eq!(cluster.shards.spans(), [span(1, 1, "good")]);

    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let answer = cluster.post(&[JSON], deep).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let value = "{\"arrayValue\":{\"values\":[".repeat(50_000);
    let deep = format!("{{\"resourceSpans\":[{{\"resource\":{{\"attributes\":[{{\"value\":{value}");
    let answer = cluster.post(&[JSON], deep).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_truncated_body_is_bad_data_or_a_shorter_request() {
    let cluster = Cluster::single();
    let whole = request(&[span(1, 1, "a"), span(2, 2, "b")]);
    for cut in 1..whole.len() {
        let answer = cluster.post_protobuf(whole.slice(..cut)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "cut at {cut}");
    }
    let whole = json_request(1, 2, "a").to_string();
    for cut in 0..whole.len() {
        let answer = cluster.post(&[JSON], whole[..cut].to_owned()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "cut at {cut}");
    }
    assert!(cluster.shards.stored().is_empty());
}

#[tokio::test]
async fn too_many_spans_are_refused() {
    let cluster = Cluster::new(1, false, Config { spans_max: 3, ..Config::default() });
    let spans: Vec<_> = (1..=4).map(|n| span(n, 1, "a")).collect();
    let answer = cluster.post_protobuf(request(&spans)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(cluster.post_protobuf(request(&spans[..3])).await.status, StatusCode::OK);
    assert_eq!(cluster.shards.spans().len(), 3);
}

#[tokio::test]
async fn a_huge_resource_is_not_multiplied_by_the_number_of_shards() {
    let config = Config {
        body_bytes_max: Size::mebi(1),
        decompressed_bytes_max: Size::mebi(1),
        bytes_in_flight_max: Size::mebi(5),
        ..Config::default()
    };
    let cluster = Cluster::new(64, false, config);
    let spans: Vec<_> = (0..500).map(|n| span(n, 1, "a")).collect();
    let huge = resource("k", &"v".repeat(900_000));
    let answer = cluster.post_protobuf(request_of(&huge, &spans)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(cluster.shards.stored().is_empty());
    let small = resource("k", &"v".repeat(9_000));
    let answer = cluster.post_protobuf(request_of(&small, &spans)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(cluster.shards.spans().len(), 500);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_bytes_are_answered(
        body in prop::collection::vec(any::<u8>(), 0..300),
        json: bool,
        coding in prop::sample::select(vec!["identity", "gzip", "zstd"]),
        compress: bool,
    ) {
        let body = match coding {
            "gzip" if compress => gzip(&body),
            "zstd" if compress => zstd(&body),
            _ => body,
        };
        let headers = [if json { JSON } else { PROTOBUF }, ("content-encoding", coding)];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer = runtime.block_on(Cluster::single().post(&headers, body));
        prop_assert!(matches!(answer.status, StatusCode::OK | StatusCode::BAD_REQUEST));
    }
}
