//! How a replica ends.

use openraft::error::Fatal;

use crate::ids::GroupId;

/// What openraft 0.9.25 says (`Command::Replicate` in its `raft_core.rs`) when [`Ending::Superseded`] happens.
const CHANNEL_CLOSED: &str = "replication channel closed";

/// How a replica has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was closed.
    Closed,
    /// It led and had a snapshot for a replica that had just told it of a later vote. What sends to that
    /// replica is gone then, and openraft ends the leader, which was to step down next, instead.
    Superseded,
    /// There was an error in it: of its disk, its state machine, or its code.
    Failed,
}

impl Ending {
    pub(crate) fn of(state: &Result<(), Fatal<u64>>) -> Ending {
        match state {
            Err(Fatal::StorageError(error)) if error.to_string().contains(CHANNEL_CLOSED) => {
                Ending::Superseded
            }
            // A task that panicked could not say anything.
            Ok(()) | Err(Fatal::StorageError(_) | Fatal::Panicked) => Ending::Failed,
            Err(Fatal::Stopped) => Ending::Closed,
        }
    }
}

/// Tells of an end that nobody asked for.
pub(crate) fn log_end(group: GroupId, state: &Result<(), Fatal<u64>>) {
    let reason = state.as_ref().err().map_or("its task panicked".to_owned(), ToString::to_string);
    match Ending::of(state) {
        Ending::Closed => {}
        Ending::Superseded => {
            tracing::warn!(%group, reason, "a leader has stopped, another follows it")
        }
        Ending::Failed => tracing::error!(%group, reason, "a replica has stopped"),
    }
}

#[cfg(test)]
mod tests {
    use openraft::{AnyError, StorageIOError};

    use super::*;

    #[test]
    fn only_a_leader_that_would_have_stepped_down_is_superseded() {
        let failed = |what: &str| {
            let error = StorageIOError::<u64>::read_snapshot(None, AnyError::error(what));
            Ending::of(&Err(Fatal::StorageError(error.into())))
        };
        assert_eq!(failed("replication channel closed"), Ending::Superseded);
        assert_eq!(failed("the disk is full"), Ending::Failed);
        assert_eq!(Ending::of(&Err(Fatal::Panicked)), Ending::Failed);
        assert_eq!(Ending::of(&Err(Fatal::Stopped)), Ending::Closed);
        assert_eq!(Ending::of(&Ok(())), Ending::Failed);
    }
}
