//! What is expected of the choice and order of search results.

use clap::ValueEnum;

/// Which traces a search returns, and how they are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The newest ones by start, equals by id, whole traces judged, with exact facts.
    Newest,
    /// Any that match, in any order; facts about traces are not compared. For servers that stop at
    /// the first matches they meet and judge the part of a trace that one block holds.
    Any,
}
