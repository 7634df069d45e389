//! A test that cannot fail tests nothing: a defect that is planted in production code is noticed. In a
//! program of its own, since what is planted is planted for all of it.

use clew_sim::{Options, PLANTED, run};

/// Every defect is noticed within the number of seeds that it should.
#[test]
fn planted_defects_are_noticed() {
    for planted in PLANTED {
        let Some(within) = planted.within else { continue };
        let is_noticed = |seed| {
            let name = Some(planted.name.to_owned());
            let report = run(&Options { planted: name, ..Options::of(seed) }).unwrap();
            !report.violations.is_empty()
        };
        assert!((1..=within).any(is_noticed), "{} is not noticed", planted.name);
    }
}
