//! What the catalog knows about an object: its place in its shard's log and its directory of tenant
//! blocks.

use clew_model::{TenantId, TraceId, UnixNanos};
use clew_ring::ShardId;

use crate::error::DecodeError;
use crate::ident::{Incarnation, LogPoint};
use crate::key::ObjectKey;
use crate::wire;

/// The most tenants that one object may pack.
pub const OBJECT_TENANTS_MAX: usize = 65_536;

/// The largest object, in bytes.
pub const OBJECT_BYTES_MAX: u64 = 1 << 40;

/// One tenant's block inside an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantBlock {
    /// Whose spans it holds.
    pub tenant: TenantId,
    /// Where the block begins in the object, in bytes.
    pub offset: u64,
    /// How long it is, in bytes, with its footer.
    pub length: u64,
    /// How long its footer is, in bytes; it ends the block.
    pub footer_length: u32,
    /// The earliest start of its spans.
    pub min_time: UnixNanos,
    /// The latest end of its spans. Clients send spans that end before they start, so the catalog
    /// raises it to `min_time` where it is earlier.
    pub max_time: UnixNanos,
    /// How many spans it holds.
    pub spans: u64,
    /// How many traces it holds spans of.
    pub traces: u64,
    /// How many of those traces may have spans elsewhere.
    pub splits: u64,
    /// The lowest and the highest trace id, where a compaction cut the tenant's traces into several
    /// blocks. Flushed blocks hold ids of every size, and nothing is noted.
    pub ids: Option<(TraceId, TraceId)>,
}

impl TenantBlock {
    /// Whether the block can hold a trace of that id, as far as the catalog knows.
    pub fn may_hold(&self, id: &TraceId) -> bool {
        self.ids.is_none_or(|(lowest, highest)| lowest <= *id && *id <= highest)
    }
}

/// An object of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its name in the bucket.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size: u64,
    /// A flushed one holds the spans of its shard's log after this index.
    pub from: u64,
    /// A flushed one holds the spans of its shard's log up to and with this entry.
    pub through: LogPoint,
    /// 0 for a flushed object; compaction makes higher ones.
    pub level: u32,
    /// When it was registered. What the proposer writes here is replaced by the catalog's time.
    pub created_at: UnixNanos,
    /// When the youngest of the flushes in it was registered. Decided by the catalog.
    pub data_at: UnixNanos,
    /// Deletions after this revision concern what is in it: for a flushed object when it was
    /// registered, for a compacted one when its job began. Decided by the catalog.
    pub revision: u64,
    /// Its blocks, sorted by tenant, one for each.
    pub tenants: Vec<TenantBlock>,
}

/// Why the description of an object is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// A flush that claims to be a compaction, or the reverse.
    #[error("the object's level does not fit its key: {level}")]
    Level {
        /// Its level.
        level: u32,
    },
    /// The key's index is not the one it is registered for.
    #[error("the object's key is for another log index: {index}")]
    OtherIndex {
        /// The index of the registration.
        index: u64,
    },
    /// The range of log indices is empty.
    #[error("the object covers no log entry: from {from} through {through}")]
    EmptyRange {
        /// The index before the first.
        from: u64,
        /// The last index.
        through: u64,
    },
    /// No bytes, or more than [`OBJECT_BYTES_MAX`].
    #[error("the object's size is out of bounds: {size}")]
    Size {
        /// Its size in bytes.
        size: u64,
    },
    /// More than [`OBJECT_TENANTS_MAX`] tenants.
    #[error("the object packs more than {OBJECT_TENANTS_MAX} tenants: {count}")]
    TooManyTenants {
        /// How many.
        count: usize,
    },
    /// Tenants out of order or listed twice.
    #[error("the object's tenants are not sorted and unique: '{tenant}'")]
    Unsorted {
        /// The first tenant at a wrong place.
        tenant: TenantId,
    },
    /// A block outside the object or a footer outside its block.
    #[error("a block's range is out of bounds: tenant '{tenant}'")]
    BlockRange {
        /// The block's tenant.
        tenant: TenantId,
    },
}

impl ObjectMeta {
    /// The object as bytes, to send it.
    pub fn encode(&self) -> Vec<u8> {
        wire::view::encode_object(self)
    }

    /// The object in `bytes`, checked.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not the encoding of a possible object.
    pub fn decode(bytes: &[u8]) -> Result<ObjectMeta, DecodeError> {
        wire::view::decode_object_alone(bytes)
    }

    /// The shard whose spans it holds.
    pub fn shard(&self) -> ShardId {
        self.key.shard()
    }

    /// The incarnation of the log it was flushed from; nothing for a compacted one.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.key.incarnation()
    }

    /// The block of `tenant`, if it has one.
    pub fn block(&self, tenant: &TenantId) -> Option<&TenantBlock> {
        let at = self.tenants.binary_search_by(|block| block.tenant.cmp(tenant)).ok()?;
        self.tenants.get(at)
    }

    /// Checks that the description is consistent in itself.
    ///
    /// # Errors
    /// The first [`ObjectError`] found.
    pub fn validate(&self) -> Result<(), ObjectError> {
        self.validate_place()?;
        if self.size == 0 || self.size > OBJECT_BYTES_MAX {
            return Err(ObjectError::Size { size: self.size });
        }
        if self.tenants.len() > OBJECT_TENANTS_MAX {
            return Err(ObjectError::TooManyTenants { count: self.tenants.len() });
        }
        if let Some(pair) = self.tenants.windows(2).find(|pair| pair[0].tenant >= pair[1].tenant) {
            return Err(ObjectError::Unsorted { tenant: pair[1].tenant.clone() });
        }
        let fits = |block: &TenantBlock| {
            block.offset.checked_add(block.length).is_some_and(|end| end <= self.size)
                && u64::from(block.footer_length) <= block.length
        };
        match self.tenants.iter().find(|block| !fits(block)) {
            Some(block) => Err(ObjectError::BlockRange { tenant: block.tenant.clone() }),
            None => Ok(()),
        }
    }
}

impl ObjectMeta {
    /// How many spans its blocks hold.
    pub fn spans(&self) -> u64 {
        self.tenants.iter().fold(0, |sum, block| sum.saturating_add(block.spans))
    }

    /// Bytes that belong to no block any more.
    pub fn dead_bytes(&self) -> u64 {
        let held = self.tenants.iter().fold(0u64, |sum, block| sum.saturating_add(block.length));
        self.size.saturating_sub(held)
    }

    /// The latest end of a span in it, as far as it can be believed: a clock of a sender that is
    /// ahead does not keep its spans for ever.
    pub fn last_time(&self, block: &TenantBlock) -> UnixNanos {
        block.max_time.min(self.data_at)
    }

    fn validate_place(&self) -> Result<(), ObjectError> {
        let ObjectKey::Flush(key) = self.key else {
            return match self.level {
                0 => Err(ObjectError::Level { level: 0 }),
                _ => Ok(()),
            };
        };
        let (from, through) = (self.from, self.through.index);
        if self.level != 0 {
            return Err(ObjectError::Level { level: self.level });
        }
        if key.through != through {
            return Err(ObjectError::OtherIndex { index: through });
        }
        if from >= through {
            return Err(ObjectError::EmptyRange { from, through });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> ObjectMeta {
        let block = |tenant: &str, offset| TenantBlock {
            tenant: TenantId::parse(tenant).unwrap(),
            offset,
            length: 50,
            footer_length: 10,
            min_time: UnixNanos(5),
            max_time: UnixNanos(5),
            spans: 1,
            traces: 1,
            splits: 0,
            ids: Some((TraceId([1; 16]), TraceId([2; 16]))),
        };
        ObjectMeta {
            key: ObjectKey::flush(ShardId(0), Incarnation(1), 9, 1),
            size: 100,
            from: 3,
            through: LogPoint { term: 1, leader: 1, index: 9 },
            level: 0,
            created_at: UnixNanos(0),
            data_at: UnixNanos(7),
            revision: 8,
            tenants: vec![block("a", 0), block("b", 50)],
        }
    }

    #[test]
    fn an_object_survives_its_encoding() {
        assert_eq!(ObjectMeta::decode(&object().encode()).unwrap(), object());
        let mut impossible = object();
        impossible.size = 0;
        assert!(ObjectMeta::decode(&impossible.encode()).is_err());
        assert!(ObjectMeta::decode(b"").is_err());
    }

    #[test]
    fn a_consistent_object_is_accepted() {
        assert_eq!(object().validate(), Ok(()));
        assert_eq!(object().block(&TenantId::parse("b").unwrap()).unwrap().offset, 50);
        assert_eq!(object().block(&TenantId::parse("c").unwrap()), None);
    }

    #[test]
    fn inconsistent_objects_are_refused() {
        type Change = fn(&mut ObjectMeta);
        let cases: [(Change, &str); 9] = [
            (|o| o.level = 1, "the object's level does not fit its key: 1"),
            (|o| o.through.index = 10, "the object's key is for another log index: 10"),
            (|o| o.from = 9, "the object covers no log entry: from 9 through 9"),
            (|o| o.size = 0, "the object's size is out of bounds: 0"),
            (|o| o.size = u64::MAX, "the object's size is out of bounds: 18446744073709551615"),
            (|o| o.size = 99, "a block's range is out of bounds: tenant 'b'"),
            (|o| o.tenants[0].offset = u64::MAX, "a block's range is out of bounds: tenant 'a'"),
            (|o| o.tenants[0].footer_length = 51, "a block's range is out of bounds: tenant 'a'"),
            (|o| o.tenants.swap(0, 1), "the object's tenants are not sorted and unique: 'a'"),
        ];
        for (change, message) in cases {
            let mut object = object();
            change(&mut object);
            assert_eq!(object.validate().unwrap_err().to_string(), message);
        }
    }
}
