//! How replicas reach each other: a seam that moves opaque bytes, and openraft's network on top.
//!
//! openraft gives an append one heartbeat interval to be answered and then sends it again. An entry
//! that takes longer, because it is large or the link or the other disk is slow, would be sent for
//! ever and never arrive. So an append goes on when openraft has given up on it, and what openraft
//! sends next waits for it ([`Peer::append_entries`]). Meanwhile an empty append tells the follower
//! that the leader is alive.

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
use tokio::sync::oneshot;

use crate::error::Error;
use crate::ids::{GroupId, NodeAddr, ReplicaId};
use crate::runtime;
use crate::types::{RaftLogId, RaftVote, Types};
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
            sending: None,
        }
    }
}

/// One other replica.
pub(crate) struct Peer {
    transport: Arc<dyn Transport>,
    group: GroupId,
    replica: ReplicaId,
    addr: NodeAddr,
    /// An append with entries that was not answered yet.
    sending: Option<Sending>,
}

/// An append on its way.
struct Sending {
    vote: RaftVote,
    previous: Option<RaftLogId>,
    last: Option<RaftLogId>,
    answer: oneshot::Receiver<Result<Answer, Error>>,
}

impl Sending {
    /// Whether its answer says something about this request.
    fn answers(&self, request: &AppendEntriesRequest<Types>) -> bool {
        self.vote == request.vote && self.previous == request.prev_log_id
    }
}

type CallError<E> = RPCError<u64, NodeAddr, RaftError<u64, E>>;

impl Peer {
    async fn call(&self, call: Call) -> Result<Answer, Error> {
        let request = Request { to: self.replica, call }.encode();
        Answer::decode(self.transport.send(&self.addr, self.group, request).await?)
    }

    /// Begins a call that goes on when nobody waits for it any more.
    fn begin(&self, call: Call) -> oneshot::Receiver<Result<Answer, Error>> {
        let request = Request { to: self.replica, call }.encode();
        let (transport, addr, group) = (self.transport.clone(), self.addr.clone(), self.group);
        let (done, answer) = oneshot::channel();
        runtime::detach(async move {
            let sent = transport.send(&addr, group, request).await;
            // Whoever gave up on it for good needs no answer.
            let _ = done.send(sent.and_then(Answer::decode));
        });
        answer
    }

    /// Waits for an append; when dropped before, it goes on.
    async fn wait(&mut self) -> Option<(Option<RaftLogId>, Result<Answer, Error>)> {
        let sending = self.sending.as_mut()?;
        let answer = (&mut sending.answer).await;
        let last = sending.last;
        self.sending = None;
        Some((last, answer.unwrap_or(Err(Error::Closed))))
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
        let wanted = request.entries.last().map(|entry| entry.log_id);
        match self.sending.take().filter(|sending| sending.answers(&request)) {
            Some(sending) => {
                self.sending = Some(sending);
                let alive = AppendEntriesRequest { entries: Vec::new(), ..request };
                drop(self.begin(Call::Append(alive)));
            }
            None if wanted.is_none() => {
                return match self.call(Call::Append(request)).await {
                    Ok(Answer::Append(answer)) => Ok(answer),
                    Ok(_) => Err(self.confused()),
                    Err(error) => Err(self.failed(&error)),
                };
            }
            None => {
                let (vote, previous) = (request.vote, request.prev_log_id);
                let answer = self.begin(Call::Append(request));
                self.sending = Some(Sending { vote, previous, last: wanted, answer });
            }
        }
        match self.wait().await {
            Some((last, Ok(Answer::Append(answer)))) => Ok(match answer {
                // It may have carried fewer entries than are wanted by now.
                AppendEntriesResponse::Success if wanted.is_some() && last != wanted => {
                    AppendEntriesResponse::PartialSuccess(last.min(wanted))
                }
                other => other,
            }),
            Some((_, Ok(_))) | None => Err(self.confused()),
            Some((_, Err(error))) => Err(self.failed(&error)),
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
