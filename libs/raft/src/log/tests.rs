//! A group's log against openraft's own storage tests, a naive model, and crashes.

use std::collections::BTreeMap;
use std::path::Path;

use clew_node::Deps;
use openraft::storage::RaftLogStorageExt;
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload};
use parking_lot::RwLock;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::LogOptions;
use crate::machine::{Machine, StateMachine};
use crate::types::Command;

const GROUP: GroupId = GroupId::shard(2, 3);
const LIMITS: LogLimits = LogLimits { tail_bytes_max: 1000, replicate_bytes_max: 1000 };

fn open_store(path: &Path) -> Arc<LogStore> {
    LogStore::open(path, &LogOptions::default(), &Deps::system(1)).unwrap()
}

fn open_log(store: &Arc<LogStore>) -> LogStorage {
    let log = GroupLog::open(Arc::clone(store), GROUP, LIMITS).unwrap();
    LogStorage::new(log, None, CommittedId::Kept)
}

fn id(term: u64, index: u64) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64) -> RaftEntry {
    let data = Bytes::from(format!("{term}/{index}").repeat(20));
    RaftEntry { log_id: id(term, index), payload: EntryPayload::Normal(Command::Data(data)) }
}

/// A state machine for openraft's tests, which only apply blank and membership entries.
struct Nothing;

impl StateMachine for Nothing {
    type Response = ();
    fn apply(&mut self, _: crate::LogId, _: Bytes) {}
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

struct Builder;

impl StoreBuilder<Types, LogStorage, Machine<Nothing>, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStorage, Machine<Nothing>), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(dir.path());
        let log = open_log(&store);
        let machine = Machine::open(store, GROUP, Arc::new(RwLock::new(Nothing))).await.unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn openraft_accepts_the_storage() {
    Suite::test_all(Builder).unwrap();
}

/// Copies a database as a crash would leave it.
fn image(from: &Path) -> TempDir {
    loop {
        let to = tempfile::tempdir().unwrap();
        let before = files(from);
        let copy = |name: &std::ffi::OsString| std::fs::copy(from.join(name), to.path().join(name));
        // Not a moment in time if files came and went meanwhile.
        if before.keys().all(|name| copy(name).is_ok()) && files(from) == before {
            return to;
        }
    }
}

/// The files of a database and their sizes.
fn files(path: &Path) -> BTreeMap<std::ffi::OsString, Option<u64>> {
    let files = std::fs::read_dir(path).unwrap().map(|file| file.unwrap());
    let size = |file: &std::fs::DirEntry| file.metadata().ok().map(|metadata| metadata.len());
    files.map(|file| (file.file_name(), size(&file))).collect()
}

fn write_ahead_log(path: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|ext| ext == "log")).max().unwrap()
}

#[tokio::test]
async fn every_synced_append_survives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(&open_store(dir.path()));
    let vote = RaftVote::new_committed(4, 1);
    log.save_vote(&vote).await.unwrap();
    for index in 0..30 {
        log.blocking_append([entry(4, index)]).await.unwrap();
        let image = image(dir.path());
        let mut crashed = open_log(&open_store(image.path()));
        assert_eq!(crashed.read_vote().await.unwrap(), Some(vote));
        let expected: Vec<_> = (0..=index).map(|index| entry(4, index)).collect();
        assert_eq!(crashed.try_get_log_entries(..).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_torn_tail_loses_only_the_torn_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(&open_store(dir.path()));
    for index in 0..5 {
        log.blocking_append([entry(1, index)]).await.unwrap();
    }
    let before = std::fs::metadata(write_ahead_log(dir.path())).unwrap().len();
    log.blocking_append([entry(1, 5)]).await.unwrap();
    let after = std::fs::metadata(write_ahead_log(dir.path())).unwrap().len();
    assert!(before < after);
    for length in (before..after).step_by(9) {
        let image = image(dir.path());
        let torn = std::fs::File::options().write(true).open(write_ahead_log(image.path()));
        torn.unwrap().set_len(length).unwrap();
        let mut crashed = open_log(&open_store(image.path()));
        let expected: Vec<_> = (0..5).map(|index| entry(1, index)).collect();
        assert_eq!(crashed.try_get_log_entries(..).await.unwrap(), expected, "cut at {length}");
        assert_eq!(crashed.get_log_state().await.unwrap().last_log_id, Some(id(1, 4)));
    }
}

/// The database's default mode would drop the damaged record and all behind it without a word.
#[tokio::test]
async fn a_damaged_synced_record_is_not_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_log(&open_store(dir.path()));
    for index in 0..9 {
        log.blocking_append([entry(1, index)]).await.unwrap();
    }
    let image = image(dir.path());
    let file = write_ahead_log(image.path());
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let opened = LogStore::open(image.path(), &LogOptions::default(), &Deps::system(1));
    assert!(matches!(opened, Err(Error::Corrupt { .. })), "{opened:?}");
}

#[tokio::test]
async fn a_read_is_limited_but_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let mut log = open_log(&store);
    let entries: Vec<_> = (0..50).map(|index| entry(1, index)).collect();
    let one = codec::entry_bytes(&entries[20]);
    log.blocking_append(entries.clone()).await.unwrap();
    let mut cold = open_log(&store);
    for log in [&mut log, &mut cold] {
        for (bytes_max, expected) in [(0, 1), (one, 1), (3 * one, 3), (usize::MAX, 25)] {
            let read = log.log.entries(20, 45, Some(bytes_max)).await.unwrap();
            assert_eq!(read, entries[20..20 + expected], "{bytes_max}");
        }
        let mut reader = log.get_log_reader().await;
        let sent = reader.limited_get_log_entries(10, 50).await.unwrap();
        assert_eq!(sent, entries[10..10 + LIMITS.replicate_bytes_max / one]);
        assert!(log.log.entries(50, 60, None).await.unwrap().is_empty());
    }
    assert!(log.log.state.lock().tail_bytes <= LIMITS.tail_bytes_max);
    assert!(cold.log.state.lock().tail.is_empty());
}

#[tokio::test]
async fn purging_waits_for_the_state_machine() {
    let dir = tempfile::tempdir().unwrap();
    let log = GroupLog::open(open_store(dir.path()), GROUP, LIMITS).unwrap();
    let (reached, gate) = watch::channel(0);
    let mut storage = LogStorage::new(Arc::clone(&log), Some(gate), CommittedId::NotNeeded);
    storage.blocking_append((0..10).map(|index| entry(1, index))).await.unwrap();
    let mut purge = Box::pin(storage.purge(id(1, 4)));
    assert!(futures::poll!(&mut purge).is_pending());
    reached.send_replace(3);
    assert!(futures::poll!(&mut purge).is_pending());
    assert_eq!(log.purged(), None);
    reached.send_replace(4);
    purge.await.unwrap();
    assert_eq!(log.purged(), Some(id(1, 4)));
    drop(reached);
    assert!(storage.purge(id(1, 8)).await.is_err());
    assert_eq!(log.purged(), Some(id(1, 4)));
}

/// What can happen to a log.
#[derive(Debug, Clone, Copy)]
enum Step {
    Append(u64),
    Truncate(u64),
    Purge(u64),
    Reopen,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..6).prop_map(Step::Append),
        1 => (0u64..6).prop_map(Step::Truncate),
        1 => (0u64..8).prop_map(Step::Purge),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

/// The naive model: entries by index, and the last purged id.
#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, RaftEntry>,
    purged: Option<RaftLogId>,
    term: u64,
}

impl Model {
    fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    fn next(&self) -> u64 {
        self.entries.keys().next_back().map_or(self.first(), |last| last + 1)
    }
}

async fn check(log: &mut LogStorage, model: &Model) {
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, model.purged);
    let last = model.entries.values().next_back().map(|entry| entry.log_id);
    assert_eq!(state.last_log_id, last.or(model.purged));
    let entries: Vec<_> = model.entries.values().cloned().collect();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries);
    let middle = model.first() + (model.next() - model.first()) / 2;
    let entries: Vec<_> = model.entries.range(middle..).map(|(_, entry)| entry.clone()).collect();
    assert_eq!(log.try_get_log_entries(middle..).await.unwrap(), entries);
}

async fn run(steps: Vec<Step>) {
    let mut dir = tempfile::tempdir().unwrap();
    let mut store = open_store(dir.path());
    let mut log = open_log(&store);
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Append(count) => {
                let next = model.next();
                let entries: Vec<_> = (next..next + count).map(|i| entry(model.term, i)).collect();
                model.entries.extend(entries.iter().map(|e| (e.log_id.index, e.clone())));
                log.blocking_append(entries).await.unwrap();
            }
            Step::Truncate(back) => {
                let since = model.next().saturating_sub(back).max(model.first());
                log.truncate(id(model.term, since)).await.unwrap();
                model.entries.split_off(&since);
                model.term += 1;
            }
            Step::Purge(ahead) => {
                let upto = (model.first() + ahead).min(model.next());
                let Some(upto) = upto.checked_sub(1).and_then(|at| model.entries.get(&at)) else {
                    continue;
                };
                let upto = upto.log_id;
                log.purge(upto).await.unwrap();
                model.entries = model.entries.split_off(&(upto.index + 1));
                model.purged = Some(upto);
            }
            Step::Reopen => {
                store.close();
                store = open_store(dir.path());
                log = open_log(&store);
            }
            Step::Crash => {
                let crashed = image(dir.path());
                store = open_store(crashed.path());
                log = open_log(&store);
                dir = crashed;
            }
        }
        check(&mut log, &model).await;
    }
}

/// Files that end exactly with the first entry that is kept were unlinked once.
#[tokio::test]
async fn a_purge_keeps_the_entry_behind_it() {
    // Each opening moves what was written before into a file of its own, and four of them into one
    // file of the level whose files a purge may unlink.
    for purged in 0..8 {
        let mut steps = vec![Step::Reopen, Step::Append(8)];
        steps.extend([Step::Reopen, Step::Append(1), Step::Truncate(1)].repeat(4));
        steps.extend([Step::Reopen, Step::Purge(purged), Step::Reopen]);
        run(steps).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_log_behaves_like_a_map(steps in prop::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps));
    }
}
