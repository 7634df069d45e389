//! Answers as messages of the Tempo API: what HTTP and gRPC have in common.

use clew_model::TenantId;
use clew_proto::tempopb;

use crate::ask::{SearchAsk, TagNamesAsk, TagScope, TagValuesAsk};
use crate::http::{Api, Fault};
use crate::root::{Answer, Explanation, Missing, Progress, TagNames, TagValues};
use crate::shape::INTRINSIC_NAMES;

/// The newest traces that match.
pub(crate) async fn search(
    api: &Api,
    tenants: &[TenantId],
    ask: &SearchAsk,
    progress: &Progress,
) -> Result<Answer<(tempopb::SearchResponse, Explanation)>, Fault> {
    let mut answer = api.root.search(tenants, ask, progress).await?;
    let response = &mut answer.value.0;
    response.traces.iter_mut().for_each(show_first_spanset);
    if let Some(message) = answer.missing.message() {
        response.status = tempopb::PartialStatus::Partial.into();
        response.message = message;
    }
    Ok(answer)
}

/// Older clients look at one spanset only.
pub(crate) fn show_first_spanset(trace: &mut tempopb::TraceSearchMetadata) {
    trace.span_set = trace.span_sets.first().cloned();
}

/// Names of attributes in one sorted list.
pub(crate) async fn tag_names_v1(
    api: &Api,
    tenants: &[TenantId],
    ask: &TagNamesAsk,
) -> Result<Answer<tempopb::SearchTagsResponse>, Fault> {
    let Answer { value, missing } = names(api, tenants, ask).await?;
    let mut tag_names: Vec<String> =
        value.scopes.into_iter().flat_map(|scope| scope.tags).collect();
    if ask.scope == TagScope::Intrinsic {
        tag_names.extend(INTRINSIC_NAMES.map(str::to_owned));
    }
    tag_names.sort();
    tag_names.dedup();
    let value = tempopb::SearchTagsResponse { tag_names, metrics: Some(value.metrics) };
    Ok(Answer { value, missing })
}

/// Names of attributes by scope, intrinsics among them.
pub(crate) async fn tag_names_v2(
    api: &Api,
    tenants: &[TenantId],
    ask: &TagNamesAsk,
) -> Result<Answer<tempopb::SearchTagsV2Response>, Fault> {
    let Answer { value, missing } = names(api, tenants, ask).await?;
    let mut scopes = value.scopes;
    if ask.scope.has_intrinsics() {
        let tags = INTRINSIC_NAMES.map(str::to_owned).to_vec();
        scopes.push(tempopb::SearchTagsV2Scope { name: "intrinsic".to_owned(), tags });
    }
    let value = tempopb::SearchTagsV2Response { scopes, metrics: Some(value.metrics) };
    Ok(Answer { value, missing })
}

async fn names(
    api: &Api,
    tenants: &[TenantId],
    ask: &TagNamesAsk,
) -> Result<Answer<TagNames>, Fault> {
    if ask.scope.leaf_scope().is_none() {
        return Ok(Answer { value: TagNames::default(), missing: Missing::default() });
    }
    Ok(api.root.tag_names(tenants, ask).await?)
}

/// Values of a tag named as version 1 does, as text.
pub(crate) async fn tag_values_v1(
    api: &Api,
    tenants: &[TenantId],
    ask: &TagValuesAsk,
) -> Result<Answer<tempopb::SearchTagValuesResponse>, Fault> {
    let ask = TagValuesAsk { tag: tag_v1(&ask.tag), ..ask.clone() };
    let Answer { value, missing } = values(api, tenants, &ask).await?;
    let mut tag_values: Vec<String> = value.values.into_iter().map(|value| value.value).collect();
    tag_values.sort();
    tag_values.dedup();
    let value = tempopb::SearchTagValuesResponse { tag_values, metrics: Some(value.metrics) };
    Ok(Answer { value, missing })
}

/// Values of a TraceQL attribute, with their types.
pub(crate) async fn tag_values_v2(
    api: &Api,
    tenants: &[TenantId],
    ask: &TagValuesAsk,
) -> Result<Answer<tempopb::SearchTagValuesV2Response>, Fault> {
    if let Err(error) = clew_traceql::parse_field(&ask.tag) {
        return Err(Fault::bad(format!("please provide a valid tagName: {error}")));
    }
    let Answer { value, missing } = values(api, tenants, ask).await?;
    let value = tempopb::SearchTagValuesV2Response {
        tag_values: value.values,
        metrics: Some(value.metrics),
    };
    Ok(Answer { value, missing })
}

async fn values(
    api: &Api,
    tenants: &[TenantId],
    ask: &TagValuesAsk,
) -> Result<Answer<TagValues>, Fault> {
    Ok(api.root.tag_values(tenants, ask).await?)
}

/// The TraceQL name of a tag as version 1 has it: bare, without a scope.
fn tag_v1(name: &str) -> String {
    match name {
        "name" | "status" | "kind" | "duration" | "statusMessage" | "rootName"
        | "rootServiceName" | "traceDuration" => name.to_owned(),
        "root.name" => "rootName".to_owned(),
        "root.service.name" => "rootServiceName".to_owned(),
        "status.code" => "status".to_owned(),
        _ => {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            format!(".\"{quoted}\"")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_become_traceql() {
        assert_eq!(tag_v1("service.name"), ".\"service.name\"");
        assert_eq!(tag_v1("a\"b\\c d"), ".\"a\\\"b\\\\c d\"");
        assert_eq!(tag_v1("status.code"), "status");
        assert_eq!(tag_v1("root.service.name"), "rootServiceName");
    }
}
