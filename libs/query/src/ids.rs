//! Lists of trace ids as they travel: 16 bytes each, one after the other; and the set F of traces
//! that may lie in several places.

use std::sync::Arc;

use clew_model::TraceId;

use crate::QueryError;

/// Bytes of one id on the wire.
const ID_BYTES: usize = 16;

/// The ids one after the other.
pub fn encode_ids<'a>(ids: impl IntoIterator<Item = &'a TraceId>) -> Vec<u8> {
    ids.into_iter().flat_map(|id| id.0).collect()
}

/// The ids of a list as it travels, in its order.
///
/// # Errors
/// [`QueryError::BadRequest`] when the bytes are no whole number of ids.
pub fn decode_ids(bytes: &[u8]) -> Result<Vec<TraceId>, QueryError> {
    let (ids, rest) = bytes.as_chunks::<ID_BYTES>();
    if !rest.is_empty() {
        return Err(QueryError::bad("trace ids", format!("not a multiple of 16: {}", bytes.len())));
    }
    Ok(ids.iter().map(|id| TraceId(*id)).collect())
}

/// The set F: traces that may have spans in several places. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitSet(Arc<[TraceId]>);

impl Default for SplitSet {
    fn default() -> Self {
        SplitSet(Arc::new([]))
    }
}

impl SplitSet {
    /// Whether the trace may lie in several places.
    pub fn contains(&self, id: &TraceId) -> bool {
        self.0.binary_search(id).is_ok()
    }

    /// Whether no trace is split.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids, ascending.
    pub fn ids(&self) -> &[TraceId] {
        &self.0
    }
}

impl FromIterator<TraceId> for SplitSet {
    fn from_iter<I: IntoIterator<Item = TraceId>>(ids: I) -> SplitSet {
        let mut ids: Vec<TraceId> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        SplitSet(ids.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_round_trip_and_odd_lengths_are_refused() {
        let ids = [TraceId([2; 16]), TraceId([1; 16])];
        assert_eq!(decode_ids(&encode_ids(&ids)).unwrap(), ids);
        assert!(decode_ids(&[0; 17]).is_err());
        let set: SplitSet = ids.into_iter().chain(ids).collect();
        assert_eq!(set.ids(), [TraceId([1; 16]), TraceId([2; 16])]);
        assert!(set.contains(&ids[0]) && !set.contains(&TraceId([3; 16])));
    }
}
