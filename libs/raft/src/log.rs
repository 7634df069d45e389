//! The log of one group: openraft's storage contract on top of the shared [`LogStore`], with the
//! newest entries kept in memory, because openraft reads every entry back to apply and to send it.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use clew_model::planted;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::codec::{self, EntryMsg, LogIdMsg};
use crate::error::Error;
use crate::ids::GroupId;
use crate::runtime;
use crate::store::keys::{self, Record};
use crate::store::{LogStore, Op, Sync};
use crate::types::{RaftEntry, RaftLogId, RaftVote, StorageError, StorageIOError, Types};

/// How much of a log is held and sent at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLimits {
    /// The newest entries kept in memory, in bytes; one is kept in any case.
    pub(crate) tail_bytes_max: usize,
    /// Entries in one message to a follower, in bytes; one is sent in any case.
    pub(crate) replicate_bytes_max: usize,
}

/// One group's log, shared by openraft's tasks and the readers of committed entries.
pub(crate) struct GroupLog {
    store: Arc<LogStore>,
    group: GroupId,
    limits: LogLimits,
    state: Mutex<State>,
}

/// The ends of the log and its newest entries. The tail has no holes and ends with the last entry.
#[derive(Default)]
struct State {
    purged: Option<RaftLogId>,
    last: Option<RaftLogId>,
    tail: VecDeque<RaftEntry>,
    tail_bytes: usize,
}

impl State {
    fn push(&mut self, entries: Vec<RaftEntry>, tail_bytes_max: usize) {
        for entry in entries {
            self.last = Some(entry.log_id);
            self.tail_bytes += codec::entry_bytes(&entry);
            self.tail.push_back(entry);
        }
        while self.tail_bytes > tail_bytes_max && self.tail.len() > 1 {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_bytes -= codec::entry_bytes(&entry);
        }
    }

    fn truncate(&mut self, since: u64, last: Option<RaftLogId>) {
        while self.tail.back().is_some_and(|entry| entry.log_id.index >= since) {
            let dropped = self.tail.pop_back().map_or(0, |entry| codec::entry_bytes(&entry));
            self.tail_bytes -= dropped;
        }
        self.last = last;
    }

    fn purge(&mut self, upto: RaftLogId) {
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(Some(upto));
        while self.tail.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.pop_front();
        }
    }

    /// The entries from `start` on, if the tail holds the first of them.
    fn cached(&self, start: u64, end: u64, budget: &mut Budget) -> Option<Vec<RaftEntry>> {
        let first = self.tail.front()?.log_id.index;
        let skip = usize::try_from(start.checked_sub(first)?).ok()?;
        let wanted = self.tail.iter().skip(skip).take_while(|entry| entry.log_id.index < end);
        Some(wanted.take_while(|entry| budget.admits(entry)).cloned().collect())
    }
}

/// A limit in bytes that lets at least one entry pass.
struct Budget {
    bytes_left: Option<usize>,
    used: bool,
}

impl Budget {
    fn new(bytes_max: Option<usize>) -> Budget {
        Budget { bytes_left: bytes_max, used: false }
    }

    fn admits(&mut self, entry: &RaftEntry) -> bool {
        let bytes = codec::entry_bytes(entry);
        let admitted = match &mut self.bytes_left {
            None => true,
            Some(left) if *left >= bytes => {
                *left -= bytes;
                true
            }
            Some(left) => {
                *left = 0;
                !self.used
            }
        };
        self.used = true;
        admitted
    }
}

impl GroupLog {
    /// Opens the group's log where its last writes left it.
    pub(crate) fn open(
        store: Arc<LogStore>,
        group: GroupId,
        limits: LogLimits,
    ) -> Result<Arc<GroupLog>, Error> {
        let purged = purged(&store, group)?;
        let last = end(&store, group)?;
        let state = State { purged, last, ..State::default() };
        Ok(Arc::new(GroupLog { store, group, limits, state: Mutex::new(state) }))
    }

    /// The last entry that was purged.
    pub(crate) fn purged(&self) -> Option<RaftLogId> {
        self.state.lock().purged
    }

    /// The last entry that is on disk, or was before it was purged.
    pub(crate) fn last(&self) -> Option<RaftLogId> {
        self.state.lock().last
    }

    /// The entries in `start..end` that exist, in order; with a limit, the first of them that fit
    /// and at least one.
    pub(crate) async fn entries(
        self: &Arc<Self>,
        start: u64,
        end: u64,
        bytes_max: Option<usize>,
    ) -> Result<Vec<RaftEntry>, Error> {
        let mut budget = Budget::new(bytes_max);
        let (start, end) = {
            let state = self.state.lock();
            let last_next = state.last.map_or(0, |last| last.index + 1);
            let first = state.purged.map_or(0, |purged| purged.index + 1);
            let (start, end) = (start.max(first), end.min(last_next));
            if start >= end {
                return Ok(Vec::new());
            }
            if let Some(entries) = state.cached(start, end, &mut budget) {
                return Ok(entries);
            }
            (start, end)
        };
        let log = Arc::clone(self);
        runtime::blocking(move || log.stored(start, end, &mut budget)).await
    }

    fn stored(&self, start: u64, end: u64, budget: &mut Budget) -> Result<Vec<RaftEntry>, Error> {
        let (start, end) = (keys::entry(self.group, start), keys::entry(self.group, end));
        let mut entries = Vec::new();
        self.store.read(|disk| {
            disk.scan(keys::LOG, &start, &end, &mut |key, value| {
                let entry = decode(key, value)?;
                let admitted = budget.admits(&entry);
                if admitted {
                    entries.push(entry);
                }
                Ok(admitted)
            })
        })?;
        Ok(entries)
    }

    async fn append(&self, entries: Vec<RaftEntry>) -> Result<(), Error> {
        let ops = entries.iter().map(|entry| Op::Put {
            family: keys::LOG,
            key: keys::entry(self.group, entry.log_id.index),
            value: codec::frame(&codec::entry_to_msg(entry)),
        });
        let sync = if planted("bug::log_not_synced") { Sync::No } else { Sync::Yes };
        self.store.write(ops.collect(), sync).await?;
        self.state.lock().push(entries, self.limits.tail_bytes_max);
        Ok(())
    }

    async fn truncate(self: &Arc<Self>, since: u64) -> Result<(), Error> {
        let last = match since.checked_sub(1) {
            Some(index) => {
                let kept = self.entries(index, since, None).await?;
                kept.last().map(|entry| entry.log_id).or(self.purged())
            }
            None => None,
        };
        let start = keys::entry(self.group, since);
        let (_, end) = keys::group_range(self.group);
        self.store
            .write(vec![Op::DeleteRange { family: keys::LOG, start, end }], Sync::Yes)
            .await?;
        self.state.lock().truncate(since, last);
        Ok(())
    }

    /// Deletes the entries up to `upto`; the marker and the deletion are one write.
    async fn purge(self: &Arc<Self>, upto: RaftLogId) -> Result<(), Error> {
        // Before the write, so that a reader who finds nothing knows why.
        let purged = {
            let mut state = self.state.lock();
            let purged = state.purged;
            state.purge(upto);
            purged
        };
        // From where the last purge ended, not from 0: the database is slow, to the point of standing
        // still for minutes, with thousands of deleted ranges that overlap.
        let deleted = purged.filter(|purged| *purged < upto);
        let start = keys::entry(self.group, deleted.map_or(0, |purged| purged.index + 1));
        let end = keys::entry(self.group, upto.index + 1);
        let marker = codec::frame(&codec::log_id_to_msg(upto));
        let ops = vec![
            Op::put_record(self.group, Record::Purged, marker),
            Op::DeleteRange { family: keys::LOG, start, end },
        ];
        // Synced, since files are unlinked next: without the marker the log would have a hole.
        self.store.write(ops, Sync::Yes).await?;
        let store = Arc::clone(&self.store);
        let (first, last) = (keys::entry(self.group, 0), keys::entry(self.group, upto.index));
        runtime::blocking(move || store.drop_files(first, last)).await
    }

    fn committed(&self) -> Result<Option<RaftLogId>, Error> {
        let Some(record) = self.store.record(self.group, Record::Committed)? else {
            return Ok(None);
        };
        let id = codec::log_id_from_msg(&codec::unframe::<LogIdMsg>("committed id", record)?)?;
        Ok(Some(id).min(self.state.lock().last))
    }
}

fn purged(store: &LogStore, group: GroupId) -> Result<Option<RaftLogId>, Error> {
    let Some(record) = store.record(group, Record::Purged)? else { return Ok(None) };
    Ok(Some(codec::log_id_from_msg(&codec::unframe::<LogIdMsg>("purge marker", record)?)?))
}

/// Where the group's log on disk ends, whether its last entry is still there or purged.
pub(crate) fn end(store: &LogStore, group: GroupId) -> Result<Option<RaftLogId>, Error> {
    let (start, end) = keys::group_range(group);
    let newest = store.read(|disk| disk.last(keys::LOG, &start, &end))?;
    let newest = newest.map(|(key, value)| decode(&key, &value)).transpose()?;
    Ok(newest.map(|entry| entry.log_id).max(purged(store, group)?))
}

fn decode(key: &[u8], value: &[u8]) -> Result<RaftEntry, Error> {
    let msg: EntryMsg = codec::unframe("log entry", Bytes::copy_from_slice(value))?;
    let entry = codec::entry_from_msg(msg)?;
    if keys::entry_index(key) != Some(entry.log_id.index) {
        return Err(Error::corrupt(
            "log entry",
            format!("it is not at its place: {}", entry.log_id),
        ));
    }
    Ok(entry)
}

/// What openraft's core owns: the log, and when it may purge.
pub(crate) struct LogStorage {
    log: Arc<GroupLog>,
    gate: Option<watch::Receiver<u64>>,
    committed: CommittedId,
}

/// Whether the id of the last committed entry is kept on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommittedId {
    /// The state machine starts from an old snapshot and replays up to it.
    Kept,
    /// The state machine persists where it is.
    NotNeeded,
}

impl LogStorage {
    /// `gate` is the index the state machine has reached durably. openraft starts to purge behind
    /// a snapshot it receives before that is installed; a crash in between would leave a log that
    /// starts after the state machine's end.
    pub(crate) fn new(
        log: Arc<GroupLog>,
        gate: Option<watch::Receiver<u64>>,
        committed: CommittedId,
    ) -> LogStorage {
        LogStorage { log, gate, committed }
    }
}

/// Reads a log on behalf of a replication task.
pub(crate) struct LogReader(Arc<GroupLog>);

fn read_error(error: Error) -> StorageError {
    StorageIOError::read_logs(&error).into()
}

fn write_error(error: Error) -> StorageError {
    StorageIOError::write_logs(&error).into()
}

async fn try_entries(
    log: &Arc<GroupLog>,
    range: impl RangeBounds<u64>,
) -> Result<Vec<RaftEntry>, StorageError> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    log.entries(start, end, None).await.map_err(read_error)
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, StorageError> {
        try_entries(&self.0, (range.start_bound().cloned(), range.end_bound().cloned())).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, StorageError> {
        let limit = Some(self.0.limits.replicate_bytes_max);
        self.0.entries(start, end, limit).await.map_err(read_error)
    }
}

impl RaftLogReader<Types> for LogStorage {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, StorageError> {
        try_entries(&self.log, (range.start_bound().cloned(), range.end_bound().cloned())).await
    }
}

impl RaftLogStorage<Types> for LogStorage {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let state = self.log.state.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader(Arc::clone(&self.log))
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), StorageError> {
        if planted("bug::vote_not_saved") {
            return Ok(());
        }
        let value = codec::frame(&codec::vote_to_msg(vote));
        let op = Op::put_record(self.log.group, Record::Vote, value);
        let written = self.log.store.write(vec![op], Sync::Yes).await;
        written.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, StorageError> {
        self.log
            .store
            .vote(self.log.group)
            .map_err(|error| StorageIOError::read_vote(&error).into())
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), StorageError> {
        let (CommittedId::Kept, Some(id)) = (self.committed, committed) else { return Ok(()) };
        let value = codec::frame(&codec::log_id_to_msg(id));
        let op = Op::put_record(self.log.group, Record::Committed, value);
        self.log.store.write_later(vec![op]).map_err(write_error)
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, StorageError> {
        match self.committed {
            CommittedId::Kept => self.log.committed().map_err(read_error),
            CommittedId::NotNeeded => Ok(None),
        }
    }

    async fn append<I>(&mut self, entries: I, done: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<RaftEntry> = entries.into_iter().collect();
        self.log.append(entries).await.map_err(write_error)?;
        done.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, since: RaftLogId) -> Result<(), StorageError> {
        self.log.truncate(since.index).await.map_err(write_error)
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), StorageError> {
        if let Some(gate) = &mut self.gate
            && gate.wait_for(|reached| *reached >= upto.index).await.is_err()
        {
            return Err(write_error(Error::Invalid("the state machine has stopped".to_owned())));
        }
        self.log.purge(upto).await.map_err(write_error)
    }
}

#[cfg(test)]
mod tests;
