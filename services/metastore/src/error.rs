//! What can go wrong in the metastore.

use clew_model::ErrorKind;
use clew_node::Problem;

/// The reason in the problem of a member whose release does not fit.
pub(crate) const OTHER_RELEASE: &str = "other_release";

/// An error of the metastore.
#[derive(Debug, thiserror::Error)]
pub enum MetastoreError {
    /// The raft group refused or failed.
    #[error("the metastore's log: {0}")]
    Raft(#[from] clew_raft::Error),
    /// The catalog refused a command of the metastore itself.
    #[error("the catalog refused: {0}")]
    Refused(#[from] clew_catalog::Refusal),
    /// The data directory belongs to another cluster than the configured one.
    #[error("the catalog belongs to another cluster: {0}")]
    OtherCluster(clew_catalog::ClusterId),
    /// Two processes use one name.
    #[error("the node {node} is at {there}, and so is not the one at {here}: give it another name")]
    SameName {
        /// The name.
        node: clew_catalog::NodeId,
        /// Where the one is that asked.
        here: String,
        /// Where the other is.
        there: String,
    },
    /// The cluster uses features that this release does not know, or does without some it needs.
    #[error(
        "the cluster is at feature level {level} and this release supports {supported}: run a \
         release that supports {level}"
    )]
    Release {
        /// The level that the cluster has.
        level: clew_catalog::FeatureLevel,
        /// The levels that this release supports.
        supported: clew_catalog::FeatureRange,
    },
    /// Nothing answered in time.
    #[error("the metastore has no leader")]
    NoLeader,
    /// The leader, asked on behalf of a client, answered so.
    #[error("{0}")]
    Leader(Problem),
    /// The request is for the leader alone, and this member does not lead.
    #[error("this member of the metastore does not lead it")]
    NotLeader,
    /// Bytes that are no request.
    #[error("the request cannot be decoded: {0}")]
    BadRequest(String),
}

impl MetastoreError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            MetastoreError::Raft(error) => error.kind(),
            MetastoreError::Refused(refusal) => refusal.kind(),
            MetastoreError::OtherCluster(_) | MetastoreError::SameName { .. } => {
                ErrorKind::Conflict
            }
            MetastoreError::Leader(problem) => problem.kind,
            MetastoreError::NoLeader | MetastoreError::NotLeader => ErrorKind::Unavailable,
            MetastoreError::BadRequest(_) | MetastoreError::Release { .. } => ErrorKind::Invalid,
        }
    }

    /// Whether this member itself has failed, which trying again does not change.
    pub(crate) fn is_final(&self) -> bool {
        use clew_raft::Error::{Stopped, StoreFailed};
        matches!(self, MetastoreError::Raft(Stopped { .. } | StoreFailed(_)))
    }

    fn reason(&self) -> &'static str {
        match self {
            MetastoreError::Raft(_) => "metastore_log",
            MetastoreError::Refused(_) => "metastore_refused",
            MetastoreError::OtherCluster(_) => "other_cluster",
            MetastoreError::SameName { .. } => "node_name_taken",
            MetastoreError::Release { .. } => OTHER_RELEASE,
            MetastoreError::NoLeader => "metastore_no_leader",
            MetastoreError::Leader(_) => "metastore_leader",
            MetastoreError::NotLeader => "metastore_not_leader",
            MetastoreError::BadRequest(_) => "bad_request",
        }
    }
}

impl From<MetastoreError> for Problem {
    fn from(error: MetastoreError) -> Problem {
        if let MetastoreError::Leader(problem) = error {
            return problem;
        }
        Problem::new(error.kind(), error.reason(), error.to_string())
    }
}
