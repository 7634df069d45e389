//! The messages replicas exchange, in the crate's own encoding: `version (1 byte) | protobuf`. A
//! transport moves them as opaque bytes.

use bytes::{Buf, Bytes};
use openraft::error::{InstallSnapshotError, RaftError, SnapshotMismatch};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use prost::Message;

use crate::codec::{self, EntryMsg, LogIdMsg, SnapshotMetaMsg, VoteMsg};
use crate::error::Error;
use crate::ids::ReplicaId;
use crate::types::{RaftVote, Types};

const WIRE_VERSION: u8 = 1;

/// The largest message, in bytes; a transport may refuse larger ones. An append carries the
/// entries of [`crate::GroupOptions::replicate_bytes_max`] or a single larger one.
pub const MESSAGE_BYTES_MAX: usize = 56 << 20;

/// A request with the replica it is meant for: an address may have passed to another one.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) to: ReplicaId,
    pub(crate) call: Call,
}

#[derive(Debug)]
pub(crate) enum Call {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<Types>),
    /// Run for leader `now`, since the one there was steps aside, or say whether you would.
    Lead {
        now: bool,
    },
}

pub(crate) enum Answer {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Snapshot(Result<InstallSnapshotResponse<u64>, InstallSnapshotError>),
    /// Whether this replica runs for leader when asked.
    Willing(bool),
}

#[derive(Clone, PartialEq, prost::Message)]
struct RequestMsg {
    #[prost(uint64, tag = "1")]
    to: u64,
    #[prost(oneof = "CallMsg", tags = "2, 3, 4, 5")]
    call: Option<CallMsg>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum CallMsg {
    #[prost(message, tag = "2")]
    Append(AppendMsg),
    #[prost(message, tag = "3")]
    Vote(AskVoteMsg),
    #[prost(message, tag = "4")]
    Snapshot(SnapshotChunkMsg),
    #[prost(bool, tag = "5")]
    Lead(bool),
}

#[derive(Clone, PartialEq, prost::Message)]
struct AppendMsg {
    #[prost(message, optional, tag = "1")]
    vote: Option<VoteMsg>,
    #[prost(message, optional, tag = "2")]
    previous: Option<LogIdMsg>,
    #[prost(message, repeated, tag = "3")]
    entries: Vec<EntryMsg>,
    #[prost(message, optional, tag = "4")]
    committed: Option<LogIdMsg>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AskVoteMsg {
    #[prost(message, optional, tag = "1")]
    vote: Option<VoteMsg>,
    #[prost(message, optional, tag = "2")]
    last: Option<LogIdMsg>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SnapshotChunkMsg {
    #[prost(message, optional, tag = "1")]
    vote: Option<VoteMsg>,
    #[prost(message, optional, tag = "2")]
    meta: Option<SnapshotMetaMsg>,
    #[prost(uint64, tag = "3")]
    offset: u64,
    #[prost(bytes = "vec", tag = "4")]
    data: Vec<u8>,
    #[prost(bool, tag = "5")]
    done: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnswerMsg {
    #[prost(oneof = "AnswerKindMsg", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    answer: Option<AnswerKindMsg>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum AnswerKindMsg {
    #[prost(bool, tag = "1")]
    Appended(bool),
    #[prost(message, tag = "2")]
    AppendedUpTo(LogIdMsg),
    #[prost(bool, tag = "3")]
    Conflict(bool),
    #[prost(message, tag = "4")]
    HigherVote(VoteMsg),
    #[prost(message, tag = "5")]
    Vote(VotedMsg),
    #[prost(message, tag = "6")]
    Snapshot(VoteMsg),
    #[prost(message, tag = "7")]
    SnapshotMismatch(MismatchMsg),
    #[prost(bool, tag = "8")]
    Willing(bool),
}

#[derive(Clone, PartialEq, prost::Message)]
struct VotedMsg {
    #[prost(message, optional, tag = "1")]
    vote: Option<VoteMsg>,
    #[prost(bool, tag = "2")]
    granted: bool,
    #[prost(message, optional, tag = "3")]
    last: Option<LogIdMsg>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MismatchMsg {
    #[prost(string, tag = "1")]
    snapshot_id: String,
    #[prost(uint64, tag = "2")]
    expected: u64,
    #[prost(uint64, tag = "3")]
    got: u64,
}

impl Request {
    pub(crate) fn encode(&self) -> Bytes {
        let call = match &self.call {
            Call::Append(append) => CallMsg::Append(AppendMsg {
                vote: Some(codec::vote_to_msg(&append.vote)),
                previous: append.prev_log_id.map(codec::log_id_to_msg),
                entries: append.entries.iter().map(codec::entry_to_msg).collect(),
                committed: append.leader_commit.map(codec::log_id_to_msg),
            }),
            Call::Vote(vote) => CallMsg::Vote(AskVoteMsg {
                vote: Some(codec::vote_to_msg(&vote.vote)),
                last: vote.last_log_id.map(codec::log_id_to_msg),
            }),
            Call::Snapshot(chunk) => CallMsg::Snapshot(SnapshotChunkMsg {
                vote: Some(codec::vote_to_msg(&chunk.vote)),
                meta: Some(codec::snapshot_meta_to_msg(&chunk.meta)),
                offset: chunk.offset,
                data: chunk.data.clone(),
                done: chunk.done,
            }),
            Call::Lead { now } => CallMsg::Lead(*now),
        };
        encode(&RequestMsg { to: self.to.0, call: Some(call) })
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Request, Error> {
        let msg: RequestMsg = decode("request", bytes)?;
        let call = match msg.call {
            Some(CallMsg::Append(append)) => Call::Append(append_from_msg(append)?),
            Some(CallMsg::Vote(ask)) => {
                let last = codec::log_id_option(&ask.last)?;
                Call::Vote(VoteRequest::new(vote(ask.vote)?, last))
            }
            Some(CallMsg::Snapshot(chunk)) => Call::Snapshot(InstallSnapshotRequest {
                vote: vote(chunk.vote)?,
                meta: codec::snapshot_meta_from_msg(chunk.meta.unwrap_or_default())?,
                offset: chunk.offset,
                data: chunk.data,
                done: chunk.done,
            }),
            Some(CallMsg::Lead(now)) => Call::Lead { now },
            None => return Err(Error::corrupt("request", "its kind is unknown")),
        };
        Ok(Request { to: ReplicaId(msg.to), call })
    }
}

/// openraft relies on entries without gaps right after the previous one and does not check it.
fn append_from_msg(msg: AppendMsg) -> Result<AppendEntriesRequest<Types>, Error> {
    let prev_log_id = codec::log_id_option(&msg.previous)?;
    let first = prev_log_id.map_or(0, |previous| previous.index + 1);
    let mut entries = Vec::with_capacity(msg.entries.len());
    for (next, entry) in (first..).zip(msg.entries) {
        let entry = codec::entry_from_msg(entry)?;
        if entry.log_id.index != next {
            return Err(Error::corrupt("append request", "its entries have gaps"));
        }
        entries.push(entry);
    }
    Ok(AppendEntriesRequest {
        vote: vote(msg.vote)?,
        prev_log_id,
        entries,
        leader_commit: codec::log_id_option(&msg.committed)?,
    })
}

impl Answer {
    pub(crate) fn encode(&self) -> Bytes {
        let answer = match self {
            Answer::Append(AppendEntriesResponse::Success)
            | Answer::Append(AppendEntriesResponse::PartialSuccess(None)) => {
                AnswerKindMsg::Appended(true)
            }
            Answer::Append(AppendEntriesResponse::PartialSuccess(Some(upto))) => {
                AnswerKindMsg::AppendedUpTo(codec::log_id_to_msg(*upto))
            }
            Answer::Append(AppendEntriesResponse::Conflict) => AnswerKindMsg::Conflict(true),
            Answer::Append(AppendEntriesResponse::HigherVote(vote)) => {
                AnswerKindMsg::HigherVote(codec::vote_to_msg(vote))
            }
            Answer::Vote(voted) => AnswerKindMsg::Vote(VotedMsg {
                vote: Some(codec::vote_to_msg(&voted.vote)),
                granted: voted.vote_granted,
                last: voted.last_log_id.map(codec::log_id_to_msg),
            }),
            Answer::Snapshot(Ok(answer)) => {
                AnswerKindMsg::Snapshot(codec::vote_to_msg(&answer.vote))
            }
            Answer::Snapshot(Err(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                AnswerKindMsg::SnapshotMismatch(MismatchMsg {
                    snapshot_id: mismatch.expect.id.clone(),
                    expected: mismatch.expect.offset,
                    got: mismatch.got.offset,
                })
            }
            Answer::Willing(willing) => AnswerKindMsg::Willing(*willing),
        };
        encode(&AnswerMsg { answer: Some(answer) })
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Answer, Error> {
        let msg: AnswerMsg = decode("answer", bytes)?;
        let answer = match msg.answer {
            Some(AnswerKindMsg::Appended(_)) => Answer::Append(AppendEntriesResponse::Success),
            Some(AnswerKindMsg::AppendedUpTo(upto)) => {
                let upto = codec::log_id_from_msg(&upto)?;
                Answer::Append(AppendEntriesResponse::PartialSuccess(Some(upto)))
            }
            Some(AnswerKindMsg::Conflict(_)) => Answer::Append(AppendEntriesResponse::Conflict),
            Some(AnswerKindMsg::HigherVote(higher)) => {
                Answer::Append(AppendEntriesResponse::HigherVote(codec::vote_from_msg(&higher)?))
            }
            Some(AnswerKindMsg::Vote(voted)) => {
                let last = codec::log_id_option(&voted.last)?;
                Answer::Vote(VoteResponse::new(vote(voted.vote)?, last, voted.granted))
            }
            Some(AnswerKindMsg::Snapshot(vote)) => {
                Answer::Snapshot(Ok(InstallSnapshotResponse { vote: codec::vote_from_msg(&vote)? }))
            }
            Some(AnswerKindMsg::SnapshotMismatch(mismatch)) => {
                let segment = |offset| openraft::SnapshotSegmentId {
                    id: mismatch.snapshot_id.clone(),
                    offset,
                };
                let (expect, got) = (segment(mismatch.expected), segment(mismatch.got));
                Answer::Snapshot(Err(SnapshotMismatch { expect, got }.into()))
            }
            Some(AnswerKindMsg::Willing(willing)) => Answer::Willing(willing),
            None => return Err(Error::corrupt("answer", "its kind is unknown")),
        };
        Ok(answer)
    }
}

/// Splits openraft's answer to a snapshot chunk into what the sender must hear and what stops the
/// replica.
#[allow(clippy::result_large_err, reason = "openraft's own error, turned into ours right away")]
pub(crate) fn snapshot_answer(
    result: Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>,
) -> Result<Answer, openraft::error::Fatal<u64>> {
    match result {
        Ok(answer) => Ok(Answer::Snapshot(Ok(answer))),
        Err(RaftError::APIError(error)) => Ok(Answer::Snapshot(Err(error))),
        Err(RaftError::Fatal(fatal)) => Err(fatal),
    }
}

fn vote(msg: Option<VoteMsg>) -> Result<RaftVote, Error> {
    codec::vote_from_msg(&msg.unwrap_or_default())
}

fn encode(msg: &impl Message) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + msg.encoded_len());
    bytes.push(WIRE_VERSION);
    // Encoding into a vector can not run out of room, so the result carries nothing.
    let _ = msg.encode(&mut bytes);
    Bytes::from(bytes)
}

fn decode<M: Message + Default>(what: &'static str, mut bytes: Bytes) -> Result<M, Error> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Error::TooLarge { bytes: bytes.len(), bytes_max: MESSAGE_BYTES_MAX });
    }
    if bytes.is_empty() {
        return Err(Error::corrupt(what, "it is empty"));
    }
    let version = bytes.get_u8();
    if version != WIRE_VERSION {
        return Err(Error::corrupt(what, format!("unknown version {version}")));
    }
    M::decode(bytes).map_err(|error| Error::corrupt(what, error))
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::tests::{entry, log_id};
    use crate::types::{RaftEntry, RaftLogId};

    fn append(previous: Option<RaftLogId>, entries: Vec<RaftEntry>) -> Request {
        let append = AppendEntriesRequest {
            vote: RaftVote::new_committed(4, 2),
            prev_log_id: previous,
            entries,
            leader_commit: previous,
        };
        Request { to: ReplicaId(9), call: Call::Append(append) }
    }

    proptest! {
        #[test]
        fn appends_round_trip(previous in prop::option::of(log_id()), entries in prop::collection::vec(entry(), 0..5)) {
            let mut entries = entries;
            let first = previous.map_or(0, |previous| previous.index + 1);
            prop_assume!(first < 1 << 61);
            for (entry, index) in entries.iter_mut().zip(first..) {
                entry.log_id.index = index;
            }
            let request = Request::decode(append(previous, entries.clone()).encode()).unwrap();
            prop_assert_eq!(request.to, ReplicaId(9));
            let Call::Append(decoded) = request.call else { panic!("not an append") };
            prop_assert_eq!(decoded.vote, RaftVote::new_committed(4, 2));
            prop_assert_eq!(decoded.prev_log_id, previous);
            prop_assert_eq!(decoded.leader_commit, previous);
            prop_assert_eq!(decoded.entries, entries);
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if let Some(version) = bytes.first_mut() {
                *version = WIRE_VERSION;
            }
            let _ = Request::decode(bytes.clone().into());
            let _ = Answer::decode(bytes.into());
        }
    }

    #[test]
    fn entries_with_a_gap_are_refused() {
        let entry = |index| RaftEntry {
            log_id: RaftLogId::new(openraft::CommittedLeaderId::new(1, 1), index),
            payload: EntryPayload::Blank,
        };
        let previous = Some(entry(4).log_id);
        assert!(Request::decode(append(previous, vec![entry(5), entry(6)]).encode()).is_ok());
        assert!(Request::decode(append(previous, vec![entry(5), entry(7)]).encode()).is_err());
        assert!(Request::decode(append(previous, vec![entry(6)]).encode()).is_err());
        assert!(Request::decode(append(None, vec![entry(1)]).encode()).is_err());
    }

    #[test]
    fn answers_round_trip() {
        let vote = RaftVote::new(3, 1);
        let id = RaftLogId::new(openraft::CommittedLeaderId::new(1, 1), 5);
        let through = |answer: Answer| Answer::decode(answer.encode()).unwrap();
        for append in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(Some(id)),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(vote),
        ] {
            let text = append.to_string();
            let Answer::Append(decoded) = through(Answer::Append(append)) else { panic!("{text}") };
            assert_eq!(decoded.to_string(), text);
        }
        let voted = VoteResponse::new(vote, Some(id), true);
        let Answer::Vote(decoded) = through(Answer::Vote(voted.clone())) else { panic!() };
        assert_eq!(decoded, voted);
        let segment = |offset| openraft::SnapshotSegmentId { id: "s".to_owned(), offset };
        let mismatch = SnapshotMismatch { expect: segment(0), got: segment(7) };
        let Answer::Snapshot(Err(InstallSnapshotError::SnapshotMismatch(decoded))) =
            through(Answer::Snapshot(Err(mismatch.clone().into())))
        else {
            panic!()
        };
        assert_eq!(decoded, mismatch);
    }
}
