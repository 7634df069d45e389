//! What is asked of blocks, each kind in two forms: done by this process, and asked of the querier
//! that has the blocks in its cache. Both give the same answer.

use std::sync::Arc;

use async_trait::async_trait;
use clew_model::TraceId;
use clew_node::Problem;
use clew_node::rpc::Channel;
use clew_proto::query::v1::block_service_client::BlockServiceClient;
use clew_proto::query::v1::{self as query, BlockFailure};
use clew_query::{Fetched, Outcome, SearchPlan, SourceFailure, decode_ids, encode_ids};
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use tonic::Status;

use super::block_set;
use super::blocks::{BlockAnswer, Blocks, failures_of, problem_of};
use super::snapshot::BlockRef;

/// A client of another querier's blocks.
pub(super) type Client = BlockServiceClient<Channel>;

/// One kind of work.
#[async_trait]
pub(super) trait BlockWork: Sync {
    /// What comes of it.
    type Answer: Send;

    /// Does it here.
    async fn here(
        &self,
        blocks: &Blocks,
        which: &[BlockRef],
    ) -> Result<BlockAnswer<Self::Answer>, Problem>;

    /// Has it done by another querier.
    async fn there(
        &self,
        client: Client,
        which: &[BlockRef],
    ) -> Result<BlockAnswer<Self::Answer>, Status>;
}

/// A search, with its plan.
pub(super) struct Search<'a> {
    pub(super) request: &'a query::SearchRequest,
    pub(super) plan: &'a SearchPlan,
}

/// Fragments by id, or pieces of the traces for a search.
#[derive(Clone, Copy)]
pub(super) struct Fetch<'a> {
    pub(super) ids: &'a [TraceId],
    /// The search, if pieces are wanted.
    pub(super) judge: Option<Judge<'a>>,
}

/// A search by which pieces are to be judged, with its plan.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) request: &'a query::SearchRequest,
    pub(super) plan: &'a SearchPlan,
}

impl Fetch<'_> {
    pub(super) fn request(&self, tenant: String) -> query::FetchRequest {
        query::FetchRequest {
            tenant,
            trace_ids: encode_ids(self.ids).into(),
            judge: self.judge.map(|judge| judge.request.clone()),
        }
    }
}

/// Names of attributes.
pub(super) struct TagNames<'a>(pub(super) &'a query::TagNamesRequest);

/// Values of an attribute.
pub(super) struct TagValues<'a>(pub(super) &'a query::TagValuesRequest);

/// Traces that may have spans elsewhere.
pub(super) struct SplitIds;

#[async_trait]
impl BlockWork for Search<'_> {
    type Answer = query::SearchResponse;

    async fn here(
        &self,
        blocks: &Blocks,
        which: &[BlockRef],
    ) -> Result<BlockAnswer<Self::Answer>, Problem> {
        let sources = blocks.sources(which);
        let outcome = blocks.engine().search(&sources, self.plan).await;
        Ok(answer_of(outcome.map_err(problem_of)?, which))
    }

    async fn there(
        &self,
        mut client: Client,
        which: &[BlockRef],
    ) -> Result<BlockAnswer<Self::Answer>, Status> {
        let blocks = Some(block_set::encode(which));
        let request = query::BlockSearchRequest { blocks, request: Some(self.request.clone()) };
        let query::BlockSearchResponse { response, failed } =
            client.search(request).await?.into_inner();
        arrived(response, failed)
    }
}

#[async_trait]
impl BlockWork for Fetch<'_> {
    type Answer = Fetched;

    async fn here(
        &self,
        blocks: &Blocks,
        which: &[BlockRef],
    ) -> Result<BlockAnswer<Self::Answer>, Problem> {
        let possible = blocks.possible(which, self.ids);
        let sources = blocks.sources(&possible);
        let outcome = match self.judge {
            Some(Judge { plan, .. }) => blocks.engine().pieces(&sources, plan, self.ids).await,
            None => blocks.engine().fetch_traces(&sources, self.ids).await,
        };
        blocks.remember(&possible);
        Ok(answer_of(outcome.map_err(problem_of)?, which))
    }

    async fn there(
        &self,
        mut client: Client,
        which: &[BlockRef],
    ) -> Result<BlockAnswer<Self::Answer>, Status> {
        let blocks = Some(block_set::encode(which));
        let tenant = which.first().map(|block| block.block.tenant.to_string()).unwrap_or_default();
        let request = query::BlockFetchRequest { blocks, request: Some(self.request(tenant)) };
        let query::BlockFetchResponse { response, failed } =
            client.fetch(request).await?.into_inner();
        let fetched = Fetched::decode(response.unwrap_or_default())
            .map_err(|error| Status::internal(error.to_string()))?;
        arrived(Some(fetched), failed)
    }
}

#[async_trait]
impl BlockWork for TagNames<'_> {
    type Answer = query::TagNamesResponse;

    async fn here(
        &self,
        blocks: &Blocks,
        which: &[BlockRef],
    ) -> Result<BlockAnswer<Self::Answer>, Problem> {
        let sources = blocks.sources(which);
        let outcome = blocks.engine().tag_names(&sources, self.0).await;
        Ok(answer_of(outcome.map_err(problem_of)?, which))
    }

    async fn there(
        &self,
        mut client: Client,
        which: &[BlockRef],
    ) -> Result<BlockAnswer<Self::Answer>, Status> {
        let blocks = Some(block_set::encode(which));
        let request = query::BlockTagNamesRequest { blocks, request: Some(self.0.clone()) };
        let query::BlockTagNamesResponse { response, failed } =
            client.tag_names(request).await?.into_inner();
        arrived(response, failed)
    }
}

#[async_trait]
impl BlockWork for TagValues<'_> {
    type Answer = query::TagValuesResponse;

    async fn here(
        &self,
        blocks: &Blocks,
        which: &[BlockRef],
    ) -> Result<BlockAnswer<Self::Answer>, Problem> {
        let sources = blocks.sources(which);
        let outcome = blocks.engine().tag_values(&sources, self.0).await;
        Ok(answer_of(outcome.map_err(problem_of)?, which))
    }

    async fn there(
        &self,
        mut client: Client,
        which: &[BlockRef],
    ) -> Result<BlockAnswer<Self::Answer>, Status> {
        let blocks = Some(block_set::encode(which));
        let request = query::BlockTagValuesRequest { blocks, request: Some(self.0.clone()) };
        let query::BlockTagValuesResponse { response, failed } =
            client.tag_values(request).await?.into_inner();
        arrived(response, failed)
    }
}

#[async_trait]
impl BlockWork for SplitIds {
    type Answer = Vec<TraceId>;

    async fn here(
        &self,
        blocks: &Blocks,
        which: &[BlockRef],
    ) -> Result<BlockAnswer<Self::Answer>, Problem> {
        let sources = blocks.sources(which);
        let mut reads = Vec::new();
        for source in &sources {
            reads.push(async move { (source, source.split_ids().await) }.boxed());
        }
        let reads = stream::iter(reads).buffer_unordered(blocks.reads_at_once());
        let lists: Vec<_> = reads.collect().await;
        let mut outcome = Outcome { response: Vec::new(), failed: Vec::new() };
        for (source, list) in lists {
            match list {
                Ok(list) => outcome.response.extend(list),
                Err(error) => {
                    let source = Arc::clone(&source.info().name);
                    outcome.failed.push(SourceFailure { source, error });
                }
            }
        }
        Ok(answer_of(outcome, which))
    }

    async fn there(
        &self,
        mut client: Client,
        which: &[BlockRef],
    ) -> Result<BlockAnswer<Self::Answer>, Status> {
        let blocks = Some(block_set::encode(which));
        let tenant = which.first().map(|block| block.block.tenant.to_string()).unwrap_or_default();
        let request = query::BlockSplitIdsRequest { blocks, tenant };
        let query::BlockSplitIdsResponse { split_ids, failed } =
            client.split_ids(request).await?.into_inner();
        let ids = decode_ids(&split_ids).map_err(|error| Status::from(problem_of(error)))?;
        arrived(Some(ids), failed)
    }
}

fn answer_of<T>(outcome: Outcome<T>, which: &[BlockRef]) -> BlockAnswer<T> {
    let Outcome { response, failed } = outcome;
    BlockAnswer { value: response, failed: failures_of(failed, which) }
}

fn arrived<T>(answer: Option<T>, failed: Vec<BlockFailure>) -> Result<BlockAnswer<T>, Status> {
    let value = answer.ok_or_else(|| Status::internal("the querier's answer is empty"))?;
    Ok(BlockAnswer { value, failed: block_set::decode_failures(failed) })
}
