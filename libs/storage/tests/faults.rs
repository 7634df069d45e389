//! What a bucket makes of a store that misbehaves.
#![cfg(feature = "test-support")]
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::time::Duration;

use bytes::Bytes;
use clew_model::{ErrorKind, UnixNanos};
use clew_node::clock::ManualTime;
use clew_node::{Deps, Rng};
use clew_storage::faults::{Fault, FaultPlan};
use clew_storage::{Bucket, Operation, Put, RetryPolicy};
use futures::TryStreamExt;

const KEY: &str = "flush/object.clew";

struct World {
    time: ManualTime,
    deps: Deps,
    plan: FaultPlan,
    bucket: Bucket,
}

fn world() -> World {
    let time = ManualTime::at(UnixNanos(1));
    let deps = Deps { clock: time.clock(), rng: Rng::seeded(1), ..Deps::system(1) };
    let plan = FaultPlan::new();
    let bucket = Bucket::memory(&deps).with_faults(&plan, &deps.clock);
    World { time, deps, plan, bucket }
}

impl World {
    /// Runs `future` while time passes quickly; fails when an hour of it was not enough.
    async fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        for _ in 0..360_000 {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = tokio::task::yield_now() => self.time.advance(Duration::from_millis(10)),
            }
        }
        panic!("an hour passed");
    }

    fn metric(&self, line: &str) -> bool {
        self.deps.metrics.render().unwrap().lines().any(|l| l == line)
    }
}

fn body() -> Bytes {
    Bytes::from_static(b"all the spans of a flush")
}

#[tokio::test]
async fn a_put_of_unknown_outcome_is_repeated_and_found() {
    let world = world();
    world.plan.inject(Operation::Put, Fault::FailBefore);
    world.plan.inject(Operation::Put, Fault::FailAfter);
    let put = world.run(world.bucket.put_new(KEY, body())).await.unwrap();
    assert_eq!(put, Put::AlreadyExists);
    assert_eq!(world.plan.pending(), 0);
    assert_eq!(world.run(world.bucket.head(KEY)).await.unwrap(), body().len() as u64);
    let requests = "clew_storage_requests_total{operation=\"put\",outcome=";
    assert!(world.metric(&format!("{requests}\"unavailable\"}} 2")));
    assert!(world.metric(&format!("{requests}\"ok\"}} 1")));
}

#[tokio::test]
async fn patience_ends() {
    let world = world();
    for _ in 0..6 {
        world.plan.inject(Operation::Head, Fault::FailBefore);
    }
    let error = world.run(world.bucket.head(KEY)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(world.plan.pending(), 1, "five attempts were made");
}

#[tokio::test]
async fn what_cannot_get_better_is_not_repeated() {
    let world = world();
    let error = world.bucket.head(KEY).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    world.plan.inject(Operation::Get, Fault::Deny);
    world.plan.inject(Operation::Get, Fault::Deny);
    let error = world.bucket.get_range(KEY, 0..1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(world.plan.pending(), 1);
}

#[tokio::test]
async fn a_short_read_is_repeated_and_never_returned() {
    let world = world();
    world.run(world.bucket.put_new(KEY, body())).await.unwrap();
    world.plan.inject(Operation::Get, Fault::Truncate(3));
    world.plan.inject(Operation::Get, Fault::Truncate(0));
    assert_eq!(world.run(world.bucket.get_range(KEY, 0..5)).await.unwrap(), body().slice(..5));
    for _ in 0..5 {
        world.plan.inject(Operation::Get, Fault::Truncate(3));
    }
    let error = world.run(world.bucket.get_tail(KEY, 5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(
        error.to_string(),
        "the object is cut off in transfer: flush/object.clew, 3 of 5 bytes"
    );
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_asked_again() {
    let world = world();
    world.run(world.bucket.put_new(KEY, body())).await.unwrap();
    world.plan.inject(Operation::Get, Fault::Stall(Duration::from_secs(1_000)));
    assert_eq!(world.run(world.bucket.get_range(KEY, 0..5)).await.unwrap(), body().slice(..5));
    world.plan.inject(Operation::Get, Fault::Stall(Duration::from_secs(1)));
    world.run(world.bucket.get_range(KEY, 0..5)).await.unwrap();
    assert!(
        world.metric("clew_storage_requests_total{operation=\"get\",outcome=\"unavailable\"} 1")
    );
}

#[tokio::test]
async fn a_request_ends_with_its_deadline() {
    let world = world();
    let policy = RetryPolicy {
        attempts_max: u32::MAX,
        request_time_max: Duration::from_secs(40),
        ..RetryPolicy::default()
    };
    let bucket = world.bucket.clone().with_retry_policy(policy);
    for _ in 0..10 {
        world.plan.inject(Operation::Delete, Fault::Stall(Duration::from_secs(1_000)));
    }
    let started = world.deps.clock.monotonic();
    let error = world.run(bucket.delete(KEY)).await.unwrap_err();
    let took = world.deps.clock.monotonic() - started;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(took >= Duration::from_secs(39) && took < Duration::from_secs(42), "{took:?}");
}

#[tokio::test]
async fn the_retry_budget_runs_out_and_recovers() {
    let world = world();
    let policy = RetryPolicy { attempts_max: u32::MAX, ..RetryPolicy::default() };
    let bucket = world.bucket.clone().with_retry_policy(policy);
    let flood = 200;
    for _ in 0..flood {
        world.plan.inject(Operation::Head, Fault::FailBefore);
    }
    let mut requests = 0;
    while world.plan.pending() > 0 {
        let result = world.run(bucket.head(KEY)).await;
        assert!(result.is_err());
        requests += 1;
    }
    assert!(requests >= flood - 50 - 1, "{requests} requests made {flood} attempts");
    world.run(bucket.put_new(KEY, body())).await.unwrap();
    for _ in 0..10 {
        world.run(bucket.head(KEY)).await.unwrap();
    }
    world.plan.inject(Operation::Head, Fault::FailBefore);
    world.run(bucket.head(KEY)).await.unwrap();
}

#[tokio::test]
async fn a_listing_that_breaks_says_so() {
    let world = world();
    world.run(world.bucket.put_new(KEY, body())).await.unwrap();
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        world.plan.inject(Operation::List, fault);
        let listed: Result<Vec<_>, _> = world.bucket.list("").try_collect().await;
        assert_eq!(listed.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    let listed: Vec<_> = world.bucket.list("flush").try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    let requests = "clew_storage_requests_total{operation=\"list\",outcome=";
    assert!(world.metric(&format!("{requests}\"unavailable\"}} 2")));
    assert!(world.metric(&format!("{requests}\"ok\"}} 1")));
}

#[tokio::test]
async fn garbled_bytes_pass_through_for_checksums_to_find() {
    let world = world();
    world.run(world.bucket.put_new(KEY, body())).await.unwrap();
    world.plan.inject(Operation::Get, Fault::Garble);
    let garbled = world.bucket.get_range(KEY, 0..5).await.unwrap();
    assert_ne!(garbled, body().slice(..5));
    assert_eq!(garbled.len(), 5);
}
