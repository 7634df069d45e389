//! Which compactions count, judged from the objects that they left in the bucket.
//!
//! What holds, by the rules of the catalog that was lost:
//!
//! - A job reads live objects that no other job holds. So of two jobs with an input in common the
//!   earlier one never committed: if it had, the input would have been dead when the later began.
//! - Only live objects are inputs. So a job whose output was the input of another one committed.
//! - The last object of a job says how many there are. If all are there, they hold what the inputs
//!   held, and to read them instead of the inputs is right whether the job committed or not.
//! - Inputs are deleted only when they are dead. So if none of them is left, they went into the job or
//!   into others in its place; if none of their entries is in a later job's objects, it committed, and
//!   what is missing of its objects has expired.
//!
//! If none of that helps and all inputs are there, they are read. What remains is doubtful: both sides are
//! read, and the report says that spans may show twice. That is
//!
//! - a job of which some inputs are gone and some objects: an input expired while the job ran, or an object
//!   was lost,
//! - a job whose entries are also in a later one's objects, by way of jobs that began after it and of which
//!   nothing is left. Entries alone say little: those of several objects of one job are the same, and
//!   such objects go different ways. But what a job in vain read was read again later; so if no unseen
//!   ancestor of the other began later, it has its part of the entries from elsewhere. Otherwise the job
//!   ended in vain and nobody has collected its objects yet, or only some of them were merged on. Both
//!   leave the same in the bucket: without the objects, spans may be lost, with them, they show twice.

use std::collections::{BTreeMap, BTreeSet};

use clew_ring::ShardId;

use super::{FoundObject, Listing, LogRange, job_of, ranges};
use crate::ident::{Incarnation, JobId};
use crate::key::ObjectKey;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Verdict<'a> {
    /// Merged objects that are read.
    pub(super) adopted: Vec<&'a FoundObject>,
    /// Objects that were merged into others, which are read instead.
    pub(super) replaced: BTreeSet<ObjectKey>,
    /// The jobs that made those two kinds, and what they merged.
    pub(super) counted: BTreeMap<JobId, BTreeSet<ObjectKey>>,
    /// Which entries of logs are in merged objects, joined.
    pub(super) covered: BTreeMap<(ShardId, Incarnation), Vec<(u64, u64)>>,
    /// Jobs of which cannot be told whether they committed.
    pub(super) doubtful: Vec<JobId>,
}

#[derive(Default)]
struct Merge<'a> {
    objects: Vec<&'a FoundObject>,
    inputs: BTreeSet<ObjectKey>,
}

impl Merge<'_> {
    fn is_complete(&self) -> bool {
        let said = self.objects.iter().map(|found| found.objects_of_merge).max().unwrap_or(0);
        said > 0 && self.objects.len() >= usize::try_from(said).unwrap_or(usize::MAX)
    }

    /// Whether entries that went into the other one went into this one, too.
    fn has_part_of(&self, other: &Merge<'_>) -> bool {
        // All objects of a merge say the same.
        let (Some(of), Some(other)) = (self.objects.first(), other.objects.first()) else {
            return false;
        };
        let overlaps = |(one, two): (&LogRange, &LogRange)| {
            one.incarnation == two.incarnation && one.from < two.through && two.from < one.through
        };
        of.object.shard() == other.object.shard()
            && of.covers.iter().any(|one| other.covers.iter().any(|two| overlaps((one, two))))
    }
}

pub(super) fn judge(listing: &Listing) -> Verdict<'_> {
    let mut merges: BTreeMap<JobId, Merge<'_>> = BTreeMap::new();
    for found in &listing.found {
        let Some(job) = job_of(&found.object.key) else { continue };
        let merge = merges.entry(job).or_default();
        merge.objects.push(found);
        merge.inputs.extend(found.replaces.iter().copied());
    }
    let mut last_reader: BTreeMap<ObjectKey, JobId> = BTreeMap::new();
    for (job, merge) in &merges {
        last_reader.extend(merge.inputs.iter().map(|input| (*input, *job)));
    }
    let consumed: BTreeSet<JobId> = last_reader.keys().filter_map(job_of).collect();
    let mut verdict = Verdict::default();
    // The latest first: what is in its objects, those of an earlier one should not have.
    for (job, merge) in merges.iter().rev() {
        if merge.inputs.iter().any(|input| last_reader.get(input) > Some(job)) {
            continue;
        }
        let left = merge.inputs.iter().filter(|input| listing.present.contains(input)).count();
        let is_committed = consumed.contains(job);
        if is_committed || merge.is_complete() || left == 0 {
            verdict.replaced.extend(merge.inputs.iter().copied());
            if !is_committed && verdict.may_be_in_vain(&merges, *job, merge) {
                verdict.doubtful.push(*job);
            }
            verdict.cover(merge);
        } else if left < merge.inputs.len() {
            verdict.doubtful.push(*job);
        } else {
            continue;
        }
        verdict.adopted.extend(&merge.objects);
        verdict.counted.insert(*job, merge.inputs.clone());
    }
    let replaced = &verdict.replaced;
    verdict.adopted.retain(|found| !replaced.contains(&found.object.key));
    verdict
}

impl Verdict<'_> {
    /// Whether what a job read may have been read again, by a later one of which nothing is left.
    fn may_be_in_vain(
        &self,
        merges: &BTreeMap<JobId, Merge<'_>>,
        job: JobId,
        merge: &Merge<'_>,
    ) -> bool {
        self.counted.range(job..).skip_while(|(later, _)| **later == job).any(|(later, _)| {
            merges.get(later).is_some_and(|other| other.has_part_of(merge))
                && has_unseen_after(job, *later, merges)
        })
    }

    fn cover(&mut self, merge: &Merge<'_>) {
        for found in &merge.objects {
            for range in &found.covers {
                let log = (found.object.shard(), range.incarnation);
                self.covered.entry(log).or_default().push((range.from, range.through));
            }
        }
        // All objects of a merge say the same.
        for ranges in self.covered.values_mut() {
            *ranges = ranges::joined(std::mem::take(ranges));
        }
    }
}

/// Whether a job has an ancestor that began after `job` and of which nothing is left to tell what it read.
fn has_unseen_after(job: JobId, of: JobId, merges: &BTreeMap<JobId, Merge<'_>>) -> bool {
    let mut seen = BTreeSet::from([of]);
    let mut next = vec![of];
    while let Some(merge) = next.pop().and_then(|job| merges.get(&job)) {
        for maker in merge.inputs.iter().filter_map(job_of).filter(|maker| *maker > job) {
            if !merges.contains_key(&maker) {
                return true;
            }
            if seen.insert(maker) {
                next.push(maker);
            }
        }
    }
    false
}
