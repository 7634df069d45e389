//! Reporting damaged blocks: logged once, counted, and told to the metastore, which takes them out
//! of every query from then on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_catalog::{ObjectKey, Outcome, QuarantineBlock, QuarantineOutcome, Request as _};
use clew_model::TenantId;
use clew_node::rpc::Channel;
use clew_node::{Clock, Deps, Problem, Stop};
use clew_proto::metastore::v1::ApplyRequest;
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::metrics::QuerierMetrics;

/// Reports that wait to be sent; more are dropped and made again by the next query that reads the
/// block.
const WAITING_MAX: usize = 256;

/// Damaged blocks that are remembered as reported.
const REMEMBERED_MAX: usize = 65_536;

/// How long they are. Long before that every query leaves out what is quarantined, and one that was
/// found whole again and let back in has to be reported anew when it is damaged again.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// Between two attempts to tell the metastore.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A damaged block.
#[derive(Debug, Clone)]
struct Report {
    object: ObjectKey,
    tenant: TenantId,
    reason: String,
}

/// The blocks that were reported, each with when.
type Known = BTreeMap<(TenantId, ObjectKey), Duration>;

/// Where queries leave their reports.
#[derive(Clone)]
pub(super) struct Reports {
    clock: Clock,
    known: Arc<Mutex<Known>>,
    waiting: mpsc::Sender<Report>,
    metrics: Arc<QuerierMetrics>,
}

/// Sends the reports.
pub(crate) struct Reporter {
    client: MetastoreServiceClient<Channel>,
    clock: Clock,
    known: Arc<Mutex<Known>>,
    waiting: mpsc::Receiver<Report>,
}

impl Reports {
    pub(super) fn new(
        deps: &Deps,
        metastore: Channel,
        metrics: Arc<QuerierMetrics>,
    ) -> (Reports, Reporter) {
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        let known = Arc::<Mutex<Known>>::default();
        let reporter = Reporter {
            client: MetastoreServiceClient::new(metastore),
            clock: deps.clock.clone(),
            known: Arc::clone(&known),
            waiting,
        };
        (Reports { clock: deps.clock.clone(), known, waiting: sender, metrics }, reporter)
    }

    /// Notes that `tenant`'s block of `object` failed verification.
    pub(super) fn damaged(&self, object: ObjectKey, tenant: &TenantId, reason: &str) {
        let place = (tenant.clone(), object);
        let now = self.clock.monotonic();
        {
            let mut known = self.known.lock();
            known.retain(|_, at| now.saturating_sub(*at) < REMEMBERED_FOR);
            if known.contains_key(&place) || known.len() >= REMEMBERED_MAX {
                return;
            }
            let report = Report { object, tenant: tenant.clone(), reason: reason.to_owned() };
            if self.waiting.try_send(report).is_err() {
                return;
            }
            known.insert(place, now);
        }
        self.metrics.damaged_blocks.inc();
        tracing::error!(%object, %tenant, reason, "a block is damaged");
    }
}

impl Reporter {
    /// Sends reports until `stop`.
    pub(crate) async fn run(mut self, stop: Stop) {
        while let Some(Some(report)) = stop.or(self.waiting.recv()).await {
            while let Err(problem) = self.send(&report).await {
                let (object, tenant) = (&report.object, &report.tenant);
                if !problem.kind.is_retryable() {
                    tracing::warn!(%object, %tenant, %problem, "a damaged block is not quarantined");
                    // The next query that reads the block tries again.
                    self.known.lock().remove(&(report.tenant.clone(), report.object));
                    break;
                }
                if stop.or(self.clock.sleep(RETRY_DELAY)).await.is_none() {
                    return;
                }
            }
        }
    }

    async fn send(&self, report: &Report) -> Result<(), Problem> {
        let Report { object, tenant, reason } = report.clone();
        let command = QuarantineBlock { object, tenant, reason }.into_command();
        let command = Bytes::from(command.encode(self.clock.now_unix()));
        let answer = self.client.clone().apply(ApplyRequest { command }).await?.into_inner();
        let refused = |message: String| {
            Problem::new(clew_model::ErrorKind::Internal, "quarantine_refused", message)
        };
        let outcome =
            Outcome::decode(&answer.outcome).map_err(|error| refused(error.to_string()))?;
        match QuarantineBlock::answer(outcome) {
            // A block that is gone needs no quarantine.
            Ok(
                QuarantineOutcome::Quarantined
                | QuarantineOutcome::AlreadyQuarantined
                | QuarantineOutcome::UnknownBlock,
            ) => Ok(()),
            Err(refusal) => {
                Err(Problem::new(refusal.kind(), "quarantine_refused", refusal.to_string()))
            }
        }
    }
}
