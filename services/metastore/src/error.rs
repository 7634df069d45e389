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
    /// The bucket failed.
    #[error("the bucket: {0}")]
    Bucket(#[from] clew_storage::Error),
    /// Stored catalog data cannot be read.
    #[error("{what}: {error}")]
    Unreadable {
        /// Which.
        what: String,
        /// Why.
        error: clew_catalog::DecodeError,
    },
    /// The disk failed.
    #[error("{path}: {source}")]
    Disk {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Work could not be done.
    #[error(transparent)]
    Task(#[from] clew_node::tasks::TaskError),
    /// The metastore was restored while this member was away.
    #[error(
        "{there} has a catalog that was restored after this member was last there: what is in raft/ \
         here is over. Remove it and disk-id to join that metastore"
    )]
    PassedOver {
        /// The member with the later catalog.
        there: String,
    },
    /// There is a catalog that would be passed over.
    #[error("{0}")]
    HasCatalog(String),
    /// There is no backup to restore.
    #[error("{0}")]
    NoBackup(String),
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
            MetastoreError::OtherCluster(_)
            | MetastoreError::SameName { .. }
            | MetastoreError::PassedOver { .. }
            | MetastoreError::HasCatalog(_) => ErrorKind::Conflict,
            MetastoreError::Bucket(error) => error.kind(),
            MetastoreError::Unreadable { error, .. } => error.kind(),
            MetastoreError::Disk { .. } | MetastoreError::Task(_) => ErrorKind::Internal,
            MetastoreError::NoBackup(_) => ErrorKind::NotFound,
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
            MetastoreError::Bucket(_) => "metastore_bucket",
            MetastoreError::Unreadable { .. } => "catalog_unreadable",
            MetastoreError::Disk { .. } => "metastore_disk",
            MetastoreError::Task(_) => "metastore_task",
            MetastoreError::PassedOver { .. } => "metastore_passed_over",
            MetastoreError::HasCatalog(_) => "has_catalog",
            MetastoreError::NoBackup(_) => "no_backup",
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
