//! An object packs the blocks of several tenants, one after the other. It has no header: each
//! block describes itself, and the catalog keeps the tenants' places.

use clew_model::TenantId;

use crate::error::BlockError;
use crate::footer::Footer;

/// Where a tenant's block is in an object, and what a planner wants to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantEntry {
    /// Whose block it is.
    pub tenant: TenantId,
    /// Where it begins in the object, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// How many bytes at its end [`Block::open`](crate::Block::open) wants.
    pub tail_length: u32,
    /// The earliest start of a span, nanoseconds since the epoch.
    pub min_start: u64,
    /// The latest end of a span.
    pub max_end: u64,
    /// How many spans there are.
    pub spans: u64,
    /// How many traces there are.
    pub traces: u64,
    /// How many of the traces may have spans elsewhere.
    pub split: u64,
}

impl TenantEntry {
    /// The entry of the block that ends at `end` of its object and has this footer; nothing if it
    /// would begin before the object does. So an object can be read from its end without a catalog:
    /// the block before ends where this one begins.
    pub fn of(footer: &Footer, end: u64) -> Option<TenantEntry> {
        Some(TenantEntry {
            tenant: footer.tenant.clone(),
            offset: end.checked_sub(footer.block_length())?,
            length: footer.block_length(),
            tail_length: footer.tail_length,
            min_start: footer.min_start,
            max_end: footer.max_end,
            spans: footer.spans,
            traces: footer.traces,
            split: footer.split,
        })
    }
}

/// Joins blocks into one object, in the order of their tenants.
///
/// # Errors
/// [`BlockError::Corrupt`] when one of them is no block of the tenant it is given for.
pub fn pack(
    mut blocks: Vec<(TenantId, Vec<u8>)>,
) -> Result<(Vec<u8>, Vec<TenantEntry>), BlockError> {
    blocks.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut object = Vec::with_capacity(blocks.iter().map(|(_, block)| block.len()).sum());
    let mut entries = Vec::with_capacity(blocks.len());
    for (tenant, block) in blocks {
        let footer = Footer::parse(&block)?;
        if footer.tenant != tenant || footer.block_length() != block.len() as u64 {
            return Err(BlockError::corrupt("footer", "it belongs to another block"));
        }
        object.extend_from_slice(&block);
        let entry = TenantEntry::of(&footer, object.len() as u64);
        entries.push(entry.ok_or_else(|| BlockError::corrupt("footer", "its block is longer"))?);
    }
    Ok((object, entries))
}

/// As [`pack`], for the last object of a merge that made `objects` of them: its blocks say so.
///
/// # Errors
/// As [`pack`].
pub fn pack_last(
    blocks: Vec<(TenantId, Vec<u8>)>,
    objects: u32,
) -> Result<(Vec<u8>, Vec<TenantEntry>), BlockError> {
    let say = |(tenant, mut block): (TenantId, Vec<u8>)| {
        let mut footer = Footer::parse(&block)?;
        let start = usize::try_from(footer.footer_start).unwrap_or(usize::MAX);
        footer.heritage.objects = objects;
        block.truncate(start);
        block.extend_from_slice(&footer.to_bytes());
        Ok((tenant, block))
    };
    pack(blocks.into_iter().map(say).collect::<Result<_, BlockError>>()?)
}
