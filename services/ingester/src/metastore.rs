//! What the ingester asks of the metastore.

use std::time::Duration;

use bytes::Bytes;
use clew_catalog::{Incarnation, ObjectMeta, Outcome, Request, View};
use clew_model::{ErrorKind, UnixNanos};
use clew_node::rpc::{Channel, MESSAGE_BYTES_MAX};
use clew_node::{Clock, Problem};
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::{ApplyRequest, FlushesOf, ViewRequest, ViewResponse};
use clew_ring::ShardId;

use crate::IngesterError;

/// How long a question may take; the metastore itself waits for less.
const VIEW_TIMEOUT: Duration = Duration::from_secs(15);

/// The same for a command, whose outcome is unknown then.
const APPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// A client of the metastore.
#[derive(Debug, Clone)]
pub(crate) struct MetastoreClient {
    client: MetastoreServiceClient<Channel>,
    clock: Clock,
}

impl MetastoreClient {
    pub(crate) fn new(channel: Channel, clock: Clock) -> MetastoreClient {
        let client = MetastoreServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        MetastoreClient { client, clock }
    }

    /// Sends one command. An error other than a refusal leaves its outcome unknown.
    pub(crate) async fn apply<R: Request>(&self, request: R) -> Result<R::Answer, IngesterError> {
        Ok(self.apply_at(request).await?.1)
    }

    /// As [`MetastoreClient::apply`], with the revision that the command became.
    pub(crate) async fn apply_at<R: Request>(
        &self,
        request: R,
    ) -> Result<(u64, R::Answer), IngesterError> {
        let command = request.into_command().encode(self.clock.now_unix());
        let message = ApplyRequest { command: Bytes::from(command) };
        let mut client = self.client.clone();
        let answer = self.clock.timeout(APPLY_TIMEOUT, client.apply(message)).await;
        let answer = answer.unwrap_or_else(|| {
            Err(Problem::new(ErrorKind::Unavailable, "metastore_silent", "no answer").into())
        });
        let answer = answer.map_err(Problem::from)?;
        let answer = answer.into_inner();
        let outcome = Outcome::decode(&answer.outcome).map_err(unreadable)?;
        Ok((answer.revision, R::answer(outcome)?))
    }

    /// The shards and their watermarks, without any tenant's objects.
    pub(crate) async fn shards(&self) -> Result<View, IngesterError> {
        let request = ViewRequest { shards_only: true, ..ViewRequest::default() };
        Ok(View::decode(&self.ask(request).await?.view).map_err(unreadable)?)
    }

    /// The objects flushed from a shard's log since a time, oldest first, whoever they belong to.
    pub(crate) async fn flushes(
        &self,
        shard: ShardId,
        incarnation: Incarnation,
        since: UnixNanos,
    ) -> Result<Vec<ObjectMeta>, IngesterError> {
        let flushes_of =
            FlushesOf { shard: shard.0, incarnation: incarnation.0, since_unix_nanos: since.0 };
        let request = ViewRequest { flushes_of: Some(flushes_of), ..ViewRequest::default() };
        let answer = self.ask(request).await?;
        let objects = answer.flushes.iter().map(|bytes| ObjectMeta::decode(bytes));
        Ok(objects.collect::<Result<_, _>>().map_err(unreadable)?)
    }

    async fn ask(&self, request: ViewRequest) -> Result<ViewResponse, IngesterError> {
        let mut client = self.client.clone();
        let answer = client.view(request);
        let answer = self.clock.timeout(VIEW_TIMEOUT, answer).await.unwrap_or_else(|| {
            Err(Problem::new(ErrorKind::Unavailable, "metastore_silent", "no answer").into())
        });
        Ok(answer.map_err(Problem::from)?.into_inner())
    }
}

fn unreadable(error: impl std::fmt::Display) -> Problem {
    Problem::new(ErrorKind::Internal, "metastore_answer", format!("unreadable answer: {error}"))
}
