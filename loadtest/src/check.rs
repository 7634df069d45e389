//! Comparison of answers with what they must be. A difference is a [`Finding`]; each comparison is
//! a pure function of the answer's bytes.

mod by_id;
mod order;
mod search;
mod tags;

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::by_id::{Expected, compare_trace, holds_span, is_absent};
pub use self::order::Order;
pub use self::search::{Index, compare_search, names_trace};
pub use self::tags::{compare_names, compare_values};

/// How many findings are kept in full per subject; all are counted.
const KEPT_MAX: usize = 5;

/// An answer that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind of question.
    pub subject: String,
    /// The question itself: an address.
    pub asked: String,
    /// What is wrong with the answer.
    pub details: Vec<String>,
}

/// Wrong answers, counted by subject, the first few of each in full.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// How many, by subject.
    pub counts: BTreeMap<String, u64>,
    /// The first ones of each subject.
    pub kept: Vec<Finding>,
}

impl Findings {
    /// Notes what is wrong with an answer, if anything is. True if nothing is.
    pub fn note(&mut self, subject: &str, asked: &str, details: Vec<String>) -> bool {
        if details.is_empty() {
            return true;
        }
        let count = self.counts.entry(subject.to_owned()).or_default();
        *count += 1;
        if *count <= KEPT_MAX as u64 {
            let (subject, asked) = (subject.to_owned(), asked.to_owned());
            self.kept.push(Finding { subject, asked, details });
        }
        false
    }

    /// How many answers were wrong.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Adds others.
    pub fn append(&mut self, other: Findings) {
        for (subject, count) in other.counts {
            *self.counts.entry(subject).or_default() += count;
        }
        self.kept.extend(other.kept);
    }
}

/// A list of differences that stays short.
#[derive(Default)]
struct Differences {
    shown: Vec<String>,
    more: u64,
}

impl Differences {
    const SHOWN_MAX: usize = 6;

    fn add(&mut self, difference: String) {
        if self.shown.len() < Self::SHOWN_MAX {
            self.shown.push(difference);
        } else {
            self.more += 1;
        }
    }

    fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.shown.push(format!("and {} more", self.more));
        }
        self.shown
    }
}

/// Reads a JSON answer. What is wrong with it is text for people.
fn parse_json<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, String> {
    if status != StatusCode::OK {
        return Err(format!("HTTP {status}: {}", excerpt(body)));
    }
    // Serde would take a list for an object, too.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(format!("answer is no JSON object: {}", excerpt(body)));
    }
    serde_json::from_slice(body)
        .map_err(|error| format!("answer does not parse: {error}: {}", excerpt(body)))
}

/// The start of a body, for messages.
fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_and_the_first_kept() {
        let mut findings = Findings::default();
        assert!(findings.note("search", "a", Vec::new()));
        for _ in 0..20 {
            assert!(!findings.note("search", "a", vec!["wrong".to_owned()]));
        }
        assert!(!findings.note("by id", "b", vec!["wrong".to_owned()]));
        assert_eq!((findings.total(), findings.kept.len()), (21, KEPT_MAX + 1));
    }
}
