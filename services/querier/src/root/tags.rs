//! Names and values of attributes, from blocks and heads.

use async_trait::async_trait;
use clew_model::TenantId;
use clew_node::Problem;
use clew_proto::query::v1::{
    Inspected, TagNamesRequest, TagNamesResponse, TagValuesRequest, TagValuesResponse,
};
use clew_proto::tempopb;
use clew_query::{
    SplitSet, TagField, encode_ids, merge_tag_names, merge_tag_values, tag_query_needs_traces,
};

use super::block_work;
use super::blocks::problem_of;
use super::heads::sift;
use super::missing::Missing;
use super::run::{Read, Step, bounds};
use super::snapshot::{BlockRef, Snapshot};
use super::whole::ToGather;
use super::{Answer, Root};
use crate::ask::{TagNamesAsk, TagValuesAsk, TimeRange};

/// Names by scope.
#[derive(Debug, Default)]
pub(crate) struct TagNames {
    pub(crate) scopes: Vec<tempopb::SearchTagsV2Scope>,
    pub(crate) metrics: tempopb::MetadataMetrics,
}

/// Values with their types.
#[derive(Debug, Default)]
pub(crate) struct TagValues {
    pub(crate) values: Vec<tempopb::TagValue>,
    pub(crate) metrics: tempopb::MetadataMetrics,
}

/// A request for names.
struct Names<'a>(&'a TagNamesAsk);

#[async_trait]
impl Read for Names<'_> {
    type Value = TagNamesResponse;

    async fn read(
        &self,
        root: &Root,
        snapshot: &Snapshot,
        last: bool,
        missing: &mut Missing,
    ) -> Result<Step<TagNamesResponse>, Problem> {
        let ask = self.0;
        let range = ask.range.unwrap_or(TimeRange::ALL);
        snapshot.miss_known(range, missing);
        let (split, blocks) =
            root.split_for_tags(snapshot, &ask.query, None, range, missing).await?;
        let (start_unix_nanos, end_unix_nanos) = bounds(ask.range);
        let request = TagNamesRequest {
            tenant: snapshot.tenant.to_string(),
            scope: ask.scope.leaf_scope().unwrap_or_default().to_owned(),
            query: ask.query.clone(),
            start_unix_nanos,
            end_unix_nanos,
            limit: ask.limit,
            split_ids: encode_ids(split.ids()).into(),
        };
        let work = block_work::TagNames(&request);
        let (of_blocks, heads) = futures::join!(
            root.on_blocks(snapshot, &blocks, &work, missing),
            root.names_of_heads(snapshot, &request)
        );
        let of_blocks = of_blocks?;
        let Step::Done(answers) = sift(heads, last, missing)? else { return Ok(Step::Moved) };
        let mut answers: Vec<_> = answers.into_iter().map(|(_, answer)| answer).collect();
        answers.extend(of_blocks);
        let named = answers.iter().map(|answer| answer.split_candidates.as_ref());
        let mut waiting = ToGather::named_by(named)?;
        loop {
            match root.next_whole(snapshot, &mut waiting, range, last, missing).await? {
                Step::Moved => return Ok(Step::Moved),
                Step::Done(None) => break,
                Step::Done(Some(traces)) => {
                    let of_traces = root.blocks.engine().tag_names_of(traces, &request);
                    answers.push(of_traces.await.map_err(problem_of)?);
                }
            }
        }
        Ok(Step::Done(merge_tag_names(answers, ask.limit)))
    }
}

/// A request for values.
struct Values<'a>(&'a TagValuesAsk);

#[async_trait]
impl Read for Values<'_> {
    type Value = TagValuesResponse;

    async fn read(
        &self,
        root: &Root,
        snapshot: &Snapshot,
        last: bool,
        missing: &mut Missing,
    ) -> Result<Step<TagValuesResponse>, Problem> {
        let ask = self.0;
        let field = TagField::parse(&ask.tag).map_err(problem_of)?;
        let range = ask.range.unwrap_or(TimeRange::ALL);
        snapshot.miss_known(range, missing);
        let (split, blocks) =
            root.split_for_tags(snapshot, &ask.query, Some(&field), range, missing).await?;
        let (start_unix_nanos, end_unix_nanos) = bounds(ask.range);
        let bytes_max = root.config.query.tag_values_bytes_max.0;
        let request = TagValuesRequest {
            tenant: snapshot.tenant.to_string(),
            tag: ask.tag.clone(),
            query: ask.query.clone(),
            start_unix_nanos,
            end_unix_nanos,
            limit: ask.limit,
            bytes_max,
            split_ids: encode_ids(split.ids()).into(),
        };
        let work = block_work::TagValues(&request);
        let (of_blocks, heads) = futures::join!(
            root.on_blocks(snapshot, &blocks, &work, missing),
            root.values_of_heads(snapshot, &request)
        );
        let of_blocks = of_blocks?;
        let Step::Done(answers) = sift(heads, last, missing)? else { return Ok(Step::Moved) };
        let mut answers: Vec<_> = answers.into_iter().map(|(_, answer)| answer).collect();
        answers.extend(of_blocks);
        let named = answers.iter().map(|answer| answer.split_candidates.as_ref());
        let mut waiting = ToGather::named_by(named)?;
        loop {
            match root.next_whole(snapshot, &mut waiting, range, last, missing).await? {
                Step::Moved => return Ok(Step::Moved),
                Step::Done(None) => break,
                Step::Done(Some(traces)) => {
                    let of_traces = root.blocks.engine().tag_values_of(traces, &request);
                    answers.push(of_traces.await.map_err(problem_of)?);
                }
            }
        }
        Ok(Step::Done(merge_tag_values(answers, ask.limit, bytes_max)))
    }
}

impl Root {
    /// F, if the query of a tag request is judged on whole traces, and the blocks to ask.
    async fn split_for_tags(
        &self,
        snapshot: &Snapshot,
        query: &str,
        field: Option<&TagField>,
        range: TimeRange,
        missing: &mut Missing,
    ) -> Result<(SplitSet, Vec<BlockRef>), Problem> {
        if !tag_query_needs_traces(query, field) {
            return Ok((SplitSet::default(), snapshot.blocks_in(range, 0, false)));
        }
        let split = self.split_set(snapshot, range, missing).await?;
        let blocks = snapshot.blocks_in(range, self.horizon(), !split.is_empty());
        Ok((split, blocks))
    }

    /// The names of the attributes that spans of `tenants` have.
    ///
    /// # Errors
    /// [`Problem`] when the request is wrong or nothing at all can be read.
    pub(crate) async fn tag_names(
        &self,
        tenants: &[TenantId],
        ask: &TagNamesAsk,
    ) -> Result<Answer<TagNames>, Problem> {
        let (found, missing) = self.run(tenants, &Names(ask)).await?;
        let merged = merge_tag_names(found, ask.limit);
        let scope = |scope: clew_proto::query::v1::tag_names_response::Scope| {
            tempopb::SearchTagsV2Scope { name: scope.name, tags: scope.tags }
        };
        let scopes = merged.scopes.into_iter().map(scope).collect();
        let value = TagNames { scopes, metrics: metrics_of(merged.inspected) };
        Ok(Answer { value, missing })
    }

    /// The values that an attribute has on spans of `tenants`.
    ///
    /// # Errors
    /// [`Problem`] when the request is wrong or nothing at all can be read.
    pub(crate) async fn tag_values(
        &self,
        tenants: &[TenantId],
        ask: &TagValuesAsk,
    ) -> Result<Answer<TagValues>, Problem> {
        let (found, missing) = self.run(tenants, &Values(ask)).await?;
        let merged = merge_tag_values(found, ask.limit, self.config.query.tag_values_bytes_max.0);
        let value = |value: clew_proto::query::v1::tag_values_response::Value| tempopb::TagValue {
            r#type: value.r#type,
            value: value.value,
        };
        let values = merged.values.into_iter().map(value).collect();
        let value = TagValues { values, metrics: metrics_of(merged.inspected) };
        Ok(Answer { value, missing })
    }
}

fn metrics_of(inspected: Option<Inspected>) -> tempopb::MetadataMetrics {
    let Inspected { bytes, reads, .. } = inspected.unwrap_or_default();
    tempopb::MetadataMetrics {
        inspected_bytes: bytes,
        backend_reads: reads,
        completed_jobs: 1,
        total_jobs: 1,
        ..tempopb::MetadataMetrics::default()
    }
}
