//! What the steps of a search cost, for whoever asks to have it explained.

use clew_proto::query::v1::Inspected;

use super::Root;

/// One step of a search, summed over the places it read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StepCost {
    /// What the step does.
    pub(crate) step: &'static str,
    /// Blocks, heads or traces it read.
    pub(crate) places: u64,
    /// Traces it kept.
    pub(crate) kept: u64,
    /// What it looked at.
    pub(crate) inspected: Inspected,
    /// How long it took; steps may run at the same time.
    pub(crate) nanos: u64,
}

impl StepCost {
    pub(super) fn new(step: &'static str, places: usize) -> StepCost {
        let places = places as u64;
        StepCost { step, places, kept: 0, inspected: Inspected::default(), nanos: 0 }
    }

    /// Adds what an answer says that it took.
    pub(super) fn add(&mut self, kept: usize, inspected: Option<&Inspected>) {
        self.kept = self.kept.saturating_add(kept as u64);
        let Some(more) = inspected else { return };
        let sum = &mut self.inspected;
        for (sum, more) in [
            (&mut sum.traces, more.traces),
            (&mut sum.spans, more.spans),
            (&mut sum.bytes, more.bytes),
            (&mut sum.reads, more.reads),
            (&mut sum.read_bytes, more.read_bytes),
            (&mut sum.candidates, more.candidates),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

impl Root {
    /// The output of a step, and how long it took in nanoseconds.
    pub(super) async fn timed<T>(&self, step: impl Future<Output = T>) -> (T, u64) {
        let began = self.clock.monotonic();
        let output = step.await;
        let took = self.clock.monotonic().saturating_sub(began);
        (output, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
    }
}
