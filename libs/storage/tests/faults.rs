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
async fn what_a_store_says_to_have_is_looked_for() {
    let world = world();
    world.plan.inject(Operation::Put, Fault::Forget);
    let error = world.run(world.bucket.put_new(KEY, body())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().ends_with("it took the object and has none"), "{error}");
    // Again, as whoever flushes does.
    assert_eq!(world.run(world.bucket.put_new(KEY, body())).await.unwrap(), Put::Created);
    // Who may only write has to believe it.
    world.plan.inject(Operation::Head, Fault::Deny);
    let put = world.run(world.bucket.put_new("flush/other.clew", body())).await.unwrap();
    assert_eq!((put, world.plan.pending()), (Put::Created, 0));
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
    assert_eq!(error.kind(), ErrorKind::Unavailable, "nothing is said against the object");
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

/// What reads are made a second time after, in the tests below.
const HEDGE_AFTER: Duration = Duration::from_millis(500);

impl World {
    /// Reads the first bytes of the object with second requests; gives how long it took.
    async fn hedged_read(&self) -> (Result<Bytes, ErrorKind>, Duration) {
        let bucket = self.bucket.clone().with_hedging(HEDGE_AFTER);
        let begun = self.deps.clock.monotonic();
        let read = self.run(bucket.get_range(KEY, 0..5)).await;
        assert_eq!(self.plan.pending(), 0);
        (read.map_err(|error| error.kind()), self.deps.clock.monotonic() - begun)
    }

    fn reads(&self, outcome: &str, count: u32) -> bool {
        let name = "clew_storage_requests_total";
        self.metric(&format!("{name}{{operation=\"get\",outcome=\"{outcome}\"}} {count}"))
    }

    fn hedges(&self, outcome: &str, count: u32) -> bool {
        self.metric(&format!("clew_storage_hedges_total{{outcome=\"{outcome}\"}} {count}"))
    }
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[tokio::test]
async fn a_slow_read_is_made_a_second_time() {
    let world = world();
    world.run(world.bucket.put_new(KEY, body())).await.unwrap();
    world.plan.inject(Operation::Get, Fault::Stall(Duration::from_secs(10)));
    let (read, took) = world.hedged_read().await;
    assert_eq!(read, Ok(body().slice(..5)));
    assert!(took >= HEDGE_AFTER && took < millis(600), "{took:?}");
    assert!(world.hedges("won", 1) && world.reads("ok", 1) && world.reads("cancelled", 1));
}

#[tokio::test]
async fn the_first_request_may_still_win() {
    let world = world();
    world.run(world.bucket.put_new(KEY, body())).await.unwrap();
    world.plan.inject(Operation::Get, Fault::Stall(millis(700)));
    world.plan.inject(Operation::Get, Fault::Stall(Duration::from_secs(10)));
    let (read, took) = world.hedged_read().await;
    assert_eq!(read, Ok(body().slice(..5)));
    assert!(took >= millis(700) && took < millis(800), "{took:?}");
    assert!(world.hedges("lost", 1) && world.reads("ok", 1) && world.reads("cancelled", 1));
}

#[tokio::test]
async fn a_bad_answer_does_not_win() {
    for (fault, outcome) in
        [(Fault::FailBefore, "unavailable"), (Fault::Truncate(3), "unavailable")]
    {
        let world = world();
        world.run(world.bucket.put_new(KEY, body())).await.unwrap();
        world.plan.inject(Operation::Get, Fault::Stall(millis(700)));
        world.plan.inject(Operation::Get, fault);
        let (read, took) = world.hedged_read().await;
        assert_eq!(read, Ok(body().slice(..5)));
        assert!(took >= millis(700) && took < millis(800), "{took:?}");
        assert!(world.hedges("lost", 1) && world.reads("ok", 1) && world.reads(outcome, 1));
    }
}

#[tokio::test]
async fn that_there_is_no_object_is_an_answer() {
    let world = world();
    world.plan.inject(Operation::Get, Fault::Stall(Duration::from_secs(10)));
    let (read, took) = world.hedged_read().await;
    assert_eq!(read, Err(ErrorKind::NotFound));
    assert!(took >= HEDGE_AFTER && took < millis(600), "{took:?}");
}

#[tokio::test]
async fn two_requests_without_an_answer_are_one_failed_attempt() {
    let world = world();
    world.run(world.bucket.put_new(KEY, body())).await.unwrap();
    for _ in 0..2 {
        world.plan.inject(Operation::Get, Fault::Stall(Duration::from_secs(1_000)));
    }
    let (read, _) = world.hedged_read().await;
    assert_eq!(read, Ok(body().slice(..5)));
    assert!(world.reads("unavailable", 1) && world.reads("cancelled", 1) && world.reads("ok", 1));
}

#[tokio::test]
async fn a_long_read_is_given_the_time_of_its_bytes() {
    let world = world();
    let length = 16_u64 << 20;
    let object = Bytes::from(vec![7; 16 << 20]);
    world.run(world.bucket.put_new(KEY, object.clone())).await.unwrap();
    let bucket = world.bucket.clone().with_hedging(HEDGE_AFTER);
    world.plan.inject(Operation::Get, Fault::Stall(millis(1_400)));
    assert_eq!(world.run(bucket.get_range(KEY, 0..length)).await.unwrap(), object);
    assert!(world.reads("ok", 1) && !world.reads("cancelled", 1));
    world.plan.inject(Operation::Get, Fault::Stall(millis(1_600)));
    assert_eq!(world.run(bucket.get_tail(KEY, length)).await.unwrap().bytes, object);
    assert!(world.hedges("won", 1) && world.reads("ok", 2));
}

#[tokio::test]
async fn a_slow_store_is_asked_a_tenth_more_at_most() {
    let world = world();
    world.run(world.bucket.put_new(KEY, body())).await.unwrap();
    let bucket = world.bucket.clone().with_hedging(HEDGE_AFTER);
    for _ in 0..200 {
        // Every request is slow, the second ones too.
        while world.plan.pending() < 2 {
            world.plan.inject(Operation::Get, Fault::Stall(Duration::from_secs(2)));
        }
        assert_eq!(world.run(bucket.get_range(KEY, 0..5)).await.unwrap(), body().slice(..5));
    }
    // Twenty that were saved up, and one for every ten reads.
    assert!(world.hedges("lost", 39) && world.hedges("refused", 161));
    assert!(world.reads("ok", 200) && world.reads("cancelled", 39));
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
