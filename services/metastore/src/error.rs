//! What can go wrong in the metastore.

use clew_model::ErrorKind;
use clew_node::Problem;

/// An error of the metastore.
#[derive(Debug, thiserror::Error)]
pub enum MetastoreError {
    /// The raft group refused or failed.
    #[error("the metastore's log: {0}")]
    Raft(#[from] clew_raft::Error),
    /// The catalog refused a command of the metastore itself.
    #[error("the catalog refused to create the cluster: {0}")]
    Refused(#[from] clew_catalog::Refusal),
    /// The data directory belongs to another cluster than the configured one.
    #[error("the catalog belongs to another cluster: {0}")]
    OtherCluster(clew_catalog::ClusterId),
    /// Nothing answered in time.
    #[error("the metastore has no leader")]
    NoLeader,
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
            MetastoreError::OtherCluster(_) => ErrorKind::Conflict,
            MetastoreError::NoLeader => ErrorKind::Unavailable,
            MetastoreError::BadRequest(_) => ErrorKind::Invalid,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            MetastoreError::Raft(_) => "metastore_log",
            MetastoreError::Refused(_) => "metastore_refused",
            MetastoreError::OtherCluster(_) => "other_cluster",
            MetastoreError::NoLeader => "metastore_no_leader",
            MetastoreError::BadRequest(_) => "bad_request",
        }
    }
}

impl From<MetastoreError> for Problem {
    fn from(error: MetastoreError) -> Problem {
        Problem::new(error.kind(), error.reason(), error.to_string())
    }
}
