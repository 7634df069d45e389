//! The signal to stop, passed down to everything that runs.

use tokio_util::sync::CancellationToken;

/// A cheap handle to "please finish". Children stop with their parent, not the other way round.
#[derive(Debug, Clone, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    /// A signal nobody has given yet.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// A signal that is given with this one, and can be given alone.
    pub fn child(&self) -> Stop {
        Stop(self.0.child_token())
    }

    /// Gives the signal.
    pub fn stop(&self) {
        self.0.cancel();
    }

    /// Whether the signal was given.
    pub fn is_stopped(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Completes once the signal is given.
    pub async fn stopped(&self) {
        self.0.cancelled().await;
    }

    /// The output of `future`, or `None` if the signal comes first.
    pub async fn or<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.stopped() => None,
            output = future => Some(output),
        }
    }
}
