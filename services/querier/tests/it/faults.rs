//! Flushes in the middle of a query, shards and metastores that are away, damaged blocks: answers
//! stay exact, or say what they miss.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use clew_model::TenantId;
use clew_node::config::Span as Wait;
use clew_querier::Config;
use serde_json::json;

use crate::cluster::Cluster;
use crate::spans::{Span, child, root};

/// Traces 1 to `count`, a minute apart, trace n on shard n modulo the number of shards.
fn fill(cluster: &Cluster, count: u64) {
    for n in 1..=count {
        let at = usize::try_from(n).unwrap() % cluster.shards.len();
        cluster.append(at, &[root(n, n * 60)]);
    }
}

async fn span_count(cluster: &Cluster, trace: u64) -> usize {
    let reply = cluster.get(&format!("/api/traces/{trace}")).await;
    let Some(batches) = reply.json()["batches"].as_array().cloned() else { return 0 };
    let spans =
        |batch: &serde_json::Value| batch["scopeSpans"][0]["spans"].as_array().unwrap().len();
    batches.iter().map(spans).sum()
}

#[tokio::test]
async fn a_query_spans_blocks_and_heads_without_gap_or_double() {
    let cluster = Cluster::new(1);
    for n in 1..=6 {
        cluster.append(0, &[root(n, n * 60)]);
        if n % 2 == 0 {
            cluster.shards[0].flush().await.unwrap();
        }
    }
    cluster.append(0, &[root(7, 420)]);
    assert_eq!(cluster.search("{}", "").await.ids(), ["7", "6", "5", "4", "3", "2", "1"]);
    assert_eq!(cluster.search("{}", "&limit=3").await.ids(), ["7", "6", "5"]);
}

#[tokio::test]
async fn views_are_sent_only_when_they_changed() {
    let cluster = Cluster::new(1);
    fill(&cluster, 2);
    for _ in 0..3 {
        assert_eq!(cluster.search("{}", "").await.ids(), ["2", "1"]);
    }
    assert_eq!(cluster.metastore.whole_views.load(SeqCst), 1);
    cluster.shards[0].flush().await.unwrap();
    for _ in 0..3 {
        assert_eq!(cluster.search("{}", "").await.ids(), ["2", "1"]);
    }
    assert_eq!(cluster.metastore.whole_views.load(SeqCst), 2);
}

#[tokio::test]
async fn a_flush_between_view_and_cut_is_followed() {
    let cluster = Cluster::new(2);
    fill(&cluster, 4);
    cluster.shards[0].flushes_before_cut.store(1, SeqCst);
    let reply = cluster.search("{}", "").await;
    assert_eq!(reply.ids(), ["4", "3", "2", "1"]);
    assert_eq!(reply.partial(), None);
    // The objects came with the answer; the view was not taken again.
    assert_eq!(cluster.metastore.whole_views.load(SeqCst), 1);
}

#[tokio::test]
async fn a_leader_that_forgot_its_flushes_makes_the_query_take_a_new_view() {
    let cluster = Cluster::new(2);
    fill(&cluster, 4);
    cluster.shards[0].recent_max.store(0, SeqCst);
    cluster.shards[0].flushes_before_cut.store(1, SeqCst);
    let reply = cluster.search("{}", "").await;
    assert_eq!((reply.ids().len(), reply.partial()), (4, None));
    assert_eq!(cluster.metastore.whole_views.load(SeqCst), 2);
}

#[tokio::test]
async fn a_flush_between_cut_and_read_starts_the_query_again() {
    for remembered in [0, 64] {
        let cluster = Cluster::new(2);
        fill(&cluster, 4);
        for shard in &cluster.shards {
            shard.recent_max.store(remembered, SeqCst);
            shard.flushes_before_read.store(1, SeqCst);
        }
        let reply = cluster.search("{}", "").await;
        assert_eq!(reply.ids(), ["4", "3", "2", "1"]);
        assert_eq!(reply.partial(), None);
        let metrics = cluster.metrics.render().unwrap();
        assert!(!metrics.contains("clew_querier_restarts_total 0"), "{metrics}");
        cluster.append(0, &[child(&root(4, 240), 2)]);
        cluster.shards[0].flushes_before_read.store(1, SeqCst);
        assert_eq!(span_count(&cluster, 4).await, 2);
        cluster.append(0, &[root(5, 300)]);
        cluster.shards[0].flushes_before_read.store(1, SeqCst);
        let values = cluster.get("/api/search/tag/service.name/values").await;
        assert_eq!(values.json()["tagValues"], json!(["db", "shop"]));
    }
}

#[tokio::test]
async fn a_shard_that_never_stands_still_is_missing_in_the_end() {
    let cluster = Cluster::new(1);
    fill(&cluster, 1);
    // Something to flush before every read, for ever.
    cluster.shards[0].flushes_before_read.store(usize::MAX, SeqCst);
    cluster.shards[0].grows.store(true, SeqCst);
    let reply = cluster.search("{}", "").await;
    assert!(reply.partial().unwrap().contains("shard 0"), "{:?}", reply.partial());
    assert_eq!(reply.json()["status"], "PARTIAL");
}

#[tokio::test]
async fn split_traces_are_judged_whole() {
    let cluster = Cluster::new(2);
    let parent = root(1, 60);
    cluster.append(0, std::slice::from_ref(&parent));
    cluster.shards[0].flush().await.unwrap();
    cluster.append(0, &[child(&parent, 2), parent.clone()]);
    cluster.shards[0].flush().await.unwrap();
    cluster.shards[1].append(&TenantId::single(), &[child(&parent, 3)], true);
    cluster.append(0, &[child(&parent, 4)]);
    cluster.append(0, &[root(2, 120)]);
    let reply = cluster.search("{ kind = client }", "&spss=10").await;
    assert_eq!(reply.ids(), ["1"]);
    let trace = &reply.json()["traces"][0];
    assert_eq!(trace["spanSet"]["matched"], 3);
    assert_eq!(trace["rootTraceName"], "GET /1");
    assert_eq!(trace["serviceStats"], json!({"db": {"spanCount": 3}, "shop": {"spanCount": 1}}));
    assert_eq!(cluster.search("{ kind = server }", "").await.ids(), ["2", "1"]);
    assert_eq!(cluster.search("{ kind = server }", "&limit=1").await.ids(), ["2"]);
    // A condition on the whole trace, and one on each side of it.
    let query = "{ rootName = \"GET /1\" && name = \"child 3\" }";
    assert_eq!(cluster.search(query, "").await.ids(), ["1"]);
    assert_eq!(span_count(&cluster, 1).await, 4);
}

#[tokio::test]
async fn a_split_trace_is_found_where_only_another_fragment_is_in_range() {
    let cluster = Cluster::new(1);
    let parent = root(1, 10_000);
    let late = Span { start: parent.start + 1_800 * 1_000_000_000, ..child(&parent, 2) };
    let late = Span { end: late.start + 1_000_000_000, ..late };
    cluster.append(0, &[parent]);
    cluster.shards[0].flush().await.unwrap();
    cluster.append(0, &[late]);
    cluster.shards[0].flush().await.unwrap();
    // The root matches, but only the late child is in the range.
    let range = "&start=11790&end=11900";
    assert_eq!(cluster.search("{ kind = server }", range).await.ids(), ["1"]);
    assert_eq!(cluster.search("{ kind = client }", "&start=9990&end=10001").await.ids(), ["1"]);
    assert_eq!(cluster.search("{ kind = server }", "&start=12000&end=12100").await.ids(), [""; 0]);
}

#[tokio::test]
async fn a_shard_without_a_leader_is_named() {
    let cluster = Cluster::new(2);
    fill(&cluster, 4);
    cluster.shards[0].flush().await.unwrap();
    cluster.shards[0].away.store(true, SeqCst);
    let reply = cluster.search("{}", "").await;
    // Its blocks are still read.
    assert_eq!(reply.ids(), ["4", "3", "2", "1"]);
    assert!(reply.partial().unwrap().contains("shard 0: not the leader"), "{:?}", reply.partial());
    assert_eq!(reply.json()["status"], "PARTIAL");
    assert!(reply.json()["message"].as_str().unwrap().contains("shard 0"));
    let found = cluster.get("/api/v2/traces/1").await;
    assert_eq!(found.json()["status"], "PARTIAL");
    assert!(found.partial().is_some());
    assert_eq!(cluster.get("/api/traces/1").await.status, 200);
    // Version 1 cannot say in its body that it may be elsewhere.
    let unknown = cluster.get("/api/traces/99").await;
    assert_eq!(unknown.status, 503);
    assert_eq!(unknown.headers["retry-after"], "1");
    let tags = cluster.get("/api/v2/search/tags").await;
    assert!(tags.partial().is_some() && tags.json()["status"] == "PARTIAL");
    let metrics = cluster.metrics.render().unwrap();
    assert!(metrics.contains("clew_querier_partial_total{reason=\"shard\"}"), "{metrics}");
}

#[tokio::test]
async fn a_new_leader_is_waited_for() {
    let cluster = Cluster::waiting(1, Config::default(), Duration::from_secs(3));
    fill(&cluster, 1);
    cluster.shards[0].away.store(true, SeqCst);
    let reply = cluster.search("{}", "");
    tokio::pin!(reply);
    for _ in 0..20 {
        assert!(futures::poll!(&mut reply).is_pending());
        cluster.time.advance(Duration::from_millis(100));
    }
    cluster.shards[0].away.store(false, SeqCst);
    let reply = loop {
        if let std::task::Poll::Ready(reply) = futures::poll!(&mut reply) {
            break reply;
        }
        cluster.time.advance(Duration::from_millis(1));
        tokio::task::yield_now().await;
    };
    assert_eq!((reply.ids().len(), reply.partial()), (1, None));
}

#[tokio::test]
async fn nothing_readable_is_a_503() {
    let cluster = Cluster::new(2);
    fill(&cluster, 2);
    for shard in &cluster.shards {
        shard.away.store(true, SeqCst);
    }
    for path in ["/api/search", "/api/traces/1", "/api/v2/traces/1", "/api/v2/search/tags"] {
        let reply = cluster.get(path).await;
        assert_eq!(reply.status, 503, "{path}");
        assert_eq!(reply.headers["retry-after"], "1", "{path}");
        assert!(reply.text().contains("shard 0"), "{}", reply.text());
    }
}

#[tokio::test]
async fn without_a_metastore_the_last_view_serves() {
    let config = Config { view_age_max: Wait::seconds(600), ..Config::default() };
    let cluster = Cluster::with(1, config);
    cluster.metastore.away.store(true, SeqCst);
    assert_eq!(cluster.get("/api/search").await.status, 503);
    cluster.metastore.away.store(false, SeqCst);
    fill(&cluster, 1);
    assert_eq!(cluster.search("{}", "").await.ids(), ["1"]);
    fill(&cluster, 2);
    cluster.shards[0].flush().await.unwrap();
    cluster.metastore.away.store(true, SeqCst);
    let reply = cluster.search("{}", "").await;
    // The leader names the objects that the old view lacks.
    assert_eq!(reply.ids(), ["2", "1"]);
    assert!(reply.partial().unwrap().contains("metastore: no leader"), "{:?}", reply.partial());
    cluster.time.advance(Duration::from_secs(601));
    let reply = cluster.search("{}", "").await;
    assert_eq!(reply.status, 503);
    cluster.metastore.away.store(false, SeqCst);
    assert_eq!(cluster.search("{}", "").await.partial(), None);
}

#[tokio::test]
async fn a_damaged_block_is_named_and_quarantined() {
    let cluster = Cluster::new(2);
    cluster.start();
    fill(&cluster, 4);
    cluster.shards[1].damages.store(true, SeqCst);
    for shard in &cluster.shards {
        shard.flush().await.unwrap();
    }
    let reply = cluster.search("{}", "").await;
    assert_eq!(reply.ids(), ["4", "2"]);
    assert!(reply.partial().unwrap().contains("block flush/00001/"), "{:?}", reply.partial());
    let found = cluster.get("/api/v2/traces/2").await;
    assert_eq!(found.json()["status"], "PARTIAL");
    for _ in 0..100_000 {
        if cluster.quarantined() == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(cluster.quarantined(), 1);
    let reply = cluster.search("{}", "").await;
    assert_eq!(reply.ids(), ["4", "2"]);
    assert!(reply.partial().unwrap().contains("quarantined"), "{:?}", reply.partial());
    let elsewhere = cluster.search("{}", "&start=1&end=2").await;
    assert_eq!(elsewhere.partial(), None, "a time it has no spans of misses nothing");
    let metrics = cluster.metrics.render().unwrap();
    assert!(metrics.contains("clew_querier_damaged_blocks_total 1"), "{metrics}");
    cluster.stop.stop();
    cluster.tasks.finish().await;
}

#[tokio::test]
async fn an_object_that_is_gone_is_named_but_not_quarantined() {
    let cluster = Cluster::new(2);
    fill(&cluster, 4);
    let object = cluster.shards[1].flush().await.unwrap();
    cluster.bucket.delete(&object.key.to_string()).await.unwrap();
    let reply = cluster.search("{}", "").await;
    assert_eq!(reply.ids(), ["4", "2"]);
    assert!(reply.partial().unwrap().contains("block flush/00001/"), "{:?}", reply.partial());
    assert_eq!(cluster.quarantined(), 0);
}
