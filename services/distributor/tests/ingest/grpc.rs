//! OTLP/gRPC: with tonic's own client over a socket, and answer by answer.

use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, BufMut, Bytes};
use clew_distributor::Config;
use clew_model::ErrorKind;
use clew_node::config::{Bytes as Size, Span};
use clew_node::http_server::{Limits, serve};
use clew_node::rpc::{Channel, Dialer};
use clew_node::status::retry_delay;
use clew_node::{Clock, Problem, Stop};
use http::{Request, StatusCode};
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

use crate::cluster::{Answered, Behaviour, Cluster};
use crate::otlp::{frame, gzip, partial_success, raw_span, request, span, zstd};

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Messages as the bytes they are.
#[derive(Debug, Default, Clone)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

async fn call(
    channel: Channel,
    coding: Option<CompressionEncoding>,
    message: Bytes,
) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    if let Some(coding) = coding {
        client = client.send_compressed(coding);
    }
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(PATH);
    client.unary(tonic::Request::new(message), path, Raw).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_grpc_client_is_served_over_a_socket() {
    let cluster = Cluster::single();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialer = Dialer::plain(&Clock::system());
    let channel = dialer.connect(&listener.local_addr().unwrap().to_string()).unwrap();
    let stop = Stop::new();
    let (router, tasks) = (cluster.distributor.grpc_router(), cluster.tasks.clone());
    let serving = serve(listener, router, Limits::default(), Clock::system(), tasks, stop.clone());
    let calling = async {
        for coding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
            let message = request(&[span(1, 1, "a"), raw_span(&[1; 3], &[1; 8], "bad")]);
            let answer = call(channel.clone(), coding, message).await.unwrap();
            assert_eq!(partial_success(&answer).unwrap().0, 1);
            let answer = call(channel.clone(), coding, request(&[span(1, 2, "b")])).await.unwrap();
            assert_eq!(answer, "");
            let refused = call(channel.clone(), coding, Bytes::from("no protobuf")).await;
            assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
        }
        let large: Vec<_> = (0..5_000).map(|n| span(n, 1, &"n".repeat(1_000))).collect();
        assert_eq!(call(channel, None, request(&large)).await.unwrap(), "");
        stop.stop();
    };
    tokio::join!(serving, calling);
    assert_eq!(cluster.shards.spans().len(), 5_006);
}

async fn export(cluster: &Cluster, headers: &[(&str, &str)], body: Vec<u8>) -> Answered {
    let mut request = Request::post(PATH).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    cluster.grpc(request.body(Body::from(body)).unwrap()).await
}

async fn code(cluster: &Cluster, headers: &[(&str, &str)], body: Vec<u8>) -> Code {
    let answer = export(cluster, headers, body).await;
    assert_eq!(answer.status, StatusCode::OK, "gRPC answers are always 200");
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    answer.grpc_status().code()
}

#[tokio::test]
async fn a_success_has_a_message_and_a_trailer() {
    let cluster = Cluster::single();
    let answer = export(&cluster, &[], frame(false, &request(&[span(1, 1, "a")]))).await;
    assert_eq!(&answer.body[..], [0, 0, 0, 0, 0]);
    assert_eq!(answer.trailers["grpc-status"], "0");
    assert_eq!(cluster.shards.spans().len(), 1);
}

#[tokio::test]
async fn what_can_never_succeed_has_a_code_that_is_not_retried() {
    let config = Config {
        body_bytes_max: Size(10_000),
        decompressed_bytes_max: Size(20_000),
        ..Config::default()
    };
    let cluster = Cluster::new(1, false, config);
    let good = request(&[span(1, 1, "a")]);
    let large = vec![0; 20_001];
    for (expected, headers, body) in [
        (Code::InvalidArgument, &[][..], vec![]),
        (Code::InvalidArgument, &[], frame(false, b"no protobuf")),
        (Code::InvalidArgument, &[], frame(true, &gzip(&good))),
        (Code::InvalidArgument, &[], frame(false, &large)),
        (Code::InvalidArgument, &[("grpc-encoding", "gzip")], frame(true, &gzip(&large))),
        (Code::InvalidArgument, &[("grpc-encoding", "zstd")], frame(true, &zstd(&large))),
        (Code::InvalidArgument, &[("grpc-encoding", "zstd")], frame(true, b"damaged")),
        (Code::Unimplemented, &[("grpc-encoding", "snappy")], frame(true, &good)),
        (Code::Ok, &[("grpc-encoding", "gzip")], frame(false, &good)),
        (Code::Ok, &[("grpc-encoding", "gzip")], frame(true, &gzip(&good))),
        (Code::Ok, &[("grpc-encoding", "identity")], frame(false, &good)),
    ] {
        assert_eq!(code(&cluster, headers, body).await, expected, "{headers:?}");
    }
    let answer = export(&cluster, &[("grpc-encoding", "snappy")], frame(true, &good)).await;
    assert_eq!(answer.header("grpc-accept-encoding"), Some("gzip,zstd,identity"));
}

#[tokio::test]
async fn the_metadata_names_the_tenant() {
    let cluster = Cluster::new(1, true, Config::default());
    let body = frame(false, &request(&[span(1, 1, "a")]));
    let id = "x-scope-orgid";
    for (expected, headers) in [
        (Code::Ok, &[(id, "shop")][..]),
        (Code::Unauthenticated, &[]),
        (Code::InvalidArgument, &[(id, "a|b")]),
        (Code::InvalidArgument, &[(id, "a"), (id, "b")]),
    ] {
        assert_eq!(code(&cluster, headers, body.clone()).await, expected, "{headers:?}");
    }
    assert_eq!(cluster.shards.stored().len(), 1);
    assert_eq!(cluster.shards.stored()[0].tenant, "shop");
}

#[tokio::test]
async fn what_can_succeed_later_says_when() {
    let config = Config { leader_wait: Span::seconds(0), ..Config::default() };
    let cluster = Cluster::new(1, false, config);
    let delay = Duration::from_millis(700);
    let body = frame(false, &request(&[span(1, 1, "a")]));
    for (kind, code) in [
        (ErrorKind::Overloaded, Code::ResourceExhausted),
        (ErrorKind::Unavailable, Code::Unavailable),
        (ErrorKind::Internal, Code::Unavailable),
        (ErrorKind::Corrupt, Code::Unavailable),
    ] {
        let problem = Problem::new(kind, "x", "text").retry_after(delay);
        cluster.shards.behave(0, Behaviour::Refuse(problem));
        let status = export(&cluster, &[], body.clone()).await.grpc_status();
        assert_eq!(status.code(), code, "{kind}");
        assert!(retry_delay(status.details()).is_some(), "{kind}");
        if kind == ErrorKind::Overloaded {
            assert_eq!(retry_delay(status.details()), Some(delay));
        }
    }
}

#[tokio::test]
async fn the_clients_deadline_is_kept() {
    let cluster = Cluster::single();
    cluster.shards.behave(0, Behaviour::Hang);
    let body = frame(false, &request(&[span(1, 1, "a")]));
    let answering = code(&cluster, &[("grpc-timeout", "100m")], body);
    tokio::pin!(answering);
    tokio::select! {
        _ = &mut answering => panic!("the shard hangs"),
        () = cluster.shards.arrived() => {}
    }
    cluster.time.advance(Duration::from_millis(99));
    assert!(futures::poll!(&mut answering).is_pending());
    cluster.time.advance(Duration::from_millis(1));
    assert_eq!(answering.await, Code::DeadlineExceeded);
    // The outcome was unknown; here the spans are stored after all.
    cluster.shards.release();
    cluster.tasks.finish().await;
    assert_eq!(cluster.shards.spans().len(), 1);
}

#[tokio::test]
async fn other_calls_and_content_types_are_refused() {
    let cluster = Cluster::single();
    let other = Request::post("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        .header("content-type", "application/grpc")
        .body(Body::empty())
        .unwrap();
    assert_eq!(cluster.grpc(other).await.grpc_status().code(), Code::Unimplemented);
    let plain = Request::post(PATH).body(Body::empty()).unwrap();
    assert_eq!(cluster.grpc(plain).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}
