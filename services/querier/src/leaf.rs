//! Reads blocks for the roots of other queriers (`clew.query.v1.BlockService`).
//!
//! A call is dropped with its work when the caller goes away. At most as many run as queries may;
//! others wait, and their roots read the blocks themselves when they tire of it.

use std::sync::Arc;

use clew_model::{ErrorKind, TenantId};
use clew_node::Problem;
use clew_node::rpc::MESSAGE_BYTES_MAX;
use clew_proto::query::v1::block_service_server::{BlockService, BlockServiceServer};
use clew_proto::query::v1::{
    BlockFetchRequest, BlockFetchResponse, BlockSearchRequest, BlockSearchResponse,
    BlockSplitIdsRequest, BlockSplitIdsResponse, BlockTagNamesRequest, BlockTagNamesResponse,
    BlockTagValuesRequest, BlockTagValuesResponse,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::http::Api;

/// The blocks of this process, for other queriers.
#[derive(Clone)]
pub struct Leaf {
    api: Arc<Api>,
    running: Arc<Semaphore>,
}

impl Leaf {
    pub(crate) fn new(api: Arc<Api>) -> Leaf {
        let running = Arc::new(Semaphore::new(api.config.concurrent_queries_max));
        Leaf { api, running }
    }

    /// The service for a listener.
    pub(crate) fn server(self) -> BlockServiceServer<Leaf> {
        BlockServiceServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Runs a call in its turn and within a query's time.
    async fn run<T>(
        &self,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<Response<T>, Status> {
        let turn = async {
            let permit = self.running.acquire().await;
            let _permit = permit.map_err(|_| Status::unavailable("shutting down"))?;
            Ok(Response::new(work.await?))
        };
        let late = || Err(Status::deadline_exceeded("the blocks were not read in time"));
        self.api
            .deps
            .clock
            .timeout(self.api.config.query_timeout.0, turn)
            .await
            .unwrap_or_else(late)
    }
}

#[tonic::async_trait]
impl BlockService for Leaf {
    async fn search(
        &self,
        request: Request<BlockSearchRequest>,
    ) -> Result<Response<BlockSearchResponse>, Status> {
        let BlockSearchRequest { blocks, request } = request.into_inner();
        let request = request.unwrap_or_default();
        let tenant = tenant_of(&request.tenant)?;
        self.run(self.api.root.search_blocks(&tenant, blocks, &request)).await
    }

    async fn fetch(
        &self,
        request: Request<BlockFetchRequest>,
    ) -> Result<Response<BlockFetchResponse>, Status> {
        let BlockFetchRequest { blocks, request } = request.into_inner();
        let request = request.unwrap_or_default();
        let tenant = tenant_of(&request.tenant)?;
        self.run(self.api.root.fetch_from_blocks(&tenant, blocks, &request)).await
    }

    async fn tag_names(
        &self,
        request: Request<BlockTagNamesRequest>,
    ) -> Result<Response<BlockTagNamesResponse>, Status> {
        let BlockTagNamesRequest { blocks, request } = request.into_inner();
        let request = request.unwrap_or_default();
        let tenant = tenant_of(&request.tenant)?;
        self.run(self.api.root.names_of_blocks(&tenant, blocks, &request)).await
    }

    async fn tag_values(
        &self,
        request: Request<BlockTagValuesRequest>,
    ) -> Result<Response<BlockTagValuesResponse>, Status> {
        let BlockTagValuesRequest { blocks, request } = request.into_inner();
        let request = request.unwrap_or_default();
        let tenant = tenant_of(&request.tenant)?;
        self.run(self.api.root.values_of_blocks(&tenant, blocks, &request)).await
    }

    async fn split_ids(
        &self,
        request: Request<BlockSplitIdsRequest>,
    ) -> Result<Response<BlockSplitIdsResponse>, Status> {
        let BlockSplitIdsRequest { blocks, tenant } = request.into_inner();
        let tenant = tenant_of(&tenant)?;
        self.run(self.api.root.split_ids_of_blocks(&tenant, blocks)).await
    }
}

fn tenant_of(name: &str) -> Result<TenantId, Problem> {
    TenantId::parse(name)
        .map_err(|error| Problem::new(ErrorKind::Invalid, "tenant", error.to_string()))
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leaf")
    }
}
