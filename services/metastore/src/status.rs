//! How the cluster stands, as the member that leads sees it.

use clew_proto::metastore::v1::{NodeStatus, ShardStatus, StatusResponse};

use crate::beats::SILENT_MAX;
use crate::levels::said;
use crate::service::Inner;

impl Inner {
    /// The account for `clew cluster status` and `/status/cluster`.
    pub(crate) fn status(&self) -> StatusResponse {
        let now = self.deps.clock.monotonic();
        let seen = self.beats.all();
        let (topology, revision, watermarks) = self.group.with_state(|machine| {
            let state = &machine.state;
            let watermarks: Vec<_> = state
                .shard_logs()
                .map(|(shard, log)| ShardStatus { shard: shard.0, watermark: log.watermark.index })
                .collect();
            (state.topology(), state.revision(), watermarks)
        });
        let node = |info: &clew_catalog::NodeInfo| {
            let seen = seen.get(&info.node);
            let silent = seen.map(|seen| now.saturating_sub(seen.at));
            NodeStatus {
                node: info.node.to_string(),
                silent_millis: silent
                    .map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
                leaving: seen.is_some_and(|seen| seen.leaving),
                alive: silent.is_some_and(|silent| silent <= SILENT_MAX),
                replicas: seen.map(|seen| seen.replicas.clone()).unwrap_or_default(),
                features: seen.map(|seen| said(seen.features)),
            }
        };
        let plan = self.level_plan(&topology);
        StatusResponse {
            feature_level: topology.feature_level.0,
            feature_level_next: self.level_max().max(topology.feature_level).0,
            held_by: plan.held_by,
            leader: self.addr.clone(),
            term: self.group.leadership().borrow().term,
            revision,
            voters: self.group.members().voters.into_values().map(|addr| addr.0).collect(),
            nodes: topology.nodes.iter().map(node).collect(),
            shards: watermarks,
        }
    }
}
