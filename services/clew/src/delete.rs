//! `clew delete` and `clew tenant`: asks a querier's API to delete, shows what became of it.

use clew_catalog::{SetTenant, TenantSettings};
use clew_model::{TenantId, UnixNanos};
use clew_node::config::parse_duration;
use clew_node::tls::MutualConfig;
use reqwest::Method;
use serde_json::Value;

use crate::cli::{Api, Delete, Tenant, TenantCommand};
use crate::cluster::apply;
use crate::instant::rfc3339;
use crate::member::Reached;
use crate::web;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Does what `clew delete` was told, and gives what to print.
pub(crate) async fn run(delete: Delete) -> Result<String, String> {
    let Delete { api, trace_ids, query, start, end, dry_run, list } = delete;
    if list {
        let answer = ask(&api, Method::GET, "/api/deletions", &[]).await?;
        return Ok(listed(&answer));
    }
    let by_id = !trace_ids.is_empty();
    let mut parameters: Vec<(&str, String)> =
        trace_ids.into_iter().map(|id| ("traceID", id)).collect();
    parameters.extend(query.map(|query| ("q", query)));
    parameters.extend(start.map(|start| ("start", start.to_string())));
    parameters.extend(end.map(|end| ("end", end.to_string())));
    parameters.push(("dryRun", dry_run.to_string()));
    let answer = ask(&api, Method::POST, "/api/deletions", &parameters).await?;
    let traces = answer["traces"].as_u64().unwrap_or(0);
    let ids = answer["traceIDs"].as_array().cloned().unwrap_or_default();
    let plural = if traces == 1 { "" } else { "s" };
    let mut text = match (dry_run, answer["more"].as_bool().unwrap_or(false)) {
        (true, true) => format!("would delete {traces} trace{plural} and more, among them:\n"),
        (true, false) => format!("would delete {traces} trace{plural}:\n"),
        (false, _) => format!("deleted {traces} trace{plural}:\n"),
    };
    for id in ids.iter().filter_map(Value::as_str) {
        text.push_str("  ");
        text.push_str(id);
        text.push('\n');
    }
    if by_id {
        text.push_str(
            "an id is not looked up first: --list tells what was found and removed of it\n",
        );
    }
    if !dry_run {
        let names = answer["deletions"].as_array().cloned().unwrap_or_default();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            text.push_str(&format!("deletion {}: see --list\n", names.join(", ")));
        }
    }
    Ok(text)
}

fn listed(answer: &Value) -> String {
    let mut text = String::from("ID\tREQUESTED\tDONE\tTRACES\tREMOVED\tSPANS\tQUERY\n");
    for deletion in answer["deletions"].as_array().into_iter().flatten() {
        let time = |key: &str| {
            let nanos = deletion[key].as_str().and_then(|nanos| nanos.parse::<u64>().ok());
            let at = nanos.filter(|nanos| *nanos > 0).map(UnixNanos);
            at.map_or("-".to_owned(), rfc3339)
        };
        let query = match deletion["wholeTenant"].as_bool() {
            Some(true) => "(the whole tenant)",
            _ => deletion["query"].as_str().unwrap_or_default(),
        };
        text.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{query}\n",
            deletion["id"],
            time("requestedUnixNano"),
            time("doneUnixNano"),
            deletion["tracesNamed"],
            deletion["tracesRemoved"],
            deletion["spansRemoved"],
        ));
    }
    text
}

/// Does what `clew tenant` was told.
pub(crate) async fn tenant(tenant: Tenant) -> Result<String, String> {
    match tenant.command {
        TenantCommand::Remove { name, url } => {
            let api = Api { url, tenant: Some(name.clone()) };
            let parameters = [("name", name.clone())];
            ask(&api, Method::DELETE, "/api/tenant", &parameters).await?;
            Ok(format!("{name} has no data any more\n"))
        }
        TenantCommand::Set { name, retention, retention_bytes, member } => {
            let age = match retention.as_deref() {
                None => None,
                Some(text) => Some(
                    parse_duration(text)
                        .ok_or_else(|| format!("--retention: {text} is no duration such as 72h"))?,
                ),
            };
            let tenant = TenantId::parse(&name).map_err(|error| error.to_string())?;
            let settings = TenantSettings { age, bytes: retention_bytes };
            let Reached { addr, channel } = member.reach(MutualConfig::default())?;
            let set = apply(&channel, SetTenant { tenant, settings }).await;
            set.map_err(|problem| format!("{addr}: {problem}"))?;
            Ok(String::new())
        }
    }
}

/// One request to the API; an error is text for people.
async fn ask(
    api: &Api,
    method: Method,
    path: &str,
    parameters: &[(&str, String)],
) -> Result<Value, String> {
    let parameters: Vec<(&str, &str)> =
        parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let url = web::below(&web::url("--api", &api.url)?, path, &parameters);
    let answer = web::ask(method, url, api.tenant.as_deref(), ANSWER_BYTES_MAX).await;
    let answer = answer.map_err(|error| format!("{}: {error}", api.url))?;
    if answer.status != 200 {
        return Err(format!("{}: {}: {}", api.url, answer.status, answer.text()));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("{}: {error}", api.url))
}
