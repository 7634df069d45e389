//! The bound on what ingest holds in memory: requests and bytes in flight, counted as they arrive.
//!
//! Nothing waits here. What does not fit is refused at once with a retry hint, because a queue in
//! front of a full process only adds memory and latency.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;

use crate::refusal::Refusal;

/// The requests and bytes in flight of one process.
pub(crate) struct Admission {
    requests_max: u64,
    bytes_max: u64,
    retry_after: Duration,
    used: Mutex<Used>,
    gauge: IntGauge,
}

#[derive(Default)]
struct Used {
    requests: u64,
    bytes: u64,
}

impl Admission {
    /// Limits on both counts. `gauge` shows the bytes.
    pub(crate) fn new(
        requests_max: usize,
        bytes_max: u64,
        retry_after: Duration,
        gauge: IntGauge,
    ) -> Arc<Admission> {
        let (requests_max, used) = (requests_max as u64, Mutex::default());
        Arc::new(Admission { requests_max, bytes_max, retry_after, used, gauge })
    }

    /// Takes in one request that holds no bytes yet.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Hold, Refusal> {
        let mut used = self.used.lock();
        if used.requests >= self.requests_max {
            return Err(self.busy("requests", self.requests_max));
        }
        used.requests += 1;
        Ok(Hold { admission: self.clone(), bytes: 0 })
    }

    fn busy(&self, what: &'static str, max: u64) -> Refusal {
        Refusal::Busy { what, max, retry_after: self.retry_after }
    }
}

/// What one request holds; given back when dropped.
pub(crate) struct Hold {
    admission: Arc<Admission>,
    bytes: u64,
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
        if sum > admission.bytes_max {
            return Err(admission.busy("bytes", admission.bytes_max));
        }
        used.bytes = sum;
        self.bytes += bytes;
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
        used.requests -= 1;
        used.bytes -= self.bytes;
        self.admission.gauge.set(i64::try_from(used.bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(requests_max: usize, bytes_max: u64) -> Arc<Admission> {
        let gauge = IntGauge::new("bytes", "bytes").unwrap();
        Admission::new(requests_max, bytes_max, Duration::from_secs(3), gauge)
    }

    #[test]
    fn bytes_are_given_back() {
        let admission = admission(2, 10);
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
        let admission = admission(1, 10);
        let first = admission.enter().unwrap();
        assert!(matches!(admission.enter(), Err(Refusal::Busy { what: "requests", .. })));
        drop(first);
        assert!(admission.enter().is_ok());
    }
}
