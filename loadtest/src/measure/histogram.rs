//! Latencies in buckets whose width grows with the value: any quantile to within 2 %, in constant
//! memory.

use std::time::Duration;

use serde::Serialize;

/// Each power of two is cut into so many buckets.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Counts of durations.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum_nanos: u128,
    max_nanos: u64,
}

/// A histogram in a few numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Summary {
    /// How many durations.
    pub count: u64,
    /// Mean, in milliseconds.
    pub mean_ms: f64,
    /// Median, in milliseconds.
    pub p50_ms: f64,
    /// 90 of 100 are shorter, in milliseconds.
    pub p90_ms: f64,
    /// 99 of 100 are shorter, in milliseconds.
    pub p99_ms: f64,
    /// 999 of 1000 are shorter, in milliseconds.
    pub p999_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = bucket(nanos);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.sum_nanos += u128::from(nanos);
        self.max_nanos = self.max_nanos.max(nanos);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The duration that `fraction` of all do not exceed; zero when there are none.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a fraction of a count"
    )]
    pub fn quantile(&self, fraction: f64) -> Duration {
        let wanted = ((self.count as f64 * fraction).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper_bound(bucket).min(self.max_nanos));
            }
        }
        Duration::ZERO
    }

    /// The histogram in a few numbers.
    pub fn summary(&self) -> Summary {
        let at = |fraction| millis(self.quantile(fraction));
        let mean = self.sum_nanos as f64 / self.count.max(1) as f64;
        Summary {
            count: self.count,
            mean_ms: mean / 1e6,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: self.max_nanos as f64 / 1e6,
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[allow(clippy::cast_possible_truncation, reason = "there are under 4,000 buckets")]
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEP_BITS;
    (u64::from(shift) * STEPS + (nanos >> shift)) as usize
}

/// The largest value that falls into `bucket`.
fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let first = (bucket - shift * STEPS) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_is_at_most_two_percent_below_its_bucket(nanos: u64) {
            let bound = upper_bound(bucket(nanos));
            prop_assert!(bound >= nanos);
            prop_assert!(bound - nanos <= nanos / STEPS + 1);
            prop_assert!(bucket(bound) == bucket(nanos));
        }

        #[test]
        fn larger_values_have_later_buckets(a: u64, b: u64) {
            prop_assert!(a > b || bucket(a) <= bucket(b));
        }
    }

    #[test]
    fn quantiles_of_a_thousand() {
        let mut histogram = Histogram::default();
        for millis in 1..=1000 {
            histogram.record(Duration::from_millis(millis));
        }
        let summary = histogram.summary();
        assert_eq!((summary.count, summary.max_ms), (1000, 1000.0));
        for (found, wanted) in
            [(summary.p50_ms, 500.0), (summary.p90_ms, 900.0), (summary.p99_ms, 990.0)]
        {
            assert!((found / wanted - 1.0).abs() < 0.02, "{found} instead of {wanted}");
        }
        assert_eq!(Histogram::default().summary(), Summary::default());
    }
}
