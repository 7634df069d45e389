//! What every kind of query does alike: one run for each tenant, started again while shards flush in
//! the middle of it, and an honest account of what could not be read.

use clew_model::{ErrorKind, TenantId};
use clew_node::Problem;

use super::missing::Missing;
use super::snapshot::Snapshot;
use super::{Answer, Root};
use crate::ask::TimeRange;

/// How often a query starts again because a shard flushed in the middle of it.
const RESTARTS_MAX: usize = 4;

/// Tenants of a federated query that are asked at the same time.
pub(super) const TENANTS_AT_ONCE: usize = 8;

impl Root {
    /// Runs `read` on snapshots until no shard flushes in the middle of it.
    pub(super) async fn repeat<T>(
        &self,
        tenant: &TenantId,
        read: impl AsyncFn(&Snapshot, bool, &mut Missing) -> Result<Step<T>, Problem>,
    ) -> Result<Answer<T>, Problem> {
        let mut restarts = 0;
        loop {
            let mut snapshot = self.snapshot(tenant).await?;
            let mut missing = std::mem::take(&mut snapshot.missing);
            let last = restarts == RESTARTS_MAX;
            if let Step::Done(value) = read(&snapshot, last, &mut missing).await? {
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
pub(super) fn join_tenants<T>(
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
