//! Snapshots of the catalog, and the hash that tells whether two replicas agree.

use crate::error::DecodeError;
use crate::state::State;
use crate::wire;

impl State {
    /// The whole catalog as bytes; equal states give equal bytes. The list of recent changes is not
    /// part of it.
    pub fn encode(&self) -> Vec<u8> {
        wire::snapshot::encode(self)
    }

    /// The catalog in `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not the encoding of a catalog, or of one of a later release.
    pub fn decode(bytes: &[u8]) -> Result<State, DecodeError> {
        wire::snapshot::decode(bytes)
    }

    /// A hash of the whole catalog: replicas that applied the same log have the same.
    pub fn state_hash(&self) -> u64 {
        clew_ring::hash::hash(0, &self.encode())
    }
}
