//! The catalog without consensus: the real state machine behind a lock, for one process and tests.

use std::sync::Arc;

use clew_model::UnixNanos;
use parking_lot::Mutex;

use crate::command::Request;
use crate::outcome::Refusal;
use crate::state::State;

/// A catalog in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryCatalog {
    state: Arc<Mutex<State>>,
}

/// The answer to a request and the revision at which it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered<T> {
    /// The revision that the command became.
    pub revision: u64,
    /// The answer.
    pub answer: T,
}

impl MemoryCatalog {
    /// An empty catalog.
    pub fn new() -> MemoryCatalog {
        MemoryCatalog::default()
    }

    /// A catalog that continues from `state`.
    pub fn with_state(state: State) -> MemoryCatalog {
        MemoryCatalog { state: Arc::new(Mutex::new(state)) }
    }

    /// Proposes a request as of time `at`, through the same bytes as a replicated catalog.
    ///
    /// # Errors
    /// The [`Refusal`], if the command was refused.
    pub fn propose<R: Request>(
        &self,
        request: R,
        at: UnixNanos,
    ) -> Result<Answered<R::Answer>, Refusal> {
        let command = request.into_command().encode(at);
        let mut state = self.state.lock();
        let revision = state.revision() + 1;
        let answer = R::answer(state.apply(revision, &command))?;
        Ok(Answered { revision, answer })
    }

    /// Looks at the state.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }
}
