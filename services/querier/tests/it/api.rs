//! The API as clients see it: shapes, statuses, parameters, tenants.

use std::io::Read as _;
use std::time::Duration;

use clew_model::{TenantId, Trace};
use clew_node::config::{Bytes, Span as Wait};
use clew_proto::tempopb;
use clew_querier::{Config, QueryConfig};
use prost::Message;
use serde_json::json;

use crate::cluster::Cluster;
use crate::spans::{SECOND, Span, child, encode, root};

/// Three traces, each of a root and a child, a minute apart.
fn three() -> Vec<Vec<Span>> {
    (1..=3).map(|n| vec![root(n, n * 60), child(&root(n, n * 60), 2)]).collect()
}

async fn shop(flushed: bool) -> Cluster {
    let cluster = Cluster::new(2);
    for (at, spans) in three().iter().enumerate() {
        cluster.append(at % 2, spans);
    }
    if flushed {
        for shard in &cluster.shards {
            shard.flush().await.unwrap();
        }
    }
    cluster
}

#[tokio::test]
async fn health_and_version() {
    let cluster = Cluster::new(1);
    let echo = cluster.get("/api/echo").await;
    assert_eq!((echo.status.as_u16(), echo.text()), (200, "echo\n"));
    let info = cluster.get("/api/status/buildinfo").await.json();
    let keys: Vec<&str> = info.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["version", "revision", "branch", "buildDate", "buildUser", "goVersion"]);
    // Grafana takes 2.2.0 and later for "streams searches", 2.7.0 for "streams metrics" too.
    assert_eq!(info["version"], "2.6.0");
}

#[tokio::test]
async fn a_trace_in_all_its_forms() {
    for flushed in [false, true] {
        let cluster = shop(flushed).await;
        let v1 = cluster.get("/api/traces/2").await;
        assert_eq!(v1.status, 200);
        let batches = v1.json()["batches"].as_array().unwrap().clone();
        assert_eq!(batches.len(), 2);
        let span = &batches[0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "AAAAAAAAAAAAAAAAAAAAAg==");
        assert_eq!(span["name"], "GET /2");
        assert_eq!(span["kind"], "SPAN_KIND_SERVER");
        assert_eq!(span["startTimeUnixNano"], (120 * SECOND).to_string());
        let v2 = cluster.get("/api/v2/traces/00000000000000000000000000000002").await.json();
        assert_eq!(v2["trace"]["resourceSpans"], json!(batches));
        assert_eq!(v2.get("status"), None);
        let protobuf = [("accept", "application/protobuf")];
        let v1 = cluster.get_with("/api/traces/2", &protobuf).await;
        assert_eq!(v1.headers["content-type"], "application/protobuf");
        let expected = Trace::merge(Trace::decode(&encode(&three()[1])).unwrap()).unwrap().encode();
        assert_eq!(v1.body, expected);
        let v2 = cluster.get_with("/api/v2/traces/2", &protobuf).await;
        let v2 = tempopb::TraceByIdResponse::decode(v2.body.as_slice()).unwrap();
        assert_eq!((v2.trace.to_vec(), v2.status, v2.message.as_str()), (expected, 0, ""));
    }
}

#[tokio::test]
async fn a_trace_that_is_not_there() {
    let cluster = shop(true).await;
    let v1 = cluster.get("/api/traces/abc").await;
    assert_eq!((v1.status.as_u16(), v1.text()), (404, ""));
    let v2 = cluster.get("/api/v2/traces/abc").await;
    assert_eq!(v2.status, 200);
    assert_eq!(v2.json()["trace"], json!({"resourceSpans": []}));
    let v2 = cluster.get_with("/api/v2/traces/abc", &[("accept", "application/protobuf")]).await;
    assert!(tempopb::TraceByIdResponse::decode(v2.body.as_slice()).unwrap().trace.is_empty());
}

#[tokio::test]
async fn shared_span_ids_of_zipkin_are_told_apart() {
    let cluster = Cluster::new(1);
    let server = root(1, 10);
    let client = Span { id: server.id, kind: 3, ..child(&server, 2) };
    let client = Span { parent: 77, ..client };
    cluster.append(0, &[server, client]);
    let reply = cluster.get_with("/api/traces/1", &[("accept", "application/protobuf")]).await;
    let trace = Trace::decode(&reply.body.into()).unwrap().remove(0);
    let mut ids: Vec<_> = trace
        .spans
        .iter()
        .map(|span| clew_model::otlp::view::SpanView::parse(&span.bytes).unwrap().span())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2);
}

#[tokio::test]
async fn a_trace_over_the_limit_is_told() {
    let query = QueryConfig { trace_bytes_max: Bytes(150), ..QueryConfig::default() };
    let cluster = Cluster::with(1, Config { query, ..Config::default() });
    let parent = root(1, 10);
    let spans: Vec<Span> = (2..20).map(|n| child(&parent, n)).collect();
    cluster.append(0, &spans);
    let v1 = cluster.get("/api/traces/1").await;
    assert_eq!(v1.status, 422);
    assert!(v1.text().contains("max bytes: 150"), "{}", v1.text());
    let v2 = cluster.get("/api/v2/traces/1").await;
    let v2 = v2.json();
    assert_eq!(v2["status"], "PARTIAL");
    assert!(v2["message"].as_str().unwrap().contains("max bytes: 150"));
    let shown = v2["trace"]["resourceSpans"].as_array().unwrap().len();
    assert!((1..18).contains(&shown), "{shown}");
}

#[tokio::test]
async fn a_search_answers_what_grafana_reads() {
    for flushed in [false, true] {
        let cluster = shop(flushed).await;
        let reply =
            cluster.search("{ .db.system = \"postgres\" && name =~ \"child.*\" }", "").await;
        assert_eq!(reply.ids(), ["3", "2", "1"]);
        assert_eq!(reply.partial(), None);
        let json = reply.json();
        let set = json!({
            "spans": [{
                "spanID": "0000000000000bba",
                "name": "child 2",
                "startTimeUnixNano": (180 * SECOND).to_string(),
                "durationNanos": SECOND.to_string(),
                "attributes": [{"key": "db.system", "value": {"stringValue": "postgres"}}],
            }],
            "matched": 1,
        });
        assert_eq!(
            json["traces"][0],
            json!({
                "traceID": "3",
                "rootServiceName": "shop",
                "rootTraceName": "GET /3",
                "startTimeUnixNano": (180 * SECOND).to_string(),
                "durationMs": 1000,
                "spanSet": set,
                "spanSets": [set],
                "serviceStats": {"db": {"spanCount": 1}, "shop": {"spanCount": 1}},
            })
        );
        assert_eq!(json["metrics"]["completedJobs"], 1);
        assert_eq!(json["metrics"]["totalJobs"], 1);
    }
}

#[tokio::test]
async fn searches_are_newest_first_and_bounded() {
    for flushed in [false, true] {
        let cluster = shop(flushed).await;
        assert_eq!(cluster.search("{}", "&limit=2").await.ids(), ["3", "2"]);
        assert_eq!(cluster.search("{}", "&start=60&end=61").await.ids(), ["1"]);
        assert_eq!(cluster.search("{}", "&start=1&end=125").await.ids(), ["2", "1"]);
        assert_eq!(cluster.search("{ .http.status_code = 200 }", "&limit=1").await.ids(), ["3"]);
        assert!(cluster.search("{ .http.status_code = 500 }", "").await.ids().is_empty());
        assert!(cluster.search("{ false }", "").await.ids().is_empty());
        assert_eq!(cluster.search("{}", "&minDuration=2s").await.ids(), [""; 0]);
        assert_eq!(cluster.search("{}", "&maxDuration=2s&spss=0").await.ids(), ["3", "2", "1"]);
        assert_eq!(cluster.get("/api/search").await.ids(), ["3", "2", "1"]);
        let tags = "/api/search?tags=db.system%3Dpostgres%20http.status_code%3D200";
        assert_eq!(cluster.get(tags).await.ids().len(), 3);
        let legacy = cluster.get("/api/search?service.name=sho&limit=1").await;
        assert_eq!(legacy.ids(), ["3"]);
        assert_eq!(legacy.json()["traces"][0].get("spanSets"), None);
    }
}

#[tokio::test]
async fn a_search_in_protobuf() {
    let cluster = shop(true).await;
    let accept = [("accept", "application/protobuf, application/json")];
    let reply = cluster.get_with("/api/search?limit=1", &accept).await;
    let answer = tempopb::SearchResponse::decode(reply.body.as_slice()).unwrap();
    assert_eq!(answer.traces[0].trace_id, "3");
    assert_eq!(answer.traces[0].duration_ms, 1_000);
}

#[tokio::test]
async fn names_and_values_of_attributes() {
    for flushed in [false, true] {
        let cluster = shop(flushed).await;
        let v2 = cluster.get("/api/v2/search/tags").await.json();
        let scopes = v2["scopes"].as_array().unwrap();
        let tags = |name: &str| {
            scopes.iter().find(|scope| scope["name"] == name).map(|scope| scope["tags"].clone())
        };
        assert_eq!(tags("span"), Some(json!(["db.system", "http.status_code"])));
        assert_eq!(tags("resource"), Some(json!(["service.name"])));
        assert_eq!(tags("intrinsic").unwrap().as_array().unwrap().len(), 25);
        let resource = cluster.get("/api/v2/search/tags?scope=resource").await.json();
        assert_eq!(resource["scopes"], json!([{"name": "resource", "tags": ["service.name"]}]));
        let intrinsic = cluster.get("/api/v2/search/tags?scope=intrinsic").await.json();
        assert_eq!(intrinsic["scopes"].as_array().unwrap().len(), 1);
        let v1 = cluster.get("/api/search/tags").await.json();
        assert_eq!(v1["tagNames"], json!(["db.system", "http.status_code", "service.name"]));

        let values = async |path: &str| cluster.get(path).await.json()["tagValues"].clone();
        let names = values("/api/v2/search/tag/resource.service.name/values").await;
        let text = |value: &str| json!({"type": "string", "value": value});
        assert_eq!(names, json!([text("db"), text("shop")]));
        let twice = values("/api/v2/search/tag/resource%252Eservice%252Ename/values").await;
        assert_eq!(twice, names);
        let limited = values("/api/v2/search/tag/.service.name/values?limit=1").await;
        assert_eq!(limited, json!([text("db")]));
        let filtered = values("/api/v2/search/tag/name/values?q=%7Bkind%3Dserver%7D").await;
        assert_eq!(filtered, json!([text("GET /1"), text("GET /2"), text("GET /3")]));
        let codes = values("/api/v2/search/tag/span.http.status_code/values").await;
        assert_eq!(codes, json!([{"type": "int", "value": "200"}]));
        let kinds = values("/api/v2/search/tag/kind/values").await;
        assert!(kinds.as_array().unwrap().contains(&json!({"type": "keyword", "value": "server"})));
        assert_eq!(values("/api/v2/search/tag/duration/values").await, json!([]));
        assert_eq!(values("/api/search/tag/service.name/values").await, json!(["db", "shop"]));
        assert_eq!(
            values("/api/search/tag/root.name/values").await,
            json!(["GET /1", "GET /2", "GET /3"])
        );
    }
}

#[tokio::test]
async fn wrong_requests_are_400_in_plain_text() {
    let cluster = shop(false).await;
    for (path, part) in [
        ("/api/traces/xyz", "position 1"),
        ("/api/traces/123456789012345678901234567890123", "128 bits"),
        ("/api/traces/1?start=5&end=5", "start"),
        ("/api/v2/traces/1?q=%7B%7D%7Ccount()%3E1", "invalid q"),
        ("/api/v2/traces/1?q=%7Btrue%7D&match_depth=-2", "invalid match_depth"),
        ("/api/search?q=%7B", "invalid TraceQL query: parse error at line 1, col"),
        ("/api/search?q=%7Bname%3D1%7D", "invalid TraceQL query"),
        ("/api/search?q=%7B%7D%20%7C%20rate()", "TraceQL metrics are not supported yet"),
        ("/api/search?q=%7B%7D&tags=a%3Db", "tags and q"),
        ("/api/search?limit=0", "invalid limit"),
        ("/api/search?start=5", "start and end"),
        ("/api/search/tags?scope=spam", "invalid scope"),
        ("/api/v2/search/tags?end=5", "start and end"),
        ("/api/v2/search/tag/service/values", "please provide a valid tagName"),
        ("/api/v2/search/tag/span.%20/values", "please provide a valid tagName"),
        ("/api/metrics/query_range?q=%7B%7D%7Crate()", "TraceQL metrics are not supported yet"),
        ("/api/metrics/query?query=%7B%7D%7Crate()", "TraceQL metrics are not supported yet"),
        ("/api/metrics/query_range?q=%7B%7D%7Crat()", "parse error at line 1, col 4"),
        ("/api/metrics/query?q=%7B%7D", "no metrics query"),
        ("/api/metrics/query_range?q=", "a metrics query is needed"),
        ("/api/metrics/query", "a metrics query is needed"),
        ("/api/v2/traces/diff", "not supported yet"),
    ] {
        let reply = cluster.get(path).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text());
        assert!(reply.text().contains(part), "{path}: {}", reply.text());
        assert_eq!(reply.headers["content-type"], "text/plain; charset=utf-8");
    }
    assert_eq!(cluster.get("/api/v2/search/tag/a").await.status, 404);
    assert_eq!(cluster.get("/api/nothing").await.status, 404);
    let metrics = cluster.metrics.render().unwrap();
    assert!(metrics.contains("clew_querier_requests_total{code=\"400\",route=\"search\"} 6"));
}

#[tokio::test]
async fn tenants_are_walls_unless_asked_for_together() {
    let config = Config { multitenancy_enabled: true, ..Config::default() };
    let cluster = Cluster::with(2, config);
    let tenant = |name: &str| TenantId::parse(name).unwrap();
    cluster.shards[0].append(&tenant("a"), &[root(1, 60)], false);
    cluster.shards[0].append(&tenant("b"), &[root(2, 120)], false);
    cluster.shards[0].flush().await.unwrap();
    cluster.shards[1].append(&tenant("a"), &[root(3, 180)], false);
    cluster.shards[1].append(&tenant("b"), &[child(&root(3, 180), 2)], false);
    let ask = async |path: &str, org: &str| cluster.get_with(path, &[("X-Scope-OrgID", org)]).await;
    assert_eq!(ask("/api/search", "a").await.ids(), ["3", "1"]);
    assert_eq!(ask("/api/search", "b").await.ids(), ["3", "2"]);
    assert_eq!(ask("/api/search", "c").await.ids(), [""; 0]);
    assert_eq!(ask("/api/traces/2", "a").await.status, 404);
    let both = ask("/api/search", "b|a|b").await;
    assert_eq!(both.ids(), ["3", "2", "1"]);
    let joined = ask("/api/traces/3", "a|b").await.json();
    assert_eq!(joined["batches"].as_array().unwrap().len(), 2);
    let values = ask("/api/search/tag/service.name/values", "a|b").await.json();
    assert_eq!(values["tagValues"], json!(["db", "shop"]));
    let values = ask("/api/search/tag/service.name/values", "a").await.json();
    assert_eq!(values["tagValues"], json!(["shop"]));
    let nobody = cluster.get("/api/search").await;
    assert_eq!((nobody.status.as_u16(), nobody.text()), (401, "no org id"));
    for bad in ["a/b", "a|", ".."] {
        assert_eq!(ask("/api/search", bad).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn answers_are_compressed_and_routes_move_with_the_prefix() {
    let cluster =
        Cluster::with(1, Config { http_api_prefix: "/tempo".to_owned(), ..Config::default() });
    cluster.append(0, &three().concat());
    let reply = cluster.get_with("/tempo/api/search", &[("accept-encoding", "gzip")]).await;
    assert_eq!(reply.headers["content-encoding"], "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(reply.body.as_slice()).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("{\"traces\":[{\"traceID\":\"3\""), "{text}");
    let tag = cluster.get("/tempo/api/v2/search/tag/name/values").await;
    assert_eq!(tag.json()["tagValues"].as_array().unwrap().len(), 4);
    assert_eq!(cluster.get("/api/echo").await.status, 404);
    assert_eq!(cluster.get("/tempo/api/echo").await.text(), "echo\n");
}

#[tokio::test]
async fn queries_wait_their_turn_and_not_for_ever() {
    let config = Config {
        concurrent_queries_max: 1,
        queued_queries_max: 1,
        query_timeout: Wait::seconds(30),
        ..Config::default()
    };
    let cluster = Cluster::waiting(1, config, Duration::from_secs(3_600));
    cluster.append(0, &three().concat());
    cluster.shards[0].away.store(true, std::sync::atomic::Ordering::SeqCst);
    let first = cluster.get("/api/search");
    let second = cluster.get("/api/search");
    tokio::pin!(first, second);
    // The first waits for a leader, the second for the first.
    assert!(futures::poll!(&mut first).is_pending());
    assert!(futures::poll!(&mut second).is_pending());
    let third = cluster.get("/api/search").await;
    assert_eq!((third.status.as_u16(), third.text()), (429, "job queue full"));
    assert_eq!(third.headers["retry-after"], "1");
    cluster.time.advance(Duration::from_secs(31));
    assert_eq!(first.await.status, 504);
    assert_eq!(second.await.status, 504);
}

/// Trace n in two blocks, for n from 1 to 4; trace 4 is larger than the others.
async fn split_traces(fetched_bytes_max: u64) -> Cluster {
    let query =
        QueryConfig { fetched_bytes_max: Bytes(fetched_bytes_max), ..QueryConfig::default() };
    let cluster = Cluster::with(1, Config { query, ..Config::default() });
    let roots: Vec<Span> = (1..=4).map(|n| root(n, n * 60)).collect();
    cluster.append(0, &roots);
    cluster.shards[0].flush().await.unwrap();
    for (trace, root) in roots.iter().enumerate() {
        let children = if trace == 3 { 20 } else { 1 };
        let children: Vec<Span> = (2..2 + children).map(|n| child(root, n)).collect();
        cluster.append(0, &children);
    }
    cluster.shards[0].flush().await.unwrap();
    cluster
}

#[tokio::test]
async fn split_traces_that_do_not_fit_together_are_judged_apart() {
    // All of them have more bytes of spans than may be fetched in one step, each alone has not.
    let cluster = split_traces(4_000).await;
    let whole = split_traces(1 << 20).await.search("{ name = \"child 2\" }", "").await;
    let found = cluster.search("{ name = \"child 2\" }", "").await;
    assert_eq!(found.partial(), None);
    assert_eq!(found.ids(), ["4", "3", "2", "1"]);
    assert_eq!(found.json()["traces"], whole.json()["traces"]);

    let cluster = split_traces(600).await;
    let found = cluster.search("{ name = \"child 2\" }", "").await;
    assert_eq!(found.ids(), ["3", "2", "1"]);
    assert!(found.partial().unwrap().contains("trace 00000000000000000000000000000004"));
    let reply = cluster.get("/api/traces/4").await;
    assert_eq!(reply.status, 422);
    let reply = cluster.get("/api/v2/traces/4").await;
    assert_eq!(reply.json()["status"], "PARTIAL");
    assert_eq!(cluster.get("/api/traces/3").await.status, 200);
}
