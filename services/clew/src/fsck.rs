//! `clew fsck`: compares the catalog with the bucket, verifies checksums, repairs what is safe.
//!
//! Safe is: to delete objects that the metastore calls dead, to take damaged blocks out of queries,
//! which then say that they miss something, and to let queries read blocks again that are whole.
//! Nothing else is touched. Damaged is what was read, twice, and is not what was written. What cannot
//! be read tells nothing of a block: then nothing at all is repaired.

mod findings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clew_catalog::{BackupKey, ObjectKey, ObjectMeta, QuarantineBlock};
use clew_model::ErrorKind;
use clew_node::Problem;
use clew_node::rpc::MESSAGE_BYTES_MAX;
use clew_proto::metastore::v1::CheckRequest;
use clew_proto::metastore::v1::compaction_service_client::CompactionServiceClient;
use clew_storage::Bucket;
use futures::TryStreamExt;

use self::findings::{Broken, Findings, Harm, Suspect};
use crate::blocks::{
    Fault, bucket_and_metastore, every_object, lift_one, quarantined, verify, view,
};
use crate::cli::Fsck;
use crate::cluster::apply;
use crate::member::Reached;

/// Objects of the bucket that are asked about at once.
const ASKED_AT_ONCE: usize = 2_000;

type Objects = BTreeMap<ObjectKey, Arc<ObjectMeta>>;

/// Does what `clew fsck` was told.
pub(crate) async fn run(fsck: Fsck, print: &mut dyn FnMut(&str)) -> Result<(), String> {
    let Fsck { member, verify: deep, repair: repairs, options } = fsck;
    let (bucket, metastore) = bucket_and_metastore(options, member)?;
    let mut found = Findings::default();
    // The bucket first: what the catalog does not know after that was dead when it was listed.
    let listed: Vec<_> = bucket.list("").try_collect().await.map_err(|e| e.to_string())?;
    let listed: BTreeMap<String, u64> =
        listed.into_iter().map(|object| (object.key, object.size)).collect();
    found.listed = listed.len();
    let seen = view(&metastore, None).await?;
    let objects = every_object(&seen);
    found.live = objects.len();
    found.unsound = seen.unsound();
    let suspects = quarantined(&metastore).await?;
    found.suspects = suspects.into_iter().map(Suspect::new).collect();
    look_at_live(&bucket, &objects, &listed, deep, &mut found).await?;
    look_at_suspects(&bucket, &listed, deep, &mut found).await?;
    let unknown = sort_unknown(&objects, listed.into_keys(), &mut found);
    ask(&metastore, unknown, &mut found).await?;
    // That took its time: what compactions have replaced meanwhile may be gone by now, and rightly so.
    let now = view(&metastore, None).await?;
    let suspects: BTreeSet<_> =
        quarantined(&metastore).await?.iter().map(|q| (q.object, q.block.tenant.clone())).collect();
    found.keep_known(&every_object(&now), &suspects);
    found.report(print);
    if repairs {
        found.check_repairable()?;
        repair(&bucket, &metastore, &objects, &found, print).await?;
        return found.verdict_of_repair();
    }
    found.verdict()
}

/// Whether live objects are there, and with `deep` whether their blocks are whole.
async fn look_at_live(
    bucket: &Bucket,
    objects: &Objects,
    listed: &BTreeMap<String, u64>,
    deep: bool,
    found: &mut Findings,
) -> Result<(), String> {
    for object in objects.values() {
        if let Some(harm) = harm_of_object(bucket, object.key, object.size, listed).await? {
            found.present += usize::from(harm != Harm::Missing);
            found.broken.push(Broken { key: object.key, tenant: None, harm });
            continue;
        }
        found.present += 1;
        for place in object.tenants.iter().filter(|_| deep) {
            // Damage that is known is looked at below.
            if found.is_suspect(object.key, &place.tenant) {
                continue;
            }
            if let Err(fault) = verify(bucket, object.key, place).await {
                let harm = harm_of(object.key, &fault)?;
                // What all blocks miss is said once.
                let tenant = (harm != Harm::Missing).then(|| place.tenant.clone());
                let is_all = tenant.is_none();
                found.broken.push(Broken { key: object.key, tenant, harm });
                if is_all {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Whether the objects of quarantined blocks are there, and with `deep` whether the blocks are whole.
async fn look_at_suspects(
    bucket: &Bucket,
    listed: &BTreeMap<String, u64>,
    deep: bool,
    found: &mut Findings,
) -> Result<(), String> {
    for suspect in &mut found.suspects {
        let (key, size) = (suspect.known.object, suspect.known.size);
        let harm = harm_of_object(bucket, key, size, listed).await?;
        found.present += usize::from(harm != Some(Harm::Missing));
        if deep && harm.is_none() {
            match verify(bucket, key, &suspect.known.block).await {
                Ok(()) => suspect.is_whole = true,
                // Only what cannot be told matters.
                Err(fault) => drop(harm_of(key, &fault)?),
            }
        }
    }
    Ok(())
}

/// What is wrong with an object as a whole, if anything.
async fn harm_of_object(
    bucket: &Bucket,
    key: ObjectKey,
    registered: u64,
    listed: &BTreeMap<String, u64>,
) -> Result<Option<Harm>, String> {
    let size = match listed.get(&key.to_string()) {
        Some(size) => Ok(*size),
        // It may have come while the bucket was listed.
        None => bucket.head(&key.to_string()).await,
    };
    match size {
        Ok(size) if size == registered => Ok(None),
        Ok(size) => Ok(Some(Harm::Damaged(format!("it has {size} bytes instead of {registered}")))),
        Err(error) => harm_of(key, &Fault::Storage(error)).map(Some),
    }
}

/// What a fault says of the block.
///
/// # Errors
/// Text for people, if it says nothing of the block, but that it cannot be looked at.
fn harm_of(key: ObjectKey, fault: &Fault) -> Result<Harm, String> {
    match fault.kind() {
        ErrorKind::Corrupt => Ok(Harm::Damaged(fault.to_string())),
        ErrorKind::NotFound => Ok(Harm::Missing),
        _ => Err(format!("{key} cannot be checked, so nothing is repaired: {fault}")),
    }
}

/// Those names in the bucket that the metastore has to be asked about.
fn sort_unknown(
    objects: &Objects,
    names: impl Iterator<Item = String>,
    found: &mut Findings,
) -> Vec<String> {
    let mut unknown = Vec::new();
    for name in names {
        match ObjectKey::parse(&name) {
            Ok(key) if objects.contains_key(&key) || found.has_suspect_in(key) => {}
            Ok(_) => unknown.push(name),
            // Not objects of the catalog, and never orphans: what it is restored from.
            Err(_) if BackupKey::parse(&name).is_some() => found.backups += 1,
            Err(_) => found.foreign.push(name),
        }
    }
    unknown
}

/// Asks the metastore which of these objects can never be registered.
async fn ask(
    metastore: &Reached,
    unknown: Vec<String>,
    found: &mut Findings,
) -> Result<(), String> {
    let Reached { addr, channel } = metastore;
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
    Ok(())
}

/// Deletes orphans, takes what is damaged out of queries, lets back in what is whole.
async fn repair(
    bucket: &Bucket,
    metastore: &Reached,
    objects: &Objects,
    found: &Findings,
    print: &mut dyn FnMut(&str),
) -> Result<(), String> {
    let Reached { addr, channel } = metastore;
    for name in &found.orphans {
        bucket.delete(name).await.map_err(|error| error.to_string())?;
    }
    let mut damaged = 0;
    for (key, tenant, reason) in found.damaged() {
        damaged += 1;
        let blocks = objects.get(&key).map(|o| o.tenants.as_slice()).unwrap_or_default();
        for block in blocks.iter().filter(|block| tenant.is_none_or(|only| *only == block.tenant)) {
            let (object, tenant, reason) = (key, block.tenant.clone(), reason.to_owned());
            let quarantine = QuarantineBlock { object, tenant, reason };
            apply(channel, quarantine).await.map_err(|problem| format!("{addr}: {problem}"))?;
        }
    }
    let mut lifted = 0;
    for suspect in found.suspects.iter().filter(|suspect| suspect.is_whole) {
        lifted += usize::from(lift_one(metastore, &suspect.known).await?);
    }
    print(&format!(
        "repaired: {} orphans deleted, {damaged} objects or blocks taken out of queries, {lifted} \
         blocks let back in\n",
        found.orphans.len(),
    ));
    Ok(())
}
