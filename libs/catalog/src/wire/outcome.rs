//! The encoding of outcomes, for callers on other nodes.

use prost::Message;

use super::PointMessage;
use crate::error::DecodeError;
use crate::feature::FeatureLevel;
use crate::ident::{ClusterId, DeletionId, Incarnation, JobId, ReplicaId};
use crate::outcome::{
    ClaimOutcome, ClusterOutcome, DeletionOutcome, FlushOutcome, ForgetOutcome, GapOutcome,
    GenerationOutcome, JobOutcome, LeadOutcome, LiftOutcome, OpenOutcome, Outcome, PlaceOutcome,
    QuarantineOutcome, Refusal,
};

/// One flat message: `code` tells the outcome, the other fields hold what that one carries.
#[derive(Clone, PartialEq, Message)]
struct OutcomeMessage {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(uint64, optional, tag = "2")]
    number: Option<u64>,
    #[prost(message, optional, tag = "3")]
    point: Option<PointMessage>,
    #[prost(string, tag = "4")]
    text: String,
    #[prost(bytes = "vec", tag = "5")]
    id: Vec<u8>,
    #[prost(uint64, tag = "6")]
    second: u64,
}

fn code(code: u32) -> OutcomeMessage {
    OutcomeMessage { code, ..OutcomeMessage::default() }
}

fn number(code: u32, number: u64) -> OutcomeMessage {
    OutcomeMessage { code, number: Some(number), ..OutcomeMessage::default() }
}

fn message(outcome: &Outcome) -> OutcomeMessage {
    match outcome {
        Outcome::Cluster(ClusterOutcome::Created) => code(1),
        Outcome::Cluster(ClusterOutcome::AlreadyCreated) => code(2),
        Outcome::Cluster(ClusterOutcome::Different { cluster }) => {
            OutcomeMessage { id: cluster.0.to_vec(), ..code(3) }
        }
        Outcome::NodeRegistered => code(10),
        Outcome::Replica(replica) => number(20, replica.0),
        Outcome::Open(OpenOutcome::Opened { incarnation }) => number(30, incarnation.0),
        Outcome::Open(OpenOutcome::AlreadyOpened { incarnation }) => number(31, incarnation.0),
        Outcome::Open(OpenOutcome::Conflict { current }) => {
            OutcomeMessage { number: current.map(|current| current.0), ..code(32) }
        }
        Outcome::Open(OpenOutcome::UnknownShard) => code(33),
        Outcome::Flush(FlushOutcome::Applied) => code(40),
        Outcome::Flush(FlushOutcome::AlreadyApplied) => code(41),
        Outcome::Flush(FlushOutcome::Superseded { watermark }) => {
            OutcomeMessage { point: Some((*watermark).into()), ..code(42) }
        }
        Outcome::Flush(FlushOutcome::OutOfOrder { watermark }) => {
            OutcomeMessage { point: Some((*watermark).into()), ..code(43) }
        }
        Outcome::Flush(FlushOutcome::UnknownShard) => code(44),
        Outcome::Flush(FlushOutcome::IncarnationClosed { current }) => number(45, current.0),
        Outcome::Quarantine(QuarantineOutcome::Quarantined) => code(50),
        Outcome::Quarantine(QuarantineOutcome::AlreadyQuarantined) => code(51),
        Outcome::Quarantine(QuarantineOutcome::UnknownBlock) => code(52),
        Outcome::Lead(LeadOutcome::Noted) => code(60),
        Outcome::Lead(LeadOutcome::Stale) => code(61),
        Outcome::Lead(LeadOutcome::Closed) => code(62),
        Outcome::Place(PlaceOutcome::Placed) => code(70),
        Outcome::Place(PlaceOutcome::Conflict) => code(71),
        Outcome::Place(PlaceOutcome::Closed) => code(72),
        Outcome::NodeStateSet => code(80),
        Outcome::Generation(GenerationOutcome::Added { generation }) => number(90, *generation),
        Outcome::Generation(GenerationOutcome::Conflict { newest }) => number(91, *newest),
        Outcome::Generation(GenerationOutcome::AlreadyAdded { generation }) => {
            number(92, *generation)
        }
        Outcome::Job(JobOutcome::Begun { job }) => number(110, job.0),
        Outcome::Job(JobOutcome::Renewed) => code(111),
        Outcome::Job(JobOutcome::Committed) => code(112),
        Outcome::Job(JobOutcome::Abandoned) => code(113),
        Outcome::Job(JobOutcome::Superseded) => code(114),
        Outcome::Dropped => code(120),
        Outcome::Deletion(DeletionOutcome::Accepted { deletion }) => number(130, deletion.0),
        Outcome::TenantSet => code(140),
        Outcome::FeatureLevel(level) => number(150, u64::from(level.0)),
        Outcome::Forget(ForgetOutcome::Forgotten) => code(160),
        Outcome::Forget(ForgetOutcome::HoldsReplicas) => code(161),
        Outcome::Claim(ClaimOutcome::Claimed) => code(170),
        Outcome::Claim(ClaimOutcome::Closed { current }) => number(171, current.0),
        Outcome::Claim(ClaimOutcome::UnknownShard) => code(172),
        Outcome::Gap(GapOutcome::Done) => code(180),
        Outcome::Gap(GapOutcome::None) => code(181),
        Outcome::Unparked(count) => number(190, *count),
        Outcome::Lift(LiftOutcome::Lifted) => code(200),
        Outcome::Lift(LiftOutcome::NotQuarantined) => code(201),
        Outcome::Refused(refusal) => refusal_message(refusal),
    }
}

fn refusal_message(refusal: &Refusal) -> OutcomeMessage {
    match refusal {
        Refusal::Unsupported { version } => number(100, u64::from(*version)),
        Refusal::Malformed => code(101),
        Refusal::Invalid { reason } => OutcomeMessage { text: reason.clone(), ..code(102) },
        Refusal::NoCluster => code(103),
        Refusal::UnknownNode => code(104),
        Refusal::UnknownReplica { replica } => number(105, replica.0),
        Refusal::Full { what, limit } => {
            OutcomeMessage { text: what.clone(), ..number(106, *limit) }
        }
        Refusal::Replayed { revision } => number(107, *revision),
        Refusal::Mismatched => code(108),
        Refusal::NotYet { needs, level } => {
            OutcomeMessage { second: u64::from(level.0), ..number(109, u64::from(needs.0)) }
        }
    }
}

pub(crate) fn encode(outcome: &Outcome) -> Vec<u8> {
    message(outcome).encode_to_vec()
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Outcome, DecodeError> {
    let OutcomeMessage { code, number, point, text, id, second } = OutcomeMessage::decode(bytes)?;
    let value = number.unwrap_or_default();
    let incarnation = Incarnation(value);
    let watermark = super::point(point);
    Ok(match code {
        1 => Outcome::Cluster(ClusterOutcome::Created),
        2 => Outcome::Cluster(ClusterOutcome::AlreadyCreated),
        3 => Outcome::Cluster(ClusterOutcome::Different { cluster: ClusterId(super::id16(&id)?) }),
        10 => Outcome::NodeRegistered,
        20 => Outcome::Replica(ReplicaId(value)),
        30 => Outcome::Open(OpenOutcome::Opened { incarnation }),
        31 => Outcome::Open(OpenOutcome::AlreadyOpened { incarnation }),
        32 => Outcome::Open(OpenOutcome::Conflict { current: number.map(Incarnation) }),
        33 => Outcome::Open(OpenOutcome::UnknownShard),
        40 => Outcome::Flush(FlushOutcome::Applied),
        41 => Outcome::Flush(FlushOutcome::AlreadyApplied),
        42 => Outcome::Flush(FlushOutcome::Superseded { watermark }),
        43 => Outcome::Flush(FlushOutcome::OutOfOrder { watermark }),
        44 => Outcome::Flush(FlushOutcome::UnknownShard),
        45 => Outcome::Flush(FlushOutcome::IncarnationClosed { current: incarnation }),
        50 => Outcome::Quarantine(QuarantineOutcome::Quarantined),
        51 => Outcome::Quarantine(QuarantineOutcome::AlreadyQuarantined),
        52 => Outcome::Quarantine(QuarantineOutcome::UnknownBlock),
        60 => Outcome::Lead(LeadOutcome::Noted),
        61 => Outcome::Lead(LeadOutcome::Stale),
        62 => Outcome::Lead(LeadOutcome::Closed),
        70 => Outcome::Place(PlaceOutcome::Placed),
        71 => Outcome::Place(PlaceOutcome::Conflict),
        72 => Outcome::Place(PlaceOutcome::Closed),
        80 => Outcome::NodeStateSet,
        90 => Outcome::Generation(GenerationOutcome::Added { generation: value }),
        91 => Outcome::Generation(GenerationOutcome::Conflict { newest: value }),
        92 => Outcome::Generation(GenerationOutcome::AlreadyAdded { generation: value }),
        110 => Outcome::Job(JobOutcome::Begun { job: JobId(value) }),
        111 => Outcome::Job(JobOutcome::Renewed),
        112 => Outcome::Job(JobOutcome::Committed),
        113 => Outcome::Job(JobOutcome::Abandoned),
        114 => Outcome::Job(JobOutcome::Superseded),
        120 => Outcome::Dropped,
        130 => Outcome::Deletion(DeletionOutcome::Accepted { deletion: DeletionId(value) }),
        140 => Outcome::TenantSet,
        150 => Outcome::FeatureLevel(level(value)?),
        160 => Outcome::Forget(ForgetOutcome::Forgotten),
        161 => Outcome::Forget(ForgetOutcome::HoldsReplicas),
        109 => Outcome::Refused(Refusal::NotYet { needs: level(value)?, level: level(second)? }),
        170 => Outcome::Claim(ClaimOutcome::Claimed),
        171 => Outcome::Claim(ClaimOutcome::Closed { current: incarnation }),
        172 => Outcome::Claim(ClaimOutcome::UnknownShard),
        180 => Outcome::Gap(GapOutcome::Done),
        181 => Outcome::Gap(GapOutcome::None),
        190 => Outcome::Unparked(value),
        200 => Outcome::Lift(LiftOutcome::Lifted),
        201 => Outcome::Lift(LiftOutcome::NotQuarantined),
        code => Outcome::Refused(refusal(code, value, text)?),
    })
}

fn level(number: u64) -> Result<FeatureLevel, DecodeError> {
    let number = u32::try_from(number);
    number.map(FeatureLevel).map_err(|_| DecodeError::Inconsistent { what: "feature level" })
}

fn refusal(code: u32, value: u64, text: String) -> Result<Refusal, DecodeError> {
    Ok(match code {
        100 => {
            let version = u32::try_from(value);
            let version = version.map_err(|_| DecodeError::Inconsistent { what: "version" })?;
            Refusal::Unsupported { version }
        }
        101 => Refusal::Malformed,
        102 => Refusal::Invalid { reason: text },
        103 => Refusal::NoCluster,
        104 => Refusal::UnknownNode,
        105 => Refusal::UnknownReplica { replica: ReplicaId(value) },
        106 => Refusal::Full { what: text, limit: value },
        107 => Refusal::Replayed { revision: value },
        108 => Refusal::Mismatched,
        _ => return Err(DecodeError::Inconsistent { what: "outcome" }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::LogPoint;

    #[test]
    fn every_outcome_round_trips() {
        let watermark = LogPoint { term: 3, leader: 2, index: 900 };
        let incarnation = Incarnation(7);
        let refusals = [
            Refusal::Unsupported { version: 9 },
            Refusal::Malformed,
            Refusal::Invalid { reason: "because".to_owned() },
            Refusal::NoCluster,
            Refusal::UnknownNode,
            Refusal::UnknownReplica { replica: ReplicaId(4) },
            Refusal::Full { what: "nodes".to_owned(), limit: 5 },
            Refusal::Replayed { revision: 6 },
            Refusal::Mismatched,
            Refusal::NotYet { needs: FeatureLevel(3), level: FeatureLevel(2) },
        ];
        let outcomes = [
            Outcome::Cluster(ClusterOutcome::Created),
            Outcome::Cluster(ClusterOutcome::AlreadyCreated),
            Outcome::Cluster(ClusterOutcome::Different { cluster: ClusterId([7; 16]) }),
            Outcome::NodeRegistered,
            Outcome::Replica(ReplicaId(8)),
            Outcome::Open(OpenOutcome::Opened { incarnation }),
            Outcome::Open(OpenOutcome::AlreadyOpened { incarnation }),
            Outcome::Open(OpenOutcome::Conflict { current: None }),
            Outcome::Open(OpenOutcome::Conflict { current: Some(incarnation) }),
            Outcome::Open(OpenOutcome::UnknownShard),
            Outcome::Flush(FlushOutcome::Applied),
            Outcome::Flush(FlushOutcome::AlreadyApplied),
            Outcome::Flush(FlushOutcome::Superseded { watermark }),
            Outcome::Flush(FlushOutcome::OutOfOrder { watermark }),
            Outcome::Flush(FlushOutcome::UnknownShard),
            Outcome::Flush(FlushOutcome::IncarnationClosed { current: incarnation }),
            Outcome::Quarantine(QuarantineOutcome::Quarantined),
            Outcome::Quarantine(QuarantineOutcome::AlreadyQuarantined),
            Outcome::Quarantine(QuarantineOutcome::UnknownBlock),
            Outcome::Lead(LeadOutcome::Noted),
            Outcome::Lead(LeadOutcome::Stale),
            Outcome::Lead(LeadOutcome::Closed),
            Outcome::Place(PlaceOutcome::Placed),
            Outcome::Place(PlaceOutcome::Conflict),
            Outcome::Place(PlaceOutcome::Closed),
            Outcome::NodeStateSet,
            Outcome::Generation(GenerationOutcome::Added { generation: 2 }),
            Outcome::Generation(GenerationOutcome::Conflict { newest: 3 }),
            Outcome::Generation(GenerationOutcome::AlreadyAdded { generation: 4 }),
            Outcome::Job(JobOutcome::Begun { job: JobId(9) }),
            Outcome::Job(JobOutcome::Renewed),
            Outcome::Job(JobOutcome::Committed),
            Outcome::Job(JobOutcome::Abandoned),
            Outcome::Job(JobOutcome::Superseded),
            Outcome::Dropped,
            Outcome::Deletion(DeletionOutcome::Accepted { deletion: DeletionId(10) }),
            Outcome::TenantSet,
            Outcome::FeatureLevel(FeatureLevel(2)),
            Outcome::Forget(ForgetOutcome::Forgotten),
            Outcome::Forget(ForgetOutcome::HoldsReplicas),
            Outcome::Unparked(11),
            Outcome::Lift(LiftOutcome::Lifted),
            Outcome::Lift(LiftOutcome::NotQuarantined),
        ];
        for outcome in outcomes.into_iter().chain(refusals.map(Outcome::Refused)) {
            assert_eq!(decode(&encode(&outcome)), Ok(outcome));
        }
        assert!(decode(&[]).is_err());
        assert!(decode(&[0xff]).is_err());
    }
}
