//! Makes the faults of a run that fails fewer, until none can be left out any more.

/// The smallest part of `faults` with which `fails` is still true, as far as leaving out pieces finds it: larger
/// ones first, then single ones, until no single one can go (delta debugging: Zeller and Hildebrandt,
/// "Simplifying and Isolating Failure-Inducing Input", 2002). `fails` is taken to be true for all of them.
pub fn smallest(faults: Vec<u64>, mut fails: impl FnMut(&[u64]) -> bool) -> Vec<u64> {
    let mut kept = faults;
    let mut piece = kept.len();
    while piece > 0 {
        let mut at = 0;
        let mut is_smaller = false;
        while at < kept.len() {
            let end = kept.len().min(at + piece);
            let without = [&kept[..at], &kept[end..]].concat();
            if fails(&without) {
                kept = without;
                is_smaller = true;
            } else {
                at = end;
            }
        }
        // What could not go before may go now.
        if piece > 1 || !is_smaller {
            piece = (piece / 2).min(kept.len());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::smallest;

    proptest! {
        /// What is left fails, and would not without any one of it.
        #[test]
        fn nothing_more_can_be_left_out(
            all in proptest::collection::btree_set(0u64..80, 0..60),
            needed in proptest::collection::vec(0u64..80, 0..5),
            either in (0u64..80, 0u64..80),
        ) {
            let needed: BTreeSet<u64> = needed.into_iter().filter(|at| all.contains(at)).collect();
            let has_either = |kept: &[u64]| kept.contains(&either.0) || kept.contains(&either.1);
            let needs_either = all.contains(&either.0) || all.contains(&either.1);
            let fails = |kept: &[u64]| {
                needed.iter().all(|at| kept.contains(at)) && (!needs_either || has_either(kept))
            };
            let left = smallest(all.into_iter().collect(), fails);
            prop_assert!(fails(&left));
            for at in 0..left.len() {
                let mut fewer = left.clone();
                fewer.remove(at);
                prop_assert!(!fails(&fewer));
            }
        }
    }
}
