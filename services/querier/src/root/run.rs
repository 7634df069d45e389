//! What every kind of query does alike: one run for each tenant, started again while shards flush in
//! the middle of it, and an honest account of what could not be read.

use async_trait::async_trait;
use clew_model::{ErrorKind, TenantId, TraceId};
use clew_node::Problem;
use futures::FutureExt;
use futures::stream::{self, StreamExt};

use super::missing::Missing;
use super::snapshot::Snapshot;
use super::{Answer, Root};
use crate::ask::TimeRange;

/// How often a query starts again because a shard flushed in the middle of it.
const RESTARTS_MAX: usize = 4;

/// Tenants of a federated query that are asked at the same time.
const TENANTS_AT_ONCE: usize = 8;

/// What one kind of query reads of one snapshot.
#[async_trait]
pub(super) trait Read: Send + Sync {
    /// What comes of it.
    type Value: Send;

    /// The only trace that it reads, if it is one.
    fn trace(&self) -> Option<TraceId> {
        None
    }

    /// Reads; places that cannot be read go into `missing`. In the `last` attempt so do shards that
    /// flushed meanwhile.
    async fn read(
        &self,
        root: &Root,
        snapshot: &Snapshot,
        last: bool,
        missing: &mut Missing,
    ) -> Result<Step<Self::Value>, Problem>;
}

impl Root {
    /// What `read` comes to for each of `tenants`. Fails if it fails for all of them.
    pub(super) async fn run<R: Read>(
        &self,
        tenants: &[TenantId],
        read: &R,
    ) -> Result<(Vec<R::Value>, Missing), Problem> {
        let mut runs = Vec::new();
        for tenant in tenants {
            runs.push(self.repeat(tenant, read).boxed());
        }
        let runs = stream::iter(runs).buffered(TENANTS_AT_ONCE).collect().await;
        join_tenants(tenants, runs)
    }

    /// Reads snapshots until no shard flushes in the middle of it.
    async fn repeat<R: Read>(
        &self,
        tenant: &TenantId,
        read: &R,
    ) -> Result<Answer<R::Value>, Problem> {
        let mut restarts = 0;
        loop {
            let mut snapshot = self.snapshot(tenant, read.trace()).await?;
            let mut missing = std::mem::take(&mut snapshot.missing);
            let last = restarts == RESTARTS_MAX;
            let step = read.read(self, &snapshot, last, &mut missing).await?;
            if let Step::Done(value) = step {
                if snapshot.is_blind(&missing) {
                    return Err(blind(&missing));
                }
                return Ok(Answer { value, missing });
            }
            restarts += 1;
            self.metrics.restarts.inc();
        }
    }
}

/// The bounds as requests write them: both 0 for none.
pub(super) fn bounds(range: Option<TimeRange>) -> (u64, u64) {
    range.map_or((0, 0), |range| (range.start.0, range.end.0))
}

/// How people call a shard.
pub(super) fn place(shard: u32) -> String {
    format!("shard {shard}")
}

/// Nothing at all could be read.
fn blind(missing: &Missing) -> Problem {
    let why = missing.message().unwrap_or_default();
    Problem::new(ErrorKind::Unavailable, "nothing_readable", why)
}

/// What a step of a query came to.
pub(super) enum Step<T> {
    /// An answer.
    Done(T),
    /// A shard flushed meanwhile: take a new snapshot and start again.
    Moved,
}

/// The answers of several tenants' runs; fails only if every run failed.
fn join_tenants<T>(
    tenants: &[TenantId],
    runs: Vec<Result<Answer<T>, Problem>>,
) -> Result<(Vec<T>, Missing), Problem> {
    let mut values = Vec::new();
    let mut missing = Missing::default();
    let mut failed = None;
    for (tenant, run) in tenants.iter().zip(runs) {
        match run {
            Ok(answer) => {
                values.push(answer.value);
                missing.merge(answer.missing);
            }
            // A request that is wrong is wrong for every tenant.
            Err(problem) if problem.kind == ErrorKind::Invalid => return Err(problem),
            Err(problem) => {
                missing.add("tenant", format!("tenant {tenant}"), problem.message.clone());
                failed = Some(problem);
            }
        }
    }
    match failed {
        Some(problem) if values.is_empty() => Err(problem),
        _ => Ok((values, missing)),
    }
}
