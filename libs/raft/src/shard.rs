//! The state machine of a shard: it keeps no data, only how far the log is applied, up to where it
//! is flushed, and which members were in force where.
//!
//! The log itself is the shard's write-ahead log. Once a prefix of it is in flushed objects, a
//! `Flushed` command moves the watermark; every replica then builds a snapshot that ends at the
//! watermark, and openraft purges exactly up to there. Such a snapshot lies below the applied entry,
//! so it must carry the members that were in force at the watermark: with the current ones a
//! follower that installs it and then receives the entries in between would count wrong majorities.

use std::io::Cursor;
use std::sync::Arc;

use bytes::Bytes;
use clew_model::planted;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::codec::{self, LogIdMsg, StoredMembershipMsg};
use crate::error::Error;
use crate::ids::{GroupId, LogId};
use crate::machine::snapshot_id;
use crate::store::keys::Record;
use crate::store::{LogStore, Op, Sync};
use crate::types::{
    Command, RaftEntry, RaftLogId, Reply, Snapshot, SnapshotMeta, StorageError, StorageIOError,
    StoredMembership, Types,
};

/// Where a replica of a shard stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardState {
    applied: Option<RaftLogId>,
    watermark: Option<RaftLogId>,
    /// In log order; the first is the one in force at the watermark.
    memberships: Vec<StoredMembership>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ShardStateMsg {
    #[prost(message, optional, tag = "1")]
    applied: Option<LogIdMsg>,
    #[prost(message, optional, tag = "2")]
    watermark: Option<LogIdMsg>,
    #[prost(message, repeated, tag = "3")]
    memberships: Vec<StoredMembershipMsg>,
}

impl ShardState {
    /// The last entry that is in flushed objects.
    pub fn watermark(&self) -> Option<LogId> {
        self.watermark.map(LogId::from)
    }

    fn apply(&mut self, entry: RaftEntry) -> Reply {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Reply::none(),
            EntryPayload::Membership(membership) => {
                self.memberships.push(StoredMembership::new(Some(entry.log_id), membership));
                Reply::none()
            }
            EntryPayload::Normal(command) => match command {
                Command::Data(_) => Reply::none(),
                Command::Flushed(id) => {
                    self.flushed(id.into(), entry.log_id);
                    Reply::new(self.watermark())
                }
            },
        }
    }

    /// Moves the watermark, unless it is there already or the command claims more than there was
    /// when it was proposed.
    fn flushed(&mut self, upto: RaftLogId, command: RaftLogId) {
        if Some(upto) <= self.watermark || upto >= command || upto.index >= command.index {
            return;
        }
        self.watermark = Some(upto);
        let below = self.memberships.partition_point(|stored| *stored.log_id() <= Some(upto));
        self.memberships.drain(..below.saturating_sub(1));
    }

    fn current_membership(&self) -> StoredMembership {
        self.memberships.last().cloned().unwrap_or_default()
    }

    /// This state as it was at the watermark.
    fn at_watermark(&self) -> Option<ShardState> {
        let watermark = self.watermark?;
        let in_force = match planted("bug::members_of_now") {
            true => self.memberships.last(),
            false => self.memberships.first(),
        };
        Some(ShardState {
            applied: Some(watermark),
            watermark: Some(watermark),
            memberships: in_force.cloned().into_iter().collect(),
        })
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let state = self.at_watermark()?;
        let meta = SnapshotMeta {
            last_log_id: state.applied,
            last_membership: state.current_membership(),
            snapshot_id: snapshot_id(state.applied),
        };
        Some(Snapshot { meta, snapshot: Box::new(Cursor::new(state.encode())) })
    }

    fn encode(&self) -> Vec<u8> {
        codec::frame(&ShardStateMsg {
            applied: self.applied.map(codec::log_id_to_msg),
            watermark: self.watermark.map(codec::log_id_to_msg),
            memberships: self.memberships.iter().map(codec::stored_membership_to_msg).collect(),
        })
    }

    fn decode(bytes: Bytes) -> Result<ShardState, Error> {
        let msg: ShardStateMsg = codec::unframe("shard state", bytes)?;
        let memberships = msg.memberships.into_iter().map(codec::stored_membership_from_msg);
        let state = ShardState {
            applied: codec::log_id_option(&msg.applied)?,
            watermark: codec::log_id_option(&msg.watermark)?,
            memberships: memberships.collect::<Result<_, _>>()?,
        };
        if state.watermark > state.applied {
            return Err(Error::corrupt("shard state", "the watermark is ahead"));
        }
        if state.memberships.last().is_some_and(|last| *last.log_id() > state.applied) {
            return Err(Error::corrupt("shard state", "its members were decided later"));
        }
        Ok(state)
    }
}

/// A shard's state under openraft's control.
pub(crate) struct ShardMachine {
    store: Arc<LogStore>,
    group: GroupId,
    state: Arc<RwLock<ShardState>>,
    reached: watch::Sender<u64>,
    watermark: watch::Sender<Option<LogId>>,
}

impl ShardMachine {
    pub(crate) fn open(store: Arc<LogStore>, group: GroupId) -> Result<ShardMachine, Error> {
        let state = match store.record(group, Record::Shard)? {
            Some(record) => ShardState::decode(record)?,
            None => ShardState::default(),
        };
        Ok(ShardMachine {
            store,
            group,
            reached: watch::Sender::new(state.applied.map_or(0, |id| id.index)),
            watermark: watch::Sender::new(state.watermark()),
            state: Arc::new(RwLock::new(state)),
        })
    }

    pub(crate) fn state(&self) -> Arc<RwLock<ShardState>> {
        Arc::clone(&self.state)
    }

    pub(crate) fn reached(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    pub(crate) fn watermark(&self) -> watch::Receiver<Option<LogId>> {
        self.watermark.subscribe()
    }

    fn save(&self) -> Op {
        Op::put_record(self.group, Record::Shard, self.state.read().encode())
    }

    fn publish(&self) {
        let state = self.state.read();
        self.reached.send_replace(state.applied.map_or(0, |id| id.index));
        self.watermark.send_if_modified(|watermark| {
            std::mem::replace(watermark, state.watermark()) != *watermark
        });
    }
}

impl RaftStateMachine<Types> for ShardMachine {
    type SnapshotBuilder = WatermarkSnapshot;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<RaftLogId>, StoredMembership), StorageError> {
        let state = self.state.read();
        Ok((state.applied, state.current_membership()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Reply>, StorageError>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let replies = {
            let mut state = self.state.write();
            entries.into_iter().map(|entry| state.apply(entry)).collect()
        };
        // A crash may lose it: the entries are applied again then.
        let queued = self.store.write_later(vec![self.save()]);
        queued.map_err(|error| StorageIOError::write_state_machine(&error))?;
        self.publish();
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> WatermarkSnapshot {
        WatermarkSnapshot(self.state.read().snapshot())
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let failed = |error: Error| StorageIOError::write_snapshot(Some(meta.signature()), &error);
        let state = ShardState::decode(snapshot.into_inner().into()).map_err(failed)?;
        if state.applied != meta.last_log_id || state.current_membership() != meta.last_membership {
            return Err(failed(Error::corrupt("shard state", "it is not what it claims")).into());
        }
        *self.state.write() = state;
        self.store.write(vec![self.save()], Sync::Yes).await.map_err(failed)?;
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        Ok(self.state.read().snapshot())
    }
}

/// The snapshot at the watermark, taken between two applies.
pub(crate) struct WatermarkSnapshot(Option<Snapshot>);

impl RaftSnapshotBuilder<Types> for WatermarkSnapshot {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        self.0.take().ok_or_else(|| {
            let error = Error::corrupt("shard state", "purged without a watermark");
            StorageIOError::read_snapshot(None, &error).into()
        })
    }
}

#[cfg(test)]
mod tests;
