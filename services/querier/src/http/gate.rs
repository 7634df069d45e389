//! The way every request goes: counted, timed, traced, given its turn and its deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use clew_node::telemetry::TRACE_TARGET;
use http::StatusCode;
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::Api;
use super::fault::Fault;
use crate::metrics::QuerierMetrics;

/// Lets a bounded number of queries run, and a bounded number wait.
pub(crate) struct Gate {
    running: Semaphore,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Gate {
    pub(crate) fn new(running_max: usize, waiting_max: usize) -> Gate {
        Gate { running: Semaphore::new(running_max), waiting: AtomicUsize::new(0), waiting_max }
    }

    async fn enter<F: Future>(
        &self,
        metrics: &QuerierMetrics,
        query: F,
    ) -> Result<F::Output, Fault> {
        let permit = match self.running.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let _place = Place::take(self, metrics)?;
                let permit = self.running.acquire().await;
                permit.map_err(|_| Fault::new(StatusCode::SERVICE_UNAVAILABLE, "shutting down"))?
            }
        };
        let _running = Counted::new(&metrics.inflight);
        let output = query.await;
        drop(permit);
        Ok(output)
    }
}

/// A place in the queue, given back however the wait ends.
struct Place<'a> {
    gate: &'a Gate,
    _counted: Counted<'a>,
}

impl<'a> Place<'a> {
    fn take(gate: &'a Gate, metrics: &'a QuerierMetrics) -> Result<Place<'a>, Fault> {
        let grown = |waiting: usize| (waiting < gate.waiting_max).then_some(waiting + 1);
        if gate.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_err() {
            let mut fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, "job queue full");
            fault.retry_after = Some(Duration::from_secs(1));
            return Err(fault);
        }
        Ok(Place { gate, _counted: Counted::new(&metrics.queued) })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.gate.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Raises a gauge while it lives.
struct Counted<'a>(&'a prometheus::IntGauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a prometheus::IntGauge) -> Counted<'a> {
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts a request when it ends; one that is dropped before had its client go away.
struct Tally<'a> {
    api: &'a Api,
    route: &'static str,
    began: Duration,
    code: u16,
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        let took = self.api.deps.clock.monotonic().saturating_sub(self.began);
        let metrics = &self.api.metrics;
        let code = self.code.to_string();
        metrics.requests.with_label_values(&[self.route, code.as_str()]).inc();
        metrics.seconds.with_label_values(&[self.route]).observe(took.as_secs_f64());
    }
}

/// Runs a query of `route` under the gate and the deadline.
pub(crate) async fn guarded<F>(api: &Arc<Api>, route: &'static str, query: F) -> Response
where
    F: Future<Output = Result<Response, Fault>>,
{
    // Boxed: the futures of some queries are large.
    let query = Box::pin(query);
    let answered = admitted(api, route, query, |response| response.status().as_u16()).await;
    answered.unwrap_or_else(IntoResponse::into_response)
}

/// The same for an answer of any form; `code_of` is how a good one is counted.
pub(crate) async fn admitted<T>(
    api: &Arc<Api>,
    route: &'static str,
    query: impl Future<Output = Result<T, Fault>>,
    code_of: fn(&T) -> u16,
) -> Result<T, Fault> {
    let clock = &api.deps.clock;
    let mut tally = Tally { api, route, began: clock.monotonic(), code: 499 };
    let span =
        tracing::info_span!(target: TRACE_TARGET, "query", route, code = tracing::field::Empty);
    let limited = api.gate.enter(&api.metrics, query);
    let deadline = api.config.query_timeout.0;
    let answered = clock.timeout(deadline, limited).instrument(span.clone()).await;
    let answer = match answered {
        Some(Ok(answer)) => answer,
        Some(Err(fault)) => Err(fault),
        None => Err(Fault::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("the query took longer than {}", api.config.query_timeout),
        )),
    };
    tally.code = answer.as_ref().map_or_else(|fault| fault.status.as_u16(), code_of);
    span.record("code", tally.code);
    answer
}
