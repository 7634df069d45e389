//! The transport between processes: `clew.raft.v1.RaftService` on the internal port, over the one
//! connection there is to each of them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clew_model::ErrorKind;
use clew_node::rpc::Pool;
use clew_node::{Clock, Problem};
use clew_proto::raft::v1::raft_service_client::RaftServiceClient;
use clew_proto::raft::v1::raft_service_server::{RaftService, RaftServiceServer};
use clew_proto::raft::v1::{CallRequest, CallResponse};
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::host::Host;
use crate::ids::{GroupId, NodeAddr};
use crate::transport::Transport;
use crate::wire::MESSAGE_BYTES_MAX;

/// What a message has beside its content.
const FRAMING_BYTES: usize = 1 << 10;

/// How long a message may be on its way: the largest entry over a slow link. openraft waits for less
/// and sends again; what it sends meanwhile is not what takes long.
pub const MESSAGE_DEADLINE: Duration = Duration::from_secs(30);

/// Finds the `host:port` of a replica's node, if it is known now.
pub type Addresses = Arc<dyn Fn(GroupId, &NodeAddr) -> Option<String> + Send + Sync>;

/// Sends messages to the replicas of other processes.
#[derive(Clone)]
pub struct Peers {
    pool: Pool,
    addresses: Addresses,
    clock: Clock,
}

impl Peers {
    /// A transport over the connections of `pool`.
    pub fn new(pool: Pool, addresses: Addresses, clock: Clock) -> Peers {
        Peers { pool, addresses, clock }
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peers")
    }
}

#[async_trait]
impl Transport for Peers {
    async fn send(
        &self,
        target: &NodeAddr,
        group: GroupId,
        request: Bytes,
    ) -> Result<Bytes, Error> {
        let unreachable = |reason: String| Error::Unreachable { target: target.clone(), reason };
        let addr = (self.addresses)(group, target)
            .ok_or_else(|| unreachable("its address is not known".to_owned()))?;
        let channel = self.pool.get(&addr).map_err(|problem| unreachable(problem.message))?;
        let mut client = RaftServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX + FRAMING_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES_MAX + FRAMING_BYTES);
        let group = Bytes::copy_from_slice(&group.to_bytes());
        let call = client.call(CallRequest { group, message: request });
        match self.clock.timeout(MESSAGE_DEADLINE, call).await {
            Some(Ok(answer)) => Ok(answer.into_inner().message),
            Some(Err(status)) => Err(unreachable(status.message().to_owned())),
            None => Err(unreachable("no answer".to_owned())),
        }
    }
}

/// Hands the messages of other processes to the replicas of this one.
#[derive(Debug, Clone)]
pub struct PeerServer(Host);

impl PeerServer {
    /// The gRPC service over the replicas of `host`.
    pub fn server(host: Host) -> RaftServiceServer<PeerServer> {
        RaftServiceServer::new(PeerServer(host))
            .max_decoding_message_size(MESSAGE_BYTES_MAX + FRAMING_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES_MAX + FRAMING_BYTES)
    }
}

#[tonic::async_trait]
impl RaftService for PeerServer {
    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallResponse>, Status> {
        let CallRequest { group, message } = request.into_inner();
        let Some(group) = GroupId::from_bytes(&group) else {
            let problem = Problem::new(ErrorKind::Invalid, "raft_group", "no such kind of group");
            return Err(problem.into());
        };
        let answer = self.0.handle(group, message).await.map_err(|error| {
            tracing::debug!(%group, %error, "a peer's message was refused");
            Status::from(Problem::new(error.kind(), "raft", error.to_string()))
        })?;
        Ok(Response::new(CallResponse { message: answer }))
    }
}
