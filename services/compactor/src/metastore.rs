//! What the compactor asks of the metastore.

use std::time::Duration;

use bytes::Bytes;
use clew_catalog::{Outcome, Request};
use clew_model::ErrorKind;
use clew_node::rpc::{Channel, MESSAGE_BYTES_MAX};
use clew_node::{Clock, Problem};
use clew_proto::metastore::v1::compaction_service_client::CompactionServiceClient;
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::{
    ApplyRequest, CheckRequest, CheckResponse, GarbageRequest, LeaseRequest, LeaseResponse,
};
use tonic::{Response, Status};

use crate::CompactorError;

/// How long an answer may take; the metastore itself waits for less.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A client of the metastore.
#[derive(Debug, Clone)]
pub(crate) struct Metastore {
    commands: MetastoreServiceClient<Channel>,
    jobs: CompactionServiceClient<Channel>,
    clock: Clock,
}

impl Metastore {
    pub(crate) fn new(channel: Channel, clock: Clock) -> Metastore {
        let commands = MetastoreServiceClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let jobs = CompactionServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Metastore { commands, jobs, clock }
    }

    /// Sends one command. An error other than a refusal leaves its outcome unknown.
    pub(crate) async fn apply<R: Request>(&self, request: R) -> Result<R::Answer, CompactorError> {
        let command = Bytes::from(request.into_command().encode(self.clock.now_unix()));
        let mut client = self.commands.clone();
        let answer = self.limited(client.apply(ApplyRequest { command })).await?;
        let outcome = Outcome::decode(&answer.outcome).map_err(|error| {
            let message = format!("unreadable answer: {error}");
            Problem::new(ErrorKind::Internal, "metastore_answer", message)
        })?;
        Ok(R::answer(outcome)?)
    }

    pub(crate) async fn lease(
        &self,
        request: LeaseRequest,
    ) -> Result<LeaseResponse, CompactorError> {
        let mut client = self.jobs.clone();
        Ok(self.limited(client.lease(request)).await?)
    }

    pub(crate) async fn garbage(
        &self,
        grace: Duration,
        max: u32,
    ) -> Result<Vec<String>, CompactorError> {
        let grace = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
        let mut client = self.jobs.clone();
        let answer = self.limited(client.garbage(GarbageRequest { grace, max })).await?;
        Ok(answer.objects)
    }

    pub(crate) async fn check(
        &self,
        objects: Vec<String>,
    ) -> Result<CheckResponse, CompactorError> {
        let mut client = self.jobs.clone();
        Ok(self.limited(client.check(CheckRequest { objects })).await?)
    }

    async fn limited<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Problem> {
        let answer = self.clock.timeout(TIMEOUT, call).await.unwrap_or_else(|| {
            Err(Problem::new(ErrorKind::Unavailable, "metastore_silent", "no answer").into())
        });
        Ok(answer.map_err(Problem::from)?.into_inner())
    }
}
