//! Repeating what may succeed the next time, within limits: attempts, time, and a budget shared by
//! all requests of a bucket, so that a store in trouble is not given more to do.

use std::time::Duration;

use clew_node::{Clock, Rng};

use crate::budget::Budget;
use crate::error::{Error, Operation};
use crate::metrics::StorageMetrics;

/// How patient a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a request is tried in all, at least once.
    pub attempts_max: u32,
    /// The delay before the second attempt; it doubles from there. Half of each delay is random.
    pub delay_first: Duration,
    /// The longest delay.
    pub delay_max: Duration,
    /// How long one attempt may take, besides the time its bytes need.
    pub attempt_time_max: Duration,
    /// The slowest transfer that is waited for, in bytes per second.
    pub bytes_per_second_min: u64,
    /// How long all attempts of a request may take together.
    pub request_time_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            attempts_max: 5,
            delay_first: Duration::from_millis(50),
            delay_max: Duration::from_secs(5),
            attempt_time_max: Duration::from_secs(15),
            bytes_per_second_min: 1 << 20,
            request_time_max: Duration::from_secs(300),
        }
    }
}

/// Bursts of failures of this many retries are ridden out.
const RETRIES_SAVED_MAX: u32 = 50;

/// Runs attempts under a policy.
#[derive(Debug, Clone)]
pub(crate) struct Retrier {
    pub(crate) policy: RetryPolicy,
    pub(crate) clock: Clock,
    rng: Rng,
    budget: Budget,
    metrics: StorageMetrics,
}

impl Retrier {
    pub(crate) fn new(
        policy: RetryPolicy,
        clock: Clock,
        rng: Rng,
        metrics: StorageMetrics,
    ) -> Retrier {
        Retrier { policy, clock, rng, budget: Budget::of(RETRIES_SAVED_MAX), metrics }
    }

    /// The first success of `attempt`, or the last failure. `bytes` is what is to be transferred;
    /// `measure` tells how many bytes a success transferred.
    pub(crate) async fn run<T, F, A>(
        &self,
        operation: Operation,
        key: &str,
        bytes: u64,
        measure: impl Fn(&T) -> u64,
        attempt: A,
    ) -> Result<T, Error>
    where
        A: Fn() -> F,
        F: Future<Output = Result<T, Error>>,
    {
        let started = self.clock.monotonic();
        let deadline = started.saturating_add(self.policy.request_time_max);
        let transfer = Duration::from_secs(bytes / self.policy.bytes_per_second_min.max(1));
        let limit = self.policy.attempt_time_max.saturating_add(transfer);
        let mut delay = self.policy.delay_first;
        for count in 1.. {
            let begun = self.clock.monotonic();
            let limit = limit.min(deadline.saturating_sub(begun));
            let result = self.clock.timeout(limit, attempt()).await.unwrap_or_else(|| {
                Err(Error::unavailable(operation, key, format!("no answer within {limit:?}")))
            });
            let now = self.clock.monotonic();
            self.metrics.attempt(operation, now.saturating_sub(begun), &result, &measure);
            let error = match result {
                Ok(value) => {
                    self.budget.earn();
                    return Ok(value);
                }
                Err(error) => error,
            };
            let pause = self.jitter(delay);
            let again = error.is_transient()
                && count < self.policy.attempts_max
                && now.saturating_add(pause) < deadline
                && self.budget.spend();
            if !again {
                return Err(error);
            }
            tracing::debug!(%operation, key, %error, attempt = count, "retrying a storage request");
            self.clock.sleep(pause).await;
            delay = delay.saturating_mul(2).min(self.policy.delay_max);
        }
        Err(Error::unavailable(operation, key, "no attempt was made"))
    }

    /// Half of the delay, and a random part of the other half.
    fn jitter(&self, delay: Duration) -> Duration {
        let half = delay / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.rng.below(nanos.saturating_add(1)))
    }
}
