//! A process inside the process: what a simulation runs as one node, so that all of its tasks can
//! end at once or stand still, as the operating system does it with a real one.
//!
//! A task belongs to the process that started it, and so does everything it starts. In production
//! there are none, and nothing here costs more than a look at a task-local.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinHandle};

use crate::{Rng, tasks};

tokio::task_local! {
    static CURRENT: Process;
}

/// Ended tasks that are kept before they are looked for.
const TASKS_MIN: usize = 256;

/// A part of the program that can be ended or paused as a whole. Cheap to clone.
#[derive(Clone)]
pub struct Process(Arc<Inner>);

struct Inner {
    rng: Rng,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tasks: Vec<AbortHandle>,
    sweep_at: usize,
    paused: bool,
    ended: bool,
    waiting: Vec<Waker>,
    panicked: Option<String>,
}

impl Process {
    /// A process without tasks; `rng` is where those of its parts that have no other get chance from.
    pub fn new(rng: Rng) -> Process {
        Process(Arc::new(Inner { rng, state: Mutex::default() }))
    }

    /// The process of the current task; none in production.
    pub fn current() -> Option<Process> {
        CURRENT.try_with(Process::clone).ok()
    }

    /// Its source of chance.
    pub fn rng(&self) -> Rng {
        self.0.rng.clone()
    }

    /// Starts a task of this process. If that has ended the task never runs.
    #[allow(clippy::disallowed_methods, reason = "the place that spawns for simulations")]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let gate = Gate { process: self.clone(), future: Box::pin(future) };
        let task = tokio::spawn(CURRENT.scope(self.clone(), gate));
        let mut state = self.0.state.lock();
        if state.ended {
            task.abort();
            return task;
        }
        if state.tasks.len() >= state.sweep_at.max(TASKS_MIN) {
            state.tasks.retain(|task| !task.is_finished());
            state.sweep_at = state.tasks.len() * 2;
        }
        state.tasks.push(task.abort_handle());
        task
    }

    /// Nothing of it runs until [`Process::resume`].
    pub fn pause(&self) {
        self.0.state.lock().paused = true;
    }

    /// Everything goes on, without having noticed.
    pub fn resume(&self) {
        let waiting = {
            let mut state = self.0.state.lock();
            state.paused = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether it stands still.
    pub fn is_paused(&self) -> bool {
        self.0.state.lock().paused
    }

    /// What the first task that panicked said.
    pub fn panicked(&self) -> Option<String> {
        self.0.state.lock().panicked.clone()
    }

    /// Whether it has ended.
    pub fn is_ended(&self) -> bool {
        self.0.state.lock().ended
    }

    /// Ends all of its tasks where they are, and does not return before they are gone.
    pub async fn kill(&self) {
        let tasks = {
            let mut state = self.0.state.lock();
            state.ended = true;
            std::mem::take(&mut state.tasks)
        };
        tasks.iter().for_each(AbortHandle::abort);
        while !tasks.iter().all(AbortHandle::is_finished) {
            tokio::task::yield_now().await;
        }
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Process")
    }
}

/// Starts a task in the process of the current one.
#[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match Process::current() {
        Some(process) => process.spawn(future),
        None => tokio::spawn(future),
    }
}

/// Lets a task run while its process does.
struct Gate<F> {
    process: Process,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Gate<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        {
            let mut state = self.process.0.state.lock();
            if state.paused {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        let Gate { process, future } = &mut *self;
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        polled.unwrap_or_else(|payload| {
            process.0.state.lock().panicked.get_or_insert(tasks::text_of(&*payload));
            resume_unwind(payload)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Counts how often it was let run; its child does the same.
    fn start(process: &Process) -> Arc<AtomicU64> {
        let steps = Arc::new(AtomicU64::new(0));
        let counted = steps.clone();
        process.spawn(async move {
            let child = counted.clone();
            spawn(async move {
                loop {
                    child.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            });
            std::future::pending::<()>().await;
        });
        steps
    }

    async fn steps(steps: &AtomicU64) -> u64 {
        let before = steps.load(Ordering::SeqCst);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        steps.load(Ordering::SeqCst) - before
    }

    #[tokio::test]
    async fn children_stand_still_and_end_with_their_process() {
        let process = Process::new(Rng::seeded(1));
        let running = start(&process);
        assert!(steps(&running).await > 0);
        process.pause();
        assert_eq!(steps(&running).await, 0);
        process.resume();
        assert!(steps(&running).await > 0);
        process.kill().await;
        assert_eq!(steps(&running).await, 0);
        assert_eq!(Arc::strong_count(&running), 1, "what a task held is gone");
        assert_eq!(steps(&start(&process)).await, 0, "nothing starts in a process that has ended");
    }

    #[tokio::test]
    async fn a_task_outside_of_processes_has_none() {
        assert!(Process::current().is_none());
        let inside = Process::new(Rng::seeded(1)).spawn(async { Process::current().is_some() });
        assert!(inside.await.unwrap());
    }
}
