//! Commands about the cluster and its members.

use std::sync::Arc;

use clew_ring::{MapGeneration, NodeId};

use super::{Generation, ReplicaInfo, State};
use crate::changes::ChangeLog;
use crate::command::{CreateCluster, IssueReplicaId, RegisterNode, SetNodeState};
use crate::ident::ReplicaId;
use crate::member::{NodeInfo, NodeState, Roles};
use crate::outcome::{ClusterOutcome, Outcome, Refusal};

/// The most nodes the catalog remembers.
pub(crate) const NODES_MAX: usize = 4_096;

/// The most nodes remembered that keep nothing. Kubernetes gives each of their processes a new name, and
/// nobody says when an old one is gone for good: past this, the one that registered longest ago is
/// forgotten.
pub(crate) const STATELESS_NODES_MAX: usize = 1_024;

/// The most replica ids the catalog issues.
pub(crate) const REPLICAS_MAX: usize = 65_536;

const ADDR_BYTES_MAX: usize = 256;
const ZONE_BYTES_MAX: usize = 128;
const CAPACITY_MAX: u32 = 1_000_000;

impl State {
    pub(super) fn create_cluster(&mut self, command: &CreateCluster) -> Result<Outcome, Refusal> {
        if let Some(cluster) = self.cluster {
            return Ok(Outcome::Cluster(if cluster == command.cluster {
                ClusterOutcome::AlreadyCreated
            } else {
                ClusterOutcome::Different { cluster }
            }));
        }
        let map = MapGeneration::uniform(1, command.shard_count)
            .map_err(|error| Refusal::Invalid { reason: error.to_string() })?;
        let generation = Generation { map: Arc::new(map), created_at: self.now };
        self.cluster = Some(command.cluster);
        self.incarnation = 1;
        self.generations.push(generation);
        // A reader that looked before has to look again: changes do not tell the cluster's id.
        self.changes = ChangeLog::starting_after(self.revision);
        Ok(Outcome::Cluster(ClusterOutcome::Created))
    }

    pub(super) fn register_node(&mut self, command: RegisterNode) -> Result<Outcome, Refusal> {
        let RegisterNode { node, addr, zone, capacity, roles, features } = command;
        self.check_release(features)?;
        let invalid = |reason: String| Err(Refusal::Invalid { reason });
        if addr.is_empty() || addr.len() > ADDR_BYTES_MAX {
            return invalid(format!("the address must have 1 to {ADDR_BYTES_MAX} bytes"));
        }
        if zone.len() > ZONE_BYTES_MAX {
            return invalid(format!("the zone must have at most {ZONE_BYTES_MAX} bytes"));
        }
        if capacity == 0 || capacity > CAPACITY_MAX {
            return invalid(format!("the capacity must be from 1 to {CAPACITY_MAX}: {capacity}"));
        }
        if !self.nodes.contains_key(&node) {
            self.forget_a_stateless_node();
            if self.nodes.len() >= NODES_MAX {
                return Err(full("nodes", NODES_MAX as u64));
            }
        }
        let known = self.nodes.get(&node);
        let info = NodeInfo {
            node: node.clone(),
            addr,
            zone,
            capacity,
            roles,
            first_seen: known.map_or(self.now, |known| known.first_seen),
            last_seen: self.now,
            state: known.map_or_else(NodeState::default, |known| known.state),
            replica: known.and_then(|known| known.replica),
        };
        self.nodes.insert(node, info);
        Ok(Outcome::NodeRegistered)
    }

    /// Makes room for one more node that keeps nothing, if there are too many of them.
    fn forget_a_stateless_node(&mut self) {
        let keeps_nothing = |info: &&NodeInfo| {
            let roles = info.roles;
            info.replica.is_none()
                && !roles.contains(Roles::INGESTER)
                && !roles.contains(Roles::METASTORE)
        };
        let stateless = || self.nodes.values().filter(keeps_nothing);
        if stateless().count() < STATELESS_NODES_MAX {
            return;
        }
        let oldest = stateless().min_by_key(|info| (info.last_seen, &info.node));
        if let Some(oldest) = oldest.map(|info| info.node.clone()) {
            self.nodes.remove(&oldest);
        }
    }

    pub(super) fn issue_replica_id(&mut self, command: IssueReplicaId) -> Result<Outcome, Refusal> {
        let IssueReplicaId { disk, node, holds } = command;
        if !self.nodes.contains_key(&node) {
            return Err(Refusal::UnknownNode);
        }
        let is_other = |replica: ReplicaId| match self.replicas.get(&disk) {
            Some(known) => known.replica != replica,
            None => self.replica_disks.contains_key(&replica) || replica.0 == 0,
        };
        if let Some(replica) = holds.filter(|replica| is_other(*replica)) {
            let reason = format!("replica {replica} belongs to another disk");
            return Err(Refusal::Invalid { reason });
        }
        if let Some(known) = self.replicas.get_mut(&disk) {
            let (replica, before) = (known.replica, std::mem::replace(&mut known.node, node));
            let now = known.node.clone();
            if let Some(left) = self.nodes.get_mut(&before).filter(|_| before != now)
                && left.replica == Some(replica)
            {
                left.replica = None;
            }
            self.attach(&now, replica);
            return Ok(Outcome::Replica(replica));
        }
        if self.replicas.len() >= REPLICAS_MAX {
            return Err(full("replicas", REPLICAS_MAX as u64));
        }
        let last = self.replica_disks.last_key_value().map_or(0, |(replica, _)| replica.0);
        let next = last.max(self.replica_floor).checked_add(1);
        let next = next.ok_or_else(|| full("replicas", u64::MAX))?;
        let replica = holds.unwrap_or(ReplicaId(next));
        self.replica_disks.insert(replica, disk);
        self.attach(&node, replica);
        self.replicas.insert(disk, ReplicaInfo { replica, disk, node });
        Ok(Outcome::Replica(replica))
    }

    fn attach(&mut self, node: &NodeId, replica: ReplicaId) {
        if let Some(info) = self.nodes.get_mut(node) {
            info.replica = Some(replica);
        }
    }

    pub(super) fn set_node_state(&mut self, command: SetNodeState) -> Result<Outcome, Refusal> {
        let node = self.nodes.get_mut(&command.node).ok_or(Refusal::UnknownNode)?;
        node.state = command.state;
        Ok(Outcome::NodeStateSet)
    }
}

pub(super) fn full(what: &str, limit: u64) -> Refusal {
    Refusal::Full { what: what.to_owned(), limit }
}
