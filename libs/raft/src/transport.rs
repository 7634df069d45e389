//! How replicas reach each other: a seam that moves opaque bytes, and openraft's network on top.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::RaftNetworkFactory;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};

use crate::error::Error;
use crate::ids::{GroupId, NodeAddr, ReplicaId};
use crate::types::Types;
use crate::wire::{Answer, Call, Request};

/// How long to leave a peer alone that did not answer: one heartbeat, so that its return is noticed
/// before an election.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Moves a request of one group to a node and brings back the answer of its
/// [`Host::handle`](crate::Host::handle). Calls are dropped when they take too long.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends one request and waits for the answer.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or what the other side returned.
    async fn send(&self, target: &NodeAddr, group: GroupId, request: Bytes)
    -> Result<Bytes, Error>;
}

/// The transport of a process whose groups have one replica.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

#[async_trait]
impl Transport for NoPeers {
    async fn send(&self, target: &NodeAddr, _: GroupId, _: Bytes) -> Result<Bytes, Error> {
        Err(Error::Unreachable { target: target.clone(), reason: "no peers here".to_owned() })
    }
}

/// Makes openraft's connections to the other replicas of one group.
pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) group: GroupId,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, addr: &NodeAddr) -> Peer {
        Peer {
            transport: Arc::clone(&self.transport),
            group: self.group,
            replica: ReplicaId(target),
            addr: addr.clone(),
        }
    }
}

/// One other replica.
pub(crate) struct Peer {
    transport: Arc<dyn Transport>,
    group: GroupId,
    replica: ReplicaId,
    addr: NodeAddr,
}

type CallError<E> = RPCError<u64, NodeAddr, RaftError<u64, E>>;

impl Peer {
    async fn call(&self, call: Call) -> Result<Answer, Error> {
        let request = Request { to: self.replica, call }.encode();
        Answer::decode(self.transport.send(&self.addr, self.group, request).await?)
    }

    /// Every failure counts as unreachable: openraft repeats other kinds without a pause.
    fn failed<E: std::error::Error>(&self, error: &Error) -> CallError<E> {
        tracing::debug!(group = %self.group, replica = %self.replica, %error, "a peer failed");
        RPCError::Unreachable(Unreachable::new(error))
    }

    fn confused<E: std::error::Error>(&self) -> CallError<E> {
        self.failed(&Error::corrupt("answer", "it answers another request"))
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, CallError<openraft::error::Infallible>> {
        match self.call(Call::Append(request)).await {
            Ok(Answer::Append(answer)) => Ok(answer),
            Ok(_) => Err(self.confused()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, CallError<InstallSnapshotError>> {
        match self.call(Call::Snapshot(request)).await {
            Ok(Answer::Snapshot(Ok(answer))) => Ok(answer),
            Ok(Answer::Snapshot(Err(error))) => {
                let error = RaftError::APIError(error);
                Err(RPCError::RemoteError(RemoteError::new(self.replica.0, error)))
            }
            Ok(_) => Err(self.confused()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, CallError<openraft::error::Infallible>> {
        match self.call(Call::Vote(request)).await {
            Ok(Answer::Vote(answer)) => Ok(answer),
            Ok(_) => Err(self.confused()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_DELAY))
    }
}
