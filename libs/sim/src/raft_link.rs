//! How the replicas of simulated processes reach each other: as [`clew_raft::Peers`] does it, over the
//! simulated network and without gRPC.

use async_trait::async_trait;
use bytes::Bytes;
use clew_node::Clock;
use clew_raft::{Addresses, Error, GroupId, MESSAGE_DEADLINE, NodeAddr, Transport};

use crate::network::{Broken, Name, Network};

/// What one process sends to the replicas of others.
pub(crate) struct RaftLink {
    pub(crate) network: Network,
    pub(crate) from: Name,
    pub(crate) addresses: Addresses,
    pub(crate) clock: Clock,
}

#[async_trait]
impl Transport for RaftLink {
    async fn send(
        &self,
        target: &NodeAddr,
        group: GroupId,
        request: Bytes,
    ) -> Result<Bytes, Error> {
        let unreachable =
            |reason: &str| Error::Unreachable { target: target.clone(), reason: reason.to_owned() };
        let addr = (self.addresses)(group, target);
        let addr = addr.ok_or_else(|| unreachable("its address is not known"))?;
        let call = self.network.call_raft(&self.from, &addr, group, request);
        match self.clock.timeout(MESSAGE_DEADLINE, call).await {
            Some(Ok(answer)) => answer.map_err(|error| unreachable(&error.to_string())),
            Some(Err(Broken(why))) => Err(unreachable(why)),
            None => Err(unreachable("no answer")),
        }
    }
}
