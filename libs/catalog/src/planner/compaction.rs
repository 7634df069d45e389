//! What to compact, what to drop and what to delete from the bucket, worked out from the catalog's
//! state alone. Nothing here changes anything: the leader proposes what comes out of it.
//!
//! Objects of one shard are merged level by level, always those that lie near each other in time,
//! so that a span is written again as often as there are levels, and what is merged also ends
//! together. A merge waits until there are enough objects, or until no more can come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clew_model::{TenantId, UnixNanos};
use clew_ring::ShardId;

use crate::command::DropBlocks;
use crate::compaction::{JOB_INPUTS_MAX, JobSpec, LEVEL_MAX, Retention, TenantTerms};
use crate::deletion::Deletion;
use crate::ident::JobId;
use crate::key::ObjectKey;
use crate::object::{ObjectMeta, TenantBlock};
use crate::state::State;

/// How many objects and blocks one command drops.
const DROPS_MAX: usize = 4_096;

/// How many neighbours of a job are looked at to clear split marks.
const NEIGHBOURS_MAX: usize = 512;

/// How compactions are planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionOptions {
    /// So many objects are merged as soon as they are there.
    pub fan_in: usize,
    /// The most bytes of all inputs of a job. A merged object larger than its share of that, by
    /// `fan_in`, is not merged again.
    pub input_bytes_max: u64,
    /// How often a span is merged at most.
    pub levels: u32,
    /// Objects are merged if their youngest flushes lie in the same stretch of this length.
    pub window: Duration,
    /// How long after the end of a stretch nothing more is expected to come.
    pub settle: Duration,
    /// Past this size an object of one tenant is merged with others of the tenant alone.
    pub own_object_bytes: u64,
    /// How long spans are kept if the tenant has nothing else.
    pub retention: Retention,
    /// How long after it was asked for a deletion is carried out in the bucket.
    pub deletion_delay: Duration,
    /// How long the bytes of dead objects stay.
    pub grace: Duration,
    /// How far apart in time fragments of a trace may lie.
    pub horizon: Duration,
}

/// A job that could begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedJob {
    /// What it would merge, ascending.
    pub inputs: Vec<ObjectKey>,
    /// The level of what it would make.
    pub level: u32,
}

/// Objects that may be merged with each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    shard: ShardId,
    level: u32,
    /// The number of the stretch of time.
    window: u64,
    class: Class,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Flushes hold whatever came.
    Flushed,
    /// Tenants whose spans are kept equally long, zero for ever.
    Packed(Duration),
    /// One tenant alone.
    Own(TenantId),
}

impl State {
    /// The job that should begin next, if there is one.
    pub fn plan_job(&self, options: &CompactionOptions, now: UnixNanos) -> Option<PlannedJob> {
        let mut groups: BTreeMap<Group, Vec<&ObjectMeta>> = BTreeMap::new();
        for object in self.objects.values().filter(|object| self.is_free(object, now)) {
            groups.entry(self.group_of(object, options)).or_default().push(object);
        }
        for objects in groups.values_mut() {
            objects.sort_unstable_by_key(|object| (object.data_at, object.key));
        }
        self.plan_cleaning(&groups, options, now).or_else(|| plan_merge(&groups, options, now))
    }

    /// Whether a job could take the object.
    fn is_free(&self, object: &ObjectMeta, now: UnixNanos) -> bool {
        let holder = self.busy.get(&object.key).and_then(|job| self.jobs.get(job));
        holder.is_none_or(|job| job.expires_at < now)
            && !self.is_parked(&object.key)
            && !self.has_quarantined_block(object)
    }

    fn group_of(&self, object: &ObjectMeta, options: &CompactionOptions) -> Group {
        let window = options.window.max(Duration::from_secs(1));
        let class = match object.tenants.as_slice() {
            _ if object.level == 0 => Class::Flushed,
            [only] if object.size >= options.own_object_bytes => Class::Own(only.tenant.clone()),
            [first, ..] => Class::Packed(self.class_of(&first.tenant, options)),
            [] => Class::Packed(Duration::ZERO),
        };
        Group {
            shard: object.shard(),
            level: object.level,
            window: object.data_at.0 / nanos(window),
            class,
        }
    }

    fn class_of(&self, tenant: &TenantId, options: &CompactionOptions) -> Duration {
        self.settings(tenant).retention(options.retention).age.unwrap_or_default()
    }

    /// Objects with something in them that has to go.
    fn plan_cleaning(
        &self,
        groups: &BTreeMap<Group, Vec<&ObjectMeta>>,
        options: &CompactionOptions,
        now: UnixNanos,
    ) -> Option<PlannedJob> {
        let due: Vec<&Deletion> = self
            .deletions
            .values()
            .filter(|known| {
                known.done_at.is_none() && is_past(known.at, options.deletion_delay, now)
            })
            .map(Arc::as_ref)
            .collect();
        let is_due = |object: &&&ObjectMeta| {
            let concerns = |deletion: &&Deletion| {
                deletion.concerns(object.revision) && object.block(&deletion.tenant).is_some()
            };
            due.iter().any(concerns)
                || object.dead_bytes() > 0 && is_past(object.data_at, options.deletion_delay, now)
        };
        groups.iter().find_map(|(group, objects)| {
            let dirty: Vec<&ObjectMeta> = objects.iter().filter(is_due).copied().collect();
            let inputs = first_fitting(&dirty, options);
            let level = group.level.max(1);
            (!inputs.is_empty()).then_some(PlannedJob { inputs, level })
        })
    }

    /// What the retention of each tenant says must go now.
    pub fn plan_drops(&self, options: &CompactionOptions, now: UnixNanos) -> Option<DropBlocks> {
        let over = self.over_their_bytes(options);
        let mut drops = DropBlocks { objects: Vec::new(), blocks: Vec::new() };
        for object in self.objects.values() {
            if drops.objects.len() + drops.blocks.len() >= DROPS_MAX {
                break;
            }
            let expired = |block: &&TenantBlock| {
                let retention = self.settings(&block.tenant).retention(options.retention);
                let place = (object.key, block.tenant.clone());
                retention.age.is_some_and(|age| is_past(object.data_at, age, now))
                    || over.contains(&place)
            };
            let gone: Vec<&TenantBlock> = object.tenants.iter().filter(expired).collect();
            if gone.len() == object.tenants.len() {
                drops.objects.push(object.key);
            } else {
                let gone = gone.into_iter().map(|block| (object.key, block.tenant.clone()));
                drops.blocks.extend(gone);
            }
        }
        (!drops.objects.is_empty() || !drops.blocks.is_empty()).then_some(drops)
    }

    /// The oldest blocks of tenants that have more bytes than they may.
    fn over_their_bytes(&self, options: &CompactionOptions) -> BTreeSet<(ObjectKey, TenantId)> {
        let mut over = BTreeSet::new();
        for (tenant, objects) in &self.by_tenant {
            let Some(limit) = self.settings(tenant).retention(options.retention).bytes else {
                continue;
            };
            let blocks =
                objects.values().filter_map(|object| Some((object, object.block(tenant)?)));
            let mut blocks: Vec<_> = blocks.collect();
            blocks.sort_by_key(|(object, _)| (std::cmp::Reverse(object.data_at), object.key));
            let mut bytes = 0u64;
            for (object, block) in blocks {
                bytes = bytes.saturating_add(block.length);
                if bytes > limit {
                    over.insert((object.key, tenant.clone()));
                }
            }
        }
        over
    }

    /// Jobs whose workers were not heard of any more.
    pub fn silent_jobs(&self, now: UnixNanos) -> Vec<JobId> {
        self.jobs.values().filter(|job| job.expires_at < now).map(|job| job.job).collect()
    }

    /// Dead objects whose bytes nobody reads any more.
    pub fn garbage(&self, grace: Duration, now: UnixNanos, max: usize) -> Vec<ObjectKey> {
        let due = self.dead.iter().filter(|(_, dead)| is_past(dead.at, grace, now));
        due.map(|(key, _)| *key).take(max).collect()
    }

    /// What whoever does the job has to know; nothing if it has ended.
    pub fn job_spec(&self, job: JobId, options: &CompactionOptions) -> Option<JobSpec> {
        let job = self.jobs.get(&job)?;
        let inputs: Vec<Arc<ObjectMeta>> =
            job.inputs.iter().map(|key| self.objects.get(key).cloned()).collect::<Option<_>>()?;
        let blocks = || inputs.iter().flat_map(|object| &object.tenants);
        let tenants: BTreeSet<&TenantId> = blocks().map(|block| &block.tenant).collect();
        let concerns = |deletion: &&Arc<Deletion>| {
            deletion.id.0 < job.job.0
                && inputs.iter().any(|object| {
                    deletion.concerns(object.revision) && object.block(&deletion.tenant).is_some()
                })
        };
        let terms = |tenant: &&TenantId| {
            let age = self.settings(tenant).retention(options.retention).age;
            TenantTerms { tenant: (*tenant).clone(), class: age.unwrap_or_default() }
        };
        Some(JobSpec {
            job: job.job,
            shard: job.shard,
            level: job.level,
            expires_at: job.expires_at,
            deletions: self.deletions.values().filter(concerns).cloned().collect(),
            tenants: tenants.iter().map(terms).collect(),
            neighbours: self.neighbours(job.shard, &inputs, options),
            inputs,
        })
    }

    /// The other objects of the shard that may hold spans of traces that the inputs mark as split.
    fn neighbours(
        &self,
        shard: ShardId,
        inputs: &[Arc<ObjectMeta>],
        options: &CompactionOptions,
    ) -> Option<Vec<Arc<ObjectMeta>>> {
        // Under an earlier generation a trace may have been at home elsewhere.
        if self.generations.len() != 1 {
            return None;
        }
        let mut reach: BTreeMap<&TenantId, (UnixNanos, UnixNanos)> = BTreeMap::new();
        for block in inputs.iter().flat_map(|object| &object.tenants).filter(|b| b.splits > 0) {
            let (low, high) =
                (before(block.min_time, options.horizon), after(block.max_time, options.horizon));
            let known = reach.entry(&block.tenant).or_insert((low, high));
            *known = (known.0.min(low), known.1.max(high));
        }
        let mut found = BTreeMap::new();
        for (tenant, (low, high)) in reach {
            if self.quarantined.keys().any(|(whose, _)| whose == tenant) {
                return None;
            }
            for object in self.by_tenant.get(tenant).into_iter().flat_map(|o| o.values()) {
                let is_input = inputs.iter().any(|input| input.key == object.key);
                let Some(block) = object.block(tenant) else { continue };
                let is_near = block.min_time <= high && block.max_time >= low;
                if object.shard() == shard && is_near && !is_input {
                    found.insert(object.key, Arc::clone(object));
                }
            }
            if found.len() > NEIGHBOURS_MAX {
                return None;
            }
        }
        Some(found.into_values().collect())
    }
}

fn plan_merge(
    groups: &BTreeMap<Group, Vec<&ObjectMeta>>,
    options: &CompactionOptions,
    now: UnixNanos,
) -> Option<PlannedJob> {
    let window = nanos(options.window.max(Duration::from_secs(1)));
    let levels = options.levels.clamp(1, LEVEL_MAX);
    let plans = groups.iter().filter_map(|(group, objects)| {
        if group.level >= levels {
            return None;
        }
        // Merging few large objects costs as much as it did before and gains little.
        let share = match group.level {
            0 => 2,
            _ => u64::try_from(options.fan_in).unwrap_or(u64::MAX).max(2),
        };
        let small = |object: &&&ObjectMeta| object.size <= options.input_bytes_max / share;
        let small: Vec<&ObjectMeta> = objects.iter().filter(small).copied().collect();
        let ends = UnixNanos(group.window.saturating_add(1).saturating_mul(window));
        // While lower levels of the stretch still come up, this one is not complete.
        let lower = groups.keys().any(|other| {
            other.shard == group.shard && other.window == group.window && other.level < group.level
        });
        let is_closed = is_past(ends, options.settle, now) && !lower;
        let inputs = first_fitting(&small, options);
        let is_enough = inputs.len() >= options.fan_in || is_closed && inputs.len() >= 2;
        let bytes: u64 = small.iter().map(|object| object.size).sum();
        let is_full = inputs.len() >= 2 && bytes > options.input_bytes_max;
        let level = group.level + 1;
        let oldest = small.first().map_or(now, |object| object.data_at);
        (is_enough || is_full).then_some((oldest, PlannedJob { inputs, level }))
    });
    // The oldest first, so that a busy shard does not keep the others waiting.
    plans.min_by_key(|(oldest, _)| *oldest).map(|(_, plan)| plan)
}

/// The first objects that one job can take, ascending.
fn first_fitting(objects: &[&ObjectMeta], options: &CompactionOptions) -> Vec<ObjectKey> {
    let most = options.fan_in.clamp(1, JOB_INPUTS_MAX);
    let mut bytes = 0u64;
    let fitting = objects.iter().take(most).enumerate().take_while(|(at, object)| {
        bytes = bytes.saturating_add(object.size);
        *at == 0 || bytes <= options.input_bytes_max
    });
    let mut keys: Vec<ObjectKey> = fitting.map(|(_, object)| object.key).collect();
    keys.sort_unstable();
    keys
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn before(time: UnixNanos, by: Duration) -> UnixNanos {
    UnixNanos(time.0.saturating_sub(nanos(by)))
}

fn after(time: UnixNanos, by: Duration) -> UnixNanos {
    UnixNanos(time.0.saturating_add(nanos(by)))
}

/// Whether `since` lies at least `by` back.
fn is_past(since: UnixNanos, by: Duration, now: UnixNanos) -> bool {
    now >= after(since, by)
}
