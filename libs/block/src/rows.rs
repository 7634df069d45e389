//! Sets of rows: what a lookup answers and what a query intersects and unites.

use std::ops::Range;

use roaring::RoaringBitmap;

/// A set of rows of one span table or of one block.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowSet(pub(crate) RoaringBitmap);

impl RowSet {
    /// No row.
    pub fn new() -> RowSet {
        RowSet(RoaringBitmap::new())
    }

    /// The rows in `range`.
    pub fn from_range(range: Range<u32>) -> RowSet {
        let mut rows = RoaringBitmap::new();
        rows.insert_range(range);
        RowSet(rows)
    }

    /// The set of rows that ascend.
    pub fn from_ascending(rows: &[u32]) -> RowSet {
        let mut set = RowSet::new();
        set.extend_sorted(rows);
        set
    }

    /// How many rows there are.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `row` is in the set.
    pub fn contains(&self, row: u32) -> bool {
        self.0.contains(row)
    }

    /// Adds one row.
    pub fn insert(&mut self, row: u32) {
        self.0.insert(row);
    }

    /// Adds the rows in `range`.
    pub fn insert_range(&mut self, range: Range<u32>) {
        self.0.insert_range(range);
    }

    /// Keeps the rows that are also in `other`.
    pub fn intersect(&mut self, other: &RowSet) {
        self.0 &= &other.0;
    }

    /// Adds the rows of `other`.
    pub fn unite(&mut self, other: &RowSet) {
        self.0 |= &other.0;
    }

    /// Removes the rows of `other`.
    pub fn subtract(&mut self, other: &RowSet) {
        self.0 -= &other.0;
    }

    /// How many rows are in both sets.
    pub fn intersection_len(&self, other: &RowSet) -> u64 {
        self.0.intersection_len(&other.0)
    }

    /// The rows, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter()
    }

    /// The rows within `range`, ascending.
    pub fn range(&self, range: Range<u32>) -> impl Iterator<Item = u32> + '_ {
        self.0.range(range)
    }

    /// The smallest row at or after `row`.
    pub fn first_at_or_after(&self, row: u32) -> Option<u32> {
        self.0.range(row..).next()
    }

    /// Adds rows that ascend and come in any relation to those there are.
    pub(crate) fn extend_sorted(&mut self, rows: &[u32]) {
        if self.0.append(rows.iter().copied()).is_err() {
            // Not all above the present maximum: append stops at the first such row.
            self.0.extend(rows.iter().copied());
        }
    }
}

impl FromIterator<u32> for RowSet {
    fn from_iter<I: IntoIterator<Item = u32>>(rows: I) -> RowSet {
        RowSet(rows.into_iter().collect())
    }
}

/// What a lookup found.
#[derive(Debug, Clone, PartialEq)]
pub struct LookupResult {
    /// Every row that can pass the condition, and maybe others.
    pub rows: RowSet,
    /// Whether every one of the rows passes it.
    pub exact: bool,
}

impl LookupResult {
    pub(crate) fn exactly(rows: RowSet) -> LookupResult {
        LookupResult { rows, exact: true }
    }

    pub(crate) fn at_most(rows: RowSet) -> LookupResult {
        LookupResult { rows, exact: false }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn extending_equals_inserting(parts: Vec<BTreeSet<u32>>) {
            let mut extended = RowSet::new();
            let mut model = BTreeSet::new();
            for part in parts {
                extended.extend_sorted(&part.iter().copied().collect::<Vec<_>>());
                model.extend(part);
            }
            prop_assert_eq!(extended.iter().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
