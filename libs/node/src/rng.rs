//! Randomness as a value: seeded by the operating system in production, by a number in tests.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// A cheap handle to a generator of random numbers.
#[derive(Clone)]
pub struct Rng(Arc<Mutex<ChaCha12Rng>>);

impl Rng {
    /// Seeded by the operating system.
    #[allow(clippy::disallowed_methods, reason = "the one place that asks for entropy")]
    pub fn from_os() -> Rng {
        Rng(Arc::new(Mutex::new(ChaCha12Rng::from_os_rng())))
    }

    /// The same numbers for the same seed.
    pub fn seeded(seed: u64) -> Rng {
        Rng(Arc::new(Mutex::new(ChaCha12Rng::seed_from_u64(seed))))
    }

    /// The next 64 random bits.
    pub fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }

    /// A number below `bound`; zero when `bound` is zero.
    pub fn below(&self, bound: u64) -> u64 {
        // The bias of the modulo is below 2^-32 for the bounds used here (delays, small sets).
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }
}

impl std::fmt::Debug for Rng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rng")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_numbers() {
        let draw = |seed| {
            let rng = Rng::seeded(seed);
            [rng.next_u64(), rng.next_u64()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
