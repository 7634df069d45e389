//! Damaged blocks that queries leave out: `clew block quarantined` and `clew block lift`.

use std::fmt::Write as _;

use clew_catalog::{LiftOutcome, LiftQuarantine, ObjectKey, ObjectMeta, TenantBlock};
use clew_model::{TenantId, UnixNanos};
use clew_node::Problem;
use clew_node::rpc::MESSAGE_BYTES_MAX;
use clew_proto::metastore::v1::compaction_service_client::CompactionServiceClient;
use clew_proto::metastore::v1::{QuarantinedBlock, QuarantinedRequest};
use serde_json::{Value, json};

use crate::cluster::apply;
use crate::instant::rfc3339;
use crate::member::Reached;

/// A quarantined block.
#[derive(Debug, Clone)]
pub(crate) struct Quarantined {
    pub(crate) object: ObjectKey,
    /// The size of the object.
    pub(crate) size: u64,
    pub(crate) block: TenantBlock,
    /// What was found.
    pub(crate) reason: String,
    /// When.
    pub(crate) at: UnixNanos,
}

/// All of them, by tenant.
pub(crate) async fn quarantined(metastore: &Reached) -> Result<Vec<Quarantined>, String> {
    let Reached { addr, channel } = metastore;
    let mut client =
        CompactionServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let answer = client.quarantined(QuarantinedRequest {}).await;
    let answer = answer.map_err(|status| format!("{addr}: {}", Problem::from(status)))?;
    let blocks = answer.into_inner().blocks.into_iter();
    blocks.map(|block| decoded(block).map_err(|error| format!("{addr}: {error}"))).collect()
}

fn decoded(block: QuarantinedBlock) -> Result<Quarantined, String> {
    let QuarantinedBlock { object, reason, at_unix_nanos } = block;
    let object = ObjectMeta::decode(&object).map_err(|error| error.to_string())?;
    let (key, size) = (object.key, object.size);
    let block = object.tenants.into_iter().next().ok_or("a block is missing")?;
    Ok(Quarantined { object: key, size, block, reason, at: UnixNanos(at_unix_nanos) })
}

/// The quarantined blocks, as text or JSON.
pub(super) async fn list(metastore: &Reached, as_json: bool) -> Result<String, String> {
    let blocks = quarantined(metastore).await?;
    if as_json {
        let blocks = blocks.iter().map(|known| {
            json!({
                "object": known.object.to_string(),
                "tenant": known.block.tenant.as_str(),
                "spans": known.block.spans,
                "traces": known.block.traces,
                "startUnixNano": known.block.min_time.0.to_string(),
                "endUnixNano": known.block.max_time.0.to_string(),
                "reason": known.reason,
                "quarantinedUnixNano": known.at.0.to_string(),
            })
        });
        return Ok(format!("{:#}\n", Value::Array(blocks.collect())));
    }
    let mut text = String::from("OBJECT\tTENANT\tSPANS\tFROM\tTO\tSINCE\tREASON\n");
    for Quarantined { object, block, reason, at, .. } in &blocks {
        let TenantBlock { tenant, spans, min_time, max_time, .. } = block;
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "{object}\t{tenant}\t{spans}\t{}\t{}\t{}\t{}",
            rfc3339(*min_time),
            rfc3339(*max_time),
            rfc3339(*at),
            reason.replace(['\n', '\t'], " "),
        );
    }
    Ok(text)
}

/// Lets queries read the blocks of these objects again, or all that are quarantined if none is named.
pub(super) async fn lift(
    metastore: &Reached,
    names: &[String],
    tenant: Option<&TenantId>,
) -> Result<String, String> {
    let mut known = quarantined(metastore).await?;
    known.retain(|known| tenant.is_none_or(|tenant| known.block.tenant == *tenant));
    let is_known = |name: &String| known.iter().any(|known| known.object.to_string() == *name);
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        return Err(match tenant {
            Some(tenant) => format!("{name} has no quarantined block of tenant {tenant}"),
            None => format!("{name} has no quarantined block"),
        });
    }
    let is_wanted = |known: &&Quarantined| {
        names.is_empty() || names.iter().any(|name| known.object.to_string() == *name)
    };
    let mut lifted = 0;
    for known in known.iter().filter(is_wanted) {
        lifted += u64::from(lift_one(metastore, known).await?);
    }
    Ok(format!("{lifted} blocks are read again\n"))
}

/// Whether the block was still quarantined.
pub(crate) async fn lift_one(metastore: &Reached, known: &Quarantined) -> Result<bool, String> {
    let Reached { addr, channel } = metastore;
    let (object, tenant) = (known.object, known.block.tenant.clone());
    let outcome = apply(channel, LiftQuarantine { object, tenant }).await;
    let outcome = outcome.map_err(|problem| format!("{addr}: {problem}"))?;
    Ok(outcome == LiftOutcome::Lifted)
}
