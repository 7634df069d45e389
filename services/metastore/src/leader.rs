//! Reaching the member that leads: a client may ask any member, and one that does not lead asks the
//! leader on its behalf, or confirms with it that its own state is current.

use std::time::Duration;

use bytes::Bytes;
use clew_catalog::Outcome;
use clew_model::ErrorKind;
use clew_node::Problem;
use clew_node::rpc::{Channel, MESSAGE_BYTES_MAX};
use clew_proto::metastore::v1::catalog_service_client::CatalogServiceClient;
use clew_proto::metastore::v1::member_service_client::MemberServiceClient;
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::{
    ApplyRequest, BackupRequest, BackupResponse, JoinRequest, ReadIndexRequest,
};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::MetastoreError;
use crate::service::Inner;

/// Between two attempts while there is no leader.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// What one attempt to reach the leader may take before it is looked for again.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// Marks a request that a member sends on behalf of a client, so that none goes in circles.
const FORWARDED: &str = "clew-forwarded";

/// Whether another member sent the request.
pub(crate) fn is_forwarded(metadata: &MetadataMap) -> bool {
    metadata.contains_key(FORWARDED)
}

/// A request as a member sends it to the leader.
pub(crate) fn forwarded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request
}

/// Who leads.
enum Leader {
    Here,
    There(Channel),
}

impl Inner {
    /// Whether this member leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.group.leadership().borrow().is_leader
    }

    fn leader(&self) -> Option<Leader> {
        let leadership = *self.group.leadership().borrow();
        if leadership.is_leader {
            return Some(Leader::Here);
        }
        let addr = self.group.members().voters.get(&leadership.leader?).cloned()?;
        Some(Leader::There(self.pool.get(&addr.0).ok()?))
    }

    /// Proposes a command, here or through the leader. While there is none it waits and tries again:
    /// every command may be repeated.
    pub(crate) async fn apply(
        &self,
        command: Bytes,
        is_forwarded: bool,
    ) -> Result<(u64, Outcome), MetastoreError> {
        loop {
            let error = match self.leader() {
                Some(Leader::Here) => {
                    match Box::pin(self.group.propose(command.clone(), self.timeout)).await {
                        Ok(proposed) => return Ok((proposed.log_id.index, proposed.response)),
                        Err(error) => MetastoreError::Raft(error),
                    }
                }
                _ if is_forwarded => return Err(MetastoreError::NotLeader),
                Some(Leader::There(channel)) => {
                    let mut client = MetastoreServiceClient::new(channel)
                        .max_decoding_message_size(MESSAGE_BYTES_MAX)
                        .max_encoding_message_size(MESSAGE_BYTES_MAX);
                    let message = ApplyRequest { command: command.clone() };
                    match self.ask(Box::pin(client.apply(forwarded(message)))).await {
                        Ok(answer) => {
                            let outcome = Outcome::decode(&answer.outcome);
                            let outcome = outcome.map_err(|error| unreadable(&error))?;
                            return Ok((answer.revision, outcome));
                        }
                        Err(problem) => MetastoreError::Leader(problem),
                    }
                }
                None => MetastoreError::NoLeader,
            };
            self.pause_before_retry(error, is_forwarded).await?;
        }
    }

    /// Makes sure that what is read here now includes everything committed before the call.
    pub(crate) async fn confirm(&self) -> Result<(), MetastoreError> {
        loop {
            let error = match self.leader() {
                Some(Leader::Here) => match Box::pin(self.group.read_index()).await {
                    Ok(_) => return Ok(()),
                    Err(error) => MetastoreError::Raft(error),
                },
                Some(Leader::There(channel)) => {
                    let mut client = MemberServiceClient::new(channel);
                    match self.ask(Box::pin(client.read_index(ReadIndexRequest {}))).await {
                        Ok(answer) => return Ok(self.group.wait_applied(answer.index).await?),
                        Err(problem) => MetastoreError::Leader(problem),
                    }
                }
                None => MetastoreError::NoLeader,
            };
            self.pause_before_retry(error, false).await?;
        }
    }

    /// Asks the leader something that only it knows; nothing if that is this member.
    pub(crate) async fn ask_leader<T, F>(
        &self,
        is_forwarded: bool,
        call: impl Fn(Channel) -> F,
    ) -> Result<Option<T>, MetastoreError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        loop {
            let error = match self.leader() {
                Some(Leader::Here) => return Ok(None),
                _ if is_forwarded => return Err(MetastoreError::NotLeader),
                Some(Leader::There(channel)) => match self.ask(Box::pin(call(channel))).await {
                    Ok(answer) => return Ok(Some(answer)),
                    Err(problem) => MetastoreError::Leader(problem),
                },
                None => MetastoreError::NoLeader,
            };
            self.pause_before_retry(error, is_forwarded).await?;
        }
    }

    /// Sends a newcomer's request to the leader; it may take long.
    pub(crate) async fn pass_on_join(&self, message: &JoinRequest) -> Result<(), MetastoreError> {
        let Some(Leader::There(channel)) = self.leader() else {
            return Err(MetastoreError::NoLeader);
        };
        let mut client = MemberServiceClient::new(channel);
        let joined = Box::pin(client.join(forwarded(message.clone()))).await;
        joined.map(|_| ()).map_err(|status| MetastoreError::Leader(Problem::from(status)))
    }

    /// Has the leader back the catalog up; it may take long.
    pub(crate) async fn pass_on_backup(&self) -> Result<BackupResponse, MetastoreError> {
        let Some(Leader::There(channel)) = self.leader() else {
            return Err(MetastoreError::NoLeader);
        };
        let mut client = CatalogServiceClient::new(channel);
        let made = Box::pin(client.backup(forwarded(BackupRequest {}))).await;
        made.map(Response::into_inner).map_err(|s| MetastoreError::Leader(Problem::from(s)))
    }

    async fn ask<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Problem> {
        let term = self.group.leadership().borrow().term;
        let mut leadership = self.group.leadership();
        let answered = async {
            tokio::select! {
                biased;
                answer = call => Some(answer),
                // Another one leads by now: this one may never answer.
                _ = leadership.wait_for(|now| now.term > term) => None,
            }
        };
        match self.deps.clock.timeout(ATTEMPT_MAX, answered).await.flatten() {
            Some(Ok(answer)) => Ok(answer.into_inner()),
            Some(Err(status)) => Err(Problem::from(status)),
            None => Err(Problem::new(
                ErrorKind::Unavailable,
                "metastore_silent",
                "the metastore's leader does not answer",
            )),
        }
    }

    /// Fails for good if trying again would not help. How long to go on is the caller's business.
    async fn pause_before_retry(
        &self,
        error: MetastoreError,
        is_forwarded: bool,
    ) -> Result<(), MetastoreError> {
        if is_forwarded || error.is_final() || error.kind() != ErrorKind::Unavailable {
            return Err(error);
        }
        self.deps.clock.sleep(RETRY_DELAY).await;
        Ok(())
    }
}

fn unreadable(error: &clew_catalog::DecodeError) -> MetastoreError {
    let message = format!("the leader's answer is unreadable: {error}");
    MetastoreError::Leader(Problem::new(ErrorKind::Internal, "metastore_answer", message))
}
