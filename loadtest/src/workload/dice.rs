//! Random draws that are the same for the same seed on every release: built on the raw output of
//! ChaCha, not on the distributions of a library, whose results may change between versions.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A source of draws, one independent stream per number.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The draws of `stream` under `seed`.
    pub fn new(seed: u64, stream: u64) -> Dice {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Dice(rng)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; zero when `bound` is zero.
    #[allow(clippy::cast_possible_truncation, reason = "the upper half of a product fits")]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A position in a list of `len` entries; zero when it is empty.
    #[allow(clippy::cast_possible_truncation, reason = "below a usize")]
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A position in a list of `len` entries where the first ones come up far more often: of
    /// 10,000, the first has a share of 4.6 %, the first hundred 21 %.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a product of a length and a number from 0 to 1"
    )]
    pub fn skewed(&mut self, len: usize) -> usize {
        let unit = self.unit();
        ((len as f64 * unit * unit * unit) as usize).min(len.saturating_sub(1))
    }

    /// Whether something of `per_mille` thousandths happens.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of `list`, which must not be empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.index(list.len())]
    }

    /// A number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A draw of the standard normal distribution (Box and Muller's way).
    pub fn normal(&mut self) -> f64 {
        // One minus: the logarithm of zero is not wanted.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// `fraction` of `nanos`, both included in the range 0 to `nanos`.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a product of a duration and a number from 0 to 1"
    )]
    pub fn part_of(nanos: u64, fraction: f64) -> u64 {
        (nanos as f64 * fraction.clamp(0.0, 1.0)) as u64
    }

    /// Puts the entries in random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.index(at + 1));
        }
    }

    /// `N` random bytes that are not all zero.
    pub fn id<const N: usize>(&mut self) -> [u8; N] {
        let mut id = [0; N];
        while id == [0; N] {
            self.0.fill_bytes(&mut id);
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_by_seed_and_number() {
        let draw = |seed, stream| Dice::new(seed, stream).bits();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn draws_stay_in_range() {
        let mut dice = Dice::new(7, 0);
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.skewed(0), 0);
        for _ in 0..10_000 {
            assert!(dice.between(3, 5) - 3 <= 2);
            assert!(dice.skewed(10) < 10);
            assert!((0.0..1.0).contains(&dice.unit()));
        }
    }

    #[test]
    fn skew_makes_hot_keys() {
        let mut dice = Dice::new(7, 1);
        let hot = (0..100_000).filter(|_| dice.skewed(10_000) == 0).count();
        assert!((4_000..5_300).contains(&hot), "{hot}");
    }
}
