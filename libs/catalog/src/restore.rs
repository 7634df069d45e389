//! A catalog from a backup and from what lies in the bucket, or from the bucket alone.
//!
//! A backup is older than what was lost with the disks. What happened since shows in the bucket: the
//! name of a flush tells which entries of which log it holds, a merged block tells what it replaces
//! and which entries are in it. From that follows which objects a query has to read, so that every
//! span is read, and once; [`merges`] and [`ranges`] have the reasons. What does not follow is named
//! in the [`Report`], never passed over.
//!
//! The restored catalog goes on behind everything the lost one may have issued: revisions (and with
//! them jobs and deletions), incarnations and replica ids leap. Where the logs of shards are it does
//! not know: each shard waits ([`crate::ShardPlace::awaits`]) for whoever leads its log, and stands
//! still if that log was purged beyond the watermark.

mod merges;
mod ranges;
mod report;
mod unseen;

pub use self::report::{Report, ShardReport};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clew_model::UnixNanos;
use clew_ring::{MapGeneration, ShardId};

use self::merges::Verdict;
use crate::changes::ChangeLog;
use crate::compaction::DeadObject;
use crate::gap::Gap;
use crate::ident::{ClusterId, Incarnation, JobId, LogPoint, RequestId};
use crate::key::ObjectKey;
use crate::object::ObjectMeta;
use crate::outcome::Refusal;
use crate::state::{Generation, Liveness, ShardLog, State};

/// How far revisions leap: more than any catalog makes between two backups.
const REVISION_LEAP: u64 = 1 << 32;

/// How far incarnations and replica ids leap.
const ID_LEAP: u64 = 1 << 20;

/// A part of a shard's log: the entries in (`from`, `through`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogRange {
    /// The incarnation of the log.
    pub incarnation: Incarnation,
    /// The index before the first entry.
    pub from: u64,
    /// The last entry.
    pub through: u64,
}

/// An object of the bucket, as its blocks tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundObject {
    /// Its description, as far as blocks have it: `created_at` and `revision` are decided here.
    pub object: ObjectMeta,
    /// What it replaces, if a merge made it.
    pub replaces: BTreeSet<ObjectKey>,
    /// What of the log went into its merge.
    pub covers: Vec<LogRange>,
    /// In the last object of a merge: how many the merge made.
    pub objects_of_merge: u32,
}

/// What the bucket holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Every object by its name.
    pub present: BTreeSet<ObjectKey>,
    /// Those that [`State::must_read`] asks for; all, if there is no backup.
    pub found: Vec<FoundObject>,
    /// Those of them that cannot be read, with the reason.
    pub unreadable: Vec<(ObjectKey, String)>,
}

/// What a catalog without any backup begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilding {
    /// The cluster's new id.
    pub cluster: ClusterId,
    /// How many shards it always had, if the operator knows.
    pub shard_count: Option<u32>,
}

/// A restored catalog.
#[derive(Debug, Clone)]
pub struct Restored {
    /// It, to begin a metastore with.
    pub state: State,
    /// What was done, and what is missing.
    pub report: Report,
}

impl State {
    /// Whether a catalog restored from this one has to look into an object of the bucket: it does not
    /// know it, and the one that was lost may have.
    pub fn must_read(&self, key: &ObjectKey) -> bool {
        self.liveness(key) == Liveness::MayRegister
    }
}

/// Restores the catalog of `base`, or makes one anew, from what lies in the bucket at `at`.
///
/// # Errors
/// [`Refusal::Invalid`] when the number of shards is impossible or cannot be known.
pub fn restore(
    base: Result<State, Rebuilding>,
    listing: &Listing,
    at: UnixNanos,
) -> Result<Restored, Refusal> {
    let verdict = merges::judge(listing);
    let (state, is_rebuilt) = match base {
        Ok(state) => (state, false),
        Err(rebuilding) => (begin(rebuilding, listing, at)?, true),
    };
    let mut report = Report {
        from: (!is_rebuilt).then_some((state.revision, state.now)),
        doubtful: verdict.doubtful.clone(),
        unreadable: listing.unreadable.clone(),
        ..Report::default()
    };
    let mut restoring = Restoring { state, listing, is_rebuilt, at, gaps: Vec::new() };
    restoring.leap();
    restoring.grow(&mut report)?;
    let logs = restoring.logs(&verdict);
    restoring.replace(&verdict, &logs, &mut report);
    restoring.adopt(&verdict, &logs, &mut report);
    restoring.open(&logs, &mut report);
    restoring.finish(report)
}

/// The state of a cluster of which nothing is known but its objects.
fn begin(rebuilding: Rebuilding, listing: &Listing, at: UnixNanos) -> Result<State, Refusal> {
    let Rebuilding { cluster, shard_count } = rebuilding;
    let seen = shards_seen(listing);
    let Some(count) = shard_count.or((seen > 0).then_some(seen)) else {
        let reason = "the bucket holds no objects: say how many shards there shall be".to_owned();
        return Err(Refusal::Invalid { reason });
    };
    if count < seen {
        let reason = format!("the bucket holds objects of shard {}: {count} are too few", seen - 1);
        return Err(Refusal::Invalid { reason });
    }
    let mut state = State { cluster: Some(cluster), now: at, ..State::new() };
    // With two generations nobody believes that a trace's only home is the one of today.
    state.map_guessed = shard_count.is_none();
    let generations = if shard_count.is_some() { 1 } else { 2 };
    for number in 1..=generations {
        state.generations.push(generation(number, count, at)?);
    }
    Ok(state)
}

fn generation(number: u64, count: u32, at: UnixNanos) -> Result<Generation, Refusal> {
    let map = MapGeneration::uniform(number, count)
        .map_err(|error| Refusal::Invalid { reason: error.to_string() })?;
    Ok(Generation { map: Arc::new(map), created_at: at })
}

/// One more than the highest shard that has objects.
fn shards_seen(listing: &Listing) -> u32 {
    listing.present.iter().map(|key| key.shard().0 + 1).max().unwrap_or(0)
}

/// What is known of one log.
struct Log<'a> {
    /// Flushes that are read from now on.
    flushes: Vec<&'a crate::FoundObject>,
    /// Entries in objects, joined, ascending.
    covered: Vec<(u64, u64)>,
    /// Entries that should be in objects, and are not.
    holes: Vec<(u64, u64)>,
}

type Logs<'a> = BTreeMap<(ShardId, Incarnation), Log<'a>>;

struct Restoring<'a> {
    state: State,
    listing: &'a Listing,
    is_rebuilt: bool,
    at: UnixNanos,
    gaps: Vec<Gap>,
}

impl<'a> Restoring<'a> {
    /// Goes on behind everything that the lost catalog may have issued.
    fn leap(&mut self) {
        let state = &mut self.state;
        let job = |key: &ObjectKey| match key {
            ObjectKey::Compacted(key) => key.job.0,
            ObjectKey::Flush(_) => 0,
        };
        let jobs = self.listing.present.iter().map(job).max().unwrap_or(0);
        state.revision = state.revision.max(jobs).saturating_add(REVISION_LEAP);
        state.now = state.now.max(self.at);
        state.incarnation = state.incarnation.saturating_add(1);
        let replicas = state.replica_disks.last_key_value().map_or(0, |(replica, _)| replica.0);
        state.replica_floor = state.replica_floor.max(replicas).saturating_add(ID_LEAP);
        // Whoever works at a job of the lost catalog is told that it is over.
        state.jobs.clear();
        state.busy.clear();
        state.finished.clear();
    }

    /// Adds a map generation if there are objects of more shards than the map has.
    fn grow(&mut self, report: &mut Report) -> Result<(), Refusal> {
        let seen = shards_seen(self.listing);
        let newest = self.state.generations.last();
        let (number, count) =
            newest.map_or((0, 0), |newest| (newest.map.generation(), newest.map.shards().len()));
        if usize::try_from(seen).unwrap_or(usize::MAX) > count {
            self.state.map_guessed = true;
            report.shards_added = seen - u32::try_from(count).unwrap_or(seen);
            self.state.generations.push(generation(number.saturating_add(1), seen, self.at)?);
        }
        Ok(())
    }

    /// Works out, log by log, which flushes are read and what is missing.
    fn logs(&self, verdict: &Verdict<'a>) -> Logs<'a> {
        let mut candidates: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for found in &self.listing.found {
            let ObjectKey::Flush(key) = found.object.key else { continue };
            let log = candidates.entry((key.shard, key.incarnation)).or_default();
            if !verdict.replaced.contains(&found.object.key) {
                log.push(found);
            }
        }
        for log in verdict.covered.keys() {
            candidates.entry(*log).or_default();
        }
        let mut logs = Logs::new();
        for (place, flushes) in candidates {
            let mut fixed = verdict.covered.get(&place).cloned().unwrap_or_default();
            let open = self.state.shards.get(&place.0);
            let open = open.filter(|log| log.incarnation == place.1);
            fixed.extend(open.map(|log| (0, log.watermark.index)));
            let fixed = ranges::joined(fixed);
            let flushes = ranges::choose(flushes, &fixed);
            let chosen = flushes.iter().map(|f| (f.object.from, f.object.through.index));
            let covered = ranges::joined(fixed.iter().copied().chain(chosen).collect());
            // What the backup calls closed it knows; without one, the oldest entries have expired.
            let is_new = place.1.0 > self.state.last_incarnation;
            let start = match (self.is_rebuilt, open.is_some() || is_new) {
                (true, _) => covered.first().map(|(from, _)| *from),
                (false, true) => Some(0),
                (false, false) => None,
            };
            let holes = start.map_or_else(Vec::new, |start| ranges::holes(start, &covered));
            logs.insert(place, Log { flushes, covered, holes });
        }
        logs
    }

    /// Takes objects out of the catalog that others have replaced, or that are gone.
    fn replace(&mut self, verdict: &Verdict<'_>, logs: &Logs<'_>, report: &mut Report) {
        let unseen = unseen::merged(&self.state, self.listing, verdict);
        let keys: Vec<ObjectKey> = self.state.objects.keys().copied().collect();
        for key in keys {
            let is_present = self.listing.present.contains(&key);
            let is_replaced = verdict.replaced.contains(&key);
            if is_present && !is_replaced {
                continue;
            }
            let Some(object) = self.state.objects.get(&key).cloned() else { continue };
            self.state.kill(&key);
            if !is_present {
                self.state.dead.remove(&key);
            }
            if is_replaced || unseen.contains(&key) || is_merged(&object, verdict) {
                report.replaced += 1;
                continue;
            }
            let times = |time: fn(&crate::TenantBlock) -> UnixNanos| {
                object.tenants.iter().map(time).collect::<Vec<_>>()
            };
            self.gaps.push(Gap {
                shard: key.shard(),
                incarnation: key.incarnation().unwrap_or(Incarnation(0)),
                from: object.from,
                through: object.through.index,
                object: Some(key),
                min_time: times(|b| b.min_time).into_iter().min().unwrap_or_default(),
                max_time: times(|b| b.max_time).into_iter().max().unwrap_or_default(),
                at: self.at,
            });
        }
        for ((shard, incarnation), log) in logs {
            for hole in &log.holes {
                self.gaps.push(Gap::of_log(*shard, *incarnation, *hole, self.at));
            }
        }
        for (key, _) in &self.listing.unreadable {
            let gap = Gap::of_log(key.shard(), Incarnation(0), (0, 0), self.at);
            self.gaps.push(Gap { object: Some(*key), ..gap });
        }
    }

    /// Lists the objects that the backup lacks.
    fn adopt(&mut self, verdict: &Verdict<'_>, logs: &Logs<'_>, report: &mut Report) {
        let flushes = logs.values().flat_map(|log| &log.flushes).copied();
        let adopted: Vec<_> = verdict.adopted.iter().copied().chain(flushes).collect();
        for found in &adopted {
            let mut object = found.object.clone();
            let revision = match object.key {
                ObjectKey::Flush(_) => self.state.revision,
                ObjectKey::Compacted(key) => key.job.0,
            };
            (object.revision, object.created_at) = (revision, object.data_at);
            object.tenants.retain(|block| !self.state.was_removed_since(&block.tenant, revision));
            for block in &mut object.tenants {
                block.max_time = block.max_time.max(block.min_time);
            }
            if object.tenants.is_empty() {
                let at = self.state.now;
                let object = Arc::new(object);
                self.state.dead.insert(object.key, DeadObject { object, at });
                continue;
            }
            report.adopted += 1;
            report.adopted_spans = report.adopted_spans.saturating_add(object.spans());
            self.state.insert_object(object);
        }
        report.left = self.listing.found.len().saturating_sub(adopted.len()) as u64;
    }

    /// Gives every shard of the map a log: the latest there is a trace of, behind what is in objects.
    fn open(&mut self, logs: &Logs<'_>, report: &mut Report) {
        let shards = self.state.generations.iter().flat_map(|generation| generation.map.shards());
        let shards: BTreeSet<ShardId> = shards.map(|shard| shard.shard).collect();
        for shard in shards {
            let before = self.state.shards.get(&shard).cloned();
            let of_shard = logs.range((shard, Incarnation(0))..=(shard, Incarnation(u64::MAX)));
            let latest = of_shard.last().map(|((_, incarnation), log)| (*incarnation, log));
            let known = before.as_ref().map_or(Incarnation(0), |log| log.incarnation);
            let incarnation = latest.map_or(known, |(incarnation, _)| incarnation.max(known));
            let end = latest.filter(|(of, _)| *of == incarnation);
            let end = end.and_then(|(_, log)| log.covered.last()).map_or(0, |(_, end)| *end);
            let kept = before.as_ref().filter(|log| log.incarnation == incarnation);
            let watermark = match kept {
                Some(log) if log.watermark.index >= end => log.watermark,
                // The term is not in the bucket; the log that has the entry knows it.
                _ => LogPoint { index: end, ..LogPoint::default() },
            };
            report.shards.push(ShardReport {
                shard,
                incarnation,
                before: kept.map_or(0, |log| log.watermark.index),
                watermark: watermark.index,
            });
            let log = ShardLog {
                incarnation,
                watermark,
                replicas: Vec::new(),
                opened_at: kept.map_or(self.at, |log| log.opened_at),
                opened_by: kept.map_or(RequestId([0; 16]), |log| log.opened_by),
                placed: Vec::new(),
                lead: None,
                awaits: true,
                ahead: None,
            };
            self.state.shards.insert(shard, log);
        }
    }

    fn finish(mut self, mut report: Report) -> Result<Restored, Refusal> {
        let state = &mut self.state;
        let seen = self.listing.present.iter().filter_map(ObjectKey::incarnation);
        let open = state.shards.values().map(|log| log.incarnation);
        let last = seen.chain(open).map(|incarnation| incarnation.0).max().unwrap_or(0);
        state.last_incarnation = state.last_incarnation.max(last).saturating_add(ID_LEAP);
        state.settle_deletions();
        state.add_gaps(self.gaps);
        // Readers of the lost catalog take a new view.
        state.changes = ChangeLog::starting_after(state.revision);
        state.topology_revision = state.revision;
        report.revision = state.revision;
        report.gaps.clone_from(&state.gaps);
        Ok(Restored { state: self.state, report })
    }
}

/// Whether all that a flush held went into merges, if by way of objects that are gone by now.
fn is_merged(object: &ObjectMeta, verdict: &Verdict<'_>) -> bool {
    let Some(incarnation) = object.incarnation() else { return false };
    let covered = verdict.covered.get(&(object.shard(), incarnation));
    let range = (object.from, object.through.index);
    covered.is_some_and(|covered| ranges::hold(covered, range))
}

/// The job that made an object, if one did.
pub(crate) fn job_of(key: &ObjectKey) -> Option<JobId> {
    match key {
        ObjectKey::Compacted(key) => Some(key.job),
        ObjectKey::Flush(_) => None,
    }
}
