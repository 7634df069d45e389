//! Stretches of a log, each the entries in (from, through].

use super::FoundObject;

/// Those that touch or overlap joined, ascending; empty ones left out.
pub(super) fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.retain(|(from, through)| from < through);
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (from, through) in ranges {
        match joined.last_mut() {
            Some((_, end)) if from <= *end => *end = (*end).max(through),
            _ => joined.push((from, through)),
        }
    }
    joined
}

/// Whether all of `range` is in `covered`, which is joined.
pub(super) fn hold(covered: &[(u64, u64)], range: (u64, u64)) -> bool {
    covered.iter().any(|(from, through)| *from <= range.0 && range.1 <= *through)
}

/// What lies between `start` and the end of `covered` and is not in it; `covered` is joined.
pub(super) fn holes(start: u64, covered: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut border = start;
    let mut holes = Vec::new();
    for (from, through) in covered {
        if *from > border {
            holes.push((border, *from));
        }
        border = border.max(*through);
    }
    holes
}

/// Of the flushes of one log those to read: none overlaps another or `fixed` (joined), and together
/// they hold as many entries as possible.
///
/// A flush holds exactly the spans of its entries, whoever made it, since a committed entry is the same
/// everywhere. So when several leaders flushed with different borders, any choice that overlaps
/// nowhere and leaves nothing out is right. This is weighted interval scheduling.
pub(super) fn choose<'a>(
    flushes: Vec<&'a FoundObject>,
    fixed: &[(u64, u64)],
) -> Vec<&'a FoundObject> {
    let range = |found: &FoundObject| (found.object.from, found.object.through.index);
    let overlaps = |(from, through): (u64, u64)| {
        let next = fixed.partition_point(|(_, end)| *end <= from);
        fixed.get(next).is_some_and(|(begin, _)| *begin < through)
    };
    let mut flushes: Vec<_> = flushes.into_iter().filter(|f| !overlaps(range(f))).collect();
    flushes.sort_by_key(|found| (range(found).1, range(found).0, found.object.key));
    // The most entries that the first so many flushes can hold.
    let mut best: Vec<u64> = vec![0];
    let before = |at: usize| {
        let (from, _) = range(flushes[at]);
        flushes[..at].partition_point(|found| range(found).1 <= from)
    };
    for at in 0..flushes.len() {
        let (from, through) = range(flushes[at]);
        let with = best[before(at)].saturating_add(through - from);
        best.push(with.max(best[at]));
    }
    let mut chosen = Vec::new();
    let mut at = flushes.len();
    while at > 0 {
        if best[at] > best[at - 1] {
            chosen.push(flushes[at - 1]);
            at = before(at - 1);
        } else {
            at -= 1;
        }
    }
    chosen.reverse();
    chosen
}

#[cfg(test)]
mod tests {
    use clew_model::UnixNanos;
    use clew_ring::ShardId;
    use proptest::prelude::*;

    use super::*;
    use crate::ident::{Incarnation, LogPoint};
    use crate::key::ObjectKey;
    use crate::object::ObjectMeta;

    fn flush(from: u64, through: u64, random: u64) -> FoundObject {
        let object = ObjectMeta {
            key: ObjectKey::flush(ShardId(0), Incarnation(1), through, random),
            size: 1,
            from,
            through: LogPoint { index: through, ..LogPoint::default() },
            level: 0,
            created_at: UnixNanos(0),
            data_at: UnixNanos(0),
            revision: 0,
            tenants: vec![],
        };
        let (replaces, covers) = Default::default();
        FoundObject { object, replaces, covers, objects_of_merge: 0 }
    }

    fn chosen(flushes: &[FoundObject], fixed: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let chosen = choose(flushes.iter().collect(), fixed);
        chosen.iter().map(|f| (f.object.from, f.object.through.index)).collect()
    }

    #[test]
    fn of_leaders_with_other_borders_one_way_is_taken() {
        let flushes = [flush(0, 10, 1), flush(0, 12, 2), flush(10, 20, 3), flush(12, 15, 4)];
        assert_eq!(chosen(&flushes, &[]), [(0, 10), (10, 20)]);
        assert_eq!(chosen(&flushes, &[(0, 12)]), [(12, 15)]);
        assert_eq!(chosen(&flushes, &[(0, 10)]), [(10, 20)]);
        assert_eq!(chosen(&flushes, &[(0, 30)]), []);
        assert_eq!(holes(0, &[(0, 12), (15, 20)]), [(12, 15)]);
        assert_eq!(holes(0, &[(5, 12)]), [(0, 5)]);
        assert_eq!(holes(7, &[]), []);
    }

    proptest! {
        #[test]
        fn no_choice_holds_more(
            ranges in prop::collection::vec((0..20u64, 1..8u64), 0..9),
            fixed in prop::collection::vec((0..20u64, 1..4u64), 0..3),
        ) {
            let flushes: Vec<_> =
                ranges.iter().zip(0..).map(|((f, n), at)| flush(*f, f + n, at)).collect();
            let fixed = joined(fixed.into_iter().map(|(f, n)| (f, f + n)).collect());
            let entries = |ranges: &[(u64, u64)]| ranges.iter().map(|(f, t)| t - f).sum::<u64>();
            let apart = |ranges: &[(u64, u64)]| {
                let all: Vec<_> = ranges.iter().chain(&fixed).copied().collect();
                entries(&joined(all.clone())) == entries(&all)
            };
            let chosen = chosen(&flushes, &fixed);
            prop_assert!(apart(&chosen));
            for choice in 0..1u32 << flushes.len() {
                let other = flushes.iter().enumerate().filter(|(at, _)| choice & (1 << at) != 0);
                let other: Vec<_> =
                    other.map(|(_, f)| (f.object.from, f.object.through.index)).collect();
                prop_assert!(!apart(&other) || entries(&other) <= entries(&chosen));
            }
        }
    }
}
