//! Time as a value: the system clock in production, a hand-moved one in tests.

use std::sync::Arc;
use std::time::Duration;

use clew_model::UnixNanos;
use futures::future::BoxFuture;
use parking_lot::Mutex;

/// Where a [`Clock`] gets its time from.
pub trait TimeSource: Send + Sync + 'static {
    /// Wall-clock time; may jump.
    fn now_unix(&self) -> UnixNanos;
    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;
    /// Completes after `duration` of this source's time.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// A cheap handle to a source of time.
#[derive(Clone)]
pub struct Clock(Arc<dyn TimeSource>);

impl Clock {
    /// A clock over the given source.
    pub fn new(source: impl TimeSource) -> Clock {
        Clock(Arc::new(source))
    }

    /// The operating system's clock.
    pub fn system() -> Clock {
        Clock::new(SystemTime::default())
    }

    /// Wall-clock time; may jump.
    pub fn now_unix(&self) -> UnixNanos {
        self.0.now_unix()
    }

    /// Time since an arbitrary start; never goes back.
    pub fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    /// Completes after `duration`.
    pub async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration).await;
    }

    /// The output of `future`, or `None` if `duration` passes first.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep(duration) => None,
        }
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// The operating system's time.
struct SystemTime {
    started: std::time::Instant,
}

impl Default for SystemTime {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    fn default() -> Self {
        SystemTime { started: std::time::Instant::now() }
    }
}

impl TimeSource for SystemTime {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    fn now_unix(&self) -> UnixNanos {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        UnixNanos(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that waits on the system's clock")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that moves only when told to.
#[derive(Clone, Default)]
pub struct ManualTime {
    state: Arc<Mutex<ManualState>>,
}

#[derive(Default)]
struct ManualState {
    now: Duration,
    epoch: UnixNanos,
    sleepers: Vec<(Duration, tokio::sync::oneshot::Sender<()>)>,
}

impl ManualTime {
    /// A clock that stands at `epoch`.
    pub fn at(epoch: UnixNanos) -> ManualTime {
        let time = ManualTime::default();
        time.state.lock().epoch = epoch;
        time
    }

    /// A handle for the code under test.
    pub fn clock(&self) -> Clock {
        Clock::new(self.clone())
    }

    /// Moves time on and wakes every sleeper whose time has come.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock();
        state.now += by;
        let now = state.now;
        for at in (0..state.sleepers.len()).rev() {
            if state.sleepers[at].0 <= now {
                let (_, wake) = state.sleepers.swap_remove(at);
                // A sleeper that was dropped needs no waking.
                let _ = wake.send(());
            }
        }
    }
}

impl TimeSource for ManualTime {
    fn now_unix(&self) -> UnixNanos {
        let state = self.state.lock();
        let passed = u64::try_from(state.now.as_nanos()).unwrap_or(u64::MAX);
        UnixNanos(state.epoch.0.saturating_add(passed))
    }

    fn monotonic(&self) -> Duration {
        self.state.lock().now
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (wake, woken) = tokio::sync::oneshot::channel();
        let mut state = self.state.lock();
        let until = state.now + duration;
        if duration.is_zero() {
            return Box::pin(std::future::ready(()));
        }
        state.sleepers.push((until, wake));
        Box::pin(async move {
            // The sender is only dropped with the clock; then nobody waits for this any more.
            let _ = woken.await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_moved() {
        let time = ManualTime::at(UnixNanos::from_seconds(5));
        let clock = time.clock();
        let sleep = clock.sleep(Duration::from_secs(2));
        tokio::pin!(sleep);
        assert!(futures::poll!(&mut sleep).is_pending());
        time.advance(Duration::from_secs(1));
        assert!(futures::poll!(&mut sleep).is_pending());
        time.advance(Duration::from_secs(1));
        assert!(futures::poll!(&mut sleep).is_ready());
        assert_eq!(clock.now_unix(), UnixNanos::from_seconds(7));
    }
}
