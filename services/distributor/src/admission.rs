//! The bound on what ingest holds in memory: requests and bytes in flight, counted as they arrive.
//!
//! Nothing waits here. What does not fit is refused at once with a retry hint, because a queue in
//! front of a full process only adds memory and latency.
//!
//! Requests that were let in wait for one another. By Little's law the wait is the bytes in flight
//! by the bytes finished per second, so the bytes in flight at which nobody else is let in are the
//! rate of the last seconds times the longest wait that is wanted.

use std::sync::Arc;
use std::time::Duration;

use clew_node::Clock;
use parking_lot::Mutex;
use prometheus::IntGauge;

use crate::refusal::Refusal;

/// So many bytes in flight are never too many: a process that was idle does not know its rate.
const QUEUE_BYTES_MIN: u64 = 32 << 20;

/// Whole seconds whose rate is remembered; the best of them counts, so that one pause of a disk
/// does not close the door.
const SECONDS: usize = 8;

/// What may be in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) requests_max: usize,
    pub(crate) bytes_max: u64,
    /// How long requests should at most wait for those before them.
    pub(crate) wait_max: Duration,
    /// The hint for those that are refused.
    pub(crate) retry_after: Duration,
}

/// The requests and bytes in flight of one process.
pub(crate) struct Admission {
    bounds: Bounds,
    clock: Clock,
    used: Mutex<Used>,
    gauge: IntGauge,
}

#[derive(Default)]
struct Used {
    requests: u64,
    bytes: u64,
    pace: Pace,
}

/// Bytes finished in each of the last seconds of the monotonic clock.
#[derive(Default)]
struct Pace {
    second: u64,
    finished: [u64; SECONDS],
}

impl Pace {
    /// Forgets seconds that are too long ago.
    fn advance(&mut self, now: Duration) {
        let second = now.as_secs();
        let passed = usize::try_from(second.saturating_sub(self.second)).unwrap_or(SECONDS);
        for _ in 0..passed.min(SECONDS) {
            self.finished.rotate_right(1);
            self.finished[0] = 0;
        }
        self.second = self.second.max(second);
    }

    fn best(&self) -> u64 {
        self.finished.iter().copied().max().unwrap_or(0)
    }
}

impl Admission {
    /// Limits on both counts. `gauge` shows the bytes.
    pub(crate) fn new(bounds: Bounds, clock: Clock, gauge: IntGauge) -> Arc<Admission> {
        Arc::new(Admission { bounds, clock, used: Mutex::default(), gauge })
    }

    /// Takes in one request that holds no bytes yet.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Hold, Refusal> {
        let mut used = self.used.lock();
        let requests_max = self.bounds.requests_max as u64;
        if used.requests >= requests_max {
            return Err(self.busy("requests", requests_max));
        }
        if used.bytes > QUEUE_BYTES_MIN {
            used.pace.advance(self.clock.monotonic());
            let queue = self.queue_bytes_max(&used.pace);
            if used.bytes > queue {
                return Err(self.busy("bytes", queue));
            }
        }
        used.requests += 1;
        Ok(Hold { admission: self.clone(), bytes: 0, most: 0 })
    }

    fn queue_bytes_max(&self, pace: &Pace) -> u64 {
        let millis = u64::try_from(self.bounds.wait_max.as_millis()).unwrap_or(u64::MAX);
        (pace.best().saturating_mul(millis) / 1_000).max(QUEUE_BYTES_MIN)
    }

    fn busy(&self, what: &'static str, max: u64) -> Refusal {
        Refusal::Busy { what, max, retry_after: self.bounds.retry_after }
    }
}

/// What one request holds; given back when dropped.
pub(crate) struct Hold {
    admission: Arc<Admission>,
    bytes: u64,
    /// The most it ever held.
    most: u64,
}

impl Hold {
    /// Counts `bytes` more.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when they do not fit; what was counted before stays counted.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let (bytes, admission) = (bytes as u64, &self.admission);
        let mut used = admission.used.lock();
        let sum = used.bytes.saturating_add(bytes);
        let bytes_max = admission.bounds.bytes_max;
        if sum > bytes_max {
            return Err(admission.busy("bytes", bytes_max));
        }
        used.bytes = sum;
        self.bytes += bytes;
        self.most = self.most.max(self.bytes);
        admission.gauge.set(i64::try_from(sum).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Gives back up to `bytes` of what was counted.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = (bytes as u64).min(self.bytes);
        let mut used = self.admission.used.lock();
        used.bytes -= bytes;
        self.bytes -= bytes;
        self.admission.gauge.set(i64::try_from(used.bytes).unwrap_or(i64::MAX));
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut used = self.admission.used.lock();
        used.pace.advance(self.admission.clock.monotonic());
        used.pace.finished[0] = used.pace.finished[0].saturating_add(self.most);
        used.requests -= 1;
        used.bytes -= self.bytes;
        self.admission.gauge.set(i64::try_from(used.bytes).unwrap_or(i64::MAX));
    }
}

/// Limits for one request of a test.
#[cfg(test)]
pub(crate) fn alone(bytes_max: u64) -> Arc<Admission> {
    tests::admission(1, bytes_max).0
}

#[cfg(test)]
mod tests {
    use clew_node::clock::ManualTime;

    use super::*;

    pub(super) fn admission(requests_max: usize, bytes_max: u64) -> (Arc<Admission>, ManualTime) {
        let gauge = IntGauge::new("bytes", "bytes").unwrap();
        let time = ManualTime::default();
        let (wait_max, retry_after) = (Duration::from_secs(2), Duration::from_secs(3));
        let bounds = Bounds { requests_max, bytes_max, wait_max, retry_after };
        (Admission::new(bounds, time.clock(), gauge), time)
    }

    #[test]
    fn bytes_are_given_back() {
        let (admission, _time) = admission(2, 10);
        let mut first = admission.enter().unwrap();
        let mut second = admission.enter().unwrap();
        first.grow(6).unwrap();
        let refused = second.grow(5).unwrap_err();
        assert_eq!(refused.retry_after(), Some(Duration::from_secs(3)));
        assert_eq!(admission.gauge.get(), 6);
        second.grow(4).unwrap();
        first.shrink(100);
        second.grow(6).unwrap();
        drop((first, second));
        assert_eq!(admission.gauge.get(), 0);
    }

    #[test]
    fn requests_are_counted() {
        let (admission, _time) = admission(1, 10);
        let first = admission.enter().unwrap();
        assert!(matches!(admission.enter(), Err(Refusal::Busy { what: "requests", .. })));
        drop(first);
        assert!(admission.enter().is_ok());
    }

    #[test]
    fn nobody_is_let_in_behind_more_bytes_than_are_finished_in_time() {
        const MEBI: usize = 1 << 20;
        let (admission, time) = admission(100, 1 << 30);
        let queue = |mebi: usize| {
            let mut hold = admission.enter().unwrap();
            hold.grow(mebi * MEBI).unwrap();
            hold
        };
        // Nothing is known of the rate yet.
        let waiting = queue(33);
        assert!(matches!(admission.enter(), Err(Refusal::Busy { what: "bytes", .. })));
        drop(waiting);
        // 33 and 67 MiB were finished in this second: 200 MiB take two.
        drop(queue(67));
        let waiting = [queue(150), queue(50)];
        assert!(admission.enter().is_ok());
        let more = queue(1);
        assert!(matches!(admission.enter(), Err(Refusal::Busy { what: "bytes", .. })));
        drop(more);
        time.advance(Duration::from_secs(7));
        assert!(admission.enter().is_ok());
        // So long ago that it says nothing of now.
        time.advance(Duration::from_secs(1));
        assert!(admission.enter().is_err());
        drop(waiting);
        assert!(admission.enter().is_ok());
    }
}
