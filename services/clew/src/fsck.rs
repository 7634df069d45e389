//! `clew fsck`: compares the catalog with the bucket, verifies checksums, repairs what is safe.
//!
//! Safe is: to delete objects that the metastore calls dead, and to take damaged or missing blocks
//! out of queries, which then say that they miss something. Nothing else is touched.

use std::collections::BTreeMap;

use clew_catalog::{BackupKey, ObjectKey, QuarantineBlock, Unsound};
use clew_model::TenantId;
use clew_node::Problem;
use clew_node::rpc::MESSAGE_BYTES_MAX;
use clew_proto::metastore::v1::CheckRequest;
use clew_proto::metastore::v1::compaction_service_client::CompactionServiceClient;
use futures::TryStreamExt;

use crate::blocks::{bucket_and_metastore, every_object, verify, view};
use crate::cli::Fsck;
use crate::cluster::apply;
use crate::member::Reached;

/// Objects of the bucket that are asked about at once.
const ASKED_AT_ONCE: usize = 2_000;

/// A live object that is not what is registered.
#[derive(Debug)]
struct Broken {
    key: ObjectKey,
    /// Whose block; nothing for all.
    tenant: Option<TenantId>,
    why: String,
}

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    live: usize,
    listed: usize,
    waiting: usize,
    orphans: Vec<String>,
    foreign: Vec<String>,
    backups: usize,
    broken: Vec<Broken>,
    ahead: Option<String>,
    /// What is wrong with the catalog itself.
    unsound: Vec<Unsound>,
}

/// Does what `clew fsck` was told.
pub(crate) async fn run(fsck: Fsck, print: &mut dyn FnMut(&str)) -> Result<(), String> {
    let Fsck { member, verify: deep, repair, options } = fsck;
    let (bucket, metastore) = bucket_and_metastore(options, member)?;
    let mut found = Findings::default();
    // The bucket first: what the catalog does not know after that was dead when it was listed.
    let listed: Vec<_> = bucket.list("").try_collect().await.map_err(|e| e.to_string())?;
    let listed: BTreeMap<String, u64> =
        listed.into_iter().map(|object| (object.key, object.size)).collect();
    found.listed = listed.len();
    let view = view(&metastore, None).await?;
    let objects = every_object(&view);
    found.live = objects.len();
    found.unsound = view.unsound();
    for object in objects.values() {
        let size = match listed.get(&object.key.to_string()) {
            Some(size) => Ok(*size),
            // It may have come while the bucket was listed.
            None => bucket.head(&object.key.to_string()).await,
        };
        match size {
            Ok(size) if size == object.size => {}
            Ok(size) => {
                let why = format!("it has {size} bytes instead of {}", object.size);
                found.broken.push(Broken { key: object.key, tenant: None, why });
                continue;
            }
            Err(error) => {
                let why = error.to_string();
                found.broken.push(Broken { key: object.key, tenant: None, why });
                continue;
            }
        }
        if deep {
            for place in &object.tenants {
                if let Err(why) = verify(&bucket, object.key, place).await {
                    let tenant = Some(place.tenant.clone());
                    found.broken.push(Broken { key: object.key, tenant, why });
                }
            }
        }
    }
    let unknown: Vec<String> = listed
        .keys()
        .filter(|name| match ObjectKey::parse(name) {
            Ok(key) => !objects.contains_key(&key),
            // Not objects of the catalog, and never orphans: what it is restored from.
            Err(_) if BackupKey::parse(name).is_some() => {
                found.backups += 1;
                false
            }
            Err(_) => {
                found.foreign.push((*name).clone());
                false
            }
        })
        .cloned()
        .collect();
    let Reached { addr, channel } = &metastore;
    let mut client =
        CompactionServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    // Asked at least once: whether the catalog is settled does not depend on what lies in the bucket.
    let mut chunks: Vec<&[String]> = unknown.chunks(ASKED_AT_ONCE).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    for chunk in chunks {
        let answer = client.check(CheckRequest { objects: chunk.to_vec() }).await;
        let answer = answer.map_err(|s| format!("{addr}: {}", Problem::from(s)))?.into_inner();
        found.waiting += chunk.len() - answer.dead.len();
        found.orphans.extend(answer.dead);
        if !answer.ahead.is_empty() {
            found.ahead = Some(answer.ahead);
        }
    }
    report(&found, print);
    if repair {
        if found.ahead.is_some() {
            return Err("the catalog lacks something: nothing is repaired".to_owned());
        }
        for name in &found.orphans {
            bucket.delete(name).await.map_err(|error| error.to_string())?;
        }
        for Broken { key, tenant, why } in &found.broken {
            let blocks = objects.get(key).map(|o| o.tenants.as_slice()).unwrap_or_default();
            let is_meant = |whose: &TenantId| tenant.as_ref().is_none_or(|only| only == whose);
            for block in blocks.iter().filter(|block| is_meant(&block.tenant)) {
                let (object, tenant) = (*key, block.tenant.clone());
                let quarantine = QuarantineBlock { object, tenant, reason: why.clone() };
                apply(channel, quarantine).await.map_err(|p| format!("{addr}: {p}"))?;
            }
        }
        print(&format!(
            "repaired: {} orphans deleted, {} objects taken out of queries\n",
            found.orphans.len(),
            found.broken.len()
        ));
        return Ok(());
    }
    if !found.unsound.is_empty() {
        return Err("the catalog contradicts itself".to_owned());
    }
    if found.broken.is_empty() && found.ahead.is_none() {
        return Ok(());
    }
    Err("the catalog and the bucket differ".to_owned())
}

fn report(found: &Findings, print: &mut dyn FnMut(&str)) {
    for unsound in &found.unsound {
        print(&format!("unsound: {unsound}\n"));
    }
    for Broken { key, tenant, why } in &found.broken {
        let whose = tenant.as_ref().map_or(String::new(), |tenant| format!(" of {tenant}"));
        print(&format!("broken {key}{whose}: {why}\n"));
    }
    for name in &found.orphans {
        print(&format!("orphan {name}\n"));
    }
    for name in &found.foreign {
        print(&format!("foreign {name}\n"));
    }
    if let Some(name) = &found.ahead {
        print(&format!(
            "the catalog is older than the bucket, or not settled since a restore: {name}\n"
        ));
    }
    print(&format!(
        "{} objects in the bucket, {} live, {} waiting or dead in the catalog, {} orphans, \
         {} foreign, {} broken, {} backups of the catalog\n",
        found.listed,
        found.live,
        found.waiting,
        found.orphans.len(),
        found.foreign.len(),
        found.broken.len(),
        found.backups
    ));
}
