//! One job from its lease to its commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clew_block::{Cover, Heritage};
use clew_catalog::{
    AbandonJob, CommitJob, DeletionId, Incarnation, JobOutcome, JobSpec, ObjectKey, ObjectMeta,
    Removed, RenewJob, STRIKES_OF_FAILURE, SharedTopology, Striking, TenantTerms,
};
use clew_model::{ErrorKind, UnixNanos};
use clew_node::Stop;
use clew_storage::Bucket;
use futures::future::try_join_all;

use crate::compactor::Worker;
use crate::marks::Elsewhere;
use crate::merge::{Context, TenantMerge, is_affected};
use crate::output::Output;
use crate::pages::InputBlock;
use crate::{CompactorError, crash_point};

/// Between two attempts to reach the metastore.
const RETRY_DELAY: Duration = Duration::from_millis(300);

/// How often the rest after a failure is doubled: to 16 poll intervals at most.
const RESTS_DOUBLED_MAX: u32 = 4;

/// What a job made.
struct Made {
    outputs: Vec<ObjectMeta>,
    kept: Vec<ObjectKey>,
    removed: Vec<Removed>,
}

impl Worker {
    /// Does a job; whatever becomes of it, the catalog knows in the end, or the lease runs out. Gives whether it
    /// failed over something that passes, as so many before it (`failures`).
    pub(crate) async fn do_job(&self, spec: JobSpec, failures: u32, stop: &Stop) -> bool {
        let started = self.deps.clock.monotonic();
        self.metrics.running.inc();
        let done = tokio::select! {
            biased;
            () = stop.stopped() => Err(CompactorError::Stopping),
            lost = self.keep_lease(&spec) => Err(lost),
            done = Box::pin(self.merge_and_commit(&spec)) => done,
        };
        self.metrics.running.dec();
        let taken = self.deps.clock.monotonic().saturating_sub(started);
        self.metrics.job_seconds.observe(taken.as_secs_f64());
        let outcome = match &done {
            Ok(()) => "ok",
            Err(error) => error.kind().as_str(),
        };
        self.metrics.jobs.with_label_values(&[outcome]).inc();
        let Err(error) = done else { return false };
        let passes = error.kind().is_retryable();
        if passes {
            tracing::warn!(job = %spec.job, %error, "a compaction failed");
            self.rest(&spec, failures, stop).await;
        }
        self.give_up(&spec, &error).await;
        passes
    }

    /// Keeps a job that failed for a while, twice as long after each failure. Given back at once it would be
    /// taken at once, which costs the metastore two commands each time: while the bucket is away, all
    /// compactors together must not keep it busy. And as long as it is taken, others get other jobs.
    async fn rest(&self, spec: &JobSpec, failures: u32, stop: &Stop) {
        let poll_interval = self.config.poll_interval.0;
        let pause = poll_interval.saturating_mul(1 << failures.min(RESTS_DOUBLED_MAX));
        tokio::select! {
            biased;
            () = stop.stopped() => {}
            _ = self.keep_lease(spec) => {}
            () = self.deps.clock.sleep(pause) => {}
        }
    }

    async fn merge_and_commit(&self, spec: &JobSpec) -> Result<(), CompactorError> {
        crash_point("compact::leased");
        let topology = self.topology.borrow().clone();
        let Made { outputs, kept, removed } = self.make(spec, &topology).await?;
        let (objects, bytes) = (outputs.len(), outputs.iter().map(|o| o.size).sum::<u64>());
        let spans: u64 = outputs.iter().map(ObjectMeta::spans).sum();
        let replaced = spec.inputs.iter().filter(|input| !kept.contains(&input.key));
        let replaced: Vec<u64> = replaced.map(|input| input.size).collect();
        let commit = CommitJob { job: spec.job, outputs, kept, removed };
        crash_point("compact::made");
        self.commit(commit).await?;
        crash_point("compact::committed");
        self.metrics.input_objects.inc_by(replaced.len() as u64);
        self.metrics.input_bytes.inc_by(replaced.iter().sum());
        tracing::info!(
            job = %spec.job,
            shard = spec.shard.0,
            level = spec.level,
            inputs = replaced.len(),
            kept = spec.inputs.len() - replaced.len(),
            objects,
            spans,
            bytes,
            "compacted"
        );
        Ok(())
    }

    async fn make(
        &self,
        spec: &JobSpec,
        topology: &SharedTopology,
    ) -> Result<Made, CompactorError> {
        let mut kept = Vec::new();
        // What stays on its level is only looked at because something in it may have to go.
        if spec.inputs.iter().all(|input| input.level == spec.level) {
            for input in &spec.inputs {
                if !is_affected(&self.bucket, spec, input).await? {
                    kept.push(input.key);
                }
            }
        }
        let inputs: Vec<&Arc<ObjectMeta>> =
            spec.inputs.iter().filter(|input| !kept.contains(&input.key)).collect();
        let heritage = heritage(&self.bucket, spec, &inputs).await?;
        let context = Context {
            config: &self.config,
            deps: &self.deps,
            bucket: &self.bucket,
            throttle: &self.throttle,
            metrics: &self.metrics,
            rings: &self.rings,
            heritage: &heritage,
        };
        let mut removed = BTreeMap::new();
        let mut output = Output::new(&context, spec);
        for terms in &spec.tenants {
            merge_tenant(&context, spec, topology, terms, &inputs, &mut output, &mut removed)
                .await?;
        }
        let outputs = output.finish().await?;
        Ok(Made { outputs, kept, removed: removed.into_values().collect() })
    }

    /// Commits, again and again while the outcome is unknown.
    async fn commit(&self, commit: CommitJob) -> Result<(), CompactorError> {
        loop {
            match self.metastore.apply(commit.clone()).await {
                Ok(JobOutcome::Committed) => return Ok(()),
                Ok(_) => return Err(CompactorError::Superseded),
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(job = %commit.job, %error, "a compaction is not committed yet");
                    self.deps.clock.sleep(RETRY_DELAY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Renews the lease until it is lost.
    async fn keep_lease(&self, spec: &JobSpec) -> CompactorError {
        let lease = self.config.lease.0;
        loop {
            self.deps.clock.sleep(lease / 3).await;
            let now = self.deps.clock.now_unix().0;
            let length = u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX);
            let expires_at = UnixNanos(now.saturating_add(length));
            match self.metastore.apply(RenewJob { job: spec.job, expires_at }).await {
                Ok(JobOutcome::Renewed) => {}
                // It may have been committed by the other half of this very job, which is about to
                // say so; if not, it is lost.
                Ok(_) => {
                    self.deps.clock.sleep(RETRY_DELAY * 10).await;
                    return CompactorError::Superseded;
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                Err(error) => return error,
            }
        }
    }

    /// Tells the catalog that nothing comes of a job.
    async fn give_up(&self, spec: &JobSpec, error: &CompactorError) {
        let mut strikes = Vec::new();
        match error {
            CompactorError::Superseded => {
                tracing::info!(job = %spec.job, "a compaction was in vain: {error}");
                return;
            }
            CompactorError::Stopping => {}
            CompactorError::Input { object, .. } => {
                tracing::warn!(job = %spec.job, %object, %error, "a block cannot be merged");
                let (object, reason) = (*object, error.to_string());
                strikes.push(Striking { object, count: STRIKES_OF_FAILURE, reason });
            }
            // Whatever it is, it must not go on for ever: every input is a suspect.
            error if !error.kind().is_retryable() => {
                tracing::warn!(job = %spec.job, %error, "a compaction failed");
                strikes.extend(spec.inputs.iter().map(|input| Striking {
                    object: input.key,
                    count: STRIKES_OF_FAILURE,
                    reason: error.to_string(),
                }));
            }
            // Nothing is wrong with the inputs.
            _ => {}
        }
        let abandoned = self.metastore.apply(AbandonJob { job: spec.job, strikes }).await;
        if let Err(error) = abandoned {
            tracing::info!(job = %spec.job, %error, "the lease of a failed job runs out");
        }
    }
}

/// Where what is made of `inputs` comes from. One block of an input is enough: all that a merge made
/// say the same.
async fn heritage(
    bucket: &Bucket,
    spec: &JobSpec,
    inputs: &[&Arc<ObjectMeta>],
) -> Result<Heritage, CompactorError> {
    let mut covers = Vec::new();
    for input in inputs {
        if let Some(Incarnation(incarnation)) = input.incarnation() {
            covers.push(Cover { incarnation, from: input.from, through: input.through.index });
        } else if let Some(place) = input.tenants.first() {
            let opened = InputBlock::open(bucket, input.key, place.clone()).await?;
            covers.extend(opened.block.footer().heritage.covers.iter().copied());
        }
    }
    let arrived = inputs.iter().map(|input| input.data_at.0).max().unwrap_or(0);
    Ok(Heritage { level: spec.level, arrived, objects: 0, covers: Heritage::joined(covers) })
}

async fn merge_tenant(
    context: &Context<'_>,
    spec: &JobSpec,
    topology: &SharedTopology,
    terms: &TenantTerms,
    inputs: &[&Arc<ObjectMeta>],
    output: &mut Output<'_>,
    removed: &mut BTreeMap<DeletionId, Removed>,
) -> Result<(), CompactorError> {
    let tenant = &terms.tenant;
    let places = inputs.iter().filter_map(|input| Some((input.key, input.block(tenant)?.clone())));
    let opened = places.map(|(key, place)| InputBlock::open(context.bucket, key, place));
    let opened = try_join_all(opened.collect::<Vec<_>>()).await?;
    if opened.is_empty() {
        return Ok(());
    }
    let elsewhere = Elsewhere::look(context.bucket, context.rings, spec, topology, tenant);
    let elsewhere = elsewhere.await;
    let mut merge = TenantMerge::new(context, spec, terms, opened, elsewhere)?;
    while let Some(block) = Box::pin(merge.next(context, spec, removed)).await? {
        output.put(terms, block).await?;
    }
    Ok(())
}
