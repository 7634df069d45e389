//! A metastore without raft: the real catalog behind the real messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use clew_catalog::{Outcome, State};
use clew_model::{ErrorKind, TenantId};
use clew_node::Problem;
use clew_proto::metastore::v1::metastore_service_server::MetastoreService;
use clew_proto::metastore::v1::{ApplyRequest, ApplyResponse, ViewRequest, ViewResponse};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

/// Clones share the catalog.
#[derive(Clone, Default)]
pub(crate) struct FakeMetastore {
    state: Arc<Mutex<State>>,
    /// While set, every call is refused as without a leader.
    pub(crate) away: Arc<AtomicBool>,
    /// Views that were sent whole.
    pub(crate) whole_views: Arc<AtomicUsize>,
}

impl FakeMetastore {
    /// Applies a command as its leader would.
    pub(crate) fn apply_bytes(&self, command: &[u8]) -> (u64, Outcome) {
        let mut state = self.state.lock();
        let revision = state.revision() + 1;
        (revision, state.apply(revision, command))
    }

    /// Looks at the catalog.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }

    fn present(&self) -> Result<(), Status> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Problem::new(ErrorKind::Unavailable, "no_leader", "no leader").into());
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl MetastoreService for FakeMetastore {
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        self.present()?;
        let (revision, outcome) = self.apply_bytes(&request.into_inner().command);
        let outcome = Bytes::from(outcome.encode());
        Ok(Response::new(ApplyResponse { revision, outcome }))
    }

    async fn view(&self, request: Request<ViewRequest>) -> Result<Response<ViewResponse>, Status> {
        self.present()?;
        let request = request.into_inner();
        let tenants: Result<Vec<TenantId>, _> =
            request.tenants.iter().map(|tenant| TenantId::parse(tenant)).collect();
        let tenants = tenants.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let state = self.state.lock();
        let revision = state.revision();
        if request.known_revision == revision {
            return Ok(Response::new(ViewResponse {
                revision,
                unchanged: true,
                ..ViewResponse::default()
            }));
        }
        self.whole_views.fetch_add(1, Ordering::SeqCst);
        let view = Bytes::from(state.view(&tenants).encode());
        Ok(Response::new(ViewResponse { revision, view, ..ViewResponse::default() }))
    }
}
