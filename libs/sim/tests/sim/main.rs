//! A few seeds, and what makes a seed worth something: that it gives one course. Built with the feature
//! `simulation` only.

use std::time::Duration;

use clew_sim::{Options, run};

/// Every promise holds under fifty seeds; `make sim` runs more.
#[test]
fn promises_hold() {
    // Two at a time: a run has one thread.
    std::thread::scope(|threads| {
        for half in [101..=125, 126..=150] {
            threads.spawn(move || {
                for seed in half {
                    let report = run(&Options::of(seed)).unwrap();
                    assert!(report.violations.is_empty(), "{report:#?}");
                }
            });
        }
    });
}

/// One seed gives one order of events, one next random number and one end, however often it is run.
#[cfg_attr(not(tokio_unstable), ignore = "tokio's dice are seeded with --cfg tokio_unstable only")]
#[test]
fn a_seed_gives_one_course() {
    for seed in 1..=3 {
        let options = Options { chaos: Duration::from_secs(60), ..Options::of(seed) };
        let first = run(&options).unwrap();
        assert!(first.events > 1_000, "{first:?}");
        assert_eq!(first, run(&options).unwrap());
    }
}
