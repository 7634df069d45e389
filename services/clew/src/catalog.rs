//! `clew catalog`: backups of the catalog, and what an operator does when it was lost.

use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use clew_catalog::{
    AcceptGap, BACKUP_HEAD_BYTES, BackupKey, BackupSummary, ForgetGaps, GapOutcome, ShardId, View,
};
use clew_model::ErrorKind;
use clew_node::Problem;
use clew_node::rpc::{Channel, MESSAGE_BYTES_MAX};
use clew_node::tls::MutualConfig;
use clew_proto::metastore::v1::catalog_service_client::CatalogServiceClient;
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::restore_request::Source;
use clew_proto::metastore::v1::{
    BackupRequest, Rebuild, ReplicaReport, RestoreRequest, ViewRequest,
};
use clew_storage::Bucket;
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::blocks::bucket;
use crate::cli::{Catalog, CatalogCommand, Options, Restoring};
use crate::cluster::{apply, ask, look};
use crate::config::Config;
use crate::instant::rfc3339;
use crate::member::Reached;

/// How many bytes of a backup are copied at once.
const COPY_BYTES: u64 = 64 << 20;

/// Does what `clew catalog` was told.
pub(crate) async fn run(catalog: Catalog, print: &mut dyn FnMut(&str)) -> Result<(), String> {
    let Catalog { member, command } = catalog;
    let Reached { addr, channel } = member.reach(MutualConfig::default())?;
    let at = |problem: Problem| format!("{addr}: {problem}");
    match command {
        CatalogCommand::Backup => print(&back_up(channel).await.map_err(at)?),
        CatalogCommand::List { json, options } => print(&list(options, json).await?),
        CatalogCommand::Export { backup, file, options } => {
            export(&bucket(&settings(options)?)?, &backup, &file).await?;
        }
        CatalogCommand::Restore { from, file, restoring } => {
            let source = match file {
                Some(path) => Source::Content(read(&path)?),
                None => Source::Backup(from.unwrap_or_default()),
            };
            restore(channel, source, restoring, print).await.map_err(at)?;
        }
        CatalogCommand::Rebuild { shards, restoring } => {
            let source = Source::Rebuild(Rebuild { shards: shards.unwrap_or(0) });
            restore(channel, source, restoring, print).await.map_err(at)?;
        }
        CatalogCommand::Recover { restoring } => {
            restore(channel, Source::OwnDisk(true), restoring, print).await.map_err(at)?;
        }
        CatalogCommand::Gaps { json } => print(&gaps(&channel, json).await.map_err(at)?),
        CatalogCommand::Accept { shard } => {
            print(&accept(&channel, ShardId(shard)).await.map_err(at)?);
        }
        CatalogCommand::Forget { shard } => {
            let forgotten = apply(&channel, ForgetGaps { shard: shard.map(ShardId) }).await;
            print(match forgotten.map_err(at)? {
                GapOutcome::Done => "forgotten\n",
                GapOutcome::None => "there is none\n",
            });
        }
    }
    Ok(())
}

async fn back_up(channel: Channel) -> Result<String, Problem> {
    let made = CatalogServiceClient::new(channel).backup(BackupRequest {}).await?.into_inner();
    Ok(format!("{}: revision {}, {} bytes\n", made.key, made.revision, made.bytes))
}

fn settings(options: Options) -> Result<Config, String> {
    options.load().map_err(|error| error.to_string())
}

/// A backup in the bucket, and what it says of itself.
struct Listed {
    key: BackupKey,
    bytes: u64,
    summary: Result<BackupSummary, String>,
}

async fn list(options: Options, as_json: bool) -> Result<String, String> {
    let bucket = bucket(&settings(options)?)?;
    let objects = bucket.list(BackupKey::PREFIX).try_collect::<Vec<_>>().await;
    let objects = objects.map_err(|error| error.to_string())?;
    let mut backups = Vec::new();
    for object in objects {
        let Some(key) = BackupKey::parse(&object.key) else { continue };
        let head = bucket.get_range(&object.key, 0..object.size.min(BACKUP_HEAD_BYTES)).await;
        let summary = match head {
            Ok(head) => BackupSummary::decode(&head).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        backups.push(Listed { key, bytes: object.size, summary });
    }
    backups.sort_by_key(|backup| std::cmp::Reverse(backup.key));
    Ok(match as_json {
        true => format!("{:#}\n", Value::Array(backups.iter().map(backup_json).collect())),
        false => backups_text(&backups),
    })
}

fn backups_text(backups: &[Listed]) -> String {
    let mut text = String::from("BACKUP\tREVISION\tTAKEN\tOBJECTS\tBYTES\tCLUSTER\n");
    for Listed { key, bytes, summary } in backups {
        // Writing into a string does not fail.
        let _ = match summary {
            Ok(summary) => writeln!(
                text,
                "{key}\t{}\t{}\t{}\t{bytes}\t{}",
                summary.revision,
                rfc3339(summary.at),
                summary.objects,
                summary.cluster
            ),
            Err(why) => writeln!(text, "{key}\t{}\tunreadable: {why}", key.revision),
        };
    }
    text
}

fn backup_json(backup: &Listed) -> Value {
    let Listed { key, bytes, summary } = backup;
    let named = json!({
        "backup": key.to_string(),
        "revision": key.revision,
        "bytes": bytes,
    });
    let told = match summary {
        Ok(summary) => json!({
            "takenUnixNano": summary.at.0.to_string(),
            "objects": summary.objects,
            "cluster": summary.cluster.to_string(),
            "incarnation": summary.incarnation,
            "watermarks": summary.watermarks.iter().map(|(shard, incarnation, point)| json!({
                "shard": shard.0,
                "incarnation": incarnation.0,
                "index": point.index,
            })).collect::<Vec<_>>(),
        }),
        Err(why) => json!({ "unreadable": why }),
    };
    let mut all = named;
    if let (Value::Object(all), Value::Object(told)) = (&mut all, told) {
        all.extend(told);
    }
    all
}

async fn export(bucket: &Bucket, name: &str, file: &Path) -> Result<(), String> {
    use std::io::Write as _;
    let key = BackupKey::parse(name).ok_or_else(|| format!("not the name of a backup: {name}"))?;
    let key = key.to_string();
    let size = bucket.head(&key).await.map_err(|error| error.to_string())?;
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut out = std::fs::File::create_new(file).map_err(failed)?;
    let mut start = 0;
    while start < size {
        let end = size.min(start + COPY_BYTES);
        let bytes = bucket.get_range(&key, start..end).await.map_err(|error| error.to_string())?;
        out.write_all(&bytes).map_err(failed)?;
        start = end;
    }
    out.sync_all().map_err(failed)
}

fn read(path: &Path) -> Result<Bytes, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // Room for the rest of the message.
    if bytes.len() > MESSAGE_BYTES_MAX - 4_096 {
        return Err(format!(
            "{} is too large to be sent: put it into the bucket as {}<revision>-<random>.backup, with \
             its revision in 20 digits and 16 hexadecimal digits, and name it with --from",
            path.display(),
            BackupKey::PREFIX
        ));
    }
    Ok(Bytes::from(bytes))
}

async fn restore(
    channel: Channel,
    source: Source,
    restoring: Restoring,
    print: &mut dyn FnMut(&str),
) -> Result<(), Problem> {
    let Restoring { dry_run, accept_gaps } = restoring;
    let mut client =
        CatalogServiceClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let request = RestoreRequest { source: Some(source), dry_run, accept_gaps };
    let answer = client.restore(request).await?.into_inner();
    print(&answer.report);
    if answer.done {
        print(&format!("restored: revision {}\n", answer.revision));
        if answer.restarts {
            print("the process ends now: start it again, and the other members with empty disks\n");
        }
        return Ok(());
    }
    if dry_run {
        print("nothing was changed\n");
        return Ok(());
    }
    let message = "something is missing, see above: --accept-gaps restores what there is, and queries \
                   name what is missing";
    Err(Problem::new(ErrorKind::Conflict, "gaps", message))
}

/// What one of the replicas that stand still has purged, and where the catalog is.
fn standing(reports: &[ReplicaReport], view: &View) -> Vec<(u32, u64, u64, u64)> {
    let ahead = reports.iter().filter_map(|report| {
        let known = view.shards.get(&ShardId(report.shard))?;
        let is_ahead = report.leads
            && known.incarnation.0 == report.incarnation
            && report.watermark > known.watermark.index;
        let (shard, incarnation) = (report.shard, report.incarnation);
        is_ahead.then_some((shard, incarnation, known.watermark.index, report.watermark))
    });
    ahead.collect()
}

async fn view(channel: &Channel) -> Result<View, Problem> {
    let mut client =
        MetastoreServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let request = ViewRequest { shards_only: true, ..ViewRequest::default() };
    let answer = client.view(request).await?.into_inner();
    let unreadable = |error: clew_catalog::DecodeError| {
        Problem::new(ErrorKind::Internal, "view", error.to_string())
    };
    View::decode(&answer.view).map_err(unreadable)
}

async fn gaps(channel: &Channel, as_json: bool) -> Result<String, Problem> {
    let (view, account) = (view(channel).await?, ask(channel.clone()).await?);
    let reports: Vec<ReplicaReport> =
        account.nodes.into_iter().flat_map(|node| node.replicas).collect();
    let standing = standing(&reports, &view);
    if as_json {
        let gaps = view.gaps.iter().map(|gap| {
            json!({
                "shard": gap.shard.0,
                "incarnation": gap.incarnation.0,
                "from": gap.from,
                "through": gap.through,
                "object": gap.object.map(|object| object.to_string()),
                "foundUnixNano": gap.at.0.to_string(),
            })
        });
        let standing = standing.iter().map(|(shard, incarnation, from, through)| {
            json!({ "shard": shard, "incarnation": incarnation, "from": from, "through": through })
        });
        let all = json!({
            "gaps": gaps.collect::<Vec<_>>(),
            "standing": standing.collect::<Vec<_>>(),
        });
        return Ok(format!("{all:#}\n"));
    }
    let mut text = String::new();
    for (shard, incarnation, from, through) in standing {
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "stands still: shard {shard}, incarnation {incarnation}: entries {} to {through} were \
             flushed and are not in the catalog",
            from + 1
        );
    }
    for gap in &view.gaps {
        let _ = writeln!(text, "gap: {gap}");
    }
    if text.is_empty() {
        text.push_str("nothing is known to be gone\n");
    }
    Ok(text)
}

async fn accept(channel: &Channel, shard: ShardId) -> Result<String, Problem> {
    let topology = look(channel).await?;
    let Some(place) = topology.shards.get(&shard) else {
        let message = format!("there is no shard {shard}");
        return Err(Problem::new(ErrorKind::NotFound, "shard", message));
    };
    match apply(channel, AcceptGap { shard, incarnation: place.incarnation }).await? {
        GapOutcome::Done => Ok(format!("shard {shard} goes on; see `clew catalog gaps`\n")),
        GapOutcome::None => {
            let message = format!("shard {shard} does not stand still because of a gap");
            Err(Problem::new(ErrorKind::Conflict, "no_gap", message))
        }
    }
}
