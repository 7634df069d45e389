//! Processor time by phase of the hot path: what receiving, logging, indexing and flushing cost on
//! the threads that do it.
//!
//! Measured per batch, never per span: reading a thread's clock is a system call. What no phase
//! claims (network, async runtime, consensus) is the process's total less the sum.

use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Counter;

use crate::Metrics;

/// A part of the way of a span through the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Decompress, check, limit, divide by shard and pack a request.
    Receive,
    /// Put batches into the log and sync it.
    Log,
    /// Take committed batches into the head.
    Index,
    /// Turn a sealed head into blocks.
    Build,
    /// Hand a built object to the bucket.
    Upload,
}

impl Phase {
    const ALL: [Phase; 5] = [Phase::Receive, Phase::Log, Phase::Index, Phase::Build, Phase::Upload];

    /// The value of the label `phase`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Receive => "receive",
            Phase::Log => "log",
            Phase::Index => "index",
            Phase::Build => "build",
            Phase::Upload => "upload",
        }
    }
}

/// Tells how long the current thread has been running on a processor.
pub trait ThreadClock: Send + Sync + 'static {
    /// Time in user and kernel mode since the thread began.
    fn thread_time(&self) -> Duration;
}

/// A cheap handle that adds up processor time by [`Phase`].
#[derive(Clone)]
pub struct CpuTime {
    clock: Arc<dyn ThreadClock>,
    /// In the order of [`Phase::ALL`].
    seconds: [Counter; Phase::ALL.len()],
}

impl CpuTime {
    /// Adds up what `clock` tells, in `metrics`.
    pub fn new(clock: impl ThreadClock, metrics: &Metrics) -> CpuTime {
        let seconds = metrics.float_counters(
            "clew_cpu_seconds_total",
            "Processor time of the threads that work on a phase of ingest; the rest of the \
             process is in process_cpu_seconds_total.",
            &["phase"],
        );
        let seconds = Phase::ALL.map(|phase| seconds.with_label_values(&[phase.as_str()]));
        CpuTime { clock: Arc::new(clock), seconds }
    }

    /// Adds up the operating system's thread times.
    pub fn system(metrics: &Metrics) -> CpuTime {
        CpuTime::new(SystemThreads, metrics)
    }

    /// Counts from now until the result is dropped, on this thread.
    pub fn measure(&self, phase: Phase) -> Stretch<'_> {
        Stretch { time: self, phase, started: self.clock.thread_time(), same_thread: PhantomData }
    }

    /// Counts every poll of `future`, on whatever thread.
    pub async fn of<F: Future>(&self, phase: Phase, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let _stretch = self.measure(phase);
            future.as_mut().poll(context)
        })
        .await
    }
}

impl std::fmt::Debug for CpuTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CpuTime")
    }
}

/// A stretch of work that is being measured. It cannot leave its thread, so neither be held across
/// an `await` of a task that may move.
#[must_use = "the time is counted when this is dropped"]
pub struct Stretch<'a> {
    time: &'a CpuTime,
    phase: Phase,
    started: Duration,
    same_thread: PhantomData<*const ()>,
}

impl Drop for Stretch<'_> {
    fn drop(&mut self) {
        let taken = self.time.clock.thread_time().saturating_sub(self.started);
        self.time.seconds[self.phase as usize].inc_by(taken.as_secs_f64());
    }
}

/// The operating system's thread times.
struct SystemThreads;

impl ThreadClock for SystemThreads {
    fn thread_time(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A thread that uses a second between any two looks at its clock.
    #[derive(Default)]
    struct Busy(AtomicU64);

    impl ThreadClock for Busy {
        fn thread_time(&self) -> Duration {
            Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed))
        }
    }

    fn counted(metrics: &Metrics, phase: &str) -> bool {
        metrics
            .render()
            .unwrap()
            .contains(&format!("clew_cpu_seconds_total{{phase=\"{phase}\"}} 1"))
    }

    #[test]
    fn a_stretch_is_counted_when_it_ends() {
        let metrics = Metrics::new();
        let time = CpuTime::new(Busy::default(), &metrics);
        let stretch = time.measure(Phase::Index);
        assert!(!counted(&metrics, "index"));
        drop(stretch);
        assert!(counted(&metrics, "index") && !counted(&metrics, "log"));
    }

    #[tokio::test]
    async fn a_future_is_counted_while_it_is_polled() {
        let metrics = Metrics::new();
        let time = CpuTime::new(Busy::default(), &metrics);
        assert_eq!(time.of(Phase::Upload, std::future::ready(5)).await, 5);
        assert!(counted(&metrics, "upload"));
    }

    #[test]
    fn the_system_knows_the_time_of_a_thread() {
        let before = SystemThreads.thread_time();
        let sum = (0..1_000_000u64).fold(0, |sum: u64, at| std::hint::black_box(sum ^ at));
        std::hint::black_box(sum);
        assert!(SystemThreads.thread_time() > before);
    }
}
