//! Commands about logs that a restored catalog does not know, and about what is gone.

use super::{ShardLog, State};
use crate::changes::ChangeKind;
use crate::command::{AcceptGap, ClaimLog, ForgetGaps};
use crate::gap::{GAPS_MAX, Gap};
use crate::ident::LogPoint;
use crate::outcome::{ClaimOutcome, GapOutcome, Outcome, Refusal};
use crate::view::ShardView;

impl State {
    pub(super) fn claim_log(&mut self, command: &ClaimLog) -> Result<Outcome, Refusal> {
        let ClaimLog { shard, incarnation, replica } = *command;
        if !self.replica_disks.contains_key(&replica) {
            return Err(Refusal::UnknownReplica { replica });
        }
        // Beyond what was ever issued it cannot be a log of this cluster.
        let is_possible = incarnation.0 > 0 && incarnation.0 <= self.last_incarnation;
        let Some(log) = self.shards.get_mut(&shard).filter(|_| is_possible) else {
            return Ok(Outcome::Claim(ClaimOutcome::UnknownShard));
        };
        if log.incarnation == incarnation {
            return Ok(Outcome::Claim(ClaimOutcome::Claimed));
        }
        if !log.awaits || incarnation < log.incarnation {
            let current = log.incarnation;
            return Ok(Outcome::Claim(ClaimOutcome::Closed { current }));
        }
        // Objects of a later incarnation than the one the catalog was restored with were looked for
        // in the bucket then: there are none.
        *log = ShardLog { incarnation, watermark: LogPoint::default(), ..log.clone() };
        let view = ShardView::new(shard, log);
        self.note(ChangeKind::ShardOpened(view));
        Ok(Outcome::Claim(ClaimOutcome::Claimed))
    }

    pub(super) fn accept_gap(&mut self, command: AcceptGap) -> Outcome {
        let AcceptGap { shard, incarnation } = command;
        let log = self.shards.get_mut(&shard).filter(|log| log.incarnation == incarnation);
        let Some(log) = log else { return Outcome::Gap(GapOutcome::None) };
        let Some(ahead) = log.ahead.take() else { return Outcome::Gap(GapOutcome::None) };
        let range = (log.watermark.index, ahead.index);
        log.watermark = ahead;
        let view = ShardView::new(shard, log);
        self.note(ChangeKind::ShardOpened(view));
        let gap = Gap::of_log(shard, incarnation, range, self.now);
        self.add_gaps([gap]);
        self.note(ChangeKind::GapsChanged(self.gaps.clone()));
        Outcome::Gap(GapOutcome::Done)
    }

    pub(super) fn forget_gaps(&mut self, command: ForgetGaps) -> Outcome {
        let before = self.gaps.len();
        self.gaps.retain(|gap| command.shard.is_some_and(|shard| shard != gap.shard));
        if self.gaps.len() == before {
            return Outcome::Gap(GapOutcome::None);
        }
        self.note(ChangeKind::GapsChanged(self.gaps.clone()));
        Outcome::Gap(GapOutcome::Done)
    }

    pub(crate) fn add_gaps(&mut self, gaps: impl IntoIterator<Item = Gap>) {
        self.gaps.extend(gaps);
        self.gaps.sort_unstable();
        self.gaps.dedup();
        // Whoever asks sees that there are very many; that the answer is partial stays true.
        self.gaps.truncate(GAPS_MAX);
    }
}
