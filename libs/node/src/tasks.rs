//! Spawning as a value: background tasks, and heavy work kept off the async threads.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::process::{self, Process};

/// Why work handed to [`Tasks::compute`] gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The work panicked; its thread lives on.
    #[error("the task panicked: {0}")]
    Panicked(String),
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    ShuttingDown,
}

/// A cheap handle for starting work in the background.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    compute: Arc<Semaphore>,
}

impl Tasks {
    /// Runs at most `compute_max` pieces of heavy work at the same time.
    pub fn new(compute_max: usize) -> Tasks {
        Tasks { tracker: TaskTracker::new(), compute: Arc::new(Semaphore::new(compute_max.max(1))) }
    }

    /// The same tasks with a limit of their own for heavy work: what waits for a disk must not hold up
    /// what computes.
    #[must_use]
    pub fn limited(&self, compute_max: usize) -> Tasks {
        Tasks { tracker: self.tracker.clone(), ..Tasks::new(compute_max) }
    }

    /// Starts a background task that is waited for at shutdown.
    pub fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // The handle is dropped on purpose: the tracker waits for the task.
        drop(process::spawn(self.tracker.track_future(future)));
    }

    /// Starts a task whose output is wanted; it goes on if the receiver goes away.
    pub async fn run<F>(&self, future: F) -> Result<F::Output, TaskError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        process::spawn(self.tracker.track_future(future)).await.map_err(describe)
    }

    /// Runs work of more than half a millisecond on a blocking thread; in a simulation here and now,
    /// since there is only one thread.
    ///
    /// # Errors
    /// [`TaskError`] when it panics or the runtime ends.
    #[allow(clippy::disallowed_methods, reason = "the one place that leaves the async threads")]
    pub async fn compute<T, F>(&self, work: F) -> Result<T, TaskError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let permit = self.compute.clone().acquire_owned().await;
        let permit = permit.map_err(|_| TaskError::ShuttingDown)?;
        if Process::current().is_some() {
            return Ok(work());
        }
        let output = self.tracker.spawn_blocking(move || {
            let output = work();
            drop(permit);
            output
        });
        output.await.map_err(describe)
    }

    /// Completes when every task has ended; no new ones should be started meanwhile.
    pub async fn finish(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

fn describe(error: tokio::task::JoinError) -> TaskError {
    match error.try_into_panic() {
        Ok(payload) => TaskError::Panicked(text_of(&*payload)),
        Err(_) => TaskError::ShuttingDown,
    }
}

/// What a panic said.
pub(crate) fn text_of(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tasks")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_with_a_limit_of_its_own_is_waited_for() {
        let tasks = Tasks::new(1);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let limited = tasks.limited(1);
        let held = limited.compute(move || wait.recv().is_err());
        tokio::pin!(held);
        assert!(futures::poll!(&mut held).is_pending());
        assert_eq!(tasks.compute(|| 7).await, Ok(7));
        let finished = tasks.finish();
        tokio::pin!(finished);
        assert!(futures::poll!(&mut finished).is_pending());
        drop(go);
        assert_eq!(held.await, Ok(true));
        finished.await;
    }

    #[tokio::test]
    async fn a_panic_is_reported_and_the_pool_lives_on() {
        let tasks = Tasks::new(1);
        let failed: Result<(), _> = tasks.compute(|| panic!("bad {}", "input")).await;
        assert_eq!(failed, Err(TaskError::Panicked("bad input".to_owned())));
        assert_eq!(tasks.compute(|| 7).await, Ok(7));
    }
}
