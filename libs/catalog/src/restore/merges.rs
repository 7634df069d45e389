//! Which compactions count, judged from the objects that they left in the bucket.
//!
//! What holds, by the rules of the catalog that was lost:
//!
//! - A job reads live objects that no other job holds. So of two jobs with an input in common the
//!   earlier one never committed: if it had, the input would have been dead when the later began.
//! - Only live objects are inputs. So a job whose output was the input of another one committed.
//! - The last object of a job says how many there are. If all are there, they hold what the inputs
//!   held, and to read them instead of the inputs is right whether the job committed or not.
//! - Inputs are deleted only when they are dead. So if none of them is left, the job committed, and what
//!   is missing of its objects has expired or was merged again.
//!
//! If none of that helps and all inputs are there, they are read. What remains is doubtful: both sides are
//! read, and the report says that spans may show twice. That is
//!
//! - a job of which some inputs are gone and some objects: an input expired while the job ran, or an object
//!   was lost,
//! - a job whose entries are also in a later one's objects, by way of jobs of which nothing is left: it
//!   ended in vain and nobody has collected its objects yet, or only some of them were merged on.

use std::collections::{BTreeMap, BTreeSet};

use clew_ring::ShardId;

use super::{FoundObject, Listing, job_of, ranges};
use crate::ident::{Incarnation, JobId};
use crate::key::ObjectKey;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Verdict<'a> {
    /// Merged objects that are read.
    pub(super) adopted: Vec<&'a FoundObject>,
    /// Objects that were merged into others, which are read instead.
    pub(super) replaced: BTreeSet<ObjectKey>,
    /// Which entries of logs are in merged objects.
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
            if !is_committed && verdict.has_part_of(merge) {
                verdict.doubtful.push(*job);
            }
            verdict.cover(merge);
        } else if left < merge.inputs.len() {
            verdict.doubtful.push(*job);
        } else {
            continue;
        }
        verdict.adopted.extend(&merge.objects);
    }
    let replaced = &verdict.replaced;
    verdict.adopted.retain(|found| !replaced.contains(&found.object.key));
    verdict
}

impl Verdict<'_> {
    /// Whether entries that went into a merge are in objects of one that was looked at before.
    fn has_part_of(&self, merge: &Merge<'_>) -> bool {
        let ranges = merge
            .objects
            .iter()
            .flat_map(|found| found.covers.iter().map(|range| (found.object.shard(), range)));
        ranges.into_iter().any(|(shard, range)| {
            let covered = self.covered.get(&(shard, range.incarnation));
            let overlaps =
                |(from, through): &(u64, u64)| range.from < *through && *from < range.through;
            covered.is_some_and(|covered| covered.iter().any(overlaps))
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
