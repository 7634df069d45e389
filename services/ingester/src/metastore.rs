//! What the ingester asks of the metastore.

use bytes::Bytes;
use clew_catalog::{Outcome, Request, View};
use clew_model::ErrorKind;
use clew_node::rpc::{Channel, MESSAGE_BYTES_MAX};
use clew_node::{Clock, Problem};
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::{ApplyRequest, ViewRequest};

use crate::IngesterError;

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
        let command = request.into_command().encode(self.clock.now_unix());
        let message = ApplyRequest { command: Bytes::from(command) };
        let answer = self.client.clone().apply(message).await.map_err(Problem::from)?;
        let outcome = Outcome::decode(&answer.into_inner().outcome).map_err(unreadable)?;
        Ok(R::answer(outcome)?)
    }

    /// The shards and their watermarks, without any tenant's objects.
    pub(crate) async fn shards(&self) -> Result<View, IngesterError> {
        self.ask(ViewRequest { shards_only: true, ..ViewRequest::default() }).await
    }

    /// The shards and the objects of all tenants.
    pub(crate) async fn view(&self) -> Result<View, IngesterError> {
        self.ask(ViewRequest::default()).await
    }

    async fn ask(&self, request: ViewRequest) -> Result<View, IngesterError> {
        let answer = self.client.clone().view(request).await;
        let answer = answer.map_err(Problem::from)?.into_inner();
        Ok(View::decode(&answer.view).map_err(unreadable)?)
    }
}

fn unreadable(error: impl std::fmt::Display) -> Problem {
    Problem::new(ErrorKind::Internal, "metastore_answer", format!("unreadable answer: {error}"))
}
