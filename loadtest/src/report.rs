//! The report of a run: one structure, printed as a table, as JSON and as a page with plots.

mod html;
mod plot;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

pub use self::html::to_html;
pub(crate) use self::table::put_findings;
pub use self::table::to_text;
use crate::check::Findings;
use crate::error::Error;
use crate::measure::{Point, ReadKind, Stats, Summary, Totals};
use crate::overload::Overload;
use crate::queries::Cost;
use crate::send::Outcome;
use crate::soak::Crash;
use crate::verify::Verified;
use crate::workload::DataSet;

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of this program.
    pub version: &'static str,
    /// Where queries went.
    pub server: String,
    /// What was sent.
    pub data_set: DataSet,
    /// How sending went.
    pub sending: Option<Sending>,
    /// How servers were killed meanwhile.
    pub crashes: Vec<Crash>,
    /// How the server bore more than it can take, if that was tried.
    pub overload: Option<Overload>,
    /// Reads while sending, by kind.
    pub reads: BTreeMap<ReadKind, Summary>,
    /// What was verified.
    pub verified: Option<Verified>,
    /// What queries cost.
    pub queries: Vec<Cost>,
    /// Wrong answers to measured queries.
    pub findings: Findings,
    /// The run second by second.
    pub points: Vec<Point>,
}

/// How sending went.
#[derive(Debug, Serialize)]
pub struct Sending {
    /// From the first request to the last answer, in seconds.
    pub seconds: f64,
    /// Counts.
    pub totals: Totals,
    /// Acknowledged spans per second.
    pub spans_per_second: f64,
    /// Acknowledged bytes per second, before compression.
    pub bytes_per_second: f64,
    /// Mean size of a span, its share of resource and scope included, in bytes.
    pub bytes_per_span: f64,
    /// From sending a request to its ack.
    pub ack: Summary,
    /// From when a request was due to when it was sent.
    pub lag: Summary,
    /// What went wrong, with how often.
    pub messages: BTreeMap<String, u64>,
    /// What the server used, if it was watched.
    pub server: Option<ServerUse>,
}

/// What the server used while spans were sent.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ServerUse {
    /// Processor time, in seconds.
    pub cpu_seconds: f64,
    /// Processor time per million acknowledged spans, in seconds.
    pub cpu_seconds_per_million_spans: f64,
    /// The most memory since the server started, in bytes.
    pub peak_rss_bytes: u64,
}

impl Sending {
    /// How the run went that `stats` counted.
    pub fn new(outcome: &Outcome, stats: &Stats) -> Sending {
        let totals = stats.totals();
        let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
        let (spans, bytes) = (totals.spans_acked as f64, totals.bytes_acked as f64);
        let server = outcome.usage.map(|(before, after)| {
            let cpu_seconds = after.cpu.saturating_sub(before.cpu).as_secs_f64();
            ServerUse {
                cpu_seconds,
                cpu_seconds_per_million_spans: cpu_seconds / (spans / 1e6).max(1e-9),
                peak_rss_bytes: after.peak_rss_bytes,
            }
        });
        Sending {
            seconds,
            totals,
            spans_per_second: spans / seconds,
            bytes_per_second: bytes / seconds,
            bytes_per_span: bytes / spans.max(1.0),
            ack: stats.ack_summary(),
            lag: stats.lag_summary(),
            messages: stats.messages(),
            server,
        }
    }
}

impl Report {
    /// A report about `data_set` at `server` that says nothing yet.
    pub fn about(server: &str, data_set: &DataSet) -> Report {
        Report {
            version: env!("CARGO_PKG_VERSION"),
            server: server.to_owned(),
            data_set: data_set.clone(),
            sending: None,
            crashes: Vec::new(),
            overload: None,
            reads: BTreeMap::new(),
            verified: None,
            queries: Vec::new(),
            findings: Findings::default(),
            points: Vec::new(),
        }
    }

    /// The report with how a run went.
    #[must_use]
    pub fn sent(self, outcome: &Outcome, stats: &Stats) -> Report {
        Report {
            sending: Some(Sending::new(outcome, stats)),
            reads: stats.read_summaries(),
            points: stats.points(),
            ..self
        }
    }

    /// Whether the server did what it promised: nothing wrong, nothing lost, nothing refused.
    pub fn is_clean(&self) -> bool {
        let sent = self.sending.as_ref().is_none_or(|sending| {
            let totals = &sending.totals;
            // Under overload requests are refused, and given up in the end.
            let unknown = self.overload.is_none() && totals.requests_unknown > 0;
            !unknown && totals.never_found == 0
        });
        let sent = sent && self.overload.as_ref().is_none_or(Overload::is_clean);
        let verified = self.verified.as_ref().is_none_or(|v| v.findings.total() == 0);
        sent && verified && self.findings.total() == 0
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save_json(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self);
        save(path, &text.map_err(|error| broken(path, &error))?)
    }

    /// Writes the report as a page.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save_html(&self, path: &Path) -> Result<(), Error> {
        save(path, to_html(self).as_bytes())
    }
}

fn save(path: &Path, content: &[u8]) -> Result<(), Error> {
    std::fs::write(path, content).map_err(|error| broken(path, &error))
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::File { path: path.display().to_string(), reason: error.to_string() }
}

/// What a kind of read is called.
fn read_name(kind: ReadKind) -> &'static str {
    match kind {
        ReadKind::ById => "read by id",
        ReadKind::Search => "search",
        ReadKind::FoundById => "ack to found by id",
        ReadKind::FoundBySearch => "ack to found by search",
    }
}
