//! The few places where this crate starts work by itself: the log's writer thread, reads of the
//! database off the async threads, and the tasks that watch a group; and what openraft starts, waits
//! by and draws lots with. In a simulation all of it belongs to the simulated process.

use std::time::Duration;

use clew_node::{Process, Rng, process};
use openraft::{AsyncRuntime, OptionalSend, TokioInstant, TokioRuntime};
use rand_core::RngCore;

use crate::error::Error;

/// Starts the log's writer: a thread of its own, since it spends its life in synced writes.
#[cfg(feature = "rocksdb")]
#[allow(clippy::disallowed_methods, reason = "one thread per process that only writes and syncs")]
pub(crate) fn start_thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, Error> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map_err(|error| Error::Database(format!("no thread for {name}: {error}")))
}

/// Runs a read of the database on a blocking thread; in a simulation here and now. Not on the shared
/// compute pool: an index build there must not delay replication.
#[allow(clippy::disallowed_methods, reason = "replication must not queue behind heavy work")]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if Process::current().is_some() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Database(format!("a read did not finish: {error}"))),
    }
}

/// Goes on with `future` after its caller has left. Outside of a runtime it is dropped, which is
/// right for what is cleaned up here: the groups are gone then, too.
pub(crate) fn detach(future: impl Future<Output = ()> + Send + 'static) {
    if tokio::runtime::Handle::try_current().is_ok() {
        drop(process::spawn(future));
    }
}

/// What openraft runs on: tokio, but for tasks, which belong to the process of the task that starts
/// them, and for chance, which is the process's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Runtime;

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Dice;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        process::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Dice {
        Dice(Process::current().map_or_else(Rng::from_os, |process| process.rng()))
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        TokioRuntime::oneshot()
    }
}

/// Chance for openraft, which draws an election timeout once per replica and start.
pub(crate) struct Dice(Rng);

impl RngCore for Dice {
    fn next_u32(&mut self) -> u32 {
        u32::try_from(self.0.next_u64() >> 32).unwrap_or(u32::MAX)
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for chunk in dest.chunks_mut(8) {
            let random = self.0.next_u64().to_le_bytes();
            chunk.iter_mut().zip(random).for_each(|(to, from)| *to = from);
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}
