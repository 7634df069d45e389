//! The rate limit of a tenant, measured in decompressed OTLP bytes over a token bucket.
//!
//! A request is taken when the bucket holds its bytes, or is full: one larger than the burst must
//! not be told to come again for ever. It may leave the bucket in debt, so the long-term rate holds.
//!
//! Tokens are whole billionths of a byte, of which a rate in bytes per second makes whole ones in a
//! nanosecond: who comes back after the time he was told is never refused by a rounding.

use std::collections::HashMap;
use std::time::Duration;

use clew_model::TenantId;
use parking_lot::Mutex;

use crate::refusal::Refusal;

/// Buckets kept before full ones, which are as good as new ones, are thrown out.
const BUCKETS_KEPT: usize = 10_000;

/// Tokens for one byte.
const BYTE: i128 = 1_000_000_000;

/// The buckets of all tenants.
pub(crate) struct RateLimit {
    /// Bytes per second.
    rate: u64,
    /// Bytes in a full bucket.
    burst: u64,
    buckets: Mutex<Buckets>,
}

struct Buckets {
    by_tenant: HashMap<TenantId, Bucket>,
    /// The size at which full ones are thrown out next.
    sweep_at: usize,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: i128,
    at: Duration,
}

impl RateLimit {
    /// `rate` in bytes per second, above 0; `burst` in bytes.
    pub(crate) fn new(rate: u64, burst: u64) -> RateLimit {
        let buckets = Buckets { by_tenant: HashMap::new(), sweep_at: BUCKETS_KEPT };
        RateLimit { rate, burst, buckets: Mutex::new(buckets) }
    }

    /// Takes `bytes` out of the tenant's bucket at the monotonic time `now`.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] with the time until this request fits, if nobody else takes any.
    pub(crate) fn take(
        &self,
        tenant: &TenantId,
        bytes: usize,
        now: Duration,
    ) -> Result<(), Refusal> {
        let mut buckets = self.buckets.lock();
        if buckets.by_tenant.len() >= buckets.sweep_at && !buckets.by_tenant.contains_key(tenant) {
            buckets.by_tenant.retain(|_, bucket| self.refilled(bucket, now).tokens < self.full());
            buckets.sweep_at = (2 * buckets.by_tenant.len()).max(BUCKETS_KEPT);
        }
        let full = Bucket { tokens: self.full(), at: now };
        let bucket = buckets.by_tenant.entry(tenant.clone()).or_insert(full);
        *bucket = self.refilled(bucket, now);
        let asked = tokens(bytes as u64);
        let missing = asked.min(self.full()) - bucket.tokens;
        if missing > 0 {
            let nanos = missing.unsigned_abs().div_ceil(u128::from(self.rate));
            let retry_after = duration_from_nanos(nanos);
            let (rate, burst) = (self.rate, self.burst);
            return Err(Refusal::RateLimited { rate, burst, bytes, retry_after });
        }
        bucket.tokens -= asked;
        Ok(())
    }

    /// The tokens of a full bucket.
    fn full(&self) -> i128 {
        tokens(self.burst)
    }

    fn refilled(&self, bucket: &Bucket, now: Duration) -> Bucket {
        let passed = i128::try_from(now.saturating_sub(bucket.at).as_nanos()).unwrap_or(i128::MAX);
        let gained = passed.saturating_mul(i128::from(self.rate));
        let tokens = bucket.tokens.saturating_add(gained).min(self.full());
        Bucket { tokens, at: now.max(bucket.at) }
    }
}

fn tokens(bytes: u64) -> i128 {
    i128::from(bytes) * BYTE
}

fn duration_from_nanos(nanos: u128) -> Duration {
    let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
    Duration::new(seconds, (nanos % 1_000_000_000) as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    const START: Duration = Duration::from_secs(100);

    #[test]
    fn tenants_do_not_share_a_bucket() {
        let limit = RateLimit::new(10, 100);
        limit.take(&tenant("a"), 100, START).unwrap();
        limit.take(&tenant("b"), 100, START).unwrap();
        let refused = limit.take(&tenant("a"), 50, START).unwrap_err();
        assert_eq!(refused.retry_after(), Some(Duration::from_secs(5)));
        limit.take(&tenant("a"), 50, START + Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn a_request_above_the_burst_passes_when_the_bucket_is_full_and_is_paid_off() {
        let limit = RateLimit::new(10, 100);
        limit.take(&tenant("a"), 300, START).unwrap();
        let refused = limit.take(&tenant("a"), 1, START).unwrap_err();
        assert!(refused.retry_after().unwrap() > Duration::from_secs(20));
        assert!(limit.take(&tenant("a"), 1, START + Duration::from_secs(20)).is_err());
        limit.take(&tenant("a"), 1, START + Duration::from_secs(21)).unwrap();
    }

    #[test]
    fn idle_buckets_are_thrown_out() {
        let limit = RateLimit::new(10, 100);
        for n in 0..BUCKETS_KEPT {
            limit.take(&tenant(&format!("t{n}")), 1, START).unwrap();
        }
        limit.take(&tenant("late"), 1, START + Duration::from_secs(60)).unwrap();
        assert_eq!(limit.buckets.lock().by_tenant.len(), 1);
    }

    #[test]
    fn numbers_at_their_limits_do_no_harm() {
        for (rate, burst) in [(1, u64::MAX), (u64::MAX, 1), (u64::MAX, u64::MAX)] {
            let limit = RateLimit::new(rate, burst);
            limit.take(&tenant("a"), usize::MAX, Duration::ZERO).unwrap();
            limit.take(&tenant("a"), usize::MAX, Duration::MAX).unwrap();
            let refused = limit.take(&tenant("a"), 1, Duration::MAX).unwrap_err();
            assert!(refused.retry_after().unwrap() > Duration::ZERO);
        }
    }

    proptest! {
        #[test]
        fn the_retry_hint_is_true_and_the_rate_holds(
            steps in prop::collection::vec((0u64..5_000, 0usize..400), 1..60),
        ) {
            let limit = RateLimit::new(50, 200);
            let (mut now, mut taken, mut largest) = (START, 0usize, 0usize);
            for (wait_millis, bytes) in steps {
                now += Duration::from_millis(wait_millis);
                if let Err(refused) = limit.take(&tenant("a"), bytes, now) {
                    let hint = refused.retry_after().unwrap();
                    prop_assert!(hint > Duration::ZERO);
                    let early = now + hint - Duration::from_nanos(1);
                    prop_assert!(limit.take(&tenant("a"), bytes, early).is_err());
                    now += hint;
                    prop_assert_eq!(limit.take(&tenant("a"), bytes, now), Ok(()));
                }
                taken += bytes;
                largest = largest.max(bytes);
            }
            let earned = (now - START).as_nanos() * 50 / 1_000_000_000;
            prop_assert!(taken as u128 <= 200 + earned + largest as u128);
        }
    }
}
