//! The catalog as the state machine of a raft group.

use bytes::Bytes;
use clew_catalog::{FeatureRange, Outcome, State};
use clew_raft::{LogId, StateMachine};

/// The catalog, changed by committed commands only.
#[derive(Debug)]
pub(crate) struct CatalogMachine {
    pub(crate) state: State,
    features: FeatureRange,
}

impl CatalogMachine {
    /// An empty catalog, in a release that supports these levels.
    pub(crate) fn new(features: FeatureRange) -> CatalogMachine {
        CatalogMachine { state: State::new(), features }
    }
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

    /// Commands of a level that this release does not support would be misread.
    fn check(&self) -> Result<(), clew_raft::Error> {
        let (level, supported) = (self.state.feature_level(), self.features);
        if supported.contains(level) {
            return Ok(());
        }
        let release = crate::MetastoreError::Release { level, supported };
        Err(clew_raft::Error::Unable(release.to_string()))
    }
}
