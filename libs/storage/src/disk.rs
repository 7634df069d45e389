//! A bucket in a local directory whose puts survive a power loss.
//!
//! Reads, listings and deletions are `object_store`'s. Writing is ours, because durability needs
//! more than that crate does: every directory on the way is synced also when another writer (or this
//! process before a crash) made it, and a file that exists already is synced before it is
//! reported, for its writer may have stopped between linking and syncing. Unfinished files live in
//! one staging directory, apart from all keys, and are swept when the bucket is opened.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clew_model::UnixNanos;
use clew_node::{Deps, Rng, Tasks};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;

use crate::backend::{Backend, Creation, Listed, Read, Span};
use crate::config::ConfigError;
use crate::error::{Error, Operation};
use crate::remote::Remote;

const STAGING: &str = ".staging";

/// Staged files older than this belong to nobody any more: no put may take as long.
const STAGED_AGE_MAX: Duration = Duration::from_secs(3_600);

/// A local directory as a bucket.
pub(crate) struct Disk {
    root: PathBuf,
    files: Remote,
    tasks: Tasks,
    rng: Rng,
}

impl Disk {
    /// Opens the directory, and creates it when it is missing.
    pub(crate) fn open(root: &Path, deps: &Deps) -> Result<Disk, ConfigError> {
        let prepared = prepare(root, deps.clock.now_unix());
        prepared.map_err(|error| unusable(root, "a writable directory", &error))?;
        Disk::open_existing(root, deps)
    }

    /// Opens the directory of another process, and leaves everything in it as it is.
    pub(crate) fn open_existing(root: &Path, deps: &Deps) -> Result<Disk, ConfigError> {
        let missing = |error: &dyn Display| unusable(root, "a directory that exists", error);
        let root = fs::canonicalize(root).map_err(|error| missing(&error))?;
        let files = LocalFileSystem::new_with_prefix(&root).map_err(|error| missing(&error))?;
        let files = Remote::new(Arc::new(files), "");
        Ok(Disk { root, files, tasks: deps.tasks.clone(), rng: deps.rng.clone() })
    }
}

#[async_trait]
impl Backend for Disk {
    async fn create(&self, key: &str, body: Bytes) -> Result<Creation, Error> {
        let staged = self.root.join(STAGING).join(format!("{:016x}", self.rng.next_u64()));
        let (root, path) = (self.root.clone(), self.root.join(key));
        // Once started it runs to its end, also if the caller goes away: nothing is left half done.
        let created = self.tasks.compute(move || create(&root, &staged, &path, &body)).await;
        match created {
            Ok(Ok(creation)) => Ok(creation),
            Ok(Err(error)) => Err(Error::unavailable(Operation::Put, key, error)),
            Err(error) => Err(Error::Task { message: error.to_string() }),
        }
    }

    async fn read(&self, key: &str, span: Span) -> Result<Read, Error> {
        self.files.read(key, span).await
    }

    async fn size(&self, key: &str) -> Result<u64, Error> {
        self.files.size(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Listed, Error>> {
        let staged = |listed: &Result<Listed, Error>| {
            listed.as_ref().is_ok_and(|object| object.key.starts_with(STAGING))
        };
        self.files.list(prefix).filter(move |l| std::future::ready(!staged(l))).boxed()
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.files.delete(key).await
    }
}

fn unusable(root: &Path, allowed: &str, error: &dyn Display) -> ConfigError {
    ConfigError::Value {
        key: "url",
        value: root.display().to_string(),
        allowed: format!("{allowed} ({error})"),
    }
}

/// Makes the directory and its staging directory durably, and sweeps what crashes left behind.
fn prepare(root: &Path, now: UnixNanos) -> io::Result<()> {
    let staging = root.join(STAGING);
    fs::create_dir_all(&staging)?;
    sync_directories(&fs::canonicalize(&staging)?, None)?;
    let now = std::time::UNIX_EPOCH + Duration::from_nanos(now.0);
    for entry in fs::read_dir(&staging)? {
        let entry = entry?;
        let modified = entry.metadata()?.modified()?;
        if now.duration_since(modified).is_ok_and(|age| age > STAGED_AGE_MAX) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn create(root: &Path, staged: &Path, path: &Path, body: &[u8]) -> io::Result<Creation> {
    let linked = write_staged(staged, body).and_then(|()| link(root, staged, path));
    // The staged name is of no use any more; the sweep takes it if this fails.
    let _ = fs::remove_file(staged);
    linked
}

fn write_staged(staged: &Path, body: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(staged)?;
    file.write_all(body)?;
    file.sync_all()
}

/// Gives the staged file its name unless that is taken: a hard link never replaces.
fn link(root: &Path, staged: &Path, path: &Path) -> io::Result<Creation> {
    let parent = path.parent().unwrap_or(root);
    fs::create_dir_all(parent)?;
    let creation = match fs::hard_link(staged, path) {
        Ok(()) => Creation::Created,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            File::open(path)?.sync_all()?;
            Creation::Existed
        }
        Err(error) => return Err(error),
    };
    sync_directories(parent, Some(root))?;
    Ok(creation)
}

/// Syncs a directory and those above it, up to `root`. Without one, up to where it is not allowed:
/// what lies above was not made by us.
fn sync_directories(directory: &Path, root: Option<&Path>) -> io::Result<()> {
    for directory in directory.ancestors() {
        let synced = File::open(directory).and_then(|opened| opened.sync_all());
        match synced {
            Ok(()) if root == Some(directory) => break,
            Ok(()) => {}
            Err(error) if root.is_none() && is_not_allowed(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_not_allowed(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged_files(root: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(root.join(STAGING)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[tokio::test]
    async fn a_put_leaves_only_its_object() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("deep/bucket");
        let disk = Disk::open(&root, &Deps::system(1)).unwrap();
        let body = Bytes::from_static(b"spans");
        assert_eq!(disk.create("a/b/c", body.clone()).await.unwrap(), Creation::Created);
        assert_eq!(disk.create("a/b/c", Bytes::new()).await.unwrap(), Creation::Existed);
        assert_eq!(fs::read(root.join("a/b/c")).unwrap(), body);
        assert_eq!(staged_files(&root), Vec::<PathBuf>::new());
        let listed: Vec<_> = disk.list("").map(|object| object.unwrap().key).collect().await;
        assert_eq!(listed, ["a/b/c"]);
    }

    #[tokio::test]
    async fn a_put_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path(), &Deps::system(1)).unwrap();
        disk.create("a", Bytes::from_static(b"a file")).await.unwrap();
        let error = disk.create("a/b", Bytes::from_static(b"below a file")).await.unwrap_err();
        assert_eq!(error.kind(), clew_model::ErrorKind::Unavailable);
        assert_eq!(staged_files(folder.path()), Vec::<PathBuf>::new());
    }

    #[test]
    fn only_old_staged_files_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path(), UnixNanos(0)).unwrap();
        let staged = folder.path().join(STAGING).join("0123");
        fs::write(&staged, b"half").unwrap();
        let written = fs::metadata(&staged).unwrap().modified().unwrap();
        let written = written.duration_since(std::time::UNIX_EPOCH).unwrap();
        let after = |seconds| {
            let time = written + Duration::from_secs(seconds);
            UnixNanos(u64::try_from(time.as_nanos()).unwrap())
        };
        prepare(folder.path(), UnixNanos(0)).unwrap();
        prepare(folder.path(), after(3_600)).unwrap();
        assert!(staged.exists());
        prepare(folder.path(), after(3_601)).unwrap();
        assert!(!staged.exists());
    }

    #[test]
    fn a_file_is_no_bucket() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = Disk::open(&file, &Deps::system(1)).err().unwrap().to_string();
        assert!(error.contains("url") && error.contains("a writable directory"), "{error}");
    }
}
