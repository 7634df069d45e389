//! The clients of the cluster: writers that send again what was not acknowledged, readers by id,
//! searchers, and who has traces deleted. Each checks what it is told against the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use clew_node::{Rng, Stop};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::http_client::{HttpClient, Reply, encoded};
use crate::journal::Journal;
use crate::ledger::{Deletion, Fate, GroupIndex, Ledger, SPANS, Trace, TraceIndex};

/// How long a client waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How often a writer sends the same bytes before it gives up.
const ATTEMPTS: u64 = 6;

/// What the actors have seen, for the report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) batches_acked: u64,
    pub(crate) batches_given_up: u64,
    pub(crate) reads_complete: u64,
    pub(crate) reads_partial: u64,
    pub(crate) reads_failed: u64,
    pub(crate) searches_complete: u64,
    pub(crate) searches_partial: u64,
    pub(crate) searches_failed: u64,
    pub(crate) deleted: u64,
}

/// What all actors share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Actors {
    pub(crate) client: HttpClient,
    pub(crate) ledger: Ledger,
    pub(crate) journal: Journal,
    pub(crate) rng: Rng,
    pub(crate) distributors: Vec<String>,
    pub(crate) queriers: Vec<String>,
    pub(crate) tally: Arc<Mutex<Tally>>,
    pub(crate) haste: Haste,
}

/// Whether clients do everything ten times as often, for the moments in which it tells the most. Clones are
/// the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Haste(Arc<AtomicBool>);

impl Haste {
    const FACTOR: u64 = 10;

    /// Hurries clients from their next pause on, or no more.
    pub(crate) fn set(&self, is_on: bool) {
        self.0.store(is_on, Ordering::Relaxed);
    }

    fn factor(&self) -> u64 {
        if self.0.load(Ordering::Relaxed) { Haste::FACTOR } else { 1 }
    }
}

/// The names of a trace's spans. The first is the parent of all others.
const NAMES: [&str; SPANS] = ["root", "first", "second", "third"];

/// Nothing of a trace is on its way any more when it ended so long ago: longer than the longest pause,
/// and what a client waits for.
const SETTLED: Duration = Duration::from_secs(90);

/// Traces that one deletion names at most.
const DELETED_MAX: u64 = 6;

/// Spans on their way in one request.
struct Batch {
    number: u64,
    tenant: usize,
    pieces: Vec<(TraceIndex, usize)>,
    body: Bytes,
}

impl Actors {
    fn pick<'a>(&self, from: &'a [String]) -> &'a str {
        let at = self.rng.below(from.len() as u64);
        from.get(usize::try_from(at).unwrap_or(0)).map_or("nobody", String::as_str)
    }

    fn millis(&self, min: u64, max: u64) -> Duration {
        Duration::from_millis(min + self.rng.below(max - min + 1))
    }

    /// How long to wait before the next request, in milliseconds; less in haste.
    fn pause(&self, min: u64, max: u64) -> Duration {
        let factor = self.haste.factor();
        self.millis(min / factor, max / factor)
    }

    /// Writes for a tenant until `stop`: new traces, and what is missing of earlier ones.
    pub(crate) async fn write(self, tenant: usize, pause_max: u64, stop: Stop) {
        let clock = self.client.clock.clone();
        let mut number = self.rng.below(1_000) * 1_000_000;
        let mut open: Vec<(Duration, TraceIndex)> = Vec::new();
        while stop.or(clock.sleep(self.pause(20, pause_max))).await.is_some() {
            number += 1;
            let now = clock.monotonic();
            let mut pieces = Vec::new();
            // The second halves whose time has come, beside the first half of a new trace or two.
            open.retain(|(at, trace)| {
                let is_due = *at <= now;
                if is_due {
                    pieces.extend([(*trace, 2), (*trace, 3)]);
                }
                !is_due
            });
            for _ in 0..=self.rng.below(2) {
                let trace = self.new_trace(tenant);
                if self.rng.below(4) == 0 {
                    pieces.extend((0..SPANS).map(|span| (trace, span)));
                } else {
                    pieces.extend([(trace, 0), (trace, 1)]);
                    open.push((now + self.millis(500, 45_000), trace));
                }
            }
            let body = self.encode(&pieces);
            let batch = Batch { number, tenant, pieces, body };
            if stop.or(self.send(&batch)).await.is_none() {
                return;
            }
            for (trace, span) in &batch.pieces {
                if *span + 1 == SPANS {
                    self.ledger.ended(*trace, clock.now_unix().0);
                }
            }
        }
    }

    fn new_trace(&self, tenant: usize) -> TraceIndex {
        let id = u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64());
        self.ledger.add(Trace {
            id,
            tenant,
            deletion: Deletion::None,
            ended_unix_nanos: None,
            spans: std::array::from_fn(|_| self.rng.next_u64().max(1)),
            fates: [Fate::Unsent; SPANS],
            began_unix_nanos: self.client.clock.now_unix().0,
        })
    }

    /// OTLP/JSON of the spans.
    fn encode(&self, pieces: &[(TraceIndex, usize)]) -> Bytes {
        let span = |(index, at): &(TraceIndex, usize)| {
            let trace = self.ledger.trace(*index);
            let start = trace.began_unix_nanos + 1_000_000 * *at as u64;
            let name = NAMES[*at];
            let mut span = json!({
                "traceId": trace.hex(),
                "spanId": format!("{:016x}", trace.spans[*at]),
                "name": name,
                "kind": 2,
                "startTimeUnixNano": start.to_string(),
                "endTimeUnixNano": (start + 500_000).to_string(),
                "attributes": [
                    {"key": "group", "value": {"stringValue": format!("g{}", self.ledger.group_of(*index))}},
                    {"key": "at", "value": {"intValue": at.to_string()}},
                ],
            });
            if *at > 0 {
                span["parentSpanId"] = json!(format!("{:016x}", trace.spans[0]));
            }
            span
        };
        let spans: Vec<Value> = pieces.iter().map(span).collect();
        let resource = json!({"attributes": [
            {"key": "service.name", "value": {"stringValue": "shop"}},
        ]});
        let body = json!({"resourceSpans": [
            {"resource": resource, "scopeSpans": [{"spans": spans}]},
        ]});
        Bytes::from(body.to_string())
    }

    /// Sends a batch until it is acknowledged, or given up.
    async fn send(&self, batch: &Batch) {
        self.ledger.sent(&batch.pieces);
        let attempts = if self.rng.below(20) == 0 { 1 } else { ATTEMPTS };
        for attempt in 1..=attempts {
            let to = self.pick(&self.distributors);
            let body = batch.body.clone();
            let sent = self.client.post_json(to, "/v1/traces", batch.tenant, body, ANSWER_MAX);
            let reply = sent.await;
            let status = reply.as_ref().map_or(0, |reply| reply.status);
            let number = batch.number;
            self.journal.note(format_args!("write {number} via {to} attempt {attempt}: {status}"));
            match reply {
                Some(reply) if reply.status == 200 => {
                    if reply.json()["partialSuccess"]["rejectedSpans"].is_string() {
                        let text = reply.text();
                        self.journal.violation("P1", format_args!("good spans refused: {text}"));
                    }
                    self.ledger.acked(&batch.pieces);
                    self.tally.lock().batches_acked += 1;
                    // A client whose answer was lost on its side sends it all again.
                    if self.rng.below(20) == 0 {
                        let to = self.pick(&self.distributors);
                        let body = batch.body.clone();
                        let tenant = batch.tenant;
                        let sent =
                            self.client.post_json(to, "/v1/traces", tenant, body, ANSWER_MAX);
                        drop(sent.await);
                    }
                    return;
                }
                Some(reply) if reply.status == 400 => {
                    let text = reply.text();
                    self.journal.violation("P1", format_args!("a good batch is bad: {text}"));
                    return;
                }
                _ => self.client.clock.sleep(self.pause(100, 1_500)).await,
            }
        }
        self.tally.lock().batches_given_up += 1;
    }

    /// Reads traces by id until `stop`.
    pub(crate) async fn read(self, stop: Stop) {
        while stop.or(self.client.clock.sleep(self.pause(100, 3_000))).await.is_some() {
            let count = self.ledger.len() as u64;
            if count == 0 {
                continue;
            }
            // Half of the time one of the newest.
            let back = match self.rng.below(2) {
                0 => self.rng.below(count.min(20)),
                _ => self.rng.below(count),
            };
            let index = usize::try_from(count - 1 - back).unwrap_or(0);
            if self.rng.below(20) == 0
                && stop.or(self.peep(index, self.pick(&self.queriers))).await.is_none()
            {
                return;
            }
            if stop.or(self.read_one(index, self.pick(&self.queriers))).await.is_none() {
                return;
            }
        }
    }

    /// Reads a trace and checks the answer; gives whether it was complete.
    pub(crate) async fn read_one(&self, index: TraceIndex, querier: &str) -> bool {
        let before = self.ledger.trace(index);
        let path = format!("/api/v2/traces/{}", before.hex());
        let reply = self.client.get(querier, &path, before.tenant, ANSWER_MAX).await;
        let after = self.ledger.trace(index);
        let is_absent = |reply: &Reply| reply.status == 404 && before.acked().is_empty();
        if reply.as_ref().is_some_and(is_absent) {
            return true;
        }
        let Some(reply) = reply.filter(|reply| reply.status == 200) else {
            self.tally.lock().reads_failed += 1;
            return false;
        };
        let id = before.hex();
        let found = spans_of(&reply.json());
        for (span, times) in &found {
            if *times > 1 {
                self.journal
                    .violation("P3", format_args!("span {span:016x} of {id} {times} times"));
            }
            let fate = after.spans.iter().position(|known| known == span).map(|at| after.fates[at]);
            if fate.is_none_or(|fate| fate == Fate::Unsent) {
                self.journal.violation("P3", format_args!("nobody sent span {span:016x} of {id}"));
            }
        }
        // Who asked for a deletion in between may have got it.
        let acked = if after.deletion == Deletion::None { before.acked() } else { after.acked() };
        if before.deletion == Deletion::Done && !found.is_empty() && reply.partial.is_none() {
            let count = found.len();
            self.journal.violation("D1", format_args!("{count} spans of {id} were deleted"));
        }
        let lost: Vec<_> = acked.iter().filter(|span| !found.contains_key(*span)).collect();
        let partial = reply.partial.is_some();
        let (there, of) = (found.len(), acked.len());
        self.journal.note(format_args!("read {id} via {querier}: {there}, {of} acked, {partial}"));
        if partial {
            self.tally.lock().reads_partial += 1;
            return false;
        }
        self.tally.lock().reads_complete += 1;
        if let Some(span) = lost.first() {
            let lost = lost.len();
            self.journal.violation(
                "P2",
                format_args!("{lost} acknowledged spans of {id} are not found, as {span:016x}"),
            );
        }
        true
    }

    /// Searches until `stop`.
    pub(crate) async fn search(self, stop: Stop) {
        while stop.or(self.client.clock.sleep(self.pause(1_000, 12_000))).await.is_some() {
            let count = self.ledger.groups();
            if count == 0 {
                continue;
            }
            let group = self.rng.below(count as u64);
            let group = usize::try_from(group).unwrap_or(0);
            let querier = self.pick(&self.queriers);
            let kind = self.rng.below(QUERIES);
            if stop.or(self.search_one(group, kind, querier)).await.is_none() {
                return;
            }
        }
    }

    /// Searches for the whole traces of a group and checks the answer; gives whether it was complete.
    pub(crate) async fn search_one(&self, group: GroupIndex, kind: u64, querier: &str) -> bool {
        let before = self.ledger.group(group);
        let query = query(kind, group);
        let path = format!("/api/search?limit=1000&spss=1&q={}", encoded(&query));
        let tenant = self.ledger.tenant_of(group);
        let reply = self.client.get(querier, &path, tenant, ANSWER_MAX).await;
        let after = self.ledger.group(group);
        let Some(reply) = reply.filter(|reply| reply.status == 200) else {
            self.tally.lock().searches_failed += 1;
            return false;
        };
        let partial = reply.partial.is_some();
        let found = traces_of(&reply);
        let there = found.len();
        self.journal.note(format_args!("search {query} via {querier}: {there} traces, {partial}"));
        for (id, times) in &found {
            if *times > 1 {
                self.journal
                    .violation("P3", format_args!("trace {id:032x} {times} times: {query}"));
            }
            let known = after.iter().find(|trace| trace.id == *id);
            let was_deleted = |trace: &Trace| trace.id == *id && trace.deletion == Deletion::Done;
            if before.iter().any(was_deleted) && !partial {
                self.journal.violation("D1", format_args!("{id:032x} was deleted: {query}"));
            } else if !known.is_some_and(Trace::was_sent_whole) {
                let elsewhere = self.ledger.find(*id).is_some();
                self.journal.violation(
                    "P3",
                    format_args!(
                        "trace {id:032x} does not match {query}, sent at all: {elsewhere}"
                    ),
                );
            }
        }
        if partial {
            self.tally.lock().searches_partial += 1;
            return false;
        }
        self.tally.lock().searches_complete += 1;
        let is_kept = |(before, after): &(&Trace, &Trace)| before.is_whole() && after.is_whole();
        for (trace, _) in before.iter().zip(&after).filter(is_kept) {
            if !found.contains_key(&trace.id) {
                let id = trace.hex();
                self.journal.violation("P9", format_args!("{id} is whole and missed by {query}"));
            }
        }
        true
    }
}

impl Actors {
    /// Has traces of a tenant deleted now and then, until `stop`.
    pub(crate) async fn delete(self, tenant: usize, stop: Stop) {
        while stop.or(self.client.clock.sleep(self.millis(5_000, 40_000))).await.is_some() {
            if stop.or(self.delete_some(tenant)).await.is_none() {
                return;
            }
        }
    }

    async fn delete_some(&self, tenant: usize) {
        let now = self.client.clock.now_unix().0;
        let settled = u64::try_from(SETTLED.as_nanos()).unwrap_or(u64::MAX);
        let from = usize::try_from(self.rng.below(self.ledger.len().max(1) as u64)).unwrap_or(0);
        let count = usize::try_from(1 + self.rng.below(DELETED_MAX)).unwrap_or(1);
        let traces = self.ledger.settled(tenant, now.saturating_sub(settled), from, count);
        if traces.is_empty() {
            return;
        }
        let ids: Vec<String> = traces.iter().map(|at| self.ledger.trace(*at).hex()).collect();
        let path = format!("/api/deletions?traceID={}", ids.join("&traceID="));
        self.ledger.deleted(&traces, Deletion::Unknown);
        let querier = self.pick(&self.queriers);
        let asked = self.client.post_json(querier, &path, tenant, Bytes::new(), ANSWER_MAX);
        let status = asked.await.map_or(0, |reply| reply.status);
        self.journal.note(format_args!("delete {} via {querier}: {status}", ids.join(",")));
        if status == 200 {
            self.ledger.deleted(&traces, Deletion::Done);
            self.tally.lock().deleted += traces.len() as u64;
        }
    }

    /// Asks for a trace as somebody else than its owner; nobody else's is ever found.
    pub(crate) async fn peep(&self, index: TraceIndex, querier: &str) {
        let trace = self.ledger.trace(index);
        let path = format!("/api/v2/traces/{}", trace.hex());
        let reply = self.client.get(querier, &path, trace.tenant + 1, ANSWER_MAX).await;
        if let Some(reply) = reply
            && reply.status == 200
            && !spans_of(&reply.json()).is_empty()
        {
            let id = trace.hex();
            self.journal.violation("P6", format_args!("{id} is shown to another tenant"));
        }
    }
}

/// Kinds of queries.
pub(crate) const QUERIES: u64 = 3;

/// A query that only whole traces of a group match.
fn query(kind: u64, group: usize) -> String {
    match kind {
        0 => format!("{{ .group = \"g{group}\" }} | count() = {SPANS}"),
        1 => format!("{{ .group = \"g{group}\" && name = \"root\" }} >> {{ .at = 3 }}"),
        _ => format!("{{ .group = \"g{group}\" && .at = 1 }} && {{ name = \"third\" }}"),
    }
}

/// How often each span is in a trace.
fn spans_of(answer: &Value) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for resource in list(&answer["trace"]["resourceSpans"]) {
        for scope in list(&resource["scopeSpans"]) {
            for span in list(&scope["spans"]) {
                let id = BASE64.decode(span["spanId"].as_str().unwrap_or_default());
                let id = id.ok().and_then(|id| Some(u64::from_be_bytes(id.try_into().ok()?)));
                *found.entry(id.unwrap_or(0)).or_default() += 1;
            }
        }
    }
    found
}

/// How often each trace is among those found.
fn traces_of(reply: &Reply) -> BTreeMap<u128, usize> {
    let mut found = BTreeMap::new();
    for trace in reply.json()["traces"].as_array().cloned().unwrap_or_default() {
        let id = u128::from_str_radix(trace["traceID"].as_str().unwrap_or_default(), 16);
        *found.entry(id.unwrap_or(0)).or_default() += 1;
    }
    found
}
