//! Blocks read for another querier's root: the request unpacked, the work done here, the answer
//! packed.

use clew_model::TenantId;
use clew_node::Problem;
use clew_proto::query::v1 as query;
use clew_query::{SearchPlan, encode_ids};

use super::Root;
use super::block_set::{decode, encode_failures};
use super::block_work::{BlockWork, Fetch, Judge, Search, SplitIds, TagNames, TagValues};
use super::blocks::{BlockAnswer, problem_of};

impl Root {
    pub(crate) async fn search_blocks(
        &self,
        tenant: &TenantId,
        blocks: Option<query::BlockSet>,
        request: &query::SearchRequest,
    ) -> Result<query::BlockSearchResponse, Problem> {
        let plan = &SearchPlan::from_request(request).map_err(problem_of)?;
        let work = Search { request, plan };
        let BlockAnswer { value, failed } = self.here(&work, tenant, blocks).await?;
        let failed = encode_failures(failed);
        Ok(query::BlockSearchResponse { response: Some(value), failed })
    }

    pub(crate) async fn fetch_from_blocks(
        &self,
        tenant: &TenantId,
        blocks: Option<query::BlockSet>,
        request: &query::FetchRequest,
    ) -> Result<query::BlockFetchResponse, Problem> {
        let ids = clew_query::decode_ids(&request.trace_ids).map_err(problem_of)?;
        let plan = request.judge.as_ref().map(SearchPlan::from_request).transpose();
        let plan = plan.map_err(problem_of)?;
        let judge = request
            .judge
            .as_ref()
            .zip(plan.as_ref())
            .map(|(request, plan)| Judge { request, plan });
        let work = Fetch { ids: &ids, judge };
        let BlockAnswer { value, failed } = self.here(&work, tenant, blocks).await?;
        let response = self.compute(move || value.encode()).await?;
        let failed = encode_failures(failed);
        Ok(query::BlockFetchResponse { response: Some(response), failed })
    }

    pub(crate) async fn names_of_blocks(
        &self,
        tenant: &TenantId,
        blocks: Option<query::BlockSet>,
        request: &query::TagNamesRequest,
    ) -> Result<query::BlockTagNamesResponse, Problem> {
        let BlockAnswer { value, failed } = self.here(&TagNames(request), tenant, blocks).await?;
        let failed = encode_failures(failed);
        Ok(query::BlockTagNamesResponse { response: Some(value), failed })
    }

    pub(crate) async fn values_of_blocks(
        &self,
        tenant: &TenantId,
        blocks: Option<query::BlockSet>,
        request: &query::TagValuesRequest,
    ) -> Result<query::BlockTagValuesResponse, Problem> {
        let BlockAnswer { value, failed } = self.here(&TagValues(request), tenant, blocks).await?;
        let failed = encode_failures(failed);
        Ok(query::BlockTagValuesResponse { response: Some(value), failed })
    }

    pub(crate) async fn split_ids_of_blocks(
        &self,
        tenant: &TenantId,
        blocks: Option<query::BlockSet>,
    ) -> Result<query::BlockSplitIdsResponse, Problem> {
        let BlockAnswer { value, failed } = self.here(&SplitIds, tenant, blocks).await?;
        let (split_ids, failed) = (encode_ids(&value).into(), encode_failures(failed));
        Ok(query::BlockSplitIdsResponse { split_ids, failed })
    }

    async fn here<W: BlockWork>(
        &self,
        work: &W,
        tenant: &TenantId,
        blocks: Option<query::BlockSet>,
    ) -> Result<BlockAnswer<W::Answer>, Problem> {
        work.here(&self.blocks, &decode(tenant, blocks)?).await
    }
}
