//! The sign of life that every process gives the metastore, with how its replicas stand.

use std::time::Duration;

use clew_catalog::RegisterNode;
use clew_ingester::Handle;
use clew_model::ErrorKind;
use clew_node::rpc::Channel;
use clew_node::{Clock, Problem, Stop};
use clew_proto::metastore::v1::HeartbeatRequest;
use clew_proto::metastore::v1::cluster_service_client::ClusterServiceClient;

use crate::cluster::apply_at;

const INTERVAL: Duration = Duration::from_secs(1);

/// How long one may be on its way.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Gives signs of life like `beat` until `stop`; from `leaving` on it says that the process goes away.
pub(crate) async fn run(
    beat: HeartbeatRequest,
    metastore: Channel,
    register: RegisterNode,
    ingester: Option<Handle>,
    clock: Clock,
    leaving: Stop,
    stop: Stop,
) {
    let mut client = ClusterServiceClient::new(metastore.clone());
    loop {
        let replicas = ingester.as_ref().map(Handle::reports).unwrap_or_default();
        let leaving = leaving.is_stopped();
        let beat = HeartbeatRequest { leaving, replicas, ..beat.clone() };
        match stop.or(clock.timeout(ANSWER_MAX, client.heartbeat(beat))).await {
            None => return,
            Some(Some(Ok(_))) => {}
            Some(Some(Err(status))) => match Problem::from(status) {
                problem if problem.kind == ErrorKind::Conflict => {
                    tracing::error!(%problem, "the node's name is not unique");
                }
                problem if problem.kind == ErrorKind::NotFound => {
                    // The catalog was restored from before it knew the node.
                    let again = apply_at(&metastore, register.clone(), clock.now_unix());
                    let registered = stop.or(again).await;
                    tracing::warn!(ok = matches!(registered, Some(Ok(()))), "registered again");
                }
                problem => tracing::debug!(%problem, "a sign of life did not arrive"),
            },
            Some(None) => tracing::debug!("a sign of life was not answered"),
        }
        if stop.or(clock.sleep(INTERVAL)).await.is_none() {
            return;
        }
    }
}
