//! Makes waves ahead of the senders and hands their requests out in order, with the time each is
//! due.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_model::{SpanId, TraceId};
use clew_node::{Clock, Tasks};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::pace::Pace;
use crate::error::Error;
use crate::ledger::Journal;
use crate::target::Otlp;
use crate::workload::{DataSet, Value, Wave, World};

/// When sending ends, apart from the end of the data set. Waves are always sent whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// With the data set.
    Traces,
    /// After the wave that reaches so many spans.
    Spans(u64),
    /// After so much time, even when sending is behind its schedule by then.
    Time(Duration),
}

/// A request ready to be sent.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The wave it is of.
    pub wave: u64,
    /// Its position in the wave.
    pub request: u32,
    /// Whose spans these are.
    pub tenant: u64,
    /// How many spans it carries.
    pub spans: u64,
    /// Its size before compression.
    pub bytes: u64,
    /// The body.
    pub body: Bytes,
    /// One of its spans, to look for once it is acknowledged.
    pub sample: Option<Sample>,
    /// When it should be sent, since the start; none for at once.
    pub due: Option<Duration>,
}

/// A span that can be looked for.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// Its unique `request.id`.
    pub request_id: String,
}

/// The requests of one wave.
pub(super) struct MadeWave {
    number: u64,
    batches: Vec<Batch>,
}

/// What makes waves.
pub(super) struct Feed {
    pub(super) world: Arc<World>,
    pub(super) data_set: Arc<DataSet>,
    pub(super) otlp: Arc<Otlp>,
    pub(super) journal: Arc<Mutex<Journal>>,
    pub(super) tasks: Tasks,
    pub(super) clock: Clock,
    pub(super) pace: Pace,
    pub(super) extent: Extent,
    /// How many waves are made at the same time.
    pub(super) makers: usize,
}

impl Feed {
    /// Makes every wave, keeps them in memory. Only for a data set of known length.
    pub(super) async fn make_all(&self) -> Result<Vec<MadeWave>, Error> {
        let mut waves = Vec::new();
        let mut spans = 0;
        let mut made = std::pin::pin!(self.make());
        while let Some(wave) = made.next().await {
            let wave = wave?;
            spans += wave.batches.iter().map(|batch| batch.spans).sum::<u64>();
            waves.push(wave);
            if matches!(self.extent, Extent::Spans(wanted) if spans >= wanted) {
                break;
            }
        }
        Ok(waves)
    }

    /// Waves in order, made a few ahead.
    fn make(&self) -> impl futures::Stream<Item = Result<MadeWave, Error>> {
        let makers = self.makers.max(1);
        futures::stream::iter(0..self.data_set.waves())
            .map(move |number| {
                let (world, data_set) = (Arc::clone(&self.world), Arc::clone(&self.data_set));
                let otlp = Arc::clone(&self.otlp);
                let tasks = self.tasks.clone();
                async move {
                    let made = tasks.compute(move || make_wave(&world, &data_set, &otlp, number));
                    Ok(made.await?)
                }
            })
            .buffered(makers + 1)
    }

    /// Hands requests out until the end is reached or `stopped` says so; `start` is the time of the
    /// clock at which the schedule begins.
    pub(super) async fn run(
        &self,
        made: Option<Vec<MadeWave>>,
        start: Duration,
        out: mpsc::Sender<Batch>,
        stopped: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let mut spans = 0;
        let waves = match made {
            Some(waves) => futures::stream::iter(waves.into_iter().map(Ok)).left_stream(),
            None => self.make().right_stream(),
        };
        let mut waves = std::pin::pin!(waves);
        while !stopped() && !self.reached(spans, start) {
            let Some(wave) = waves.next().await else { break };
            let wave = wave?;
            let count = u32::try_from(wave.batches.len()).unwrap_or(u32::MAX);
            self.journal.lock().begin(wave.number, count);
            for mut batch in wave.batches {
                batch.due = self.pace.due(spans);
                spans += batch.spans;
                if out.send(batch).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn reached(&self, spans: u64, start: Duration) -> bool {
        match self.extent {
            Extent::Traces => false,
            Extent::Spans(wanted) => spans >= wanted,
            Extent::Time(wanted) => {
                let is_due_later = self.pace.due(spans).is_some_and(|due| due >= wanted);
                is_due_later || self.clock.monotonic().saturating_sub(start) >= wanted
            }
        }
    }
}

fn make_wave(world: &World, data_set: &DataSet, otlp: &Otlp, number: u64) -> MadeWave {
    let wave = Wave::new(world, data_set, number);
    let batches = (0..wave.requests.len())
        .map(|at| {
            let body = wave.encode_request(world, at);
            Batch {
                wave: number,
                request: u32::try_from(at).unwrap_or(u32::MAX),
                tenant: data_set.tenant_of(number),
                spans: wave.requests[at].len() as u64,
                bytes: body.len() as u64,
                body: otlp.prepare(body),
                sample: sample(&wave, at),
                due: None,
            }
        })
        .collect();
    MadeWave { number, batches }
}

/// The first span of a request that has an id of its own to search for.
fn sample(wave: &Wave<'_>, request: usize) -> Option<Sample> {
    wave.requests[request].iter().find_map(|&(trace, span)| {
        let span = &wave.traces[trace].spans[span];
        let Value::Text(id) = span.attribute("request.id")? else { return None };
        let (trace, request_id) = (wave.traces[trace].id, id.to_string());
        Some(Sample { trace, span: span.span_id, request_id })
    })
}
