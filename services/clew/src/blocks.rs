//! Looking at what is in the bucket: `clew block` and `clew analyse`.

mod export;
mod listing;
mod parked;
mod quarantined;
mod read;
mod spans;

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_catalog::{ObjectKey, ObjectMeta, TenantBlock, View};
use clew_model::{ErrorKind, TenantId};
use clew_node::rpc::MESSAGE_BYTES_MAX;
use clew_node::tls::MutualConfig;
use clew_node::{Deps, Problem};
use clew_proto::metastore::v1::ViewRequest;
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_storage::Bucket;

pub(crate) use self::quarantined::{Quarantined, lift_one, quarantined};
use self::read::open;
pub(crate) use self::read::{Fault, verify};
use crate::cli::{Analyse, BlockCommand, Blocks};
use crate::config::Config;
use crate::member::{Member, Reached};

/// Threads that decode.
const COMPUTE_THREADS: usize = 2;

/// Does what `clew block` was told; what comes out goes to `sink` bit by bit.
pub(crate) async fn run(blocks: Blocks, sink: &mut dyn FnMut(&[u8])) -> Result<(), String> {
    let Blocks { member, command } = blocks;
    let print = &mut |text: &str| sink(text.as_bytes());
    match command {
        BlockCommand::List { tenant, json } => {
            let metastore = member.reach(MutualConfig::default())?;
            let view = view(&metastore, tenant.as_deref()).await?;
            print(&if json { listing::json(&view) } else { listing::text(&view) });
        }
        BlockCommand::Show { object, options } => {
            let (bucket, object) = opened(options, member, &object).await?;
            for place in &object.tenants {
                let block = open(&bucket, object.key, place).await;
                let block = block.map_err(|fault| of_object(object.key, &fault))?;
                print(&format!("{:#}\n", listing::describe(&object, place, &block)));
            }
        }
        BlockCommand::Verify { objects, options } => {
            let (bucket, metastore) = bucket_and_metastore(options, member)?;
            let view = view(&metastore, None).await?;
            let all = every_object(&view);
            let wanted = |key: &ObjectKey| {
                objects.is_empty() || objects.iter().any(|name| *name == key.to_string())
            };
            let mut damaged = 0;
            let mut checked = 0;
            for object in all.values().filter(|object| wanted(&object.key)) {
                for place in &object.tenants {
                    checked += 1;
                    match verify(&bucket, object.key, place).await {
                        Ok(()) => {}
                        Err(fault) if is_of_the_block(&fault) => {
                            damaged += 1;
                            print(&format!("{} {}: {fault}\n", object.key, place.tenant));
                        }
                        Err(fault) => return Err(of_object(object.key, &fault)),
                    }
                }
            }
            print(&format!("{checked} blocks verified, {damaged} damaged\n"));
            if damaged > 0 {
                return Err(format!("{damaged} blocks are damaged"));
            }
        }
        BlockCommand::Parked { json } => {
            let metastore = member.reach(MutualConfig::default())?;
            print(&parked::list(&metastore, json).await?);
        }
        BlockCommand::Unpark { objects, .. } => {
            let metastore = member.reach(MutualConfig::default())?;
            print(&parked::unpark(&metastore, objects).await?);
        }
        BlockCommand::Quarantined { json } => {
            let metastore = member.reach(MutualConfig::default())?;
            print(&quarantined::list(&metastore, json).await?);
        }
        BlockCommand::Lift { objects, tenant, .. } => {
            let tenant = tenant.as_deref().map(known_name).transpose()?;
            let metastore = member.reach(MutualConfig::default())?;
            print(&quarantined::lift(&metastore, &objects, tenant.as_ref()).await?);
        }
        BlockCommand::Export { object, tenant, format, options } => {
            let (bucket, object) = opened(options, member, &object).await?;
            let tenant = tenant.as_deref().map(known_name).transpose()?;
            let wanted =
                |place: &&TenantBlock| tenant.as_ref().is_none_or(|tenant| *tenant == place.tenant);
            let places: Vec<&TenantBlock> = object.tenants.iter().filter(wanted).collect();
            if let Some(tenant) = tenant.filter(|_| places.is_empty()) {
                return Err(format!("{} has no block of tenant {tenant}", object.key));
            }
            export::run(&bucket, object.key, places, format, sink).await?;
        }
    }
    Ok(())
}

/// Whether it tells of the block itself, not of the way to it.
fn is_of_the_block(fault: &Fault) -> bool {
    matches!(fault.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}

fn of_object(key: ObjectKey, fault: &Fault) -> String {
    format!("{key}: {fault}")
}

fn known_name(tenant: &str) -> Result<TenantId, String> {
    TenantId::parse(tenant).map_err(|error| format!("--tenant {tenant}: {error}"))
}

/// Does what `clew analyse` was told.
pub(crate) async fn analyse(analyse: Analyse, print: &mut dyn FnMut(&str)) -> Result<(), String> {
    let Analyse { member, tenant, top, options } = analyse;
    let (bucket, metastore) = bucket_and_metastore(options, member)?;
    if let Some(tenant) = &tenant {
        known_name(tenant)?;
    }
    let view = view(&metastore, tenant.as_deref()).await?;
    if let Some(tenant) = tenant.filter(|_| view.tenants().next().is_none()) {
        return Err(format!("tenant {tenant} has no blocks"));
    }
    let mut sections: BTreeMap<String, u64> = BTreeMap::new();
    let mut keys: BTreeMap<(String, String), [u64; 3]> = BTreeMap::new();
    let (mut bytes, mut spans, mut blocks) = (0u64, 0u64, 0u64);
    for (tenant, object) in every_block(&view) {
        let Some(place) = object.block(&tenant) else { continue };
        let block = open(&bucket, object.key, place).await;
        let block = block.map_err(|fault| of_object(object.key, &fault))?;
        blocks += 1;
        bytes += place.length;
        spans += place.spans;
        for section in &block.footer().sections {
            let name = clew_block::SectionKind::name_of(section.kind).unwrap_or("other");
            *sections.entry(name.to_owned()).or_default() +=
                section.bytes.end - section.bytes.start;
        }
        for key in block.key_costs() {
            let sum = keys.entry((key.scope.to_owned(), key.name)).or_default();
            for (sum, more) in sum.iter_mut().zip([key.bytes, key.rows, key.values]) {
                *sum += more;
            }
        }
    }
    print(&format!("{blocks} blocks, {spans} spans, {bytes} bytes\n\nSECTION\tBYTES\tPER SPAN\n"));
    let mut sections: Vec<(String, u64)> = sections.into_iter().collect();
    sections.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    for (name, bytes) in sections {
        print(&format!("{name}\t{bytes}\t{:.2}\n", ratio(bytes, spans)));
    }
    print("\nATTRIBUTE\tINDEX BYTES\tROWS\tVALUES\n");
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_by_key(|(_, [bytes, ..])| std::cmp::Reverse(*bytes));
    for ((scope, name), [bytes, rows, values]) in keys.into_iter().take(top) {
        let name = shown(&name);
        print(&format!("{scope}:{name}\t{bytes}\t{rows}\t{values}\n"));
    }
    Ok(())
}

/// A text that a sender chose, harmless on a terminal and in a table: control characters and what
/// turns the direction of writing are escaped.
fn shown(text: &str) -> String {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_odd(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn ratio(bytes: u64, spans: u64) -> f64 {
    if spans == 0 { 0.0 } else { bytes as f64 / spans as f64 }
}

/// The catalog's view of one tenant, or of all.
pub(crate) async fn view(metastore: &Reached, tenant: Option<&str>) -> Result<View, String> {
    let Reached { addr, channel } = metastore;
    let mut client =
        MetastoreServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let tenants = tenant.map(str::to_owned).into_iter().collect();
    let answer = client.view(ViewRequest { tenants, ..ViewRequest::default() }).await;
    let answer = answer.map_err(|status| format!("{addr}: {}", Problem::from(status)))?;
    View::decode(&answer.into_inner().view).map_err(|error| format!("{addr}: {error}"))
}

/// What the settings say of both.
pub(crate) fn bucket_and_metastore(
    options: crate::cli::Options,
    member: Member,
) -> Result<(Bucket, Reached), String> {
    let config: Config = options.load().map_err(|error| error.to_string())?;
    Ok((bucket(&config)?, member.reach(config.rpc.tls)?))
}

/// The bucket that the settings name, to look at it: nothing is created.
pub(crate) fn bucket(config: &Config) -> Result<Bucket, String> {
    let deps = Deps::system(COMPUTE_THREADS);
    Bucket::open_existing(&config.bucket(), &deps).map_err(|error| error.to_string())
}

/// Each live object of the view once, with all blocks the view shows of it.
pub(crate) fn every_object(view: &View) -> BTreeMap<ObjectKey, Arc<ObjectMeta>> {
    every_block(view).into_iter().map(|(_, object)| (object.key, object)).collect()
}

fn every_block(view: &View) -> Vec<(TenantId, Arc<ObjectMeta>)> {
    let tenants: Vec<&TenantId> = view.tenants().collect();
    let blocks = tenants.into_iter().flat_map(|tenant| {
        view.blocks(tenant).map(|(object, _)| (tenant.clone(), Arc::clone(object)))
    });
    blocks.collect()
}

async fn opened(
    options: crate::cli::Options,
    member: Member,
    name: &str,
) -> Result<(Bucket, Arc<ObjectMeta>), String> {
    let (bucket, metastore) = bucket_and_metastore(options, member)?;
    let key = ObjectKey::parse(name).map_err(|error| error.to_string())?;
    let view = view(&metastore, None).await?;
    let object = every_object(&view).remove(&key);
    let object = object.ok_or_else(|| format!("the catalog has no live object {name}"))?;
    Ok((bucket, object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_senders_cannot_write_on_the_terminal() {
        assert_eq!(shown("http.route é 名"), "http.route é 名");
        assert_eq!(shown("a\u{1b}[2Jb\n\tc"), "a\\u{1b}[2Jb\\n\\tc");
        assert_eq!(shown("a\u{9b}b\u{202e}c"), "a\\u{9b}b\\u{202e}c");
    }
}
