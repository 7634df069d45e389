//! The world a role is built in.

use crate::{Clock, CpuTime, Metrics, Rng, Tasks};

/// Clock, randomness, tasks, metrics and processor time of one process, cheap to clone.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub rng: Rng,
    /// Background work.
    pub tasks: Tasks,
    /// Where metrics are registered.
    pub metrics: Metrics,
    /// Where the processor time of ingest is counted.
    pub cpu: CpuTime,
}

impl Deps {
    /// The real world.
    pub fn system(compute_max: usize) -> Deps {
        let metrics = Metrics::new();
        Deps {
            cpu: CpuTime::system(&metrics),
            clock: Clock::system(),
            rng: Rng::from_os(),
            tasks: Tasks::new(compute_max),
            metrics,
        }
    }
}
