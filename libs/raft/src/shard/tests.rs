//! The shard's state against a naive model of what was in force where.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{CommittedLeaderId, Membership};
use proptest::prelude::*;

use super::*;
use crate::ids::NodeAddr;

fn id(term: u64, index: u64) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(term, term % 3), index)
}

#[derive(Debug, Clone)]
enum Step {
    Blank,
    Data,
    Members(u64),
    /// A flush up to so many entries before the command; none reaches into the future.
    Flushed(u64),
    FlushedAhead,
    NewTerm,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Blank),
        4 => Just(Step::Data),
        2 => (0u64..5).prop_map(Step::Members),
        2 => (1u64..12).prop_map(Step::Flushed),
        1 => Just(Step::FlushedAhead),
        1 => Just(Step::NewTerm),
    ]
}

/// Turns steps into a log that starts with a membership, as every log does.
fn log(steps: Vec<Step>) -> Vec<RaftEntry> {
    let members = |count: u64| {
        let nodes = (0..=count).map(|replica| (replica, NodeAddr::default()));
        let nodes: BTreeMap<_, _> = nodes.collect();
        EntryPayload::Membership(Membership::new(vec![BTreeSet::from([count])], nodes))
    };
    let mut log = vec![RaftEntry { log_id: id(0, 0), payload: members(1) }];
    let (mut term, mut index) = (1, 1u64);
    for step in steps {
        let data = EntryPayload::Normal;
        let payload = match step {
            Step::Blank => EntryPayload::Blank,
            Step::Data => data(Command::Data(Bytes::from_static(b"spans"))),
            Step::Members(count) => members(count),
            Step::Flushed(back) => {
                let upto = log[usize::try_from(index.saturating_sub(back)).unwrap()].log_id;
                data(Command::Flushed(upto.into()))
            }
            Step::FlushedAhead => data(Command::Flushed(id(term, index + 1).into())),
            Step::NewTerm => {
                term += 1;
                continue;
            }
        };
        log.push(RaftEntry { log_id: id(term, index), payload });
        index += 1;
    }
    log
}

fn membership_at(log: &[RaftEntry], at: RaftLogId) -> StoredMembership {
    let stored = log.iter().filter(|entry| entry.log_id <= at).filter_map(|entry| {
        let EntryPayload::Membership(membership) = &entry.payload else { return None };
        Some(StoredMembership::new(Some(entry.log_id), membership.clone()))
    });
    stored.last().unwrap()
}

proptest! {
    #[test]
    fn a_snapshot_is_the_state_at_the_watermark(steps in prop::collection::vec(step(), 0..60)) {
        let log = log(steps);
        let mut state = ShardState::default();
        let mut watermark = None;
        for entry in &log {
            if let EntryPayload::Normal(Command::Flushed(upto)) = entry.payload
                && RaftLogId::from(upto) < entry.log_id
            {
                watermark = watermark.max(Some(RaftLogId::from(upto)));
            }
            state.apply(entry.clone());

            prop_assert_eq!(state.applied, Some(entry.log_id));
            prop_assert_eq!(state.watermark, watermark);
            prop_assert_eq!(state.current_membership(), membership_at(&log, entry.log_id));
            prop_assert_eq!(ShardState::decode(state.encode().into()).unwrap(), state.clone());
            let snapshot = state.snapshot();
            prop_assert_eq!(snapshot.is_some(), watermark.is_some());
            if let (Some(snapshot), Some(watermark)) = (snapshot, watermark) {
                prop_assert_eq!(snapshot.meta.last_log_id, Some(watermark));
                prop_assert_eq!(&snapshot.meta.last_membership, &membership_at(&log, watermark));
                // Whoever installs it and applies the rest arrives at the same state.
                let mut other = ShardState::decode(snapshot.snapshot.into_inner().into()).unwrap();
                for entry in log.iter().filter(|e| e.log_id > watermark && e.log_id <= entry.log_id) {
                    other.apply(entry.clone());
                }
                prop_assert_eq!(other, state.clone());
            }
        }
    }

    /// A crash may lose the applied id, so that entries are applied once more.
    #[test]
    fn applying_again_changes_nothing(steps in prop::collection::vec(step(), 0..40), from in any::<prop::sample::Index>()) {
        let log = log(steps);
        let from = from.index(log.len());
        let mut state = ShardState::default();
        log[..from].iter().for_each(|entry| drop(state.apply(entry.clone())));
        let mut restarted = ShardState::decode(state.encode().into()).unwrap();
        log[from..].iter().for_each(|entry| drop(state.apply(entry.clone())));
        log[from..].iter().for_each(|entry| drop(restarted.apply(entry.clone())));
        prop_assert_eq!(restarted, state);
    }

    #[test]
    fn any_bytes_are_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = ShardState::decode(bytes.into());
    }
}

#[test]
fn members_of_a_later_entry_are_refused() {
    let mut state = ShardState::default();
    for entry in log(vec![Step::Data, Step::Members(2)]) {
        state.apply(entry);
    }
    assert!(ShardState::decode(state.encode().into()).is_ok());
    state.applied = Some(id(1, 1));
    assert!(ShardState::decode(state.encode().into()).is_err());
}
