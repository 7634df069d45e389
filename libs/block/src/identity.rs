//! What a catalog says of a block, to notice when the bucket holds another block in its place: whole
//! and with checksums that hold, so nothing but its footer tells.

use clew_model::TenantId;

use crate::error::BlockError;
use crate::footer::Footer;

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whose block it is.
    pub tenant: TenantId,
    /// The shard that its object's key names.
    pub shard: u64,
    /// The incarnation and the last log index that the key of a flushed object names; nothing for a
    /// merged one.
    pub flush: Option<(u64, u64)>,
    /// How many spans it holds.
    pub spans: u64,
    /// How many traces it holds.
    pub traces: u64,
    /// How many of them may have spans elsewhere.
    pub split: u64,
    /// The earliest start of a span, nanoseconds since the epoch.
    pub min_start: u64,
    /// The latest end of a span. One before `min_start` is the same as that.
    pub max_end: u64,
}

impl Identity {
    /// Whether the block with this footer is the one.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] naming what is another's.
    pub fn check(&self, footer: &Footer) -> Result<(), BlockError> {
        let origin = footer.origin;
        let is_same_flush =
            self.flush.is_none_or(|flush| flush == (origin.incarnation, origin.through));
        let later = |end: u64| end.max(self.min_start);
        let checks = [
            (footer.tenant == self.tenant, "it is another tenant's block"),
            (origin.shard == self.shard, "it is a block of another shard"),
            (is_same_flush, "it is a block of another flush"),
            (footer.spans == self.spans, "it has not as many spans as registered"),
            (footer.traces == self.traces, "it has not as many traces as registered"),
            (footer.split == self.split, "it has not as many split traces as registered"),
            (footer.min_start == self.min_start, "its spans begin at another time than registered"),
            (
                later(footer.max_end) == later(self.max_end),
                "its spans end at another time than registered",
            ),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            Some((_, reason)) => Err(BlockError::corrupt("footer", reason)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::footer::{FORMAT_VERSION, Origin};
    use crate::heritage::Heritage;

    fn footer() -> Footer {
        Footer {
            version: FORMAT_VERSION,
            tenant: TenantId::single(),
            origin: Origin { shard: 3, incarnation: 2, from: 10, through: 20 },
            lineage: Vec::new(),
            spans: 9,
            traces: 4,
            split: 1,
            min_start: 100,
            max_end: 200,
            sections: Vec::new(),
            heritage: Heritage::default(),
            tail_length: 0,
            footer_start: 0,
            footer_length: 0,
        }
    }

    fn identity() -> Identity {
        Identity {
            tenant: TenantId::single(),
            shard: 3,
            flush: Some((2, 20)),
            spans: 9,
            traces: 4,
            split: 1,
            min_start: 100,
            max_end: 200,
        }
    }

    #[test]
    fn another_blocks_footer_is_noticed() {
        type Change = fn(&mut Footer);
        let changes: [Change; 9] = [
            |footer| footer.tenant = TenantId::parse("other").unwrap(),
            |footer| footer.origin.shard = 4,
            |footer| footer.origin.incarnation = 1,
            |footer| footer.origin.through = 21,
            |footer| footer.spans = 8,
            |footer| footer.traces = 5,
            |footer| footer.split = 0,
            |footer| footer.min_start = 101,
            |footer| footer.max_end = 199,
        ];
        assert!(identity().check(&footer()).is_ok());
        for change in changes {
            let mut other = footer();
            change(&mut other);
            let refused = identity().check(&other);
            assert!(matches!(refused, Err(BlockError::Corrupt { .. })), "{other:?}");
        }
        // A merged block tells no flush, and a time that was raised is the same.
        let merged = Identity { flush: None, ..identity() };
        assert!(
            merged
                .check(&Footer { origin: Origin { shard: 3, ..Origin::default() }, ..footer() })
                .is_ok()
        );
        let raised = Identity { max_end: 100, ..identity() };
        assert!(raised.check(&Footer { max_end: 50, ..footer() }).is_ok());
    }
}
