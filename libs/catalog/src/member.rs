//! The nodes of the cluster and the roles they run.

use clew_model::UnixNanos;
use clew_ring::NodeId;

use crate::ident::ReplicaId;

/// A set of roles, one bit each; bits of roles this release does not know are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Roles(pub u32);

impl Roles {
    /// Receives OTLP and routes it to shards.
    pub const DISTRIBUTOR: Roles = Roles(1);
    /// Hosts shard replicas.
    pub const INGESTER: Roles = Roles(2);
    /// Holds the catalog.
    pub const METASTORE: Roles = Roles(4);
    /// Merges and deletes objects.
    pub const COMPACTOR: Roles = Roles(8);
    /// Answers queries.
    pub const QUERIER: Roles = Roles(16);
    /// The five roles.
    pub const ALL: Roles = Roles(31);

    /// Whether every role of `other` is in this set.
    pub const fn contains(self, other: Roles) -> bool {
        self.0 & other.0 == other.0
    }

    /// The roles in either set.
    #[must_use]
    pub const fn with(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }
}

/// What an operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NodeState {
    /// It takes part.
    #[default]
    Active,
    /// Its replicas move to other nodes, so that it can be taken away.
    Draining,
}

/// A node as it last registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub node: NodeId,
    /// Where its internal RPC listens, as `host:port`.
    pub addr: String,
    /// Its failure zone; empty when unknown.
    pub zone: String,
    /// Its share of the shards compared with other nodes, at least 1.
    pub capacity: u32,
    /// The roles it runs.
    pub roles: Roles,
    /// When it first registered.
    pub first_seen: UnixNanos,
    /// When it last registered.
    pub last_seen: UnixNanos,
    /// What an operator wants of it.
    pub state: NodeState,
    /// The replica of the disk that it uses now, if it has one.
    pub replica: Option<ReplicaId>,
}
