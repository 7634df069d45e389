//! Catalog views: confirmed by the metastore for every query, decoded once for each change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clew_catalog::View;
use clew_model::{ErrorKind, TenantId};
use clew_node::rpc::{Channel, MESSAGE_BYTES_MAX};
use clew_node::{Clock, Problem};
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::{ViewRequest, ViewResponse};
use parking_lot::Mutex;

use super::missing::Missing;
use crate::Config;

/// Between two attempts to reach the metastore.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// What one attempt may take at least, however short the wait for a leader: a large view has to be
/// sent, too.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);

/// The views of tenants that were asked for lately.
pub(super) struct Views {
    client: MetastoreServiceClient<Channel>,
    clock: Clock,
    wait: Duration,
    age_max: Duration,
    objects_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    views: BTreeMap<TenantId, HeldView>,
    objects: usize,
    /// Since when every attempt to reach the metastore has failed.
    away_since: Option<Duration>,
}

#[derive(Clone)]
struct HeldView {
    view: Arc<View>,
    /// What the metastore called this state; it may be later than the view's own revision.
    revision: u64,
    confirmed_at: Duration,
    used_at: Duration,
    objects: usize,
}

impl Views {
    pub(super) fn new(metastore: Channel, clock: Clock, config: &Config) -> Views {
        Views {
            client: MetastoreServiceClient::new(metastore)
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            clock,
            wait: config.leader_wait.0,
            age_max: config.view_age_max.0,
            objects_max: config.cached_objects_max,
            held: Mutex::default(),
        }
    }

    /// The catalog as of a moment after this call began, as far as `tenant` is concerned. While the
    /// metastore is away it is the last one seen, noted in `missing`, unless that is too old.
    pub(super) async fn take(
        &self,
        tenant: &TenantId,
        missing: &mut Missing,
    ) -> Result<Arc<View>, Problem> {
        let known = self.held.lock().views.get(tenant).cloned();
        let known_revision = known.as_ref().map_or(0, |held| held.revision);
        let failure = match self.ask(tenant, known_revision).await {
            Ok(answer) => match self.accept(tenant, known.as_ref(), answer) {
                Ok(view) => return Ok(view),
                Err(problem) => problem,
            },
            Err(problem) => problem,
        };
        let now = self.clock.monotonic();
        let usable = known.filter(|held| now.saturating_sub(held.confirmed_at) <= self.age_max);
        let Some(held) = usable else { return Err(failure) };
        missing.add("metastore", "metastore".to_owned(), failure.message);
        Ok(held.view)
    }

    fn accept(
        &self,
        tenant: &TenantId,
        known: Option<&HeldView>,
        answer: ViewResponse,
    ) -> Result<Arc<View>, Problem> {
        let now = self.clock.monotonic();
        let view = match (answer.unchanged, known) {
            (true, Some(held)) => Arc::clone(&held.view),
            (true, None) => return Err(unreadable("unchanged from a view never seen")),
            (false, _) => {
                let view = View::decode(&answer.view).map_err(unreadable)?;
                if !view.covers(tenant) {
                    return Err(unreadable("the view does not cover the tenant"));
                }
                Arc::new(view)
            }
        };
        let objects = view.blocks(tenant).count() + 1;
        let held = HeldView {
            view: Arc::clone(&view),
            revision: answer.revision,
            confirmed_at: now,
            used_at: now,
            objects,
        };
        self.keep(tenant, held);
        Ok(view)
    }

    fn keep(&self, tenant: &TenantId, view: HeldView) {
        let mut held = self.held.lock();
        held.away_since = None;
        // A slower query may come back with an older answer.
        if held.views.get(tenant).is_some_and(|newer| newer.revision > view.revision) {
            return;
        }
        held.objects += view.objects;
        if let Some(old) = held.views.insert(tenant.clone(), view) {
            held.objects -= old.objects;
        }
        while held.objects > self.objects_max && held.views.len() > 1 {
            let oldest = held.views.iter().filter(|(other, _)| *other != tenant);
            let oldest = oldest.min_by_key(|(_, view)| view.used_at).map(|(t, _)| t.clone());
            let Some(gone) = oldest.and_then(|oldest| held.views.remove(&oldest)) else { break };
            held.objects -= gone.objects;
        }
    }

    /// Asks until there is an answer or the wait for a leader is over. If the metastore has been
    /// away for that long already, one attempt is enough; a refused one does not take long.
    async fn ask(&self, tenant: &TenantId, known_revision: u64) -> Result<ViewResponse, Problem> {
        let began = self.clock.monotonic();
        let since = self.held.lock().away_since.unwrap_or(began);
        let deadline = since.saturating_add(self.wait);
        loop {
            let request = ViewRequest {
                tenants: vec![tenant.to_string()],
                known_revision,
                ..ViewRequest::default()
            };
            let mut client = self.client.clone();
            let problem =
                match self.clock.timeout(self.wait.max(ATTEMPT_MIN), client.view(request)).await {
                    Some(Ok(answer)) => return Ok(answer.into_inner()),
                    Some(Err(status)) => Problem::from(status),
                    None => away("the metastore does not answer"),
                };
            let retryable = problem.kind.is_retryable()
                || matches!(problem.kind, ErrorKind::Fenced | ErrorKind::Cancelled);
            let over = self.clock.monotonic().saturating_add(RETRY_DELAY) >= deadline;
            if !retryable || over {
                self.held.lock().away_since.get_or_insert(began);
                return Err(problem);
            }
            self.clock.sleep(RETRY_DELAY).await;
        }
    }
}

fn away(message: &str) -> Problem {
    Problem::new(ErrorKind::Unavailable, "metastore_away", message)
}

fn unreadable(error: impl std::fmt::Display) -> Problem {
    Problem::new(
        ErrorKind::Unavailable,
        "metastore_answer",
        format!("the metastore's answer is unreadable: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use clew_catalog::State;
    use clew_node::clock::ManualTime;
    use clew_proto::metastore::v1::metastore_service_server::MetastoreServiceServer;

    use super::*;

    /// Answers nothing: what is tested here is kept before anyone is asked.
    #[derive(Clone)]
    struct Nobody;

    #[tonic::async_trait]
    impl clew_proto::metastore::v1::metastore_service_server::MetastoreService for Nobody {
        async fn apply(
            &self,
            _: tonic::Request<clew_proto::metastore::v1::ApplyRequest>,
        ) -> Result<tonic::Response<clew_proto::metastore::v1::ApplyResponse>, tonic::Status>
        {
            Err(tonic::Status::unavailable("nobody"))
        }

        async fn view(
            &self,
            _: tonic::Request<ViewRequest>,
        ) -> Result<tonic::Response<ViewResponse>, tonic::Status> {
            Err(tonic::Status::unavailable("nobody"))
        }
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    fn views(objects_max: usize) -> (Views, ManualTime) {
        let time = ManualTime::default();
        let config = Config { cached_objects_max: objects_max, ..Config::default() };
        let channel = Channel::local(MetastoreServiceServer::new(Nobody));
        (Views::new(channel, time.clock(), &config), time)
    }

    fn answer(tenant: &TenantId, revision: u64) -> ViewResponse {
        let view = State::new().view(std::slice::from_ref(tenant)).encode().into();
        ViewResponse { revision, view, ..ViewResponse::default() }
    }

    #[test]
    fn views_used_longest_ago_make_room() {
        let (views, time) = views(2);
        for name in ["a", "b", "c"] {
            time.advance(Duration::from_secs(1));
            views.accept(&tenant(name), None, answer(&tenant(name), 1)).unwrap();
        }
        let held = views.held.lock();
        let kept: Vec<&str> = held.views.keys().map(TenantId::as_str).collect();
        assert_eq!((kept, held.objects), (vec!["b", "c"], 2));
    }

    #[test]
    fn a_slower_answer_does_not_replace_a_newer_one() {
        let (views, _time) = views(10);
        let a = tenant("a");
        views.accept(&a, None, answer(&a, 7)).unwrap();
        views.accept(&a, None, answer(&a, 5)).unwrap();
        assert_eq!(views.held.lock().views[&a].revision, 7);
    }

    #[test]
    fn hostile_answers_are_refused() {
        let (views, _time) = views(10);
        let a = tenant("a");
        let unchanged = ViewResponse { revision: 1, unchanged: true, ..ViewResponse::default() };
        assert!(views.accept(&a, None, unchanged).is_err());
        let garbage = ViewResponse { view: vec![0xff; 9].into(), ..answer(&a, 1) };
        assert!(views.accept(&a, None, garbage).is_err());
        assert!(views.accept(&a, None, answer(&tenant("b"), 1)).is_err());
        assert!(views.held.lock().views.is_empty());
    }
}
