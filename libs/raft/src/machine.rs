//! State machines that live in memory and are persisted as snapshots: the contract of their owner,
//! and openraft's storage contract on top of it.

use std::io::Cursor;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::error::Error;
use crate::ids::{GroupId, LogId};
use crate::runtime;
use crate::store::LogStore;
use crate::types::{
    Command, RaftEntry, RaftLogId, Reply, Snapshot, SnapshotMeta, StorageError, StorageIOError,
    StoredMembership, Types,
};

/// What a group replicates into, on every replica the same.
pub trait StateMachine: Send + Sync + 'static {
    /// What applying a command gives its proposer.
    type Response: Send + Sync + 'static;

    /// Applies the next committed command. Must be a pure function of the state, the id and the
    /// command: no clock, no randomness, no I/O, and no failure other than as a response.
    fn apply(&mut self, log_id: LogId, command: Bytes) -> Self::Response;

    /// The whole state as bytes.
    fn snapshot(&self) -> Vec<u8>;

    /// Replaces the state by that of a snapshot.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the bytes are not a snapshot; the replica stops.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Error>;

    /// Whether this process can go on from the state: asked after each command and snapshot. The
    /// replica stops where it is if not, and another release can take it up from there.
    ///
    /// # Errors
    /// [`Error::Unable`] with the reason.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// A [`StateMachine`] under openraft's control.
pub(crate) struct Machine<S> {
    store: Arc<LogStore>,
    group: GroupId,
    state: Arc<RwLock<S>>,
    applied: Option<RaftLogId>,
    membership: StoredMembership,
    reached: watch::Sender<u64>,
    /// One snapshot is saved at a time: building runs beside installing.
    saving: Arc<tokio::sync::Mutex<()>>,
}

impl<S: StateMachine> Machine<S> {
    /// Loads the last snapshot into `state`; openraft replays the log behind it.
    pub(crate) async fn open(
        store: Arc<LogStore>,
        group: GroupId,
        state: Arc<RwLock<S>>,
    ) -> Result<Machine<S>, Error> {
        let (from, to) = (Arc::clone(&store), Arc::clone(&state));
        let meta = runtime::blocking(move || match from.load_snapshot(group)? {
            Some((meta, bytes)) => {
                let mut state = to.write();
                state.restore(&bytes)?;
                state.check().map(|()| meta)
            }
            None => Ok(SnapshotMeta::default()),
        })
        .await?;
        Ok(Machine {
            store,
            group,
            state,
            applied: meta.last_log_id,
            membership: meta.last_membership,
            reached: watch::Sender::new(meta.last_log_id.map_or(0, |id| id.index)),
            saving: Arc::default(),
        })
    }

    /// The index up to which the state is current.
    pub(crate) fn reached(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    #[allow(clippy::result_large_err, reason = "what the traits of openraft return")]
    fn apply_one(&mut self, entry: RaftEntry) -> Result<Reply, StorageError> {
        let log_id = entry.log_id;
        self.applied = Some(log_id);
        let reply = match entry.payload {
            EntryPayload::Blank => Reply::none(),
            EntryPayload::Normal(command) => match command {
                Command::Data(data) => {
                    Reply::new(self.state.write().apply(entry.log_id.into(), data))
                }
                // Only shard groups propose it.
                Command::Flushed(_) => Reply::none(),
            },
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Reply::none()
            }
        };
        self.state.read().check().map_err(|error| StorageIOError::apply(log_id, &error))?;
        Ok(reply)
    }
}

impl<S: StateMachine> RaftStateMachine<Types> for Machine<S> {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<RaftLogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    #[allow(clippy::result_large_err, reason = "what the traits of openraft return")]
    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Reply>, StorageError>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let replies = entries.into_iter().map(|entry| self.apply_one(entry)).collect();
        self.reached.send_replace(self.applied.map_or(0, |id| id.index));
        replies
    }

    /// The state is taken here, between two applies; what is left to the builder is the disk.
    async fn get_snapshot_builder(&mut self) -> Builder {
        let state = Arc::clone(&self.state);
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: snapshot_id(self.applied),
        };
        Builder {
            store: Arc::clone(&self.store),
            group: self.group,
            saving: Arc::clone(&self.saving),
            meta,
            bytes: runtime::blocking(move || Ok(state.read().snapshot())).await,
        }
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
        let state = Arc::clone(&self.state);
        let bytes = snapshot.into_inner();
        let restored = runtime::blocking(move || {
            let mut state = state.write();
            state.restore(&bytes)?;
            state.check().map(|()| bytes)
        });
        let bytes = restored.await.map_err(failed)?;
        let saving = self.saving.lock().await;
        self.store.save_snapshot(self.group, meta, &bytes).await.map_err(failed)?;
        drop(saving);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.reached.send_replace(self.applied.map_or(0, |id| id.index));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let (store, group) = (Arc::clone(&self.store), self.group);
        let loaded = runtime::blocking(move || store.load_snapshot(group)).await;
        let loaded = loaded.map_err(|error| StorageIOError::read_snapshot(None, &error))?;
        Ok(loaded.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

/// Two snapshots with the same last entry have the same content.
pub(crate) fn snapshot_id(last: Option<RaftLogId>) -> String {
    last.map_or_else(|| "empty".to_owned(), |id| LogId::from(id).to_string())
}

/// Saves a state that was taken from a [`Machine`].
pub(crate) struct Builder {
    store: Arc<LogStore>,
    group: GroupId,
    saving: Arc<tokio::sync::Mutex<()>>,
    meta: SnapshotMeta,
    bytes: Result<Vec<u8>, Error>,
}

impl Builder {
    async fn build(&mut self) -> Result<Snapshot, Error> {
        let bytes = std::mem::replace(&mut self.bytes, Ok(Vec::new()))?;
        let saving = self.saving.lock().await;
        // A newer one may have been installed meanwhile.
        let current = self.store.snapshot_meta(self.group)?.and_then(|meta| meta.last_log_id);
        if current <= self.meta.last_log_id {
            self.store.save_snapshot(self.group, &self.meta, &bytes).await?;
        }
        drop(saving);
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(Cursor::new(bytes)) })
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let signature = Some(self.meta.signature());
        let built = self.build().await;
        built.map_err(|error| StorageIOError::write_snapshot(signature, &error).into())
    }
}
