//! What stays on a disk of a replica that was removed from it: its vote, and where its log ended.
//!
//! Majorities were counted on what the replica had said: to a candidate that it gets the vote of a term,
//! to a leader that it has an entry. If the replica is taken back one day, a candidate or a leader of long
//! ago may still go by the members of then. So the replica neither votes nor runs until its log reaches as
//! far as it once did, and the vote is never given up (Ongaro, "Consensus: Bridging Theory and Practice",
//! figure 3.1: current term, vote and log are persistent state). With both it is a replica like any other
//! that was away for a while. If it had run in vain for long before it was removed, its vote is of a later
//! term than the group's: taken back, it makes the group elect once more.

use super::keys::Record;
use super::{LogStore, Op, replica_from_bytes};
use crate::codec::{self, VoteMsg};
use crate::error::Error;
use crate::ids::{GroupId, ReplicaId};
use crate::log;
use crate::types::{RaftLogId, RaftVote};

/// A replica that was on this disk, and may be again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removed {
    /// Which one. Another one of the group has promised nothing.
    pub(crate) replica: ReplicaId,
    /// The last entry that its log ever had when it was removed.
    pub(crate) last: Option<RaftLogId>,
}

impl LogStore {
    /// What is known of the replica that was removed last. It may have come back meanwhile.
    pub(crate) fn removed(&self, group: GroupId) -> Result<Option<Removed>, Error> {
        let Some(record) = self.record(group, Record::Removed)? else { return Ok(None) };
        let (replica, last) = codec::removed_from_msg(codec::unframe("removed replica", record)?)?;
        Ok(Some(Removed { replica: ReplicaId(replica), last }))
    }

    /// Drops everything of a group whose replica is closed, except what it must not forget.
    pub(crate) async fn remove(&self, group: GroupId) -> Result<(), Error> {
        let Some(replica) = self.record(group, Record::Replica)? else { return Ok(()) };
        let replica = replica_from_bytes(&replica)?;
        let before = self.removed(group)?.filter(|before| before.replica == replica);
        let last = log::end(self, group)?.max(before.and_then(|before| before.last));
        let kept = self.kept(group, Removed { replica, last })?;
        self.drop_group(group, kept).await
    }

    /// What stays of a replica that is removed.
    fn kept(&self, group: GroupId, removed: Removed) -> Result<Vec<Op>, Error> {
        let Removed { replica, last } = removed;
        let mut kept = vec![put(group, Record::Removed, &codec::removed_to_msg(replica.0, last))];
        if let Some(vote) = self.vote(group)? {
            // Not as that of an elected leader, which this replica may be itself.
            let given = RaftVote { committed: false, ..vote };
            kept.push(put(group, Record::Vote, &codec::vote_to_msg(&given)));
        }
        Ok(kept)
    }

    /// The vote that the replica on this disk has given last.
    pub(crate) fn vote(&self, group: GroupId) -> Result<Option<RaftVote>, Error> {
        let Some(record) = self.record(group, Record::Vote)? else { return Ok(None) };
        Ok(Some(codec::vote_from_msg(&codec::unframe::<VoteMsg>("vote", record)?)?))
    }

    /// Notes which replica of the group this disk holds. What another one left is dropped.
    pub(crate) async fn claim(&self, group: GroupId, replica: ReplicaId) -> Result<(), Error> {
        if let Some(found) = self.record(group, Record::Replica)? {
            let found = replica_from_bytes(&found)?;
            if found != replica {
                return Err(Error::WrongReplica { group, wanted: replica, found });
            }
            return Ok(());
        }
        // Whatever else there is was written by a task that outlived the removal.
        let removed = self.removed(group)?.filter(|removed| removed.replica == replica);
        let mut ops = match removed {
            Some(removed) => self.kept(group, removed)?,
            None => Vec::new(),
        };
        ops.push(Op::put_record(group, Record::Replica, replica.0.to_be_bytes().to_vec()));
        self.drop_group(group, ops).await
    }
}

fn put(group: GroupId, record: Record, message: &impl prost::Message) -> Op {
    Op::put_record(group, record, codec::frame(message))
}
