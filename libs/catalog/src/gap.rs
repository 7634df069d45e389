//! Gaps: what was acknowledged and is gone, as far as a restored catalog can tell. Queries that may
//! miss something of it say so until an operator has it forgotten.

use std::fmt;

use clew_model::UnixNanos;
use clew_ring::ShardId;

use crate::ident::Incarnation;
use crate::key::ObjectKey;

/// The most gaps that the catalog remembers; of more the last stands for the rest.
pub const GAPS_MAX: usize = 4_096;

/// Something that is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// Whose spans.
    pub shard: ShardId,
    /// The incarnation of its log; 0 where only an object is known.
    pub incarnation: Incarnation,
    /// The index before the first entry.
    pub from: u64,
    /// The last entry.
    pub through: u64,
    /// The object that is gone, where only that is known.
    pub object: Option<ObjectKey>,
    /// The earliest start that a span in it may have.
    pub min_time: UnixNanos,
    /// The latest end that a span in it may have.
    pub max_time: UnixNanos,
    /// When it was found.
    pub at: UnixNanos,
}

impl Gap {
    /// A gap in a log, whose spans may be of any time.
    pub(crate) fn of_log(
        shard: ShardId,
        incarnation: Incarnation,
        (from, through): (u64, u64),
        at: UnixNanos,
    ) -> Gap {
        let (min_time, max_time) = (UnixNanos(0), UnixNanos(u64::MAX));
        Gap { shard, incarnation, from, through, object: None, min_time, max_time, at }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { shard, incarnation, from, through, object, .. } = self;
        match object {
            Some(object) => write!(f, "shard {shard}: object {object}"),
            None => {
                let first = from.saturating_add(1);
                write!(f, "shard {shard}, incarnation {incarnation}: entries {first} to {through}")
            }
        }
    }
}
