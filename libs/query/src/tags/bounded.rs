//! A sorted set that keeps its first members when it outgrows its bounds.

use std::collections::BTreeSet;

/// What has a size in an answer.
pub(super) trait Weighed {
    /// About how many bytes it takes there.
    fn bytes(&self) -> u64;
}

/// The first members that fit, whatever the order in which they come.
#[derive(Debug, Clone)]
pub(super) struct BoundedSet<T> {
    count_max: usize,
    bytes_max: u64,
    members: BTreeSet<T>,
    bytes: u64,
    /// From here on members did not fit: none of them is kept, also when it is small. So the
    /// answer has no gaps.
    ceiling: Option<T>,
}

impl<T: Ord + Weighed> BoundedSet<T> {
    pub(super) fn new(count_max: usize, bytes_max: u64) -> BoundedSet<T> {
        BoundedSet { count_max, bytes_max, members: BTreeSet::new(), bytes: 0, ceiling: None }
    }

    /// An empty set with the same bounds.
    pub(super) fn fresh(&self) -> BoundedSet<T> {
        BoundedSet::new(self.count_max, self.bytes_max)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn insert(&mut self, member: T) {
        if self.ceiling.as_ref().is_some_and(|ceiling| member >= *ceiling) {
            return;
        }
        let bytes = member.bytes();
        if !self.members.insert(member) {
            return;
        }
        self.bytes += bytes;
        while self.members.len() > self.count_max || self.bytes > self.bytes_max {
            let Some(last) = self.members.pop_last() else { return };
            self.bytes -= last.bytes();
            self.ceiling = Some(last);
        }
    }

    /// Takes the members of another set; what that one had to leave out is left out here too.
    pub(super) fn absorb(&mut self, other: BoundedSet<T>) {
        other.members.into_iter().for_each(|member| self.insert(member));
        let Some(ceiling) = other.ceiling else { return };
        if self.ceiling.as_ref().is_none_or(|own| *own > ceiling) {
            for left_out in self.members.split_off(&ceiling) {
                self.bytes -= left_out.bytes();
            }
            self.ceiling = Some(ceiling);
        }
    }

    pub(super) fn into_members(self) -> impl Iterator<Item = T> {
        self.members.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Weighed for String {
        fn bytes(&self) -> u64 {
            self.len() as u64
        }
    }

    /// The first members of a sorted set that fit.
    fn prefix(all: &BTreeSet<String>, count_max: usize, bytes_max: u64) -> Vec<String> {
        let mut bytes = 0;
        let fits = |member: &&String| {
            bytes += member.len() as u64;
            bytes <= bytes_max
        };
        all.iter().take(count_max).take_while(fits).cloned().collect()
    }

    proptest! {
        #[test]
        fn what_is_kept_is_the_prefix_that_fits(
            parts in prop::collection::vec(prop::collection::vec("[a-c]{0,6}", 0..12), 0..4),
            count_max in 0usize..10,
            bytes_max in 0u64..30,
        ) {
            let all: BTreeSet<String> = parts.iter().flatten().cloned().collect();
            let expected = prefix(&all, count_max, bytes_max);

            let mut one = BoundedSet::new(count_max, bytes_max);
            parts.iter().flatten().cloned().for_each(|member| one.insert(member));
            prop_assert_eq!(one.into_members().collect::<Vec<_>>(), &expected[..]);

            let mut joined = BoundedSet::new(count_max, bytes_max);
            for part in parts {
                let mut set = joined.fresh();
                part.into_iter().for_each(|member| set.insert(member));
                joined.absorb(set);
            }
            prop_assert_eq!(joined.into_members().collect::<Vec<_>>(), expected);
        }
    }
}
