//! The crate's own encodings of log entries, votes, members and positions: what goes to disk and
//! over the wire must not change when openraft does.
//!
//! Every record on disk is framed as `version (1 byte) | crc32c of the body (4, little endian) |
//! body`, the body a protobuf message. A reader refuses versions it does not know.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes};
use openraft::{CommittedLeaderId, EntryPayload, Membership};
use prost::Message;

use crate::error::Error;
use crate::ids::NodeAddr;
use crate::types::{
    Command, RaftEntry, RaftLogId, RaftMembership, RaftVote, SnapshotMeta, StoredMembership,
};

const FRAME_VERSION: u8 = 1;
const FRAME_HEAD_BYTES: usize = 5;
/// openraft adds one to terms and indexes without checking; nothing real comes near this.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;
const MEMBERS_MAX: usize = 1024;
const CONFIGS_MAX: usize = 8;
const ADDR_BYTES_MAX: usize = 1024;
const SNAPSHOT_ID_BYTES_MAX: usize = 256;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LogIdMsg {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    leader: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VoteMsg {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    candidate: u64,
    #[prost(bool, tag = "3")]
    committed: bool,
}

/// A replica that was removed, and where its log ended.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RemovedMsg {
    #[prost(uint64, tag = "1")]
    replica: u64,
    #[prost(message, optional, tag = "2")]
    last: Option<LogIdMsg>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VotersMsg {
    #[prost(uint64, repeated, tag = "1")]
    replicas: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MemberMsg {
    #[prost(uint64, tag = "1")]
    replica: u64,
    #[prost(string, tag = "2")]
    addr: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MembershipMsg {
    /// More than one while the voters change.
    #[prost(message, repeated, tag = "1")]
    configs: Vec<VotersMsg>,
    /// Voters and learners.
    #[prost(message, repeated, tag = "2")]
    members: Vec<MemberMsg>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StoredMembershipMsg {
    #[prost(message, optional, tag = "1")]
    log_id: Option<LogIdMsg>,
    #[prost(message, optional, tag = "2")]
    membership: Option<MembershipMsg>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EntryMsg {
    #[prost(message, optional, tag = "1")]
    log_id: Option<LogIdMsg>,
    #[prost(oneof = "PayloadMsg", tags = "2, 3, 4, 5")]
    payload: Option<PayloadMsg>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum PayloadMsg {
    /// Proposed by a new leader to learn what is committed.
    #[prost(bool, tag = "2")]
    Blank(bool),
    #[prost(bytes = "bytes", tag = "3")]
    Data(Bytes),
    #[prost(message, tag = "4")]
    Flushed(LogIdMsg),
    #[prost(message, tag = "5")]
    Membership(MembershipMsg),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SnapshotMetaMsg {
    #[prost(message, optional, tag = "1")]
    last_log_id: Option<LogIdMsg>,
    #[prost(message, optional, tag = "2")]
    membership: Option<StoredMembershipMsg>,
    #[prost(string, tag = "3")]
    snapshot_id: String,
}

/// Encodes a message as a framed record.
pub(crate) fn frame(message: &impl Message) -> Vec<u8> {
    let mut record = Vec::with_capacity(FRAME_HEAD_BYTES + message.encoded_len());
    record.extend_from_slice(&[FRAME_VERSION, 0, 0, 0, 0]);
    // Encoding into a vector can not run out of room, so the result carries nothing.
    let _ = message.encode(&mut record);
    let crc = crc32c::crc32c(&record[FRAME_HEAD_BYTES..]);
    record[1..FRAME_HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    record
}

/// Decodes a framed record after checking its version and checksum.
pub(crate) fn unframe<M: Message + Default>(
    what: &'static str,
    mut record: Bytes,
) -> Result<M, Error> {
    if record.len() < FRAME_HEAD_BYTES {
        return Err(Error::corrupt(what, format!("only {} bytes", record.len())));
    }
    let version = record.get_u8();
    let crc = record.get_u32_le();
    if version != FRAME_VERSION {
        return Err(Error::corrupt(what, format!("unknown version {version}")));
    }
    if crc32c::crc32c(&record) != crc {
        return Err(Error::corrupt(what, "checksum mismatch"));
    }
    M::decode(record).map_err(|error| Error::corrupt(what, error))
}

/// Checks a number that openraft computes with.
fn bounded(what: &'static str, number: u64) -> Result<u64, Error> {
    if number > NUMBER_MAX {
        return Err(Error::corrupt(what, format!("number out of range: {number}")));
    }
    Ok(number)
}

pub(crate) fn log_id_to_msg(id: RaftLogId) -> LogIdMsg {
    LogIdMsg { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
}

pub(crate) fn log_id_from_msg(msg: &LogIdMsg) -> Result<RaftLogId, Error> {
    let term = bounded("log id", msg.term)?;
    let index = bounded("log id", msg.index)?;
    Ok(RaftLogId::new(CommittedLeaderId::new(term, msg.leader), index))
}

pub(crate) fn log_id_option(msg: &Option<LogIdMsg>) -> Result<Option<RaftLogId>, Error> {
    msg.as_ref().map(log_id_from_msg).transpose()
}

pub(crate) fn vote_to_msg(vote: &RaftVote) -> VoteMsg {
    VoteMsg {
        term: vote.leader_id.term,
        candidate: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_msg(msg: &VoteMsg) -> Result<RaftVote, Error> {
    let term = bounded("vote", msg.term)?;
    Ok(match msg.committed {
        true => RaftVote::new_committed(term, msg.candidate),
        false => RaftVote::new(term, msg.candidate),
    })
}

pub(crate) fn removed_to_msg(replica: u64, last: Option<RaftLogId>) -> RemovedMsg {
    RemovedMsg { replica, last: last.map(log_id_to_msg) }
}

pub(crate) fn removed_from_msg(msg: RemovedMsg) -> Result<(u64, Option<RaftLogId>), Error> {
    Ok((msg.replica, log_id_option(&msg.last)?))
}

pub(crate) fn membership_to_msg(membership: &RaftMembership) -> MembershipMsg {
    let configs = membership.get_joint_config().iter();
    let members = membership.nodes();
    MembershipMsg {
        configs: configs.map(|c| VotersMsg { replicas: c.iter().copied().collect() }).collect(),
        members: members.map(|(id, n)| MemberMsg { replica: *id, addr: n.0.clone() }).collect(),
    }
}

pub(crate) fn membership_from_msg(msg: MembershipMsg) -> Result<RaftMembership, Error> {
    let voters: usize = msg.configs.iter().map(|config| config.replicas.len()).sum();
    if msg.configs.len() > CONFIGS_MAX || msg.members.len() > MEMBERS_MAX || voters > MEMBERS_MAX {
        return Err(Error::corrupt("membership", "too many members"));
    }
    if msg.members.iter().any(|member| member.addr.len() > ADDR_BYTES_MAX) {
        return Err(Error::corrupt("membership", "an address is too long"));
    }
    let configs: Vec<BTreeSet<u64>> =
        msg.configs.into_iter().map(|config| config.replicas.into_iter().collect()).collect();
    let members: BTreeMap<u64, NodeAddr> =
        msg.members.into_iter().map(|member| (member.replica, NodeAddr(member.addr))).collect();
    if configs.iter().flatten().any(|voter| !members.contains_key(voter)) {
        return Err(Error::corrupt("membership", "a voter is not a member"));
    }
    Ok(Membership::new(configs, members))
}

pub(crate) fn stored_membership_to_msg(stored: &StoredMembership) -> StoredMembershipMsg {
    StoredMembershipMsg {
        log_id: stored.log_id().map(log_id_to_msg),
        membership: Some(membership_to_msg(stored.membership())),
    }
}

pub(crate) fn stored_membership_from_msg(
    msg: StoredMembershipMsg,
) -> Result<StoredMembership, Error> {
    let log_id = log_id_option(&msg.log_id)?;
    let membership = membership_from_msg(msg.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(log_id, membership))
}

pub(crate) fn snapshot_meta_to_msg(meta: &SnapshotMeta) -> SnapshotMetaMsg {
    SnapshotMetaMsg {
        last_log_id: meta.last_log_id.map(log_id_to_msg),
        membership: Some(stored_membership_to_msg(&meta.last_membership)),
        snapshot_id: meta.snapshot_id.clone(),
    }
}

pub(crate) fn snapshot_meta_from_msg(msg: SnapshotMetaMsg) -> Result<SnapshotMeta, Error> {
    if msg.snapshot_id.len() > SNAPSHOT_ID_BYTES_MAX {
        return Err(Error::corrupt("snapshot", "its id is too long"));
    }
    Ok(SnapshotMeta {
        last_log_id: log_id_option(&msg.last_log_id)?,
        last_membership: stored_membership_from_msg(msg.membership.unwrap_or_default())?,
        snapshot_id: msg.snapshot_id,
    })
}

pub(crate) fn entry_to_msg(entry: &RaftEntry) -> EntryMsg {
    let payload = match &entry.payload {
        EntryPayload::Blank => PayloadMsg::Blank(true),
        EntryPayload::Normal(command) => match command {
            Command::Data(data) => PayloadMsg::Data(data.clone()),
            Command::Flushed(id) => PayloadMsg::Flushed(log_id_to_msg((*id).into())),
        },
        EntryPayload::Membership(membership) => {
            PayloadMsg::Membership(membership_to_msg(membership))
        }
    };
    EntryMsg { log_id: Some(log_id_to_msg(entry.log_id)), payload: Some(payload) }
}

pub(crate) fn entry_from_msg(msg: EntryMsg) -> Result<RaftEntry, Error> {
    let Some(log_id) = log_id_option(&msg.log_id)? else {
        return Err(Error::corrupt("log entry", "it has no log id"));
    };
    let payload = match msg.payload {
        Some(PayloadMsg::Blank(_)) => EntryPayload::Blank,
        Some(PayloadMsg::Data(data)) => EntryPayload::Normal(Command::Data(data)),
        Some(PayloadMsg::Flushed(id)) => {
            let id = log_id_from_msg(&id)?;
            EntryPayload::Normal(Command::Flushed(id.into()))
        }
        Some(PayloadMsg::Membership(membership)) => {
            EntryPayload::Membership(membership_from_msg(membership)?)
        }
        // An unknown kind must not be skipped: replicas would diverge.
        None => return Err(Error::corrupt("log entry", "its kind is unknown")),
    };
    Ok(RaftEntry { log_id, payload })
}

/// The bytes an entry holds in memory, for the bounds of caches and batches.
pub(crate) fn entry_bytes(entry: &RaftEntry) -> usize {
    const OVERHEAD: usize = 128;
    let payload = match &entry.payload {
        EntryPayload::Normal(command) => match command {
            Command::Data(data) => data.len(),
            Command::Flushed(_) => 0,
        },
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    OVERHEAD + payload
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn log_id() -> impl Strategy<Value = RaftLogId> {
        (0..=NUMBER_MAX, any::<u64>(), 0..=NUMBER_MAX).prop_map(|(term, node, index)| {
            RaftLogId::new(CommittedLeaderId::new(term, node), index)
        })
    }

    pub(crate) fn membership() -> impl Strategy<Value = RaftMembership> {
        let set = prop::collection::btree_set(0u64..9, 1..4);
        let members = prop::collection::btree_map(0u64..9, "[a-z]{0,8}".prop_map(NodeAddr), 0..9);
        (prop::collection::vec(set, 1..3), members).prop_map(|(c, m)| Membership::new(c, m))
    }

    pub(crate) fn entry() -> impl Strategy<Value = RaftEntry> {
        let data = prop::collection::vec(any::<u8>(), 0..200);
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            data.prop_map(|d| EntryPayload::Normal(Command::Data(d.into()))),
            log_id().prop_map(|i| EntryPayload::Normal(Command::Flushed(i.into()))),
            membership().prop_map(EntryPayload::Membership),
        ];
        (log_id(), payload).prop_map(|(log_id, payload)| RaftEntry { log_id, payload })
    }

    proptest! {
        #[test]
        fn entries_round_trip(entry in entry()) {
            let record = Bytes::from(frame(&entry_to_msg(&entry)));
            prop_assert_eq!(entry_from_msg(unframe("log entry", record).unwrap()).unwrap(), entry);
        }

        #[test]
        fn a_changed_byte_is_noticed(entry in entry(), at in any::<prop::sample::Index>(), x in 1u8..) {
            let mut record = frame(&entry_to_msg(&entry));
            let at = at.index(record.len());
            record[at] ^= x;
            prop_assert!(unframe::<EntryMsg>("log entry", record.into()).is_err());
        }

        #[test]
        fn any_bytes_are_an_entry_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(msg) = EntryMsg::decode(Bytes::from(bytes)) {
                let _ = entry_from_msg(msg);
            }
        }

        #[test]
        fn votes_removals_and_snapshot_metas_round_trip(
            term in 0..=NUMBER_MAX, node in any::<u64>(), committed in any::<bool>(),
            last_log_id in prop::option::of(log_id()), members in membership(),
        ) {
            let mut vote = RaftVote::new(term, node);
            vote.committed = committed;
            prop_assert_eq!(vote_from_msg(&vote_to_msg(&vote)).unwrap(), vote);
            let removed = (node, last_log_id);
            let record = Bytes::from(frame(&removed_to_msg(node, last_log_id)));
            prop_assert_eq!(removed_from_msg(unframe("removed replica", record).unwrap()).unwrap(), removed);

            let last_membership = StoredMembership::new(last_log_id, members);
            let meta = SnapshotMeta { last_log_id, last_membership, snapshot_id: "s".to_owned() };
            prop_assert_eq!(snapshot_meta_from_msg(snapshot_meta_to_msg(&meta)).unwrap(), meta);
        }
    }

    #[test]
    fn numbers_that_openraft_would_overflow_are_refused() {
        let id = LogIdMsg { term: u64::MAX, leader: 1, index: 1 };
        assert!(log_id_from_msg(&id).is_err());
        let id = LogIdMsg { term: 1, leader: 1, index: u64::MAX };
        assert!(log_id_from_msg(&id).is_err());
        assert!(
            vote_from_msg(&VoteMsg { term: u64::MAX, candidate: 1, committed: false }).is_err()
        );
    }

    /// The bytes of version 1; they must open for ever.
    #[test]
    fn the_format_is_pinned() {
        let entry = RaftEntry {
            log_id: RaftLogId::new(CommittedLeaderId::new(3, 7), 300),
            payload: EntryPayload::Normal(Command::Data(Bytes::from_static(b"abc"))),
        };
        let record = frame(&entry_to_msg(&entry));
        let body = [0x0a, 7, 0x08, 3, 0x10, 7, 0x18, 0xac, 0x02, 0x1a, 3, b'a', b'b', b'c'];
        assert_eq!(record[0], 1);
        assert_eq!(record[1..5], crc32c::crc32c(&body).to_le_bytes());
        assert_eq!(record[5..], body);
    }
}
