//! What a store, or another node, may be asked on top of what its users ask: every request earns a
//! tenth of an extra one, so that whoever is in trouble is not given much more to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// An extra request costs as much as this many requests earn.
const COST: i64 = 10;

/// A budget of extra requests, full at first. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    saved: Arc<AtomicI64>,
    saved_max: i64,
}

impl Budget {
    /// A budget that saves up `extra_max` extra requests at most: bursts of that many are paid.
    pub fn of(extra_max: u32) -> Budget {
        let saved_max = i64::from(extra_max) * COST;
        Budget { saved: Arc::new(AtomicI64::new(saved_max)), saved_max }
    }

    /// Counts a request.
    pub fn earn(&self) {
        let earned = |saved: i64| (saved < self.saved_max).then_some(saved + 1);
        // A full budget stays as it is.
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
    }

    /// Pays for an extra request; false if there is not enough.
    pub fn spend(&self) -> bool {
        let spent = |saved: i64| (saved >= COST).then_some(saved - COST);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_requests_pay_for_one() {
        let budget = Budget::of(2);
        assert!(budget.spend() && budget.spend() && !budget.spend());
        (0..9).for_each(|_| budget.earn());
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend() && !budget.spend());
        (0..1_000).for_each(|_| budget.earn());
        assert!(budget.spend() && budget.spend() && !budget.spend());
    }
}
