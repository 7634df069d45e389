//! Counters and latencies of a run, shared by everything that sends and reads.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use super::histogram::{Histogram, Summary};
use super::process::Usage;

/// How many different error messages are kept.
const MESSAGES_MAX: usize = 20;

/// What a read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadKind {
    /// A trace by its id.
    ById,
    /// The newest traces of something.
    Search,
    /// From the ack to the first read by id that finds the span.
    FoundById,
    /// From the ack to the first search that finds the trace.
    FoundBySearch,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Spans in requests that were acknowledged.
    pub spans_acked: u64,
    /// Bytes of these requests, before compression.
    pub bytes_acked: u64,
    /// Requests that were acknowledged.
    pub requests_acked: u64,
    /// Attempts the server refused for now.
    pub attempts_put_off: u64,
    /// How many of these it gave a pause for.
    pub attempts_hinted: u64,
    /// Attempts without an answer, at all or in time.
    pub attempts_unanswered: u64,
    /// Attempts that were repeated after one of these.
    pub attempts_retried: u64,
    /// Requests whose fate is unknown: given up, or refused.
    pub requests_unknown: u64,
    /// Spans the server said it rejected, in requests it took.
    pub spans_rejected: u64,
    /// Reads that failed.
    pub reads_failed: u64,
    /// Spans found later than they should be.
    pub found_late: u64,
    /// Spans not found at all in the time given.
    pub never_found: u64,
    /// Reads left out because too many were under way.
    pub reads_skipped: u64,
}

/// One interval of the run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Point {
    /// End of the interval, in seconds since the start.
    pub at_seconds: f64,
    /// Spans acknowledged, per second.
    pub spans_per_second: f64,
    /// Attempts that were repeated, in the interval.
    pub retried: u64,
    /// Latency of acknowledgements.
    pub ack: Summary,
    /// Latency of reads of all kinds.
    pub read: Summary,
    /// From an ack to the first read that finds the span.
    pub found: Summary,
    /// Processor use of the server, in cores.
    pub cpu_cores: Option<f64>,
    /// Memory of the server, in bytes.
    pub rss_bytes: Option<u64>,
}

/// The shared measurements of a run.
#[derive(Debug, Default)]
pub struct Stats(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    totals: Totals,
    ack: Histogram,
    lag: Histogram,
    reads: BTreeMap<ReadKind, Histogram>,
    messages: BTreeMap<String, u64>,
    interval: Interval,
    points: Vec<Point>,
}

#[derive(Debug, Default)]
struct Interval {
    start: Duration,
    spans: u64,
    retried: u64,
    ack: Histogram,
    read: Histogram,
    found: Histogram,
    usage: Option<Usage>,
}

impl Stats {
    /// A request was acknowledged `latency` after it was sent, and sent `lag` after it was due.
    pub fn acked(&self, spans: u64, bytes: u64, latency: Duration, lag: Duration) {
        let inner = &mut *self.0.lock();
        inner.totals.spans_acked += spans;
        inner.totals.bytes_acked += bytes;
        inner.totals.requests_acked += 1;
        inner.ack.record(latency);
        inner.lag.record(lag);
        inner.interval.spans += spans;
        inner.interval.ack.record(latency);
    }

    /// The server refused an attempt for now; `hinted` if it said for how long.
    pub fn put_off(&self, hinted: bool, reason: &str) {
        let inner = &mut *self.0.lock();
        inner.totals.attempts_put_off += 1;
        inner.totals.attempts_hinted += u64::from(hinted);
        inner.note(reason);
    }

    /// An attempt had no answer, at all or in time.
    pub fn unanswered(&self, reason: &str) {
        let inner = &mut *self.0.lock();
        inner.totals.attempts_unanswered += 1;
        inner.note(reason);
    }

    /// An attempt is repeated.
    pub fn retried(&self) {
        let inner = &mut *self.0.lock();
        inner.totals.attempts_retried += 1;
        inner.interval.retried += 1;
    }

    /// A request is not repeated any more.
    pub fn given_up(&self) {
        self.0.lock().totals.requests_unknown += 1;
    }

    /// A request was refused for good.
    pub fn unknown(&self, reason: &str) {
        let inner = &mut *self.0.lock();
        inner.totals.requests_unknown += 1;
        inner.note(reason);
    }

    /// The server took a request and rejected some of its spans.
    pub fn rejected(&self, spans: u64, reason: &str) {
        let inner = &mut *self.0.lock();
        inner.totals.spans_rejected += spans;
        inner.totals.requests_unknown += 1;
        inner.note(reason);
    }

    /// A read was answered.
    pub fn read(&self, kind: ReadKind, latency: Duration) {
        let inner = &mut *self.0.lock();
        inner.reads.entry(kind).or_default().record(latency);
        match kind {
            ReadKind::ById | ReadKind::Search => inner.interval.read.record(latency),
            ReadKind::FoundById | ReadKind::FoundBySearch => inner.interval.found.record(latency),
        }
    }

    /// A read failed.
    pub fn read_failed(&self, reason: &str) {
        let inner = &mut *self.0.lock();
        inner.totals.reads_failed += 1;
        inner.note(reason);
    }

    /// A span was found later than it should be, or not at all.
    pub fn late(&self, never: bool, what: &str) {
        let inner = &mut *self.0.lock();
        if never {
            inner.totals.never_found += 1;
            inner.note(what);
        } else {
            inner.totals.found_late += 1;
        }
    }

    /// A read was left out.
    pub fn read_skipped(&self) {
        self.0.lock().totals.reads_skipped += 1;
    }

    /// Ends an interval at `now` and returns it.
    pub fn tick(&self, now: Duration, usage: Option<Usage>) -> Point {
        let inner = &mut *self.0.lock();
        let last = std::mem::take(&mut inner.interval);
        inner.interval.start = now;
        inner.interval.usage = usage;
        let seconds = now.saturating_sub(last.start).as_secs_f64().max(1e-9);
        let cpu_cores = usage
            .zip(last.usage)
            .map(|(new, old)| new.cpu.saturating_sub(old.cpu).as_secs_f64() / seconds);
        let point = Point {
            at_seconds: now.as_secs_f64(),
            spans_per_second: last.spans as f64 / seconds,
            retried: last.retried,
            ack: last.ack.summary(),
            read: last.read.summary(),
            found: last.found.summary(),
            cpu_cores,
            rss_bytes: usage.map(|usage| usage.rss_bytes),
        };
        inner.points.push(point);
        point
    }

    /// Forgets the interval so far: the start of a run.
    pub fn start(&self, now: Duration, usage: Option<Usage>) {
        self.0.lock().interval = Interval { start: now, usage, ..Interval::default() };
    }

    /// Counts since the start.
    pub fn totals(&self) -> Totals {
        self.0.lock().totals
    }

    /// Latency of acknowledgements.
    pub fn ack_summary(&self) -> Summary {
        self.0.lock().ack.summary()
    }

    /// How much later than due requests were sent.
    pub fn lag_summary(&self) -> Summary {
        self.0.lock().lag.summary()
    }

    /// Latencies of reads by kind.
    pub fn read_summaries(&self) -> BTreeMap<ReadKind, Summary> {
        self.0.lock().reads.iter().map(|(kind, latency)| (*kind, latency.summary())).collect()
    }

    /// The intervals so far.
    pub fn points(&self) -> Vec<Point> {
        self.0.lock().points.clone()
    }

    /// What went wrong, with how often.
    pub fn messages(&self) -> BTreeMap<String, u64> {
        self.0.lock().messages.clone()
    }
}

impl Inner {
    fn note(&mut self, message: &str) {
        let mut key = without_numbers(message);
        if self.messages.len() >= MESSAGES_MAX && !self.messages.contains_key(&key) {
            "others".clone_into(&mut key);
        }
        *self.messages.entry(key).or_default() += 1;
    }
}

/// A message with `#` for every word that has a digit, so that messages about the same thing count
/// together whatever number, id or address they name. HTTP status codes stay.
fn without_numbers(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let is_number = word.contains(|c: char| c.is_ascii_digit()) && !out.ends_with("HTTP ");
        out.push_str(if is_number { "#" } else { word });
        let mut after = after.chars();
        out.extend(after.next());
        rest = after.as_str();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_what_happened_since_the_last() {
        let stats = Stats::default();
        let usage = |seconds| {
            Some(Usage { cpu: Duration::from_secs(seconds), rss_bytes: 5, peak_rss_bytes: 5 })
        };
        stats.start(Duration::ZERO, usage(10));
        stats.acked(100, 5000, Duration::from_millis(3), Duration::ZERO);
        stats.put_off(true, "busy");
        stats.retried();
        stats.read(ReadKind::Search, Duration::from_millis(2));
        stats.read(ReadKind::FoundBySearch, Duration::from_millis(5));
        let first = stats.tick(Duration::from_secs(2), usage(13));
        assert_eq!((first.spans_per_second, first.retried, first.ack.count), (50.0, 1, 1));
        assert_eq!((first.read.count, first.found.count), (1, 1));
        assert_eq!(first.cpu_cores, Some(1.5));
        let second = stats.tick(Duration::from_secs(3), None);
        assert_eq!((second.spans_per_second, second.retried), (0.0, 0));
        assert_eq!(second.cpu_cores, None);
        assert_eq!(stats.totals().spans_acked, 100);
        assert_eq!(stats.points().len(), 2);
    }

    #[test]
    fn messages_are_bounded() {
        let stats = Stats::default();
        for number in 0..100 {
            stats.unknown(&"x".repeat(number));
        }
        let messages = stats.messages();
        assert_eq!(messages.len(), MESSAGES_MAX + 1);
        assert_eq!(messages["others"], 80);
        assert_eq!(stats.totals().requests_unknown, 100);
    }

    #[test]
    fn messages_that_differ_in_numbers_count_together() {
        let stats = Stats::default();
        stats.put_off(true, "queue of shard 3 holds 33554100 bytes, HTTP 429");
        stats.put_off(true, "queue of shard 11 holds 33554417 bytes, HTTP 429");
        stats.unanswered("queue of shard 11 holds 33554417 bytes, HTTP 503");
        let messages = stats.messages();
        assert_eq!(messages["queue of shard # holds # bytes, HTTP 429"], 2);
        assert_eq!(messages.len(), 2);
        assert_eq!(without_numbers("trace 00ab-12: é 10s"), "trace #-#: é #");
    }
}
