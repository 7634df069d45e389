//! The rate limit of a tenant, measured in decompressed OTLP bytes over a token bucket.
//!
//! A request is taken when the bucket holds its bytes, or is full: one larger than the burst must
//! not be told to come again for ever. It may leave the bucket in debt, so the long-term rate holds.

use std::collections::HashMap;
use std::time::Duration;

use clew_model::TenantId;
use parking_lot::Mutex;

use crate::refusal::Refusal;

/// Buckets kept before full ones, which are as good as new ones, are thrown out.
const BUCKETS_KEPT: usize = 10_000;

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
    tokens: f64,
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
            let burst = self.burst as f64;
            buckets.by_tenant.retain(|_, bucket| self.refilled(bucket, now).tokens < burst);
            buckets.sweep_at = (2 * buckets.by_tenant.len()).max(BUCKETS_KEPT);
        }
        let full = Bucket { tokens: self.burst as f64, at: now };
        let bucket = buckets.by_tenant.entry(tenant.clone()).or_insert(full);
        *bucket = self.refilled(bucket, now);
        let needed = (bytes as f64).min(self.burst as f64);
        if bucket.tokens < needed {
            let seconds = (needed - bucket.tokens) / self.rate as f64;
            let retry_after = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            let (rate, burst) = (self.rate, self.burst);
            return Err(Refusal::RateLimited { rate, burst, bytes, retry_after });
        }
        bucket.tokens -= bytes as f64;
        Ok(())
    }

    fn refilled(&self, bucket: &Bucket, now: Duration) -> Bucket {
        let passed = now.saturating_sub(bucket.at).as_secs_f64();
        let tokens = (bucket.tokens + passed * self.rate as f64).min(self.burst as f64);
        Bucket { tokens, at: now.max(bucket.at) }
    }
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
                    let hint = refused.retry_after().unwrap() + Duration::from_nanos(1);
                    prop_assert!(hint > Duration::from_nanos(1));
                    now += hint;
                    prop_assert_eq!(limit.take(&tenant("a"), bytes, now), Ok(()));
                }
                taken += bytes;
                largest = largest.max(bytes);
            }
            let allowed = 200.0 + (now - START).as_secs_f64() * 50.0 + largest as f64 + 1.0;
            prop_assert!(taken as f64 <= allowed);
        }
    }
}
