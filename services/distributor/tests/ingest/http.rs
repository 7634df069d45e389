//! OTLP/HTTP: encodings, answers, content types, CORS, tenants.

use axum::body::Body;
use clew_distributor::Config;
use http::{Request, StatusCode};
use serde_json::json;

use crate::cluster::{Cluster, EPOCH, post};
use crate::otlp::{
    gzip, json_request, partial_success, raw_span, request, span, status, trace_id, zstd,
};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn every_encoding_and_compression_stores_the_same_span() {
    let protobuf = request(&[span(1, 2, "checkout")]);
    let json = json_request(1, 2, "checkout").to_string().into_bytes();
    for (content_type, body) in [(PROTOBUF, protobuf.to_vec()), (JSON, json)] {
        for (coding, body) in
            [("identity", body.clone()), ("gzip", gzip(&body)), ("zstd", zstd(&body))]
        {
            let cluster = Cluster::single();
            let answer = cluster.post(&[content_type, ("content-encoding", coding)], body).await;
            assert_eq!(answer.status, StatusCode::OK, "{content_type:?} {coding}");
            assert_eq!(answer.header("content-type"), Some(content_type.1));
            assert_eq!(answer.text(), if content_type == JSON { "{}" } else { "" });
            assert_eq!(cluster.shards.spans(), [span(1, 2, "checkout")]);
            let stored = &cluster.shards.stored()[0];
            assert_eq!((stored.shard, stored.fallback, stored.received), (0, false, EPOCH.0));
            assert_eq!(stored.tenant, "single-tenant");
        }
    }
}

#[tokio::test]
async fn an_empty_request_is_a_success() {
    let cluster = Cluster::single();
    let answer = cluster.post(&[PROTOBUF], Body::empty()).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, String::new()));
    let answer = cluster.post(&[JSON], "{}").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "{}".to_owned()));
    assert!(cluster.shards.stored().is_empty());
}

#[tokio::test]
async fn a_bad_span_is_rejected_alone_and_counted() {
    let cluster = Cluster::single();
    let bad = [raw_span(&[0; 16], &[1; 8], "a"), raw_span(&[1; 16], &[1; 7], "b")];
    let body = request(&[span(1, 1, "good"), bad[0].clone(), bad[1].clone()]);
    let answer = cluster.post_protobuf(body).await;
    assert_eq!(answer.status, StatusCode::OK);
    let (rejected, message) = partial_success(&answer.body).unwrap();
    assert_eq!(rejected, 2);
    assert!(message.contains("invalid_trace_id") && message.contains("invalid_span_id"));
    assert_eq!(cluster.shards.spans(), [span(1, 1, "good")]);
    let tenant = "tenant=\"single-tenant\"";
    for (name, count) in [
        (format!("clew_distributor_spans_received_total{{{tenant}}}"), 3.0),
        (
            format!(
                "clew_distributor_spans_rejected_total{{reason=\"invalid_trace_id\",{tenant}}}"
            ),
            1.0,
        ),
        (
            "clew_distributor_requests_total{code=\"200\",protocol=\"http_protobuf\"}".to_owned(),
            1.0,
        ),
        ("clew_distributor_inflight_bytes".to_owned(), 0.0),
    ] {
        assert_eq!(cluster.metric(&name), Some(count), "{name}");
    }
}

#[tokio::test]
async fn a_bad_id_in_json_rejects_that_span_alone() {
    let cluster = Cluster::single();
    let mut body = json_request(1, 2, "good");
    let mut bad = body["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone();
    bad["traceId"] = json!("xyz");
    let spans = &mut body["resourceSpans"][0]["scopeSpans"][0]["spans"];
    spans.as_array_mut().unwrap().push(bad);
    let answer = cluster.post(&[JSON], body.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK);
    let partial = &answer.json()["partialSuccess"];
    assert_eq!(partial["rejectedSpans"], "1");
    assert!(partial["errorMessage"].as_str().unwrap().contains("invalid_trace_id"));
    assert_eq!(cluster.shards.spans().len(), 1);
}

#[tokio::test]
async fn bad_data_is_answered_400_with_a_status_in_the_same_encoding() {
    let cluster = Cluster::single();
    let answer = cluster.post_protobuf("this is no protobuf").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.header("content-type"), Some(PROTOBUF.1));
    assert_eq!(answer.header("retry-after"), None);
    let (code, message) = status(&answer.body);
    assert_eq!(code, 3);
    assert!(message.contains("OTLP"), "{message}");

    let answer = cluster.post(&[JSON], "{\"resourceSpans\": 7}").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.header("content-type"), Some(JSON.1));
    assert_eq!(answer.json()["code"], 3);
    assert!(answer.json()["message"].as_str().unwrap().contains("line 1"));

    for (coding, body) in [("gzip", "no gzip"), ("zstd", "no zstd"), ("gzip", "")] {
        let answer = cluster.post(&[PROTOBUF, ("content-encoding", coding)], body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{coding}");
        assert_eq!(status(&answer.body).0, 3);
    }
}

#[tokio::test]
async fn other_content_types_encodings_methods_and_paths_are_refused() {
    let cluster = Cluster::single();
    for headers in [&[][..], &[("content-type", "text/plain")], &[("content-type", "json")]] {
        let answer = cluster.post(headers, "{}").await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{headers:?}");
    }
    for coding in ["br", "gzip, gzip", "deflate"] {
        let answer = cluster.post(&[PROTOBUF, ("content-encoding", coding)], "").await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{coding}");
        assert_eq!(answer.header("accept-encoding"), Some("gzip, zstd, identity"));
    }
    let answer = cluster.http(Request::get("/v1/traces").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.header("allow"), Some("POST"));
    let answer = cluster.http(Request::post("/v1/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

fn preflight(origin: &str) -> Request<Body> {
    Request::options("/v1/traces")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,x-scope-orgid,authorization")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn browsers_may_send_from_the_allowed_origins() {
    let cluster = Cluster::single();
    let answer = cluster.http(preflight("https://shop.example")).await;
    assert!(answer.status.is_success());
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
    let allowed = answer.header("access-control-allow-headers").unwrap();
    assert_eq!(allowed, "content-type,x-scope-orgid,authorization");
    // Pages may also read why they were refused.
    let refused = cluster.post(&[("origin", "https://shop.example")], "").await;
    assert_eq!(refused.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));

    let cors_origins = vec!["https://*.example".to_owned()];
    let cluster = Cluster::new(1, false, Config { cors_origins, ..Config::default() });
    for (origin, allowed) in [
        ("https://shop.example", Some("https://shop.example")),
        ("https://shop.example.evil.org", None),
    ] {
        let answer = cluster.http(preflight(origin)).await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
    }
}

#[tokio::test]
async fn with_multitenancy_the_header_names_the_tenant() {
    let cluster = Cluster::new(1, true, Config::default());
    let body = request(&[span(1, 1, "a")]);
    for header in ["X-Scope-OrgID", "x-scope-orgid"] {
        let answer = cluster.post(&[PROTOBUF, (header, "shop")], body.clone()).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert!(cluster.shards.stored().iter().all(|stored| stored.tenant == "shop"));
    assert_eq!(cluster.shards.stored().len(), 2);

    let answer = cluster.post(&[PROTOBUF], body.clone()).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&answer.body), (16, "no org id".to_owned()));
    for headers in [
        &[PROTOBUF, ("x-scope-orgid", "a|b")][..],
        &[PROTOBUF, ("x-scope-orgid", "..")],
        &[PROTOBUF, ("x-scope-orgid", "a/b")],
        &[PROTOBUF, ("x-scope-orgid", "shop"), ("x-scope-orgid", "shop")],
    ] {
        let answer = cluster.post(headers, body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{headers:?}");
        assert_eq!(status(&answer.body).0, 3);
    }
    assert_eq!(cluster.shards.stored().len(), 2);
}

#[tokio::test]
async fn without_multitenancy_the_header_is_ignored() {
    let cluster = Cluster::single();
    let headers = [PROTOBUF, ("x-scope-orgid", "a|b")];
    let answer = cluster.post(&headers, request(&[span(1, 1, "a")])).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(cluster.shards.stored()[0].tenant, "single-tenant");
    assert_eq!(cluster.shards.stored()[0].spans[0].0, trace_id(1));
}

#[tokio::test]
async fn the_same_body_can_be_sent_again() {
    let cluster = Cluster::single();
    let body = request(&[span(1, 1, "a")]);
    for _ in 0..2 {
        assert_eq!(cluster.http(post(&[PROTOBUF], body.clone())).await.status, StatusCode::OK);
    }
    assert_eq!(cluster.shards.spans().len(), 2);
}
