//! Values as TraceQL sees them: literals in a query and attribute values on a span.

use std::sync::Arc;

/// Span status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// `unset`
    Unset,
    /// `ok`
    Ok,
    /// `error`
    Error,
}

/// Span kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `unspecified`
    Unspecified,
    /// `internal`
    Internal,
    /// `server`
    Server,
    /// `client`
    Client,
    /// `producer`
    Producer,
    /// `consumer`
    Consumer,
}

/// A value without a type error in it.
#[derive(Debug, Clone, PartialEq)]
pub enum Static {
    /// Absent.
    Nil,
    /// A 64-bit integer.
    Int(i64),
    /// A double.
    Float(f64),
    /// Text, compared bytewise.
    String(Arc<str>),
    /// True or false.
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    /// A status word.
    Status(Status),
    /// A kind word.
    Kind(Kind),
    /// An array attribute; elements are scalars, possibly of several types.
    Array(Vec<Static>),
}
