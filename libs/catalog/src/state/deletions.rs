//! Commands about deletions and tenants.

use std::collections::BTreeSet;
use std::sync::Arc;

use clew_model::TenantId;

use super::State;
use super::members::full;
use crate::changes::ChangeKind;
use crate::command::{DeleteTraces, RemoveTenant, Removed, SetTenant};
use crate::deletion::{DELETION_QUERY_BYTES_MAX, DELETION_TRACES_MAX, Deletion, DeletionScope};
use crate::ident::{DeletionId, RequestId};
use crate::key::ObjectKey;
use crate::outcome::{DeletionOutcome, Outcome, Refusal};

/// The most deletions under way.
const PENDING_MAX: usize = 10_000;

/// The most deletions remembered; of those that are done the oldest are forgotten.
const RECORDS_MAX: usize = 20_000;

/// The most tenants with settings of their own.
const SETTINGS_MAX: usize = 65_536;

impl State {
    pub(super) fn delete_traces(&mut self, command: DeleteTraces) -> Result<Outcome, Refusal> {
        let DeleteTraces { tenant, mut ids, query, request } = command;
        if ids.is_empty() || ids.len() > DELETION_TRACES_MAX {
            let reason = format!("a deletion names 1 to {DELETION_TRACES_MAX} traces");
            return Err(Refusal::Invalid { reason });
        }
        if query.len() > DELETION_QUERY_BYTES_MAX {
            let reason = format!("the query has more than {DELETION_QUERY_BYTES_MAX} bytes");
            return Err(Refusal::Invalid { reason });
        }
        if let Some(known) = self.known_deletion(&request) {
            return Ok(Outcome::Deletion(DeletionOutcome::Accepted { deletion: known }));
        }
        ids.sort_unstable();
        ids.dedup();
        let scope = DeletionScope::Traces(ids.into());
        self.add_deletion(tenant, scope, query, request)
    }

    pub(super) fn remove_tenant(&mut self, command: RemoveTenant) -> Result<Outcome, Refusal> {
        let RemoveTenant { tenant, request } = command;
        if let Some(known) = self.known_deletion(&request) {
            return Ok(Outcome::Deletion(DeletionOutcome::Accepted { deletion: known }));
        }
        let accepted =
            self.add_deletion(tenant.clone(), DeletionScope::Tenant, String::new(), request)?;
        let mut keys: BTreeSet<ObjectKey> =
            self.by_tenant.get(&tenant).into_iter().flat_map(|o| o.keys()).copied().collect();
        keys.extend(self.quarantined_keys(&tenant));
        let (mut traces, mut spans) = (0u64, 0u64);
        for key in &keys {
            if let Some(block) = self.objects.get(key).and_then(|object| object.block(&tenant)) {
                traces = traces.saturating_add(block.traces);
                spans = spans.saturating_add(block.spans);
            }
            self.drop_block(key, &tenant);
        }
        self.note_replaced(keys);
        self.count_removed(&[Removed { deletion: DeletionId(self.revision), traces, spans }]);
        self.settings.remove(&tenant);
        self.settle_deletions();
        Ok(accepted)
    }

    fn known_deletion(&self, request: &RequestId) -> Option<DeletionId> {
        let known = self.deletions.values().rev().find(|known| known.request == *request)?;
        Some(known.id)
    }

    fn add_deletion(
        &mut self,
        tenant: TenantId,
        scope: DeletionScope,
        query: String,
        request: RequestId,
    ) -> Result<Outcome, Refusal> {
        let pending = self.deletions.values().filter(|known| known.done_at.is_none()).count();
        if pending >= PENDING_MAX {
            return Err(full("deletions under way", PENDING_MAX as u64));
        }
        let id = DeletionId(self.revision);
        let named = match &scope {
            DeletionScope::Traces(ids) => ids.len() as u64,
            DeletionScope::Tenant => 0,
        };
        let deletion = Deletion {
            id,
            request,
            tenant,
            scope,
            query,
            named,
            at: self.now,
            done_at: None,
            traces: 0,
            spans: 0,
        };
        let deletion = Arc::new(deletion);
        self.deletions.insert(id, Arc::clone(&deletion));
        self.note(ChangeKind::DeletionChanged(deletion));
        while self.deletions.len() > RECORDS_MAX {
            let oldest = self.deletions.values().find(|known| known.done_at.is_some());
            let Some(oldest) = oldest.map(|known| known.id) else { break };
            self.deletions.remove(&oldest);
        }
        self.settle_deletions();
        Ok(Outcome::Deletion(DeletionOutcome::Accepted { deletion: id }))
    }

    /// Adds to the record what a job removed.
    pub(super) fn count_removed(&mut self, removed: &[Removed]) {
        for Removed { deletion, traces, spans } in removed {
            if let Some(known) = self.deletions.get_mut(deletion) {
                let known = Arc::make_mut(known);
                known.traces = known.traces.saturating_add(*traces);
                known.spans = known.spans.saturating_add(*spans);
            }
        }
    }

    /// Ends the deletions of which no byte is left.
    pub(crate) fn settle_deletions(&mut self) {
        let is_gone = |deletion: &&Arc<Deletion>| self.is_gone(deletion);
        let pending = self.deletions.values().filter(|known| known.done_at.is_none());
        let gone: Vec<DeletionId> = pending.filter(is_gone).map(|known| known.id).collect();
        for id in gone {
            if let Some(shared) = self.deletions.get_mut(&id) {
                let known = Arc::make_mut(shared);
                known.done_at = Some(self.now);
                if let DeletionScope::Traces(ids) = &mut known.scope {
                    *ids = Arc::from([]);
                }
                let known = Arc::clone(shared);
                self.note(ChangeKind::DeletionChanged(known));
            }
        }
    }

    fn is_gone(&self, deletion: &Deletion) -> bool {
        let tenant = &deletion.tenant;
        let readable = self.by_tenant.get(tenant).into_iter().flat_map(|objects| objects.values());
        let damaged = self.quarantined_keys(tenant);
        let damaged = damaged.filter_map(|key| self.objects.get(&key));
        // Of a removed tenant, bytes may also be left in objects that others still use.
        let whole = deletion.scope == DeletionScope::Tenant;
        let lagging = whole
            && self.objects.values().any(|o| o.dead_bytes() > 0 && deletion.concerns(o.revision));
        !lagging
            && !readable.chain(damaged).any(|object| deletion.concerns(object.revision))
            && !self.dead.values().any(|dead| {
                deletion.concerns(dead.object.revision)
                    && (dead.object.block(tenant).is_some() || dead.object.dead_bytes() > 0)
            })
    }

    fn quarantined_keys(&self, tenant: &TenantId) -> impl Iterator<Item = ObjectKey> + '_ {
        let tenant = tenant.clone();
        self.quarantined
            .range((tenant.clone(), ObjectKey::LOWEST)..)
            .take_while(move |((whose, _), _)| *whose == tenant)
            .map(|((_, key), _)| *key)
    }

    /// Whether a tenant was removed after that revision.
    pub(crate) fn was_removed_since(&self, tenant: &TenantId, revision: u64) -> bool {
        let later = self.deletions.range(DeletionId(revision)..).map(|(_, deletion)| deletion);
        later
            .filter(|deletion| deletion.scope == DeletionScope::Tenant)
            .any(|deletion| deletion.tenant == *tenant && revision < deletion.id.0)
    }

    pub(super) fn set_tenant(&mut self, command: SetTenant) -> Result<Outcome, Refusal> {
        let SetTenant { tenant, settings } = command;
        if settings == crate::TenantSettings::default() {
            self.settings.remove(&tenant);
            return Ok(Outcome::TenantSet);
        }
        if self.settings.len() >= SETTINGS_MAX && !self.settings.contains_key(&tenant) {
            return Err(full("tenants with settings", SETTINGS_MAX as u64));
        }
        self.settings.insert(tenant, settings);
        Ok(Outcome::TenantSet)
    }
}
