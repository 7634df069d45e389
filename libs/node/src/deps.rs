//! The world a role is built in.

use crate::{Clock, Metrics, Rng, Tasks};

/// Clock, randomness, tasks and metrics of one process, cheap to clone.
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
}

impl Deps {
    /// The real world.
    pub fn system(compute_max: usize) -> Deps {
        Deps {
            clock: Clock::system(),
            rng: Rng::from_os(),
            tasks: Tasks::new(compute_max),
            metrics: Metrics::new(),
        }
    }
}
