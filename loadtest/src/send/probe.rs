//! Reads while spans are sent: how soon after its ack a span is found, by id and by search, and
//! how long searches take meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clew_node::{Clock, Tasks};
use http::StatusCode;
use parking_lot::Mutex;

use super::feed::{Batch, Sample};
use crate::check::{holds_span, names_trace};
use crate::measure::{ReadKind, Stats};
use crate::target::{Seconds, Tempo};

/// How many reads may be under way.
const IN_FLIGHT_MAX: usize = 256;
/// The first pause between attempts to find a span; each further one is half as long again.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// The longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// How long a span is looked for.
const LOOK_FOR: Duration = Duration::from_secs(30);

/// The reads of a run.
pub(super) struct Probes {
    pub(super) tempo: Tempo,
    pub(super) stats: Arc<Stats>,
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
    /// The time range of searches.
    pub(super) range: Seconds,
    /// A span found later than this after its ack is late.
    pub(super) found_within: Duration,
    /// Reads that wait for the next ack.
    pub(super) wanted: Mutex<VecDeque<ReadKind>>,
    pub(super) in_flight: AtomicUsize,
}

/// What is searched for while sending.
const SEARCHES: [&str; 3] = [
    r#"{ span.http.request.method = "GET" }"#,
    r#"{ resource.service.name = "checkout" && status = error }"#,
    "{ span.http.response.status_code >= 500 }",
];

impl Probes {
    /// Starts `rate` reads per second until `stopped` says so. Half of them look for the next
    /// acknowledged span.
    pub(super) async fn run(self: Arc<Self>, rate: f64, tenants: u64, stopped: impl Fn() -> bool) {
        let start = self.clock.monotonic();
        let mut count: u64 = 0;
        while !stopped() {
            let due = Duration::try_from_secs_f64(count as f64 / rate).unwrap_or(Duration::MAX);
            let now = self.clock.monotonic().saturating_sub(start);
            // A low rate must not keep the run from ending.
            self.clock.sleep(due.saturating_sub(now).min(Duration::from_millis(200))).await;
            if due > now + Duration::from_millis(200) {
                continue;
            }
            let turn = count / 4;
            match count % 4 {
                0 => self.want(ReadKind::FoundById),
                1 => self.want(ReadKind::FoundBySearch),
                _ => {
                    let at = usize::try_from(turn).unwrap_or(0) % SEARCHES.len();
                    self.start(Self::search(Arc::clone(&self), turn % tenants, SEARCHES[at]));
                }
            }
            count += 1;
        }
    }

    /// Ends when no read is under way any more.
    pub(super) async fn finish(&self) {
        self.wanted.lock().clear();
        while self.in_flight.load(Ordering::Relaxed) > 0 {
            self.clock.sleep(Duration::from_millis(20)).await;
        }
    }

    fn want(&self, kind: ReadKind) {
        let mut wanted = self.wanted.lock();
        if wanted.len() < IN_FLIGHT_MAX {
            wanted.push_back(kind);
        } else {
            self.stats.read_skipped();
        }
    }

    /// A request was acknowledged at `acked` by the clock: look for it if that is wanted.
    pub(super) fn offer(self: &Arc<Self>, batch: &Batch, acked: Duration) {
        let Some(sample) = &batch.sample else { return };
        let Some(kind) = self.wanted.lock().pop_front() else { return };
        let look = Self::look(Arc::clone(self), kind, batch.tenant, sample.clone(), acked);
        self.start(look);
    }

    fn start(self: &Arc<Self>, read: impl Future<Output = ()> + Send + 'static) {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= IN_FLIGHT_MAX {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            self.stats.read_skipped();
            return;
        }
        let probes = Arc::clone(self);
        self.tasks.spawn(async move {
            read.await;
            probes.in_flight.fetch_sub(1, Ordering::Relaxed);
        });
    }

    async fn search(self: Arc<Self>, tenant: u64, query: &'static str) {
        match self.tempo.search(tenant, query, 20, self.range).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                self.stats.read(ReadKind::Search, answer.latency);
            }
            Ok(answer) => self.stats.read_failed(&format!("search: HTTP {}", answer.status)),
            Err(error) => self.stats.read_failed(&failure("search", &error)),
        }
    }

    /// Asks for a span until it is found.
    async fn look(self: Arc<Self>, kind: ReadKind, tenant: u64, sample: Sample, acked: Duration) {
        let mut pause = PAUSE_MIN;
        loop {
            let (latency, found) = match kind {
                ReadKind::FoundBySearch => self.by_search(tenant, &sample).await,
                _ => self.by_id(tenant, &sample).await,
            };
            let since = self.clock.monotonic().saturating_sub(acked);
            if let Some(latency) = latency {
                let plain =
                    if kind == ReadKind::FoundById { ReadKind::ById } else { ReadKind::Search };
                self.stats.read(plain, latency);
            }
            if found {
                self.stats.read(kind, since);
                if since > self.found_within {
                    self.stats.late(false, "");
                }
                return;
            }
            if since > LOOK_FOR {
                let what = format!("never found: trace {} span {}", sample.trace, sample.span);
                self.stats.late(true, &what);
                return;
            }
            self.clock.sleep(pause).await;
            pause = (pause * 3 / 2).min(PAUSE_MAX);
        }
    }

    /// The latency of an answer, and whether it holds the span.
    async fn by_id(&self, tenant: u64, sample: &Sample) -> (Option<Duration>, bool) {
        match self.tempo.trace(tenant, sample.trace).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                (Some(answer.latency), holds_span(&answer.body, sample.span))
            }
            Ok(answer) if answer.status == StatusCode::NOT_FOUND => (Some(answer.latency), false),
            Ok(answer) => {
                self.stats.read_failed(&format!("by id: HTTP {}", answer.status));
                (None, false)
            }
            Err(error) => {
                self.stats.read_failed(&failure("by id", &error));
                (None, false)
            }
        }
    }

    async fn by_search(&self, tenant: u64, sample: &Sample) -> (Option<Duration>, bool) {
        let query = format!("{{ span.request.id = \"{}\" }}", sample.request_id);
        match self.tempo.search(tenant, &query, 20, self.range).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                let found = names_trace(answer.status, &answer.body, sample.trace);
                (Some(answer.latency), found)
            }
            Ok(answer) => {
                self.stats.read_failed(&format!("search: HTTP {}", answer.status));
                (None, false)
            }
            Err(error) => {
                self.stats.read_failed(&failure("search", &error));
                (None, false)
            }
        }
    }
}

/// A message without the address, which is different every time.
fn failure(what: &str, error: &crate::Error) -> String {
    match error {
        crate::Error::NoAnswer { reason, .. } => format!("{what}: {reason}"),
        error => format!("{what}: {error}"),
    }
}
