//! Virtual time: tokio's paused clock, which jumps to the next timer when nothing is left to do, seen
//! by each node through a wall clock of its own that may be wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use clew_model::UnixNanos;
use clew_node::Clock;
use clew_node::clock::TimeSource;
use clew_node::cpu::ThreadClock;
use futures::future::BoxFuture;

/// When every simulation begins.
const EPOCH: u64 = 1_800_000_000_000_000_000;

/// How far a node's wall clock is off, in nanoseconds. Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Skew(Arc<AtomicI64>);

impl Skew {
    pub(crate) fn set(&self, nanos: i64) {
        self.0.store(nanos, Ordering::Relaxed);
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The time of one node.
struct NodeTime {
    began: tokio::time::Instant,
    skew: Skew,
}

/// The clock of a node; made inside of the simulation's runtime.
pub(crate) fn clock(began: tokio::time::Instant, skew: Skew) -> Clock {
    Clock::new(NodeTime { began, skew })
}

impl TimeSource for NodeTime {
    fn now_unix(&self) -> UnixNanos {
        let passed = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        UnixNanos((EPOCH + passed).saturating_add_signed(self.skew.get()))
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "where virtual time comes from")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Processor time is real, so it has no place here.
pub(crate) struct NoProcessorTime;

impl ThreadClock for NoProcessorTime {
    fn thread_time(&self) -> Duration {
        Duration::ZERO
    }
}
