//! When spans are due: a fixed schedule, so that a slow answer does not slow the questions down.

use std::time::Duration;

/// How fast spans are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As fast as they are taken.
    FlatOut,
    /// At a rate, which is reached after a ramp.
    Rate {
        /// Spans per second.
        spans_per_second: f64,
        /// How long the rate takes to rise evenly from zero.
        ramp: Duration,
    },
}

impl Pace {
    /// When the span after `spans` others is due, since the start; none for at once.
    pub fn due(self, spans: u64) -> Option<Duration> {
        let Pace::Rate { spans_per_second, ramp } = self else { return None };
        let (spans, ramp) = (spans as f64, ramp.as_secs_f64());
        // Within the ramp the count grows with the square of time.
        let in_ramp = spans_per_second * ramp / 2.0;
        let seconds = if spans < in_ramp {
            (2.0 * ramp * spans / spans_per_second).sqrt()
        } else {
            ramp / 2.0 + spans / spans_per_second
        };
        // A rate so low that the time overflows is never due.
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_without_ramp_is_even() {
        let pace = Pace::Rate { spans_per_second: 100.0, ramp: Duration::ZERO };
        assert_eq!(pace.due(0), Some(Duration::ZERO));
        assert_eq!(pace.due(250), Some(Duration::from_millis(2500)));
        assert_eq!(Pace::FlatOut.due(250), None);
    }

    #[test]
    fn a_ramp_sends_half_as_much_while_it_lasts_and_joins_the_rate() {
        let pace = Pace::Rate { spans_per_second: 100.0, ramp: Duration::from_secs(10) };
        assert_eq!(pace.due(500), Some(Duration::from_secs(10)));
        assert_eq!(pace.due(125), Some(Duration::from_secs(5)));
        assert_eq!(pace.due(600), Some(Duration::from_secs(11)));
    }
}
