//! The endpoints that delete.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use clew_model::TenantId;
use clew_proto::metastore::v1::DeletionRecord;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};

use super::Api;
use super::fault::Fault;
use super::gate::guarded;
use super::query_string::Parameters;
use super::reply::json as json_body;
use super::{params, tenant};
use crate::ask::{DeletionAsk, SearchAsk};

/// The most traces that one request names.
const IDS_MAX: usize = 1_000;

/// `POST /api/deletions` deletes traces, `GET` lists the record.
pub(crate) async fn deletions(
    State(api): State<Arc<Api>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    guarded(&api, "deletions", async {
        let tenant = only_tenant(&api, &headers)?;
        if method == Method::GET {
            let records = api.root.deletions(&tenant).await?;
            let records: Vec<Value> = records.iter().map(record).collect();
            return Ok(json_body(json!({ "deletions": records }).to_string()));
        }
        allowed(&api, &method, Method::POST)?;
        let parameters = Parameters::parse(uri.query().unwrap_or(""))?;
        let ask = ask_of(&api, &parameters)?;
        let deleted = api.root.delete(&tenant, &ask).await?;
        let ids: Vec<String> = deleted.ids.iter().map(ToString::to_string).collect();
        let body = json!({
            "dryRun": ask.dry_run,
            "traces": deleted.traces,
            "more": deleted.more,
            "traceIDs": ids,
            "deletions": deleted.deletions,
        });
        Ok(json_body(body.to_string()))
    })
    .await
}

/// `DELETE /api/tenant` deletes everything that the tenant of the request has.
pub(crate) async fn remove_tenant(
    State(api): State<Arc<Api>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    guarded(&api, "remove_tenant", async {
        let tenant = only_tenant(&api, &headers)?;
        allowed(&api, &method, Method::DELETE)?;
        // Without tenants a header has no meaning, and a slip would remove everything.
        let parameters = Parameters::parse(uri.query().unwrap_or(""))?;
        if parameters.get("name") != Some(tenant.as_str()) {
            let message = format!("give the tenant's name again: name={tenant}");
            return Err(Fault::bad(message));
        }
        let deletion = api.root.remove_tenant(&tenant).await?;
        let body = json!({ "tenant": tenant.as_str(), "deletions": [deletion] });
        Ok(json_body(body.to_string()))
    })
    .await
}

fn allowed(api: &Api, method: &Method, wanted: Method) -> Result<(), Fault> {
    if *method != wanted {
        let message = format!("use {wanted}");
        return Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, message));
    }
    if !api.config.deletions_enabled {
        let message = "deleting is switched off: querier.deletions_enabled";
        return Err(Fault::new(StatusCode::FORBIDDEN, message));
    }
    Ok(())
}

fn only_tenant(api: &Api, headers: &HeaderMap) -> Result<TenantId, Fault> {
    match <[TenantId; 1]>::try_from(tenant::tenants_of(headers, &api.config)?) {
        Ok([tenant]) => Ok(tenant),
        Err(_) => Err(Fault::bad("a deletion is for one tenant")),
    }
}

fn ask_of(api: &Api, parameters: &Parameters) -> Result<DeletionAsk, Fault> {
    once_each(parameters)?;
    let dry_run = match parameters.iter().find(|(name, _)| *name == "dryRun") {
        None | Some((_, "false")) => false,
        // Without a value, too: who says it at all must not lose anything.
        Some((_, "true" | "")) => true,
        Some((_, other)) => return Err(Fault::bad(format!("invalid dryRun: {other}"))),
    };
    let ids = parameters.iter().filter(|(name, _)| *name == "traceID").map(|(_, value)| value);
    let ids = ids.map(params::trace_id).collect::<Result<Vec<_>, _>>()?;
    if ids.iter().any(|id| id.0 == [0; 16]) {
        return Err(Fault::bad("invalid traceID: it is all zeros"));
    }
    let query = parameters.get("q").map(str::to_owned);
    match (query, ids.is_empty()) {
        (None, true) => Err(Fault::bad("give a query (q) or trace ids (traceID)")),
        (Some(_), false) => Err(Fault::bad("give a query (q) or trace ids (traceID), not both")),
        (None, false) if ids.len() > IDS_MAX => {
            Err(Fault::bad(format!("at most {IDS_MAX} trace ids at a time")))
        }
        (None, false) => {
            if parameters.get("start").or(parameters.get("end")).is_some() {
                return Err(Fault::bad("start and end are for a query (q)"));
            }
            Ok(DeletionAsk { ids, search: None, dry_run })
        }
        (Some(query), true) => {
            if query.len() as u64 > api.config.query.expression_bytes_max.0 {
                return Err(Fault::bad("the query is too long"));
            }
            let range = params::trace_range(parameters)?;
            let search = SearchAsk { query, range, ..SearchAsk::default() };
            Ok(DeletionAsk { ids: Vec::new(), search: Some(search), dry_run })
        }
    }
}

/// What is not known, or given twice, is no deletion: the one that was meant is not known then.
fn once_each(parameters: &Parameters) -> Result<(), Fault> {
    const KNOWN: [&str; 4] = ["q", "start", "end", "dryRun"];
    let mut given = Vec::new();
    for (name, _) in parameters.iter().filter(|(name, _)| *name != "traceID") {
        if !KNOWN.contains(&name) {
            return Err(Fault::bad(format!("unknown parameter: {name}")));
        }
        if given.contains(&name) {
            return Err(Fault::bad(format!("{name} is given twice")));
        }
        given.push(name);
    }
    Ok(())
}

fn record(record: &DeletionRecord) -> Value {
    json!({
        "id": record.id,
        "query": record.query,
        "wholeTenant": record.whole_tenant,
        "tracesNamed": record.named,
        "requestedUnixNano": record.at_unix_nanos.to_string(),
        "done": record.done_unix_nanos > 0,
        "doneUnixNano": record.done_unix_nanos.to_string(),
        "tracesRemoved": record.traces,
        "spansRemoved": record.spans,
    })
}
