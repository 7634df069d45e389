//! The catalog as the state machine of a raft group.

use bytes::Bytes;
use clew_catalog::{Outcome, State};
use clew_raft::{LogId, StateMachine};

/// The catalog, changed by committed commands only.
#[derive(Debug, Default)]
pub(crate) struct CatalogMachine {
    pub(crate) state: State,
}

impl StateMachine for CatalogMachine {
    type Response = Outcome;

    fn apply(&mut self, log_id: LogId, command: Bytes) -> Outcome {
        self.state.apply(log_id.index, &command)
    }

    fn snapshot(&self) -> Vec<u8> {
        self.state.encode()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), clew_raft::Error> {
        self.state = State::decode(bytes).map_err(|error| clew_raft::Error::Corrupt {
            what: "catalog snapshot",
            reason: error.to_string(),
        })?;
        Ok(())
    }
}
