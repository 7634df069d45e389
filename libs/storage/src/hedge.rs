//! Asking a second time when a read takes long: the first good answer wins.
//!
//! A few requests of an object store take many times as long as most, for reasons of their own: a
//! second one is nearly always quicker than the rest of the first. This is the hedged request of
//! Dean and Barroso, "The Tail at Scale" (Communications of the ACM 56:2, 2013). A budget bounds what
//! it costs: when everything is slow, asking twice makes it slower.

use std::pin::pin;
use std::time::Duration;

use clew_node::Clock;
use futures::future::{Either, select};

use crate::budget::Budget;
use crate::error::Error;
use crate::metrics::{ExtraRead, StorageMetrics};

/// Second requests that can be saved up: so many at once are made after a quiet time.
const HEDGES_SAVED_MAX: u32 = 20;

/// The transfer that is waited for besides the delay, in bytes per second: a long read is not slow.
const BYTES_PER_SECOND: u64 = 16 << 20;

/// Makes second requests. Clones share the budget.
#[derive(Debug, Clone)]
pub(crate) struct Hedger {
    after: Duration,
    clock: Clock,
    budget: Budget,
    metrics: StorageMetrics,
}

impl Hedger {
    /// One that asks again after `after`, and the time that the bytes need.
    pub(crate) fn new(after: Duration, clock: Clock, metrics: StorageMetrics) -> Hedger {
        Hedger { after, clock, budget: Budget::of(HEDGES_SAVED_MAX), metrics }
    }

    /// The answer of `read`, which is asked a second time if it takes long. A failure that may pass
    /// waits for the other request; any other is the store's answer.
    pub(crate) async fn run<T, F>(&self, bytes: u64, read: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.budget.earn();
        let transfer = Duration::from_millis(bytes.saturating_mul(1_000) / BYTES_PER_SECOND);
        let patience = self.after.saturating_add(transfer);
        let mut first = pin!(read());
        if let Some(result) = self.clock.timeout(patience, first.as_mut()).await {
            return result;
        }
        if !self.budget.spend() {
            self.metrics.hedge("refused");
            return first.await;
        }
        // From here on there is one request more than the caller counts.
        let mut extra = ExtraRead::of(&self.metrics);
        let second = pin!(read());
        let (result, is_second) = match select(first, second).await {
            Either::Left((Err(error), second)) if error.is_transient() => {
                extra.failed(&error);
                (second.await, true)
            }
            Either::Right((Err(error), first)) if error.is_transient() => {
                extra.failed(&error);
                (first.await, false)
            }
            Either::Left((result, _)) => (result, false),
            Either::Right((result, _)) => (result, true),
        };
        self.metrics.hedge(if is_second && result.is_ok() { "won" } else { "lost" });
        result
    }
}
