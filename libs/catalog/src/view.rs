//! What a query needs of the catalog, at one revision, and how a reader keeps it up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clew_model::{TenantId, TraceId, UnixNanos};
use clew_ring::{NodeId, ShardId, ShardMap};

use crate::changes::{Change, ChangeKind};
use crate::deletion::Deletion;
use crate::error::DecodeError;
use crate::gap::Gap;
use crate::ident::{ClusterId, DeletionId, Incarnation, LogPoint, ReplicaId};
use crate::key::ObjectKey;
use crate::member::NodeInfo;
use crate::object::{ObjectMeta, TenantBlock};
use crate::state::{
    Generation, ReplicaInfo, ShardLog, State, TenantObjects, index_object, remove_block,
};
use crate::wire;

/// A shard as queries see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardView {
    /// The shard.
    pub shard: ShardId,
    /// The incarnation of its open log.
    pub incarnation: Incarnation,
    /// Everything up to and with this entry is in the objects of the same view.
    pub watermark: LogPoint,
    /// The replicas its log started with.
    pub replicas: Vec<ReplicaId>,
}

impl ShardView {
    pub(crate) fn new(shard: ShardId, log: &ShardLog) -> ShardView {
        let ShardLog { incarnation, watermark, replicas, .. } = log;
        let (incarnation, watermark) = (*incarnation, *watermark);
        ShardView { shard, incarnation, watermark, replicas: replicas.clone() }
    }
}

/// A damaged block: listed, and left out of queries, which then say what they miss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// The object.
    pub object: ObjectKey,
    /// Whose block of it.
    pub tenant: TenantId,
    /// What is wrong with it.
    pub reason: String,
    /// When it was reported.
    pub at: UnixNanos,
    /// The earliest start of a span in it: queries of other times miss nothing.
    pub min_time: UnixNanos,
    /// The latest end of a span in it.
    pub max_time: UnixNanos,
}

/// Everything a query of some tenants needs of the catalog, at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The revision.
    pub revision: u64,
    /// The cluster, once created.
    pub cluster: Option<ClusterId>,
    /// The catalog's own incarnation.
    pub incarnation: u64,
    /// The live map generations, ascending.
    pub generations: Vec<Generation>,
    /// The shards with an open log.
    pub shards: BTreeMap<ShardId, ShardView>,
    /// The tenants it covers; nothing for all.
    pub(crate) scope: Option<BTreeSet<TenantId>>,
    pub(crate) objects: TenantObjects,
    pub(crate) quarantined: BTreeMap<(TenantId, ObjectKey), Quarantine>,
    /// The deletions under way.
    pub(crate) deletions: BTreeMap<DeletionId, Arc<Deletion>>,
    /// What is gone of any tenant: a query that may miss something of it is partial.
    pub gaps: Vec<Gap>,
    /// A restored catalog does not know the history of the shard map: a trace may lie in any shard,
    /// whatever the generations say.
    pub map_guessed: bool,
}

/// The nodes and the replicas on their disks, at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// The revision.
    pub revision: u64,
    /// The latest time the catalog was told.
    pub now: UnixNanos,
    /// The nodes that ever registered, by name.
    pub nodes: Vec<NodeInfo>,
    /// The replicas ever issued.
    pub replicas: Vec<ReplicaInfo>,
}

impl State {
    /// What a query of `tenants` needs, or of all tenants if the list is empty.
    pub fn view(&self, tenants: &[TenantId]) -> View {
        self.view_within((!tenants.is_empty()).then(|| tenants.iter().cloned().collect()))
    }

    /// The shard map and the watermarks, without any tenant's objects.
    pub fn view_of_shards(&self) -> View {
        self.view_within(Some(BTreeSet::new()))
    }

    fn view_within(&self, scope: Option<BTreeSet<TenantId>>) -> View {
        let covered = |tenant: &TenantId| scope.as_ref().is_none_or(|set| set.contains(tenant));
        let objects = match &scope {
            None => self.by_tenant.clone(),
            Some(set) => set
                .iter()
                .filter_map(|tenant| self.by_tenant.get_key_value(tenant))
                .map(|(tenant, objects)| (tenant.clone(), objects.clone()))
                .collect(),
        };
        let quarantined = self.quarantined.iter().filter(|((tenant, _), _)| covered(tenant));
        View {
            revision: self.revision,
            cluster: self.cluster,
            incarnation: self.incarnation,
            generations: self.generations.clone(),
            shards: self.shard_views(),
            quarantined: quarantined.map(|(place, what)| (place.clone(), what.clone())).collect(),
            deletions: self
                .deletions
                .values()
                .filter(|deletion| deletion.done_at.is_none() && covered(&deletion.tenant))
                .map(|deletion| (deletion.id, Arc::clone(deletion)))
                .collect(),
            gaps: self.gaps.clone(),
            map_guessed: self.map_guessed,
            scope,
            objects,
        }
    }

    /// The nodes and replicas.
    pub fn members(&self) -> Members {
        Members {
            revision: self.revision,
            now: self.now,
            nodes: self.nodes.values().cloned().collect(),
            replicas: self.replicas.values().cloned().collect(),
        }
    }
}

impl View {
    /// Whether the view shows `tenant`'s objects.
    pub fn covers(&self, tenant: &TenantId) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.contains(tenant))
    }

    /// The blocks of `tenant` that a query reads, each with its object, ordered by key.
    pub fn blocks(
        &self,
        tenant: &TenantId,
    ) -> impl Iterator<Item = (&Arc<ObjectMeta>, &TenantBlock)> {
        let objects = self.objects.get(tenant).into_iter().flat_map(BTreeMap::values);
        let tenant = tenant.clone();
        objects.filter_map(move |object| Some((object, object.block(&tenant)?)))
    }

    /// The damaged blocks of `tenant`, ordered by object key: a query that would read one is partial.
    pub fn quarantined(&self, tenant: &TenantId) -> impl Iterator<Item = &Quarantine> {
        let tenant = tenant.clone();
        self.quarantined
            .range((tenant.clone(), ObjectKey::LOWEST)..)
            .take_while(move |((whose, _), _)| *whose == tenant)
            .map(|(_, quarantine)| quarantine)
    }

    /// The traces of `tenant` that must not be read from an object of this revision, ascending.
    pub fn deleted(&self, tenant: &TenantId, revision: u64) -> Vec<TraceId> {
        let concerning = self.deletions.range(DeletionId(revision.saturating_add(1))..);
        let concerning = concerning.map(|(_, deletion)| deletion);
        let mut ids: Vec<TraceId> = concerning
            .filter(|deletion| deletion.tenant == *tenant && deletion.concerns(revision))
            .flat_map(|deletion| deletion.ids())
            .copied()
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The first deletion of `tenant` that concerns an object of this revision: objects with the same
    /// one have the same traces deleted.
    pub fn first_deletion(&self, tenant: &TenantId, revision: u64) -> Option<DeletionId> {
        let later = self.deletions.range(DeletionId(revision.saturating_add(1))..);
        later.map(|(_, deletion)| deletion).find(|d| d.tenant == *tenant).map(|d| d.id)
    }

    /// The deletions under way that the view covers, oldest first.
    pub fn deletions(&self) -> impl Iterator<Item = &Arc<Deletion>> {
        self.deletions.values()
    }

    /// The tenants that have blocks to read in this view.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.objects.keys()
    }

    /// Follows the catalog: applies what [`State::changes_since`] this view's revision answered when
    /// the catalog was at `revision`. Changes at or below the view's revision are skipped.
    pub fn advance(&mut self, revision: u64, changes: &[Change]) {
        let seen = self.revision;
        for change in changes.iter().filter(|change| change.revision > seen) {
            match &change.kind {
                ChangeKind::ObjectAdded(object) => self.add_object(object),
                ChangeKind::BlockQuarantined(quarantine) => self.quarantine(quarantine),
                ChangeKind::QuarantineLifted { object, tenant } => {
                    self.quarantined.remove(&(tenant.clone(), object.key));
                    self.list_object(object);
                }
                ChangeKind::ShardOpened(shard) => {
                    self.shards.insert(shard.shard, shard.clone());
                }
                ChangeKind::GenerationAdded(generation) => {
                    self.generations.push(generation.clone());
                }
                ChangeKind::ObjectsReplaced { gone, added } => self.replace_objects(gone, added),
                ChangeKind::DeletionChanged(deletion) => self.note_deletion(deletion),
                ChangeKind::GapsChanged(gaps) => self.gaps.clone_from(gaps),
            }
        }
        self.revision = self.revision.max(revision);
    }

    fn add_object(&mut self, object: &Arc<ObjectMeta>) {
        if let Some(shard) = self.shards.get_mut(&object.shard())
            && Some(shard.incarnation) == object.incarnation()
        {
            shard.watermark = object.through;
        }
        self.list_object(object);
    }

    /// Lists an object under each of its tenants that the view covers and may read.
    pub(crate) fn list_object(&mut self, object: &Arc<ObjectMeta>) {
        let (scope, quarantined) = (self.scope.as_ref(), &self.quarantined);
        index_object(&mut self.objects, object, |tenant| {
            scope.is_none_or(|scope| scope.contains(tenant))
                && !quarantined.contains_key(&(tenant.clone(), object.key))
        });
    }

    fn replace_objects(&mut self, gone: &[ObjectKey], added: &[Arc<ObjectMeta>]) {
        let old = gone.iter().chain(added.iter().map(|object| &object.key));
        for key in old {
            let whose: Vec<TenantId> = self
                .objects
                .iter()
                .filter(|(_, objects)| objects.contains_key(key))
                .map(|(tenant, _)| tenant.clone())
                .collect();
            for tenant in whose {
                remove_block(&mut self.objects, &tenant, key);
            }
        }
        for object in added {
            self.list_object(object);
        }
        let is_gone = |key: &ObjectKey| gone.contains(key);
        let lost = |tenant: &TenantId, key: &ObjectKey| {
            added.iter().any(|object| object.key == *key && object.block(tenant).is_none())
        };
        self.quarantined.retain(|(tenant, key), _| !is_gone(key) && !lost(tenant, key));
    }

    fn note_deletion(&mut self, deletion: &Arc<Deletion>) {
        if !self.covers(&deletion.tenant) {
            return;
        }
        if deletion.done_at.is_some() {
            self.deletions.remove(&deletion.id);
        } else {
            self.deletions.insert(deletion.id, Arc::clone(deletion));
        }
    }

    fn quarantine(&mut self, quarantine: &Quarantine) {
        if self.covers(&quarantine.tenant) {
            let Quarantine { tenant, object, .. } = quarantine;
            remove_block(&mut self.objects, tenant, object);
            self.quarantined.insert((tenant.clone(), *object), quarantine.clone());
        }
    }

    /// The live generations of the shard map.
    pub fn shard_map(&self) -> ShardMap {
        crate::state::map_of(&self.generations)
    }

    /// The view as bytes, to send it.
    pub fn encode(&self) -> Vec<u8> {
        wire::view::encode_view(self)
    }

    /// The view in `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not the encoding of a view.
    pub fn decode(bytes: &[u8]) -> Result<View, DecodeError> {
        wire::view::decode_view(bytes)
    }
}

impl Members {
    /// The node that holds the disk of `replica`.
    pub fn node_of(&self, replica: ReplicaId) -> Option<&NodeInfo> {
        let node = &self.replicas.iter().find(|info| info.replica == replica)?.node;
        self.node(node)
    }

    /// The node of that name.
    pub fn node(&self, node: &NodeId) -> Option<&NodeInfo> {
        self.nodes.iter().find(|info| info.node == *node)
    }

    /// The members as bytes, to send them.
    pub fn encode(&self) -> Vec<u8> {
        wire::view::encode_members(self)
    }

    /// The members in `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not the encoding of members.
    pub fn decode(bytes: &[u8]) -> Result<Members, DecodeError> {
        wire::view::decode_members(bytes)
    }
}

/// The changes as bytes, to send them.
pub fn encode_changes(changes: &[Change]) -> Vec<u8> {
    wire::view::encode_changes(changes)
}

/// The changes in `bytes`.
///
/// # Errors
/// [`DecodeError`] when they are not the encoding of changes.
pub fn decode_changes(bytes: &[u8]) -> Result<Vec<Change>, DecodeError> {
    wire::view::decode_changes(bytes)
}
