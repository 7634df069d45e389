//! Commands about feature levels, and the node that is forgotten.

use super::State;
use crate::command::{Command, ForgetNode, RaiseFeatureLevel};
use crate::feature::{FeatureLevel, FeatureRange};
use crate::outcome::{ForgetOutcome, Outcome, Refusal};

impl State {
    /// Whether the command may do anything at the level that the cluster has.
    ///
    /// Refusing must leave the state as a release leaves it that does not know the command: this is
    /// asked before anything else is taken from it.
    pub(super) fn check_level(&self, command: &Command) -> Result<(), Refusal> {
        let (needs, level) = (command.feature_level(), self.feature_level);
        if needs <= level { Ok(()) } else { Err(Refusal::NotYet { needs, level }) }
    }

    /// Refuses a node of a release that does not support the cluster's level. Below the level at which
    /// every replica does this none may.
    pub(super) fn check_release(&self, features: FeatureRange) -> Result<(), Refusal> {
        let level = self.feature_level;
        if level < FeatureLevel::LEVELS_ARE_KEPT || features.contains(level) {
            return Ok(());
        }
        // Not a refusal of its own: the release that is refused may be older than it.
        let reason = format!(
            "the cluster is at feature level {level} and this release supports {features}: run a \
             release that supports {level}"
        );
        Err(Refusal::Invalid { reason })
    }

    pub(super) fn raise_feature_level(&mut self, command: &RaiseFeatureLevel) -> Outcome {
        self.feature_level = self.feature_level.max(command.to);
        Outcome::FeatureLevel(self.feature_level)
    }

    pub(super) fn forget_node(&mut self, command: &ForgetNode) -> Result<Outcome, Refusal> {
        let info = self.nodes.get(&command.node).ok_or(Refusal::UnknownNode)?;
        let holds = |replica| {
            let topology = self.topology();
            topology.shards.values().any(|place| place.has(replica))
        };
        if info.replica.is_some_and(holds) {
            return Ok(Outcome::Forget(ForgetOutcome::HoldsReplicas));
        }
        self.nodes.remove(&command.node);
        Ok(Outcome::Forget(ForgetOutcome::Forgotten))
    }
}
