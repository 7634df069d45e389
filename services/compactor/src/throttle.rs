//! Keeps a job from taking the processor away from ingest and queries: after every piece of work it
//! rests long enough that it uses no more than its share.

use std::time::Duration;

use clew_node::Clock;

/// A job's share of a core.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    clock: Clock,
    share: f64,
}

impl Throttle {
    pub(crate) fn new(clock: Clock, share: f64) -> Throttle {
        Throttle { clock, share }
    }

    /// How long to rest after so much work.
    fn rest(&self, worked: Duration) -> Duration {
        let ratio = (1.0 - self.share) / self.share;
        worked.mul_f64(ratio.clamp(0.0, 1_000.0))
    }

    /// Does a piece of work, then rests.
    pub(crate) async fn paced<T>(&self, work: impl Future<Output = T>) -> T {
        let began = self.clock.monotonic();
        let output = work.await;
        let worked = self.clock.monotonic().saturating_sub(began);
        let rest = self.rest(worked);
        if !rest.is_zero() {
            self.clock.sleep(rest).await;
        }
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_keeps_the_share() {
        let rest = |share| Throttle::new(Clock::system(), share).rest(Duration::from_millis(100));
        assert_eq!(rest(1.0), Duration::ZERO);
        assert_eq!(rest(0.5), Duration::from_millis(100));
        assert_eq!(rest(0.25), Duration::from_millis(300));
    }
}
