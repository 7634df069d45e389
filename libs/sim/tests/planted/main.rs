//! A test that cannot fail tests nothing: a defect that is planted in production code is noticed. In a
//! program of its own, since what is planted is planted for all of it.

use clew_sim::{Options, PLANTED, WITHIN, run};

#[test]
fn planted_defects_are_noticed() {
    for (name, what) in PLANTED {
        let is_noticed = |seed| {
            let planted = Some(name.to_owned());
            let report = run(&Options { planted, ..Options::of(seed) }).unwrap();
            !report.violations.is_empty()
        };
        assert!((1..=WITHIN).any(is_noticed), "{name} is not noticed: {what}");
    }
}
