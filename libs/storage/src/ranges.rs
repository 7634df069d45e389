//! Which ranges to fetch together: a request costs more than the bytes between two near ranges.

use std::ops::Range;

/// Ranges at most this far apart, in bytes, are fetched together.
const GAP_MAX: u64 = 128 << 10;

/// Ranges are not joined beyond this length, in bytes, so that long reads run side by side.
const JOINED_MAX: u64 = 8 << 20;

/// The reads that [`Bucket::get_ranges`](crate::Bucket::get_ranges) makes, which together hold all
/// `ranges`: ascending, apart from each other, and each no longer
/// than it must be. Empty ranges need none.
pub fn joined(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = ranges.iter().filter(|r| !r.is_empty()).cloned().collect();
    sorted.sort_by_key(|range| (range.start, range.end));
    let mut reads: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match reads.last_mut() {
            Some(last) if belongs(last, &range) => last.end = last.end.max(range.end),
            _ => reads.push(range),
        }
    }
    reads
}

fn belongs(last: &Range<u64>, range: &Range<u64>) -> bool {
    let near = range.start.saturating_sub(last.end) <= GAP_MAX;
    range.start < last.end || (near && range.end - last.start <= JOINED_MAX)
}

/// The place of the read that holds `range`, among reads from [`joined`]; none for an empty range.
pub(crate) fn holder(joined: &[Range<u64>], range: &Range<u64>) -> Option<usize> {
    let after = joined.partition_point(|read| read.start <= range.start);
    let place = after.checked_sub(1)?;
    (!range.is_empty() && range.end <= joined.get(place)?.end).then_some(place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn near_ranges_are_joined_and_far_ones_are_not() {
        let far = 1_000 + GAP_MAX;
        let ranges = [10..20, 0..5, far + 1..far + 2, 900..1_000, 7..7];
        assert_eq!(joined(&ranges), [0..1_000, far + 1..far + 2]);
        let long = [0..JOINED_MAX, JOINED_MAX..JOINED_MAX + 1, 5..JOINED_MAX + 1];
        assert_eq!(joined(&long), vec![0..JOINED_MAX + 1; 1]);
        assert_eq!(joined(&long[..2]).len(), 2);
    }

    proptest! {
        #[test]
        fn every_range_has_one_read(
            given in prop::collection::vec((0..50 * GAP_MAX, 0..2 * GAP_MAX), 0..30),
        ) {
            let ranges: Vec<Range<u64>> =
                given.iter().map(|(start, length)| *start..start + length).collect();
            let joined = joined(&ranges);
            for pair in joined.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
            }
            for range in &ranges {
                match holder(&joined, range) {
                    Some(place) => {
                        let read = &joined[place];
                        prop_assert!(read.start <= range.start && range.end <= read.end);
                    }
                    None => prop_assert!(range.is_empty()),
                }
            }
            let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            let fetched: u64 = joined.iter().map(|range| range.end - range.start).sum();
            prop_assert!(fetched <= wanted + GAP_MAX * ranges.len() as u64);
        }
    }
}
