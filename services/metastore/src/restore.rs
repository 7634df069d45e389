//! Giving a member a catalog: from a backup, from the objects in the bucket, or from what its own disk
//! still has after its group lost the majority.
//!
//! The catalog crate decides what the restored catalog is; here it is read from the bucket and put on
//! disk. A member begins its group alone with it, and the others join empty.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clew_catalog::{
    Backup, BackupKey, ClusterId, Listing, ObjectKey, Rebuilding, Restored, State, restore,
};
use clew_node::Deps;
use clew_proto::metastore::v1::restore_request::Source;
use clew_proto::metastore::v1::{RestoreRequest, RestoreResponse};
use clew_raft::{GroupId, LogStore, NodeAddr, ReplicaId};
use clew_storage::{Bucket, Listed};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{MetastoreError, backup, blocks};

/// Objects that are read at the same time.
const READS_AT_ONCE: usize = 16;

/// How many bytes of a backup are read at once.
const READ_BYTES: u64 = 64 << 20;

/// The file in the data directory with a catalog that a member takes up when it starts.
const RECOVERED_FILE: &str = "catalog.recovered";

/// Where a catalog is restored from, and to.
#[derive(Clone)]
pub(crate) struct Salvage {
    pub(crate) deps: Deps,
    pub(crate) bucket: Bucket,
}

impl Salvage {
    /// Works out the catalog that was asked for. `own` is what this member has on its disk.
    pub(crate) async fn work_out(
        &self,
        request: &RestoreRequest,
        own: Option<State>,
    ) -> Result<Restored, MetastoreError> {
        let base = self.base(request, own).await?;
        let listing = self.listing(base.as_ref().ok()).await?;
        let at = self.deps.clock.now_unix();
        let restored = self.deps.tasks.compute(move || restore(base, &listing, at)).await?;
        Ok(restored?)
    }

    async fn base(
        &self,
        request: &RestoreRequest,
        own: Option<State>,
    ) -> Result<Result<State, Rebuilding>, MetastoreError> {
        let name = match &request.source {
            Some(Source::Rebuild(rebuild)) => {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&self.deps.rng.next_u64().to_be_bytes());
                id[8..].copy_from_slice(&self.deps.rng.next_u64().to_be_bytes());
                let shard_count = (rebuild.shards > 0).then_some(rebuild.shards);
                return Ok(Err(Rebuilding { cluster: ClusterId(id), shard_count }));
            }
            Some(Source::OwnDisk(_)) => {
                let nothing = "this member has no catalog on its disk";
                return own.map(Ok).ok_or_else(|| MetastoreError::BadRequest(nothing.to_owned()));
            }
            Some(Source::Content(content)) => {
                return Ok(Ok(self.decode("the file", content.to_vec()).await?));
            }
            Some(Source::Backup(name)) => name.as_str(),
            None => "",
        };
        let backups = backup::list(&self.bucket).await?;
        let (key, size) = if name.is_empty() {
            let newest = backups.last().copied();
            newest.ok_or_else(|| MetastoreError::NoBackup("the bucket has no backup".to_owned()))?
        } else {
            let found = backups.into_iter().find(|(key, _)| key.to_string() == name);
            found.ok_or_else(|| MetastoreError::NoBackup(format!("no such backup: {name}")))?
        };
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let start = bytes.len() as u64;
            let range = start..size.min(start.saturating_add(READ_BYTES));
            bytes.extend_from_slice(&self.bucket.get_range(&key.to_string(), range).await?);
        }
        Ok(Ok(self.decode(&key.to_string(), bytes).await?))
    }

    async fn decode(&self, what: &str, bytes: Vec<u8>) -> Result<State, MetastoreError> {
        let decoded = self.deps.tasks.compute(move || Backup::decode(&bytes)).await?;
        let backup =
            decoded.map_err(|error| MetastoreError::Unreadable { what: what.to_owned(), error })?;
        Ok(backup.state)
    }

    /// What the bucket holds, with what the catalog of `base` does not know looked into.
    async fn listing(&self, base: Option<&State>) -> Result<Listing, MetastoreError> {
        let objects = objects(&self.bucket).await?;
        let present: BTreeSet<ObjectKey> = objects.iter().map(|(key, _)| *key).collect();
        let is_wanted = |key: &ObjectKey| base.is_none_or(|state| state.must_read(key));
        let reads = objects.into_iter().filter(|(key, _)| is_wanted(key)).map(|(key, listed)| {
            let bucket = self.bucket.clone();
            async move { (key, blocks::read(&bucket, key, &listed).await) }
        });
        let mut listing = Listing { present, ..Listing::default() };
        let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(READS_AT_ONCE);
        while let Some((key, read)) = reads.next().await {
            match read {
                Ok(found) => listing.found.push(found),
                Err(why) => listing.unreadable.push((key, why)),
            }
        }
        listing.found.sort_by_key(|found| found.object.key);
        listing.unreadable.sort();
        Ok(listing)
    }
}

/// The objects of the bucket that have the names of Clew's.
async fn objects(bucket: &Bucket) -> Result<Vec<(ObjectKey, Listed)>, MetastoreError> {
    let mut objects = Vec::new();
    for prefix in [ObjectKey::FLUSH_PREFIX, ObjectKey::COMPACTED_PREFIX] {
        let mut listed = bucket.list(prefix);
        while let Some(object) = listed.try_next().await? {
            if let Ok(key) = ObjectKey::parse(&object.key) {
                objects.push((key, object));
            }
        }
    }
    Ok(objects)
}

/// Whether the bucket holds anything that a catalog referred to.
pub(crate) async fn is_used(bucket: &Bucket) -> Result<bool, MetastoreError> {
    for prefix in [ObjectKey::FLUSH_PREFIX, ObjectKey::COMPACTED_PREFIX, BackupKey::PREFIX] {
        let mut listed = bucket.list(prefix);
        while let Some(object) = listed.try_next().await? {
            if ObjectKey::parse(&object.key).is_ok() || BackupKey::parse(&object.key).is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What the operator is told.
pub(crate) fn answer(restored: &Restored, is_done: bool, restarts: bool) -> RestoreResponse {
    RestoreResponse {
        report: restored.report.to_string(),
        done: is_done,
        needs_consent: restored.report.needs_consent(),
        restarts,
        revision: restored.report.revision,
    }
}

/// Whether it may be done, or only shown.
pub(crate) fn may_go_on(request: &RestoreRequest, restored: &Restored) -> bool {
    !request.dry_run && (request.accept_gaps || !restored.report.needs_consent())
}

/// Begins the metastore's group on this disk, with this member alone.
pub(crate) async fn plant(
    deps: &Deps,
    store: &LogStore,
    addr: &str,
    state: &State,
) -> Result<(), MetastoreError> {
    let replica = ReplicaId(deps.rng.next_u64().max(2));
    let (group, addr) = (GroupId::metastore(), NodeAddr(addr.to_owned()));
    store.plant(group, replica, addr, state.revision(), &state.encode()).await?;
    Ok(())
}

/// Keeps a catalog for the next start of this process: it cannot be taken up while the group is open.
pub(crate) fn keep(data_dir: &Path, deps: &Deps, state: &State) -> Result<(), MetastoreError> {
    let path = data_dir.join(RECOVERED_FILE);
    let bytes = Backup::encode(state, deps.clock.now_unix());
    let bytes = bytes.ok_or(clew_catalog::Refusal::NoCluster)?;
    write_synced(&path, &bytes).map_err(|source| disk(&path, source))
}

/// Takes up what [`keep`] kept. A crash in between repeats it: nobody has seen the catalog by then.
pub(crate) async fn take_up(
    data_dir: &Path,
    deps: &Deps,
    store: &LogStore,
    addr: &str,
) -> Result<(), MetastoreError> {
    let path = data_dir.join(RECOVERED_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(disk(&path, source)),
    };
    let unreadable = |error| MetastoreError::Unreadable { what: path.display().to_string(), error };
    let backup = Backup::decode(&bytes).map_err(unreadable)?;
    plant(deps, store, addr, &backup.state).await?;
    std::fs::remove_file(&path).map_err(|source| disk(&path, source))?;
    tracing::warn!(
        revision = backup.state.revision(),
        "the metastore begins with what was recovered"
    );
    Ok(())
}

fn write_synced(path: &PathBuf, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn disk(path: &Path, source: std::io::Error) -> MetastoreError {
    MetastoreError::Disk { path: path.display().to_string(), source }
}
