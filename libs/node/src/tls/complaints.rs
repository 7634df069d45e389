//! Saying a thing once, and then not for a while: who cannot connect tries again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::Clock;

/// How long a complaint that was made need not be made again.
const QUIET: Duration = Duration::from_secs(600);

/// Complaints that are remembered; past it all are forgotten, so that some are made again.
const REMEMBERED_MAX: usize = 1_024;

/// What was complained of, and when.
#[derive(Debug)]
pub(crate) struct Complaints {
    clock: Clock,
    made: Mutex<BTreeMap<String, Duration>>,
}

impl Complaints {
    pub(crate) fn new(clock: &Clock) -> Complaints {
        Complaints { clock: clock.clone(), made: Mutex::default() }
    }

    /// Whether this was not said lately. Whoever asks says it.
    pub(crate) fn is_news(&self, what: &str) -> bool {
        let now = self.clock.monotonic();
        let mut made = self.made.lock();
        if made.get(what).is_some_and(|at| now.saturating_sub(*at) < QUIET) {
            return false;
        }
        if made.len() >= REMEMBERED_MAX {
            made.clear();
        }
        made.insert(what.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualTime;

    #[test]
    fn a_thing_is_said_once_and_later_again() {
        let time = ManualTime::default();
        let complaints = Complaints::new(&time.clock());
        assert!(complaints.is_news("a"));
        assert!(!complaints.is_news("a"));
        assert!(complaints.is_news("b"));
        time.advance(QUIET);
        assert!(complaints.is_news("a"));
        for other in 0..REMEMBERED_MAX * 2 {
            complaints.is_news(&other.to_string());
        }
        assert!(complaints.made.lock().len() <= REMEMBERED_MAX);
    }
}
