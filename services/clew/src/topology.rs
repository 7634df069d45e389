//! Following the cluster: one task keeps what this process knows of nodes, shards and leaders up to
//! date, and everybody here looks at that.

use std::sync::Arc;
use std::time::Duration;

use clew_catalog::{ReplicaId, SharedTopology, Topology};
use clew_node::rpc::{Channel, MESSAGE_BYTES_MAX};
use clew_node::{Clock, Problem, Stop};
use clew_proto::metastore::v1::WatchRequest;
use clew_proto::metastore::v1::cluster_service_client::ClusterServiceClient;
use clew_raft::{Addresses, GroupId, NodeAddr};
use tokio::sync::watch;

/// Before the metastore is asked again after a failure.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// How long a member of the metastore may take to answer at first.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Keeps the topology up to date until `stop`, from whichever member of the metastore answers.
pub(crate) async fn follow(
    members: Vec<Channel>,
    clock: Clock,
    topology: watch::Sender<SharedTopology>,
    stop: Stop,
) {
    for member in members.iter().cycle() {
        if let Some(Err(problem)) = stop.or(follow_one(member, &clock, &topology)).await {
            tracing::debug!(%problem, "the cluster cannot be followed now");
        }
        if stop.or(clock.sleep(RETRY_DELAY)).await.is_none() {
            return;
        }
    }
}

async fn follow_one(
    member: &Channel,
    clock: &Clock,
    topology: &watch::Sender<SharedTopology>,
) -> Result<(), Problem> {
    let mut client =
        ClusterServiceClient::new(member.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let known_revision = topology.borrow().revision;
    let watching = client.watch(WatchRequest { known_revision });
    let silent = || Problem::new(clew_model::ErrorKind::Unavailable, "silent", "no answer");
    let answer = clock.timeout(ANSWER_MAX, watching).await.ok_or_else(silent)?;
    let mut news = answer?.into_inner();
    while let Some(message) = news.message().await? {
        let next = Topology::decode(&message.topology).map_err(|error| {
            let text = format!("an unreadable topology: {error}");
            Problem::new(clew_model::ErrorKind::Internal, "topology", text)
        })?;
        topology.send_if_modified(|known| {
            let is_news = next.revision > known.revision;
            if is_news {
                *known = Arc::new(next);
            }
            is_news
        });
    }
    Ok(())
}

/// Where replicas are reached: members of the metastore are known by their address, replicas of
/// shards by their number.
pub(crate) fn addresses(topology: watch::Receiver<SharedTopology>) -> Addresses {
    Arc::new(move |group: GroupId, target: &NodeAddr| match group {
        GroupId::Metastore => Some(target.0.clone()),
        GroupId::Shard { .. } => {
            let replica = ReplicaId(target.0.parse().ok()?);
            topology.borrow().node_of(replica).map(|node| node.addr.clone())
        }
    })
}
