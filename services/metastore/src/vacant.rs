//! A member whose disk holds no catalog, in front of a bucket that has objects of one.
//!
//! It must not begin a new cluster: that would know none of the objects, and would in time delete them
//! as orphans. So it waits, for another member that has the catalog and lets it in, or for an operator
//! who restores one here.

use std::sync::Arc;
use std::time::Duration;

use clew_node::{Deps, Problem};
use clew_proto::metastore::v1::catalog_service_server::{CatalogService, CatalogServiceServer};
use clew_proto::metastore::v1::member_service_client::MemberServiceClient;
use clew_proto::metastore::v1::{
    BackupRequest, BackupResponse, HelloRequest, RestoreRequest, RestoreResponse,
};
use clew_raft::GroupId;
use futures::future::join_all;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::leader::is_forwarded;
use crate::restore::{Salvage, answer, is_used, may_go_on, plant, take_up};
use crate::service::{Metastore, Parts};
use crate::{Config, MetastoreError};

/// Between two looks at the bucket or at other members.
const LOOK_DELAY: Duration = Duration::from_millis(300);

/// How long another member may take to say that it is there.
const HELLO_MAX: Duration = Duration::from_secs(2);

/// Looks without success before it is said what is waited for; then every so many again.
const QUIET_LOOKS: usize = 20;

/// How long a member that has lost its majority may take to find that out.
const LEADER_MAX: Duration = Duration::from_secs(5);

/// See the [module](self).
#[derive(Clone)]
pub struct Vacant(Arc<Inner>);

struct Inner {
    salvage: Salvage,
    parts: Parts,
    /// Held by the restore that is under way; whether one is done.
    done: tokio::sync::Mutex<bool>,
    told: watch::Sender<bool>,
}

impl Config {
    /// Looks whether this member has to wait for a catalog before it is built; takes up one that was
    /// recovered.
    ///
    /// # Errors
    /// [`MetastoreError`] when the disk fails.
    pub async fn look(&self, deps: &Deps, parts: &Parts) -> Result<Option<Vacant>, MetastoreError> {
        let store = parts.host.store();
        take_up(&parts.data_dir, deps, store, &parts.addr).await?;
        let held = store.groups_on_disk()?;
        if held.iter().any(|(group, _)| *group == GroupId::metastore()) {
            return Ok(None);
        }
        let mut looks = 0usize;
        let is_used = loop {
            match is_used(&parts.bucket).await {
                Ok(is_used) => break is_used,
                Err(error) if looks.is_multiple_of(QUIET_LOOKS) => {
                    tracing::warn!(%error, "a new metastore has to know first whether the bucket is empty");
                }
                Err(_) => {}
            }
            looks += 1;
            deps.clock.sleep(LOOK_DELAY).await;
        };
        let salvage = Salvage { deps: deps.clone(), bucket: parts.bucket.clone() };
        Ok(is_used.then(|| {
            Vacant(Arc::new(Inner {
                salvage,
                parts: parts.clone(),
                done: tokio::sync::Mutex::default(),
                told: watch::Sender::new(false),
            }))
        }))
    }
}

impl Vacant {
    /// The service that restores.
    pub fn server(&self) -> CatalogServiceServer<Vacant> {
        let limit = clew_node::rpc::MESSAGE_BYTES_MAX;
        CatalogServiceServer::new(self.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit)
    }

    /// Completes once there is a catalog, here or at another member.
    pub async fn wait(&self) {
        let clock = &self.0.salvage.deps.clock;
        let mut told = self.0.told.subscribe();
        for look in 0usize.. {
            if *told.borrow() {
                return;
            }
            if let Some(other) = self.other_with_catalog().await {
                tracing::info!(other, "another member has the catalog");
                return;
            }
            if look.is_multiple_of(QUIET_LOOKS) && look > 0 {
                tracing::warn!(
                    "the bucket holds objects of a catalog that no member has: waiting for one that \
                     has it, or for `clew catalog restore` (for a new cluster use an empty bucket, or \
                     another prefix)"
                );
            }
            let restored = told.wait_for(|done| *done);
            if let Some(Ok(_)) = clock.timeout(LOOK_DELAY, restored).await {
                return;
            }
        }
    }

    async fn other_with_catalog(&self) -> Option<String> {
        let Parts { members, addr, .. } = &self.0.parts;
        let others = members.iter().filter(|member| *member != addr);
        let hellos = join_all(others.map(|other| async move {
            let mut client = MemberServiceClient::new(self.0.parts.pool.get(other).ok()?);
            let hello = client.hello(HelloRequest {});
            let hello = self.0.salvage.deps.clock.timeout(HELLO_MAX, hello).await?.ok()?;
            hello.into_inner().belongs.then(|| other.clone())
        }));
        hellos.await.into_iter().flatten().next()
    }

    async fn do_restore(&self, request: RestoreRequest) -> Result<RestoreResponse, MetastoreError> {
        let inner = &self.0;
        let mut done = inner.done.lock().await;
        if *done {
            return Err(MetastoreError::HasCatalog("the catalog was restored already".to_owned()));
        }
        if let Some(other) = self.other_with_catalog().await {
            let message = format!("{other} has a catalog: this member joins that");
            return Err(MetastoreError::HasCatalog(message));
        }
        let restored = inner.salvage.work_out(&request, None).await?;
        if !may_go_on(&request, &restored) {
            return Ok(answer(&restored, false, false));
        }
        let store = inner.parts.host.store();
        plant(&inner.salvage.deps, store, &inner.parts.addr, &restored.state).await?;
        *done = true;
        inner.told.send_replace(true);
        tracing::warn!(
            revision = restored.report.revision,
            adopted = restored.report.adopted,
            gaps = restored.report.gaps.len(),
            "the catalog is restored"
        );
        Ok(answer(&restored, true, false))
    }
}

/// A restore goes on if whoever asked for it goes away.
async fn unhurried(
    deps: &Deps,
    work: impl Future<Output = Result<RestoreResponse, MetastoreError>> + Send + 'static,
) -> Result<Response<RestoreResponse>, Status> {
    let done = deps.tasks.run(work).await.map_err(MetastoreError::from);
    let done = done.and_then(|done| done);
    done.map(Response::new).map_err(|error| Status::from(Problem::from(error)))
}

#[tonic::async_trait]
impl CatalogService for Vacant {
    async fn backup(&self, _: Request<BackupRequest>) -> Result<Response<BackupResponse>, Status> {
        let error = MetastoreError::NoBackup("this member has no catalog".to_owned());
        Err(Status::from(Problem::from(error)))
    }

    async fn restore(
        &self,
        request: Request<RestoreRequest>,
    ) -> Result<Response<RestoreResponse>, Status> {
        let (vacant, request) = (self.clone(), request.into_inner());
        unhurried(&self.0.salvage.deps, async move { vacant.do_restore(request).await }).await
    }
}

impl Metastore {
    /// The service for backups, and for a member that has lost the majority of its group.
    pub fn catalog_server(&self) -> CatalogServiceServer<Metastore> {
        let limit = clew_node::rpc::MESSAGE_BYTES_MAX;
        CatalogServiceServer::new(self.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit)
    }

    /// Makes what this member has on its disk the catalog of a group of its own.
    async fn recover(&self, request: RestoreRequest) -> Result<RestoreResponse, MetastoreError> {
        use clew_proto::metastore::v1::restore_request::Source;
        let inner = &self.0;
        if !matches!(request.source, Some(Source::OwnDisk(_))) {
            let message = "this member has a catalog: restore is for one that has none";
            return Err(MetastoreError::HasCatalog(message.to_owned()));
        }
        if inner.deps.clock.timeout(LEADER_MAX, inner.confirm()).await.is_some_and(|c| c.is_ok()) {
            let message = "the metastore has a leader and a majority: nothing has to be recovered";
            return Err(MetastoreError::HasCatalog(message.to_owned()));
        }
        let others = self.others_that_belong().await;
        if !others.is_empty() {
            let message = format!(
                "{} still has the log of the group: bring the majority back, or empty its disk first",
                others.join(", ")
            );
            return Err(MetastoreError::HasCatalog(message));
        }
        let mut own = inner.group.with_state(|machine| machine.state.clone());
        // Nobody is left who could say whether these were committed. They may have been answered.
        for (index, command) in inner.group.unapplied().await? {
            own.apply(index, &command);
        }
        let salvage = Salvage { deps: inner.deps.clone(), bucket: inner.bucket.clone() };
        let own = own.cluster().is_some().then_some(own);
        let restored = salvage.work_out(&request, own).await?;
        if !may_go_on(&request, &restored) {
            return Ok(answer(&restored, false, false));
        }
        crate::restore::keep(&inner.data_dir, &inner.deps, &restored.state)?;
        tracing::warn!(
            revision = restored.report.revision,
            "the process ends, to begin the metastore anew with what this member has"
        );
        inner.restart.stop();
        Ok(answer(&restored, true, true))
    }
}

#[tonic::async_trait]
impl CatalogService for Metastore {
    /// Not limited by the time of other requests: a catalog may be large.
    async fn backup(
        &self,
        request: Request<BackupRequest>,
    ) -> Result<Response<BackupResponse>, Status> {
        let is_forwarded = is_forwarded(request.metadata());
        let made = async {
            match self.0.leads() {
                true => self.back_up().await,
                false if is_forwarded => Err(MetastoreError::NotLeader),
                false => self.0.pass_on_backup().await,
            }
        };
        let made = made.await.map_err(|error: MetastoreError| Status::from(Problem::from(error)));
        made.map(Response::new)
    }

    async fn restore(
        &self,
        request: Request<RestoreRequest>,
    ) -> Result<Response<RestoreResponse>, Status> {
        let (metastore, request) = (self.clone(), request.into_inner());
        unhurried(&self.0.deps, async move { metastore.recover(request).await }).await
    }
}
