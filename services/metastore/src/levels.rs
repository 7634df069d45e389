//! Raising the cluster's feature level: by the member that leads, as soon as every node supports the
//! next one.
//!
//! What nodes say in their signs of life decides whether it is worth asking. Members are asked once more
//! directly before the level is raised, since a member that does not know the command would disagree
//! with the others from then on.

use std::collections::BTreeMap;

use bytes::Bytes;
use clew_catalog::{
    FeatureLevel, FeatureRange, LevelPlan, NodeId, RaiseFeatureLevel, Request as _, Signs,
    Topology, plan_feature_level,
};
use clew_proto::metastore::v1 as wire;
use futures::future::join_all;

use crate::MetastoreError;
use crate::service::{Inner, Metastore};

/// What another node said; one that says nothing is older than levels.
pub(crate) fn stated(said: Option<&wire::FeatureRange>) -> FeatureRange {
    said.map_or_else(FeatureRange::default, |said| FeatureRange {
        oldest: FeatureLevel(said.oldest.max(1)),
        newest: FeatureLevel(said.newest.max(1)),
    })
}

/// The same the other way.
pub(crate) fn said(range: FeatureRange) -> wire::FeatureRange {
    wire::FeatureRange { oldest: range.oldest.0, newest: range.newest.0 }
}

impl Inner {
    /// The level that the cluster can have, by what its nodes have said.
    pub(crate) fn level_plan(&self, topology: &Topology) -> LevelPlan {
        let now = self.deps.clock.monotonic();
        let seen = self.beats.all();
        let stated: BTreeMap<NodeId, FeatureRange> =
            seen.into_iter().map(|(node, seen)| (node, seen.features)).collect();
        let alive = self.beats.alive(topology, now, self.began(), self.dead_after);
        let members = self.member_addrs();
        let signs = Signs { stated: &stated, alive: &alive, members: &members };
        plan_feature_level(topology, signs, self.level_max())
    }

    fn member_addrs(&self) -> Vec<String> {
        let members = self.group.members();
        members
            .voters
            .into_values()
            .chain(members.learners.into_values())
            .map(|addr| addr.0)
            .collect()
    }

    /// The highest level that this member would raise the cluster to.
    pub(crate) fn level_max(&self) -> FeatureLevel {
        match self.feature_level_max {
            0 => self.features.newest,
            most => self.features.newest.min(FeatureLevel(most)),
        }
    }

    /// Whether this process may take part in the cluster whose catalog it holds.
    pub(crate) fn check_level(&self) -> Result<(), MetastoreError> {
        let level = self.group.with_state(|machine| machine.state.feature_level());
        if self.features.contains(level) {
            return Ok(());
        }
        Err(MetastoreError::Release { level, supported: self.features })
    }
}

impl Metastore {
    /// Raises the level if every node supports a higher one.
    pub(crate) async fn raise_level(&self, topology: &Topology) -> Result<(), MetastoreError> {
        let LevelPlan { level, .. } = self.0.level_plan(topology);
        if topology.cluster.is_none() || level <= topology.feature_level {
            return Ok(());
        }
        self.0.group.read_index().await?;
        let members = self.0.member_addrs();
        let others = members.iter().filter(|addr| **addr != self.0.addr);
        for hello in join_all(others.map(|addr| self.hello(addr))).await {
            let features = stated(hello.map_err(MetastoreError::Leader)?.features.as_ref());
            if !features.contains(level) {
                return Ok(());
            }
        }
        let command = RaiseFeatureLevel { to: level }.into_command();
        let encoded = Bytes::from(command.encode(self.0.deps.clock.now_unix()));
        let (_, outcome) = self.0.apply(encoded, true).await?;
        let level = RaiseFeatureLevel::answer(outcome)?;
        tracing::info!(
            from = topology.feature_level.0,
            to = level.0,
            "the feature level is raised"
        );
        Ok(())
    }
}
