//! Blocks divided among queriers: the answers are those of a querier alone, whoever is slow or away.

use std::convert::Infallible;
use std::time::Duration;

use clew_model::ErrorKind;
use clew_node::Problem;
use clew_node::rpc::Channel;
use http::{Request, Response};
use tonic::body::Body;
use tower::service_fn;

use crate::cluster::Cluster;
use crate::spans::{child, root};

const TRACES: u64 = 24;

/// A cluster with that many blocks, some traces in two of them.
async fn filled() -> Cluster {
    let cluster = Cluster::new(2);
    for n in 1..=TRACES {
        let at = usize::from(n % 2 == 0);
        let first = root(n, n * 60);
        cluster.append(at, std::slice::from_ref(&first));
        if n % 5 == 0 {
            cluster.shards[at].flush().await.unwrap();
            cluster.append(at, &[child(&first, 2)]);
        }
        cluster.shards[at].flush().await.unwrap();
    }
    cluster
}

/// Requests that read blocks in every way there is.
const PATHS: [&str; 7] = [
    "/api/search?q=%7B%7D&limit=100",
    "/api/search?q=%7B%7D%20%3E%20%7B%7D",
    "/api/traces/5",
    "/api/traces/6",
    "/api/v2/search/tags",
    "/api/v2/search/tag/resource.service.name/values",
    "/api/search?q=%7Bname%3D%22no%20such%22%7D",
];

/// The answers, without what they say of how they came about.
async fn answers(cluster: &Cluster) -> Vec<serde_json::Value> {
    let mut answers = Vec::new();
    for path in PATHS {
        let reply = cluster.get(path).await;
        assert_eq!(reply.partial(), None, "{path}");
        let mut json = reply.json();
        json.as_object_mut().unwrap().remove("metrics");
        answers.push(json);
    }
    answers
}

fn calls(cluster: &Cluster, result: &str) -> u64 {
    let metrics = cluster.metrics.render().unwrap();
    let name = format!("clew_querier_block_calls_total{{result=\"{result}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
    line.parse().unwrap()
}

/// A querier that fails every call with this problem.
fn failing(kind: ErrorKind) -> Channel {
    Channel::local(service_fn(move |_: Request<Body>| async move {
        let status = tonic::Status::from(Problem::new(kind, "test", "it fails"));
        Ok::<_, Infallible>(status.into_http())
    }))
}

/// A querier of a release that does not know the calls.
fn older() -> Channel {
    Channel::local(service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(tonic::Status::unimplemented("no such method").into_http())
    }))
}

/// A querier that never answers.
fn hanging() -> Channel {
    Channel::local(service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, Infallible>>()
    }))
}

#[tokio::test]
async fn each_block_is_read_by_one_querier_whoever_is_asked() {
    let a = filled().await;
    let (b, c, lonely) = (a.another_querier(), a.another_querier(), a.another_querier());
    a.share_blocks("a", &[("b", b.blocks()), ("c", c.blocks())]);
    b.share_blocks("b", &[("a", a.blocks()), ("c", c.blocks())]);
    c.share_blocks("c", &[("a", a.blocks()), ("b", b.blocks())]);
    let expected = answers(&lonely).await;
    assert_eq!(answers(&a).await, expected);
    assert!(calls(&a, "answered") > 0);
    assert_eq!((calls(&a, "failed"), calls(&a, "overtaken")), (0, 0));

    // Every block is in the cache of its querier by now, so the others need not read any.
    for other in [&b, &c] {
        let reply = other.get(PATHS[0]).await.json();
        let reads = reply["metrics"]["backendReads"].as_u64().unwrap_or(0);
        assert_eq!(reads, 0, "{}", reply["metrics"]);
        assert_eq!(answers(other).await, expected);
    }
}

#[tokio::test]
async fn a_querier_that_fails_is_stood_in_for_and_left_out_for_a_while() {
    let a = filled().await;
    let expected = answers(&a.another_querier()).await;
    for (name, channel) in [
        ("away", failing(ErrorKind::Unavailable)),
        ("busy", failing(ErrorKind::Overloaded)),
        ("broken", failing(ErrorKind::Internal)),
        ("older", older()),
    ] {
        let before = calls(&a, "failed");
        a.share_blocks("a", &[(name, channel)]);
        assert_eq!(answers(&a).await, expected, "{name}");
        assert_eq!(calls(&a, "failed"), before + 1, "{name} was left out after its failure");
        a.time.advance(Duration::from_secs(2));
        assert_eq!(answers(&a).await, expected, "{name}");
        assert_eq!(calls(&a, "failed"), before + 2, "{name} was asked again");
        a.time.advance(Duration::from_millis(1_500));
        assert_eq!(answers(&a).await, expected, "{name}");
        assert_eq!(calls(&a, "failed"), before + 2, "{name} is left out longer the second time");
    }
    assert_eq!(calls(&a, "answered"), 0);
}

/// What comes of `asked` while the clock goes on, slower than the threads that work.
async fn with_time<T>(a: &Cluster, asked: impl Future<Output = T>) -> T {
    let goes_on = async {
        loop {
            std::thread::sleep(Duration::from_millis(2));
            a.time.advance(Duration::from_millis(4));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = asked => outcome,
        () = goes_on => unreachable!("it goes on for ever"),
    }
}

#[tokio::test]
async fn a_querier_that_hangs_is_overtaken_and_left_out() {
    let a = filled().await;
    a.share_blocks("a", &[("b", hanging())]);
    let reply = with_time(&a, a.get(PATHS[0])).await;
    assert_eq!((reply.ids().len() as u64, reply.partial()), (TRACES, None));
    let overtaken = calls(&a, "overtaken");
    assert!(overtaken >= 1);
    // The clock stands still: whoever waited for it now would wait for ever.
    assert_eq!(a.get(PATHS[0]).await.ids().len() as u64, TRACES);
    assert_eq!(calls(&a, "overtaken"), overtaken);
}

#[tokio::test]
async fn queries_that_may_not_be_made_twice_go_on_when_the_querier_is_known_to_hang() {
    let a = filled().await;
    a.share_blocks("a", &[("b", hanging())]);
    // More than the ten that may be made twice at once.
    let queries = futures::future::join_all((0..40).map(|_| a.get(PATHS[0])));
    let replies = with_time(&a, queries).await;
    // However many hung, that was one failure: it is asked again soon.
    let b = a.another_querier();
    a.share_blocks("a", &[("b", b.blocks())]);
    a.time.advance(Duration::from_secs(20));
    a.get(PATHS[0]).await;
    assert!(calls(&a, "answered") > 0);
    assert!(replies.iter().all(|reply| reply.ids().len() as u64 == TRACES));
}

#[tokio::test]
async fn a_damaged_block_is_missing_whoever_reads_it() {
    let cluster = Cluster::new(1);
    for n in 1..=8 {
        cluster.append(0, &[root(n, n * 60)]);
        let damaged = n == 3;
        cluster.shards[0].damages.store(damaged, std::sync::atomic::Ordering::SeqCst);
        cluster.shards[0].flush().await.unwrap();
    }
    // Three shares of four are the other's.
    let other = cluster.another_querier();
    cluster
        .share_blocks("a", &[("b", other.blocks()), ("c", other.blocks()), ("d", other.blocks())]);
    let reply = cluster.search("{}", "").await;
    assert_eq!(reply.ids(), ["8", "7", "6", "5", "4", "2", "1"]);
    assert!(reply.partial().unwrap().contains("block"), "{:?}", reply.partial());
}

#[tokio::test]
async fn a_request_that_is_wrong_is_refused_and_nobody_is_blamed() {
    let a = filled().await;
    let b = a.another_querier();
    a.share_blocks("a", &[("b", b.blocks())]);
    let reply = a.get("/api/search?q=%7B%201%20%2F%200%20%3D%201%20%7D").await;
    let alone = a.another_querier().get("/api/search?q=%7B%201%20%2F%200%20%3D%201%20%7D").await;
    assert_eq!((reply.status, reply.text()), (alone.status, alone.text()));
    assert_eq!(calls(&a, "failed"), 0);
}
