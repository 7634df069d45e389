//! What compactors ask of the metastore: jobs, garbage, and which objects of the bucket are dead.
//!
//! The leader plans from its state and proposes what it found, so a plan that another command made
//! void is refused by the catalog, not acted upon.

use std::time::Duration;

use bytes::Bytes;
use clew_catalog::{
    AbandonJob, BeginJob, Command, CompactionOptions, Deletion, DeletionScope, DropBlocks, JobId,
    JobOutcome, Liveness, ObjectKey, ObjectMeta, Quarantine, RequestId, Retention,
    STRIKES_OF_SILENCE, State, Strikes, Striking,
};
use clew_model::{TenantId, UnixNanos};
use clew_proto::metastore::v1 as proto;
use clew_proto::metastore::v1::compaction_service_client::CompactionServiceClient;
use clew_proto::metastore::v1::compaction_service_server::{
    CompactionService, CompactionServiceServer,
};
use tonic::{Request, Response, Status};

use crate::MetastoreError;
use crate::leader::{forwarded, is_forwarded};
use crate::service::Metastore;

/// Keys in one question.
const KEYS_MAX: usize = 10_000;

/// The longest lease.
const LEASE_MAX: Duration = Duration::from_secs(3_600);

/// Plans that other commands may make void before a worker is told that there is nothing to do.
const PLANS_MAX: usize = 4;

impl Metastore {
    /// The service that compactors use.
    pub fn compaction_server(&self) -> CompactionServiceServer<Metastore> {
        let limit = clew_node::rpc::MESSAGE_BYTES_MAX;
        CompactionServiceServer::new(self.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit)
    }

    async fn lease(
        &self,
        message: proto::LeaseRequest,
        is_forwarded: bool,
    ) -> Result<proto::LeaseResponse, MetastoreError> {
        let ask = |channel| {
            let mut client = CompactionServiceClient::new(channel)
                .max_decoding_message_size(clew_node::rpc::MESSAGE_BYTES_MAX);
            let request = forwarded(message.clone());
            async move { client.lease(request).await }
        };
        if let Some(answer) = self.0.ask_leader(is_forwarded, ask).await? {
            return Ok(answer);
        }
        let (options, request) = (options(message.options)?, request_id(&message.request)?);
        // A leader that was passed over must not plan from what it believes.
        self.0.group.read_index().await?;
        let now = self.0.deps.clock.now_unix();
        self.give_up_silent_jobs(now).await?;
        let dropped = self.drop_expired(&options, now).await?;
        let lease = Duration::from_millis(message.lease_millis).min(LEASE_MAX);
        let mut job = Bytes::new();
        for _ in 0..PLANS_MAX {
            let Some(plan) = self.inspect(|state| state.plan_job(&options, now)) else { break };
            let begin = BeginJob {
                inputs: plan.inputs,
                level: plan.level,
                worker: message.worker.clone(),
                request,
                expires_at: after(now, lease),
            };
            let outcome = self.propose(begin).await?;
            if let JobOutcome::Begun { job: begun } = outcome {
                let spec = self.inspect(|state| state.job_spec(begun, &options));
                job = spec.map(|spec| Bytes::from(spec.encode())).unwrap_or_default();
                break;
            }
        }
        Ok(self.inspect(|state| proto::LeaseResponse {
            job,
            dropped,
            parked: state.strikes().filter(|(_, strikes)| strikes.is_parked()).count() as u64,
            live: state.objects().len() as u64,
            dead: state.dead().len() as u64,
            jobs: state.jobs().len() as u64,
            deletions: state.deletions().filter(|d| d.done_at.is_none()).count() as u64,
        }))
    }

    async fn give_up_silent_jobs(&self, now: UnixNanos) -> Result<(), MetastoreError> {
        let inputs_of = |state: &State, job: JobId| {
            let job = state.jobs().find(|known| known.job == job)?;
            Some((job.job, job.inputs.clone(), job.worker.clone()))
        };
        let silent: Vec<_> = self.inspect(|state| {
            let jobs = state.silent_jobs(now).into_iter();
            jobs.filter_map(|job| inputs_of(state, job)).collect()
        });
        for (job, inputs, worker) in silent {
            tracing::warn!(%job, worker, "a compaction was not heard of any more, giving it up");
            let strike = |object: ObjectKey| Striking {
                object,
                count: STRIKES_OF_SILENCE,
                reason: format!("a compaction by {worker} ended without a word"),
            };
            let strikes = inputs.into_iter().map(strike).collect();
            self.propose(AbandonJob { job, strikes }).await?;
        }
        Ok(())
    }

    /// How many objects and blocks went.
    async fn drop_expired(
        &self,
        options: &CompactionOptions,
        now: UnixNanos,
    ) -> Result<u64, MetastoreError> {
        let Some(drops) = self.inspect(|state| state.plan_drops(options, now)) else {
            return Ok(0);
        };
        let DropBlocks { objects, blocks } = &drops;
        let count = objects.len() + blocks.len();
        tracing::info!(objects = objects.len(), blocks = blocks.len(), "retention drops");
        self.propose(drops).await?;
        Ok(count as u64)
    }

    async fn propose<R: clew_catalog::Request>(
        &self,
        request: R,
    ) -> Result<R::Answer, MetastoreError> {
        let command: Command = request.into_command();
        let command = Bytes::from(command.encode(self.0.deps.clock.now_unix()));
        let (_, outcome) = self.0.apply(command, true).await?;
        Ok(R::answer(outcome)?)
    }

    async fn check(
        &self,
        message: proto::CheckRequest,
    ) -> Result<proto::CheckResponse, MetastoreError> {
        if message.objects.len() > KEYS_MAX {
            return Err(MetastoreError::BadRequest(format!("more than {KEYS_MAX} objects")));
        }
        // The bucket was listed before: what is registered by now was not dead then.
        self.0.confirm().await?;
        Ok(self.inspect(|state| {
            let mut answer = proto::CheckResponse {
                ahead: state.unsettled().unwrap_or_default(),
                ..proto::CheckResponse::default()
            };
            for name in message.objects {
                let Ok(key) = ObjectKey::parse(&name) else { continue };
                if state.is_behind(&key) {
                    answer.ahead = name;
                    continue;
                }
                match state.liveness(&key) {
                    Liveness::Dead => answer.dead.push(name),
                    Liveness::Registered => answer.registered.push(name),
                    Liveness::MayRegister => {}
                }
            }
            answer
        }))
    }

    async fn garbage(
        &self,
        message: proto::GarbageRequest,
    ) -> Result<proto::GarbageResponse, MetastoreError> {
        self.0.confirm().await?;
        let max = usize::try_from(message.max).unwrap_or(KEYS_MAX).min(KEYS_MAX);
        let (grace, now) = (Duration::from_nanos(message.grace), self.0.deps.clock.now_unix());
        let garbage = self.inspect(|state| state.garbage(grace, now, max));
        let objects = garbage.iter().map(ObjectKey::to_string).collect();
        Ok(proto::GarbageResponse { objects })
    }

    async fn records(
        &self,
        message: proto::DeletionsRequest,
    ) -> Result<proto::DeletionsResponse, MetastoreError> {
        let tenant = match message.tenant.as_str() {
            "" => None,
            name => Some(
                TenantId::parse(name)
                    .map_err(|error| MetastoreError::BadRequest(error.to_string()))?,
            ),
        };
        self.0.confirm().await?;
        let deletions = self.inspect(|state| {
            let wanted = state.deletions().rev();
            let wanted = wanted.filter(|d| tenant.as_ref().is_none_or(|t| d.tenant == *t));
            wanted.take(KEYS_MAX).map(|deletion| record(deletion)).collect()
        });
        Ok(proto::DeletionsResponse { deletions })
    }

    async fn parked(&self) -> Result<proto::ParkedResponse, MetastoreError> {
        self.0.confirm().await?;
        let objects = self.inspect(|state| {
            let parked = state.strikes().filter(|(_, strikes)| strikes.is_parked());
            parked.take(KEYS_MAX).map(parked_object).collect()
        });
        Ok(proto::ParkedResponse { objects })
    }

    async fn quarantined(&self) -> Result<proto::QuarantinedResponse, MetastoreError> {
        self.0.confirm().await?;
        let blocks = self.inspect(|state| {
            let known = state.quarantined().take(KEYS_MAX);
            known.map(|(quarantine, object)| quarantined_block(quarantine, object)).collect()
        });
        Ok(proto::QuarantinedResponse { blocks })
    }
}

fn quarantined_block(quarantine: &Quarantine, object: &ObjectMeta) -> proto::QuarantinedBlock {
    let tenants = object.block(&quarantine.tenant).cloned().into_iter().collect();
    let alone = ObjectMeta { tenants, ..object.clone() };
    proto::QuarantinedBlock {
        object: alone.encode().into(),
        reason: quarantine.reason.clone(),
        at_unix_nanos: quarantine.at.0,
    }
}

fn parked_object((key, strikes): (&ObjectKey, &Strikes)) -> proto::ParkedObject {
    proto::ParkedObject {
        object: key.to_string(),
        reason: strikes.reason.clone(),
        at_unix_nanos: strikes.at.0,
    }
}

fn record(deletion: &Deletion) -> proto::DeletionRecord {
    proto::DeletionRecord {
        id: deletion.id.0,
        tenant: deletion.tenant.to_string(),
        query: deletion.query.clone(),
        whole_tenant: deletion.scope == DeletionScope::Tenant,
        named: deletion.named,
        at_unix_nanos: deletion.at.0,
        done_unix_nanos: deletion.done_at.map_or(0, |at| at.0),
        traces: deletion.traces,
        spans: deletion.spans,
    }
}

fn options(message: Option<proto::CompactionOptions>) -> Result<CompactionOptions, MetastoreError> {
    let message =
        message.ok_or_else(|| MetastoreError::BadRequest("options are missing".to_owned()))?;
    let number = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    let span = Duration::from_nanos;
    Ok(CompactionOptions {
        fan_in: number(message.fan_in).max(2),
        input_bytes_max: message.input_bytes_max,
        levels: message.levels,
        window: span(message.window),
        settle: span(message.settle),
        own_object_bytes: message.own_object_bytes,
        retention: Retention {
            age: (message.retention_age > 0).then(|| span(message.retention_age)),
            bytes: (message.retention_bytes > 0).then_some(message.retention_bytes),
        },
        deletion_delay: span(message.deletion_delay),
        grace: span(message.grace),
        horizon: span(message.horizon),
    })
}

fn request_id(bytes: &[u8]) -> Result<RequestId, MetastoreError> {
    let id = bytes.try_into().map_err(|_| MetastoreError::BadRequest("request id".to_owned()))?;
    Ok(RequestId(id))
}

fn after(time: UnixNanos, by: Duration) -> UnixNanos {
    UnixNanos(time.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
}

#[tonic::async_trait]
impl CompactionService for Metastore {
    async fn lease(
        &self,
        request: Request<proto::LeaseRequest>,
    ) -> Result<Response<proto::LeaseResponse>, Status> {
        let is_forwarded = is_forwarded(request.metadata());
        self.observed("lease", Metastore::lease(self, request.into_inner(), is_forwarded)).await
    }

    async fn garbage(
        &self,
        request: Request<proto::GarbageRequest>,
    ) -> Result<Response<proto::GarbageResponse>, Status> {
        self.observed("garbage", Metastore::garbage(self, request.into_inner())).await
    }

    async fn check(
        &self,
        request: Request<proto::CheckRequest>,
    ) -> Result<Response<proto::CheckResponse>, Status> {
        self.observed("check", Metastore::check(self, request.into_inner())).await
    }

    async fn deletions(
        &self,
        request: Request<proto::DeletionsRequest>,
    ) -> Result<Response<proto::DeletionsResponse>, Status> {
        self.observed("deletions", self.records(request.into_inner())).await
    }

    async fn parked(
        &self,
        _: Request<proto::ParkedRequest>,
    ) -> Result<Response<proto::ParkedResponse>, Status> {
        self.observed("parked", Metastore::parked(self)).await
    }

    async fn quarantined(
        &self,
        _: Request<proto::QuarantinedRequest>,
    ) -> Result<Response<proto::QuarantinedResponse>, Status> {
        self.observed("quarantined", Metastore::quarantined(self)).await
    }
}
