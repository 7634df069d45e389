//! `clew cluster scale`: makes a cluster ready for another number of nodes in a StatefulSet.
//!
//! Kubernetes takes the highest ordinals away first. Their replicas are moved before, so that nothing
//! is lost and no shard is left with fewer copies; and what was drained for an earlier, smaller number
//! may take replicas again.

use std::fmt::Write as _;

use clew_catalog::{NodeState, Topology};
use clew_node::Problem;
use clew_node::rpc::Channel;

use crate::cluster::{drain, look, set_state};

/// How many nodes a StatefulSet will have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    name: String,
    count: u32,
}

/// Reads `NAME=COUNT`.
pub(crate) fn target(text: &str) -> Result<Target, String> {
    let parsed = text.rsplit_once('=').and_then(|(name, count)| Some((name, count.parse().ok()?)));
    match parsed {
        Some((name, count)) if !name.is_empty() => Ok(Target { name: name.to_owned(), count }),
        _ => Err("use the form clew-ingester=3".to_owned()),
    }
}

/// Drains the nodes at or above each target's count, after letting the others take replicas.
pub(crate) async fn run(channel: &Channel, targets: &[Target]) -> Result<String, Problem> {
    let topology = look(channel).await?;
    let mut told = String::new();
    let (leaving, staying) = divide(&topology, targets);
    for node in staying {
        set_state(channel, &node, NodeState::Active).await?;
        let _ = writeln!(told, "{node} may take replicas again");
    }
    // All are marked before the first is waited for: nothing moves from one that goes to another.
    for node in &leaving {
        set_state(channel, node, NodeState::Draining).await?;
    }
    for node in &leaving {
        told += &drain(channel, node, true).await?;
    }
    if told.is_empty() {
        told.push_str("nothing to do\n");
    }
    Ok(told)
}

/// The nodes that go away, and those that stay and are drained now.
fn divide(topology: &Topology, targets: &[Target]) -> (Vec<String>, Vec<String>) {
    let (mut leaving, mut staying) = (Vec::new(), Vec::new());
    for info in topology.nodes.iter().filter(|info| info.replica.is_some()) {
        let name = info.node.as_str();
        let found = targets.iter().find_map(|target| Some((target, ordinal(name, &target.name)?)));
        match found {
            Some((target, ordinal)) if ordinal >= target.count => leaving.push(name.to_owned()),
            Some(_) if info.state == NodeState::Draining => staying.push(name.to_owned()),
            _ => {}
        }
    }
    (leaving, staying)
}

/// The ordinal of a node of the set `name`: 4 of `clew-ingester-4`.
fn ordinal(node: &str, name: &str) -> Option<u32> {
    node.strip_prefix(name)?.strip_prefix('-')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_and_a_number() {
        let expected = Target { name: "clew-ingester-eu-1a".to_owned(), count: 3 };
        assert_eq!(target("clew-ingester-eu-1a=3"), Ok(expected));
        for wrong in ["", "clew", "=3", "clew=", "clew=-1", "clew=three"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_nodes_of_the_set_have_an_ordinal() {
        assert_eq!(ordinal("clew-ingester-4", "clew-ingester"), Some(4));
        assert_eq!(ordinal("clew-ingester-eu-1a-4", "clew-ingester"), None);
        assert_eq!(ordinal("other-4", "clew-ingester"), None);
    }
}
