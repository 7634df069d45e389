//! The files of the cache: one for each section, named after it, with a checksum over name and bytes.
//!
//! A file is written under another name and then renamed, and nothing is synced: what a crash leaves is
//! whole, or is found to be damaged, which is the same as not there.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use clew_model::UnixNanos;

/// What a file begins with; another layout gets another one.
const MAGIC: [u8; 8] = *b"CLEWSEC1";

/// The magic, the checksum, and the length of the bytes.
const HEADER_BYTES: usize = 8 + 4 + 8;

/// Longer names are not kept; file systems take 255 bytes, of which a temporary name needs some.
const NAME_BYTES_MAX: usize = 220;

/// The file that the process holds while it uses the folder.
const LOCK: &str = "lock";

/// Stands in names of files that are being written, and in no other.
const UNFINISHED: char = '~';

/// Why a section was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// There is no such file.
    Gone,
    /// It is not what was written.
    Damaged,
    /// The disk fails.
    Failed(io::Error),
}

/// A file that was there before.
pub(super) struct Found {
    pub(super) name: Arc<str>,
    pub(super) written_at: UnixNanos,
}

/// The folder; nobody else uses it as long as this lives.
pub(super) struct Files {
    root: PathBuf,
    unfinished: AtomicU64,
    _lock: File,
}

/// The name of a section; none if it is too long. No two have the same, as keys of objects have neither
/// a `+` nor an `@`.
pub(super) fn name_of(object: &str, range: &Range<u64>) -> Option<Arc<str>> {
    let name = format!("{}@{}-{}", object.replace('/', "+"), range.start, range.end);
    (name.len() <= NAME_BYTES_MAX).then(|| Arc::from(name))
}

/// How many bytes the section of that name has.
fn length_of(name: &str) -> Option<u64> {
    let (_, range) = name.rsplit_once('@')?;
    let (start, end) = range.split_once('-')?;
    end.parse::<u64>().ok()?.checked_sub(start.parse().ok()?)
}

/// How large the file of a section is, in bytes.
pub(super) fn file_bytes(name: &str) -> u64 {
    length_of(name).unwrap_or(0).saturating_add(HEADER_BYTES as u64)
}

fn checksum(name: &str, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(name.as_bytes()), bytes)
}

impl Files {
    /// Takes the folder, and makes it if it is missing; only the process's user may look into it.
    pub(super) fn open(root: &Path) -> io::Result<Files> {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        let lock =
            File::options().create(true).truncate(false).write(true).open(root.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::other("another process uses it"),
            fs::TryLockError::Error(error) => error,
        })?;
        Ok(Files { root: root.to_owned(), unfinished: AtomicU64::new(0), _lock: lock })
    }

    /// Files are spread over 256 folders.
    fn folder(&self, name: &str) -> PathBuf {
        self.root.join(format!("{:02x}", crc32c::crc32c(name.as_bytes()) & 0xff))
    }

    /// Looks at the files that are there, and removes those that were not finished. What is not the
    /// cache's is left alone.
    pub(super) fn scan(&self, found: &mut dyn FnMut(Found)) -> io::Result<()> {
        for number in 0..=0xff_u8 {
            let folder = self.root.join(format!("{number:02x}"));
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if is_missing(&error) => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                let section = name.split(UNFINISHED).next().unwrap_or(name);
                if length_of(section).is_none() || self.folder(section) != folder {
                    continue;
                }
                let metadata = entry.metadata()?;
                if section != name || metadata.len() != file_bytes(name) {
                    fs::remove_file(entry.path())?;
                    continue;
                }
                let age = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                let written_at = UnixNanos(u64::try_from(age.as_nanos()).unwrap_or(0));
                found(Found { name: Arc::from(name), written_at });
            }
        }
        Ok(())
    }

    /// Writes a section.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let folder = self.folder(name);
        let count = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let unfinished = folder.join(format!("{name}{UNFINISHED}{count:x}"));
        let written = write_new(&folder, &unfinished, name, bytes)
            .and_then(|()| fs::rename(&unfinished, folder.join(name)));
        if written.is_err() {
            // On a full disk every byte counts; the next start takes it if this fails.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Reads a section.
    pub(super) fn read(&self, name: &str) -> Result<Bytes, Unread> {
        let unread = |error: io::Error| match is_missing(&error) {
            true => Unread::Gone,
            false => Unread::Failed(error),
        };
        let file = File::open(self.folder(name).join(name)).map_err(unread)?;
        let size = file_bytes(name);
        if file.metadata().map_err(unread)?.len() != size {
            return Err(Unread::Damaged);
        }
        let mut whole = Vec::with_capacity(usize::try_from(size).map_err(|_| Unread::Damaged)?);
        file.take(size).read_to_end(&mut whole).map_err(unread)?;
        let whole = Bytes::from(whole);
        let (head, bytes) = whole.split_at_checked(HEADER_BYTES).ok_or(Unread::Damaged)?;
        if head != header(name, bytes) || whole.len() as u64 != size {
            return Err(Unread::Damaged);
        }
        Ok(whole.slice(HEADER_BYTES..))
    }

    /// Removes a section's file, if there is one.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.folder(name).join(name)) {
            Err(error) if !is_missing(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn header(name: &str, bytes: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&checksum(name, bytes).to_le_bytes());
    header[12..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    header
}

fn write_new(folder: &Path, path: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let open = || File::options().write(true).create_new(true).open(path);
    let mut file = match open() {
        Err(error) if is_missing(&error) => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            open()?
        }
        opened => opened?,
    };
    file.write_all(&header(name, bytes))?;
    file.write_all(bytes)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = "compacted/00001/7-00ff.clew";

    fn found(files: &Files) -> Vec<String> {
        let mut names = Vec::new();
        files.scan(&mut |found| names.push(found.name.to_string())).unwrap();
        names
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(&folder.path().join("deep/cache")).unwrap();
        let name = name_of(OBJECT, &(10..15)).unwrap();
        assert_eq!(&*name, "compacted+00001+7-00ff.clew@10-15");
        assert!(matches!(files.read(&name), Err(Unread::Gone)));
        files.write(&name, b"spans").unwrap();
        files.write(&name, b"spans").unwrap();
        assert_eq!(files.read(&name).unwrap(), "spans");
        assert_eq!(found(&files), [name.to_string()]);
        files.remove(&name).unwrap();
        files.remove(&name).unwrap();
        assert!(matches!(files.read(&name), Err(Unread::Gone)));
        assert_eq!(name_of(&"k".repeat(220), &(0..1)), None);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path()).unwrap();
        let (name, other) = (name_of(OBJECT, &(0..5)), name_of(OBJECT, &(5..10)));
        let (name, other) = (name.unwrap(), other.unwrap());
        files.write(&name, b"spans").unwrap();
        let path = files.folder(&name).join(&*name);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(matches!(files.read(&name), Err(Unread::Damaged)), "{at}");
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(files.read(&name), Err(Unread::Damaged)), "{length}");
        }
        // Another section's bytes under this name.
        files.write(&other, b"other").unwrap();
        fs::rename(files.folder(&other).join(&*other), &path).unwrap();
        assert!(matches!(files.read(&name), Err(Unread::Damaged)));
    }

    #[test]
    fn a_scan_removes_what_was_not_finished_and_nothing_that_is_not_the_caches() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path()).unwrap();
        let [whole, short] = [0..5, 5..10].map(|range| name_of(OBJECT, &range).unwrap());
        files.write(&whole, b"spans").unwrap();
        files.write(&short, b"spans").unwrap();
        fs::write(files.folder(&short).join(&*short), b"sp").unwrap();
        let unfinished = files.folder(&whole).join(format!("{whole}~7"));
        let foreign = [folder.path().join("notes"), files.folder(&whole).join("holiday.jpg")];
        for path in foreign.iter().chain([&unfinished]) {
            fs::write(path, b"x").unwrap();
        }
        assert_eq!(found(&files), [whole.to_string()]);
        assert!(!unfinished.exists() && !files.folder(&short).join(&*short).exists());
        assert!(foreign.iter().all(|path| path.exists()));
    }

    #[test]
    fn a_folder_has_one_user() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path()).unwrap();
        let error = Files::open(folder.path()).err().unwrap();
        assert_eq!(error.to_string(), "another process uses it");
        drop(files);
        assert!(Files::open(folder.path()).is_ok());
    }
}
