//! Names and values of attributes, from blocks and heads.

use async_trait::async_trait;
use clew_model::TenantId;
use clew_node::Problem;
use clew_proto::query::v1::{
    Inspected, TagNamesRequest, TagNamesResponse, TagValuesRequest, TagValuesResponse,
};
use clew_proto::tempopb;
use clew_query::{merge_tag_names, merge_tag_values};

use super::blocks::problem_of;
use super::heads::sift;
use super::missing::Missing;
use super::run::{Read, Step, bounds};
use super::snapshot::Snapshot;
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
        let (start_unix_nanos, end_unix_nanos) = bounds(ask.range);
        let request = TagNamesRequest {
            tenant: snapshot.tenant.to_string(),
            scope: ask.scope.leaf_scope().unwrap_or_default().to_owned(),
            query: ask.query.clone(),
            start_unix_nanos,
            end_unix_nanos,
            limit: ask.limit,
        };
        let range = ask.range.unwrap_or(TimeRange::ALL);
        snapshot.miss_quarantined(range, missing);
        let blocks = snapshot.blocks_in(range, 0, false);
        let sources = root.blocks.sources(&blocks);
        let (leaf, heads) = futures::join!(
            root.blocks.engine().tag_names(&sources, &request),
            root.names_of_heads(snapshot, &request)
        );
        let leaf = leaf.map_err(problem_of)?;
        root.blocks.note_failures(snapshot, &blocks, leaf.failed, missing);
        let Step::Done(answers) = sift(heads, last, missing)? else { return Ok(Step::Moved) };
        let mut answers: Vec<_> = answers.into_iter().map(|(_, answer)| answer).collect();
        answers.push(leaf.response);
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
        };
        let range = ask.range.unwrap_or(TimeRange::ALL);
        snapshot.miss_quarantined(range, missing);
        let blocks = snapshot.blocks_in(range, 0, false);
        let sources = root.blocks.sources(&blocks);
        let (leaf, heads) = futures::join!(
            root.blocks.engine().tag_values(&sources, &request),
            root.values_of_heads(snapshot, &request)
        );
        let leaf = leaf.map_err(problem_of)?;
        root.blocks.note_failures(snapshot, &blocks, leaf.failed, missing);
        let Step::Done(answers) = sift(heads, last, missing)? else { return Ok(Step::Moved) };
        let mut answers: Vec<_> = answers.into_iter().map(|(_, answer)| answer).collect();
        answers.push(leaf.response);
        Ok(Step::Done(merge_tag_values(answers, ask.limit, bytes_max)))
    }
}

impl Root {
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
