//! Deleting traces: what is to go is found by its query, the heads are flushed so that all of it lies
//! in objects, and the catalog is told. From then on no query sees it; compaction removes the bytes.

use bytes::Bytes;
use clew_catalog::{
    Command, DELETION_TRACES_MAX, DeleteTraces, DeletionOutcome, Outcome, RemoveTenant, Request,
    RequestId,
};
use clew_model::{ErrorKind, TenantId, TraceId};
use clew_node::Problem;
use clew_node::rpc::MESSAGE_BYTES_MAX;
use clew_proto::metastore::v1::compaction_service_client::CompactionServiceClient;
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::{ApplyRequest, DeletionRecord, DeletionsRequest};
use clew_proto::shard::v1::FlushRequest;
use futures::future::join_all;

use super::missing::Missing;
use super::{Answer, Progress, Root};
use crate::ask::{DeletionAsk, SearchAsk};

/// Traces that are looked for and deleted in one step.
const STEP_TRACES: usize = 20_000;

/// Ids that an answer shows.
const SHOWN_IDS: usize = 100;

/// What a deletion came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    /// How many traces are deleted, or would be.
    pub(crate) traces: u64,
    /// There are more: only so many are looked for in a dry run.
    pub(crate) more: bool,
    /// Some of them.
    pub(crate) ids: Vec<TraceId>,
    /// What the deletions are called in the record; none in a dry run.
    pub(crate) deletions: Vec<u64>,
}

impl Root {
    /// Deletes traces of `tenant`, or only tells which they are.
    ///
    /// # Errors
    /// [`Problem`] when the query is wrong, or not everything can be read: what cannot be seen
    /// cannot be deleted for certain.
    pub(crate) async fn delete(
        &self,
        tenant: &TenantId,
        ask: &DeletionAsk,
    ) -> Result<Deleted, Problem> {
        let mut deleted = Deleted::default();
        loop {
            let ids = match &ask.search {
                None => ask.ids.clone(),
                Some(search) => self.find_all(tenant, search).await?,
            };
            let found = ids.len();
            deleted.traces += found as u64;
            let room = SHOWN_IDS.saturating_sub(deleted.ids.len());
            deleted.ids.extend(ids.iter().take(room));
            if ask.dry_run {
                deleted.more = ask.search.is_some() && found >= STEP_TRACES;
                return Ok(deleted);
            }
            if found > 0 {
                self.flush_heads(tenant).await?;
                let query = ask.search.as_ref().map(|s| s.query.clone()).unwrap_or_default();
                for part in ids.chunks(DELETION_TRACES_MAX) {
                    let request = DeleteTraces {
                        tenant: tenant.clone(),
                        ids: part.to_vec(),
                        query: query.clone(),
                        request: self.request_id(),
                    };
                    deleted.deletions.push(self.accept(request).await?);
                }
            }
            if ask.search.is_none() || found < STEP_TRACES {
                return Ok(deleted);
            }
        }
    }

    /// Deletes everything that `tenant` has; the name of the deletion in the record.
    ///
    /// # Errors
    /// [`Problem`] when a head cannot be flushed or the metastore is away.
    pub(crate) async fn remove_tenant(&self, tenant: &TenantId) -> Result<u64, Problem> {
        self.flush_heads(tenant).await?;
        let request = RemoveTenant { tenant: tenant.clone(), request: self.request_id() };
        self.accept(request).await
    }

    /// The record of deletions of `tenant`, latest first.
    ///
    /// # Errors
    /// [`Problem`] when the metastore is away.
    pub(crate) async fn deletions(
        &self,
        tenant: &TenantId,
    ) -> Result<Vec<DeletionRecord>, Problem> {
        let mut client = CompactionServiceClient::new(self.metastore.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request = DeletionsRequest { tenant: tenant.to_string() };
        Ok(client.deletions(request).await?.into_inner().deletions)
    }

    /// The traces that match, as far as one step goes.
    async fn find_all(
        &self,
        tenant: &TenantId,
        search: &SearchAsk,
    ) -> Result<Vec<TraceId>, Problem> {
        let limit = u32::try_from(STEP_TRACES).unwrap_or(u32::MAX);
        let ask = SearchAsk { limit, spans_per_spanset: 1, ..search.clone() };
        let found = self.search(std::slice::from_ref(tenant), &ask, &Progress::default()).await?;
        let Answer { value: (value, _), missing } = found;
        complete(&missing)?;
        let ids = value.traces.iter().map(|trace| TraceId::parse_padded(&trace.trace_id));
        ids.collect::<Result<_, _>>()
            .map_err(|error| Problem::new(ErrorKind::Internal, "search_answer", error.to_string()))
    }

    /// Seals and flushes what the heads hold: an object tells what is older than a deletion.
    async fn flush_heads(&self, tenant: &TenantId) -> Result<(), Problem> {
        let mut missing = Missing::default();
        let view = self.views.take(tenant, &mut missing).await?;
        complete(&missing)?;
        let flushes = view.shards.keys().map(|shard| async move {
            let request = FlushRequest { shards: vec![shard.0] };
            let call = |client: super::shards::Client| {
                let request = request.clone();
                async move { client.flush(request).await }
            };
            self.shards.call(*shard, call).await
        });
        for flushed in join_all(flushes).await {
            flushed?;
        }
        Ok(())
    }

    async fn accept<R>(&self, request: R) -> Result<u64, Problem>
    where
        R: Request<Answer = DeletionOutcome>,
    {
        let command: Command = request.into_command();
        let command = Bytes::from(command.encode(self.clock.now_unix()));
        let mut client = MetastoreServiceClient::new(self.metastore.clone())
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let answer = client.apply(ApplyRequest { command }).await?.into_inner();
        let outcome = Outcome::decode(&answer.outcome).map_err(|error| {
            Problem::new(ErrorKind::Internal, "metastore_answer", error.to_string())
        })?;
        let DeletionOutcome::Accepted { deletion } = R::answer(outcome).map_err(|refusal| {
            Problem::new(refusal.kind(), "deletion_refused", refusal.to_string())
        })?;
        Ok(deletion.0)
    }

    fn request_id(&self) -> RequestId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.rng.next_u64().to_be_bytes());
        id[8..].copy_from_slice(&self.rng.next_u64().to_be_bytes());
        RequestId(id)
    }
}

fn complete(missing: &Missing) -> Result<(), Problem> {
    match missing.message() {
        None => Ok(()),
        Some(message) => Err(Problem::new(ErrorKind::Unavailable, "not_all_readable", message)),
    }
}
