//! What can be wrong with a query, and what can go wrong while one is evaluated.

use clew_model::ErrorKind;

/// A query that does not parse or does not type-check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse error at line {line}, col {col}: {message}")]
pub struct QueryError {
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub col: usize,
    /// What is wrong, for the author of the query.
    pub message: String,
}

impl QueryError {
    /// The error at byte `offset` of `text`.
    pub(crate) fn at(text: &str, offset: usize, message: String) -> QueryError {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let col = before.get(line_start..).map_or(0, |line| line.chars().count()) + 1;
        QueryError { line, col, message }
    }

    /// Always [`ErrorKind::Invalid`].
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// A failure at a byte of the query text, before its line is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fail {
    pub(crate) offset: usize,
    pub(crate) message: String,
}

impl Fail {
    pub(crate) fn new(offset: usize, message: impl Into<String>) -> Fail {
        Fail { offset, message: message.into() }
    }

    pub(crate) fn in_text(self, text: &str) -> QueryError {
        QueryError::at(text, self.offset, self.message)
    }
}

/// A query that is well-formed but cannot be evaluated on this data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// An integer was divided by the integer zero, or its remainder taken.
    #[error("integer division by zero")]
    DivisionByZero,
    /// Arithmetic on an array attribute.
    #[error("arithmetic on an array attribute")]
    ArrayArithmetic,
    /// A filter relates events to links, and one span has too many of both.
    #[error("too many pairs of events and links on a span: {events} events, {links} links")]
    TooManyPairs {
        /// Events on the span.
        events: usize,
        /// Links on the span.
        links: usize,
    },
    /// A structural operator found several spansets on one of its sides.
    #[error(
        "`{operator}` needs one spanset on each side, but one side is several spansets of a trace; \
         merge them with coalesce() first"
    )]
    SeveralSpansets {
        /// The operator as written.
        operator: &'static str,
    },
    /// One trace fell into more spansets than an answer may hold.
    #[error("more than {limit} groups in one trace; group by something with fewer values")]
    TooManySpansets {
        /// The bound.
        limit: usize,
    },
}

impl EvalError {
    /// Always [`ErrorKind::Invalid`]: the query has to change.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let error = QueryError::at("{ .é =\n  ? }", "{ .é =\n  ".len(), "bad".to_owned());
        assert_eq!((error.line, error.col), (2, 3));
        assert_eq!(error.to_string(), "parse error at line 2, col 3: bad");
        assert_eq!(QueryError::at("é", 2, String::new()).col, 2);
        assert_eq!(QueryError::at("", 0, String::new()).line, 1);
    }
}
