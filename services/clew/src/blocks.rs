//! Looking at what is in the bucket: `clew block` and `clew analyse`.

mod export;
mod parked;
mod spans;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use clew_block::Block;
use clew_catalog::{ObjectKey, ObjectMeta, TenantBlock, View};
use clew_model::{TenantId, Trace};
use clew_node::rpc::MESSAGE_BYTES_MAX;
use clew_node::tls::MutualConfig;
use clew_node::{Deps, Problem};
use clew_proto::metastore::v1::ViewRequest;
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_storage::Bucket;
use serde_json::{Value, json};

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
            print(&if json { list_json(&view) } else { list_text(&view) });
        }
        BlockCommand::Show { object, options } => {
            let (bucket, object) = opened(options, member, &object).await?;
            for place in &object.tenants {
                let block = open(&bucket, object.key, place).await?;
                print(&format!("{:#}\n", describe(&object, place, &block)));
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
                    if let Err(error) = verify(&bucket, object.key, place).await {
                        damaged += 1;
                        print(&format!("{} {}: {error}\n", object.key, place.tenant));
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
        BlockCommand::Export { object, tenant, format, options } => {
            let (bucket, object) = opened(options, member, &object).await?;
            let wanted = |place: &&TenantBlock| {
                tenant.as_ref().is_none_or(|tenant| *tenant == place.tenant.as_str())
            };
            let places = object.tenants.iter().filter(wanted).collect();
            export::run(&bucket, object.key, places, format, sink).await?;
        }
    }
    Ok(())
}

/// Does what `clew analyse` was told.
pub(crate) async fn analyse(analyse: Analyse, print: &mut dyn FnMut(&str)) -> Result<(), String> {
    let Analyse { member, tenant, top, options } = analyse;
    let (bucket, metastore) = bucket_and_metastore(options, member)?;
    let view = view(&metastore, tenant.as_deref()).await?;
    let mut sections: BTreeMap<String, u64> = BTreeMap::new();
    let mut keys: BTreeMap<(String, String), [u64; 3]> = BTreeMap::new();
    let (mut bytes, mut spans, mut blocks) = (0u64, 0u64, 0u64);
    for (tenant, object) in every_block(&view) {
        let Some(place) = object.block(&tenant) else { continue };
        let block = open(&bucket, object.key, place).await?;
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
        print(&format!("{scope}:{name}\t{bytes}\t{rows}\t{values}\n"));
    }
    Ok(())
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

/// The bucket that the settings name.
pub(crate) fn bucket(config: &Config) -> Result<Bucket, String> {
    let deps = Deps::system(COMPUTE_THREADS);
    Bucket::open(&config.bucket(), &deps).map_err(|error| error.to_string())
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

pub(crate) async fn open(
    bucket: &Bucket,
    key: ObjectKey,
    place: &TenantBlock,
) -> Result<Block, String> {
    let end = place.offset.saturating_add(place.length);
    let start = end.saturating_sub(u64::from(place.footer_length));
    let tail = bucket.get_range(&key.to_string(), start..end).await;
    let tail = tail.map_err(|error| error.to_string())?;
    Block::open(&tail).map_err(|error| format!("{key}: {error}"))
}

/// Reads a whole block and checks every byte of it against its checksums.
pub(crate) async fn verify(
    bucket: &Bucket,
    key: ObjectKey,
    place: &TenantBlock,
) -> Result<(), String> {
    let block = open(bucket, key, place).await?;
    if block.footer().spans != place.spans || block.footer().tenant != place.tenant {
        return Err("it is not the block that is registered".to_owned());
    }
    let mut spans = 0;
    for number in 0..block.pages().entries().len() {
        let traces = page(bucket, key, place, &block, number).await?;
        spans += traces.iter().map(|trace| trace.spans.len() as u64).sum::<u64>();
    }
    if spans != place.spans {
        return Err(format!("it holds {spans} spans instead of {}", place.spans));
    }
    let ranges = block.search_ranges().map_err(|error| error.to_string())?;
    let at = |range: &std::ops::Range<u64>| place.offset + range.start..place.offset + range.end;
    let wanted = [
        at(&ranges.traces),
        at(&ranges.dictionary),
        at(&ranges.postings),
        at(&ranges.locator),
        at(&ranges.numbers),
        at(&ranges.columns),
    ];
    let read = bucket.get_ranges(&key.to_string(), &wanted).await;
    let read = read.map_err(|error| error.to_string())?;
    let [traces, dictionary, postings, locator, numbers, columns] =
        <[bytes::Bytes; 6]>::try_from(read).map_err(|_| "a section is missing".to_owned())?;
    let sections =
        clew_block::SearchSections { traces, dictionary, postings, locator, numbers, columns };
    block.search(&sections).map(|_| ()).map_err(|error| error.to_string())
}

async fn page(
    bucket: &Bucket,
    key: ObjectKey,
    place: &TenantBlock,
    block: &Block,
    number: usize,
) -> Result<Vec<Trace>, String> {
    let Some(entry) = block.pages().entries().get(number) else { return Ok(Vec::new()) };
    let at = |range: &std::ops::Range<u64>| place.offset + range.start..place.offset + range.end;
    let ranges = [at(&entry.bytes), at(&entry.columns)];
    let read = bucket.get_ranges(&key.to_string(), &ranges).await;
    let read = read.map_err(|error| error.to_string())?;
    let [packed, columns] = read.as_slice() else { return Err("a page is missing".to_owned()) };
    let page = block.page(number, packed, columns);
    let traces = page.and_then(|page| page.all_traces(block.records()));
    traces.map_err(|error| format!("{key}: {error}"))
}

fn list_text(view: &View) -> String {
    let mut text = String::from("OBJECT\tLEVEL\tTENANT\tBYTES\tSPANS\tTRACES\tSPLIT\tFROM\tTO\n");
    for (tenant, object) in every_block(view) {
        let Some(block) = object.block(&tenant) else { continue };
        let _ = writeln!(
            text,
            "{}\t{}\t{tenant}\t{}\t{}\t{}\t{}\t{}\t{}",
            object.key,
            object.level,
            block.length,
            block.spans,
            block.traces,
            block.splits,
            block.min_time.as_seconds(),
            block.max_time.as_seconds(),
        );
    }
    text
}

fn list_json(view: &View) -> String {
    let blocks = every_block(view).into_iter().filter_map(|(tenant, object)| {
        let block = object.block(&tenant)?;
        Some(block_json(&object, block))
    });
    format!("{:#}\n", Value::Array(blocks.collect()))
}

fn block_json(object: &ObjectMeta, block: &TenantBlock) -> Value {
    json!({
        "object": object.key.to_string(),
        "level": object.level,
        "objectBytes": object.size,
        "tenant": block.tenant.as_str(),
        "offset": block.offset,
        "bytes": block.length,
        "spans": block.spans,
        "traces": block.traces,
        "splitTraces": block.splits,
        "startUnixNano": block.min_time.0.to_string(),
        "endUnixNano": block.max_time.0.to_string(),
        "registeredUnixNano": object.created_at.0.to_string(),
    })
}

fn describe(object: &ObjectMeta, place: &TenantBlock, block: &Block) -> Value {
    let footer = block.footer();
    let sections: Vec<Value> = footer
        .sections
        .iter()
        .map(|section| {
            json!({
                "kind": clew_block::SectionKind::name_of(section.kind),
                "bytes": section.bytes.end - section.bytes.start,
                "rawBytes": section.raw_length,
            })
        })
        .collect();
    let mut described = block_json(object, place);
    described["formatVersion"] = json!(footer.version);
    described["replaces"] = json!(footer.lineage);
    described["pages"] = json!(block.pages().entries().len());
    described["sections"] = Value::Array(sections);
    described
}
