//! What Clew must reach and what it aims for, on one core of a common machine, for the reference
//! workload of a million spans.

/// A number that must be reached, and one that is aimed for; less is better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goal {
    pub(super) must: f64,
    pub(super) aim: f64,
}

const fn goal(must: f64, aim: f64) -> Option<Goal> {
    Some(Goal { must, aim })
}

/// Processor seconds per million spans until all of them are in blocks.
pub(super) const CPU_SECONDS: Option<Goal> = goal(13.0, 8.0);
/// Bytes per span in the bucket, index included.
pub(super) const BYTES: Option<Goal> = goal(83.0, 65.0);
/// Peak memory while a million spans come in, in megabytes.
pub(super) const PEAK_MEGABYTES: Option<Goal> = goal(500.0, 200.0);
/// From the ack until a search finds the span, in milliseconds, for 99 of 100.
pub(super) const FOUND_MILLIS: Option<Goal> = goal(1000.0, 100.0);

/// Processor milliseconds per query of a class, by the name of the class.
pub(super) fn query(class: &str) -> Option<Goal> {
    match class {
        "trace by id" => goal(3.0, 0.7),
        "trace by id, unknown" => goal(0.5, 0.2),
        "unique value, scoped" => goal(6.0, 2.0),
        "user, unscoped" => goal(12.0, 4.0),
        "common value, newest 20" => goal(6.0, 2.0),
        "service and error, newest 20" => goal(8.0, 3.0),
        "method POST, all" => goal(400.0, 200.0),
        "slow database updates, all" => goal(40.0, 10.0),
        "status code >= 500, all" => goal(80.0, 40.0),
        "regex on a route, all" => goal(150.0, 80.0),
        "error below a service, all" => goal(150.0, 80.0),
        "more than 5 spans of a service, all" => goal(120.0, 60.0),
        "error below a service, newest 20" | "more than 5 spans of a service, newest 20" => {
            goal(15.0, 5.0)
        }
        "attribute names" => goal(5.0, 1.0),
        "attribute values" => goal(1.0, 0.5),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::classes;
    use crate::workload::tests::data_set;

    #[test]
    fn every_measured_search_has_a_goal() {
        let data_set = data_set(100);
        for class in classes(&data_set.world(), &data_set) {
            assert_eq!(query(class.name).is_some(), class.timed, "{}", class.name);
        }
    }
}
