//! Commands about shard logs and the objects flushed from them.

use std::collections::BTreeSet;
use std::sync::Arc;

use clew_model::{TenantId, planted};
use clew_ring::ShardId;

use super::members::full;
use super::{ShardLog, State, TenantObjects};
use crate::changes::ChangeKind;
use crate::command::{CommitFlush, LiftQuarantine, OpenShardLog, QuarantineBlock};
use crate::ident::{Incarnation, LogPoint};
use crate::key::ObjectKey;
use crate::object::ObjectMeta;
use crate::outcome::{FlushOutcome, LiftOutcome, OpenOutcome, Outcome, QuarantineOutcome, Refusal};
use crate::view::{Quarantine, ShardView};

/// The most replicas a log starts with.
pub(super) const LOG_REPLICAS_MAX: usize = 16;

/// The longest reason of a quarantine, in bytes.
const REASON_BYTES_MAX: usize = 512;

impl State {
    pub(super) fn open_shard_log(&mut self, command: OpenShardLog) -> Result<Outcome, Refusal> {
        let OpenShardLog { shard, replicas, replaces, request } = command;
        if !self.generations.iter().any(|generation| generation.map.contains(shard)) {
            return Ok(Outcome::Open(OpenOutcome::UnknownShard));
        }
        let current = self.shards.get(&shard);
        if let Some(log) = current.filter(|log| log.opened_by == request) {
            let incarnation = log.incarnation;
            return Ok(Outcome::Open(OpenOutcome::AlreadyOpened { incarnation }));
        }
        let current = current.map(|log| log.incarnation);
        if current != replaces {
            return Ok(Outcome::Open(OpenOutcome::Conflict { current }));
        }
        let unique: BTreeSet<_> = replicas.iter().collect();
        if replicas.is_empty() || replicas.len() > LOG_REPLICAS_MAX || unique.len() < replicas.len()
        {
            let reason = format!("a log needs 1 to {LOG_REPLICAS_MAX} different replicas");
            return Err(Refusal::Invalid { reason });
        }
        if let Some(&replica) = replicas.iter().find(|id| !self.replica_disks.contains_key(id)) {
            return Err(Refusal::UnknownReplica { replica });
        }
        self.last_incarnation =
            self.last_incarnation.checked_add(1).ok_or_else(|| full("incarnations", u64::MAX))?;
        let incarnation = Incarnation(self.last_incarnation);
        let log = ShardLog {
            incarnation,
            watermark: LogPoint::default(),
            placed: replicas.clone(),
            lead: None,
            awaits: false,
            ahead: None,
            replicas,
            opened_at: self.now,
            opened_by: request,
        };
        self.note(ChangeKind::ShardOpened(ShardView::new(shard, &log)));
        self.shards.insert(shard, log);
        Ok(Outcome::Open(OpenOutcome::Opened { incarnation }))
    }

    pub(super) fn commit_flush(&mut self, command: CommitFlush) -> Result<Outcome, Refusal> {
        let CommitFlush { mut object } = command;
        object.validate().map_err(|error| Refusal::Invalid { reason: error.to_string() })?;
        let outcome = self.check_flush(&object)?;
        if outcome == FlushOutcome::Applied {
            if let Some(log) = self.shards.get_mut(&object.shard()) {
                log.watermark = object.through;
            }
            object.created_at = self.now;
            object.data_at = self.now;
            object.revision = self.revision;
            for block in &mut object.tenants {
                block.max_time = block.max_time.max(block.min_time);
            }
            let object = self.insert_object(object);
            self.note(ChangeKind::ObjectAdded(object));
        }
        Ok(Outcome::Flush(outcome))
    }

    /// What becomes of registering `object`, by the rules of the flush protocol.
    fn check_flush(&self, object: &ObjectMeta) -> Result<FlushOutcome, Refusal> {
        if self.objects.contains_key(&object.key) || self.dead.contains_key(&object.key) {
            return Ok(FlushOutcome::AlreadyApplied);
        }
        let Some(incarnation) = object.incarnation() else {
            return Err(Refusal::Invalid { reason: "not the key of a flush".to_owned() });
        };
        let Some(log) = self.shards.get(&object.shard()) else {
            return Ok(FlushOutcome::UnknownShard);
        };
        if incarnation.0 > self.last_incarnation {
            return Ok(FlushOutcome::UnknownShard);
        }
        if incarnation != log.incarnation {
            return Ok(FlushOutcome::IncarnationClosed { current: log.incarnation });
        }
        if planted("bug::no_compare_and_set") {
            return Ok(FlushOutcome::Applied);
        }
        let watermark = log.watermark;
        if object.from < watermark.index {
            return Ok(FlushOutcome::Superseded { watermark });
        }
        if object.from > watermark.index {
            return Ok(FlushOutcome::OutOfOrder { watermark });
        }
        if object.through.term < watermark.term {
            let reason = format!("the term falls below the watermark's: {}", object.through);
            return Err(Refusal::Invalid { reason });
        }
        Ok(FlushOutcome::Applied)
    }

    /// Adds an object to all indices, its tenant names shared with the objects already there.
    pub(crate) fn insert_object(&mut self, mut object: ObjectMeta) -> Arc<ObjectMeta> {
        for block in &mut object.tenants {
            if let Some((known, _)) = self.by_tenant.get_key_value(&block.tenant) {
                block.tenant = known.clone();
            }
        }
        object.tenants.shrink_to_fit();
        let object = Arc::new(object);
        index_object(&mut self.by_tenant, &object, |tenant| {
            !self.quarantined.contains_key(&(tenant.clone(), object.key))
        });
        self.objects.insert(object.key, Arc::clone(&object));
        object
    }

    pub(super) fn quarantine_block(
        &mut self,
        command: QuarantineBlock,
    ) -> Result<Outcome, Refusal> {
        let QuarantineBlock { object: key, tenant, mut reason } = command;
        let Some(block) = self.objects.get(&key).and_then(|object| object.block(&tenant)) else {
            return Ok(Outcome::Quarantine(QuarantineOutcome::UnknownBlock));
        };
        let (min_time, max_time) = (block.min_time, block.max_time);
        let place = (tenant.clone(), key);
        if self.quarantined.contains_key(&place) {
            return Ok(Outcome::Quarantine(QuarantineOutcome::AlreadyQuarantined));
        }
        while reason.len() > REASON_BYTES_MAX {
            reason.pop();
        }
        let at = self.now;
        let quarantine = Quarantine { object: key, tenant, reason, at, min_time, max_time };
        remove_block(&mut self.by_tenant, &quarantine.tenant, &key);
        self.quarantined.insert(place, quarantine.clone());
        self.note(ChangeKind::BlockQuarantined(quarantine));
        Ok(Outcome::Quarantine(QuarantineOutcome::Quarantined))
    }

    pub(super) fn lift_quarantine(&mut self, command: LiftQuarantine) -> Outcome {
        let LiftQuarantine { object: key, tenant } = command;
        let place = (tenant, key);
        let known = self.quarantined.remove(&place).and_then(|_| self.objects.get(&key).cloned());
        let Some(object) = known else { return Outcome::Lift(LiftOutcome::NotQuarantined) };
        let (tenant, _) = place;
        index_object(&mut self.by_tenant, &object, |whose| *whose == tenant);
        self.note(ChangeKind::QuarantineLifted { object, tenant });
        Outcome::Lift(LiftOutcome::Lifted)
    }

    /// The shard view of every open log.
    pub(crate) fn shard_views(&self) -> std::collections::BTreeMap<ShardId, ShardView> {
        self.shards.iter().map(|(shard, log)| (*shard, ShardView::new(*shard, log))).collect()
    }
}

/// Lists `object` under each of its tenants that `readable` lets through.
pub(crate) fn index_object(
    index: &mut TenantObjects,
    object: &Arc<ObjectMeta>,
    readable: impl Fn(&TenantId) -> bool,
) {
    for tenant in object.tenants.iter().map(|block| &block.tenant) {
        if readable(tenant) {
            let objects = index.entry(tenant.clone()).or_default();
            objects.insert(object.key, Arc::clone(object));
        }
    }
}

/// Takes the block of `tenant` in object `key` out of the index.
pub(crate) fn remove_block(index: &mut TenantObjects, tenant: &TenantId, key: &ObjectKey) {
    if let Some(objects) = index.get_mut(tenant) {
        objects.remove(key);
        if objects.is_empty() {
            index.remove(tenant);
        }
    }
}
