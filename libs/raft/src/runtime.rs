//! The few places where this crate starts work by itself: the log's writer thread, reads of the
//! database off the async threads, and the tasks that watch a group. openraft brings its own tokio
//! tasks and timers; a simulated world would replace them here and in its `AsyncRuntime`.

use crate::error::Error;

/// Starts the log's writer: a thread of its own, since it spends its life in synced writes.
#[allow(clippy::disallowed_methods, reason = "one thread per process that only writes and syncs")]
pub(crate) fn start_thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, Error> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map_err(|error| Error::Database(format!("no thread for {name}: {error}")))
}

/// Runs a read of the database on a blocking thread. Not on the shared compute pool: an index
/// build there must not delay replication.
#[allow(clippy::disallowed_methods, reason = "replication must not queue behind heavy work")]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Database(format!("a read did not finish: {error}"))),
    }
}

/// Goes on with `future` after its caller has left. Outside of a runtime it is dropped, which is
/// right for what is cleaned up here: the groups are gone then, too.
#[allow(clippy::disallowed_methods, reason = "runs from destructors, where no handle is at hand")]
pub(crate) fn detach(future: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        drop(runtime.spawn(future));
    }
}
