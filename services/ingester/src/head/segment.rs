//! A stretch of the log in memory: one indexed table per tenant, and what its flush needs to know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clew_block::SpanTable;
use clew_model::{TenantId, TraceId};
use clew_raft::LogId;
use parking_lot::RwLock;

/// The entries of the log behind `from`, up to the last one taken.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The log index before its first entry.
    pub(crate) from: u64,
    tenants: RwLock<BTreeMap<TenantId, Arc<TenantTable>>>,
    progress: RwLock<Progress>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    last_entry: Option<LogId>,
    /// When the first entry was taken, on the monotonic clock.
    first_at: Option<Duration>,
}

/// One tenant's spans of a segment.
#[derive(Debug)]
pub(crate) struct TenantTable {
    pub(crate) table: Arc<RwLock<SpanTable>>,
    /// (log index, rows up to and including that entry), in order.
    borders: RwLock<Vec<(u64, u32)>>,
}

impl Segment {
    pub(crate) fn new(from: u64) -> Segment {
        Segment { from, tenants: RwLock::default(), progress: RwLock::default() }
    }

    pub(crate) fn tenant(&self, tenant: &TenantId) -> Option<Arc<TenantTable>> {
        self.tenants.read().get(tenant).cloned()
    }

    /// All tenants' tables, in the order of their ids.
    pub(crate) fn tables(&self) -> Vec<(TenantId, Arc<TenantTable>)> {
        let tenants = self.tenants.read();
        tenants.iter().map(|(tenant, table)| (tenant.clone(), table.clone())).collect()
    }

    pub(super) fn tenant_or_new(&self, tenant: &TenantId, hash_seed: u64) -> Arc<TenantTable> {
        if let Some(table) = self.tenant(tenant) {
            return table;
        }
        let mut tenants = self.tenants.write();
        let table = tenants.entry(tenant.clone()).or_insert_with(|| {
            Arc::new(TenantTable {
                table: Arc::new(RwLock::new(SpanTable::new(hash_seed))),
                borders: RwLock::default(),
            })
        });
        table.clone()
    }

    /// Marks the end of an entry: rows pushed so far belong to the log up to it.
    pub(super) fn close_entry(&self, log_id: LogId, now: Duration) {
        for table in self.tenants.read().values() {
            table.close_entry(log_id.index);
        }
        let mut progress = self.progress.write();
        progress.last_entry = Some(log_id);
        progress.first_at.get_or_insert(now);
    }

    /// The last entry with data; `None` for an empty segment.
    pub(crate) fn last_entry(&self) -> Option<LogId> {
        self.progress.read().last_entry
    }

    /// When the first entry was taken.
    pub(crate) fn first_at(&self) -> Option<Duration> {
        self.progress.read().first_at
    }

    pub(crate) fn holds(&self, tenant: &TenantId, trace: &TraceId) -> bool {
        self.tenant(tenant).is_some_and(|table| table.table.read().find(trace).is_some())
    }

    pub(crate) fn tenant_count(&self) -> usize {
        self.tenants.read().len()
    }

    pub(crate) fn spans(&self) -> u64 {
        let tenants = self.tenants.read();
        tenants.values().map(|table| u64::from(table.table.read().row_count())).sum()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let tenants = self.tenants.read();
        tenants.values().map(|table| table.table.read().memory_bytes()).sum()
    }
}

impl TenantTable {
    fn close_entry(&self, index: u64) {
        let rows = self.table.read().row_count();
        let mut borders = self.borders.write();
        if borders.last().is_none_or(|(_, before)| *before < rows) {
            borders.push((index, rows));
        }
    }

    /// How many rows belong to the log up to and including `index`.
    pub(crate) fn rows_through(&self, index: u64) -> u32 {
        let borders = self.borders.read();
        let upto = borders.partition_point(|(border, _)| *border <= index);
        upto.checked_sub(1).and_then(|at| borders.get(at)).map_or(0, |(_, rows)| *rows)
    }
}
