//! Commands about compactions and dead objects.

use std::collections::BTreeSet;
use std::sync::Arc;

use clew_model::{TenantId, planted};
use clew_ring::ShardId;

use super::members::full;
use super::{DeadObject, Job, State, Strikes, remove_block};
use crate::changes::ChangeKind;
use crate::command::{
    AbandonJob, BeginJob, CommitJob, ConfirmDeleted, DropBlocks, RenewJob, Striking, Unpark,
};
use crate::compaction::{JOB_INPUTS_MAX, LEVEL_MAX, STRIKES_MAX, STRIKES_OF_SILENCE};
use crate::ident::JobId;
use crate::key::ObjectKey;
use crate::object::ObjectMeta;
use crate::outcome::{JobOutcome, Outcome, Refusal};

/// How many ended jobs are remembered, for workers that ask again.
const FINISHED_MAX: usize = 1_024;

/// The most jobs at a time.
const JOBS_MAX: usize = 16_384;

/// The longest name of a worker and the longest reason of a strike, in bytes.
const TEXT_BYTES_MAX: usize = 512;

impl State {
    pub(super) fn begin_job(&mut self, command: BeginJob) -> Result<Outcome, Refusal> {
        let BeginJob { mut inputs, level, worker, request, expires_at } = command;
        if let Some(job) = self.jobs.values().find(|job| job.request == request) {
            return Ok(Outcome::Job(JobOutcome::Begun { job: job.job }));
        }
        inputs.sort_unstable();
        let unique = inputs.windows(2).all(|pair| pair[0] != pair[1]);
        let Some(shard) = inputs.first().map(ObjectKey::shard) else {
            return Err(invalid("a job needs inputs"));
        };
        if !unique || inputs.len() > JOB_INPUTS_MAX {
            return Err(invalid(format!("a job has 1 to {JOB_INPUTS_MAX} different inputs")));
        }
        if level == 0 || level > LEVEL_MAX {
            return Err(invalid(format!("the level must be from 1 to {LEVEL_MAX}: {level}")));
        }
        if inputs.iter().any(|key| key.shard() != shard) {
            return Err(invalid("all inputs must be of one shard"));
        }
        let conflict = Ok(Outcome::Job(JobOutcome::Superseded));
        if inputs.iter().any(|key| !self.objects.contains_key(key) || self.is_parked(key)) {
            return conflict;
        }
        let holders: BTreeSet<JobId> =
            inputs.iter().filter_map(|key| self.busy.get(key)).copied().collect();
        let is_over = |job: &JobId| self.jobs.get(job).is_none_or(|job| self.is_over(job));
        if !holders.iter().all(is_over) {
            return conflict;
        }
        if self.jobs.len() >= JOBS_MAX {
            return Err(full("compaction jobs", JOBS_MAX as u64));
        }
        for job in holders {
            self.give_up_silent(job);
        }
        let job = JobId(self.revision);
        self.busy.extend(inputs.iter().map(|key| (*key, job)));
        let worker = cut(worker);
        self.jobs.insert(job, Job { job, worker, request, shard, level, inputs, expires_at });
        Ok(Outcome::Job(JobOutcome::Begun { job }))
    }

    /// Whether the lease of a job has ended.
    pub(crate) fn is_over(&self, job: &Job) -> bool {
        job.expires_at < self.now
    }

    /// Whether compactions leave the object alone.
    pub(crate) fn is_parked(&self, key: &ObjectKey) -> bool {
        self.strikes.get(key).is_some_and(Strikes::is_parked)
    }

    /// Ends a job whose worker was not heard of any more.
    fn give_up_silent(&mut self, job: JobId) {
        let Some(job) = self.end_job(job) else { return };
        for key in job.inputs {
            let reason = format!("a compaction by {} ended without a word", job.worker);
            self.strike(key, STRIKES_OF_SILENCE, reason);
        }
    }

    fn end_job(&mut self, job: JobId) -> Option<Job> {
        let job = self.jobs.remove(&job)?;
        for key in &job.inputs {
            self.busy.remove(key);
        }
        Some(job)
    }

    fn strike(&mut self, key: ObjectKey, count: u32, reason: String) {
        if !self.objects.contains_key(&key) {
            return;
        }
        let before = self.strikes.get(&key).map_or(0, |strikes| strikes.count);
        let count = before.saturating_add(count).min(STRIKES_MAX);
        self.strikes.insert(key, Strikes { count, reason: cut(reason), at: self.now });
    }

    pub(super) fn renew_job(&mut self, command: &RenewJob) -> Outcome {
        let Some(job) = self.jobs.get_mut(&command.job) else {
            return Outcome::Job(match planted("bug::commit_without_lease") {
                true => JobOutcome::Renewed,
                false => JobOutcome::Superseded,
            });
        };
        job.expires_at = job.expires_at.max(command.expires_at);
        Outcome::Job(JobOutcome::Renewed)
    }

    pub(super) fn commit_job(&mut self, command: CommitJob) -> Result<Outcome, Refusal> {
        let CommitJob { job: id, outputs, kept, removed } = command;
        let Some(job) = self.jobs.get(&id) else {
            if planted("bug::commit_without_lease") && !self.finished.contains(&id) {
                return Ok(self.commit_late(id, outputs));
            }
            return Ok(Outcome::Job(match self.finished.contains(&id) {
                true => JobOutcome::Committed,
                false => JobOutcome::Superseded,
            }));
        };
        self.check_outputs(job, &outputs, &kept)?;
        let readable = |key: &ObjectKey| {
            self.objects.get(key).is_some_and(|object| !self.has_quarantined_block(object))
        };
        if !job.inputs.iter().all(readable) {
            self.end_job(id);
            return Ok(Outcome::Job(JobOutcome::Superseded));
        }
        let inputs = job.inputs.clone();
        let data_at = inputs.iter().filter_map(|key| self.objects.get(key)).map(|o| o.data_at);
        let data_at = data_at.max().unwrap_or_default();
        self.end_job(id);
        let mut gone = Vec::new();
        let mut added = Vec::new();
        for key in inputs {
            self.strikes.remove(&key);
            if !kept.contains(&key) {
                self.kill(&key);
                gone.push(key);
            } else if let Some(object) = self.objects.get(&key).cloned() {
                let clean = ObjectMeta { revision: id.0, ..ObjectMeta::clone(&object) };
                added.push(self.replace(clean));
            }
        }
        for mut object in outputs {
            object.created_at = self.now;
            object.data_at = data_at;
            object.revision = id.0;
            // Who was removed while the job ran must not come back.
            object.tenants.retain(|block| !self.was_removed_since(&block.tenant, id.0));
            for block in &mut object.tenants {
                block.max_time = block.max_time.max(block.min_time);
            }
            if object.tenants.is_empty() {
                let object = Arc::new(object);
                self.dead.insert(object.key, DeadObject { object, at: self.now });
            } else {
                added.push(self.insert_object(object));
            }
        }
        self.note(ChangeKind::ObjectsReplaced { gone, added });
        self.count_removed(&removed);
        self.finished.push_back(id);
        while self.finished.len() > FINISHED_MAX {
            self.finished.pop_front();
        }
        self.settle_deletions();
        Ok(Outcome::Job(JobOutcome::Committed))
    }

    /// A planted defect: what a worker made is taken whoever has its job by now.
    fn commit_late(&mut self, job: JobId, outputs: Vec<ObjectMeta>) -> Outcome {
        let (created_at, revision) = (self.now, job.0);
        let live = |object| ObjectMeta { created_at, data_at: created_at, revision, ..object };
        let added = outputs.into_iter().map(|object| self.insert_object(live(object))).collect();
        self.note(ChangeKind::ObjectsReplaced { gone: Vec::new(), added });
        self.finished.push_back(job);
        Outcome::Job(JobOutcome::Committed)
    }

    /// Whether what a worker wants to register can have come of its job.
    fn check_outputs(
        &self,
        job: &Job,
        outputs: &[ObjectMeta],
        kept: &[ObjectKey],
    ) -> Result<(), Refusal> {
        let mut keys = BTreeSet::new();
        for object in outputs {
            object.validate().map_err(|error| invalid(error.to_string()))?;
            let ObjectKey::Compacted(key) = object.key else {
                return Err(invalid("a compaction cannot register a flush"));
            };
            if key.job != job.job || key.shard != job.shard || object.level != job.level {
                return Err(invalid(format!("the object is of another job: {}", object.key)));
            }
            if !keys.insert(object.key) || object.tenants.is_empty() {
                return Err(invalid("an object is listed twice or holds nothing"));
            }
        }
        if !kept.iter().all(|key| job.inputs.contains(key)) {
            return Err(invalid("an object is kept that is no input"));
        }
        let spans = |keys: &mut dyn Iterator<Item = u64>| keys.fold(0, u64::saturating_add);
        let made = spans(&mut outputs.iter().map(ObjectMeta::spans));
        let replaced = job.inputs.iter().filter(|key| !kept.contains(key));
        let had = spans(&mut replaced.filter_map(|key| self.objects.get(key)).map(|o| o.spans()));
        // The inputs may have lost blocks meanwhile, and then the job fails for another reason.
        let whole = job.inputs.iter().all(|key| self.objects.contains_key(key));
        if whole && made > had && !self.has_recent_removal(job.job.0) {
            return Err(invalid(format!("{made} spans cannot come of {had}")));
        }
        Ok(())
    }

    /// Whether any tenant lost blocks, by a removal or its retention, after that revision.
    fn has_recent_removal(&self, revision: u64) -> bool {
        self.dropped_at > revision
    }

    pub(super) fn abandon_job(&mut self, command: AbandonJob) -> Outcome {
        let Some(job) = self.end_job(command.job) else {
            return Outcome::Job(JobOutcome::Superseded);
        };
        for Striking { object, count, reason } in command.strikes {
            if job.inputs.contains(&object) {
                self.strike(object, count, reason);
            }
        }
        Outcome::Job(JobOutcome::Abandoned)
    }

    pub(super) fn unpark(&mut self, command: &Unpark) -> Outcome {
        let cleared = command.objects.iter().filter(|key| self.strikes.remove(key).is_some());
        Outcome::Unparked(cleared.count() as u64)
    }

    pub(super) fn drop_blocks(&mut self, command: DropBlocks) -> Outcome {
        let mut changed = BTreeSet::new();
        for key in command.objects {
            if self.kill(&key) {
                changed.insert(key);
            }
        }
        for (key, tenant) in command.blocks {
            if self.drop_block(&key, &tenant) {
                changed.insert(key);
            }
        }
        self.note_replaced(changed);
        self.settle_deletions();
        Outcome::Dropped
    }

    /// Tells readers what became of these objects.
    pub(super) fn note_replaced(&mut self, keys: BTreeSet<ObjectKey>) {
        if keys.is_empty() {
            return;
        }
        self.dropped_at = self.revision;
        let added = keys.iter().filter_map(|key| self.objects.get(key)).cloned().collect();
        let gone = keys.into_iter().filter(|key| !self.objects.contains_key(key)).collect();
        self.note(ChangeKind::ObjectsReplaced { gone, added });
    }

    /// Takes a tenant's block out of an object; the object dies with its last block.
    pub(super) fn drop_block(&mut self, key: &ObjectKey, tenant: &TenantId) -> bool {
        let Some(object) = self.objects.get(key) else { return false };
        if object.block(tenant).is_none() {
            return false;
        }
        if object.tenants.len() == 1 {
            return self.kill(key);
        }
        let mut rest = ObjectMeta::clone(object);
        rest.tenants.retain(|block| block.tenant != *tenant);
        remove_block(&mut self.by_tenant, tenant, key);
        self.quarantined.remove(&(tenant.clone(), *key));
        self.replace(rest);
        true
    }

    /// Puts a changed description in the place of an object's old one.
    fn replace(&mut self, object: ObjectMeta) -> Arc<ObjectMeta> {
        self.insert_object(object)
    }

    /// Makes an object dead: no query that begins from now on reads it.
    pub(crate) fn kill(&mut self, key: &ObjectKey) -> bool {
        let Some(object) = self.objects.remove(key) else { return false };
        for block in &object.tenants {
            remove_block(&mut self.by_tenant, &block.tenant, key);
            self.quarantined.remove(&(block.tenant.clone(), *key));
        }
        self.strikes.remove(key);
        // A job that lost an input has no use any more, and what it made is dead.
        if let Some(job) = self.busy.get(key).copied() {
            self.end_job(job);
        }
        self.dead.insert(*key, DeadObject { object, at: self.now });
        true
    }

    pub(super) fn confirm_deleted(&mut self, command: &ConfirmDeleted) -> Outcome {
        for key in &command.objects {
            self.dead.remove(key);
        }
        self.settle_deletions();
        Outcome::Dropped
    }

    /// Whether a block of the object is known to be damaged.
    pub(crate) fn has_quarantined_block(&self, object: &ObjectMeta) -> bool {
        !self.quarantined.is_empty()
            && object
                .tenants
                .iter()
                .any(|block| self.quarantined.contains_key(&(block.tenant.clone(), object.key)))
    }

    /// The shard of the job, if it runs.
    pub fn job_shard(&self, job: JobId) -> Option<ShardId> {
        Some(self.jobs.get(&job)?.shard)
    }
}

fn invalid(reason: impl Into<String>) -> Refusal {
    Refusal::Invalid { reason: reason.into() }
}

fn cut(mut text: String) -> String {
    while text.len() > TEXT_BYTES_MAX {
        text.pop();
    }
    text
}
