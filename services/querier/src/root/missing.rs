//! What an answer lacks: which place could not be read, and why.

use std::collections::{BTreeMap, BTreeSet};

/// Places named in one message; the rest is counted.
const NAMED_MAX: usize = 8;

/// The longest reason for one place, in characters.
const REASON_CHARS_MAX: usize = 200;

/// The places that an answer lacks. None means that it is complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    places: BTreeMap<String, String>,
    reasons: BTreeSet<&'static str>,
}

impl Missing {
    /// Notes that `place` could not be read. `reason` is a word for metrics, `why` is for people.
    pub(crate) fn add(&mut self, reason: &'static str, place: String, why: impl Into<String>) {
        let why: String = why.into();
        let why = why.chars().take(REASON_CHARS_MAX).collect();
        self.reasons.insert(reason);
        self.places.entry(place).or_insert(why);
    }

    /// Adds what another part of the answer lacks.
    pub(crate) fn merge(&mut self, other: Missing) {
        self.reasons.extend(other.reasons);
        for (place, why) in other.places {
            self.places.entry(place).or_insert(why);
        }
    }

    /// Whether `place` is among them.
    pub(crate) fn has(&self, place: &str) -> bool {
        self.places.contains_key(place)
    }

    /// Whether the answer is complete.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The words for metrics.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = &'static str> {
        self.reasons.iter().copied()
    }

    /// The text for people, or nothing for a complete answer.
    pub(crate) fn message(&self) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let named = self.places.iter().take(NAMED_MAX);
        let mut parts: Vec<String> = named.map(|(place, why)| format!("{place}: {why}")).collect();
        if let Some(more) = self.places.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            parts.push(format!("and {more} more"));
        }
        Some(parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_once_and_bounded() {
        let mut missing = Missing::default();
        assert_eq!(missing.message(), None);
        missing.add("shard", "shard 2".to_owned(), "no leader");
        missing.add("shard", "shard 2".to_owned(), "again");
        assert_eq!(missing.message().unwrap(), "shard 2: no leader");
        let mut other = Missing::default();
        for at in 0..9 {
            other.add("block", format!("block {at}"), "x".repeat(1_000));
        }
        missing.merge(other);
        let message = missing.message().unwrap();
        assert!(message.ends_with("and 2 more") && message.len() < 2_000, "{message}");
        assert_eq!(missing.reasons().collect::<Vec<_>>(), ["block", "shard"]);
    }
}
