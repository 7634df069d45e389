//! The endpoints that read data: parameters in, a query of the root, the answer's shape out.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use clew_model::{ModelError, TenantId};
use clew_proto::tempopb;
use clew_query::Prune;
use http::{HeaderMap, StatusCode, Uri};
use prost::Message;

use super::Api;
use super::fault::Fault;
use super::gate::guarded;
use super::query_string::Parameters;
use super::reply::{json, json_of, marked, protobuf, wants_protobuf};
use super::tag_path::tag_of;
use super::{params, tenant};
use crate::answers;
use crate::ask::{TagNamesAsk, TagValuesAsk};
use crate::root::{Answer, FoundTrace, Missing, Progress};
use crate::shape::{
    SearchJson, TagNamesJson, TagNamesV2Json, TagValuesJson, TagValuesV2Json, explained,
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
        self.count_missing(missing);
        marked(response, missing)
    }

    /// Counts what an answer misses.
    pub(crate) fn count_missing(&self, missing: &Missing) {
        for reason in missing.reasons() {
            self.metrics.partial.with_label_values(&[reason]).inc();
        }
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
        let Answer { value, missing } = find_trace(&api, &asked, &id, None).await?;
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
        if asked.parameters.get("span_pruning").is_some_and(|on| on != "false") {
            return Err(Fault::unsupported("span_pruning"));
        }
        let prune = params::prune(&asked.parameters, &api.config.query)?;
        let Answer { value, mut missing } = find_trace(&api, &asked, &id, prune).await?;
        if value.left_out > 0 {
            let why = format!("{} spans do not match the filter", value.left_out);
            missing.add("filtered", "trace".to_owned(), why);
        }
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

async fn find_trace(
    api: &Api,
    asked: &Asked,
    id: &str,
    prune: Option<Prune>,
) -> Result<Answer<FoundTrace>, Fault> {
    let id = params::trace_id(id)?;
    let range = params::trace_range(&asked.parameters)?;
    Ok(api.root.trace(&asked.tenants, id, range, prune).await?)
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
        let explain = params::explain(&asked.parameters)?;
        let Answer { value: (value, explanation), missing } =
            answers::search(&api, &asked.tenants, &ask, &Progress::default()).await?;
        let response = if asked.protobuf {
            protobuf(value.encode_to_vec())
        } else {
            let missing = missing.message();
            let explained = explain.then(|| explained(&ask.query, &explanation));
            json_of(&SearchJson {
                response: &value,
                missing: missing.as_deref(),
                explained: explained.as_ref(),
            })?
        };
        Ok(api.finish(response, &missing))
    })
    .await
}

macro_rules! tag_routes {
    ($($(#[$doc:meta])* $handler:ident reads $ask:expr, answers $answer:path as $json:ident;)*) => {$(
        $(#[$doc])*
        pub(crate) async fn $handler(
            State(api): State<Arc<Api>>,
            uri: Uri,
            headers: HeaderMap,
        ) -> Response {
            guarded(&api, stringify!($handler), async {
                let asked = Asked::of(&api, &uri, &headers)?;
                let ask = $ask(&api, &asked, &uri)?;
                let Answer { value, missing } = $answer(&api, &asked.tenants, &ask).await?;
                let response = if asked.protobuf {
                    protobuf(value.encode_to_vec())
                } else {
                    json_of(&$json { response: &value, missing: missing.message().as_deref() })?
                };
                Ok(api.finish(response, &missing))
            })
            .await
        }
    )*};
}

tag_routes! {
    /// `GET /api/search/tags`
    tag_names_v1 reads names_ask, answers answers::tag_names_v1 as TagNamesJson;
    /// `GET /api/v2/search/tags`
    tag_names_v2 reads names_ask, answers answers::tag_names_v2 as TagNamesV2Json;
    /// `GET /api/search/tag/{tag}/values`
    tag_values_v1 reads values_ask, answers answers::tag_values_v1 as TagValuesJson;
    /// `GET /api/v2/search/tag/{tag}/values`
    tag_values_v2 reads values_ask, answers answers::tag_values_v2 as TagValuesV2Json;
}

fn names_ask(api: &Api, asked: &Asked, _: &Uri) -> Result<TagNamesAsk, Fault> {
    params::tag_names(&asked.parameters, &api.config.query)
}

fn values_ask(api: &Api, asked: &Asked, uri: &Uri) -> Result<TagValuesAsk, Fault> {
    params::tag_values(&asked.parameters, tag_of(uri.path())?, &api.config.query)
}
