//! Compacted objects of the backup that are gone, and that nothing which is left names.
//!
//! After the backup such an object may have been merged, and what was made of it merged again, until
//! both it and what named it were deleted. Then nothing is lost. Objects say of their merge only what
//! it replaced, so what is left is to ask whether the object can have gone that way:
//!
//! - A job of its shard that counts has an ancestor that neither the backup nor the bucket tells of.
//! - It covers entries that were in compacted objects when the backup was made: registered by then, and
//!   in none of its flushes.
//! - Its level is not lower, nor did its youngest spans arrive earlier.
//! - All such jobs of the shard together hold as many spans as all that must have gone into them.
//!
//! All of it holds for what was merged, but for the last if spans were deleted or were twice the same:
//! then an object is called gone that is not. For what was lost it can only hold if spans that came
//! after the backup went into the same jobs, and are as many.

use std::collections::{BTreeMap, BTreeSet};

use clew_ring::ShardId;

use super::merges::Verdict;
use super::{FoundObject, Listing, LogRange, is_merged, job_of, ranges};
use crate::ident::{Incarnation, JobId};
use crate::key::ObjectKey;
use crate::object::ObjectMeta;
use crate::state::State;

/// The objects of `state`, the backup, that were merged by way of objects of which nothing is left.
pub(super) fn merged(
    state: &State,
    listing: &Listing,
    verdict: &Verdict<'_>,
) -> BTreeSet<ObjectKey> {
    let jobs = jobs(state, verdict);
    let made = made(state, verdict, &jobs);
    let named: BTreeSet<&ObjectKey> =
        jobs.iter().filter_map(|job| verdict.counted.get(job)).flatten().collect();
    let mut room: BTreeMap<ShardId, u64> = BTreeMap::new();
    for found in &made {
        let room = room.entry(found.object.shard()).or_default();
        *room = room.saturating_add(found.object.spans());
    }
    let mut merged = BTreeSet::new();
    let mut needed: BTreeMap<ShardId, u64> = BTreeMap::new();
    for object in state.objects() {
        let is_unnamed = !verdict.replaced.contains(&object.key);
        let is_gone = is_unnamed && !listing.present.contains(&object.key);
        let went_there = match object.key {
            ObjectKey::Flush(_) => is_gone && is_merged(object, verdict),
            ObjectKey::Compacted(_) => is_gone && made.iter().any(|found| can_hold(found, object)),
        };
        if went_there || named.contains(&object.key) {
            let needed = needed.entry(object.shard()).or_default();
            *needed = needed.saturating_add(object.spans());
        }
        if went_there {
            merged.insert(object.key);
        }
    }
    merged.retain(|key| needed.get(&key.shard()) <= room.get(&key.shard()));
    merged
}

/// The jobs that have an ancestor of which nothing is known.
fn jobs(state: &State, verdict: &Verdict<'_>) -> BTreeSet<JobId> {
    let is_known = |key: &ObjectKey| state.object(key).is_some() || state.dead.contains_key(key);
    let mut jobs = BTreeSet::new();
    // What a job reads was made by an earlier one.
    for (job, inputs) in &verdict.counted {
        let is_unseen = inputs.iter().any(|input| {
            job_of(input).is_some_and(|maker| {
                jobs.contains(&maker) || !verdict.counted.contains_key(&maker) && !is_known(input)
            })
        });
        if is_unseen {
            jobs.insert(*job);
        }
    }
    jobs
}

/// What is read of these jobs, and has something in it that was in compacted objects at the time of the
/// backup.
fn made<'a>(state: &State, verdict: &Verdict<'a>, jobs: &BTreeSet<JobId>) -> Vec<&'a FoundObject> {
    let mut flushed: BTreeMap<(ShardId, Incarnation), Vec<(u64, u64)>> = BTreeMap::new();
    for object in state.objects() {
        let Some(incarnation) = object.incarnation() else { continue };
        let log = flushed.entry((object.shard(), incarnation)).or_default();
        log.push((object.from, object.through.index));
    }
    for ranges in flushed.values_mut() {
        *ranges = ranges::joined(std::mem::take(ranges));
    }
    let was_compacted = |shard: ShardId, range: &LogRange| {
        let open = state
            .shard_log(shard)
            .map_or((Incarnation(0), 0), |log| (log.incarnation, log.watermark.index));
        let end = match range.incarnation {
            incarnation if incarnation == open.0 => open.1,
            incarnation if incarnation < open.0 => u64::MAX,
            _ => 0,
        };
        let part = (range.from, range.through.min(end));
        let flushed = flushed.get(&(shard, range.incarnation));
        part.0 < part.1 && !flushed.is_some_and(|flushed| ranges::hold(flushed, part))
    };
    let of_jobs = verdict.adopted.iter().copied().filter(|found| {
        job_of(&found.object.key).is_some_and(|job| jobs.contains(&job))
            && found.covers.iter().any(|range| was_compacted(found.object.shard(), range))
    });
    of_jobs.collect()
}

/// Whether, by what both tell, `object` can be in what `found` was made of.
fn can_hold(found: &FoundObject, object: &ObjectMeta) -> bool {
    found.object.shard() == object.shard()
        && found.object.level >= object.level
        && found.object.data_at >= object.data_at
}
