//! Beginning a group from a state instead of from nothing: how a state machine that lost its quorum or
//! its disks goes on.
//!
//! The group begins with one voter and with a snapshot as if everything up to an index had been applied
//! and purged. Other replicas join empty and receive that snapshot.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{CommittedLeaderId, Membership};

use super::keys::Record;
use super::{LogStore, Op, Sync};
use crate::codec;
use crate::error::Error;
use crate::ids::{GroupId, NodeAddr, ReplicaId};
use crate::machine::snapshot_id;
use crate::types::{RaftLogId, RaftVote, SnapshotMeta, StoredMembership};

/// The term in which a planted group begins. Nobody of an earlier group with the same name can speak
/// to it: they call replicas that do not exist any more.
const FIRST_TERM: u64 = 1;

impl LogStore {
    /// Makes this disk the only voter of a group whose state machine is in `snapshot`, as of log index
    /// `index`. What the disk held of the group before is gone. `replica` must be fresh, and no replica
    /// of the group may be open. After a crash on the way the disk holds no replica: call it again.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an index that no log reaches; [`Error::StoreFailed`].
    pub async fn plant(
        &self,
        group: GroupId,
        replica: ReplicaId,
        addr: NodeAddr,
        index: u64,
        snapshot: &[u8],
    ) -> Result<(), Error> {
        if index >= codec::NUMBER_MAX {
            return Err(Error::Invalid(format!("no log reaches index {index}")));
        }
        self.drop_group(group, Vec::new()).await?;
        let last = RaftLogId::new(CommittedLeaderId::new(FIRST_TERM, replica.0), index);
        let voters = vec![BTreeSet::from([replica.0])];
        let members = Membership::new(voters, BTreeMap::from([(replica.0, addr)]));
        let meta = SnapshotMeta {
            last_log_id: Some(last),
            last_membership: StoredMembership::new(Some(last), members),
            snapshot_id: snapshot_id(Some(last)),
        };
        self.save_snapshot(group, &meta, snapshot).await?;
        let purged = codec::frame(&codec::log_id_to_msg(last));
        // No vote is older than the log.
        let vote = codec::frame(&codec::vote_to_msg(&RaftVote::new(FIRST_TERM, replica.0)));
        // The replica's own record comes last: without it there is no replica.
        let ops = vec![
            Op::put_record(group, Record::Purged, purged),
            Op::put_record(group, Record::Vote, vote),
            Op::put_record(group, Record::Replica, replica.0.to_be_bytes().to_vec()),
        ];
        self.write(ops, Sync::Yes).await
    }
}
