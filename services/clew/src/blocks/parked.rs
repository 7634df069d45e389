//! Objects that compactions leave alone: `clew block parked` and `clew block unpark`.

use std::fmt::Write as _;

use clew_catalog::{ObjectKey, Unpark};
use clew_model::UnixNanos;
use clew_node::Problem;
use clew_node::rpc::MESSAGE_BYTES_MAX;
use clew_proto::metastore::v1::compaction_service_client::CompactionServiceClient;
use clew_proto::metastore::v1::{ParkedObject, ParkedRequest};
use serde_json::{Value, json};

use crate::cluster::apply;
use crate::instant::rfc3339;
use crate::member::Reached;

async fn parked(metastore: &Reached) -> Result<Vec<ParkedObject>, String> {
    let Reached { addr, channel } = metastore;
    let mut client =
        CompactionServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let answer = client.parked(ParkedRequest {}).await;
    let answer = answer.map_err(|status| format!("{addr}: {}", Problem::from(status)))?;
    Ok(answer.into_inner().objects)
}

/// The parked objects, as text or JSON.
pub(super) async fn list(metastore: &Reached, as_json: bool) -> Result<String, String> {
    let objects = parked(metastore).await?;
    if as_json {
        let objects = objects.iter().map(|object| {
            json!({
                "object": object.object,
                "reason": object.reason,
                "parkedUnixNano": object.at_unix_nanos.to_string(),
            })
        });
        return Ok(format!("{:#}\n", Value::Array(objects.collect())));
    }
    let mut text = String::from("OBJECT\tSINCE\tREASON\n");
    for ParkedObject { object, reason, at_unix_nanos } in &objects {
        let since = rfc3339(UnixNanos(*at_unix_nanos));
        let _ = writeln!(text, "{object}\t{since}\t{}", reason.replace(['\n', '\t'], " "));
    }
    Ok(text)
}

/// Lets compactions try the objects again, or all that are parked if none is named.
pub(super) async fn unpark(metastore: &Reached, names: Vec<String>) -> Result<String, String> {
    let Reached { addr, channel } = metastore;
    let parked = parked(metastore).await?;
    let is_parked = |name: &String| parked.iter().any(|object| object.object == *name);
    if let Some(name) = names.iter().find(|name| !is_parked(name)) {
        return Err(format!("{name} is not parked"));
    }
    let wanted = parked.iter().filter(|object| names.is_empty() || names.contains(&object.object));
    let objects = wanted.map(|object| ObjectKey::parse(&object.object));
    let objects: Vec<ObjectKey> =
        objects.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let count = match objects.is_empty() {
        true => 0,
        false => {
            let done = apply(channel, Unpark { objects }).await;
            done.map_err(|problem| format!("{addr}: {problem}"))?
        }
    };
    Ok(format!("{count} objects unparked\n"))
}
