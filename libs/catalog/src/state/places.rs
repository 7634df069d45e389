//! Commands about where shards are: their replicas, their leaders, and new map generations.

use std::collections::BTreeSet;
use std::sync::Arc;

use clew_ring::MapGeneration;

use super::logs::LOG_REPLICAS_MAX;
use super::members::full;
use super::{Generation, State};
use crate::changes::ChangeKind;
use crate::command::{AddGeneration, NoteLead, PlaceShard};
use crate::ident::{LogPoint, ReplicaId};
use crate::outcome::{GenerationOutcome, LeadOutcome, Outcome, PlaceOutcome, Refusal};

/// The most map generations that live at the same time.
const GENERATIONS_MAX: usize = 64;

impl State {
    pub(super) fn note_lead(&mut self, command: NoteLead) -> Result<Outcome, Refusal> {
        let NoteLead { shard, incarnation, lead, flushed } = command;
        let members = lead.voters.len() + lead.learners.len();
        if members > 2 * LOG_REPLICAS_MAX {
            return Err(Refusal::Invalid { reason: format!("too many members: {members}") });
        }
        let log = self.shards.get_mut(&shard).filter(|log| log.incarnation == incarnation);
        let Some(log) = log else { return Ok(Outcome::Lead(LeadOutcome::Closed)) };
        if log.lead.as_ref().is_some_and(|known| known.order() > lead.order()) {
            return Ok(Outcome::Lead(LeadOutcome::Stale));
        }
        if std::mem::take(&mut log.awaits) {
            // Where it was when the backup was made does not matter: this is where it is.
            log.placed = lead.voters.clone();
            log.replicas = lead.voters.clone();
        }
        // A replica may hear of a purge later than the leader before it did.
        let beyond = |point: &LogPoint| point.index > log.watermark.index;
        let ahead = log.ahead.into_iter().chain([flushed]).filter(beyond);
        log.ahead = ahead.max_by_key(|point| point.index);
        log.lead = Some(lead);
        Ok(Outcome::Lead(LeadOutcome::Noted))
    }

    pub(super) fn place_shard(&mut self, command: PlaceShard) -> Result<Outcome, Refusal> {
        let PlaceShard { shard, incarnation, from, to } = command;
        let unique: BTreeSet<&ReplicaId> = to.iter().collect();
        if to.is_empty() || to.len() > LOG_REPLICAS_MAX || unique.len() < to.len() {
            let reason = format!("a log needs 1 to {LOG_REPLICAS_MAX} different replicas");
            return Err(Refusal::Invalid { reason });
        }
        if let Some(&replica) = to.iter().find(|id| !self.replica_disks.contains_key(id)) {
            return Err(Refusal::UnknownReplica { replica });
        }
        let log = self.shards.get_mut(&shard).filter(|log| log.incarnation == incarnation);
        let Some(log) = log else { return Ok(Outcome::Place(PlaceOutcome::Closed)) };
        if log.placed == to {
            return Ok(Outcome::Place(PlaceOutcome::Placed));
        }
        if log.placed != from {
            return Ok(Outcome::Place(PlaceOutcome::Conflict));
        }
        log.placed = to;
        Ok(Outcome::Place(PlaceOutcome::Placed))
    }

    pub(super) fn add_generation(&mut self, command: &AddGeneration) -> Result<Outcome, Refusal> {
        let newest = self.generations.last().map_or(0, |newest| newest.map.generation());
        let shards = self.generations.last().map_or(0, |newest| newest.map.shards().len());
        let count = usize::try_from(command.shard_count).unwrap_or(usize::MAX);
        if newest != command.after {
            if command.after.checked_add(1) == Some(newest) && shards == count {
                let again = GenerationOutcome::AlreadyAdded { generation: newest };
                return Ok(Outcome::Generation(again));
            }
            return Ok(Outcome::Generation(GenerationOutcome::Conflict { newest }));
        }
        let invalid = |reason: String| Refusal::Invalid { reason };
        if count < shards {
            return Err(invalid(format!(
                "there are {shards} shards already, only more are possible"
            )));
        }
        if self.generations.len() >= GENERATIONS_MAX {
            return Err(full("map generations", GENERATIONS_MAX as u64));
        }
        let generation = newest.checked_add(1).ok_or_else(|| full("map generations", u64::MAX))?;
        let map = MapGeneration::uniform(generation, command.shard_count)
            .map_err(|error| invalid(error.to_string()))?;
        let added = Generation { map: Arc::new(map), created_at: self.now };
        self.note(ChangeKind::GenerationAdded(added.clone()));
        self.generations.push(added);
        Ok(Outcome::Generation(GenerationOutcome::Added { generation }))
    }
}
