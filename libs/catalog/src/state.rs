//! The catalog itself: what a log of commands adds up to.
//!
//! [`State::apply`] depends on the state and the command alone, so every replica that has applied
//! the same log holds the same state, byte for byte in [`State::encode`].

mod compaction;
mod deletions;
mod features;
mod gaps;
mod logs;
mod members;
mod places;

pub(crate) use logs::{index_object, remove_block};

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use clew_model::{TenantId, UnixNanos};
use clew_ring::{MapGeneration, NodeId, ShardId, ShardMap};

use crate::changes::{Change, ChangeKind, ChangeLog};
use crate::command::Command;
use crate::compaction::{DeadObject, Job, Strikes, TenantSettings};
use crate::deletion::Deletion;
use crate::feature::FeatureLevel;
use crate::gap::Gap;
use crate::ident::{
    ClusterId, DeletionId, DiskId, Incarnation, JobId, LogPoint, ReplicaId, RequestId,
};
use crate::key::ObjectKey;
use crate::member::NodeInfo;
use crate::object::ObjectMeta;
use crate::outcome::{Outcome, Refusal};
use crate::topology::{ShardLead, ShardPlace, Topology};
use crate::view::Quarantine;

/// The blocks of each tenant, by object.
pub(crate) type TenantObjects = BTreeMap<TenantId, BTreeMap<ObjectKey, Arc<ObjectMeta>>>;

/// A generation of the shard map and when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its shards.
    pub map: Arc<MapGeneration>,
    /// When it was created.
    pub created_at: UnixNanos,
}

/// The open log of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardLog {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Everything up to and with this entry is in registered objects.
    pub watermark: LogPoint,
    /// The replicas it started with.
    pub replicas: Vec<ReplicaId>,
    /// When it was opened.
    pub opened_at: UnixNanos,
    /// The request that opened it.
    pub opened_by: RequestId,
    /// The replicas that shall hold it now, the one that shall lead first.
    pub placed: Vec<ReplicaId>,
    /// Who leads it and who its members are, as last heard; nothing before it began.
    pub lead: Option<ShardLead>,
    /// Nobody has led it since the catalog was restored: where it is is not known.
    pub awaits: bool,
    /// The log was purged up to there, beyond the watermark: the catalog is an old backup. The shard
    /// stands still until an operator decides.
    pub ahead: Option<LogPoint>,
}

/// A replica id and where its disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// The replica.
    pub replica: ReplicaId,
    /// The disk it belongs to for ever.
    pub disk: DiskId,
    /// The node the disk was last attached to.
    pub node: NodeId,
}

/// What may still become of an object found in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// The catalog refers to it, be it as dead.
    Registered,
    /// It may be registered later, or this catalog is older than the object.
    MayRegister,
    /// No command can ever register it: it may be deleted.
    Dead,
}

/// The catalog's state. Grows by [`State::apply`] only.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub(crate) revision: u64,
    pub(crate) now: UnixNanos,
    pub(crate) cluster: Option<ClusterId>,
    /// The catalog's own incarnation: 1 when created, higher after each restore of a backup.
    pub(crate) incarnation: u64,
    /// The level of features that may be used.
    pub(crate) feature_level: FeatureLevel,
    pub(crate) generations: Vec<Generation>,
    pub(crate) nodes: BTreeMap<NodeId, NodeInfo>,
    pub(crate) replicas: BTreeMap<DiskId, ReplicaInfo>,
    pub(crate) replica_disks: BTreeMap<ReplicaId, DiskId>,
    pub(crate) last_incarnation: u64,
    pub(crate) shards: BTreeMap<ShardId, ShardLog>,
    pub(crate) objects: BTreeMap<ObjectKey, Arc<ObjectMeta>>,
    pub(crate) quarantined: BTreeMap<(TenantId, ObjectKey), Quarantine>,
    /// Compactions under way.
    pub(crate) jobs: BTreeMap<JobId, Job>,
    /// The last jobs that were committed, oldest first.
    pub(crate) finished: VecDeque<JobId>,
    /// Objects whose bytes still have to go.
    pub(crate) dead: BTreeMap<ObjectKey, DeadObject>,
    /// What compactions hold against live objects.
    pub(crate) strikes: BTreeMap<ObjectKey, Strikes>,
    /// What tenants have of their own.
    pub(crate) settings: BTreeMap<TenantId, TenantSettings>,
    /// Deletions under way, and the record of those that are done.
    pub(crate) deletions: BTreeMap<DeletionId, Arc<Deletion>>,
    /// The last revision at which objects or blocks were dropped.
    pub(crate) dropped_at: u64,
    /// Replica ids issued from now on are above it: below it may be some that were issued after the
    /// backup that the catalog was restored from.
    pub(crate) replica_floor: u64,
    /// What is gone, sorted.
    pub(crate) gaps: Vec<Gap>,
    /// The history of the shard map is not known: traces may lie in shards that no generation names.
    pub(crate) map_guessed: bool,
    /// Derived: the job that holds an object.
    pub(crate) busy: BTreeMap<ObjectKey, JobId>,
    /// Derived: what queries of a tenant read, without its quarantined blocks.
    pub(crate) by_tenant: TenantObjects,
    /// Derived: the latest changes, for readers that follow.
    pub(crate) changes: ChangeLog,
    /// Derived: the last revision that may have changed the topology.
    pub(crate) topology_revision: u64,
}

impl PartialEq for State {
    /// Whether both hold the same catalog; how far back their change lists reach does not count.
    fn eq(&self, other: &State) -> bool {
        self.encode() == other.encode()
    }
}

impl Eq for State {}

impl State {
    /// The state before the first command.
    pub fn new() -> State {
        State::default()
    }

    /// Applies the command at log index `index`, which becomes the revision whatever the outcome.
    ///
    /// Never panics: bytes that are no known command are an [`Outcome::Refused`]. An index that is
    /// not above the revision was applied before and changes nothing.
    pub fn apply(&mut self, index: u64, command: &[u8]) -> Outcome {
        if index <= self.revision {
            return Outcome::Refused(Refusal::Replayed { revision: self.revision });
        }
        self.revision = index;
        let (at, command) = match Command::decode(command) {
            Ok(decoded) => decoded,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        if let Err(refusal) = self.check_level(&command) {
            return Outcome::Refused(refusal);
        }
        self.now = self.now.max(at);
        let moves = command.moves_topology();
        if self.cluster.is_none() && !matches!(command, Command::CreateCluster(_)) {
            return Outcome::Refused(Refusal::NoCluster);
        }
        let result = match command {
            Command::CreateCluster(command) => self.create_cluster(&command),
            Command::RegisterNode(command) => self.register_node(command),
            Command::IssueReplicaId(command) => self.issue_replica_id(command),
            Command::OpenShardLog(command) => self.open_shard_log(command),
            Command::CommitFlush(command) => self.commit_flush(command),
            Command::QuarantineBlock(command) => self.quarantine_block(command),
            Command::NoteLead(command) => self.note_lead(command),
            Command::PlaceShard(command) => self.place_shard(command),
            Command::SetNodeState(command) => self.set_node_state(command),
            Command::AddGeneration(command) => self.add_generation(&command),
            Command::BeginJob(command) => self.begin_job(command),
            Command::RenewJob(command) => Ok(self.renew_job(&command)),
            Command::CommitJob(command) => self.commit_job(command),
            Command::AbandonJob(command) => Ok(self.abandon_job(command)),
            Command::DropBlocks(command) => Ok(self.drop_blocks(command)),
            Command::ConfirmDeleted(command) => Ok(self.confirm_deleted(&command)),
            Command::DeleteTraces(command) => self.delete_traces(command),
            Command::RemoveTenant(command) => self.remove_tenant(command),
            Command::SetTenant(command) => self.set_tenant(command),
            Command::RaiseFeatureLevel(command) => Ok(self.raise_feature_level(&command)),
            Command::ForgetNode(command) => self.forget_node(&command),
            Command::ClaimLog(command) => self.claim_log(&command),
            Command::AcceptGap(command) => Ok(self.accept_gap(command)),
            Command::ForgetGaps(command) => Ok(self.forget_gaps(command)),
            Command::Unpark(command) => Ok(self.unpark(&command)),
            Command::LiftQuarantine(command) => Ok(self.lift_quarantine(command)),
        };
        if moves && result.is_ok() {
            self.topology_revision = self.revision;
        }
        result.unwrap_or_else(Outcome::Refused)
    }

    /// The last revision that may have changed what [`State::topology`] gives.
    pub fn topology_revision(&self) -> u64 {
        self.topology_revision
    }

    /// Nodes, shards and who leads them.
    pub fn topology(&self) -> Topology {
        let place = |(shard, log): (&ShardId, &ShardLog)| {
            let ShardLog { incarnation, replicas: first, placed, lead, awaits, .. } = log.clone();
            (*shard, ShardPlace { shard: *shard, incarnation, first, placed, lead, awaits })
        };
        Topology {
            revision: self.topology_revision,
            cluster: self.cluster,
            feature_level: self.feature_level,
            nodes: self.nodes.values().cloned().collect(),
            replicas: self.replicas.values().cloned().collect(),
            generations: self.generations.clone(),
            shards: self.shards.iter().map(place).collect(),
        }
    }

    /// The log index of the last command applied.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The latest time that any proposer has told.
    pub fn now(&self) -> UnixNanos {
        self.now
    }

    /// The cluster, once created.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// The catalog's own incarnation: 1 when created, higher after each restore of a backup.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The level of features that may be used.
    pub fn feature_level(&self) -> FeatureLevel {
        self.feature_level
    }

    /// The last incarnation of a shard's log that was issued; 0 before the first.
    pub fn last_incarnation(&self) -> Incarnation {
        Incarnation(self.last_incarnation)
    }

    /// The live map generations, ascending.
    pub fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// The live map generations as a shard map.
    pub fn shard_map(&self) -> ShardMap {
        map_of(&self.generations)
    }

    /// The nodes that ever registered, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    /// The replicas ever issued.
    pub fn replicas(&self) -> impl Iterator<Item = &ReplicaInfo> {
        self.replicas.values()
    }

    /// The open log of `shard`.
    pub fn shard_log(&self, shard: ShardId) -> Option<&ShardLog> {
        self.shards.get(&shard)
    }

    /// The open logs, by shard.
    pub fn shard_logs(&self) -> impl Iterator<Item = (ShardId, &ShardLog)> {
        self.shards.iter().map(|(shard, log)| (*shard, log))
    }

    /// The object of that key.
    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<ObjectMeta>> {
        self.objects.get(key)
    }

    /// All objects, by key.
    pub fn objects(&self) -> impl ExactSizeIterator<Item = &Arc<ObjectMeta>> {
        self.objects.values()
    }

    /// The flushed objects that hold exactly the entries in (`after`, `through`] of a shard's log,
    /// in order; nothing if either is not the border of a flush, or an object between was compacted.
    pub fn flushes(
        &self,
        shard: ShardId,
        incarnation: Incarnation,
        after: u64,
        through: u64,
    ) -> Option<Vec<Arc<ObjectMeta>>> {
        if after >= through {
            return (after == through).then(Vec::new);
        }
        let first = ObjectKey::flush(shard, incarnation, after.checked_add(1)?, 0);
        let last = ObjectKey::flush(shard, incarnation, through, u64::MAX);
        let mut border = after;
        let mut objects = Vec::new();
        for object in self.objects.range(first..=last).map(|(_, object)| object) {
            if object.from != border {
                return None;
            }
            border = object.through.index;
            objects.push(Arc::clone(object));
        }
        (border == through).then_some(objects)
    }

    /// The objects with spans of `shard` whose youngest flush was registered at `since` or later,
    /// oldest first; at most `max` of them, the latest. Flushes of the open log alone, and what they
    /// and others were compacted into.
    pub fn flushes_since(
        &self,
        shard: ShardId,
        incarnation: Incarnation,
        since: UnixNanos,
        max: usize,
    ) -> Vec<Arc<ObjectMeta>> {
        let first = ObjectKey::flush(shard, incarnation, 0, 0);
        let last = ObjectKey::flush(shard, incarnation, u64::MAX, u64::MAX);
        let latest = self.objects.range(first..=last).rev().map(|(_, object)| object);
        let flushed = latest.take_while(|object| object.data_at >= since);
        let (low, high) = (JobId(0), JobId(u64::MAX));
        let (low, high) =
            (ObjectKey::compacted(shard, low, 0), ObjectKey::compacted(shard, high, u64::MAX));
        let compacted = self.objects.range(low..=high).map(|(_, object)| object);
        let compacted = compacted.filter(|object| object.data_at >= since);
        let mut objects: Vec<_> = flushed.chain(compacted).cloned().collect();
        objects.sort_by_key(|object| (object.data_at, object.key));
        objects.split_off(objects.len().saturating_sub(max))
    }

    /// Dead objects, by key.
    pub fn dead(&self) -> impl ExactSizeIterator<Item = &DeadObject> {
        self.dead.values()
    }

    /// Compactions under way, by id.
    pub fn jobs(&self) -> impl ExactSizeIterator<Item = &Job> {
        self.jobs.values()
    }

    /// Deletions under way and done, oldest first.
    pub fn deletions(&self) -> impl DoubleEndedIterator<Item = &Arc<Deletion>> {
        self.deletions.values()
    }

    /// What compactions hold against live objects.
    pub fn strikes(&self) -> impl Iterator<Item = (&ObjectKey, &Strikes)> {
        self.strikes.iter()
    }

    /// The damaged blocks, by tenant, each with its object.
    pub fn quarantined(&self) -> impl Iterator<Item = (&Quarantine, &Arc<ObjectMeta>)> {
        let known = self.quarantined.values();
        known
            .filter_map(move |quarantine| Some((quarantine, self.objects.get(&quarantine.object)?)))
    }

    /// What a tenant has of its own.
    pub fn settings(&self, tenant: &TenantId) -> TenantSettings {
        self.settings.get(tenant).copied().unwrap_or_default()
    }

    /// Whether an object of that key shows that the bucket is ahead of this catalog, which then is
    /// an old backup: nothing in the bucket may be called dead by it.
    pub fn is_behind(&self, key: &ObjectKey) -> bool {
        match key {
            ObjectKey::Flush(flush) => flush.incarnation.0 > self.last_incarnation,
            ObjectKey::Compacted(compacted) => compacted.job.0 > self.revision,
        }
    }

    /// What may still become of an object of that key.
    ///
    /// Only sound if the object was seen in the bucket before this state was read, and if the
    /// catalog is no restored backup.
    pub fn liveness(&self, key: &ObjectKey) -> Liveness {
        if self.objects.contains_key(key) || self.dead.contains_key(key) {
            return Liveness::Registered;
        }
        let flush = match key {
            ObjectKey::Flush(flush) => flush,
            ObjectKey::Compacted(compacted) => {
                let runs = self.jobs.contains_key(&compacted.job);
                let is_later = compacted.job.0 > self.revision;
                return if runs || is_later { Liveness::MayRegister } else { Liveness::Dead };
            }
        };
        let open = self.shards.get(&flush.shard);
        let dead = match open {
            _ if flush.incarnation.0 > self.last_incarnation => false,
            Some(log) if log.incarnation == flush.incarnation => {
                flush.through <= log.watermark.index
            }
            Some(_) | None => true,
        };
        if dead { Liveness::Dead } else { Liveness::MayRegister }
    }

    /// What is gone, as far as the catalog can tell.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Why nothing in the bucket may be called dead for now, though the catalog does not know it: it
    /// was restored, and it is not settled yet what it lacks.
    pub fn unsettled(&self) -> Option<String> {
        let waits = self.shards.iter().find(|(_, log)| log.awaits || log.ahead.is_some());
        if let Some((shard, log)) = waits {
            let incarnation = log.incarnation;
            return Some(match log.ahead {
                Some(_) => format!("the log of shard {shard}, incarnation {incarnation}"),
                None => format!("whoever leads shard {shard} since the catalog was restored"),
            });
        }
        self.gaps.first().map(ToString::to_string)
    }

    /// The changes after `revision` up to now, oldest first; nothing if the catalog does not
    /// remember that far, or has not come that far: then take a new view.
    pub fn changes_since(&self, revision: u64) -> Option<Vec<Change>> {
        if revision > self.revision {
            return None;
        }
        self.changes.since(revision)
    }

    fn note(&mut self, kind: ChangeKind) {
        self.changes.push(Change { revision: self.revision, kind });
    }
}

/// The shard map of these generations; empty for an impossible list, which decoding refuses.
pub(crate) fn map_of(generations: &[Generation]) -> ShardMap {
    let maps = generations.iter().map(|g| MapGeneration::clone(&g.map)).collect();
    ShardMap::new(maps).unwrap_or_default()
}
