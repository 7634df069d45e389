//! The endpoints that read data: parameters in, a query of the root, the answer's shape out.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use clew_model::{ModelError, TenantId};
use clew_proto::tempopb;
use http::{HeaderMap, StatusCode, Uri};
use prost::Message;

use super::Api;
use super::fault::Fault;
use super::gate::guarded;
use super::query_string::Parameters;
use super::reply::{json, json_of, marked, protobuf, wants_protobuf};
use super::tag_path::tag_of;
use super::{params, tenant};
use crate::ask::{TagNamesAsk, TagScope, TagValuesAsk};
use crate::root::{Answer, FoundTrace, Missing, TagNames, TagValues};
use crate::shape::{
    INTRINSIC_NAMES, SearchJson, TagNamesJson, TagNamesV2Json, TagValuesJson, TagValuesV2Json,
    trace_v1_json, trace_v2_json,
};

/// What every request brings along.
struct Asked {
    tenants: Vec<TenantId>,
    parameters: Parameters,
    protobuf: bool,
}

impl Asked {
    fn of(api: &Api, uri: &Uri, headers: &HeaderMap) -> Result<Asked, Fault> {
        Ok(Asked {
            tenants: tenant::tenants_of(headers, &api.config)?,
            parameters: Parameters::parse(uri.query().unwrap_or(""))?,
            protobuf: wants_protobuf(headers),
        })
    }
}

impl Api {
    /// Marks an answer that misses something, and counts it.
    fn finish(&self, response: Response, missing: &Missing) -> Response {
        for reason in missing.reasons() {
            self.metrics.partial.with_label_values(&[reason]).inc();
        }
        marked(response, missing)
    }
}

/// `GET /api/traces/{id}`
pub(crate) async fn trace_v1(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    guarded(&api, "trace_v1", async {
        let asked = Asked::of(&api, &uri, &headers)?;
        let Answer { value, missing } = find_trace(&api, &asked, &id).await?;
        if value.too_large {
            let max = api.config.query.trace_bytes_max;
            return Err(Fault::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("trace exceeds max size (max bytes: {})", max.0),
            ));
        }
        let Some(trace) = value.trace else {
            // This version cannot say PARTIAL in its body, and 404 would say "does not exist".
            return match missing.message() {
                Some(message) => Err(Fault {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    message,
                    retry_after: Some(std::time::Duration::from_secs(1)),
                }),
                None => Err(Fault::new(StatusCode::NOT_FOUND, "")),
            };
        };
        let response = if asked.protobuf {
            protobuf(api.root.compute(move || trace.encode()).await?)
        } else {
            json(api.root.compute(move || trace_v1_json(&trace)).await?.map_err(unprintable)?)
        };
        Ok(api.finish(response, &missing))
    })
    .await
}

/// `GET /api/v2/traces/{id}`
pub(crate) async fn trace_v2(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    guarded(&api, "trace_v2", async {
        let asked = Asked::of(&api, &uri, &headers)?;
        if asked.parameters.get("q").is_some_and(|q| !q.trim().is_empty()) {
            return Err(Fault::unsupported("a filter (q) on a trace by id"));
        }
        if asked.parameters.get("span_pruning").is_some_and(|on| on != "false") {
            return Err(Fault::unsupported("span_pruning"));
        }
        let Answer { value, mut missing } = find_trace(&api, &asked, &id).await?;
        if value.too_large {
            let max = api.config.query.trace_bytes_max;
            let why = format!("trace exceeds max size (max bytes: {})", max.0);
            missing.add("trace_too_large", "trace".to_owned(), why);
        }
        let message = missing.message();
        let response = if asked.protobuf {
            let status = match message {
                Some(_) => tempopb::PartialStatus::Partial,
                None => tempopb::PartialStatus::Complete,
            };
            let encode = move || {
                let trace = value.trace.map(|trace| trace.encode()).unwrap_or_default();
                let answer = tempopb::TraceByIdResponse {
                    trace: trace.into(),
                    metrics: Some(tempopb::TraceByIdMetrics {
                        inspected_bytes: value.inspected_bytes,
                        ..tempopb::TraceByIdMetrics::default()
                    }),
                    status: status.into(),
                    message: message.unwrap_or_default(),
                };
                answer.encode_to_vec()
            };
            protobuf(api.root.compute(encode).await?)
        } else {
            let write = move || {
                trace_v2_json(value.trace.as_ref(), value.inspected_bytes, message.as_deref())
            };
            json(api.root.compute(write).await?.map_err(unprintable)?)
        };
        Ok(api.finish(response, &missing))
    })
    .await
}

async fn find_trace(api: &Api, asked: &Asked, id: &str) -> Result<Answer<FoundTrace>, Fault> {
    let id = params::trace_id(id)?;
    let range = params::trace_range(&asked.parameters)?;
    Ok(api.root.trace(&asked.tenants, id, range).await?)
}

fn unprintable(error: ModelError) -> Fault {
    Fault::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// `GET /api/search`
pub(crate) async fn search(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Response {
    guarded(&api, "search", async {
        let asked = Asked::of(&api, &uri, &headers)?;
        let now = api.deps.clock.now_unix();
        let ask = params::search(&asked.parameters, &api.config.query, now)?;
        let Answer { value, missing } = api.root.search(&asked.tenants, &ask).await?;
        let response = if asked.protobuf {
            protobuf(value.encode_to_vec())
        } else {
            json_of(&SearchJson { response: &value, missing: missing.message().as_deref() })?
        };
        Ok(api.finish(response, &missing))
    })
    .await
}

/// `GET /api/search/tags`
pub(crate) async fn tag_names_v1(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    guarded(&api, "tag_names_v1", async {
        let asked = Asked::of(&api, &uri, &headers)?;
        let ask = params::tag_names(&asked.parameters, &api.config.query)?;
        let Answer { value, missing } = ask_names(&api, &asked, &ask).await?;
        let mut tag_names: Vec<String> =
            value.scopes.into_iter().flat_map(|scope| scope.tags).collect();
        if ask.scope == TagScope::Intrinsic {
            tag_names.extend(INTRINSIC_NAMES.map(str::to_owned));
        }
        tag_names.sort();
        tag_names.dedup();
        let answer = tempopb::SearchTagsResponse { tag_names, metrics: Some(value.metrics) };
        let response = if asked.protobuf {
            protobuf(answer.encode_to_vec())
        } else {
            json_of(&TagNamesJson { response: &answer, missing: missing.message().as_deref() })?
        };
        Ok(api.finish(response, &missing))
    })
    .await
}

/// `GET /api/v2/search/tags`
pub(crate) async fn tag_names_v2(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    guarded(&api, "tag_names_v2", async {
        let asked = Asked::of(&api, &uri, &headers)?;
        let ask = params::tag_names(&asked.parameters, &api.config.query)?;
        let Answer { value, missing } = ask_names(&api, &asked, &ask).await?;
        let mut scopes = value.scopes;
        if ask.scope.has_intrinsics() {
            let tags = INTRINSIC_NAMES.map(str::to_owned).to_vec();
            scopes.push(tempopb::SearchTagsV2Scope { name: "intrinsic".to_owned(), tags });
        }
        let answer = tempopb::SearchTagsV2Response { scopes, metrics: Some(value.metrics) };
        let response = if asked.protobuf {
            protobuf(answer.encode_to_vec())
        } else {
            json_of(&TagNamesV2Json { response: &answer, missing: missing.message().as_deref() })?
        };
        Ok(api.finish(response, &missing))
    })
    .await
}

async fn ask_names(api: &Api, asked: &Asked, ask: &TagNamesAsk) -> Result<Answer<TagNames>, Fault> {
    if ask.scope.leaf_scope().is_none() {
        return Ok(Answer { value: TagNames::default(), missing: Missing::default() });
    }
    Ok(api.root.tag_names(&asked.tenants, ask).await?)
}

/// `GET /api/search/tag/{tag}/values`
pub(crate) async fn tag_values_v1(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    guarded(&api, "tag_values_v1", async {
        let asked = Asked::of(&api, &uri, &headers)?;
        let tag = tag_v1(&tag_of(uri.path())?);
        let ask = params::tag_values(&asked.parameters, tag, &api.config.query)?;
        let Answer { value, missing } = ask_values(&api, &asked, &ask).await?;
        let mut tag_values: Vec<String> =
            value.values.into_iter().map(|value| value.value).collect();
        tag_values.sort();
        tag_values.dedup();
        let answer = tempopb::SearchTagValuesResponse { tag_values, metrics: Some(value.metrics) };
        let response = if asked.protobuf {
            protobuf(answer.encode_to_vec())
        } else {
            json_of(&TagValuesJson { response: &answer, missing: missing.message().as_deref() })?
        };
        Ok(api.finish(response, &missing))
    })
    .await
}

/// `GET /api/v2/search/tag/{tag}/values`
pub(crate) async fn tag_values_v2(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    guarded(&api, "tag_values_v2", async {
        let asked = Asked::of(&api, &uri, &headers)?;
        let tag = tag_of(uri.path())?;
        if let Err(error) = clew_traceql::parse_field(&tag) {
            return Err(Fault::bad(format!("please provide a valid tagName: {error}")));
        }
        let ask = params::tag_values(&asked.parameters, tag, &api.config.query)?;
        let Answer { value, missing } = ask_values(&api, &asked, &ask).await?;
        let answer = tempopb::SearchTagValuesV2Response {
            tag_values: value.values,
            metrics: Some(value.metrics),
        };
        let response = if asked.protobuf {
            protobuf(answer.encode_to_vec())
        } else {
            json_of(&TagValuesV2Json { response: &answer, missing: missing.message().as_deref() })?
        };
        Ok(api.finish(response, &missing))
    })
    .await
}

async fn ask_values(
    api: &Api,
    asked: &Asked,
    ask: &TagValuesAsk,
) -> Result<Answer<TagValues>, Fault> {
    Ok(api.root.tag_values(&asked.tenants, ask).await?)
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
